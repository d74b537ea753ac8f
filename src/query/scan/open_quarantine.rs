//! Of a quarantine, the entries that nobody has closed. It stands inside the barrier, where no optimizer comes.
//!
//! In: a private scan of the quarantine, and one of the rows that close entries. Out: the scan without the closed ones.
//!
//! ```text
//!   closing rows of the tenant (time, resolves) ─► all of them ─┐
//!   rows ────────────────────────────────────────────────────► not closed ─► barrier (own, an entry, row rules)
//! ```
//!
//! **Invariant:** a closing row has its entry's tenant and time. So a condition on time leaves out both or none, and of the
//! closing rows only the tenant's own are read into memory, which is accounted to the query.

use std::sync::Arc;

use datafusion::common::JoinType;
use datafusion::error::Result;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::col;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::filter::FilterExecBuilder;
use datafusion::physical_plan::joins::{HashJoinExecBuilder, PartitionMode};

/// Takes the closed entries out of `rows`, and keeps its columns as they are. Of `closing` those rows count that
/// `is_closing` admits; `on` names the columns that are equal in a closing row and its entry.
pub(in crate::query) fn open(
    rows: Arc<dyn ExecutionPlan>,
    closing: Arc<dyn ExecutionPlan>,
    is_closing: &Arc<dyn PhysicalExpr>,
    on: &[(String, String)],
) -> Result<Arc<dyn ExecutionPlan>> {
    let closed = FilterExecBuilder::new(Arc::clone(is_closing), closing).build()?;
    let closed: Arc<dyn ExecutionPlan> = Arc::new(CoalescePartitionsExec::new(Arc::new(closed)));
    let on = on.iter().map(|(closing, entry)| Ok((col(closing, &closed.schema())?, col(entry, &rows.schema())?)));
    let on = on.collect::<Result<Vec<_>>>()?;
    let join = HashJoinExecBuilder::new(closed, rows, on, JoinType::RightAnti)
        .with_partition_mode(PartitionMode::CollectLeft)
        .build()?;
    Ok(Arc::new(join))
}
