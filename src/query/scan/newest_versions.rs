//! A plan node that keeps only the newest version of each key. It is inside the barrier, where no optimizer reaches it.
//!
//! In: a private scan of all versions. Out: the newest version of each key, in the first columns of the scan.
//!
//! ```text
//! Parquet scan ─► the tenant's rows ─► filters on keys ─► hash by key ─► newest version of each ─► barrier (row rules,
//! …)
//! ```
//!
//! **Invariant:** every filter before the selection of the newest version is the same for all versions of a key: the
//! tenant, and conditions on key columns. Any other filter could drop the newest version and let an older one through.

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

use crate::query::scan::row_versions::{ColumnPlaces, Versions};

/// Adds the selection of the newest versions to `plan`. `conditions` are applied before it, in order.
pub(in crate::query) fn newest(
    mut plan: Arc<dyn ExecutionPlan>,
    conditions: &[Arc<dyn PhysicalExpr>],
    places: &Arc<ColumnPlaces>,
    partitions: usize,
    batch_rows: usize,
) -> Result<Arc<dyn ExecutionPlan>> {
    for condition in conditions {
        let filter = FilterExecBuilder::new(Arc::clone(condition), plan).with_batch_size(batch_rows).build()?;
        plan = Arc::new(filter);
    }
    if partitions > 1 {
        let schema = plan.schema();
        let key = |place: &usize| Arc::new(Column::new(schema.field(*place).name(), *place)) as Arc<_>;
        let keys = places.key.iter().map(key).collect();
        plan = Arc::new(RepartitionExec::try_new(plan, Partitioning::Hash(keys, partitions))?);
    }
    Ok(Arc::new(NewestExec::new(plan, Arc::clone(places))?))
}

/// Returns the newest version of each key of its input, whose partitions share no key.
#[derive(Debug)]
struct NewestExec {
    input: Arc<dyn ExecutionPlan>,
    places: Arc<ColumnPlaces>,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
}

impl NewestExec {
    fn new(input: Arc<dyn ExecutionPlan>, places: Arc<ColumnPlaces>) -> Result<Self> {
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
        let input = input.ok_or_else(|| DataFusionError::Internal("NewestExec needs exactly one input".to_owned()))?;
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

/// Reads all versions before it returns the first row.
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

/// Never shown: the barrier hides its child.
impl DisplayAs for NewestExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NewestExec")
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, AsArray as _, Int64Array, RecordBatch, StringArray};
    use arrow::datatypes::Int64Type;
    use datafusion::datasource::memory::MemorySourceConfig;
    use datafusion::physical_plan::collect;

    use super::*;

    /// Rows of (key, by). Every partition of the scan holds a version of every key.
    fn partition(number: i64) -> Vec<RecordBatch> {
        let column = |of: &dyn Fn(i64) -> i64| Arc::new((0..100).map(of).collect::<Int64Array>()) as ArrayRef;
        let ids: ArrayRef = Arc::new((0..100).map(|key| Some(format!("{key} {number}"))).collect::<StringArray>());
        let (key, by, received) = (column(&|key| key), column(&|key| (key + number) % 4), column(&|_| 0));
        vec![RecordBatch::try_from_iter([("key", key), ("by", by), ("received", received), ("id", ids)]).unwrap()]
    }

    #[tokio::test]
    async fn versions_of_a_key_from_different_partitions_are_compared() {
        let rows: Vec<_> = (0..4).map(partition).collect();
        let schema = rows[0][0].schema();
        let scan = MemorySourceConfig::try_new_exec(&rows, schema, None).unwrap();
        let places = Arc::new(ColumnPlaces { key: vec![0], by: 1, received: 2, id: 3, columns: 2 });
        let plan = newest(scan, &[], &places, 4, 16).unwrap();
        let mut found = Vec::new();
        for batch in collect(plan, Arc::default()).await.unwrap() {
            let column = |place: usize| batch.column(place).as_primitive::<Int64Type>().values().iter().copied();
            found.extend(column(0).zip(column(1)));
        }
        found.sort_unstable();
        assert_eq!(found, (0..100).map(|key| (key, 3)).collect::<Vec<_>>(), "each key once, as its newest version");
    }
}
