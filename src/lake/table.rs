//! One Delta table: open or create, evolve, write, commit, follow.
//!
//! In: rows and files of one contract. Out: [`Snapshot`]s, each newer than the one before.
//!
//! **Invariant:** the newest snapshot only moves forward, and holds a commit's files before the commit returns.
//! **Invariant:** nothing is remembered that the log does not say: a second handle, or process, sees the same table.

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

/// All tables of this server by name: declared ones and their quarantines (`<t>_quarantine`).
pub type Tables = BTreeMap<String, Arc<Table>>;

/// Files of one write that are stored at once.
const PUTS_MAX: usize = 4;
/// After this long without a look at the checkpoint hint, the log may have been cleaned up under us.
const GAP_CHECK_INTERVAL: Micros = 60 * SECOND;
/// A put takes seconds: what was begun so long ago belongs to no process that still runs.
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
    /// The newest known state: swapped, never edited.
    current: RwLock<State>,
    /// Commits of one handle take turns: who contends at the store is then a process, not a request.
    pub(super) turn: Semaphore,
    /// Filters of files that were looked into.
    pub(super) filters: BloomFilterCache,
    /// The newest known checkpoint, 0 for none.
    checkpoint: AtomicU64,
    /// When the hint was last looked at.
    gap_checked: AtomicI64,
    /// What is on its way into it on this server.
    in_flight: Arc<InFlight>,
}

impl Table {
    /// Opens the table of `contract` at `<prefix>/<name>`, creates it when it is absent, and adds new nullable columns.
    /// A column whose type changed is `Conflict`. Columns that the contract no longer has stay in the Delta schema.
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
            turn: Semaphore::new(1),
            filters: BloomFilterCache::default(),
            checkpoint: AtomicU64::new(checkpoint.unwrap_or(0)),
            gap_checked: AtomicI64::new(store.clock.now()),
            in_flight: Arc::default(),
            contract,
        }))
    }

    /// The contract.
    pub fn contract(&self) -> &Arc<Contract> {
        &self.contract
    }

    /// The store and the table's own prefix in it: file paths of a snapshot are relative to it.
    pub fn location(&self) -> (&Store, &Path) {
        (&self.store, &self.folder)
    }

    /// What is on its way into the table on this server.
    pub fn in_flight(&self) -> &Arc<InFlight> {
        &self.in_flight
    }

    /// The place of a file in the store.
    pub fn file_path(&self, file: &DataFile) -> Path {
        // Paths of files are checked when they are read from the log: none has empty or relative parts.
        self.folder
            .parts()
            .map(|part| part.as_ref().to_owned())
            .chain(file.path.split('/').map(str::to_owned))
            .collect()
    }

    /// The newest known snapshot. Costs nothing.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.state().snapshot
    }

    /// Reads other writers' commits (one GET when there is none) and returns the newest snapshot.
    pub async fn refresh(&self) -> Result<Arc<Snapshot>> {
        self.follow().await?;
        if self.gap_check_due() {
            let now = self.store.clock.now();
            let hint = self.log.hint().await?;
            if hint.is_some_and(|hint| hint > self.snapshot().version) {
                // Newer commits than ours, and no entry that leads to them: it was cleaned up while we slept.
                self.reload().await?;
            }
            self.checkpoint.fetch_max(hint.unwrap_or(0), Ordering::Relaxed);
            self.gap_checked.store(now, Ordering::Relaxed);
        }
        Ok(self.snapshot())
    }

    /// Writes rows as Parquet: split by UTC day of the time column, each file sorted by (tenant, time, id). Rows may come
    /// in any order. Nothing is visible before [`Table::commit`]. Blocking work runs on the blocking pool. After an error
    /// the files that were put all the same are deleted again, as far as the store lets it.
    pub async fn write(&self, rows: impl Into<RowSelection>) -> Result<Vec<DataFile>> {
        let rows: RowSelection = rows.into();
        if rows.is_empty() {
            return Ok(Vec::new());
        }
        let (contract, options) = (Arc::clone(&self.contract), self.options.clone());
        let encoded = blocking("writing rows", move || encode(&contract, &options, &rows)).await?;
        // All are awaited: one that is dropped goes on, and its file would lie there unknown to anybody. A disk that is
        // full fails the large files and takes the small ones, with each attempt.
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

    /// Commits files and the progress of sources in one log entry; returns its version. Retries when other writers were
    /// faster, after checking that rows of our contract still fit and that no source was moved by them; an unclear answer
    /// of the store is settled by reading the entry back. The snapshot holds the files before this returns.
    ///
    /// Progress that does not begin where the table stands is `Conflict`; the snapshot then says where it stands. After
    /// `Unavailable` the commit may have happened: commit the same files and progress again, they count once (a version
    /// that already holds them is returned as it is).
    pub async fn commit(&self, files: Vec<DataFile>, progress: Vec<Progress>) -> Result<u64> {
        match commit::append(self, files, progress, None).await? {
            Committed::At(version) => Ok(version),
            Committed::Behind => Err(Error::internal("a commit that follows nothing cannot be behind")),
        }
    }

    /// The same, but only when no other writer has added rows since version `seen`, whose rows ours were compared with.
    pub async fn commit_after(&self, seen: u64, files: Vec<DataFile>, progress: Vec<Progress>) -> Result<Committed> {
        commit::append(self, files, progress, Some(seen)).await
    }

    /// Deletes files of a write that will never be committed, as far as the store lets it.
    pub async fn discard(&self, files: &[DataFile]) {
        for file in files {
            let path = self.file_path(file);
            if let Err(error) = self.store.objects.delete(&path).await {
                tracing::debug!(%path, %error, "a file that nothing names is left behind");
            }
        }
    }

    /// Writes a checkpoint when one is due and removes expired log entries; returns its version. Called in the background
    /// by the owner.
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

    /// Deletes what puts into a local folder have left unfinished when their process was killed. Called once by the owner,
    /// in the background.
    pub async fn sweep(&self) -> Result<()> {
        let Some(folder) = self.store.local(&self.folder) else { return Ok(()) };
        let before_ms = (self.store.clock.now() - UNFINISHED_AGE_MIN) / 1_000;
        let swept = on_thread(move || durable_folder::sweep(&folder, before_ms)).await;
        let fault =
            || Error::unavailable(format!("table `{}`: what puts have left cannot be swept", self.contract.name));
        let count = swept.map_err(|error| fault().with_source(error))?.map_err(|error| fault().with_source(error))?;
        if count > 0 {
            tracing::info!(table = %self.contract.name, count, "deleted what puts of an ended process have left unfinished");
        }
        Ok(())
    }

    /// The (tenant, id) columns of a file.
    pub async fn keys(&self, file: &DataFile) -> Result<Vec<RecordBatch>> {
        file_keys::read(self, file).await
    }

    /// For each event whether one of `files` has it: the same tenant, time and id. `Unavailable` when a file cannot be
    /// read.
    pub async fn stored(&self, files: &[Arc<DataFile>], keys: EventKeys) -> Result<Vec<bool>> {
        event_lookup::stored(self, files, keys).await
    }

    /// Streams rows of a file: the columns of `names` that it has, all rows or those at `places` (ascending, from 0), in
    /// batches of at most `batch_rows`. `Unavailable` when the file cannot be read.
    pub async fn rows(
        &self,
        file: &DataFile,
        names: &[&str],
        places: Option<&[usize]>,
        batch_rows: usize,
    ) -> Result<BoxStream<'static, Result<RecordBatch>>> {
        row_reader::read(self, file, names, places, batch_rows).await
    }

    /// Takes the turn in which commits are made: none is made until it is given back.
    #[cfg(test)]
    pub(crate) async fn hold(&self) -> tokio::sync::SemaphorePermit<'_> {
        self.turn.acquire().await.unwrap()
    }

    pub(super) fn state(&self) -> State {
        self.current.read().unwrap_or_else(|poisoned| poisoned.into_inner()).clone()
    }

    /// Makes `state` the newest, unless there is a newer one.
    pub(super) fn publish(&self, state: State) {
        let mut current = self.current.write().unwrap_or_else(|poisoned| poisoned.into_inner());
        if state.snapshot.version > current.snapshot.version {
            *current = state;
        }
    }

    /// Reads entries until there is none, and publishes what they say.
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

    /// Loads the newest version as if just opened.
    pub(super) async fn reload(&self) -> Result<State> {
        let loaded = checkpoint::load(&self.store, &self.folder, &self.contract).await?.ok_or_else(|| {
            Error::unavailable(format!("table `{}`: its log is gone from the object store", self.contract.name))
        })?;
        self.publish(loaded.state);
        Ok(self.state())
    }

    /// Whether so much time has passed that the next entry may have been cleaned up unseen.
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
