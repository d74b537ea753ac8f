//! A Delta table: opens or creates it, writes files, and follows other writers' commits.
//!
//! All rows of a table follow one contract. A table provides [`Snapshot`]s of its contents, and each is newer than the
//! one before. The methods that commit are in `log/commit.rs` and `log/replace.rs`, and those that maintain the log are
//! in `log/log_maintenance.rs`. Those that read single files are in `read/`.
//!
//! **Invariant:** the newest snapshot is never replaced by an older one, and it includes a commit's files before the
//! commit returns.
//! **Invariant:** all state comes from the log, so every process and every [`Table`] that opens the same folder sees
//! the same data.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use futures::StreamExt;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::clock::{Micros, SECOND};
use crate::config::LakeConfig;
use crate::contract::{Contract, EVENT_DATE, ExpiryBounds};
use crate::error::{Error, Result};
use crate::lake::file_ages::FileAges;
use crate::lake::log::checkpoint::{self, LoadedTable};
use crate::lake::log::delta_log::Log;
use crate::lake::log::table_state::{self, Changes, TableState};
use crate::lake::open_table::load_or_create;
use crate::lake::parquet_writer::parquet_file::WriteOptions;
use crate::lake::parquet_writer::sort::{EncodedFile, RowSelection, encode};
use crate::lake::read::bloom_filters::BloomFilterCache;
use crate::lake::store::client::store_error;
use crate::lake::store::durable_folder;
use crate::lake::{DataFile, FileChange, FileSummary, InFlight, Snapshot, Store};
use crate::supervise::{blocking, on_thread};

/// All tables of this server by name: the declared tables and their quarantines (`<table>_quarantine`).
pub type Tables = BTreeMap<String, Arc<Table>>;

/// The maximum number of files that one write stores concurrently.
const PUTS_MAX: usize = 4;
/// The interval at which the checkpoint hint is read. The hint shows whether another process may have removed log
/// entries that this process has not read yet.
const GAP_CHECK_INTERVAL: Micros = 60 * SECOND;
/// The minimum age of the staged files that [`Table::sweep`] deletes. A put takes seconds, so files of this age cannot
/// belong to a put that is still running.
const UNFINISHED_AGE_MIN: Micros = 3_600 * SECOND;

/// One open table.
#[derive(Debug)]
pub struct Table {
    pub(super) contract: Arc<Contract>,
    pub(super) log: Log,
    store: Store,
    folder: Path,
    options: WriteOptions,
    pub(super) checkpoint_interval: u64,
    pub(super) log_retention_ms: i64,
    /// The newest known state. A newer state replaces it as a whole.
    current: RwLock<TableState>,
    /// Commits through this object run one after another, so only other processes can commit concurrently.
    pub(super) commit_lock: Semaphore,
    /// The ages of the files that this handle has written.
    pub(super) ages: FileAges,
    /// The cached bloom filters of the table's files.
    pub(super) filters: BloomFilterCache,
    /// The version of the newest known checkpoint, or 0 if there is none.
    pub(super) checkpoint: AtomicU64,
    /// The number of removed files in the last checkpoint that this handle has written.
    pub(super) removed_files: AtomicU64,
    /// The time at which the checkpoint hint was last read.
    gap_checked: AtomicI64,
    /// The table's in-flight events on this server.
    in_flight: Arc<InFlight>,
}

impl Table {
    /// Opens the table of `contract` at `<prefix>/<name>`. Creates the table if it does not exist, and adds the
    /// contract's new nullable columns. If a column has been removed from the contract, it stays in the Delta schema.
    /// Returns `Conflict` if a column's type has changed.
    pub async fn open(store: &Store, contract: Arc<Contract>, config: &LakeConfig) -> Result<Arc<Self>> {
        let folder = store.folder(&contract.name);
        let log = Log::of(store, &folder);
        let LoadedTable { state, checkpoint } = load_or_create(store, &folder, &log, &contract, config).await?;
        Ok(Arc::new(Self {
            store: store.clone(),
            folder,
            log,
            options: WriteOptions::from(config),
            checkpoint_interval: config.checkpoint_interval,
            log_retention_ms: i64::try_from(config.log_retention.as_millis()).unwrap_or(i64::MAX),
            current: RwLock::new(state),
            commit_lock: Semaphore::new(1),
            ages: FileAges::new(store.clock.clone()),
            filters: BloomFilterCache::default(),
            checkpoint: AtomicU64::new(checkpoint.unwrap_or(0)),
            removed_files: AtomicU64::new(0),
            gap_checked: AtomicI64::new(store.clock.now()),
            in_flight: Arc::default(),
            contract,
        }))
    }

    /// Returns the table's contract.
    pub fn contract(&self) -> &Arc<Contract> {
        &self.contract
    }

    /// Returns the store, and the prefix of the table's folder in that store. File paths in a snapshot are relative to
    /// this prefix.
    pub fn location(&self) -> (&Store, &Path) {
        (&self.store, &self.folder)
    }

    /// Returns the in-flight events of the table on this server.
    pub fn in_flight(&self) -> &Arc<InFlight> {
        &self.in_flight
    }

    /// Returns the path of a file in the store.
    pub fn file_path(&self, file: &DataFile) -> Path {
        self.path_of(&file.path)
    }

    /// Returns the path in the store of a path that is relative to the table.
    pub(super) fn path_of(&self, relative: &str) -> Path {
        // Paths are validated when the log is read, so they contain no empty, `.` or `..` segments.
        self.folder.parts().map(|part| part.as_ref().to_owned()).chain(relative.split('/').map(str::to_owned)).collect()
    }

    /// Returns the times before which rows are expired now.
    pub fn expiry(&self) -> ExpiryBounds {
        self.contract.retention.bounds(self.store.clock.now())
    }

    /// Returns the newest known snapshot, without I/O.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.state().snapshot
    }

    /// Returns the newest known snapshot, and the changes of files between `version` and the snapshot. The changes are
    /// `None` if there are too many of them, or if they are not known because the table was loaded from a checkpoint of
    /// a later version.
    pub fn changes_since(&self, version: u64) -> (Arc<Snapshot>, Option<Vec<Arc<FileChange>>>) {
        let TableState { snapshot, history, .. } = self.state();
        (snapshot, history.since(version))
    }

    /// Reads other writers' commits and returns the newest snapshot. Sends one GET request if there are no new commits.
    pub async fn refresh(&self) -> Result<Arc<Snapshot>> {
        self.follow().await?;
        if self.gap_check_due() {
            let now = self.store.clock.now();
            let hint = self.log.hint().await?;
            if hint.is_some_and(|hint| hint > self.snapshot().version) {
                // Log entries that this process has not read may already have been removed, so load from the
                // checkpoint.
                self.reload().await?;
            }
            self.checkpoint.fetch_max(hint.unwrap_or(0), Ordering::Relaxed);
            self.gap_checked.store(now, Ordering::Relaxed);
        }
        Ok(self.snapshot())
    }

    /// Writes rows as Parquet files: one per UTC day of the time column, each sorted by (tenant, time, id). The rows
    /// may be in any order, and are not visible before [`Table::commit`]. Encoding runs on the blocking pool. If a put
    /// fails, the files that were already stored are deleted on a best-effort basis.
    pub async fn write(&self, rows: impl Into<RowSelection>) -> Result<Vec<DataFile>> {
        let rows: RowSelection = rows.into();
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let (contract, options) = (Arc::clone(&self.contract), self.options.clone());
        let encoded = blocking("writing rows", move || encode(&contract, &options, &rows)).await?;
        // Wait for all puts, even after an error: if a put were cancelled, it could still finish and leave an orphaned
        // file. On a full disk, small files can often be written when large ones cannot, so each attempt would leave
        // orphans.
        let puts: Vec<_> = futures::stream::iter(encoded).map(|file| self.put(file)).buffered(PUTS_MAX).collect().await;
        let (files, errors): (Vec<_>, Vec<_>) = puts.into_iter().partition(Result::is_ok);
        let files = files.into_iter().filter_map(Result::ok).collect::<Vec<_>>();
        match errors.into_iter().find_map(Result::err) {
            Some(error) => {
                self.delete(&files.into_iter().map(Arc::new).collect::<Vec<_>>()).await;
                Err(error)
            }
            None => Ok(files),
        }
    }

    /// Deletes files that are not and never will be part of the table, on a best-effort basis.
    pub(super) async fn delete(&self, files: &[Arc<DataFile>]) {
        for file in files {
            let path = self.file_path(file);
            if let Err(error) = self.store.objects.delete(&path).await {
                tracing::debug!(%path, %error, "cannot delete an uncommitted file, which remains in the store");
            }
        }
    }

    /// Deletes the staged files that killed processes left in a local folder during a put. Ingest calls this function
    /// once, in the background.
    pub async fn sweep(&self) -> Result<()> {
        let Some(folder) = self.store.local(&self.folder) else { return Ok(()) };
        let before_ms = (self.store.clock.now() - UNFINISHED_AGE_MIN) / 1_000;
        let swept = on_thread(move || durable_folder::sweep(&folder, before_ms)).await;
        let failed = || {
            Error::unavailable(format!(
                "table `{}`: cannot delete the staged files of unfinished puts",
                self.contract.name
            ))
        };
        let count = swept.map_err(|error| failed().with_source(error))?.map_err(|error| failed().with_source(error))?;
        if count > 0 {
            tracing::info!(table = %self.contract.name, count, "deleted staged files of unfinished puts");
        }
        Ok(())
    }

    /// Blocks commits through this object until the permit is dropped.
    #[cfg(test)]
    pub(crate) async fn hold(&self) -> tokio::sync::SemaphorePermit<'_> {
        self.commit_lock.acquire().await.unwrap()
    }

    pub(super) fn state(&self) -> TableState {
        self.current.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// Replaces the newest state with `state`, unless `state` is older.
    pub(super) fn publish(&self, state: TableState) {
        let mut current = self.current.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        if state.snapshot.version > current.snapshot.version {
            *current = state;
        }
    }

    /// Reads log entries up to the newest entry, and publishes the resulting state.
    pub(super) async fn follow(&self) -> Result<TableState> {
        let state = self.state();
        let mut changes: Option<Changes> = None;
        let mut next = state.snapshot.version + 1;
        while let Some(entry) = self.log.read(next).await? {
            changes.get_or_insert_default().push(&self.contract, next, entry)?;
            next += 1;
        }
        if let Some(changes) = changes {
            self.publish(changes.apply(&self.contract, Some(&state))?);
        }
        Ok(self.state())
    }

    /// Reads log entries up to the newest entry. Loads the table again if the next entries may have been removed.
    pub(super) async fn catch_up(&self) -> Result<TableState> {
        if self.gap_check_due() { self.reload().await } else { self.follow().await }
    }

    /// Loads the newest version from the newest checkpoint and the log entries after it, as if the table were opened
    /// again.
    pub(super) async fn reload(&self) -> Result<TableState> {
        let now = self.store.clock.now();
        let loaded = checkpoint::load(&self.store, &self.folder, &self.contract).await?.ok_or_else(|| {
            Error::unavailable(format!(
                "table `{}`: its log is no longer in the object store: restore it",
                self.contract.name
            ))
        })?;
        self.publish(loaded.state);
        self.checkpoint.fetch_max(loaded.checkpoint.unwrap_or(0), Ordering::Relaxed);
        self.gap_checked.store(now, Ordering::Relaxed);
        Ok(self.state())
    }

    /// Returns true if the hint was last read at least [`GAP_CHECK_INTERVAL`] ago. Since then, another process may have
    /// removed the next log entry.
    pub(super) fn gap_check_due(&self) -> bool {
        let checked = self.gap_checked.load(Ordering::Relaxed);
        self.store.clock.now().abs_diff(checked) >= GAP_CHECK_INTERVAL.unsigned_abs()
    }

    /// Returns the current time in milliseconds since 1970.
    pub(super) fn now_ms(&self) -> i64 {
        self.store.clock.now() / 1_000
    }

    async fn put(&self, encoded: EncodedFile) -> Result<DataFile> {
        let EncodedFile { day, bytes, bounds } = encoded;
        let name = format!("{EVENT_DATE}={}/part-{}.zstd.parquet", table_state::day_text(day)?, Uuid::now_v7());
        let summary = FileSummary { size: bytes.len() as u64, bounds };
        let file = self.stored_file(&name.into(), day, &summary);
        let path = self.file_path(&file);
        self.ages.start(&file.path);
        self.store.objects.put(&path, PutPayload::from(bytes)).await.map_err(|error| store_error(&path, error))?;
        Ok(file)
    }
}
