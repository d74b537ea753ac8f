//! Searches and rewrites the expressions of logical plans.

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode as _, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Cast, Expr, LogicalPlan, TryCast};

/// Calls `rewrite` on all expressions of a node, bottom-up. The names of the node's columns do not change.
pub(crate) fn rewrite_expressions(
    node: LogicalPlan,
    mut rewrite: impl FnMut(Expr) -> Result<Transformed<Expr>>,
) -> Result<Transformed<LogicalPlan>> {
    let names = NamePreserver::new(&node);
    node.map_expressions(|expr| {
        let name = names.save(&expr);
        Ok(expr.transform_up(&mut rewrite)?.update_data(|expr| name.restore(expr)))
    })
}

/// Returns true if `test` returns true for an expression of the node, or for an expression inside it.
pub(super) fn any_expression(node: &LogicalPlan, test: impl Fn(&Expr) -> bool) -> Result<bool> {
    let mut found = false;
    node.apply_expressions(|expr| {
        found = found || expr.exists(|expr| Ok(test(expr)))?;
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

/// Returns true if `is_searched` returns true for the type of a column, literal or cast of the plan, or if `is_source`
/// returns true for another expression. Searches subqueries too.
pub(super) fn has_type(
    plan: &LogicalPlan,
    is_searched: impl Fn(&DataType) -> bool,
    is_source: impl Fn(&Expr) -> bool,
) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        found = node.schema().fields().iter().any(|field| is_searched(field.data_type()))
            || any_expression(node, |expr| match expr {
                Expr::Literal(value, _) => is_searched(&value.data_type()),
                Expr::Cast(Cast { field, .. }) | Expr::TryCast(TryCast { field, .. }) => is_searched(field.data_type()),
                expr => is_source(expr),
            })?;
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}
