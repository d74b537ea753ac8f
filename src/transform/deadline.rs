//! Checks the deadline of a run while a join produces rows.
//!
//! Adds a [`DeadlineExec`] above each join of a plan. Otherwise, the deadline would not be checked while a filter above
//! a join discards all rows that the join produces.

use std::fmt;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode as _};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::StreamExt as _;
use tokio::time::Instant;

use crate::error::Error;
use crate::sql::plan_node::one_input_methods;

/// The names of the plan nodes that can produce many rows from few input rows.
const JOINS: [&str; 5] = ["HashJoinExec", "NestedLoopJoinExec", "CrossJoinExec", "SortMergeJoinExec", "UnnestExec"];

/// The deadline of a run, and the time limit that the error message states.
#[derive(Debug, Clone, Copy)]
pub(super) struct RunDeadline {
    pub(super) at: Instant,
    pub(super) seconds: f64,
}

impl RunDeadline {
    /// Returns an error if the deadline has passed.
    pub(super) fn check(&self) -> Result<(), Error> {
        if Instant::now() < self.at { Ok(()) } else { Err(self.error()) }
    }

    /// Returns the error for a run that has exceeded its deadline.
    pub(super) fn error(&self) -> Error {
        Error::limited(format!(
            "the transform took longer than {} s (limit ingest.transform_time_max); join on equal keys, or join fewer rows",
            self.seconds
        ))
    }
}

/// Returns an error, wrapped as a [`DataFusionError`], if the deadline has passed.
pub(super) fn check_deadline(deadline: Option<&RunDeadline>) -> Result<()> {
    let checked = deadline.map_or(Ok(()), RunDeadline::check);
    checked.map_err(|error| DataFusionError::External(Box::new(error)))
}

/// Adds a deadline check above each join of the plan.
pub(super) fn add_deadline_checks(plan: Arc<dyn ExecutionPlan>) -> Result<Arc<dyn ExecutionPlan>> {
    let checked = plan.transform_up(|node| {
        Ok(match JOINS.contains(&node.name()) {
            true => Transformed::yes(Arc::new(DeadlineExec { input: node }) as Arc<dyn ExecutionPlan>),
            false => Transformed::no(node),
        })
    });
    Ok(checked?.data)
}

/// A plan node that passes batches through, and fails once the deadline has passed.
#[derive(Debug)]
struct DeadlineExec {
    input: Arc<dyn ExecutionPlan>,
}

impl ExecutionPlan for DeadlineExec {
    fn name(&self) -> &'static str {
        "DeadlineExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    one_input_methods! { |_, input| Ok(Self { input }) }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let deadline = context.session_config().get_extension::<RunDeadline>();
        let batches = self.input.execute(partition, context)?.map(move |batch| {
            check_deadline(deadline.as_deref())?;
            batch
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), batches)))
    }
}

impl DisplayAs for DeadlineExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("DeadlineExec")
    }
}
