//! Maintains the log of a table: writes checkpoints, thins them out, and removes expired entries.
//!
//! ```text
//!   checkpoint_if_due:  state ─► checkpoint ─► read it back, compare ─┬─ same ─► keep
//!                                                                     └─ different ─► withdraw
//!   clean_log:  listing ─► one checkpoint an hour ─► entries before the newest checkpoint that has expired
//! ```
//!
//! **Invariant:** each version that was the newest one within `lake.log_retention` stays readable: entries are removed
//! only before a checkpoint that is older than that, and all entries after this checkpoint stay.
//! **Invariant:** entries are never removed before the only checkpoint, so the newest version stays readable without it.
//! **Invariant:** a checkpoint whose files or transactions differ from the table's state does not stay in the log.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::Ordering;

use futures::StreamExt as _;
use object_store::ObjectMeta;
use object_store::path::Path;

use crate::clock::{Micros, SECOND};
use crate::error::{Error, Result};
use crate::lake::log::checkpoint;
use crate::lake::log::checkpoint_rows::{CheckpointRow, checkpoint_rows};
use crate::lake::log::table_state::decode_path;
use crate::lake::store::client::store_error;
use crate::lake::{Snapshot, Table};

/// A checkpoint has about as many rows as the table has live and removed files. With one checkpoint in this share of
/// their number of commits, the bytes of the checkpoints stay in proportion to those of the entries.
const FILES_PER_COMMIT: u64 = 400;
/// Of the checkpoints that are older than this, one for each such period is kept.
const CHECKPOINT_PERIOD: Micros = 3_600 * SECOND;
/// The time after which a checkpoint is not withdrawn. It is shorter than any retention of log entries.
const WITHDRAWAL_TIME_MAX: Micros = 1_800 * SECOND;
/// The number of objects that are deleted with one request, if the store supports it.
const DELETES_MAX: usize = 500;

/// The objects that [`Table::clean_log`] has deleted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct LogCleaned {
    /// The number of checkpoints.
    pub checkpoints: u64,
    /// The number of log entries.
    pub entries: u64,
}

impl Table {
    /// If a checkpoint is due, writes it, deletes expired log entries, and returns the checkpoint's version. Ingest calls
    /// this function regularly, in the background.
    pub async fn maintain(&self) -> Result<Option<u64>> {
        let version = self.checkpoint_if_due().await?;
        if version.is_some() {
            self.clean(false).await?;
        }
        Ok(version)
    }

    /// Writes a checkpoint if enough commits were made since the last one, and returns its version: at least
    /// `lake.checkpoint_interval` commits, and more if the table has many files. Reads the checkpoint back, and deletes it
    /// if it differs from the table. Returns `Internal` in that case.
    ///
    /// The Delta kernel holds all files of the table in memory while it writes a checkpoint, in addition to the table's
    /// own list.
    pub async fn checkpoint_if_due(&self) -> Result<Option<u64>> {
        if !self.is_checkpoint_due().await? {
            return Ok(None);
        }
        let (started, snapshot) = (self.location().0.clock.moment(), self.follow().await?.snapshot);
        let version = snapshot.version;
        let (store, folder) = self.location();
        checkpoint::write(store, folder, &self.contract, version).await?;
        // A checkpoint that was withdrawn is written again only after the next interval.
        self.checkpoint.fetch_max(version, Ordering::Relaxed);
        match self.compare_checkpoint(&snapshot).await {
            Ok(removed) => {
                self.removed_files.store(removed, Ordering::Relaxed);
                Ok(Some(version))
            }
            // If this process slept, log entries may have been removed that only this checkpoint replaces.
            Err(error) if self.location().0.clock.longest_since(started) >= WITHDRAWAL_TIME_MAX => Err(error),
            Err(error) => {
                self.withdraw_checkpoint(version).await?;
                Err(error)
            }
        }
    }

    /// Deletes checkpoints that are older than an hour, except the newest one of each hour. Deletes the entries and
    /// checkpoints before the newest remaining checkpoint that is older than `lake.log_retention`, unless it is the only
    /// checkpoint. Lists the whole log, so it should be called once an hour.
    pub async fn clean_log(&self) -> Result<LogCleaned> {
        self.clean(true).await
    }

    async fn clean(&self, is_thinning: bool) -> Result<LogCleaned> {
        let now_ms = self.now_ms();
        let mut listing = self.log.list(0).await?;
        let expired = if is_thinning { thin(&mut listing.checkpoints, now_ms) } else { Vec::new() };
        let mut cleaned = LogCleaned { checkpoints: expired.len() as u64, entries: 0 };
        let mut paths: Vec<Path> = expired.into_iter().flatten().collect();
        let is_expired = |files: &Vec<ObjectMeta>| modified_ms(files) < now_ms.saturating_sub(self.log_retention_ms);
        // The newest version can always be loaded from a checkpoint with entries before it, or from a later checkpoint.
        let mut older = listing.checkpoints.iter().rev().skip(1);
        let base = older.find(|(_, files)| is_expired(files)).map(|(version, _)| *version);
        if let Some(base) = base {
            for (_, files) in listing.checkpoints.range(..base) {
                paths.extend(files.iter().map(|file| file.location.clone()));
                cleaned.checkpoints += 1;
            }
            let entries = listing.entries.range(..base).map(|version| self.log.entry(*version));
            let before = paths.len();
            paths.extend(entries);
            cleaned.entries = (paths.len() - before) as u64;
        }
        self.delete_log_files(&paths).await?;
        Ok(cleaned)
    }

    async fn is_checkpoint_due(&self) -> Result<bool> {
        let snapshot = self.snapshot();
        let files = snapshot.len() as u64 + self.removed_files.load(Ordering::Relaxed);
        let interval = self.checkpoint_interval.max(files / FILES_PER_COMMIT);
        let is_due = || snapshot.version.saturating_sub(self.checkpoint.load(Ordering::Relaxed)) >= interval;
        if is_due() {
            // No checkpoint is due if another process has written one.
            self.checkpoint.fetch_max(self.log.hint().await?.unwrap_or(0), Ordering::Relaxed);
        }
        Ok(is_due())
    }

    /// Compares the checkpoint of a snapshot's version with the snapshot. Returns the number of removed files in it.
    pub(super) async fn compare_checkpoint(&self, snapshot: &Snapshot) -> Result<u64> {
        let listing = self.log.list(snapshot.version).await?;
        let differs = |what: String| {
            Error::internal(format!(
                "table `{}`: the checkpoint of version {} was withdrawn, because it differs from the log: {what}",
                self.contract.name, snapshot.version
            ))
        };
        let files = listing.checkpoints.get(&snapshot.version).ok_or_else(|| differs("it is not listed".to_owned()))?;
        let mut live: HashMap<&str, u64> = snapshot.files().map(|file| (&*file.path, file.size)).collect();
        let (mut txns, mut removed, mut difference) = (BTreeMap::new(), 0, None);
        let mut row = |row: CheckpointRow<'_>| match row {
            CheckpointRow::Add { path, size } => {
                let found = decode_path(&self.contract, path).ok().and_then(|path| live.remove(&*path));
                if found.is_none() || found != size.and_then(|size| u64::try_from(size).ok()) {
                    difference.get_or_insert_with(|| format!("file `{path}` is not live or has another size"));
                }
            }
            CheckpointRow::Remove { .. } => removed += 1,
            CheckpointRow::Txn { app, version } => {
                txns.insert(app.to_owned(), version);
            }
        };
        let leaves = ["add.path", "add.size", "remove.path", "txn.appId", "txn.version"];
        checkpoint_rows(self.location().0, files, &leaves, &mut row).await?;
        match (difference, live.keys().next()) {
            (Some(difference), _) => Err(differs(difference)),
            (None, Some(path)) => Err(differs(format!("file `{path}` is missing"))),
            (None, None) if txns != *snapshot.txns => Err(differs("its transactions are others".to_owned())),
            (None, None) => Ok(removed),
        }
    }

    /// Deletes the checkpoint of a version. Deletes the hint first, if it names the checkpoint, so that no reader looks
    /// for it.
    pub(super) async fn withdraw_checkpoint(&self, version: u64) -> Result<()> {
        if self.log.hint().await? == Some(version) {
            self.log.delete_hint().await?;
        }
        let listing = self.log.list(version).await?;
        let files = listing.checkpoints.get(&version).into_iter().flatten();
        self.delete_log_files(&files.map(|file| file.location.clone()).collect::<Vec<_>>()).await
    }

    /// Deletes objects in this order. Stops at the first batch of which an object cannot be deleted.
    async fn delete_log_files(&self, paths: &[Path]) -> Result<()> {
        for batch in paths.chunks(DELETES_MAX) {
            let requests: Vec<_> = batch.iter().cloned().map(Ok).collect();
            let requests = futures::stream::iter(requests).boxed();
            let results: Vec<_> = self.location().0.objects.delete_stream(requests).collect().await;
            let is_failure = |error: &object_store::Error| !matches!(error, object_store::Error::NotFound { .. });
            if let Some(error) = results.into_iter().filter_map(std::result::Result::err).find(is_failure) {
                return Err(store_error(format!("table `{}`: its log", self.contract.name), error));
            }
        }
        Ok(())
    }
}

/// Removes checkpoints from the list, so that of those that are older than [`CHECKPOINT_PERIOD`] only the newest one of
/// each period stays. Returns the files of the removed ones.
pub(super) fn thin(checkpoints: &mut BTreeMap<u64, Vec<ObjectMeta>>, now_ms: i64) -> Vec<Vec<Path>> {
    let period_ms = CHECKPOINT_PERIOD / 1_000;
    let period = |files: &[ObjectMeta]| modified_ms(files).div_euclid(period_ms);
    let versions: Vec<(u64, i64, bool)> = checkpoints
        .iter()
        .map(|(version, files)| (*version, period(files), modified_ms(files) < now_ms.saturating_sub(period_ms)))
        .collect();
    let has_newer = versions.windows(2).filter(|pair| pair[0].2 && pair[0].1 == pair[1].1).map(|pair| pair[0].0);
    let removed = has_newer.filter_map(|version| checkpoints.remove(&version));
    removed.map(|files| files.into_iter().map(|file| file.location).collect()).collect()
}

/// Returns the time at which the last file of a checkpoint was written, in milliseconds since 1970.
fn modified_ms(files: &[ObjectMeta]) -> i64 {
    files.iter().map(|file| file.last_modified.timestamp_millis()).max().unwrap_or(i64::MAX)
}
