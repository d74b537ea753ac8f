//! Prevents the engine from relying on sorted rows in queries with GROUPING SETS, ROLLUP and CUBE.
//!
//! If rows are sorted by a group column, an aggregate returns each group as soon as the next group starts. With
//! grouping sets, each row belongs to several groups, and the group column is NULL in some of these groups. A group can
//! therefore start again after it was returned, and would appear twice in the result (apache/datafusion#16965,
//! apache/datafusion#24421). For the same reason, the engine may wrongly assume that a group column is constant or that
//! rows are partitioned by it.
//!
//! This rule inserts one node below and one node above each aggregate with grouping sets. These nodes pass rows on
//! unchanged, and hide from the engine how the rows are sorted and partitioned.

use std::fmt;
use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode as _};
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::execution_plan::{CardinalityEffect, replace_children_if_necessary};
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, ExecutionPlanProperties as _, PlanProperties,
};

use crate::sql::plan_node::one_input_methods;

/// The optimizer rule that hides the order of rows from aggregates with grouping sets.
#[derive(Debug)]
pub(super) struct GroupingSetsRule;

impl PhysicalOptimizerRule for GroupingSetsRule {
    fn name(&self) -> &'static str {
        "hide_order_from_grouping_sets"
    }

    fn schema_check(&self) -> bool {
        true
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|plan| {
            let Some(aggregate) = plan.downcast_ref::<AggregateExec>() else { return Ok(Transformed::no(plan)) };
            if !aggregate.group_expr().has_grouping_set() {
                return Ok(Transformed::no(plan));
            }
            let input: Arc<dyn ExecutionPlan> = Arc::new(UnorderedExec::new(Arc::clone(aggregate.input())));
            let aggregate = replace_children_if_necessary(plan, vec![input])?;
            Ok(Transformed::yes(Arc::new(UnorderedExec::new(aggregate)) as Arc<dyn ExecutionPlan>))
        })
        .map(|plan| plan.data)
    }
}

/// Passes rows on unchanged, and declares no ordering or partitioning.
struct UnorderedExec {
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl UnorderedExec {
    fn new(input: Arc<dyn ExecutionPlan>) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(input.schema()),
            Partitioning::UnknownPartitioning(input.output_partitioning().partition_count()),
            input.pipeline_behavior(),
            input.boundedness(),
        );
        Self { input, properties: Arc::new(properties) }
    }
}

impl ExecutionPlan for UnorderedExec {
    fn name(&self) -> &'static str {
        "UnorderedExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    one_input_methods! { |_, input| Ok(Self::new(input)) }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        self.input.execute(partition, context)
    }

    fn cardinality_effect(&self) -> CardinalityEffect {
        CardinalityEffect::Equal
    }
}

impl DisplayAs for UnorderedExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "UnorderedExec")
    }
}

impl fmt::Debug for UnorderedExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UnorderedExec").field("input", &self.input).finish_non_exhaustive()
    }
}
