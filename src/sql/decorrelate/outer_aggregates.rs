//! Refuses an aggregate in a subquery if the aggregate refers only to columns of the outer query.
//!
//! In SQL, such an aggregate belongs to the outer query: `SELECT (SELECT sum(a.x) FROM b LIMIT 1) FROM a` returns one row
//! with the sum over `a`. The engine's planner would add up `a.x` once for each row of `b`.

use datafusion::common::not_impl_err;
use datafusion::common::tree_node::{TreeNode as _, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::{Expr, LogicalPlan};

/// Refuses a plan if one of its subqueries contains an aggregate of an outer query.
pub(super) fn check(plan: &LogicalPlan) -> Result<()> {
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::Aggregate(aggregate) = node {
            for expr in &aggregate.aggr_expr {
                check_expr(expr)?;
            }
        }
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(())
}

fn check_expr(expr: &Expr) -> Result<()> {
    expr.apply(|expr| {
        let Expr::AggregateFunction(AggregateFunction { func, params }) = expr else {
            return Ok(TreeNodeRecursion::Continue);
        };
        let (mut has_outer, mut has_inner) = (false, false);
        let order = params.order_by.iter().map(|key| &key.expr);
        for part in params.args.iter().chain(params.filter.as_deref()).chain(order) {
            part.apply(|part| {
                has_outer |= matches!(part, Expr::OuterReferenceColumn(..));
                has_inner |= matches!(part, Expr::Column(_));
                Ok(TreeNodeRecursion::Continue)
            })?;
        }
        if has_outer && !has_inner {
            return not_impl_err!(
                "the aggregate `{}` in a subquery only refers to columns of the outer query, which is not supported: compute \
                 it in a subquery in FROM, and use its column",
                func.name()
            );
        }
        Ok(TreeNodeRecursion::Jump)
    })?;
    Ok(())
}
