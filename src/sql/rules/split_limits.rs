//! Splits a LIMIT with an OFFSET into two nodes: one skips rows, and the other limits them.
//!
//! For `SELECT … FROM (SELECT … ORDER BY n LIMIT 6 OFFSET 9) AS q ORDER BY n`, the engine finds that the outer sort is
//! not needed, and passes the limit on to the inner sort. It passes on a limit of 6 rows instead of 15, so the result
//! would be empty.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode as _};
use datafusion::error::Result;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::limit::GlobalLimitExec;

use crate::sql::ROWS_UNLIMITED;

/// The physical optimizer rule that splits limits. It must run before the engine's rule that moves sorts. A later rule of
/// the engine merges the nodes again.
#[derive(Debug)]
pub(super) struct SplitLimitsRule;

impl PhysicalOptimizerRule for SplitLimitsRule {
    fn name(&self) -> &'static str {
        "split_limits"
    }

    fn schema_check(&self) -> bool {
        true
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|plan| {
            let Some(limit) = plan.downcast_ref::<GlobalLimitExec>() else { return Ok(Transformed::no(plan)) };
            let (skip, Some(fetch)) = (limit.skip(), limit.fetch()) else { return Ok(Transformed::no(plan)) };
            if skip == 0 {
                return Ok(Transformed::no(plan));
            }
            let rows = GlobalLimitExec::new(Arc::clone(limit.input()), 0, Some(skip.saturating_add(fetch)));
            // Without a limit, the engine would move an outer sort below the node that skips rows.
            let rest =
                GlobalLimitExec::new(Arc::new(rows), skip, usize::try_from(ROWS_UNLIMITED).ok().or(Some(usize::MAX)));
            let rest: Arc<dyn ExecutionPlan> = Arc::new(rest);
            Ok(Transformed::yes(rest))
        })
        .map(|plan| plan.data)
    }
}
