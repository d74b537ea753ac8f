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

use crate::query::scan::tenant_scan::Recipe;

/// Rows that close entries, and where they are found.
pub(in crate::query) struct ClosingRows {
    /// Reads them, among others.
    pub(in crate::query) scan: Recipe,
    /// Tells the tenant's own of them.
    pub(in crate::query) is_own: Arc<dyn PhysicalExpr>,
    /// Columns that are equal in a closing row and its entry, by their names in either.
    pub(in crate::query) on: Vec<(String, String)>,
}

/// Takes the closed entries out of `scan`, and keeps its columns as they are.
pub(in crate::query) fn open(scan: Recipe, closing: ClosingRows) -> Recipe {
    Arc::new(move || {
        let closed = FilterExecBuilder::new(Arc::clone(&closing.is_own), (closing.scan)()?).build()?;
        let closed: Arc<dyn ExecutionPlan> = Arc::new(CoalescePartitionsExec::new(Arc::new(closed)));
        let rows = scan()?;
        let on = closing
            .on
            .iter()
            .map(|(closing, entry)| Ok((col(closing, &closed.schema())?, col(entry, &rows.schema())?)));
        let on = on.collect::<Result<Vec<_>>>()?;
        let join = HashJoinExecBuilder::new(closed, rows, on, JoinType::RightAnti)
            .with_partition_mode(PartitionMode::CollectLeft)
            .build()?;
        Ok(Arc::new(join) as Arc<dyn ExecutionPlan>)
    })
}
