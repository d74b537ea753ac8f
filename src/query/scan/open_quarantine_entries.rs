//! Selects the open entries of a quarantine with an anti join. The join is below the barrier, out of reach of
//! optimizers.
//!
//! An entry is closed by a second row, because a stored row is never changed. The build side of the join reads these
//! closing rows.
//!
//! ```text
//!   closing rows of the tenant (time, resolves) ─► build side ─┐
//!   rows ───────────────────────────────────────────────────► anti join ─► barrier (tenant, open entry, row rules)
//! ```
//!
//! **Invariant:** a closing row has the tenant and the time of its entry, so a condition on time excludes both rows or
//! neither. No other condition of the caller limits which closing rows are read: a closing row has, for example, a later
//! receive time than its entry.
//! **Invariant:** only the tenant's own closing rows are held in memory, which counts toward the query's memory limit.

use std::sync::Arc;

use datafusion::common::JoinType;
use datafusion::error::Result;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::col;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::filter::FilterExecBuilder;
use datafusion::physical_plan::joins::{HashJoinExecBuilder, PartitionMode};

/// Removes the closed entries from `rows`, and keeps the columns of `rows`. The rows of `closing` that match
/// `is_closing` close entries. Each pair of `on` is a column of the closing row and a column of its entry with the same
/// value.
pub(in crate::query) fn open_entries(
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
