//! Makes a join read its lookup tables into memory, rather than its other tables.
//!
//! A hash join holds its left side in memory. The engine swaps the sides if statistics show that the right side is
//! smaller, but scans report no statistics. This rule swaps the sides if only the right side consists of lookup tables,
//! which are in memory anyway. Otherwise, `calls JOIN places` would hold all calls in memory, and `places JOIN calls`
//! would not.
//!
//! ```text
//!   HashJoin(calls, places)   ─►   HashJoin(places, calls), with the columns in the original order
//! ```

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode as _};
use datafusion::error::Result;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::joins::{HashJoinExec, PartitionMode};

/// The name of the node that reads a lookup table.
const LOOKUP_SCAN: &str = "LookupScan";
/// The names of the nodes that return at most as many rows as their input.
const NOT_GROWING: [&str; 5] = ["AggregateExec", "FilterExec", "GlobalLimitExec", "ProjectionExec", "SortExec"];

/// The physical optimizer rule that swaps the sides of joins with lookup tables. It must run after the engine's rule
/// that selects the sides by statistics, and before the rule that distributes the rows over partitions.
#[derive(Debug)]
pub(super) struct LookupJoinRule;

impl PhysicalOptimizerRule for LookupJoinRule {
    fn name(&self) -> &'static str {
        "lookup_joins"
    }

    fn schema_check(&self) -> bool {
        true
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|plan| match plan.downcast_ref::<HashJoinExec>() {
            Some(join) if is_misplaced(join) => join.swap_inputs(PartitionMode::CollectLeft).map(Transformed::yes),
            _ => Ok(Transformed::no(plan)),
        })
        .map(|plan| plan.data)
    }
}

/// Returns true if only the right side of a join is small, and the engine can swap the sides. A `NOT IN` that considers
/// nulls needs its sides as they are.
fn is_misplaced(join: &HashJoinExec) -> bool {
    join.join_type().supports_swap() && !join.null_aware && is_small(join.right()) && !is_small(join.left())
}

/// Returns true if a plan reads one lookup table, and returns no more rows than this table has.
fn is_small(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let children = plan.children();
    match children.as_slice() {
        [] => plan.name() == LOOKUP_SCAN,
        [input] => NOT_GROWING.contains(&plan.name()) && is_small(input),
        _ => false,
    }
}
