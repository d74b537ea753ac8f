//! Limits the size of the constant lists in a plan.
//!
//! The engine copies a constant in a select list for every row of a batch. A list such as `range(1, 1900000)` is small
//! enough for a function result, but its copies for a batch of rows would exhaust the memory of the server. The engine
//! does not account for these copies.
//!
//! A list that is the only input of `unnest`, as in `FROM unnest(range(1, 1900000))`, is not copied and therefore not
//! limited.

use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{Transformed, TreeNode as _, TreeNodeRecursion};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

use crate::error::Error;
use crate::sql::functions::function_limits::CONSTANT_LIST_BYTES_MAX;

/// The optimizer rule that refuses plans with large constant lists. It runs after the rules that compute constants.
#[derive(Debug)]
pub(crate) struct ConstantListRule;

impl OptimizerRule for ConstantListRule {
    fn name(&self) -> &'static str {
        "limit_constant_lists"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        None
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        let mut bytes = 0_usize;
        plan.apply_with_subqueries(|node| {
            if is_single_unnest(node) {
                return Ok(TreeNodeRecursion::Jump);
            }
            node.apply_expressions(|expr| {
                expr.apply(|expr| {
                    if let Expr::Literal(value, _) = expr {
                        bytes = bytes.saturating_add(list_bytes(value));
                    }
                    Ok(TreeNodeRecursion::Continue)
                })
            })?;
            Ok(TreeNodeRecursion::Continue)
        })?;
        if bytes <= CONSTANT_LIST_BYTES_MAX {
            return Ok(Transformed::no(plan));
        }
        Err(DataFusionError::External(Box::new(Error::limited(format!(
            "the constant lists of the statement take up {bytes} bytes, but at most {CONSTANT_LIST_BYTES_MAX} are allowed, \
             because they are copied for every row: use unnest(…) or generate_series(…) in FROM"
        )))))
    }
}

/// Returns true for `unnest` of constants, which are not combined with any rows.
fn is_single_unnest(node: &LogicalPlan) -> bool {
    let LogicalPlan::Unnest(unnest) = node else { return false };
    match &*unnest.input {
        LogicalPlan::Projection(projection) => matches!(&*projection.input, LogicalPlan::EmptyRelation(_)),
        _ => false,
    }
}

fn list_bytes(value: &ScalarValue) -> usize {
    if value.data_type().is_nested() { value.size() } else { 0 }
}
