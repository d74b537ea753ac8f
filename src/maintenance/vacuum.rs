//! Vacuum: deletes files that no version of a table within its retention needs.
//!
//! ```text
//!   fence ─► removed files (log) ─┬─► candidates ─► pins ─► follow the log once more ─► delete
//!        └─► listing (once a day) ┘
//! ```
//!
//! Two kinds of files are deleted: files that the log has removed, and orphans, which no entry names because a writer
//! crashed. [`Vacuum`] remembers when this process has first seen a file as removed or as an orphan. It deletes nothing
//! in its first run.
//!
//! **Why no needed file is deleted.** The name of a file is never used twice, so a file that is not live becomes live
//! only through an entry that names it. Its writer puts this entry less than `COMMIT_DEADLINE` after the put of the
//! file (`lake/file_ages.rs`), at the version that is next at that moment. After the fence, all versions up to that of
//! the fence are taken, so a put that was sent earlier fails whenever it arrives. A put that is sent later names files
//! that are younger than the deadline. Each candidate is older than the deadline by the store's clock and by the clocks
//! of this process.
//!
//! **Invariant:** times of different machines are never compared, except for the times at which writers say that they
//! removed a file. In addition, this process must have seen the file as removed for the commit deadline.
//! **Invariant:** only files of the table's days are deleted (`is_data_file`), never the log or files of others.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use crate::clock::{Clock, DAY, Micros, Moment, SECOND};
use crate::config::LakeConfig;
use crate::error::Result;
use crate::lake::{
    COMMIT_DEADLINE, DeletedFiles, Fence, ForeignFiles, Pin, RemovedFile, Snapshot, Table, is_data_file,
};

/// The maximum number of files that one run deletes. The next run deletes the rest.
const DELETES_MAX: usize = 20_000;
/// The maximum number of files of each kind that are remembered. Other files wait until there is space.
const REMEMBERED_MAX: usize = 1_000_000;
/// The time between two listings of the table's folder.
const LISTING_INTERVAL: Micros = DAY;
/// The first pause after the store has refused deletes. It doubles with each such run, up to [`PAUSE_MAX`].
const PAUSE_MIN: Micros = 600 * SECOND;
const PAUSE_MAX: Micros = DAY;

/// How long files are kept.
#[derive(Debug, Clone, Copy)]
pub struct VacuumConfig {
    /// How long a removed file is kept.
    pub removed_retention: Duration,
    /// The age at which a file that no entry names is deleted.
    pub orphan_age_min: Duration,
}

/// The vacuum of one table in this process.
#[derive(Debug)]
pub struct Vacuum {
    table: Arc<Table>,
    config: VacuumConfig,
    /// The removed files that still exist, as far as this process knows.
    removed: HashMap<Arc<str>, Removed>,
    /// The orphans of the last listing, with the moment at which a listing first saw each of them, and their sizes.
    orphans: HashMap<Arc<str>, Orphan>,
    listed: Option<Moment>,
    runs: u64,
    /// The moment at which the store last refused deletes, and the pause after it.
    refused: Option<(Moment, Micros)>,
}

/// The result of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct VacuumReport {
    /// The number of deleted files, including orphans. In a dry run, the files that have reached their age.
    pub deleted_files: u64,
    /// The size of the deleted files in bytes. Removed files of other writers count as empty if the log lacks their size.
    pub deleted_bytes: u64,
    /// The number of deleted files that no entry named.
    pub deleted_orphans: u64,
    /// The number of removed files and orphans that were kept, because they have not reached their age or a run deletes
    /// no more files.
    pub kept_files: u64,
    /// The size of the kept files in bytes.
    pub kept_bytes: u64,
    /// The number of files that have reached their age and that a pin covers.
    pub pinned_files: u64,
    /// The names of some pins that cannot be understood. They cover all files.
    pub unreadable_pins: Vec<String>,
    /// The number of files with names that Glasshouse does not use. `None` if the folder was not listed.
    pub foreign_files: Option<u64>,
    /// Some of the names of these files.
    pub foreign_names: Vec<String>,
    /// The number of deletes that the store refused.
    pub refused: u64,
    /// True if nothing was tried, because the store has refused deletes a short time ago.
    pub is_paused: bool,
    /// The number of files that were about to be deleted but are live. If it is not 0, nothing was deleted. It is a
    /// fault of a writer or of vacuum.
    pub live_candidates: u64,
}

/// A removed file.
#[derive(Debug)]
struct Removed {
    seen: Moment,
    /// The time of the removal by the log, or the store's time at which it was first seen.
    removed_ms: i64,
    /// The version that removed the file, or a later one.
    version: u64,
    size: u64,
    is_deleted: bool,
    /// The number of the last run in which the log listed the file.
    run: u64,
}

/// A file that no entry names.
#[derive(Debug)]
struct Orphan {
    seen: Moment,
    modified_ms: i64,
    size: u64,
    run: u64,
}

/// A file that has reached its age.
#[derive(Debug)]
struct Candidate {
    path: Arc<str>,
    size: u64,
    /// The version that removed the file, or a later one. `None` for an orphan.
    removed_at: Option<u64>,
}

impl From<&LakeConfig> for VacuumConfig {
    fn from(config: &LakeConfig) -> Self {
        Self { removed_retention: config.removed_retention, orphan_age_min: config.orphan_age_min }
    }
}

impl Vacuum {
    /// Creates the vacuum of a table, which has not seen any file yet.
    pub fn new(table: Arc<Table>, config: VacuumConfig) -> Self {
        let (removed, orphans) = Default::default();
        Self { table, config, removed, orphans, listed: None, runs: 0, refused: None }
    }

    /// Deletes files that have reached their age. Puts one entry into the log. After an error, some files may have been
    /// deleted, and the next run continues.
    pub async fn run(&mut self) -> Result<VacuumReport> {
        let clock = self.clock();
        if self.refused.is_some_and(|(since, pause)| clock.shortest_since(since) < pause) {
            return Ok(VacuumReport { is_paused: true, ..VacuumReport::default() });
        }
        let fence = self.table.fence().await?;
        let is_listing_due = self.listed.is_none_or(|listed| clock.shortest_since(listed) >= LISTING_INTERVAL);
        let mut report = VacuumReport::default();
        let mut candidates = self.candidates(&fence, is_listing_due, false, &mut report).await?;
        self.keep_pinned(&mut candidates, fence.now_ms, &mut report).await?;
        let newest = self.table.refresh().await?;
        let live = live_paths(&newest);
        let faults = candidates.iter().filter(|candidate| live.contains(&candidate.path));
        let faults: Vec<&str> = faults.map(|candidate| &*candidate.path).collect();
        if !faults.is_empty() {
            report.live_candidates = faults.len() as u64;
            tracing::error!(
                table = %self.table.contract().name,
                paths = ?&faults[..faults.len().min(10)],
                "vacuum has deleted nothing, because live files seemed to be unused: report this fault"
            );
            return Ok(report);
        }
        self.delete(candidates, &mut report).await;
        Ok(report)
    }

    /// Reports what runs would delete once this process has seen the files for long enough. Changes nothing in the store.
    pub async fn dry_run(&mut self) -> Result<VacuumReport> {
        let snapshot = self.table.refresh().await?;
        let fence = Fence { snapshot, now_ms: self.clock().now() / 1_000 };
        let mut report = VacuumReport::default();
        let mut candidates = self.candidates(&fence, true, true, &mut report).await?;
        self.keep_pinned(&mut candidates, fence.now_ms, &mut report).await?;
        for candidate in candidates {
            report.deleted_files += 1;
            report.deleted_bytes += candidate.size;
            report.deleted_orphans += u64::from(candidate.removed_at.is_none());
        }
        Ok(report)
    }

    /// Returns the files that are not live at the fence's version and have reached their age.
    async fn candidates(
        &mut self,
        fence: &Fence,
        is_listing: bool,
        is_dry_run: bool,
        report: &mut VacuumReport,
    ) -> Result<Vec<Candidate>> {
        self.runs += 1;
        self.see_removed(fence).await?;
        let live = live_paths(&fence.snapshot);
        if is_listing {
            self.see_orphans(&live, report).await?;
        }
        let (clock, mut candidates) = (self.clock(), Vec::new());
        let has_seen = |seen: Moment, time: Micros| is_dry_run || clock.shortest_since(seen) >= time;
        let mut add = |path: &Arc<str>, size, removed_at, is_old: bool| {
            if is_old && candidates.len() < DELETES_MAX {
                candidates.push(Candidate { path: Arc::clone(path), size, removed_at });
            } else {
                report.kept_files += 1;
                report.kept_bytes += size;
            }
        };
        for (path, file) in self.removed.iter().filter(|(path, file)| !file.is_deleted && !live.contains(*path)) {
            let is_old = is_older(fence.now_ms, file.removed_ms, self.config.removed_retention)
                && has_seen(file.seen, COMMIT_DEADLINE);
            add(path, file.size, Some(file.version), is_old);
        }
        for (path, file) in self.orphans.iter().filter(|(path, _)| !live.contains(*path)) {
            let is_old = is_older(fence.now_ms, file.modified_ms, self.config.orphan_age_min)
                && has_seen(file.seen, 2 * COMMIT_DEADLINE)
                && !self.removed.contains_key(path);
            add(path, file.size, None, is_old);
        }
        candidates.sort_unstable_by(|one, other| one.path.cmp(&other.path));
        Ok(candidates)
    }

    /// Reads the removed files from the log. A file that the log no longer lists stays known.
    async fn see_removed(&mut self, fence: &Fence) -> Result<()> {
        let (now, run, removed) = (self.clock().moment(), self.runs, &mut self.removed);
        let mut see = |file: RemovedFile| {
            if !is_data_file(&file.path) || (removed.len() >= REMEMBERED_MAX && !removed.contains_key(&file.path)) {
                return;
            }
            let RemovedFile { path, removed_ms, version, size } = file;
            let removed_ms = removed_ms.filter(|time| *time > 0).unwrap_or(fence.now_ms);
            let known =
                removed.entry(path).or_insert(Removed { seen: now, removed_ms, version, size, is_deleted: false, run });
            known.version = known.version.min(version);
            known.run = run;
        };
        self.table.removed_files(fence.snapshot.version, &mut see).await?;
        self.removed.retain(|_, file| !file.is_deleted || file.run == run);
        Ok(())
    }

    /// Lists the table's folder.
    async fn see_orphans(&mut self, live: &HashSet<Arc<str>>, report: &mut VacuumReport) -> Result<()> {
        let (now, run) = (self.clock().moment(), self.runs);
        let (orphans, removed) = (&mut self.orphans, &self.removed);
        let mut see = |path: &str, modified_ms, size| {
            if live.contains(path) || removed.contains_key(path) {
                return;
            }
            if orphans.len() < REMEMBERED_MAX || orphans.contains_key(path) {
                let orphan = Orphan { seen: now, modified_ms, size, run };
                let known = orphans.entry(path.into()).or_insert(orphan);
                (known.modified_ms, known.size, known.run) = (modified_ms, size, run);
            }
        };
        let ForeignFiles { count, names } = self.table.list_files(&mut see).await?;
        self.orphans.retain(|_, file| file.run == run);
        self.listed = Some(now);
        (report.foreign_files, report.foreign_names) = (Some(count), names);
        Ok(())
    }

    /// Removes the files that pins cover from the candidates.
    async fn keep_pinned(&self, candidates: &mut Vec<Candidate>, now_ms: i64, report: &mut VacuumReport) -> Result<()> {
        let mut first: Option<u64> = None;
        for (name, pin) in self.table.pins().await? {
            match pin {
                Some(Pin { until, .. }) if until <= now_ms => {}
                Some(Pin { version, .. }) => first = Some(first.map_or(version, |first| first.min(version))),
                None => {
                    tracing::error!(
                        table = %self.table.contract().name,
                        pin = name,
                        "vacuum deletes nothing, because a pin cannot be understood: correct or delete it"
                    );
                    first = Some(0);
                    report.unreadable_pins.push(name);
                }
            }
        }
        let Some(first) = first else { return Ok(()) };
        let before = candidates.len();
        // The log may have forgotten that an orphan was once a file of the table, so pins cover all orphans.
        candidates.retain(|candidate| {
            report.unreadable_pins.is_empty() && candidate.removed_at.is_some_and(|removed| removed <= first)
        });
        report.pinned_files = (before - candidates.len()) as u64;
        Ok(())
    }

    async fn delete(&mut self, candidates: Vec<Candidate>, report: &mut VacuumReport) {
        let paths: Vec<Arc<str>> = candidates.iter().map(|candidate| Arc::clone(&candidate.path)).collect();
        let DeletedFiles { paths, refused, has_stopped } = self.table.delete_files(&paths).await;
        for candidate in candidates.into_iter().filter(|candidate| paths.contains(&candidate.path)) {
            report.deleted_files += 1;
            report.deleted_bytes += candidate.size;
            report.deleted_orphans += u64::from(candidate.removed_at.is_none());
            self.orphans.remove(&candidate.path);
            if let Some(removed) = self.removed.get_mut(&candidate.path) {
                removed.is_deleted = true;
            }
        }
        report.refused = refused;
        self.refused = has_stopped.then(|| {
            let pause = self.refused.map_or(PAUSE_MIN, |(_, pause)| (pause * 2).min(PAUSE_MAX));
            (self.clock().moment(), pause)
        });
    }

    fn clock(&self) -> Clock {
        self.table.location().0.clock.clone()
    }
}

fn live_paths(snapshot: &Snapshot) -> HashSet<Arc<str>> {
    snapshot.files().map(|file| Arc::clone(&file.path)).collect()
}

/// Returns true if `then_ms` is at least `age` before `now_ms`.
fn is_older(now_ms: i64, then_ms: i64, age: Duration) -> bool {
    let age_ms = i64::try_from(age.as_millis()).unwrap_or(i64::MAX);
    now_ms.saturating_sub(then_ms) >= age_ms
}
