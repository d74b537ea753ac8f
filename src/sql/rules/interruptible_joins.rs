//! Makes joins end when their query is cancelled or has reached its deadline.
//!
//! A join without an equality compares all pairs of rows before it yields. This rule encloses the filter of each join in
//! [`InterruptibleFilter`], which checks for an interruption on every call. Joins and UNNEST can return many batches for
//! one batch of input, so the rule also makes them yield regularly.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef, Schema};
use arrow::record_batch::RecordBatch;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode as _};
use datafusion::error::Result;
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coop::CooperativeExec;
use datafusion::physical_plan::joins::utils::JoinFilter;
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec, NestedLoopJoinExecBuilder};
use datafusion::physical_plan::unnest::UnnestExec;

use crate::sql::interrupt;

/// The physical optimizer rule that makes joins interruptible. It runs last.
#[derive(Debug)]
pub(super) struct InterruptibleJoinRule;

impl PhysicalOptimizerRule for InterruptibleJoinRule {
    fn name(&self) -> &'static str {
        "interruptible_joins"
    }

    fn schema_check(&self) -> bool {
        true
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, _: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        plan.transform_up(|plan| {
            let interruptible: Arc<dyn ExecutionPlan> = if let Some(join) = plan.downcast_ref::<NestedLoopJoinExec>() {
                let filter = join.filter().map(interruptible);
                Arc::new(NestedLoopJoinExecBuilder::from(join).with_filter(filter).build()?)
            } else if let Some(join) = plan.downcast_ref::<HashJoinExec>()
                && let Some(filter) = join.filter()
            {
                join.builder().with_filter(Some(interruptible(filter))).build_exec()?
            } else if plan.is::<HashJoinExec>() || plan.is::<CrossJoinExec>() || plan.is::<UnnestExec>() {
                plan
            } else {
                return Ok(Transformed::no(plan));
            };
            Ok(Transformed::yes(Arc::new(CooperativeExec::new(interruptible))))
        })
        .map(|plan| plan.data)
    }
}

fn interruptible(filter: &JoinFilter) -> JoinFilter {
    let expression = Arc::new(InterruptibleFilter { condition: Arc::clone(filter.expression()) });
    JoinFilter::new(expression, filter.column_indices().to_vec(), Arc::clone(filter.schema()))
}

/// A condition that fails if the query has been interrupted.
#[derive(Debug, Eq)]
struct InterruptibleFilter {
    condition: Arc<dyn PhysicalExpr>,
}

impl PartialEq for InterruptibleFilter {
    fn eq(&self, other: &Self) -> bool {
        *self.condition == *other.condition
    }
}

impl Hash for InterruptibleFilter {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.condition.hash(state);
    }
}

impl PhysicalExpr for InterruptibleFilter {
    fn evaluate(&self, batch: &RecordBatch) -> Result<ColumnarValue> {
        interrupt::check()?;
        self.condition.evaluate(batch)
    }

    fn return_field(&self, schema: &Schema) -> Result<FieldRef> {
        self.condition.return_field(schema)
    }

    fn data_type(&self, schema: &Schema) -> Result<DataType> {
        self.condition.data_type(schema)
    }

    fn nullable(&self, schema: &Schema) -> Result<bool> {
        self.condition.nullable(schema)
    }

    fn children(&self) -> Vec<&Arc<dyn PhysicalExpr>> {
        vec![&self.condition]
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn PhysicalExpr>>) -> Result<Arc<dyn PhysicalExpr>> {
        let condition = children.into_iter().next().unwrap_or_else(|| Arc::clone(&self.condition));
        Ok(Arc::new(Self { condition }))
    }

    fn fmt_sql(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.condition.fmt_sql(f)
    }
}

impl fmt::Display for InterruptibleFilter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.condition.fmt(f)
    }
}
