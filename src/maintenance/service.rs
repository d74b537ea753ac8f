//! Runs the maintenance of all tables in the background.
//!
//! **Invariant:** maintenance is not on the path of an append or a query. If it falls behind or fails, queries become
//! slower, but every answer is correct.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{LakeConfig, MaintenanceConfig};
use crate::error::{Error, Result};
use crate::lake::{DataFile, DayFiles, Leases, Tables};
use crate::maintenance::file_name::level;
use crate::maintenance::merge::MergeOptions;
use crate::maintenance::policy::Thresholds;
use crate::maintenance::table_merger::{MergeState, Shared, TableMerger, Work};
use crate::maintenance::threads::MergeThreads;
use crate::maintenance::vacuum::VacuumConfig;
use crate::supervise::{AtStop, Supervisor, Task, TaskKind};
use crate::telemetry::{LevelSize, Metrics};

/// The interval at which a changed table is planned.
const TICK: Duration = Duration::from_secs(1);
/// The interval at which the sizes of tables are reported as metrics.
const REPORT_INTERVAL: Duration = Duration::from_secs(10);

/// The maintenance of all tables.
#[derive(Debug)]
pub struct Maintenance {
    tables: BTreeMap<String, Arc<TableMerger>>,
    shared: Option<Arc<Shared>>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

/// The files of a table and the state of its merges, for operators.
#[derive(Debug, Clone)]
pub struct TableHealth {
    /// The table's name.
    pub table: String,
    /// The Delta version.
    pub version: u64,
    /// The number of rows.
    pub rows: u64,
    /// The number and size of the live files of each level.
    pub levels: [LevelSize; 4],
    /// The largest number of level-0 files of one day.
    pub level_zero_of_day_max: u64,
    /// The state of the merges.
    pub merges: MergeState,
}

impl Maintenance {
    /// Starts the maintenance of `tables`. Starts nothing if maintenance is disabled.
    pub fn start(
        tables: &Tables,
        config: &MaintenanceConfig,
        lake: &LakeConfig,
        metrics: &Arc<Metrics>,
        supervisor: &Supervisor,
    ) -> Result<Self> {
        Self::start_with(tables, config, lake, metrics, supervisor, TICK)
    }

    /// Like [`Maintenance::start`], but with another interval at which a changed table is planned.
    pub(super) fn start_with(
        tables: &Tables,
        config: &MaintenanceConfig,
        lake: &LakeConfig,
        metrics: &Arc<Metrics>,
        supervisor: &Supervisor,
        tick: Duration,
    ) -> Result<Self> {
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let store = tables.values().next().map(|table| table.location().0.clone());
        let (true, Some(store)) = (config.enabled, store) else {
            return Ok(Self { tables: BTreeMap::new(), shared: None, tasks, stop });
        };
        let shared = Arc::new(Shared {
            threads: Arc::new(MergeThreads::start(config.cpu_percent_max)?),
            leases: Arc::new(Leases::new(store, config.lease_time_max)),
            metrics: Arc::clone(metrics),
            thresholds: Thresholds::default(),
            compression_level: lake.compression_level,
            page_rows: MergeOptions::default().page_rows,
            memory_bytes_max: config.memory_bytes_max as u64,
            tick,
            slots: [Semaphore::new(1), Semaphore::new(1)],
            paused: AtomicBool::new(false),
        });
        let mergers: BTreeMap<String, Arc<TableMerger>> = tables
            .iter()
            .map(|(name, table)| (name.clone(), Arc::new(TableMerger::new(Arc::clone(table), Arc::clone(&shared)))))
            .collect();
        let vacuum = VacuumConfig::from(lake);
        for (name, merger) in &mergers {
            let spawn = |kind, work: Work| {
                let (task, merger) = (Task::new(kind, name), Arc::clone(merger));
                let (supervisor, stop) = (supervisor.clone(), stop.clone());
                tasks.spawn(async move {
                    let run = || {
                        let (merger, stop) = (Arc::clone(&merger), stop.clone());
                        async move { merger.work(work, &stop).await }
                    };
                    supervisor.keep(task, &stop, AtStop::End, run).await
                });
            };
            spawn(TaskKind::Merges, Work::Merge);
            spawn(TaskKind::Retention, Work::RemoveExpired);
            spawn(TaskKind::Vacuum, Work::Vacuum(vacuum));
        }
        let reported: Vec<Arc<TableMerger>> = mergers.values().cloned().collect();
        let (task, metrics) = (Task::new(TaskKind::Merges, "metrics"), Arc::clone(metrics));
        let (supervisor, stopped) = (supervisor.clone(), stop.clone());
        tasks.spawn(async move {
            let run = || report(&reported, &metrics, &stopped);
            supervisor.keep(task, &stopped, AtStop::End, run).await
        });
        Ok(Self { tables: mergers, shared: Some(shared), tasks, stop })
    }

    /// Ends all merges at their next step, and waits for them. Their inputs stay live, and their new files are deleted.
    pub async fn stop(&self) {
        self.stop.cancel();
        if let Some(shared) = &self.shared {
            shared.threads.stop();
        }
        self.tasks.close();
        self.tasks.wait().await;
    }

    /// Pauses or resumes all merges of this server. Merges that are in progress go on. Returns `Invalid` if maintenance
    /// is disabled.
    pub fn set_paused(&self, is_paused: bool) -> Result<()> {
        let Some(shared) = &self.shared else {
            return Err(Error::invalid("maintenance is disabled on this server: set maintenance.enabled = true"));
        };
        shared.paused.store(is_paused, Ordering::Relaxed);
        Ok(())
    }

    /// Returns true if an operator has paused the merges of this server.
    pub fn is_paused(&self) -> bool {
        self.shared.as_ref().is_some_and(|shared| shared.paused.load(Ordering::Relaxed))
    }

    /// Returns true if this server maintains its tables.
    pub fn is_enabled(&self) -> bool {
        self.shared.is_some()
    }

    /// Returns the state of each table, without I/O.
    pub fn health(&self) -> Vec<TableHealth> {
        self.tables.values().map(|merger| health(merger)).collect()
    }
}

/// Reports the sizes of all tables as metrics, until `stop` is cancelled.
async fn report(mergers: &[Arc<TableMerger>], metrics: &Metrics, stop: &CancellationToken) {
    loop {
        for merger in mergers {
            let TableHealth { table, levels, merges, .. } = health(merger);
            metrics.maintenance.live_files(&table, &levels);
            let MergeState { units_due, left_alone, suspended } = merges;
            metrics.maintenance.merge_state(&table, units_due, left_alone.len(), suspended.is_some());
        }
        if stop.run_until_cancelled(tokio::time::sleep(REPORT_INTERVAL)).await.is_none() {
            return;
        }
    }
}

fn health(merger: &TableMerger) -> TableHealth {
    let snapshot = merger.table.snapshot();
    let unmerged = |day: &Arc<DayFiles>| day.files().filter(|file| level(&file.path) == 0).count() as u64;
    TableHealth {
        table: merger.table.contract().name.clone(),
        version: snapshot.version,
        rows: snapshot.rows(),
        levels: levels(snapshot.files()),
        level_zero_of_day_max: snapshot.days().map(unmerged).max().unwrap_or(0),
        merges: merger.merge_state(),
    }
}

/// Returns the number and size of the files of each level.
pub fn levels<'a>(files: impl Iterator<Item = &'a Arc<DataFile>>) -> [LevelSize; 4] {
    let mut levels = [LevelSize::default(); 4];
    for file in files {
        let size = &mut levels[usize::from(level(&file.path))];
        size.files += 1;
        size.bytes += file.size;
    }
    levels
}
