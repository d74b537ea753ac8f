//! A Delta table: open or create it, write and commit files, follow other writers.
//!
//! In: rows and files of one contract. Out: [`Snapshot`]s, each newer than the previous one.
//!
//! **Invariant:** the newest snapshot only moves forward, and includes a commit's files before the commit returns.
//! **Invariant:** all state comes from the log, so that a second handle or process sees the same table.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, RwLock};

use arrow::record_batch::RecordBatch;
use futures::StreamExt;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};
use tokio::sync::Semaphore;
use uuid::Uuid;

use crate::clock::{Micros, SECOND};
use crate::config::LakeConfig;
use crate::contract::{Contract, EVENT_DATE};
use crate::error::{Error, Result};
use crate::lake::log::checkpoint::{self, LoadedTable};
use crate::lake::log::commit;
use crate::lake::log::delta_log::Log;
use crate::lake::log::state::{self, Changes, State};
use crate::lake::open::load_or_create;
use crate::lake::read::bloom_filters::BloomFilterCache;
use crate::lake::read::{event_lookup, file_keys, row_reader};
use crate::lake::store::client::store_error;
use crate::lake::store::durable_folder;
use crate::lake::write::sort::{EncodedFile, RowSelection, WriteOptions, encode};
use crate::lake::{Committed, DataFile, EventKeys, InFlight, Progress, Snapshot, Store};
use crate::supervise::{blocking, on_thread};

/// All tables of this server by name: declared tables and their quarantines (`<t>_quarantine`).
pub type Tables = BTreeMap<String, Arc<Table>>;

/// The number of files of one write that are stored concurrently.
const PUTS_MAX: usize = 4;
/// The interval of reading the checkpoint hint. Without it, a log cleanup by another process could go unnoticed.
const GAP_CHECK_INTERVAL: Micros = 60 * SECOND;
/// The minimum age of staged files to delete. A put takes seconds, so that older files belong to processes that have ended.
const UNFINISHED_AGE_MIN: Micros = 3_600 * SECOND;

/// One open table.
#[derive(Debug)]
pub struct Table {
    pub(super) contract: Arc<Contract>,
    pub(super) log: Log,
    store: Store,
    folder: Path,
    options: WriteOptions,
    checkpoint_interval: u64,
    log_retention_ms: i64,
    /// The newest known state, which is replaced as a whole.
    current: RwLock<State>,
    /// Serializes the commits of this handle, so that only other processes compete with them.
    pub(super) commit_lock: Semaphore,
    /// Cached bloom filters of files.
    pub(super) filters: BloomFilterCache,
    /// The newest known checkpoint, 0 for none.
    checkpoint: AtomicU64,
    /// When the hint was last read.
    gap_checked: AtomicI64,
    /// The events in flight to the table on this server.
    in_flight: Arc<InFlight>,
}

impl Table {
    /// Opens the table of `contract` at `<prefix>/<name>`, creates it if it does not exist, and adds new nullable
    /// columns. `Conflict` if the type of a column has changed. Columns that the contract no longer has stay in the
    /// Delta schema.
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
            filters: BloomFilterCache::default(),
            checkpoint: AtomicU64::new(checkpoint.unwrap_or(0)),
            gap_checked: AtomicI64::new(store.clock.now()),
            in_flight: Arc::default(),
            contract,
        }))
    }

    /// The table's contract.
    pub fn contract(&self) -> &Arc<Contract> {
        &self.contract
    }

    /// The store, and the table's prefix in it. File paths of a snapshot are relative to that prefix.
    pub fn location(&self) -> (&Store, &Path) {
        (&self.store, &self.folder)
    }

    /// The events in flight to the table on this server.
    pub fn in_flight(&self) -> &Arc<InFlight> {
        &self.in_flight
    }

    /// The path of a file in the store.
    pub fn file_path(&self, file: &DataFile) -> Path {
        // Paths are checked when the log is read: they have no empty or relative parts.
        self.folder
            .parts()
            .map(|part| part.as_ref().to_owned())
            .chain(file.path.split('/').map(str::to_owned))
            .collect()
    }

    /// The newest known snapshot, without IO.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.state().snapshot
    }

    /// Reads other writers' commits (one GET if there are none) and returns the newest snapshot.
    pub async fn refresh(&self) -> Result<Arc<Snapshot>> {
        self.follow().await?;
        if self.gap_check_due() {
            let now = self.store.clock.now();
            let hint = self.log.hint().await?;
            if hint.is_some_and(|hint| hint > self.snapshot().version) {
                // There are newer versions, but the entries leading to them were already cleaned up.
                self.reload().await?;
            }
            self.checkpoint.fetch_max(hint.unwrap_or(0), Ordering::Relaxed);
            self.gap_checked.store(now, Ordering::Relaxed);
        }
        Ok(self.snapshot())
    }

    /// Writes rows as Parquet files: one per UTC day of the time column, each sorted by (tenant, time, id). Rows may be
    /// in any order. They are not visible before [`Table::commit`]. Encoding runs on the blocking pool. After an error,
    /// files that were already put are deleted on a best-effort basis.
    pub async fn write(&self, rows: impl Into<RowSelection>) -> Result<Vec<DataFile>> {
        let rows: RowSelection = rows.into();
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let (contract, options) = (Arc::clone(&self.contract), self.options.clone());
        let encoded = blocking("writing rows", move || encode(&contract, &options, &rows)).await?;
        // Await all puts, even after an error: a dropped put may still finish and leave an orphaned file. With a full disk,
        // each attempt fails for large files but succeeds for small ones.
        let puts: Vec<_> = futures::stream::iter(encoded).map(|file| self.put(file)).buffered(PUTS_MAX).collect().await;
        let (files, faults): (Vec<_>, Vec<_>) = puts.into_iter().partition(Result::is_ok);
        let files = files.into_iter().filter_map(Result::ok).collect::<Vec<_>>();
        match faults.into_iter().find_map(Result::err) {
            Some(fault) => {
                self.discard(&files).await;
                Err(fault)
            }
            None => Ok(files),
        }
    }

    /// Commits files and the progress of sources in one log entry; returns its version. If other writers commit first,
    /// it retries after checking that the contract still fits and that they did not move the same sources. A put in
    /// doubt is resolved by reading the entry back. The snapshot includes the files before this returns.
    ///
    /// `Conflict` if a progress does not start at the table's value; the snapshot then has that value. After
    /// `Unavailable` the commit may have succeeded: commit the same files and progress again. They are stored once; if
    /// a version already includes them, that version is returned.
    pub async fn commit(&self, files: Vec<DataFile>, progress: Vec<Progress>) -> Result<u64> {
        match commit::append(self, files, progress, None).await? {
            Committed::At(version) => Ok(version),
            Committed::Behind => Err(Error::internal("an unconditional commit reported newer rows")),
        }
    }

    /// Like [`Table::commit`], but only if no other writer has added rows since version `seen`, against which the rows were
    /// deduplicated.
    pub async fn commit_after(&self, seen: u64, files: Vec<DataFile>, progress: Vec<Progress>) -> Result<Committed> {
        commit::append(self, files, progress, Some(seen)).await
    }

    /// Deletes files of a write that will never be committed, on a best-effort basis.
    pub async fn discard(&self, files: &[DataFile]) {
        for file in files {
            let path = self.file_path(file);
            if let Err(error) = self.store.objects.delete(&path).await {
                tracing::debug!(%path, %error, "cannot delete an uncommitted file: it remains as an orphan");
            }
        }
    }

    /// Writes a checkpoint if one is due, and removes expired log entries; returns its version. The table's owner calls
    /// it in the background.
    pub async fn maintain(&self) -> Result<Option<u64>> {
        let due = |table: &Self| {
            let checkpoint = table.checkpoint.load(Ordering::Relaxed);
            table.snapshot().version.saturating_sub(checkpoint) >= table.checkpoint_interval
        };
        if due(self) {
            // Another process may have written it.
            self.checkpoint.fetch_max(self.log.hint().await?.unwrap_or(0), Ordering::Relaxed);
        }
        if !due(self) {
            return Ok(None);
        }
        let cutoff_ms = (self.store.clock.now() / 1_000).saturating_sub(self.log_retention_ms);
        let version = checkpoint::write(&self.store, &self.folder, &self.contract, cutoff_ms).await?;
        self.checkpoint.fetch_max(version, Ordering::Relaxed);
        Ok(Some(version))
    }

    /// Deletes staged files of unfinished puts in a local folder, left by killed processes. The table's owner calls it
    /// once, in the background.
    pub async fn sweep(&self) -> Result<()> {
        let Some(folder) = self.store.local(&self.folder) else { return Ok(()) };
        let before_ms = (self.store.clock.now() - UNFINISHED_AGE_MIN) / 1_000;
        let swept = on_thread(move || durable_folder::sweep(&folder, before_ms)).await;
        let fault = || {
            Error::unavailable(format!(
                "table `{}`: cannot delete the staged files of unfinished puts",
                self.contract.name
            ))
        };
        let count = swept.map_err(|error| fault().with_source(error))?.map_err(|error| fault().with_source(error))?;
        if count > 0 {
            tracing::info!(table = %self.contract.name, count, "deleted staged files of unfinished puts");
        }
        Ok(())
    }

    /// Reads the tenant and id columns of a file.
    pub async fn keys(&self, file: &DataFile) -> Result<Vec<RecordBatch>> {
        file_keys::read(self, file).await
    }

    /// Returns for each event whether one of `files` contains its tenant, time and id. `Unavailable` if a file cannot
    /// be read.
    pub async fn stored(&self, files: &[Arc<DataFile>], keys: EventKeys) -> Result<Vec<bool>> {
        event_lookup::stored(self, files, keys).await
    }

    /// Streams rows of a file: the columns of `names` that it has, all rows or those at `row_numbers` (ascending, from
    /// 0), in batches of at most `batch_rows`. `Unavailable` if the file cannot be read.
    pub async fn rows(
        &self,
        file: &DataFile,
        names: &[&str],
        row_numbers: Option<&[usize]>,
        batch_rows: usize,
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        row_reader::read(self, file, names, row_numbers, batch_rows).await
    }

    /// Blocks commits of this handle until the permit is dropped.
    #[cfg(test)]
    pub(crate) async fn hold(&self) -> tokio::sync::SemaphorePermit<'_> {
        self.commit_lock.acquire().await.unwrap()
    }

    pub(super) fn state(&self) -> State {
        self.current.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// Replaces the newest state with `state` unless it is older.
    pub(super) fn publish(&self, state: State) {
        let mut current = self.current.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        if state.snapshot.version > current.snapshot.version {
            *current = state;
        }
    }

    /// Reads log entries up to the newest, and publishes the resulting state.
    pub(super) async fn follow(&self) -> Result<State> {
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

    /// Loads the newest version as when opening the table.
    pub(super) async fn reload(&self) -> Result<State> {
        let loaded = checkpoint::load(&self.store, &self.folder, &self.contract).await?.ok_or_else(|| {
            Error::unavailable(format!(
                "table `{}`: its log is no longer in the object store: restore it",
                self.contract.name
            ))
        })?;
        self.publish(loaded.state);
        Ok(self.state())
    }

    /// Whether so much time has passed that the next entry may have been cleaned up unnoticed.
    pub(super) fn gap_check_due(&self) -> bool {
        let checked = self.gap_checked.load(Ordering::Relaxed);
        self.store.clock.now().abs_diff(checked) >= GAP_CHECK_INTERVAL.unsigned_abs()
    }

    pub(super) fn now_ms(&self) -> i64 {
        self.store.clock.now() / 1_000
    }

    async fn put(&self, encoded: EncodedFile) -> Result<DataFile> {
        let EncodedFile { day, bytes, bounds } = encoded;
        let name = format!("{EVENT_DATE}={}/part-{}.zstd.parquet", state::day_text(day)?, Uuid::now_v7());
        let file = DataFile {
            path: name.into(),
            size: bytes.len() as u64,
            rows: bounds.rows,
            day,
            tenants: bounds.tenants,
            times: bounds.times,
            ids: bounds.ids,
            received: bounds.received,
            modified: self.now_ms(),
        };
        let path = self.file_path(&file);
        self.store.objects.put(&path, PutPayload::from(bytes)).await.map_err(|error| store_error(&path, error))?;
        Ok(file)
    }
}
