//! Selects the open entries of a quarantine. This runs inside the barrier, where no optimizer reaches it.
//!
//! In: a private scan of the quarantine, and a scan of the rows that close entries. Out: the first scan without the
//! closed entries.
//!
//! ```text
//!   closing rows of the tenant (time, resolves) ─► build side ─┐
//!   rows ───────────────────────────────────────────────────► anti join ─► barrier (tenant, open entry, row rules)
//! ```
//!
//! **Invariant:** a closing row has the tenant and the time of its entry. So a condition on time excludes both or
//! neither, and only the tenant's own closing rows are read into memory, which is accounted to the query.

use std::sync::Arc;

use datafusion::common::JoinType;
use datafusion::error::Result;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::col;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::filter::FilterExecBuilder;
use datafusion::physical_plan::joins::{HashJoinExecBuilder, PartitionMode};

/// Removes the closed entries from `rows`, and keeps the columns of `rows`. Only the rows of `closing` that match
/// `is_closing` close entries; `on` names the columns that are equal in a closing row and its entry.
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
