//! What of a table the dedupe knows: the newest ids in a window, and for the rest the files to look into.
//!
//! ```text
//!   rows ─► in the window, or earlier in the batch? ─► in a file of its day that the window does not cover? ─► new
//!             ▲                                          ▲
//!             └── ids of this server's commits, and ─────┴── files, once the window has forgotten their first id
//!                 of others', read as they come
//! ```
//!
//! In: parts of a batch. Out: what of them is stored nowhere in the table up to a version, and that version: a commit that
//! follows it has to be refused when others have added rows since, and the parts are brought here again.
//!
//! **Invariant:** each file of the version that was seen is in the window as a whole, or it is looked into.
//! **Invariant:** ids enter the window when, and only when, their rows are committed.

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

/// Files whose ids are read at once.
const READS_MAX: usize = 8;

/// The memory of one table.
#[derive(Debug)]
pub(in crate::ingest) struct DedupeIndex {
    table: Arc<Table>,
    key_hasher: EventKeyHasher,
    ids_max: usize,
    /// None after a fault in the middle of something: it is rebuilt from the lake.
    known: Option<KnownVersion>,
}

/// What is known, and of which version.
#[derive(Debug)]
struct KnownVersion {
    window: Window,
    cover: UncoveredFiles,
    seen: Arc<Snapshot>,
    /// Files behind `seen` that are taken in already: ours, and others' that were read before a fault.
    taken: BTreeSet<Arc<str>>,
}

impl DedupeIndex {
    /// A memory of the table as it is now.
    pub(in crate::ingest) async fn open(table: Arc<Table>, key_hasher: EventKeyHasher, ids_max: usize) -> Result<Self> {
        let mut memory = Self { table, key_hasher, ids_max, known: None };
        memory.known = Some(memory.rebuild().await?);
        Ok(memory)
    }

    /// Drops what is stored already.
    pub(in crate::ingest) async fn compare(&mut self, parts: Vec<Arc<Part>>) -> Result<DedupedBatch> {
        let mut known = match self.known.take() {
            Some(known) => known,
            None => self.rebuild().await?,
        };
        if let Err(error) = self.catch_up(&mut known).await {
            self.known = Some(known);
            return Err(error);
        }
        // On the blocking pool: the window goes there and comes back.
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

    /// Remembers what was committed.
    pub(in crate::ingest) async fn remember(&mut self, marks: Vec<EventKey>, files: Vec<DataFile>) {
        let Some(mut known) = self.known.take() else { return };
        let now = self.table.snapshot();
        // On the blocking pool: a window that grows moves all its ids.
        let remembering = on_thread(move || {
            known.take_in(files.into_iter().map(Arc::new).collect(), marks);
            // Then it is our entry, and there is nothing else to take in. A commit that was in doubt may lie further back.
            if now.version == known.seen.version + 1 {
                known.see(now);
            }
            known
        });
        self.known = remembering
            .await
            .inspect_err(|panic| tracing::error!("the dedupe index panicked and is built anew: {panic}"))
            .ok();
    }

    /// Takes in what others have committed so far.
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
            tracing::debug!(table = self.table.contract().name, files = count, "took in what other writers stored");
        }
        known.see(now);
        Ok(())
    }

    /// The newest ids of the lake.
    async fn rebuild(&self) -> Result<KnownVersion> {
        let seen = self.table.snapshot();
        let (window, files) = (Window::new(self.ids_max), seen.files.to_vec());
        let mut known = KnownVersion { window, cover: UncoveredFiles::default(), seen, taken: BTreeSet::new() };
        self.absorb(&mut known, files).await?;
        known.taken.clear();
        tracing::debug!(table = self.table.contract().name, ids = known.window.len(), "rebuilt the dedupe window");
        Ok(known)
    }

    /// Takes files in, oldest first: into the window only what can stay there. After an error those that were taken in are
    /// noted.
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

    /// The marks of a file.
    async fn read(&self, file: &DataFile) -> Result<Vec<EventKey>> {
        let rows = self.table.keys(file).await?;
        let (key_hasher, contract) = (self.key_hasher, self.table.contract().clone());
        let hashing = on_thread(move || marks(key_hasher, &contract, rows));
        hashing.await.map_err(|cause| failed("reading ids", cause))?
    }
}

impl KnownVersion {
    /// Lets the ids of files into the window.
    fn take_in(&mut self, files: Vec<Arc<DataFile>>, marks: Vec<EventKey>) {
        self.taken.extend(files.iter().map(|file| file.path.clone()));
        self.cover.push(files, marks.len());
        self.cover.forget(self.window.extend(marks));
    }

    /// All of this version is taken in.
    fn see(&mut self, version: Arc<Snapshot>) {
        (self.seen, self.taken) = (version, BTreeSet::new());
    }
}

/// Rows that the window does not know, and files behind it that may hold them.
struct LookupCandidates {
    files: Vec<Arc<DataFile>>,
    keys: EventKeys,
    /// Each one's part and row.
    rows: Vec<(usize, usize)>,
}

/// The kept rows that are as old as files which the window does not cover. None when there are none, as mostly.
fn suspects(
    cover: &UncoveredFiles,
    contract: &Contract,
    parts: &[Arc<Part>],
    verdicts: &[Vec<RowVerdict>],
) -> Result<Option<LookupCandidates>> {
    let (mut days, mut rows, mut batches) = (BTreeSet::new(), Vec::new(), Vec::new());
    let internal = |cause| Error::internal("cannot pick rows to look up").with_source(cause);
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

/// The marks of rows that hold the (tenant, id) columns.
fn marks(key_hasher: EventKeyHasher, contract: &Contract, rows: Vec<RecordBatch>) -> Result<Vec<EventKey>> {
    let mut marks = Vec::new();
    for rows in rows {
        let (tenant, id) = (position(&rows, contract, contract.tenant)?, position(&rows, contract, contract.id)?);
        marks.extend(key_hasher.marks(&rows, tenant, id, &[])?);
    }
    Ok(marks)
}

/// Where a column of the contract stands in rows that hold only some columns.
fn position(rows: &RecordBatch, contract: &Contract, column: usize) -> Result<usize> {
    let name = &contract.columns[column].name;
    rows.schema().index_of(name).map_err(|cause| Error::internal(format!("no column `{name}`")).with_source(cause))
}
