//! Merges a table completely, once. The command `glasshouse compact` uses it, beside running servers or without any.

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::clock::DAY;
use crate::config::{LakeConfig, MaintenanceConfig};
use crate::error::Result;
use crate::lake::{Leases, Table, Tables};
use crate::maintenance::merge::MergeOptions;
use crate::maintenance::policy::{Thresholds, Unit};
use crate::maintenance::table_merger::{MergeState, Shared, TableMerger, UnitOutcome};
use crate::maintenance::threads::MergeThreads;
use crate::telemetry::Metrics;

/// The CPU limit in percent of one core that never limits a merge.
const UNLIMITED: u32 = 102_400;

/// The number of failures without a success in between after which a table is given up.
const FAILURES_MAX: usize = 3;
/// The pause before units that another process is merging are tried again.
const RETRY_INTERVAL: Duration = Duration::from_millis(500);

/// Which files are merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// What a server would merge now.
    Due,
    /// Everything, without waiting until there are enough files or until they are old enough. Days that are over are
    /// closed.
    Everything,
    /// Everything, and today is closed as well. Events that arrive later today are late.
    CloseToday,
}

/// Merges the files of tables.
#[derive(Debug)]
pub struct Compaction {
    shared: Arc<Shared>,
    /// The time to wait for other processes that are merging the same files.
    wait_max: Duration,
}

/// The progress of a compaction, after each unit.
#[derive(Debug)]
pub struct CompactProgress<'a> {
    /// The files that were merged, and their day and level.
    pub unit: &'a Unit,
    /// The number of live files of the table now.
    pub files: usize,
    /// The number of units that are due now.
    pub units_due: usize,
}

/// The result of the compaction of one table.
#[derive(Debug, Clone, Default)]
pub struct Compacted {
    /// The number of units that were merged.
    pub units: usize,
    /// The number of units that another process is merging, or that failed.
    pub units_left: usize,
    /// The files that cannot be merged, and the reason why merges were given up.
    pub state: MergeState,
}

impl Extent {
    fn thresholds(self) -> Thresholds {
        let mut thresholds = Thresholds::default();
        if self == Self::Due {
            return thresholds;
        }
        thresholds.age_min = 0;
        for trigger in [&mut thresholds.level_0, &mut thresholds.level_1, &mut thresholds.late] {
            (trigger.old_files, trigger.old_age) = (2, 0);
        }
        (thresholds.close_after, thresholds.close_quiet, thresholds.late_quiet) = (0, 0, 0);
        if self == Self::CloseToday {
            // A day is over even before it has begun: the times of events may be ahead of the clock.
            thresholds.close_after = -366 * DAY;
        }
        thresholds
    }
}

impl Compaction {
    /// Prepares a compaction of `tables`, which have the configuration `lake`. Uses all the CPU time that two threads
    /// can use, unless `config.cpu_percent_max` sets a limit.
    pub fn new(tables: &Tables, extent: Extent, config: &MaintenanceConfig, lake: &LakeConfig) -> Result<Option<Self>> {
        let Some(table) = tables.values().next() else { return Ok(None) };
        let cpu_percent_max = if config.cpu_percent_max == 0 { UNLIMITED } else { config.cpu_percent_max };
        let shared = Shared {
            threads: Arc::new(MergeThreads::start(cpu_percent_max)?),
            leases: Arc::new(Leases::new(table.location().0.clone(), config.lease_time_max)),
            metrics: Arc::<Metrics>::default(),
            thresholds: extent.thresholds(),
            compression_level: lake.compression_level,
            page_rows: MergeOptions::default().page_rows,
            memory_bytes_max: config.memory_bytes_max as u64,
            tick: Duration::ZERO,
            slots: [Semaphore::new(1), Semaphore::new(1)],
            paused: AtomicBool::new(false),
        };
        Ok(Some(Self { shared: Arc::new(shared), wait_max: config.lease_time_max * 2 + RETRY_INTERVAL * 2 }))
    }

    /// Merges a table until nothing is due, or until `stop` is cancelled. Calls `report` after each merged unit.
    ///
    /// A unit that fails is left, and the others go on. Waits for other processes that are merging the same files. After
    /// `stop`, no file is in an intermediate state: the inputs of the last unit stay live.
    pub async fn compact(
        &self,
        table: &Arc<Table>,
        stop: &CancellationToken,
        mut report: impl FnMut(CompactProgress<'_>),
    ) -> Result<Compacted> {
        let merger = TableMerger::new(Arc::clone(table), Arc::clone(&self.shared));
        let (mut units, mut failures, mut progress_at) = (0, 0, Instant::now());
        loop {
            table.refresh().await?;
            let planned = merger.plan();
            let due = planned.len();
            let is_given_up = failures >= FAILURES_MAX || progress_at.elapsed() > self.wait_max;
            if due == 0 || is_given_up || stop.is_cancelled() {
                return Ok(Compacted { units, units_left: due, state: merger.merge_state() });
            }
            let mut merged = false;
            for unit in planned {
                let outcome = self.run(&merger, &unit, stop).await;
                failures = if outcome == UnitOutcome::Failed { failures + 1 } else { failures };
                if outcome == UnitOutcome::Merged {
                    (merged, failures, progress_at) = (true, 0, Instant::now());
                    units += 1;
                    let units_due = merger.plan().len();
                    report(CompactProgress { unit: &unit, files: table.snapshot().len(), units_due });
                    // The merged files may complete a more urgent unit.
                    break;
                }
            }
            if !merged {
                // Another process is merging the units, or has died while it was doing so.
                let _ = stop.run_until_cancelled(tokio::time::sleep(RETRY_INTERVAL)).await;
            }
        }
    }

    /// Merges one unit. If `stop` is cancelled, the merge ends at its next step and deletes its new files.
    async fn run(&self, merger: &TableMerger, unit: &Unit, stop: &CancellationToken) -> UnitOutcome {
        let mut run = pin!(merger.run_unit(unit.clone()));
        tokio::select! {
            outcome = &mut run => outcome,
            () = stop.cancelled() => {
                self.shared.threads.stop();
                run.await
            }
        }
    }

    /// Returns the units that are due, without merging them.
    pub fn due(&self, table: &Arc<Table>) -> Vec<Unit> {
        TableMerger::new(Arc::clone(table), Arc::clone(&self.shared)).plan()
    }
}
