//! A plan node that selects the latest version of each key. The tenant barrier hides the node from optimizers, so they
//! cannot change it.
//!
//! The input is a scan of all versions, which is used by this node alone. The output consists of the requested columns
//! of the latest versions.
//!
//! ```text
//!   Parquet scan ─► tenant ─► key filters ─► hash partitioning by key ─► latest version of each key ─► barrier (row rules)
//! ```
//!
//! **Invariant:** before the selection, only the tenant condition and filters on key columns are applied, because they
//! have the same result for all versions of a key. Any other filter could remove the latest version, and the node would
//! then return an older version.

use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::error::Result;
use datafusion::execution::memory_pool::MemoryConsumer;
use datafusion::execution::{SendableRecordBatchStream, TaskContext};
use datafusion::physical_expr::expressions::Column;
use datafusion::physical_expr::{EquivalenceProperties, Partitioning, PhysicalExpr};
use datafusion::physical_plan::coop::make_cooperative;
use datafusion::physical_plan::execution_plan::{Boundedness, EmissionType};
use datafusion::physical_plan::filter::FilterExecBuilder;
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::{StreamExt as _, TryStreamExt as _, stream};

use crate::query::scan::latest_versions::{LatestVersions, VersionLayout};
use crate::sql::plan_node::one_input_methods;

/// Returns a plan that selects the latest versions from the rows of `plan`. The plan first applies `conditions`, in the
/// given order.
pub(in crate::query) fn latest_versions(
    mut plan: Arc<dyn ExecutionPlan>,
    conditions: &[Arc<dyn PhysicalExpr>],
    layout: &Arc<VersionLayout>,
    partitions: usize,
    batch_rows: usize,
) -> Result<Arc<dyn ExecutionPlan>> {
    for condition in conditions {
        let filter = FilterExecBuilder::new(Arc::clone(condition), plan).with_batch_size(batch_rows).build()?;
        plan = Arc::new(filter);
    }
    if partitions > 1 {
        let schema = plan.schema();
        let column = |index: &usize| Arc::new(Column::new(schema.field(*index).name(), *index)) as Arc<_>;
        let keys = layout.key.iter().map(column).collect();
        plan = Arc::new(RepartitionExec::try_new(plan, Partitioning::Hash(keys, partitions))?);
    }
    Ok(Arc::new(LatestVersionsExec::new(plan, Arc::clone(layout))?))
}

/// The plan node that returns the latest version of each key in its input. All versions of a key must be in the same
/// input partition.
#[derive(Debug)]
struct LatestVersionsExec {
    input: Arc<dyn ExecutionPlan>,
    layout: Arc<VersionLayout>,
    schema: SchemaRef,
    properties: Arc<PlanProperties>,
}

impl LatestVersionsExec {
    fn new(input: Arc<dyn ExecutionPlan>, layout: Arc<VersionLayout>) -> Result<Self> {
        let columns: Vec<usize> = (0..layout.columns).collect();
        let schema: SchemaRef = Arc::new(Schema::project(&input.schema(), &columns)?);
        let properties = PlanProperties::new(
            EquivalenceProperties::new(Arc::clone(&schema)),
            Partitioning::UnknownPartitioning(input.properties().output_partitioning().partition_count()),
            EmissionType::Final,
            Boundedness::Bounded,
        );
        Ok(Self { input, layout, schema, properties: Arc::new(properties) })
    }
}

impl ExecutionPlan for LatestVersionsExec {
    fn name(&self) -> &'static str {
        "LatestVersionsExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    one_input_methods! { |node, input| Self::new(input, Arc::clone(&node.layout)) }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let reservation = MemoryConsumer::new("latest versions").register(context.memory_pool());
        let batch_rows = context.session_config().batch_size();
        let layout = Arc::clone(&self.layout);
        let versions = LatestVersions::new(layout, &self.input.schema(), batch_rows, reservation)?;
        let input = self.input.execute(partition, context)?;
        let rows = stream::once(select(input, versions)).try_flatten().boxed();
        Ok(make_cooperative(Box::pin(RecordBatchStreamAdapter::new(Arc::clone(&self.schema), rows))))
    }
}

/// Reads the whole input, and then returns a stream of the latest versions.
async fn select(
    mut input: SendableRecordBatchStream,
    mut versions: LatestVersions,
) -> Result<impl stream::Stream<Item = Result<arrow::array::RecordBatch>> + Send> {
    while let Some(batch) = input.next().await {
        versions.add(&batch?)?;
    }
    drop(input);
    Ok(stream::iter(versions.finish()))
}

/// EXPLAIN never shows this node, because it does not show the plan inside the tenant barrier.
impl DisplayAs for LatestVersionsExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LatestVersionsExec")
    }
}

#[cfg(test)]
mod tests {
    use arrow::array::{ArrayRef, AsArray as _, Int64Array, RecordBatch, StringArray};
    use arrow::datatypes::Int64Type;
    use datafusion::datasource::memory::MemorySourceConfig;
    use datafusion::physical_plan::collect;

    use super::*;

    /// Creates one partition of the input. Every partition contains one version of each of the 100 keys.
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
        let layout = Arc::new(VersionLayout { key: vec![0], by: 1, received: 2, id: 3, columns: 2 });
        let plan = latest_versions(scan, &[], &layout, 4, 16).unwrap();
        let mut found = Vec::new();
        for batch in collect(plan, Arc::default()).await.unwrap() {
            let column = |index: usize| batch.column(index).as_primitive::<Int64Type>().values().iter().copied();
            found.extend(column(0).zip(column(1)));
        }
        found.sort_unstable();
        assert_eq!(
            found,
            (0..100).map(|key| (key, 3)).collect::<Vec<_>>(),
            "each key is returned once, with its latest version"
        );
    }
}
