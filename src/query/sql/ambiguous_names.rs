//! Refuses a name that is ambiguous in a subquery and that the engine therefore takes from the outer query.
//!
//! In `EXISTS (SELECT 1 FROM a JOIN b ON … WHERE k = 1)`, `k` is ambiguous if both tables have a column `k`. If the outer
//! query has a column `k` as well, the engine silently uses that one.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use datafusion::common::tree_node::{TreeNode as _, TreeNodeRecursion};
use datafusion::logical_expr::{Expr as PlanExpr, LogicalPlan};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{Expr, Query, Visit as _, Visitor};

use crate::error::{Error, Result};
use crate::query::sql::syntax::{flow, name_of, query_of};

/// Returns the names of columns of an outer query that are also ambiguous names of the subquery. They are correct if
/// they are qualified in the text.
pub(in crate::query) fn find(plan: &LogicalPlan) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    // An error would come from our own closures, which return none.
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

/// Refuses a statement in which a subquery uses one of `names` without its table.
pub(in crate::query) fn check(statement: &mut Statement, names: &BTreeSet<String>) -> Result<()> {
    match query_of(statement) {
        Some(query) => flow(query.visit(&mut Unqualified { names, depth: 0 })),
        None => Ok(()),
    }
}

struct Unqualified<'a> {
    names: &'a BTreeSet<String>,
    /// The number of queries that the visitor is inside.
    depth: usize,
}

impl Visitor for Unqualified<'_> {
    type Break = Error;

    fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<Error> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<Error> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Error> {
        match expr {
            Expr::Identifier(ident) if self.depth > 1 && self.names.contains(&name_of(ident)) => {
                ControlFlow::Break(Error::invalid(format!(
                    "column `{}` is ambiguous in a subquery: qualify it with the table name",
                    name_of(ident)
                )))
            }
            _ => ControlFlow::Continue(()),
        }
    }
}
