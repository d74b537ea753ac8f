//! Tables that have no contents until a plan runs. Each run supplies the contents.
//!
//! A statement is planned once, with a [`PlaceholderTable`] for each table that it reads. Each run of the plan passes
//! in the [`TableContents`], which are the batch of messages and the current contents of the lookup tables.
//!
//! **Invariant:** a table reads only the record batches that its run passes in. The table opens no file and does not
//! read the clock.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::{DataFusionError, Statistics};
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::stream;

use super::deadline::{RunDeadline, check_deadline};
use crate::sql::plan_node::leaf_methods;

/// The contents of a run's tables, by table name.
#[derive(Debug, Default)]
pub(super) struct TableContents(pub(super) BTreeMap<Arc<str>, Arc<Vec<RecordBatch>>>);

/// A table that has a name and a schema, but no contents.
#[derive(Debug)]
pub(super) struct PlaceholderTable {
    name: Arc<str>,
    schema: SchemaRef,
    /// The approximate number of rows per run. The engine uses this number to choose which side of a join to keep in
    /// memory.
    rows: usize,
}

impl PlaceholderTable {
    pub(super) fn new(name: &str, schema: SchemaRef, rows: usize) -> Self {
        Self { name: name.into(), schema, rows }
    }
}

#[async_trait]
impl TableProvider for PlaceholderTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let columns = projection.cloned().unwrap_or_else(|| (0..self.schema.fields().len()).collect());
        let schema = Arc::new(self.schema.project(&columns)?);
        let properties = PlanProperties::new(
            EquivalenceProperties::new(schema),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        );
        let (name, rows) = (Arc::clone(&self.name), self.rows);
        Ok(Arc::new(PlaceholderScan { name, columns, rows, properties: Arc::new(properties) }))
    }
}

/// Reads the contents that the run passes in for a placeholder table.
pub(super) struct PlaceholderScan {
    name: Arc<str>,
    columns: Vec<usize>,
    rows: usize,
    properties: Arc<PlanProperties>,
}

impl PlaceholderScan {
    /// Returns the columns that this node reads, or no columns if it reads a table other than `name`.
    pub(super) fn columns_of(&self, name: &str) -> &[usize] {
        if *self.name == *name { &self.columns } else { &[] }
    }
}

impl ExecutionPlan for PlaceholderScan {
    fn name(&self) -> &'static str {
        "PlaceholderScan"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    leaf_methods! {}

    fn partition_statistics(&self, _: Option<usize>) -> Result<Arc<Statistics>> {
        let mut statistics = Statistics::new_unknown(&self.schema());
        statistics.num_rows = Precision::Inexact(self.rows);
        Ok(Arc::new(statistics))
    }

    fn execute(&self, _: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let contents = context.session_config().get_extension::<TableContents>();
        let batches = contents.and_then(|contents| contents.0.get(&self.name).cloned());
        let batches = batches
            .ok_or_else(|| DataFusionError::Internal(format!("table `{}` has no contents in this run", self.name)))?;
        let (columns, count, size) = (self.columns.clone(), batches.len(), context.session_config().batch_size());
        let slices = (0..count).flat_map(move |index| {
            let batch = batches[index].clone();
            let starts = (0..batch.num_rows()).step_by(size.max(1));
            starts.map(move |start| batch.slice(start, size.min(batch.num_rows() - start)))
        });
        // Check the deadline for each slice, because a nested loop join is not stopped by any other check.
        let deadline = context.session_config().get_extension::<RunDeadline>();
        let projected = slices.map(move |slice| {
            check_deadline(deadline.as_deref())?;
            slice.project(&columns).map_err(DataFusionError::from)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), stream::iter(projected))))
    }
}

impl DisplayAs for PlaceholderScan {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PlaceholderScan: {}", self.name)
    }
}

impl fmt::Debug for PlaceholderScan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PlaceholderScan").field("name", &self.name).field("columns", &self.columns).finish()
    }
}
