//! Refuses queries for which the engine is known to return wrong results. The error suggests an alternative that works.
//!
//! Each refused case triggers a bug that was reproduced in DataFusion 55.2. Remove a case once its bug is fixed. A user
//! can rewrite a refused query in a minute, but may never notice a wrong result.

use std::sync::Arc;

use datafusion::common::JoinType;
use datafusion::common::tree_node::{TreeNode as _, TreeNodeRecursion};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, LogicalPlan, Subquery};

use crate::error::{Error, Result};
use crate::sql::{subquery_name_clash, window_checks};

/// Refuses a plan if any part of it, including its subqueries, is affected by one of these bugs.
pub(crate) fn check(plan: &LogicalPlan) -> Result<()> {
    walk(plan, &mut |node, expr| check_expr(node, expr, false))
}

/// Calls `check` for each expression of every node in a plan and its subqueries.
fn walk(plan: &LogicalPlan, check: &mut impl FnMut(&LogicalPlan, &Expr) -> Result<()>) -> Result<()> {
    let mut found = Ok(());
    let walked = plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            found = check(node, expr);
            Ok::<_, DataFusionError>(if found.is_ok() { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
        })
    });
    walked.map_err(|error| Error::internal("cannot traverse a plan").with_source(error))?;
    found
}

/// Checks an expression of a plan node, and its subexpressions. `negated` is true if the expression is inside a NOT.
fn check_expr(plan: &LogicalPlan, expr: &Expr, negated: bool) -> Result<()> {
    match expr {
        // If an inner and an outer column have the same name, the engine uses the outer column for both and compares it
        // with itself (apache/datafusion#25258).
        Expr::SetComparison(_) => {
            return Err(Error::unsupported(
                "ANY, SOME and ALL with a subquery are not supported: use IN or EXISTS, or compare with the minimum or maximum of the subquery",
            ));
        }
        // If a correlated condition already compares the same columns, the engine drops the comparison
        // (apache/datafusion#25480).
        Expr::InSubquery(test) if (negated || test.negated) && !test.subquery.outer_ref_columns.is_empty() => {
            return Err(Error::unsupported(
                "NOT IN with a subquery that refers to the outer query is not supported: use NOT EXISTS",
            ));
        }
        Expr::WindowFunction(call) => window_checks::check(call, plan)?,
        Expr::InSubquery(test) => check_subquery(&test.subquery)?,
        Expr::Exists(test) => check_subquery(&test.subquery)?,
        Expr::ScalarSubquery(subquery) => check_subquery(subquery)?,
        _ => {}
    }
    let negated = negated || matches!(expr, Expr::Not(_));
    let mut found = Ok(());
    let walked = expr.apply_children(|child| {
        found = check_expr(plan, child, negated);
        Ok(if found.is_ok() { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    });
    walked.map_err(|error| Error::internal("cannot traverse an expression").with_source(error))?;
    found
}

fn check_subquery(subquery: &Subquery) -> Result<()> {
    subquery_name_clash::check(&subquery.subquery, &subquery.outer_ref_columns)?;
    check_joins(&subquery.subquery)
}

/// Refuses a subquery that contains an outer join whose nullable side refers to the outer query. The engine applies the
/// condition with the outer reference to the result of the join, and therefore also removes rows without a match
/// (apache/datafusion#25507).
fn check_joins(subquery: &Arc<LogicalPlan>) -> Result<()> {
    let mut is_wrong = false;
    let walked = subquery.apply(|node| {
        if let LogicalPlan::Join(join) = node {
            let (left, right) = match join.join_type {
                JoinType::Left => (false, true),
                JoinType::Right => (true, false),
                JoinType::Full => (true, true),
                _ => (false, false),
            };
            is_wrong |= left && refers_outside(&join.left) || right && refers_outside(&join.right);
        }
        Ok(TreeNodeRecursion::Continue)
    });
    walked.map_err(|error| Error::internal("cannot traverse a subquery").with_source(error))?;
    if is_wrong {
        return Err(Error::unsupported(
            "a subquery that refers to the outer query from inside an outer join is not supported: move the condition \
             to the join's ON clause, or join the tables in the outer query",
        ));
    }
    Ok(())
}

/// Returns true if the plan refers to a column of the outer query.
fn refers_outside(plan: &LogicalPlan) -> bool {
    let outer =
        |_: &LogicalPlan, expr: &Expr| match expr.exists(|inner| Ok(matches!(inner, Expr::OuterReferenceColumn(..)))) {
            Ok(false) => Ok(()),
            _ => Err(Error::unsupported("")),
        };
    walk(plan, &mut { outer }).is_err()
}
