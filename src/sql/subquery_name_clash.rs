//! Refuses correlated subqueries in which the engine confuses two columns with the same name.
//!
//! DataFusion turns a correlated subquery into a join, and moves the correlated conditions to this join. The moved
//! conditions refer to the subquery's columns without a table name. If the conditions use `b.k` and the select list
//! uses `c.k`, both names resolve to the same column, and the result is wrong.

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::common::Column;
use datafusion::common::tree_node::{TreeNode as _, TreeNodeRecursion};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, LogicalPlan};

use crate::error::{Error, Result};

/// Refuses a correlated subquery if its correlated conditions and its output use two columns with the same name.
pub(super) fn check(subquery: &Arc<LogicalPlan>, outer: &[Expr]) -> Result<()> {
    if outer.is_empty() {
        return Ok(());
    }
    let mut columns: BTreeSet<Column> = BTreeSet::new();
    let walked = subquery.apply(|node| {
        if let LogicalPlan::Filter(filter) = node {
            for condition in datafusion::logical_expr::utils::split_conjunction(&filter.predicate) {
                if refers_outside(condition)? {
                    columns.extend(condition.column_refs().into_iter().cloned());
                }
            }
        }
        Ok(TreeNodeRecursion::Continue)
    });
    walked.map_err(|error| Error::internal("cannot traverse a subquery").with_source(error))?;
    let output = subquery.schema().columns();
    let is_confused = |column: &&Column| {
        let others = columns.iter().chain(&output);
        others.filter(|other| other.name == column.name).any(|other| other != *column && other.relation.is_some())
    };
    match columns.iter().filter(|column| column.relation.is_some()).find(is_confused) {
        Some(Column { name, .. }) => Err(Error::unsupported(format!(
            "a subquery that refers to the outer query and to columns named `{name}` of two tables is not supported: \
             rename one of them, as in FROM b JOIN (SELECT {name} AS other FROM c) c"
        ))),
        None => Ok(()),
    }
}

fn refers_outside(expr: &Expr) -> Result<bool, DataFusionError> {
    expr.exists(|inner| Ok(matches!(inner, Expr::OuterReferenceColumn(..))))
}
