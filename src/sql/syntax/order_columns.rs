//! Qualifies columns in ORDER BY expressions that have the same name as an alias of the select list.
//!
//! ```text
//!   SELECT -x AS x FROM t ORDER BY -x                          ─►  … ORDER BY -t.x
//!   SELECT k, sum(x) AS x FROM t GROUP BY k ORDER BY sum(x)    ─►  … ORDER BY sum(t.x)
//! ```
//!
//! As in PostgreSQL, a name that is a whole ORDER BY item refers to the alias, and a name inside an expression refers to
//! the column. The engine would use the alias for both. A name inside an expression refers to the alias only if the FROM
//! clause has no such column; PostgreSQL refuses such a statement.

use std::ops::ControlFlow;

use datafusion::execution::session_state::SessionState;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    Expr, OrderBy, OrderByKind, Query, Select, SelectItem, SetExpr, TableFactor, TableWithJoins, VisitMut as _,
    VisitorMut,
};

use crate::error::{Error, Result};
use crate::sql::syntax::from_columns::FromColumns;
use crate::sql::syntax::merged_columns::relation_name;
use crate::sql::syntax::tree::{column_name, name_of, query_of, quoted, visit};

/// Qualifies the columns in a statement and its subqueries.
pub(crate) fn rewrite(statement: &mut Statement, state: &SessionState) -> Result<()> {
    let Some(query) = query_of(statement) else { return Ok(()) };
    visit(query, &mut OrderColumns { columns: FromColumns::new(state), scopes: Vec::new() })
}

struct OrderColumns<'a> {
    columns: FromColumns<'a>,
    /// For each query around the visited node, the number of WITH queries in scope outside that query.
    scopes: Vec<usize>,
}

impl VisitorMut for OrderColumns<'_> {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        self.scopes.push(self.columns.len());
        if let Some(with) = &query.with {
            with.cte_tables.iter().for_each(|cte| self.columns.push(cte, with.recursive));
        }
        if let (SetExpr::Select(select), Some(OrderBy { kind: OrderByKind::Expressions(order_by), .. })) =
            (&*query.body, &mut query.order_by)
        {
            let aliases = computed_aliases(select);
            let mut names = Names { aliases: &aliases, depth: 0, columns: &self.columns, select, relations: None };
            let expressions = order_by.iter_mut().map(|order| &mut order.expr);
            for expr in expressions.filter(|expr| !aliases.is_empty() && column_name(expr).is_none()) {
                expr.visit(&mut names)?;
            }
        }
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<Error> {
        if let Some(outer) = self.scopes.pop() {
            self.columns.truncate(outer);
        }
        ControlFlow::Continue(())
    }
}

/// Returns the aliases of a select list, except those that only repeat the name of a column.
fn computed_aliases(select: &Select) -> Vec<String> {
    let alias = |item: &SelectItem| match item {
        SelectItem::ExprWithAlias { expr, alias } => {
            Some(name_of(alias)).filter(|name| column_name(expr).as_ref() != Some(name))
        }
        _ => None,
    };
    select.projection.iter().filter_map(alias).collect()
}

/// A visitor that qualifies the names in an expression. In the subqueries of the expression, it refuses these names.
struct Names<'a, 'b> {
    aliases: &'a [String],
    depth: usize,
    columns: &'a FromColumns<'b>,
    select: &'a Select,
    /// The name and the columns of each FROM item. They are determined once per query, because this may require
    /// planning.
    relations: Option<Vec<(Option<String>, Vec<String>)>>,
}

impl VisitorMut for Names<'_, '_> {
    type Break = Error;

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<Error> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<Error> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        let Expr::Identifier(ident) = expr else { return ControlFlow::Continue(()) };
        let name = name_of(ident);
        if self.aliases.contains(&name)
            && let Some(relation) = self.relation_with(&name)
        {
            if self.depth > 0 {
                return ControlFlow::Break(Error::unsupported(format!(
                    "`{name}` in a subquery of ORDER BY is both a column and an alias: rename the alias"
                )));
            }
            *expr = Expr::CompoundIdentifier(vec![quoted(relation), quoted(name)]);
        }
        ControlFlow::Continue(())
    }
}

impl Names<'_, '_> {
    /// Returns the name of the only FROM item with a column of this name.
    fn relation_with(&mut self, column: &str) -> Option<String> {
        let (columns, select) = (self.columns, self.select);
        let relations = self.relations.get_or_insert_with(|| {
            let mut relations = Vec::new();
            select.from.iter().for_each(|tree| collect(tree, &mut relations));
            // Items whose columns are unknown are skipped: the engine reports an ambiguous name.
            let named = |relation: &TableFactor| Some((relation_name(relation), columns.of(relation).ok()?));
            relations.into_iter().filter_map(named).collect()
        });
        let mut found = relations.iter().filter(|(_, names)| names.iter().any(|name| name == column));
        match (found.next(), found.next()) {
            (Some((relation, _)), None) => relation.clone(),
            _ => None,
        }
    }
}

/// Appends the relations of a FROM item, including those in parentheses without an alias.
fn collect<'a>(tree: &'a TableWithJoins, relations: &mut Vec<&'a TableFactor>) {
    for relation in std::iter::once(&tree.relation).chain(tree.joins.iter().map(|join| &join.relation)) {
        match relation {
            TableFactor::NestedJoin { table_with_joins, alias: None } => collect(table_with_joins, relations),
            relation => relations.push(relation),
        }
    }
}
