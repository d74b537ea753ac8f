//! The plan node that reads a lookup table for a caller.
//!
//! The node returns the requested columns of the rows that match the caller's row rules. Its input contains no rows of
//! other tenants ([`SessionLookup`](crate::query::scan::lookup_provider::SessionLookup)).
//!
//! **Invariant:** [`LookupScan`] is a leaf without visible expressions. Like [`TenantScan`](super::tenant_scan::TenantScan),
//! it accepts no filters, reports no statistics, and its metrics describe only its own output. No user expression is
//! therefore evaluated on a row that a row rule hides.
//! **Invariant:** the node does not copy rows, unless a row rule removes some of them. All queries share the arrays, so
//! the node reserves no memory for them.

use std::fmt;
use std::sync::Arc;

use arrow::array::{AsArray as _, RecordBatch};
use arrow::compute::{BatchCoalescer, filter_record_batch};
use arrow::datatypes::SchemaRef;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::coop::make_cooperative;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, SchedulingType};
use datafusion::physical_plan::metrics::{Count, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::stream;

use crate::sql::interrupt;
use crate::sql::plan_node::leaf_methods;

/// The rows that a scan of a lookup table reads.
#[derive(Debug, Clone)]
pub(in crate::query) struct LookupRows {
    /// The rows that the caller's tenant may see, with all columns.
    pub(in crate::query) batches: Arc<Vec<RecordBatch>>,
    /// The indexes of the columns to return.
    pub(in crate::query) columns: Vec<usize>,
    /// The condition that the caller's row rules impose, or `None` if there are no row rules.
    pub(in crate::query) predicate: Option<Arc<dyn PhysicalExpr>>,
}

/// The plan node that reads a lookup table for a caller.
pub(in crate::query) struct LookupScan {
    name: Arc<str>,
    rows: LookupRows,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

impl LookupScan {
    /// Creates the scan of the lookup table `name`. The rows have the columns of `schema`.
    pub(in crate::query) fn new(name: &Arc<str>, rows: LookupRows, schema: SchemaRef) -> Self {
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            Partitioning::UnknownPartitioning(1),
            EmissionType::Incremental,
            Boundedness::Bounded,
        )
        .with_scheduling_type(SchedulingType::Cooperative);
        let (name, properties) = (Arc::clone(name), Arc::new(properties));
        Self { name, rows, schema, properties, metrics: ExecutionPlanMetricsSet::new() }
    }
}

/// The state of one read of a lookup table.
struct LookupRead {
    rows: LookupRows,
    schema: SchemaRef,
    /// The index of the next batch to read.
    next: usize,
    /// The index of the next row in that batch.
    start: usize,
    batch_rows: usize,
    /// Collects the rows that match the row rules into full batches. Otherwise, the sizes of batches would reveal where
    /// the hidden rows are. `None` if there are no row rules.
    matching: Option<BatchCoalescer>,
    output_rows: Count,
}

impl LookupRead {
    /// Returns the next rows of the input, with all columns.
    fn next_input(&mut self) -> Option<RecordBatch> {
        loop {
            let batch = self.rows.batches.get(self.next)?;
            if self.start < batch.num_rows() {
                let rows = self.batch_rows.min(batch.num_rows() - self.start);
                let slice = batch.slice(self.start, rows);
                self.start += rows;
                return Some(slice);
            }
            (self.next, self.start) = (self.next + 1, 0);
        }
    }

    fn next_output(&mut self) -> Result<Option<RecordBatch>> {
        let (Some(predicate), Some(mut matching)) = (self.rows.predicate.clone(), self.matching.take()) else {
            return self.next_input().map(|batch| self.returned(&batch)).transpose();
        };
        while !matching.has_completed_batch() {
            let Some(batch) = self.next_input() else {
                matching.finish_buffered_batch()?;
                break;
            };
            interrupt::check()?;
            let mask = predicate.evaluate(&batch)?.into_array(batch.num_rows())?;
            let mask = mask.as_boolean_opt().ok_or_else(|| {
                DataFusionError::Internal("the condition of the row rules is not a boolean".to_owned())
            })?;
            // If the mask is null for a row, the row is not returned.
            matching.push_batch(filter_record_batch(&self.returned(&batch)?, mask)?)?;
        }
        let batch = matching.next_completed_batch();
        self.matching = Some(matching);
        Ok(batch)
    }

    /// Returns the requested columns of `batch`.
    fn returned(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        Ok(batch.project(&self.rows.columns)?.with_schema(Arc::clone(&self.schema))?)
    }
}

impl Iterator for LookupRead {
    type Item = Result<RecordBatch>;

    fn next(&mut self) -> Option<Self::Item> {
        let batch = self.next_output().transpose()?;
        if let Ok(batch) = &batch {
            self.output_rows.add(batch.num_rows());
        }
        Some(batch)
    }
}

impl ExecutionPlan for LookupScan {
    fn name(&self) -> &'static str {
        "LookupScan"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    leaf_methods! {}

    /// Creates a copy of the node without the metrics of previous runs.
    fn reset_state(self: Arc<Self>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(Self::new(&self.name, self.rows.clone(), Arc::clone(&self.schema))))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let batch_rows = context.session_config().batch_size().max(1);
        let coalescer = || {
            BatchCoalescer::new(Arc::clone(&self.schema), batch_rows)
                .with_biggest_coalesce_batch_size(Some(batch_rows / 2))
        };
        let read = LookupRead {
            rows: self.rows.clone(),
            schema: Arc::clone(&self.schema),
            next: 0,
            start: 0,
            batch_rows,
            matching: self.rows.predicate.is_some().then(coalescer),
            output_rows: MetricBuilder::new(&self.metrics).output_rows(partition),
        };
        let rows = RecordBatchStreamAdapter::new(Arc::clone(&self.schema), stream::iter(read));
        Ok(make_cooperative(Box::pin(rows)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

impl DisplayAs for LookupScan {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = &self.name;
        let columns: Vec<_> = self.schema.fields().iter().map(|field| field.name().as_str()).collect();
        let columns = columns.join(", ");
        match format {
            DisplayFormatType::Default | DisplayFormatType::Verbose => {
                write!(f, "LookupScan: lookup={name}, columns=[{columns}]")
            }
            DisplayFormatType::TreeRender => {
                writeln!(f, "lookup={name}")?;
                writeln!(f, "columns={columns}")
            }
        }
    }
}

impl fmt::Debug for LookupScan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LookupScan").field("name", &self.name).finish_non_exhaustive()
    }
}
