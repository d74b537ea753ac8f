//! Replaces unqualified names of columns that are merged by USING and NATURAL joins.
//!
//! In a subquery, a name refers to the merged column only if no table in the subquery has a column with this name.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    Distinct, Expr, OneOrManyWithParens, OrderBy, OrderByKind, Query, Select, SelectItem,
    SelectItemQualifiedWildcardKind, SetExpr, TableFactor, TableWithJoins, Visit as _, Visitor, VisitorMut,
};

use crate::error::{Error, Result};
use crate::sql::syntax::from_columns::FromColumns;
use crate::sql::syntax::tree::{column_name, flow, last_name_of, name_of, quoted, visit, visit_clauses};

/// A visitor that replaces names with the expressions of the merged columns.
pub(in crate::sql::syntax) struct MergedColumns<'a, 'b> {
    /// The names of merged columns, and the expressions that replace the names.
    pub(in crate::sql::syntax) columns: Vec<(String, Expr)>,
    pub(in crate::sql::syntax) from: &'a mut FromColumns<'b>,
    /// The number of subqueries that enclose the current node. Names are replaced only if the depth is zero.
    depth: usize,
    /// True if a name was replaced with an expression that is not a column.
    is_computed: bool,
}

impl<'a, 'b> MergedColumns<'a, 'b> {
    pub(in crate::sql::syntax) fn new(columns: Vec<(String, Expr)>, from: &'a mut FromColumns<'b>) -> Self {
        Self { columns, from, depth: 0, is_computed: false }
    }

    /// Replaces the names in the select list, in ORDER BY, and in all other clauses except FROM. `relations` contains
    /// the names and columns of the tables in FROM.
    pub(in crate::sql::syntax) fn replace_in_select(
        &mut self,
        select: &mut Select,
        order_by: Option<&mut OrderBy>,
        relations: &[(String, Vec<String>)],
    ) -> Result<()> {
        let outputs = output_names(&select.projection, relations);
        for item in &mut select.projection {
            self.replace_in_item(item)?;
        }
        visit_clauses(select, self)?;
        if let Some(Distinct::On(exprs)) = &mut select.distinct {
            exprs.iter_mut().try_for_each(|expr| self.replace_in_order(expr, &outputs))?;
        }
        if let Some(OrderBy { kind: OrderByKind::Expressions(exprs), .. }) = order_by {
            exprs.iter_mut().try_for_each(|order| self.replace_in_order(&mut order.expr, &outputs))?;
        }
        Ok(())
    }

    /// Replaces the names in an item of the select list. The item keeps its output name.
    fn replace_in_item(&mut self, item: &mut SelectItem) -> Result<()> {
        let SelectItem::UnnamedExpr(expr) = item else { return visit(item, self) };
        let name = column_name(expr).unwrap_or_else(|| expr.to_string());
        self.is_computed = false;
        visit(expr, self)?;
        if self.is_computed {
            *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias: quoted(name) };
        }
        Ok(())
    }

    /// Replaces the names in an ORDER BY expression, unless the whole expression is the name of an output column.
    fn replace_in_order(&mut self, expr: &mut Expr, outputs: &[String]) -> Result<()> {
        match expr {
            Expr::Identifier(ident) if outputs.contains(&name_of(ident)) => Ok(()),
            expr => visit(expr, self),
        }
    }

    /// Replaces the names of merged columns in a subquery.
    pub(in crate::sql::syntax) fn replace_in_subquery(&mut self, query: &mut Query) -> Result<()> {
        if !mentions(query, &self.columns) {
            return Ok(());
        }
        let outer = self.from.len();
        if let Some(with) = &mut query.with {
            for cte in &mut with.cte_tables {
                self.replace_in_subquery(&mut cte.query)?;
                self.from.push(cte, with.recursive);
            }
        }
        let replaced = self.replace_in_body(&mut query.body, query.order_by.as_mut());
        self.from.truncate(outer);
        replaced
    }

    fn replace_in_body(&mut self, body: &mut SetExpr, order_by: Option<&mut OrderBy>) -> Result<()> {
        match body {
            SetExpr::Select(select) => self.replace_in_inner_select(select, order_by),
            SetExpr::Query(query) => self.replace_in_subquery(query),
            SetExpr::SetOperation { left, right, .. } => {
                self.replace_in_body(left, None)?;
                self.replace_in_body(right, None)
            }
            body => visit(body, self),
        }
    }

    fn replace_in_inner_select(&mut self, select: &mut Select, order_by: Option<&mut OrderBy>) -> Result<()> {
        let mut relations = Vec::new();
        for tree in &select.from {
            self.relations(tree, &mut relations)?;
        }
        let is_hidden = |name: &String| relations.iter().any(|(_, columns)| columns.contains(name));
        let columns: Vec<_> = self.columns.iter().filter(|(name, _)| !is_hidden(name)).cloned().collect();
        check_aliases(&columns, &relations)?;
        for tree in &mut select.from {
            self.replace_in_derived_tables(tree)?;
        }
        let mut inner = MergedColumns::new(columns, self.from);
        for tree in &mut select.from {
            inner.replace_in_conditions(tree)?;
        }
        inner.replace_in_select(select, order_by, &relations)
    }

    /// Replaces the names in the derived tables in a subquery's FROM. These derived tables cannot refer to the other
    /// tables in that FROM.
    fn replace_in_derived_tables(&mut self, tree: &mut TableWithJoins) -> Result<()> {
        let joined = tree.joins.iter_mut().map(|join| &mut join.relation);
        for relation in std::iter::once(&mut tree.relation).chain(joined) {
            match relation {
                TableFactor::Derived { lateral: false, subquery, .. } => self.replace_in_subquery(subquery)?,
                TableFactor::NestedJoin { table_with_joins, .. } => self.replace_in_derived_tables(table_with_joins)?,
                _ => {}
            }
        }
        Ok(())
    }

    /// Replaces the names in join conditions, and in FROM items that can refer to other tables in the same FROM.
    fn replace_in_conditions(&mut self, tree: &mut TableWithJoins) -> Result<()> {
        for join in &mut tree.joins {
            visit(&mut join.join_operator, self)?;
        }
        let joined = tree.joins.iter_mut().map(|join| &mut join.relation);
        for relation in std::iter::once(&mut tree.relation).chain(joined) {
            match relation {
                TableFactor::Derived { lateral: false, .. } => {}
                TableFactor::NestedJoin { table_with_joins, .. } => self.replace_in_conditions(table_with_joins)?,
                relation => visit(relation, self)?,
            }
        }
        Ok(())
    }

    fn relations(&self, tree: &TableWithJoins, found: &mut Vec<(String, Vec<String>)>) -> Result<()> {
        let joined = tree.joins.iter().map(|join| &join.relation);
        for relation in std::iter::once(&tree.relation).chain(joined) {
            match relation {
                TableFactor::NestedJoin { table_with_joins, alias: None } => self.relations(table_with_joins, found)?,
                relation => found.push((relation_name(relation).unwrap_or_default(), self.from.of(relation)?)),
            }
        }
        Ok(())
    }
}

impl VisitorMut for MergedColumns<'_, '_> {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        if self.depth == 0
            && let Err(error) = self.replace_in_subquery(query)
        {
            return ControlFlow::Break(error);
        }
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<Error> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        let Expr::Lambda(lambda) = expr else { return ControlFlow::Continue(()) };
        let parameters = match &lambda.params {
            OneOrManyWithParens::One(parameter) => std::slice::from_ref(parameter),
            OneOrManyWithParens::Many(parameters) => parameters,
        };
        let is_merged = |name: &String| self.columns.iter().any(|(merged, _)| merged == name);
        match parameters.iter().map(|parameter| name_of(&parameter.name)).find(is_merged) {
            Some(name) => ControlFlow::Break(Error::unsupported(format!(
                "the parameter `{name}` of a lambda function has the same name as a joined column: rename the parameter"
            ))),
            None => ControlFlow::Continue(()),
        }
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        if self.depth == 0
            && let Expr::Identifier(ident) = expr
        {
            let name = name_of(ident);
            if let Some((_, merged)) = self.columns.iter().find(|(merged, _)| *merged == name) {
                self.is_computed |= !matches!(merged, Expr::CompoundIdentifier(_));
                *expr = merged.clone();
            }
        }
        ControlFlow::Continue(())
    }
}

/// Refuses a subquery if a qualified name in the replacement expressions would refer to a table in the subquery.
fn check_aliases(columns: &[(String, Expr)], relations: &[(String, Vec<String>)]) -> Result<()> {
    struct Qualifiers<'a>(&'a [(String, Vec<String>)]);
    impl Visitor for Qualifiers<'_> {
        type Break = Error;

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Error> {
            let Expr::CompoundIdentifier(parts) = expr else { return ControlFlow::Continue(()) };
            let qualifier = parts.iter().rev().nth(1).map(name_of).unwrap_or_default();
            if self.0.iter().all(|(name, _)| *name != qualifier) {
                return ControlFlow::Continue(());
            }
            ControlFlow::Break(Error::unsupported(format!(
                "the table name `{qualifier}` is used in a join with USING and in a subquery that refers to this \
                 join: give one of these tables another alias"
            )))
        }
    }
    columns.iter().try_for_each(|(_, expr)| flow(expr.visit(&mut Qualifiers(relations))))
}

/// Returns true if a query contains the unqualified name of a merged column.
fn mentions(query: &Query, columns: &[(String, Expr)]) -> bool {
    struct Mentions<'a>(&'a [(String, Expr)]);
    impl Visitor for Mentions<'_> {
        type Break = ();

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match expr {
                Expr::Identifier(ident) if self.0.iter().any(|(name, _)| *name == name_of(ident)) => {
                    ControlFlow::Break(())
                }
                _ => ControlFlow::Continue(()),
            }
        }
    }
    query.visit(&mut Mentions(columns)).is_break()
}

/// Returns the name that qualifies the columns of a FROM item.
pub(in crate::sql::syntax) fn relation_name(relation: &TableFactor) -> Option<String> {
    match relation {
        TableFactor::Table { alias: Some(alias), .. }
        | TableFactor::Derived { alias: Some(alias), .. }
        | TableFactor::Function { alias: Some(alias), .. }
        | TableFactor::UNNEST { alias: Some(alias), .. }
        | TableFactor::NestedJoin { alias: Some(alias), .. } => Some(name_of(&alias.name)),
        TableFactor::Table { name, .. } => last_name_of(name),
        _ => None,
    }
}

/// Returns the output names of a select list. Names that only the planner can determine, such as that of `a + b`, are
/// left out.
fn output_names(items: &[SelectItem], relations: &[(String, Vec<String>)]) -> Vec<String> {
    let mut names = Vec::new();
    for item in items {
        match item {
            SelectItem::UnnamedExpr(expr) => names.extend(column_name(expr)),
            SelectItem::ExprWithAlias { alias, .. } => names.push(name_of(alias)),
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(of), _) => {
                let of = last_name_of(of).unwrap_or_default();
                names.extend(relations.iter().filter(|(name, _)| *name == of).flat_map(|(_, columns)| columns.clone()));
            }
            SelectItem::Wildcard(_) => names.extend(relations.iter().flat_map(|(_, columns)| columns.clone())),
            _ => {}
        }
    }
    names
}
