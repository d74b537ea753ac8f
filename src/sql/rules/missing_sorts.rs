//! Adds sorts that are needed but that the engine omits.
//!
//! The engine moves the sort of `… UNION ALL … ORDER BY 1, 2` below the union. If an input selects the same column
//! twice (`SELECT n, n FROM t`), its sort needs only one key. The engine then no longer knows that the rows of the
//! union are sorted by both keys, and its last rule refuses the plan.

use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode as _};
use datafusion::error::Result;
use datafusion::physical_expr::{LexOrdering, OrderingRequirements};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::sorts::sort::SortExec;
use datafusion::physical_plan::{ExecutionPlan, ExecutionPlanProperties as _};

/// The physical optimizer rule that sorts the inputs of nodes that need sorted rows. It must run after the engine's
/// rule that adds sorts.
#[derive(Debug)]
pub(super) struct MissingSortsRule;

impl PhysicalOptimizerRule for MissingSortsRule {
    fn name(&self) -> &'static str {
        "add_missing_sorts"
    }

    fn schema_check(&self) -> bool {
        true
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|plan| {
            let (mut children, mut is_changed) = (Vec::with_capacity(plan.children().len()), false);
            for (child, needed) in plan.children().into_iter().zip(plan.required_input_ordering()) {
                let sorted = sorted(child, needed)?;
                is_changed |= sorted.is_some();
                children.push(sorted.unwrap_or_else(|| Arc::clone(child)));
            }
            if !is_changed {
                return Ok(Transformed::no(plan));
            }
            replace_children_if_necessary(plan, children).map(Transformed::yes)
        })
        .map(|plan| plan.data)
    }
}

/// Returns a sort of `child`, or `None` if its rows are sorted as needed.
fn sorted(
    child: &Arc<dyn ExecutionPlan>,
    needed: Option<OrderingRequirements>,
) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let Some(needed @ OrderingRequirements::Hard(_)) = needed else { return Ok(None) };
    let needed = needed.into_single();
    if child.equivalence_properties().ordering_satisfy_requirement(needed.clone())? {
        return Ok(None);
    }
    let has_partitions = child.output_partitioning().partition_count() > 1;
    let sort = SortExec::new(LexOrdering::from(needed), Arc::clone(child)).with_preserve_partitioning(has_partitions);
    Ok(Some(Arc::new(sort)))
}
