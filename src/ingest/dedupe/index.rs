//! The dedupe index of one table: a window with the newest ids in memory, and the list of the files in which older ids
//! are looked up.
//!
//! ```text
//!   rows ─► in the window, or earlier in the batch? ─► in a file of its day that the window does not cover? ─► new
//!             ▲                                          ▲
//!             └── ids of this server's commits and ──────┴── files, once the window has evicted one of their ids
//!                 of other servers' commits
//! ```
//!
//! [`DedupeIndex::compare`] takes the rows of the requests in a batch. The result contains the rows that are not in the
//! table, and the table version that the rows were compared with. If another server adds rows in a later version, the
//! result may be wrong. The lake must then refuse the commit, and the requests must be compared again.
//!
//! Between two comparisons, the index follows the changes of the table's files. It reads the ids of files that other
//! servers have added, even if the files have been rewritten since. It does not read the files that a rewrite has
//! or a deletion has added, because it knows their rows from the files that they replace (`window_coverage.rs`). If a
//! deletion removes rows whose ids are in the window, the index is rebuilt: an event whose row is gone is no duplicate.
//! Expired files leave the window at midnight, and are looked up from then on: an event with the id of an expired event
//! but another time is not a duplicate. If the index cannot follow the changes, for example because the store no longer has a file that was rewritten, it is rebuilt from the
//! newest version.
//!
//! **Invariant:** each file of the known table version either has all its ids in the window, or is read during lookups.
//! **Invariant:** an id enters the window if and only if its row is committed.
//! **Invariant:** the files of a rewrite are never read only because they are new.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use futures::{StreamExt as _, TryStreamExt as _};

use super::window::{DedupedBatch, EventKey, EventKeyHasher, PreparedRows, RowVerdict, Window, compare, select_new};
use super::window_coverage::WindowCoverage;
use crate::contract::{Contract, EventBatch, ExpiryBounds};
use crate::error::{Error, Result};
use crate::lake::{DataFile, EventKeys, ReadError, Table};
use crate::supervise::{Panic, on_thread};

/// The maximum number of files whose ids are read concurrently.
const READS_MAX: usize = 8;

/// The dedupe index of one table.
#[derive(Debug)]
pub(in crate::ingest) struct DedupeIndex {
    table: Arc<Table>,
    key_hasher: EventKeyHasher,
    /// The maximum number of ids in the window.
    ids_max: usize,
    /// `None` if an update panicked. The next comparison then rebuilds the state from the lake.
    state: Option<IndexState>,
}

/// The ids and files in the index, and the table version up to which the index is complete.
#[derive(Debug)]
struct IndexState {
    window: Window,
    coverage: WindowCoverage,
    /// The table version whose files are all in the index.
    version: u64,
    /// The paths of the indexed files that are newer than `version`. These files were written by this server, or were
    /// read by a call to [`DedupeIndex::catch_up`] that failed later.
    included: BTreeSet<Arc<str>>,
    /// The times before which rows were expired when the state was built.
    expiry: ExpiryBounds,
}

impl DedupeIndex {
    /// Builds the index from the current version of the table.
    pub(in crate::ingest) async fn open(table: Arc<Table>, key_hasher: EventKeyHasher, ids_max: usize) -> Result<Self> {
        let mut index = Self { table, key_hasher, ids_max, state: None };
        index.state = Some(index.rebuild().await?);
        Ok(index)
    }

    /// Finds the rows that are not in the table yet, and counts all other rows as duplicates.
    pub(in crate::ingest) async fn compare(&mut self, requests: Vec<Arc<PreparedRows>>) -> Result<DedupedBatch> {
        match self.try_compare(requests.clone()).await {
            // The store no longer has a file that another version has replaced. The newest version names its successor.
            Err(ReadError::Missing(error)) => {
                tracing::info!(?error, "the dedupe index names a file that is gone, and will be rebuilt");
                self.reset();
                self.table.refresh().await?;
                Ok(self.try_compare(requests).await?)
            }
            compared => Ok(compared?),
        }
    }

    /// Discards the state. The next comparison rebuilds it from the newest known version of the table.
    pub(in crate::ingest) fn reset(&mut self) {
        self.state = None;
    }

    /// Adds the event keys and files of a commit that this server made.
    pub(in crate::ingest) async fn add_committed(&mut self, keys: Vec<EventKey>, files: Vec<Arc<DataFile>>) {
        let Some(mut state) = self.state.take() else { return };
        // If the window has to grow, all its ids are copied, so this work runs on the blocking pool.
        let adding = on_thread(move || {
            state.add_to_window(files, keys);
            state
        });
        self.state = adding
            .await
            .inspect_err(|panic| tracing::error!("the dedupe index panicked and will be rebuilt: {panic}"))
            .ok();
    }

    async fn try_compare(&mut self, requests: Vec<Arc<PreparedRows>>) -> Result<DedupedBatch, ReadError> {
        let mut state = match self.state.take() {
            Some(state) => state,
            None => self.rebuild().await?,
        };
        if let Err(error) = self.catch_up(&mut state).await {
            self.state = Some(state);
            return Err(error);
        }
        // The comparison runs on the blocking pool, so the closure takes ownership of the state and returns it.
        let compared = requests.clone();
        let comparing = on_thread(move || {
            let verdicts = compare(&state.window, &compared);
            (state, verdicts)
        });
        let (state, mut verdicts) = comparing.await.map_err(|cause| failed("dropping duplicates", cause))?;
        let version = state.version;
        let candidates = lookup_candidates(&state.coverage, self.table.contract(), &requests, &verdicts);
        self.state = Some(state);
        if let Some(LookupCandidates { files, keys, rows }) = candidates? {
            let stored = self.table.stored(&files, keys).await?;
            for ((request, row), _) in rows.into_iter().zip(stored).filter(|(_, stored)| *stored) {
                verdicts[request][row] = RowVerdict::Duplicate;
            }
        }
        let tenant = self.table.contract().tenant;
        let copying = on_thread(move || select_new(&requests, &verdicts, tenant, version));
        Ok(copying.await.map_err(|cause| failed("dropping duplicates", cause))??)
    }

    /// Follows the changes of the table's files since the index's version.
    async fn catch_up(&self, state: &mut IndexState) -> Result<(), ReadError> {
        let expiry = self.table.expiry();
        if expiry.all != state.expiry.all && state.coverage.covers_expired(&expiry) {
            *state = self.rebuild().await?;
        }
        let (latest, changes) = self.table.changes_since(state.version);
        let Some(changes) = changes else {
            tracing::info!(
                table = self.table.contract().name,
                from = state.version,
                to = latest.version,
                "the dedupe index is too far behind, and is rebuilt"
            );
            *state = self.rebuild().await?;
            return Ok(());
        };
        let added = changes.iter().filter(|change| change.adds_rows()).flat_map(|change| &change.added);
        let others: Vec<_> = added.filter(|file| !state.included.contains(&file.path)).cloned().collect();
        let count = others.len();
        // Add all files first: a later change may rewrite a file that an earlier change has added.
        self.add_files(state, others).await?;
        if count > 0 {
            tracing::debug!(
                table = self.table.contract().name,
                files = count,
                "added files of other writers to the dedupe index"
            );
        }
        let mut has_gone_ids = false;
        for change in changes {
            has_gone_ids |= state.coverage.remove(&change);
        }
        if has_gone_ids {
            tracing::info!(table = self.table.contract().name, "rows were removed, and the dedupe index is rebuilt");
            *state = self.rebuild().await?;
            return Ok(());
        }
        (state.version, state.included) = (latest.version, BTreeSet::new());
        Ok(())
    }

    /// Builds the state from the current files of the table. The window then contains the newest ids.
    async fn rebuild(&self) -> Result<IndexState> {
        match self.build().await {
            // This server knows only an old version.
            Err(ReadError::Missing(_)) => {
                self.table.refresh().await?;
                Ok(self.build().await?)
            }
            built => Ok(built?),
        }
    }

    async fn build(&self) -> Result<IndexState, ReadError> {
        let snapshot = self.table.snapshot();
        let mut state = IndexState {
            window: Window::new(self.ids_max),
            coverage: WindowCoverage::default(),
            version: snapshot.version,
            included: BTreeSet::new(),
            expiry: self.table.expiry(),
        };
        self.add_files(&mut state, snapshot.files().cloned().collect()).await?;
        state.included.clear();
        tracing::debug!(table = self.table.contract().name, ids = state.window.len(), "rebuilt the dedupe window");
        Ok(state)
    }

    /// Adds the ids of files to the window, oldest file first. If not all ids fit, skips the oldest files and records
    /// them as uncovered, so that lookups read them. Does the same with expired files. A file that alone has more ids than fit is not read: a rewritten
    /// file can have any number of rows. After an error, `state` contains the files that were added before
    /// the error occurred.
    async fn add_files(&self, state: &mut IndexState, mut files: Vec<Arc<DataFile>>) -> Result<(), ReadError> {
        let is_kept = |file: &Arc<DataFile>| !state.expiry.includes_day(file.day);
        files.sort_unstable_by_key(|file| (is_kept(file), file.received.map(|(_, latest)| latest), file.modified));
        let mut rows = 0;
        let fit = files.iter().rev().take_while(|file| {
            let wanted = rows < self.ids_max as u64 && file.rows <= self.ids_max as u64 && is_kept(file);
            rows += file.rows;
            wanted
        });
        let newest = files.split_off(files.len() - fit.count());
        state.included.extend(files.iter().map(|file| file.path.clone()));
        state.coverage.add_uncovered(files);
        let reads = futures::stream::iter(newest)
            .map(|file| async move { Ok::<_, ReadError>((self.read(&file).await?, file)) });
        let mut reads = reads.buffered(READS_MAX);
        while let Some((keys, file)) = reads.try_next().await? {
            state.add_to_window(vec![file], keys);
        }
        Ok(())
    }

    /// Reads the event keys of a file.
    async fn read(&self, file: &DataFile) -> Result<Vec<EventKey>, ReadError> {
        let rows = self.table.keys(file).await?;
        let (key_hasher, contract) = (self.key_hasher, self.table.contract().clone());
        let hashing = on_thread(move || keys(key_hasher, &contract, rows));
        Ok(hashing.await.map_err(|cause| failed("reading ids", cause))??)
    }
}

impl IndexState {
    /// Adds files and the event keys of all their rows to the window.
    fn add_to_window(&mut self, files: Vec<Arc<DataFile>>, keys: Vec<EventKey>) {
        self.included.extend(files.iter().map(|file| file.path.clone()));
        self.coverage.add_covered(files, keys.len());
        self.coverage.evict(self.window.extend(keys));
    }
}

/// Rows that are not in the window, and the files outside the window that may contain them.
struct LookupCandidates {
    files: Vec<Arc<DataFile>>,
    keys: EventKeys,
    /// For each key, the index of its request and the index of its row in that request.
    rows: Vec<(usize, usize)>,
}

/// Finds the rows that are not in the window but may be in an uncovered file, and the files that may contain them.
/// Returns `None` in the common case that there are no such rows.
fn lookup_candidates(
    coverage: &WindowCoverage,
    contract: &Contract,
    requests: &[Arc<PreparedRows>],
    verdicts: &[Vec<RowVerdict>],
) -> Result<Option<LookupCandidates>> {
    let (mut days, mut rows, mut batches) = (BTreeSet::new(), Vec::new(), Vec::new());
    let internal = |cause| Error::internal("cannot select the rows to look up in files").with_source(cause);
    for (index, (request, verdicts)) in requests.iter().zip(verdicts).enumerate() {
        let may_be_stored = coverage.may_hold(contract, &request.rows, verdicts, &mut days)?;
        if may_be_stored.contains(&true) {
            rows.extend(
                may_be_stored
                    .iter()
                    .enumerate()
                    .filter(|(_, may_be_stored)| **may_be_stored)
                    .map(|(row, _)| (index, row)),
            );
            batches.push(request.rows.filter(&may_be_stored.into()).map_err(internal)?);
        }
    }
    if batches.is_empty() {
        return Ok(None);
    }
    let candidates = EventBatch::concat(&batches.iter().collect::<Vec<_>>())?;
    let keys = EventKeys::of(contract, &candidates)?;
    Ok(Some(LookupCandidates { files: coverage.uncovered_files(&days), keys, rows }))
}

fn failed(what: &str, cause: Panic) -> Error {
    Error::internal(format!("{what} panicked")).with_source(cause)
}

/// Computes the event keys of rows. The rows need only the tenant and id columns.
fn keys(key_hasher: EventKeyHasher, contract: &Contract, rows: Vec<RecordBatch>) -> Result<Vec<EventKey>> {
    let mut keys = Vec::new();
    for rows in rows {
        let (tenant, id) = (position(&rows, contract, contract.tenant)?, position(&rows, contract, contract.id)?);
        keys.extend(key_hasher.keys(&rows, tenant, id, &[])?);
    }
    Ok(keys)
}

/// Returns the index of a contract column in `rows`. `rows` need not contain the other columns.
fn position(rows: &RecordBatch, contract: &Contract, column: usize) -> Result<usize> {
    let name = &contract.columns[column].name;
    rows.schema()
        .index_of(name)
        .map_err(|cause| Error::internal(format!("the rows have no column `{name}`")).with_source(cause))
}
