//! The dedupe index of one table: a window of the newest ids, and the files in which older ids are looked up.
//!
//! ```text
//!   rows ─► in the window, or earlier in the batch? ─► in a file of its day that the window does not cover? ─► new
//!             ▲                                          ▲
//!             └── ids of this server's commits and ──────┴── files, once the window has evicted one of their ids
//!                 of other servers' commits
//! ```
//!
//! In: parts of a batch. Out: their rows that the table does not hold as of a version, and that version. If others have added
//! rows after that version, the commit must be refused and the parts must be compared again.
//!
//! **Invariant:** the window holds all ids of a file of the version that was seen, or lookups read that file.
//! **Invariant:** ids enter the window if and only if their rows are committed.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use futures::{StreamExt as _, TryStreamExt as _};

use super::uncovered_files::UncoveredFiles;
use super::window::{DedupedBatch, EventKey, EventKeyHasher, Part, RowVerdict, Window, compare, remaining};
use crate::contract::{Contract, EventBatch};
use crate::error::{Error, Result};
use crate::lake::{DataFile, EventKeys, Snapshot, Table};
use crate::supervise::{Panic, on_thread};

/// The number of files whose ids are read concurrently.
const READS_MAX: usize = 8;

/// Knows which events one table holds.
#[derive(Debug)]
pub(in crate::ingest) struct DedupeIndex {
    table: Arc<Table>,
    key_hasher: EventKeyHasher,
    ids_max: usize,
    /// `None` after an operation failed midway: then it is rebuilt from the lake.
    known: Option<KnownVersion>,
}

/// The known ids and files, and the table version that they reflect.
#[derive(Debug)]
struct KnownVersion {
    window: Window,
    cover: UncoveredFiles,
    seen: Arc<Snapshot>,
    /// Files newer than `seen` that are already included: this server's own, and others' that were read before an error.
    taken: BTreeSet<Arc<str>>,
}

impl DedupeIndex {
    /// Builds the index of the current version of the table.
    pub(in crate::ingest) async fn open(table: Arc<Table>, key_hasher: EventKeyHasher, ids_max: usize) -> Result<Self> {
        let mut memory = Self { table, key_hasher, ids_max, known: None };
        memory.known = Some(memory.rebuild().await?);
        Ok(memory)
    }

    /// Removes the rows that the table already holds.
    pub(in crate::ingest) async fn compare(&mut self, parts: Vec<Arc<Part>>) -> Result<DedupedBatch> {
        let mut known = match self.known.take() {
            Some(known) => known,
            None => self.rebuild().await?,
        };
        if let Err(error) = self.catch_up(&mut known).await {
            self.known = Some(known);
            return Err(error);
        }
        // On the blocking pool: the window is moved there and back.
        let sent = parts.clone();
        let comparing = on_thread(move || {
            let verdicts = compare(&known.window, &sent);
            (known, verdicts)
        });
        let (known, mut verdicts) = comparing.await.map_err(|cause| failed("dropping duplicates", cause))?;
        let seen = known.seen.version;
        let suspects = suspects(&known.cover, self.table.contract(), &parts, &verdicts);
        self.known = Some(known);
        if let Some(LookupCandidates { files, keys, rows }) = suspects? {
            let stored = self.table.stored(&files, keys).await?;
            for ((part, row), _) in rows.into_iter().zip(stored).filter(|(_, stored)| *stored) {
                verdicts[part][row] = RowVerdict::Again;
            }
        }
        let tenant = self.table.contract().tenant;
        let copying = on_thread(move || remaining(&parts, &verdicts, tenant, seen));
        copying.await.map_err(|cause| failed("dropping duplicates", cause))?
    }

    /// Adds committed rows to the index.
    pub(in crate::ingest) async fn remember(&mut self, marks: Vec<EventKey>, files: Vec<DataFile>) {
        let Some(mut known) = self.known.take() else { return };
        let now = self.table.snapshot();
        // On the blocking pool: a window that grows moves all its ids.
        let remembering = on_thread(move || {
            known.take_in(files.into_iter().map(Arc::new).collect(), marks);
            // Then the new version is our own commit, with nothing else to include. A commit in doubt may be an older version.
            if now.version == known.seen.version + 1 {
                known.see(now);
            }
            known
        });
        self.known = remembering
            .await
            .inspect_err(|panic| tracing::error!("the dedupe index panicked and will be rebuilt: {panic}"))
            .ok();
    }

    /// Adds the rows that other servers have committed since `seen`.
    async fn catch_up(&self, known: &mut KnownVersion) -> Result<()> {
        let now = self.table.snapshot();
        if now.version == known.seen.version {
            return Ok(());
        }
        let added = now.since(&known.seen);
        if now.files.len() < known.seen.files.len() + added.len() {
            known.cover.retain_live(&now);
        }
        let others: Vec<_> = added.into_iter().filter(|file| !known.taken.contains(&file.path)).collect();
        let count = others.len();
        self.absorb(known, others).await?;
        if count > 0 {
            tracing::debug!(
                table = self.table.contract().name,
                files = count,
                "added files of other writers to the dedupe index"
            );
        }
        known.see(now);
        Ok(())
    }

    /// Rebuilds the index from the newest ids in the lake.
    async fn rebuild(&self) -> Result<KnownVersion> {
        let seen = self.table.snapshot();
        let (window, files) = (Window::new(self.ids_max), seen.files.to_vec());
        let mut known = KnownVersion { window, cover: UncoveredFiles::default(), seen, taken: BTreeSet::new() };
        self.absorb(&mut known, files).await?;
        known.taken.clear();
        tracing::debug!(table = self.table.contract().name, ids = known.window.len(), "rebuilt the dedupe window");
        Ok(known)
    }

    /// Adds files, oldest first. Only the newest files that fit enter the window. After an error `known` records the files that
    /// were added.
    async fn absorb(&self, known: &mut KnownVersion, mut files: Vec<Arc<DataFile>>) -> Result<()> {
        files.sort_unstable_by_key(|file| (file.received.map(|(_, latest)| latest), file.modified));
        let mut rows = 0;
        let fit = files.iter().rev().take_while(|file| {
            let wanted = rows < self.ids_max as u64;
            rows += file.rows;
            wanted
        });
        let newest = files.split_off(files.len() - fit.count());
        known.taken.extend(files.iter().map(|file| file.path.clone()));
        known.cover.leave(files);
        let reads =
            futures::stream::iter(newest).map(|file| async move { Ok::<_, Error>((self.read(&file).await?, file)) });
        let mut reads = reads.buffered(READS_MAX);
        while let Some((marks, file)) = reads.try_next().await? {
            known.take_in(vec![file], marks);
        }
        Ok(())
    }

    /// Reads the event keys of a file.
    async fn read(&self, file: &DataFile) -> Result<Vec<EventKey>> {
        let rows = self.table.keys(file).await?;
        let (key_hasher, contract) = (self.key_hasher, self.table.contract().clone());
        let hashing = on_thread(move || marks(key_hasher, &contract, rows));
        hashing.await.map_err(|cause| failed("reading ids", cause))?
    }
}

impl KnownVersion {
    /// Adds the ids of files to the window.
    fn take_in(&mut self, files: Vec<Arc<DataFile>>, marks: Vec<EventKey>) {
        self.taken.extend(files.iter().map(|file| file.path.clone()));
        self.cover.push(files, marks.len());
        self.cover.forget(self.window.extend(marks));
    }

    /// Records that all files of this version are included.
    fn see(&mut self, version: Arc<Snapshot>) {
        (self.seen, self.taken) = (version, BTreeSet::new());
    }
}

/// Rows that are not in the window, and the uncovered files that may hold them.
struct LookupCandidates {
    files: Vec<Arc<DataFile>>,
    keys: EventKeys,
    /// The part and the row in it, of each key.
    rows: Vec<(usize, usize)>,
}

/// The new rows that are as old as some uncovered file, and those files. `None` in the common case.
fn suspects(
    cover: &UncoveredFiles,
    contract: &Contract,
    parts: &[Arc<Part>],
    verdicts: &[Vec<RowVerdict>],
) -> Result<Option<LookupCandidates>> {
    let (mut days, mut rows, mut batches) = (BTreeSet::new(), Vec::new(), Vec::new());
    let internal = |cause| Error::internal("cannot select rows to look up").with_source(cause);
    for (index, (part, verdicts)) in parts.iter().zip(verdicts).enumerate() {
        let old = cover.old(contract, &part.rows, verdicts, &mut days)?;
        if old.contains(&true) {
            rows.extend(old.iter().enumerate().filter(|(_, old)| **old).map(|(row, _)| (index, row)));
            batches.push(part.rows.filter(&old.into()).map_err(internal)?);
        }
    }
    if batches.is_empty() {
        return Ok(None);
    }
    let old = EventBatch::concat(&batches.iter().collect::<Vec<_>>())?;
    let keys = EventKeys::of(contract, &old)?;
    Ok(Some(LookupCandidates { files: cover.files(&days), keys, rows }))
}

fn failed(what: &str, cause: Panic) -> Error {
    Error::internal(format!("{what} panicked")).with_source(cause)
}

/// The event keys of rows that contain the tenant and id columns.
fn marks(key_hasher: EventKeyHasher, contract: &Contract, rows: Vec<RecordBatch>) -> Result<Vec<EventKey>> {
    let mut marks = Vec::new();
    for rows in rows {
        let (tenant, id) = (position(&rows, contract, contract.tenant)?, position(&rows, contract, contract.id)?);
        marks.extend(key_hasher.marks(&rows, tenant, id, &[])?);
    }
    Ok(marks)
}

/// The index of a contract's column in rows that contain only some columns.
fn position(rows: &RecordBatch, contract: &Contract, column: usize) -> Result<usize> {
    let name = &contract.columns[column].name;
    rows.schema().index_of(name).map_err(|cause| Error::internal(format!("no column `{name}`")).with_source(cause))
}
