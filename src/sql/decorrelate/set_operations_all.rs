//! Rewrites INTERSECT ALL and EXCEPT ALL. The engine plans them as semi and anti joins, which keep either all copies of
//! a row or none. This file numbers the copies of each row, and adds the number to the join condition. Every row is
//! then distinct, so the join keeps the correct number of copies.

use std::sync::Arc;

use datafusion::common::{Column, JoinType, NullEquality};
use datafusion::error::Result;
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::{Expr, ExprFunctionExt as _, Join, LogicalPlan, Window};

use super::{NAME_PREFIX, Rewriter, project_to};

/// Returns true if the plan is INTERSECT ALL or EXCEPT ALL. In the plan of INTERSECT or EXCEPT without ALL, the left
/// input of the join is a DISTINCT node.
pub(super) fn is_multiset(node: &LogicalPlan) -> bool {
    let LogicalPlan::Join(join) = node else { return false };
    let (left, right) = (join.left.schema(), join.right.schema());
    matches!(join.join_type, JoinType::LeftSemi | JoinType::LeftAnti)
        && join.null_equality == NullEquality::NullEqualsNull
        && join.filter.is_none()
        && !matches!(*join.left, LogicalPlan::Distinct(_))
        && !is_numbered(&join.left)
        && join.on.len() == left.fields().len()
        && join.on.len() == right.fields().len()
}

/// Returns true if the plan's rows are already numbered.
fn is_numbered(plan: &LogicalPlan) -> bool {
    let last = plan.schema().fields().last();
    matches!(plan, LogicalPlan::Window(_)) && last.is_some_and(|field| field.name().starts_with(NAME_PREFIX))
}

/// Numbers the copies of each row on both sides of the join, and adds the number to the join condition.
pub(super) fn rewrite(node: LogicalPlan, names: &mut Rewriter) -> Result<LogicalPlan> {
    let schema = Arc::clone(node.schema());
    let LogicalPlan::Join(mut join) = node else { return Ok(node) };
    let (left, left_number) = numbered(&join.left, names)?;
    let (right, right_number) = numbered(&join.right, names)?;
    join.on.push((left_number, right_number));
    let joined = Join::try_new(
        Arc::new(left),
        Arc::new(right),
        join.on,
        None,
        join.join_type,
        join.join_constraint,
        join.null_equality,
        join.null_aware,
    )?;
    project_to(LogicalPlan::Join(joined), &schema)
}

fn numbered(plan: &Arc<LogicalPlan>, names: &mut Rewriter) -> Result<(LogicalPlan, Expr)> {
    let name = names.fresh();
    let columns = plan.schema().columns().into_iter().map(Expr::Column).collect();
    let number = row_number().partition_by(columns).build()?.alias(&name);
    let window = LogicalPlan::Window(Window::try_new(vec![number], Arc::clone(plan))?);
    Ok((window, Expr::Column(Column::new_unqualified(name))))
}
