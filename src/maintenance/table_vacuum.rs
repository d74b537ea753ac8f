//! Runs the vacuum of one table and cleans up its log, once an hour.
//!
//! A server skips a run if another server holds the lease, or if there is nothing to do: the table has not changed since
//! the last run, and the last run has kept no files.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::error::Result;
use crate::lake::{Leases, Table};
use crate::maintenance::vacuum::{Vacuum, VacuumConfig, VacuumReport};
use crate::telemetry::Metrics;

/// The time after the start of a server until the first run. A server that is restarted again and again puts no entries
/// into the logs.
const FIRST_RUN_AFTER: Duration = Duration::from_secs(300);
/// The interval between two runs.
const INTERVAL: Duration = Duration::from_secs(3_600);
/// The number of intervals after which an unchanged table is vacuumed again: its folder is listed once a day.
const SKIPS_MAX: u32 = 24;

/// Vacuums a table until `stop` is cancelled.
pub(super) async fn run(
    table: &Arc<Table>,
    config: VacuumConfig,
    leases: &Arc<Leases>,
    metrics: &Metrics,
    stop: &CancellationToken,
) {
    let name = &table.contract().name;
    let mut vacuum = Vacuum::new(Arc::clone(table), config);
    let (mut pause, mut finished, mut skips) = (FIRST_RUN_AFTER, None, 0);
    while stop.run_until_cancelled(tokio::time::sleep(pause)).await.is_some() {
        pause = INTERVAL;
        if finished == Some(table.snapshot().version) && skips < SKIPS_MAX {
            skips += 1;
            continue;
        }
        let Some(outcome) = stop.run_until_cancelled(run_once(&mut vacuum, table, leases, metrics)).await else {
            return;
        };
        match outcome {
            Ok(Some(report)) => {
                finished = (report.kept_files == 0 && !report.is_paused).then(|| table.snapshot().version);
                skips = 0;
                log(name, &report);
                let VacuumReport { deleted_files, deleted_bytes, refused, foreign_files, .. } = report;
                let now = table.location().0.clock.now_seconds();
                metrics.maintenance.vacuumed(name, deleted_files, deleted_bytes, refused, foreign_files, now);
            }
            Ok(None) => {}
            Err(error) => tracing::warn!(table = %name, ?error, "a vacuum failed, and will be repeated in an hour"),
        }
    }
}

/// Runs the vacuum and cleans up the log. Returns `None` if another server holds the lease.
async fn run_once(
    vacuum: &mut Vacuum,
    table: &Arc<Table>,
    leases: &Arc<Leases>,
    metrics: &Metrics,
) -> Result<Option<VacuumReport>> {
    let name = &table.contract().name;
    let Some(lease) = leases.acquire(&format!("{name}.vacuum")).await? else { return Ok(None) };
    let work = async {
        let cleaned = table.clean_log().await?;
        metrics.maintenance.log_cleaned(name, cleaned.entries, cleaned.checkpoints);
        vacuum.run().await
    };
    lease.hold(work).await.map(Some)
}

fn log(table: &str, report: &VacuumReport) {
    let VacuumReport { deleted_files, deleted_bytes, kept_files, kept_bytes, refused, .. } = report;
    if *deleted_files > 0 || *refused > 0 {
        tracing::info!(table, deleted_files, deleted_bytes, kept_files, kept_bytes, refused, "vacuumed a table");
    }
    if !report.foreign_names.is_empty() {
        tracing::warn!(
            table,
            files = report.foreign_files,
            names = ?report.foreign_names,
            "the table's folder has files with names that Glasshouse does not use: it never deletes them"
        );
    }
}
