//! The barrier: the only plan node that returns rows of a tenant. No optimizer enters it.
//!
//! In: a [`ScanSpec`], from which a private plan is built (`scan_plan.rs`), and the predicate that selects the rows
//! that this caller may see. Out: these rows in the requested columns, and nothing else. The private plan is a Parquet
//! scan; for a table that shows the newest versions the selection of those is on top of it (`newest_versions.rs`). A query
//! of the operator's configuration, which sees the rows of all tenants, reads through the same node.
//!
//! ```text
//!   Parquet scan (private) ─► barrier predicate on every batch ─► requested columns ─► the user's plan
//! ```
//!
//! **Invariant:** [`TenantScan`] is a leaf. It has no visible child, accepts no filter, limit, ordering or dynamic
//! filter of the user's plan, and reports no statistics and only metrics of its own output. So no user expression is
//! evaluated on a row of another tenant, and plans, metrics and results reveal nothing about those rows or files
//! (counts, names, pruning).
//! **Invariant:** an error below the barrier is an error of the lake, never of the user: its text stays in the log. The
//! only exception is that the query has used up its memory, which is reported without details.

use std::fmt;
use std::sync::Arc;

use arrow::array::{AsArray as _, RecordBatch, RecordBatchOptions};
use arrow::compute::{BatchCoalescer, filter_record_batch};
use arrow::datatypes::SchemaRef;
use datafusion::catalog::Session;
use datafusion::common::DFSchema;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::utils::conjunction;
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, ReplaceChildrenOptions, SchedulingType};
use datafusion::physical_plan::metrics::{BaselineMetrics, ExecutionPlanMetricsSet, MetricsSet};
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::{StreamExt as _, future, stream};

use crate::error::Error;
use crate::lake::Table;
use crate::query::error::root;
use crate::query::scan::scan_plan::ScanPlan;
use crate::query::scan::scan_spec::{RowScope, ScanSpec, ShownRows};
use crate::query::scan::tenant_table::{TableSource, plain};

/// Reads one table for one caller.
pub(in crate::query) struct TenantScan {
    spec: Arc<ScanSpec>,
    /// Builds a new private plan for each run.
    plan: Arc<ScanPlan>,
    /// Reads the requested columns first, then those that only the barrier needs.
    source: Arc<dyn ExecutionPlan>,
    barrier: Arc<Barrier>,
    properties: Arc<PlanProperties>,
    metrics: ExecutionPlanMetricsSet,
}

/// The condition on a row, and the columns to return.
struct Barrier {
    /// `None` only for a scan of all tenants' rows.
    predicate: Option<Arc<dyn PhysicalExpr>>,
    schema: SchemaRef,
}

impl TenantScan {
    /// The scan that `spec` describes, of the table that it names.
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
            (None, Some(_)) => return Err(DataFusionError::Internal("the scan of a tenant has no barrier".to_owned())),
        };
        let whole = contract.table_schema();
        let places = spec.columns.iter().map(|name| whole.index_of(name)).collect::<Result<Vec<_>, _>>()?;
        let schema = plain(places.into_iter().map(|place| &whole.fields()[place]));
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
    /// The spec of the scan.
    pub(in crate::query) fn spec(&self) -> &ScanSpec {
        &self.spec
    }

    /// The number of metrics of the private scan: 0 if it has not run.
    pub(in crate::query) fn metrics_below(&self) -> usize {
        self.source.metrics().map_or(0, |metrics| metrics.iter().count())
    }
}

impl Barrier {
    /// Appends the caller's rows of `batch`, in the returned columns, to `rows`.
    fn admit(&self, batch: &RecordBatch, rows: &mut BatchCoalescer) -> Result<()> {
        let columns = batch.columns()[..self.schema.fields().len()].to_vec();
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        let admitted = RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options)?;
        let Some(predicate) = &self.predicate else { return Ok(rows.push_batch(admitted)?) };
        let mask = predicate.evaluate(batch)?.into_array(batch.num_rows())?;
        let mask = mask
            .as_boolean_opt()
            .ok_or_else(|| DataFusionError::Internal("the barrier's predicate is not a boolean".to_owned()))?;
        if mask.true_count() == batch.num_rows() {
            rows.push_batch(admitted)?;
        } else {
            // A null in the mask is not true: such a row is not returned.
            rows.push_batch(filter_record_batch(&admitted, mask)?)?;
        }
        Ok(())
    }
}

/// One partition while it is read.
struct PartitionRead {
    source: SendableRecordBatchStream,
    barrier: Arc<Barrier>,
    /// Collects the caller's rows into full batches, so that batch sizes do not reveal where rows of other tenants are.
    rows: BatchCoalescer,
    metrics: BaselineMetrics,
    ended: bool,
}

impl PartitionRead {
    async fn next(&mut self) -> Result<Option<RecordBatch>> {
        loop {
            if let Some(batch) = self.rows.next_completed_batch() {
                self.metrics.record_output(batch.num_rows());
                return Ok(Some(batch));
            }
            if self.ended {
                return Ok(None);
            }
            let batch = self.source.next().await.transpose()?;
            let _timer = self.metrics.elapsed_compute().timer();
            match batch {
                Some(batch) => self.barrier.admit(&batch, &mut self.rows)?,
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

    /// A recursive query runs its inner part repeatedly, and a cached plan is copied for each run: each run builds a
    /// new private scan.
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
        let source = self.source.execute(partition, context).map_err(below)?;
        let schema = Arc::clone(&self.barrier.schema);
        // A LIMIT is complete as soon as its rows are found, not when a batch is full.
        let batch_rows = self.spec.limit.map_or(batch_rows, |limit| limit.clamp(1, batch_rows));
        let reading = PartitionRead {
            source,
            barrier: Arc::clone(&self.barrier),
            rows: BatchCoalescer::new(Arc::clone(&schema), batch_rows)
                .with_biggest_coalesce_batch_size(Some(batch_rows / 2)),
            metrics: BaselineMetrics::new(&self.metrics, partition),
            ended: false,
        };
        let batches = stream::try_unfold(reading, |mut reading| async move {
            Ok(reading.next().await.map_err(below)?.map(|batch| (batch, reading)))
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

/// Ends `batches` once `limit` rows have passed.
fn stop_after(
    limit: usize,
    batches: impl stream::Stream<Item = Result<RecordBatch>> + Send,
) -> impl stream::Stream<Item = Result<RecordBatch>> + Send {
    batches.scan(limit, |left, batch| {
        future::ready(match batch {
            Ok(_) if *left == 0 => None,
            Ok(batch) => {
                let rows = batch.num_rows().min(*left);
                *left -= rows;
                Some(Ok(batch.slice(0, rows)))
            }
            Err(error) => Some(Err(error)),
        })
    })
}

/// Converts an error from below the barrier to the one that is visible above it.
fn below(error: DataFusionError) -> DataFusionError {
    if matches!(root(&error), DataFusionError::ResourcesExhausted(_)) {
        return DataFusionError::ResourcesExhausted("below the barrier".to_owned());
    }
    DataFusionError::External(Box::new(Error::unavailable("a table cannot be read now: retry").with_source(error)))
}

impl DisplayAs for TenantScan {
    fn fmt_as(&self, format: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, columns) = (&self.spec.name, self.spec.columns.join(", "));
        let is_newest = matches!(self.spec.rows, ShownRows::Newest { .. });
        match format {
            DisplayFormatType::Default | DisplayFormatType::Verbose => {
                let versions = if is_newest { ", versions=newest" } else { "" };
                write!(f, "{}: table={name}{versions}, columns=[{columns}]", self.name())?;
                self.spec.limit.map_or(Ok(()), |limit| write!(f, ", limit={limit}"))
            }
            DisplayFormatType::TreeRender => {
                writeln!(f, "table={name}")?;
                if is_newest {
                    writeln!(f, "versions=newest")?;
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
