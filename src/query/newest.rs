//! A plan of which only the newest version of each key goes on. It stands inside the barrier, where no optimizer comes.
//!
//! In: a private scan of all versions. Out: the newest one of each key, in the first columns of the scan.
//!
//! ```text
//!   Parquet scan ─► the tenant's rows ─► asked keys ─► spread by key ─► newest version of each ─► barrier (row rules, …)
//! ```
//!
//! **Invariant:** what is applied before the newest versions are found is the same for all versions of a key: the tenant, and
//! conditions on key columns. Any other would let an older version through in place of the newest.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::coop::make_cooperative;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType, ReplaceChildrenOptions};
use datafusion::physical_plan::filter::FilterExecBuilder;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::{StreamExt as _, TryStreamExt as _, stream};

use crate::query::scan::Recipe;
use crate::query::versions::{Places, Versions};

/// Puts the search for the newest versions on top of `scan`. `conditions` are applied before it, one after the other.
pub(super) fn newest(
    scan: Recipe,
    conditions: Vec<Arc<dyn PhysicalExpr>>,
    places: Places,
    partitions: usize,
    batch_rows: usize,
) -> Recipe {
    let places = Arc::new(places);
    Arc::new(move || {
        let mut plan = scan()?;
        for condition in &conditions {
            let filter = FilterExecBuilder::new(Arc::clone(condition), plan).with_batch_size(batch_rows).build()?;
            plan = Arc::new(filter);
        }
        if partitions > 1 {
            let schema = plan.schema();
            let key = |place: &usize| Arc::new(Column::new(schema.field(*place).name(), *place)) as Arc<_>;
            let keys = places.key.iter().map(key).collect();
            plan = Arc::new(RepartitionExec::try_new(plan, Partitioning::Hash(keys, partitions))?);
        }
        Ok(Arc::new(NewestExec::new(plan, Arc::clone(&places))?) as Arc<dyn ExecutionPlan>)
    })
}

/// Hands on the newest version of each key of its input, whose partitions share no key.
#[derive(Debug)]
struct NewestExec {
    input: Arc<dyn ExecutionPlan>,
    places: Arc<Places>,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
}

impl NewestExec {
    fn new(input: Arc<dyn ExecutionPlan>, places: Arc<Places>) -> Result<Self> {
        let columns: Vec<usize> = (0..places.columns).collect();
        let schema: SchemaRef = Arc::new(Schema::project(&input.schema(), &columns)?);
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            Partitioning::UnknownPartitioning(input.properties().output_partitioning().partition_count()),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Ok(Self { input, places, schema, properties: Arc::new(properties) })
    }

    fn over(&self, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        let input = children.into_iter().next();
        let input = input.ok_or_else(|| DataFusionError::Internal("versions of nothing".to_owned()))?;
        Ok(Arc::new(Self::new(input, Arc::clone(&self.places))?))
    }
}

impl ExecutionPlan for NewestExec {
    fn name(&self) -> &'static str {
        "NewestExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        self.over(children)
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        self.over(children)
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let memory = MemoryConsumer::new("newest versions").register(context.memory_pool());
        let batch_rows = context.session_config().batch_size();
        let versions = Versions::new(Arc::clone(&self.places), &self.input.schema(), batch_rows, memory)?;
        let input = self.input.execute(partition, context)?;
        let rows = stream::once(gather(input, versions)).try_flatten().boxed();
        Ok(make_cooperative(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), rows))))
    }
}

/// Reads all versions before it hands on the first row.
async fn gather(
    mut input: SendableRecordBatchStream,
    mut versions: Versions,
) -> Result<impl stream::Stream<Item = Result<arrow::array::RecordBatch>> + Send> {
    while let Some(batch) = input.next().await {
        versions.take(&batch?)?;
    }
    drop(input);
    Ok(stream::iter(versions.finish()))
}

/// Seen by nobody: the barrier shows no child.
impl DisplayAs for NewestExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NewestExec")
    }
}
