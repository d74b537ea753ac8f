//! Refuses an ambiguous name in a subquery if the engine would resolve it to a column of the outer query.
//!
//! In `EXISTS (SELECT 1 FROM a JOIN b ON … WHERE k = 1)`, `k` is ambiguous if both tables have a column `k`. If the
//! outer query also has a column `k`, the engine silently uses the outer column.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use datafusion::common::tree_node::{TreeNode as _, TreeNodeRecursion};
use datafusion::logical_expr::{Expr as PlanExpr, LogicalPlan};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{Expr, Query, Select, Visit as _, Visitor};

use crate::error::{Error, Result};
use crate::sql::syntax::tree::{flow, name_of, query_of};

/// Returns the names of outer columns that are also the names of several columns in the FROM clause of a subquery. The
/// statement must qualify such a name.
pub(crate) fn find(plan: &LogicalPlan) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    // The traversal cannot fail, because our closures return no errors.
    let _ = plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|inner| {
                if let PlanExpr::OuterReferenceColumn(_, column) = inner {
                    let inputs = node.inputs();
                    let fields = inputs.iter().flat_map(|input| input.schema().fields());
                    if fields.filter(|field| *field.name() == column.name).count() > 1 {
                        found.insert(column.name.clone());
                    }
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    found
}

/// Refuses a statement if a subquery contains one of `names` without a qualifier.
pub(crate) fn check(statement: &mut Statement, names: &BTreeSet<String>) -> Result<()> {
    match query_of(statement) {
        Some(query) => {
            flow(query.visit(&mut Unqualified { names, exprs: 0, queries: Vec::new(), selects: Vec::new() }))
        }
        None => Ok(()),
    }
}

struct Unqualified<'a> {
    names: &'a BTreeSet<String>,
    /// The number of expressions that enclose the current node.
    exprs: usize,
    /// For each query around the current node, the number of expressions that enclose the query.
    queries: Vec<usize>,
    /// One entry for each SELECT around the current node. The entry is true if the SELECT reads several tables and is
    /// part of a subquery in an expression, not in FROM.
    selects: Vec<bool>,
}

impl Visitor for Unqualified<'_> {
    type Break = Error;

    fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<Error> {
        self.queries.push(self.exprs);
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<Error> {
        self.queries.pop();
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<Error> {
        let has_tables = select.from.len() > 1 || select.from.iter().any(|tree| !tree.joins.is_empty());
        self.selects.push(has_tables && self.queries.last().is_some_and(|exprs| *exprs > 0));
        ControlFlow::Continue(())
    }

    fn post_visit_select(&mut self, _: &Select) -> ControlFlow<Error> {
        self.selects.pop();
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, _: &Expr) -> ControlFlow<Error> {
        self.exprs -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Error> {
        self.exprs += 1;
        match expr {
            Expr::Identifier(ident) if self.selects.last() == Some(&true) && self.names.contains(&name_of(ident)) => {
                ControlFlow::Break(Error::invalid(format!(
                    "column `{}` is ambiguous in a subquery: qualify it with the table name",
                    name_of(ident)
                )))
            }
            _ => ControlFlow::Continue(()),
        }
    }
}
