//! Selects the open entries in a quarantine with an anti join. The join is below the barrier, where optimizers cannot
//! change it.
//!
//! Stored rows never change, so a second row closes an entry. The build side of the join reads these closing rows.
//!
//! ```text
//!   closing rows of the tenant (time, resolves) ─► build side ─┐
//!   rows ───────────────────────────────────────────────────► anti join ─► barrier (tenant, open entry, row rules)
//! ```
//!
//! **Invariant:** a closing row has the same tenant and time as the entry that it closes, so a condition on the time
//! excludes both rows or neither. No other condition from the caller is applied to closing rows. For example, a
//! condition on the receive time could match an entry but not the closing row, which is received later.
//! **Invariant:** only the tenant's own closing rows are held in memory. These rows count towards the query's memory
//! limit.

use std::sync::Arc;

use datafusion::common::JoinType;
use datafusion::error::Result;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::col;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::filter::FilterExecBuilder;
use datafusion::physical_plan::joins::{HashJoinExecBuilder, PartitionMode};

/// Removes closed entries from `rows`. A row of `closing` is a closing row if it matches `is_closing`. Each pair in
/// `on` contains the name of a column in the closing row, and the name of the column in the entry with the same value.
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
