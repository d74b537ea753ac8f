//! Tables that are empty while a statement is planned, and filled for each run of its plan.
//!
//! In: a name and a schema. Out: a [`BatchTable`] to plan with. Each run passes in the contents ([`BatchTables`]), so that a plan
//! is made once and runs over every batch, with the lookup tables as they are at that time.
//!
//! **Invariant:** a table reads only the batches passed to its run: no file, no store, no clock.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::stats::Precision;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Statistics};
use datafusion::error::Result;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::stream;

use super::deadline::{RunDeadline, watch};

/// The contents of the tables of one run, by name.
#[derive(Debug, Default)]
pub(super) struct BatchTables(pub(super) BTreeMap<Arc<str>, Arc<Vec<RecordBatch>>>);

/// A table to plan with.
#[derive(Debug)]
pub(super) struct BatchTable {
    name: Arc<str>,
    schema: SchemaRef,
    /// The approximate number of rows per run: it decides which side of a join is kept in memory.
    rows: usize,
}

impl BatchTable {
    pub(super) fn new(name: &str, schema: SchemaRef, rows: usize) -> Self {
        Self { name: name.into(), schema, rows }
    }
}

#[async_trait]
impl TableProvider for BatchTable {
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
        Ok(Arc::new(BatchTableScan { name, columns, rows, properties: Arc::new(properties) }))
    }
}

/// Reads a batch table.
pub(super) struct BatchTableScan {
    name: Arc<str>,
    columns: Vec<usize>,
    rows: usize,
    properties: Arc<PlanProperties>,
}

impl BatchTableScan {
    /// The columns read from the table `name`, if this node reads that table.
    pub(super) fn columns_of(&self, name: &str) -> &[usize] {
        if *self.name == *name { &self.columns } else { &[] }
    }
}

impl ExecutionPlan for BatchTableScan {
    fn name(&self) -> &'static str {
        "BatchTableScan"
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

    fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(self)
    }

    fn partition_statistics(&self, _: Option<usize>) -> Result<Arc<Statistics>> {
        let mut statistics = Statistics::new_unknown(&self.schema());
        statistics.num_rows = Precision::Inexact(self.rows);
        Ok(Arc::new(statistics))
    }

    fn execute(&self, _: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let filled = context.session_config().get_extension::<BatchTables>();
        let batches = filled.and_then(|filled| filled.0.get(&self.name).cloned());
        let batches = batches
            .ok_or_else(|| DataFusionError::Internal(format!("table `{}` has no contents in this run", self.name)))?;
        let (columns, count, size) = (self.columns.clone(), batches.len(), context.session_config().batch_size());
        let pieces = (0..count).flat_map(move |index| {
            let batch = batches[index].clone();
            let starts = (0..batch.num_rows()).step_by(size.max(1));
            starts.map(move |start| batch.slice(start, size.min(batch.num_rows() - start)))
        });
        // For a nested loop join, this is the only point at which the deadline can be checked.
        let deadline = context.session_config().get_extension::<RunDeadline>();
        let projected = pieces.map(move |piece| {
            watch(deadline.as_deref())?;
            piece.project(&columns).map_err(DataFusionError::from)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), stream::iter(projected))))
    }
}

impl DisplayAs for BatchTableScan {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "BatchTableScan: {}", self.name)
    }
}

impl fmt::Debug for BatchTableScan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BatchTableScan").field("name", &self.name).field("columns", &self.columns).finish()
    }
}
