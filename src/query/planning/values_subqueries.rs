//! Refuses subqueries inside VALUES. The engine cannot run them, because it evaluates the rows of VALUES while it
//! builds the physical plan.

use datafusion::common::tree_node::{TreeNode as _, TreeNodeRecursion};
use datafusion::logical_expr::{Expr, LogicalPlan};

use crate::error::{Error, Result};

/// Refuses a plan if any VALUES in it contains a subquery.
pub(in crate::query) fn check(plan: &LogicalPlan) -> Result<()> {
    let mut is_refused = false;
    let walked = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::Values(values) = node {
            for expr in values.values.iter().flatten() {
                is_refused |= expr.exists(|expr| {
                    Ok(matches!(
                        expr,
                        Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::SetComparison(_)
                    ))
                })?;
            }
        }
        Ok(if is_refused { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    walked.map_err(|error| Error::internal("cannot traverse a plan").with_source(error))?;
    if is_refused {
        return Err(Error::unsupported(
            "a subquery in VALUES is not supported: write the rows as SELECT ... UNION ALL SELECT ...",
        ));
    }
    Ok(())
}
