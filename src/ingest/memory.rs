//! What the dedupe of one table remembers: rebuilt from the lake at the start, and caught up when it has to know more.
//!
//! In: what this server commits, and what it sees others commit. Out: parts without what was stored before.
//!
//! Rows that other servers write are not read back as they come: that would cost every server the work of all. But when a
//! part of a source moves here that another server has read before, all that others have written so far is read first: an
//! event that stands twice in that part, once before and once after the move, is then counted once.
//!
//! **Invariant:** ids enter the window when, and only when, their rows are committed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::record_batch::RecordBatch;

use super::dedupe::{IdHash, Keyer, Part, Sifted, Window, sift};
use crate::contract::Contract;
use crate::error::{Error, Result};
use crate::lake::{DataFile, Progress, Snapshot, Table};

/// The memory of one table.
#[derive(Debug)]
pub(super) struct Memory {
    table: Arc<Table>,
    keyer: Keyer,
    ids_max: usize,
    /// None after a fault in the middle of something: it is rebuilt from the lake.
    known: Option<Known>,
}

/// What is known, and how much of the table that is.
#[derive(Debug)]
struct Known {
    window: Window,
    /// All files of this version are in the window, or were, but for `foreign`.
    seen: Arc<Snapshot>,
    /// Others' files that nobody has read yet, oldest first: no more than the window could hold.
    foreign: Vec<Arc<DataFile>>,
    /// Sources whose rows up to here are in the window, or were.
    sources: BTreeMap<String, i64>,
}

impl Memory {
    /// A memory of the table as it is now.
    pub(super) async fn open(table: Arc<Table>, keyer: Keyer, ids_max: usize) -> Result<Self> {
        let mut memory = Self { table, keyer, ids_max, known: None };
        memory.known = Some(memory.rebuild().await?);
        Ok(memory)
    }

    /// Drops what was stored before. `progress` says which sources the parts come from, and from where on.
    pub(super) async fn sift(&mut self, parts: Vec<Arc<Part>>, progress: &[Progress]) -> Result<Sifted> {
        let mut known = match self.known.take() {
            Some(known) => known,
            None => self.rebuild().await?,
        };
        if progress.iter().any(|progress| known.sources.get(&progress.app).copied() != progress.after) {
            known = self.catch_up(known).await?;
        }
        // On the blocking pool: the window goes there and comes back.
        let sifting = tokio::task::spawn_blocking(move || {
            let sifted = sift(&known.window, &parts);
            (known, sifted)
        });
        let (known, sifted) =
            sifting.await.map_err(|cause| Error::internal("dropping duplicates failed").with_source(cause))?;
        self.known = Some(known);
        sifted
    }

    /// Remembers what was committed just now.
    pub(super) async fn remember(&mut self, ids: Vec<IdHash>, files: &[DataFile], progress: &[Progress]) {
        let Some(mut known) = self.known.take() else { return };
        let (now, ids_max) = (self.table.snapshot(), self.ids_max as u64);
        let own: BTreeSet<Arc<str>> = files.iter().map(|file| file.path.clone()).collect();
        let moved: Vec<_> = progress.iter().map(|progress| (progress.app.clone(), progress.next)).collect();
        // On the blocking pool: a window that grows moves all its ids.
        let remembering = tokio::task::spawn_blocking(move || {
            if now.version > known.seen.version + 1 {
                let others = now.since(&known.seen).into_iter().filter(|file| !own.contains(&file.path));
                known.foreign.extend(others);
                bound(&mut known.foreign, ids_max);
            }
            known.seen = now;
            known.sources.extend(moved);
            known.window.extend(ids);
            known
        });
        self.known = remembering.await.ok();
    }

    /// Reads what others have committed so far.
    async fn catch_up(&self, mut known: Known) -> Result<Known> {
        let now = self.table.snapshot();
        let mut files = std::mem::take(&mut known.foreign);
        files.extend(now.since(&known.seen));
        bound(&mut files, self.ids_max as u64);
        let count = files.len();
        let rows = self.table.keys(files).await?;
        let (keyer, contract) = (self.keyer, self.table.contract().clone());
        let absorbing = tokio::task::spawn_blocking(move || {
            absorb(&mut known.window, keyer, &contract, rows)?;
            Ok(known)
        });
        let known: Result<Known> =
            absorbing.await.map_err(|cause| Error::internal("catching up failed").with_source(cause))?;
        tracing::info!(table = self.name(), files = count, "a source moved here: read the ids that others have stored");
        Ok(Known { seen: now.clone(), sources: now.txns.clone(), ..known? })
    }

    /// The newest ids of the lake. They come newest first and enter oldest first.
    async fn rebuild(&self) -> Result<Known> {
        // Taken before the files are read: what is committed meanwhile counts as unread, and is at worst read twice.
        let seen = self.table.snapshot();
        let mut rows = self.table.recent(self.ids_max).await?;
        rows.reverse();
        let (keyer, contract, ids_max) = (self.keyer, self.table.contract().clone(), self.ids_max);
        let rebuilding = tokio::task::spawn_blocking(move || {
            let mut window = Window::new(ids_max);
            absorb(&mut window, keyer, &contract, rows)?;
            Ok(window)
        });
        let window: Result<Window> =
            rebuilding.await.map_err(|cause| Error::internal("rebuilding the window failed").with_source(cause))?;
        let window = window?;
        tracing::debug!(table = self.name(), ids = window.len(), "rebuilt the dedupe window");
        let sources = seen.txns.clone();
        Ok(Known { window, seen, foreign: Vec::new(), sources })
    }

    fn name(&self) -> &str {
        &self.table.contract().name
    }
}

/// Lets the ids of stored rows into the window, oldest first.
fn absorb(window: &mut Window, keyer: Keyer, contract: &Contract, rows: Vec<RecordBatch>) -> Result<()> {
    for rows in rows {
        let (tenant, id) = (position(&rows, contract, contract.tenant)?, position(&rows, contract, contract.id)?);
        window.extend(keyer.hashes(&rows, tenant, id)?);
    }
    Ok(())
}

/// Leaves the newest files that hold no more than `rows_max` rows, but for the oldest of them.
fn bound(files: &mut Vec<Arc<DataFile>>, rows_max: u64) {
    files.sort_by_key(|file| (file.received.map(|(_, latest)| latest), file.modified));
    let mut rows = 0;
    let kept = files.iter().rev().take_while(|file| {
        let wanted = rows < rows_max;
        rows += file.rows;
        wanted
    });
    let kept = kept.count();
    files.drain(..files.len() - kept);
}

/// Where a column of the contract stands in rows that hold only some columns.
fn position(rows: &RecordBatch, contract: &Contract, column: usize) -> Result<usize> {
    let name = &contract.columns[column].name;
    rows.schema().index_of(name).map_err(|cause| Error::internal(format!("no column `{name}`")).with_source(cause))
}
