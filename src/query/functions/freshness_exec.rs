//! The newest times among the rows that a caller sees in a table.
//!
//! In: plans over the caller's tables, so that row rules and hidden columns apply as in any other query. Out: one row
//! with the greatest event time, and the greatest receive time of recent events.
//!
//! **Invariant:** [`NewestRows`] is a leaf: its plans are private, and no optimizer moves a user expression into them.
//! They use the memory pool and the time limit of the statement that contains it.

use std::fmt;
use std::sync::Arc;

use arrow::array::{Array as _, AsArray as _, RecordBatch};
use arrow::datatypes::{SchemaRef, TimestampMicrosecondType};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, ReplaceChildrenOptions, reset_plan_states};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, execute_stream};
use futures::{TryStreamExt as _, stream};

use crate::clock::Micros;
use crate::query::Session;

/// The newest times of a caller's rows; `None` if it sees no row or not the column.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Newest {
    /// The greatest event time.
    pub event: Option<Micros>,
    /// The greatest receive time among events of the last two days; among all events, if there are none in that time.
    pub received: Option<Micros>,
}

impl Newest {
    /// The first two columns of a batch with one row.
    fn of(batch: &RecordBatch) -> Option<Self> {
        let value = |column: usize| {
            let times = batch.column(column).as_primitive_opt::<TimestampMicrosecondType>()?;
            times.is_valid(0).then(|| times.value(0))
        };
        (batch.num_rows() == 1 && batch.num_columns() >= 2).then(|| Self { event: value(0), received: value(1) })
    }
}

impl Session {
    /// The newest times of a table's rows. Waits for a query slot of the tenant, and has the limits of any query.
    pub async fn newest(&self, table: &str) -> crate::error::Result<Newest> {
        let name = table.replace('\'', "''");
        let planned =
            self.plan(&format!("SELECT newest_event_time, newest_received_time FROM freshness('{name}')")).await;
        let planned = planned?;
        let batches: Vec<_> = self.run(&planned, None).await?.batches.try_collect().await?;
        Ok(batches.iter().find_map(Newest::of).unwrap_or_default())
    }
}

/// Builds the row from the times found.
pub(in crate::query) type Row = Arc<dyn Fn(Newest) -> Result<RecordBatch> + Send + Sync>;

/// One row with the newest times of a table.
pub(in crate::query) struct NewestRows {
    /// The table's name, for EXPLAIN.
    table: String,
    /// Each plan returns the two times in one row; it runs only if the plans before it found none.
    looks: Vec<Arc<dyn ExecutionPlan>>,
    schema: SchemaRef,
    row: Row,
    properties: Arc<PlanProperties>,
}

impl NewestRows {
    pub(in crate::query) fn new(table: &str, looks: Vec<Arc<dyn ExecutionPlan>>, schema: SchemaRef, row: Row) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Self { table: table.to_owned(), looks, schema, row, properties: Arc::new(properties) }
    }
}

/// The result of the first plan that finds a row.
async fn newest(looks: Vec<Arc<dyn ExecutionPlan>>, context: Arc<TaskContext>) -> Result<Newest> {
    for look in looks {
        // A recursive query runs its inner part repeatedly.
        let look = reset_plan_states(look)?;
        let batches: Vec<_> = execute_stream(look, Arc::clone(&context))?.try_collect().await?;
        if let Some(found) = batches.iter().find_map(Newest::of).filter(|found| *found != Newest::default()) {
            return Ok(found);
        }
    }
    Ok(Newest::default())
}

impl ExecutionPlan for NewestRows {
    fn name(&self) -> &'static str {
        "Freshness"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        Vec::new()
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        _: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn execute(&self, _: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let (looks, row) = (self.looks.clone(), Arc::clone(&self.row));
        let found = stream::once(async move { row(newest(looks, context).await?) });
        Ok(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), found)))
    }
}

impl DisplayAs for NewestRows {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match format {
            DisplayFormatType::Default | DisplayFormatType::Verbose => write!(f, "Freshness: table={}", self.table),
            DisplayFormatType::TreeRender => writeln!(f, "table={}", self.table),
        }
    }
}

impl fmt::Debug for NewestRows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NewestRows").field("table", &self.table).finish_non_exhaustive()
    }
}
