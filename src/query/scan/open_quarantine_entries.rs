//! Selects the open entries in a quarantine with an anti join. The tenant barrier hides the join from optimizers, so
//! they cannot change it.
//!
//! Stored rows never change. An entry is closed by a second row, the closing row. The build side of the join consists
//! of these closing rows.
//!
//! ```text
//!   closing rows of the tenant (time, resolves) ─► build side ─┐
//!   rows ───────────────────────────────────────────────────► anti join ─► barrier (tenant, open entry, row rules)
//! ```
//!
//! **Invariant:** a closing row has the same tenant and time as the entry that it closes, so a condition on the time
//! excludes both rows or neither. No other condition from the caller is applied to closing rows. A condition on the
//! receive time, for example, could match an entry but not its closing row, which is received later.
//! **Invariant:** the only rows held in memory are the tenant's own closing rows, and the query's memory limit applies
//! to them.

use std::sync::Arc;

use datafusion::common::JoinType;
use datafusion::error::Result;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::col;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::coalesce_partitions::CoalescePartitionsExec;
use datafusion::physical_plan::filter::FilterExecBuilder;
use datafusion::physical_plan::joins::{HashJoinExecBuilder, PartitionMode};

/// Removes closed entries from `rows`. The rows of `closing` that match `is_closing` are the closing rows. Each pair in
/// `on` contains a column of `closing` and a column of `rows`. A closing row closes an entry if the two columns are
/// equal in each pair.
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
