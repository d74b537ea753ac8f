//! The plan node of `freshness('table')`, which finds the newest times in the rows that the caller may see.
//!
//! To find these times, the node runs plans of its own on the session's table, so row rules and hidden columns apply as
//! in any other query. Each of these plans returns one row with both times.
//!
//! **Invariant:** [`FreshnessExec`] is a leaf of the statement's plan, so no optimizer moves an expression of the
//! statement into the plans that this node runs. These plans use the memory pool and the time limit of the statement.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array as _, AsArray as _, RecordBatch};
use arrow::datatypes::{SchemaRef, TimestampMicrosecondType};
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, reset_plan_states};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, execute_stream};
use futures::{TryStreamExt as _, stream};

use crate::clock::Micros;
use crate::sql::plan_node::leaf_methods;

/// The newest times in the rows that the caller may see. A time is `None` if the caller may not see any rows, or if the
/// column is hidden from the caller.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NewestTimes {
    /// The greatest event time.
    pub event: Option<Micros>,
    /// The greatest receive time among the events of the last two days, or among all events if there are no such
    /// events.
    pub received: Option<Micros>,
}

impl NewestTimes {
    /// If the batch has one row, reads the times from its first two columns. Otherwise, returns `None`.
    pub(in crate::query) fn of(batch: &RecordBatch) -> Option<Self> {
        let value = |column: usize| {
            let times = batch.column(column).as_primitive_opt::<TimestampMicrosecondType>()?;
            times.is_valid(0).then(|| times.value(0))
        };
        (batch.num_rows() == 1 && batch.num_columns() >= 2).then(|| Self { event: value(0), received: value(1) })
    }
}

/// A function that builds the result row from the newest times.
pub(in crate::query) type RowBuilder = Arc<dyn Fn(NewestTimes) -> Result<RecordBatch> + Send + Sync>;

/// The plan node that returns one row with the freshness of a table.
pub(in crate::query) struct FreshnessExec {
    /// The table's name, which EXPLAIN shows.
    table: String,
    /// The plans that search for the newest times, in the order in which they run. Each plan returns one row with both
    /// times. A plan runs only if the previous plan found no time.
    searches: Vec<Arc<dyn ExecutionPlan>>,
    schema: SchemaRef,
    row: RowBuilder,
    properties: Arc<PlanProperties>,
}

impl FreshnessExec {
    pub(in crate::query) fn new(
        table: &str,
        searches: Vec<Arc<dyn ExecutionPlan>>,
        schema: SchemaRef,
        row: RowBuilder,
    ) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Self { table: table.to_owned(), searches, schema, row, properties: Arc::new(properties) }
    }
}

/// Runs the plans in order, and returns the result of the first plan that finds a time.
async fn search(searches: Vec<Arc<dyn ExecutionPlan>>, context: Arc<TaskContext>) -> Result<NewestTimes> {
    for plan in searches {
        // A recursive query executes this node several times, so reset the state that an earlier execution left in the
        // plan.
        let plan = reset_plan_states(plan)?;
        let batches: Vec<_> = execute_stream(plan, Arc::clone(&context))?.try_collect().await?;
        let found = batches.iter().find_map(NewestTimes::of);
        if let Some(found) = found.filter(|found| *found != NewestTimes::default()) {
            return Ok(found);
        }
    }
    Ok(NewestTimes::default())
}

impl ExecutionPlan for FreshnessExec {
    fn name(&self) -> &'static str {
        "Freshness"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    leaf_methods! {}

    fn execute(&self, _: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let (searches, row) = (self.searches.clone(), Arc::clone(&self.row));
        let rows = stream::once(async move { row(search(searches, context).await?) });
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), rows)))
    }
}

impl DisplayAs for FreshnessExec {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match format {
            DisplayFormatType::Default | DisplayFormatType::Verbose => write!(f, "Freshness: table={}", self.table),
            DisplayFormatType::TreeRender => writeln!(f, "table={}", self.table),
        }
    }
}

impl fmt::Debug for FreshnessExec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FreshnessExec").field("table", &self.table).finish_non_exhaustive()
    }
}
