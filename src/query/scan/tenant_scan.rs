//! The tenant barrier. It is the only node in a user's plan that reads stored rows, and optimizers see it as a leaf.
//!
//! The node contains another plan, the private plan, which is built from a [`ScanSpec`] (`physical_plan.rs`). The node
//! returns the requested columns of those rows that match the tenant condition and the row rules. The queries that the
//! operator configures use the same node, but read the rows of all tenants.
//!
//! ```text
//!   private plan ─► barrier predicate on every batch ─► requested columns ─► the user's plan
//! ```
//!
//! **Invariant:** [`TenantScan`] is a leaf without visible children. Optimizers cannot push a filter, limit, ordering
//! or dynamic filter into it. The node reports no statistics, and its metrics describe only its own output. Therefore,
//! no user expression is evaluated on a row of another tenant. Plans, metrics and results reveal nothing about the rows
//! of other tenants or their files.
//! **Invariant:** an error in the private plan is reported as a failure of the lake, not of the statement. The text of
//! the error appears only in the log. There is one exception: if a query exceeds its memory limit, the error says so,
//! but gives no details.

use std::fmt;
use std::sync::Arc;

use arrow::array::{AsArray as _, RecordBatch, RecordBatchOptions};
use arrow::compute::{BatchCoalescer, filter_record_batch};
use arrow::datatypes::SchemaRef;
use datafusion::catalog::Session;
use datafusion::common::DFSchema;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::{MemoryConsumer, MemoryReservation};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::utils::conjunction;
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, SchedulingType};
use datafusion::physical_plan::metrics::{Count, ExecutionPlanMetricsSet, MetricBuilder, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::{StreamExt as _, future, stream};

use crate::error::Error;
use crate::lake::{Table, is_missing_file};
use crate::query::scan::physical_plan::ScanPlan;
use crate::query::scan::scan_spec::{RowScope, ScanSpec, ShownRows, engine_schema};
use crate::query::scan::table_source::TableSource;
use crate::sql::engine_error_text::root;
use crate::sql::plan_node::leaf_methods;

/// The plan node that reads a table for a caller.
pub(in crate::query) struct TenantScan {
    spec: Arc<ScanSpec>,
    /// Builds a private plan for each run.
    plan: Arc<ScanPlan>,
    /// The private plan for the current run. It returns the requested columns, followed by further columns that the
    /// tenant barrier needs and then removes.
    source: Arc<dyn ExecutionPlan>,
    barrier: Arc<Barrier>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

/// The condition that every row must match, and the columns to return.
struct Barrier {
    /// The condition as a physical expression. `None` only if an operator's query scans the rows of all tenants.
    predicate: Option<Arc<dyn PhysicalExpr>>,
    schema: SchemaRef,
}

impl TenantScan {
    /// Creates the scan that `spec` describes. `table` must be the table that `spec.table` names.
    pub(in crate::query) fn new(
        spec: ScanSpec,
        table: &Table,
        source: &TableSource,
        state: &dyn Session,
    ) -> Result<Self> {
        let contract = table.contract();
        let plan = ScanPlan::resolve(&spec, table, source, state)?;
        let source = plan.build()?;
        let barrier = conjunction(spec.barrier(contract));
        let predicate = match (barrier, spec.scope.tenant()) {
            (Some(barrier), _) => Some(state.create_physical_expr(barrier, &DFSchema::try_from(source.schema())?)?),
            (None, None) => None,
            (None, Some(_)) => return Err(DataFusionError::Internal("a tenant's scan has no barrier".to_owned())),
        };
        let full = contract.table_schema();
        let indexes = spec.columns.iter().map(|name| full.index_of(name)).collect::<Result<Vec<_>, _>>()?;
        let schema = engine_schema(indexes.into_iter().map(|index| &full.fields()[index]));
        let partitions = source.properties().output_partitioning().partition_count();
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            Partitioning::UnknownPartitioning(partitions),
            EmissionType::Incremental,
            Boundedness::Bounded,
        )
        .with_scheduling_type(SchedulingType::Cooperative);
        Ok(Self {
            spec: Arc::new(spec),
            plan: Arc::new(plan),
            source,
            barrier: Arc::new(Barrier { predicate, schema }),
            properties: Arc::new(properties),
            metrics: ExecutionPlanMetricsSet::new(),
        })
    }
}

#[cfg(test)]
impl TenantScan {
    /// Returns the spec of the scan.
    pub(in crate::query) fn spec(&self) -> &ScanSpec {
        &self.spec
    }

    /// Returns the number of metrics that the private plan has recorded, which is 0 if it has not run.
    pub(in crate::query) fn metrics_below(&self) -> usize {
        self.source.metrics().map_or(0, |metrics| metrics.iter().count())
    }
}

impl Barrier {
    /// Filters `batch` by the predicate, and appends the matching rows to `rows`, with only the columns to return.
    fn filter_into(&self, batch: &RecordBatch, rows: &mut BatchCoalescer) -> Result<()> {
        let columns = batch.columns()[..self.schema.fields().len()].to_vec();
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let returned = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?;
        let Some(predicate) = &self.predicate else { return Ok(rows.push_batch(returned)?) };
        let mask = predicate.evaluate(batch)?.into_array(batch.num_rows())?;
        let mask = mask
            .as_boolean_opt()
            .ok_or_else(|| DataFusionError::Internal("the barrier's predicate is not a boolean".to_owned()))?;
        if mask.true_count() == batch.num_rows() {
            rows.push_batch(returned)?;
        } else {
            // If the mask is null for a row, the row is not returned.
            rows.push_batch(filter_record_batch(&returned, mask)?)?;
        }
        Ok(())
    }
}

/// The state of reading one partition.
struct PartitionRead {
    source: SendableRecordBatchStream,
    barrier: Arc<Barrier>,
    /// Collects the caller's rows into full batches. Otherwise, the sizes of batches would reveal where in a file other
    /// tenants' rows are.
    rows: BatchCoalescer,
    /// The only metric. A time would also measure work on the rows of other tenants.
    output_rows: Count,
    /// The reservation for the last batch that the private plan returned.
    memory: MemoryReservation,
    ended: bool,
}

impl PartitionRead {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(batch) = self.rows.next_completed_batch() {
                self.output_rows.add(batch.num_rows());
                return Ok(Some(batch));
            }
            if self.ended {
                return Ok(None);
            }
            let batch = self.source.next().await.transpose()?;
            match batch {
                Some(batch) => {
                    self.memory.try_resize(batch.get_array_memory_size())?;
                    self.barrier.filter_into(&batch, &mut self.rows)?;
                }
                None => {
                    self.ended = true;
                    self.rows.finish_buffered_batch()?;
                }
            }
        }
    }
}

impl ExecutionPlan for TenantScan {
    fn name(&self) -> &'static str {
        match self.spec.scope {
            RowScope::Tenant(_) => "TenantScan",
            RowScope::AllTenants => "OperatorScan",
        }
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    leaf_methods! {}

    /// Creates a copy of the node with a new private plan. The engine calls this method for each iteration of a
    /// recursive query, and for each run of a cached plan.
    fn reset_state(self: Arc<Self>) -> Result<Arc<dyn ExecutionPlan>> {
        Ok(Arc::new(Self {
            spec: Arc::clone(&self.spec),
            plan: Arc::clone(&self.plan),
            source: self.plan.build()?,
            barrier: Arc::clone(&self.barrier),
            properties: Arc::clone(&self.properties),
            metrics: ExecutionPlanMetricsSet::new(),
        }))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let batch_rows = context.session_config().batch_size();
        let memory = Arc::clone(context.memory_pool());
        let source = self.source.execute(partition, context).map_err(hide_error)?;
        let schema = Arc::clone(&self.barrier.schema);
        // With a LIMIT, a batch is returned as soon as it contains `limit` rows, even if that is fewer than the batch
        // size.
        let batch_rows = self.spec.limit.map_or(batch_rows, |limit| limit.clamp(1, batch_rows));
        let reading = PartitionRead {
            source,
            barrier: Arc::clone(&self.barrier),
            rows: BatchCoalescer::new(Arc::clone(&schema), batch_rows)
                .with_biggest_coalesce_batch_size(Some(batch_rows / 2)),
            output_rows: MetricBuilder::new(&self.metrics).output_rows(partition),
            memory: MemoryConsumer::new("table scan").register(&memory),
            ended: false,
        };
        let batches = stream::try_unfold(reading, |mut reading| async move {
            Ok(reading.next().await.map_err(hide_error)?.map(|batch| (batch, reading)))
        });
        let batches = match self.spec.limit {
            None => batches.boxed(),
            Some(limit) => stop_after(limit, batches).boxed(),
        };
        Ok(Box::pin(RecordBatchStreamAdapter::new(schema, batches)))
    }

    fn metrics(&self) -> Option<MetricsSet> {
        Some(self.metrics.clone_inner())
    }
}

/// Ends the stream after `limit` rows.
fn stop_after(
    limit: usize,
    batches: impl stream::Stream<Item = Result<RecordBatch>> + Send,
) -> impl stream::Stream<Item = Result<RecordBatch>> + Send {
    batches.scan(limit, |rows_left, batch| {
        future::ready(match batch {
            Ok(_) if *rows_left == 0 => None,
            Ok(batch) => {
                let rows = batch.num_rows().min(*rows_left);
                *rows_left -= rows;
                Some(Ok(batch.slice(0, rows)))
            }
            Err(error) => Some(Err(error)),
        })
    })
}

/// Replaces an error of the private plan with an error that contains no details. The original error is kept as the
/// source, and appears only in the log.
fn hide_error(error: DataFusionError) -> DataFusionError {
    if matches!(root(&error), DataFusionError::ResourcesExhausted(_)) {
        return DataFusionError::ResourcesExhausted("inside a table scan".to_owned());
    }
    // Queries read the files of one version of a table. If a later version has replaced a file, the file stays in the
    // store for a while.
    let problem = match is_missing_file(&error) {
        true => "a table was rewritten, and its old files were deleted while the query read them: retry",
        false => "a table is temporarily unavailable: retry",
    };
    DataFusionError::External(Box::new(Error::unavailable(problem).with_source(error)))
}

impl DisplayAs for TenantScan {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, columns) = (&self.spec.name, self.spec.columns.join(", "));
        let is_latest = matches!(self.spec.rows, ShownRows::LatestVersions { .. });
        match format {
            DisplayFormatType::Default | DisplayFormatType::Verbose => {
                let versions = if is_latest { ", versions=latest" } else { "" };
                write!(f, "{}: table={name}{versions}, columns=[{columns}]", self.name())?;
                self.spec.limit.map_or(Ok(()), |limit| write!(f, ", limit={limit}"))
            }
            DisplayFormatType::TreeRender => {
                writeln!(f, "table={name}")?;
                if is_latest {
                    writeln!(f, "versions=latest")?;
                }
                writeln!(f, "columns={columns}")
            }
        }
    }
}

impl fmt::Debug for TenantScan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TenantScan").field("spec", &self.spec).finish_non_exhaustive()
    }
}
