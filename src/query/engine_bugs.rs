//! Refuses queries that the engine is known to answer incorrectly, and names a form that works.
//!
//! In: a plan. Out: an error, or nothing. Each case is a bug of DataFusion 55.2 that was reproduced before it was added
//! here. Remove a case when the engine is fixed. A refusal costs a user a minute; a wrong number costs trust.

use std::sync::Arc;

use datafusion::common::JoinType;
use datafusion::common::tree_node::{TreeNode as _, TreeNodeRecursion};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, LogicalPlan};

use crate::error::{Error, Result};

/// Refuses a plan that contains such a query at any depth.
pub(super) fn check(plan: &LogicalPlan) -> Result<()> {
    walk(plan, &mut |expr| check_expr(expr, false))
}

/// Calls `check` with every expression of a plan and of its subqueries.
fn walk(plan: &LogicalPlan, check: &mut impl FnMut(&Expr) -> Result<()>) -> Result<()> {
    let mut found = Ok(());
    let walked = plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            found = check(expr);
            Ok::<_, DataFusionError>(if found.is_ok() { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
        })
    });
    walked.map_err(|fault| Error::internal("cannot traverse a plan").with_source(fault))?;
    found
}

/// `negated`: whether the expression is inside a NOT.
fn check_expr(expr: &Expr, negated: bool) -> Result<()> {
    match expr {
        // The engine resolves the inner column to the outer one of the same name, so that it compares a value with
        // itself (apache/datafusion#25258).
        Expr::SetComparison(_) => {
            return Err(Error::unsupported(
                "ANY, SOME and ALL with a subquery are not supported: use IN, EXISTS, or compare with its min or max",
            ));
        }
        // The engine drops the pair if it is also the correlation (apache/datafusion#25480).
        Expr::InSubquery(test) if (negated || test.negated) && !test.subquery.outer_ref_columns.is_empty() => {
            return Err(Error::unsupported(
                "NOT IN with a subquery that refers to the outer query is not supported: use NOT EXISTS",
            ));
        }
        Expr::InSubquery(test) => check_joins(&test.subquery.subquery)?,
        Expr::Exists(test) => check_joins(&test.subquery.subquery)?,
        Expr::ScalarSubquery(subquery) => check_joins(&subquery.subquery)?,
        _ => {}
    }
    let negated = negated || matches!(expr, Expr::Not(_));
    let mut found = Ok(());
    let walked = expr.apply_children(|child| {
        found = check_expr(child, negated);
        Ok(if found.is_ok() { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    });
    walked.map_err(|fault| Error::internal("cannot traverse an expression").with_source(fault))?;
    found
}

/// The engine pulls a condition on the outer query from below the nullable side of an outer join to above the join,
/// where it drops the rows without a match (apache/datafusion#25507).
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
    walked.map_err(|fault| Error::internal("cannot traverse a subquery").with_source(fault))?;
    if is_wrong {
        return Err(Error::unsupported(
            "a subquery that refers to the outer query from inside an outer join is not supported: write the condition \
             into the join's ON, or join the tables in the outer query",
        ));
    }
    Ok(())
}

fn refers_outside(plan: &LogicalPlan) -> bool {
    let outer = |expr: &Expr| match expr.exists(|inner| Ok(matches!(inner, Expr::OuterReferenceColumn(..)))) {
        Ok(false) => Ok(()),
        _ => Err(Error::unsupported("")),
    };
    walk(plan, &mut { outer }).is_err()
}
