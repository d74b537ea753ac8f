//! Runs the merges of one table: plans units, takes their leases, merges and commits.
//!
//! ```text
//!   each second, if the table has changed: plan ─► wait for the slot ─► plan again ─► lease ─► merge ─► replace
//!                                            ▲                                                   │
//!                                            └── merged, lost, postponed, left alone, suspended ◄┘
//! ```
//!
//! There are two slots for all tables: one for merges of level-0 files, and one for all other merges. Level-0 files cost
//! every query, so they never wait for a large unit.
//!
//! **Invariant:** a unit holds its slot while it is merged, so at most two merges run, and their memory has a limit.
//! **Invariant:** a file that cannot be merged is left alone, named in the log and counted. The other files go on.
//! **Invariant:** if a proof fails, the table's merges are suspended until the server is restarted.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures::FutureExt as _;
use tokio::sync::Semaphore;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::contract::ExpiryBounds;
use crate::error::{Kind, Result};
use crate::lake::{Leases, Replaced, Snapshot, Table};
use crate::maintenance::housekeeping::{self, PartlyExpired};
use crate::maintenance::merge::{MergeError, MergeOptions, Merged, merge};
use crate::maintenance::policy::{Excluded, FinishedDays, Thresholds, Unit, plan};
use crate::maintenance::threads::MergeThreads;
use crate::maintenance::unit_name::unit_name;
use crate::maintenance::vacuum::VacuumConfig;
use crate::maintenance::{retention, table_vacuum};
use crate::telemetry::{MergeOutcome, Metrics};

/// The number of ticks after which an unchanged table is planned again, because files have become older.
const TICKS_MAX: u32 = 10;
/// The time after which a file that could not be read is tried again.
const FILE_RETRY_AFTER: Duration = Duration::from_secs(600);
/// The bounds of the pause after a failure that concerns no single file. It doubles with each failure.
const PAUSE: std::ops::RangeInclusive<Duration> = Duration::from_secs(1)..=Duration::from_secs(300);
/// The maximum duration of one merge. Removed files are kept for longer, so its inputs still exist.
const MERGE_TIME_MAX: Duration = Duration::from_secs(3_600);
/// The number of level-0 files of one day above which merges may use more CPU time.
const URGENT_FILES: usize = 256;
/// The maximum number of units whose leases are tried before the table is planned again.
const LEASES_TRIED_MAX: usize = 8;

/// What all tables share.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) threads: Arc<MergeThreads>,
    pub(super) leases: Arc<Leases>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) thresholds: Thresholds,
    pub(super) compression_level: i32,
    pub(super) page_rows: usize,
    pub(super) memory_bytes_max: u64,
    /// The interval at which a changed table is planned.
    pub(super) tick: Duration,
    /// The slot for level-0 files, and the slot for all other files.
    pub(super) slots: [Semaphore; 2],
    /// True while an operator has paused all merges of this server.
    pub(super) paused: std::sync::atomic::AtomicBool,
}

/// One of the two slots.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Slot {
    LevelZero,
    Other,
}

impl Slot {
    fn of(unit: &Unit) -> Self {
        if unit.level == 1 { Self::LevelZero } else { Self::Other }
    }

    /// Returns the share of the memory that a merge in this slot may use. Level-0 files are small.
    fn memory(self, all: u64) -> u64 {
        match self {
            Self::LevelZero => all / 4,
            Self::Other => all - all / 4,
        }
    }
}

/// The merges of one table.
#[derive(Debug)]
pub(super) struct TableMerger {
    pub(super) table: Arc<Table>,
    shared: Arc<Shared>,
    /// The files that may have to be rewritten without their expired rows.
    partly_expired: PartlyExpired,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    excluded: Excluded,
    finished: FinishedDays,
    /// The files that could not be read, and the time at which they are tried again.
    postponed: HashMap<Arc<str>, Instant>,
    /// The reason why no file of this table is merged any more.
    suspended: Option<String>,
    /// The number of failures in a row that concern no single file.
    failures: u32,
    retry_at: Option<Instant>,
    /// True if the table is reported as urgent.
    is_urgent: bool,
    /// The number of units that were due when the table was last planned.
    due: usize,
}

/// The kinds of background work on a table.
#[derive(Debug, Clone, Copy)]
pub(super) enum Work {
    /// Merges files.
    Merge,
    /// Removes expired rows.
    RemoveExpired,
    /// Deletes files that are no longer needed, and cleans up the log.
    Vacuum(VacuumConfig),
}

/// What became of a unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum UnitOutcome {
    /// The new files are part of the table.
    Merged,
    /// Another server is merging the unit, or has merged some of its files.
    Skipped,
    /// The merge failed.
    Failed,
}

/// The state of a table's merges, for operators.
#[derive(Debug, Clone, Default)]
pub struct MergeState {
    /// The number of units that were due when the table was last planned.
    pub units_due: usize,
    /// The files that cannot be merged.
    pub left_alone: Vec<Arc<str>>,
    /// The reason why no file of this table is merged any more.
    pub suspended: Option<String>,
}

impl TableMerger {
    pub(super) fn new(table: Arc<Table>, shared: Arc<Shared>) -> Self {
        Self { table, shared, partly_expired: PartlyExpired::default(), state: Mutex::default() }
    }

    /// Does one kind of work until `stop` is cancelled.
    pub(super) async fn work(&self, work: Work, stop: &CancellationToken) {
        let Shared { leases, metrics, .. } = &*self.shared;
        match work {
            Work::Merge => self.run(stop).await,
            Work::RemoveExpired => housekeeping::run(&self.table, &self.partly_expired, metrics, stop).await,
            Work::Vacuum(config) => table_vacuum::run(&self.table, config, leases, metrics, stop).await,
        }
    }

    /// Merges files until `stop` is cancelled.
    async fn run(&self, stop: &CancellationToken) {
        // A restart after a panic forgets the units that were in progress.
        self.lock().excluded.busy.clear();
        let slots = async { tokio::join!(self.run_slot(Slot::LevelZero, stop), self.run_slot(Slot::Other, stop)) };
        slots.await;
        self.report_urgency(0);
    }

    async fn run_slot(&self, slot: Slot, stop: &CancellationToken) {
        let mut planned: Option<(u64, Instant)> = None;
        loop {
            if stop.run_until_cancelled(tokio::time::sleep(self.shared.tick)).await.is_none() {
                return;
            }
            let version = self.table.snapshot().version;
            let is_planned =
                planned.is_some_and(|(at, time)| at == version && time.elapsed() < self.shared.tick * TICKS_MAX);
            if is_planned || self.is_waiting() {
                continue;
            }
            planned = Some((version, Instant::now()));
            while !self.is_waiting() && self.plan().iter().any(|unit| Slot::of(unit) == slot) {
                let turn = stop.run_until_cancelled(self.shared.slots[slot as usize].acquire()).await;
                let Some(Ok(_permit)) = turn else { return };
                if self.run_first(slot).await != UnitOutcome::Merged || stop.is_cancelled() {
                    break;
                }
            }
        }
    }

    /// Returns true if merges are paused or suspended, or wait after a failure.
    fn is_waiting(&self) -> bool {
        let state = self.lock();
        self.shared.paused.load(std::sync::atomic::Ordering::Relaxed)
            || state.suspended.is_some()
            || state.retry_at.is_some_and(|time| Instant::now() < time)
    }

    /// Returns the units that are due, the most urgent first.
    pub(super) fn plan(&self) -> Vec<Unit> {
        let snapshot = self.table.snapshot();
        let now = self.table.location().0.clock.now();
        let mut state = self.lock();
        state.forget(&snapshot);
        let postponed: Vec<Arc<str>> = state.postponed.keys().cloned().collect();
        let excluded = Excluded {
            busy: state.excluded.busy.clone(),
            left_alone: state.excluded.left_alone.iter().cloned().chain(postponed).collect(),
        };
        let mut units = plan(&snapshot, now, &self.shared.thresholds, &excluded, &mut state.finished);
        // A merge drops expired rows anyway, so a file is rewritten by itself only if it is in no other unit.
        let planned = units.iter().flat_map(|unit| unit.inputs.iter().map(|file| Arc::clone(&file.path)));
        let busy = planned.chain(excluded.busy).collect();
        units.extend(self.partly_expired.plan(&snapshot, &self.table.expiry(), &Excluded { busy, ..excluded }));
        state.due = units.len();
        let files = |unit: &Unit| if unit.level == 1 { unit.inputs.len() } else { 0 };
        let mut by_day: HashMap<i32, usize> = HashMap::new();
        units.iter().for_each(|unit| *by_day.entry(unit.day).or_default() += files(unit));
        drop(state);
        self.report_urgency(by_day.into_values().max().unwrap_or(0));
        units
    }

    /// Merges the first unit of a slot whose lease is free.
    async fn run_first(&self, slot: Slot) -> UnitOutcome {
        for unit in self.plan().into_iter().filter(|unit| Slot::of(unit) == slot).take(LEASES_TRIED_MAX) {
            match self.run_unit(unit).await {
                UnitOutcome::Skipped => {}
                done => return done,
            }
        }
        UnitOutcome::Skipped
    }

    /// Merges one unit, unless another process is merging it.
    pub(super) async fn run_unit(&self, unit: Unit) -> UnitOutcome {
        let _busy = Busy::new(self, &unit);
        let name = unit_name(&unit).map(|unit| format!("{}.{unit}", self.table.contract().name));
        let lease = match name {
            Ok(name) => self.shared.leases.acquire(&name).await,
            Err(error) => Err(error),
        };
        let lease = match lease {
            Ok(Some(lease)) => lease,
            Ok(None) => return UnitOutcome::Skipped,
            Err(error) => return self.failed(&unit, MergeError { file: None, error }),
        };
        match lease.hold(self.merge(&unit).boxed()).await {
            Ok(outcome) => outcome,
            Err(error) => self.failed(&unit, error),
        }
    }

    async fn merge(&self, unit: &Unit) -> Result<UnitOutcome, MergeError> {
        // The files may have been merged before the lease was taken.
        let snapshot = self.table.refresh().await?;
        if !unit.inputs.iter().all(|file| snapshot.contains(file)) {
            return Ok(UnitOutcome::Skipped);
        }
        let expiry = self.table.expiry();
        let options = MergeOptions {
            expiry: expiry.clone(),
            memory_bytes_max: Slot::of(unit).memory(self.shared.memory_bytes_max),
            compression_level: self.shared.compression_level,
            page_rows: self.shared.page_rows,
            threads: Some(Arc::clone(&self.shared.threads)),
            deadline: Some(Instant::now() + MERGE_TIME_MAX),
            ..MergeOptions::default()
        };
        let merged = merge(&self.table, unit, &options).await?;
        self.commit(unit, merged, &expiry).await
    }

    async fn commit(&self, unit: &Unit, merged: Merged, expiry: &ExpiryBounds) -> Result<UnitOutcome, MergeError> {
        let name = &self.table.contract().name;
        let (files, written) = (merged.files.len(), merged.files.iter().map(|file| file.size).sum());
        let (inputs, dropped) = (merged.inputs.clone(), merged.dropped);
        let outcome = retention::commit(&self.table, merged, expiry).await?;
        let mut state = self.lock();
        (state.failures, state.retry_at) = (0, None);
        drop(state);
        match outcome {
            Replaced::At(version) => {
                let read = inputs.iter().map(|file| file.size).sum();
                let rows = inputs.iter().map(|file| file.rows).sum();
                tracing::debug!(
                    table = %name, version, day = unit.day, level = unit.level, inputs = inputs.len(), files, rows, dropped,
                    "merged files"
                );
                self.shared.metrics.maintenance.merged(name, rows, read, written);
                Ok(UnitOutcome::Merged)
            }
            Replaced::Void => {
                self.shared.metrics.maintenance.merge_ended(name, MergeOutcome::Void);
                Ok(UnitOutcome::Skipped)
            }
        }
    }

    /// Records a failure, and decides when the unit is tried again.
    fn failed(&self, unit: &Unit, failure: MergeError) -> UnitOutcome {
        let table = &self.table.contract().name;
        let mut state = self.lock();
        let is_permanent = failure.is_permanent();
        let MergeError { file, error } = failure;
        match (file, error.kind()) {
            (Some(file), _) if is_permanent => {
                tracing::warn!(%table, ?error, "a file is left alone because it can never be merged");
                state.excluded.left_alone.insert(file);
            }
            (Some(file), Kind::Unavailable) => {
                tracing::warn!(%table, ?error, "a file cannot be merged now and will be tried again");
                state.postponed.insert(file, Instant::now() + FILE_RETRY_AFTER);
            }
            (_, kind @ (Kind::Limited | Kind::Cancelled)) => {
                tracing::warn!(%table, ?error, "files are left alone because their merge exceeds a limit");
                // A unit that needs too much memory is reduced to its first two files before it fails.
                let files = if kind == Kind::Limited { 2 } else { unit.inputs.len() };
                state.excluded.left_alone.extend(unit.inputs.iter().take(files).map(|file| Arc::clone(&file.path)));
            }
            (_, Kind::Internal) => {
                tracing::error!(%table, ?error, "the merges of a table are suspended until the server is restarted");
                state.suspended = Some(error.to_string());
            }
            _ => {
                let pause = PAUSE.start().saturating_mul(1 << state.failures.min(16)).min(*PAUSE.end());
                tracing::warn!(%table, ?error, retry_in = ?pause, "a merge failed");
                state.failures += 1;
                state.retry_at = Some(Instant::now() + pause);
            }
        }
        drop(state);
        self.shared.metrics.maintenance.merge_ended(table, MergeOutcome::Failed);
        UnitOutcome::Failed
    }

    /// Reports whether a day has too many level-0 files, so that merges may use more CPU time.
    fn report_urgency(&self, files: usize) {
        let mut state = self.lock();
        let is_urgent = files > URGENT_FILES;
        if state.is_urgent != is_urgent {
            state.is_urgent = is_urgent;
            self.shared.threads.set_urgent(is_urgent);
        }
    }

    /// Returns the state for operators.
    pub(super) fn merge_state(&self) -> MergeState {
        let state = self.lock();
        let left_alone = state.excluded.left_alone.iter().chain(state.postponed.keys()).cloned();
        MergeState { units_due: state.due, left_alone: left_alone.collect(), suspended: state.suspended.clone() }
    }

    /// Locks the state. No code panics while it holds the lock, so poisoning can be ignored.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Forgets files that are no longer live, and files that can be tried again.
    fn forget(&mut self, snapshot: &Snapshot) {
        let now = Instant::now();
        self.postponed.retain(|_, retry_at| now < *retry_at);
        if !self.excluded.left_alone.is_empty() {
            let live: HashSet<&str> = snapshot.files().map(|file| &*file.path).collect();
            self.excluded.left_alone.retain(|path| live.contains(&**path));
        }
    }
}

/// Marks the files of a unit as busy until it is dropped.
struct Busy<'a> {
    merger: &'a TableMerger,
    paths: Vec<Arc<str>>,
}

impl<'a> Busy<'a> {
    fn new(merger: &'a TableMerger, unit: &Unit) -> Self {
        let paths: Vec<Arc<str>> = unit.inputs.iter().map(|file| Arc::clone(&file.path)).collect();
        merger.lock().excluded.busy.extend(paths.iter().cloned());
        Self { merger, paths }
    }
}

impl Drop for Busy<'_> {
    fn drop(&mut self) {
        let mut state = self.merger.lock();
        self.paths.iter().for_each(|path| _ = state.excluded.busy.remove(path));
    }
}
