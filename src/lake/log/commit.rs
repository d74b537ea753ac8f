//! One log entry for files and application transactions, put where there is none.
//!
//! ```text
//!   encode once ─► put at version + 1 ─► written ─► publish
//!                    ▲       │ taken or unclear: read that entry back
//!                    │       ├─ ours ─► publish
//!                    │       ├─ none ─► put it again, at the same version
//!                    └───────┴─ another's ─► check it, follow the log
//! ```
//!
//! **Invariant:** an entry is put at a later version only after another's entry was read at the one before: a put that
//! arrives late can then never be a second copy.
//! **Invariant:** rows that were compared with the rows of one version are committed behind it only while nobody else has
//! added any: so two writers never both store what each of them found to be new.
//! **Invariant:** the progress of a source moves only from where its writer believes it to be: that is checked against the
//! very state behind which the entry is put, before each put. Of two writers that read the same part of a source, one
//! commits it and the other is refused, whatever else they share or do not share.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde_json::json;
use uuid::Uuid;

use crate::contract::EVENT_DATE;
use crate::error::{Error, Result};
use crate::lake::log::delta_log::{LogEntry, PutOutcome, Txn};
use crate::lake::log::state::{Changes, State, write_add};
use crate::lake::{DataFile, Progress, Snapshot, Table};

/// Attempts of one commit, each lost to another writer or unclear. One handle commits once at a time, so that only other
/// processes can win.
const ATTEMPTS_MAX: usize = 100;

/// Unclear answers during one commit. Each stands for all the retries of the store's client.
const UNCLEAR_MAX: usize = 3;

/// How a commit ended that was to follow what its writer had seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    /// It is in this version.
    At(u64),
    /// Other writers have added rows since: nothing was committed, and these files never will be by themselves.
    Behind,
}

/// What is to be committed.
struct CommitRequest {
    operation: Uuid,
    files: Vec<DataFile>,
    progress: Vec<Progress>,
    /// The version behind which nobody else may have added rows.
    seen: Option<u64>,
    text: Bytes,
}

/// Commits files and progress. See [`Table::commit`] and [`Table::commit_after`].
pub(in crate::lake) async fn append(
    table: &Table,
    files: Vec<DataFile>,
    progress: Vec<Progress>,
    seen: Option<u64>,
) -> Result<Committed> {
    let append = CommitRequest { seen, ..CommitRequest::new(table, files, progress)? };
    let _turn = table.turn.acquire().await.map_err(|_| Error::internal("a table's turn was closed"))?;
    if table.gap_check_due() {
        table.refresh().await?;
    }
    let mut state = table.state();
    let mut unclear = Vec::new();
    for _ in 0..ATTEMPTS_MAX {
        if let Some(version) = append.done(&state.snapshot) {
            return Ok(Committed::At(version));
        }
        // An entry at the version where ours was tried is another's: ours cannot arrive any more.
        if !append.files.is_empty() && append.seen.is_some_and(|seen| state.grown > seen) {
            return Ok(Committed::Behind);
        }
        append.check(table, &state.snapshot)?;
        let version = state.snapshot.version + 1;
        let answer = match table.log.create(version, append.text.clone()).await? {
            PutOutcome::Written => return append.finish(table, &state, version).await,
            PutOutcome::Taken => None,
            PutOutcome::Unclear(error) => Some(error),
        };
        match table.log.read(version).await {
            Ok(Some(entry)) if entry.operation == Some(append.operation.to_string()) => {
                return append.finish(table, &state, version).await;
            }
            Ok(Some(winner)) => {
                // Followed first: after a refusal, the table's snapshot says where to go on.
                state = table.follow().await?;
                append.check_winner(table, &winner)?;
            }
            Ok(None) => unclear.extend(answer),
            Err(error) => unclear.push(error),
        }
        if unclear.len() >= UNCLEAR_MAX {
            break;
        }
    }
    let fault = Error::unavailable(format!("table `{}`: it is unclear whether a commit happened", table.contract.name));
    Err(match unclear.pop() {
        Some(error) => fault.with_source(error),
        None => Error::unavailable(format!("table `{}`: other writers were faster each time", table.contract.name)),
    })
}

impl CommitRequest {
    fn new(table: &Table, files: Vec<DataFile>, progress: Vec<Progress>) -> Result<Self> {
        let operation = Uuid::now_v7();
        let moves = progress.iter().filter(|progress| progress.moves());
        let entry = LogEntry {
            txns: moves.map(|progress| Txn { app_id: progress.app.clone(), version: progress.next }).collect(),
            adds: files.iter().map(|file| write_add(&table.contract, file)).collect::<Result<_>>()?,
            ..LogEntry::default()
        };
        let parameters = json!({ "mode": "Append", "partitionBy": json!([EVENT_DATE]).to_string() });
        let text = entry.encode(operation, "WRITE", parameters, table.now_ms())?;
        Ok(Self { operation, files, progress, seen: None, text })
    }

    /// The version that holds all of it already: an earlier commit of it had an unclear end. Files have names of their
    /// own; without files, the progress alone has to be where it should go, whoever brought it there.
    fn done(&self, snapshot: &Snapshot) -> Option<u64> {
        let there = |progress: &Progress| snapshot.txns.get(&progress.app) == Some(&progress.next);
        let done = match self.files.is_empty() {
            false => self.files.iter().all(|file| snapshot.holds(file)),
            true => self.progress.iter().any(Progress::moves) && self.progress.iter().all(there),
        };
        done.then_some(snapshot.version)
    }

    /// Refuses to go on from where the table is not: another writer has taken the source over.
    fn check(&self, table: &Table, snapshot: &Snapshot) -> Result<()> {
        match self.progress.iter().find(|progress| !progress.fits(snapshot)) {
            Some(Progress { app, after, .. }) => Err(Error::conflict(format!(
                "table `{}`: `{app}` should be at {}, but the table holds {}: another writer went on with it, continue \
                 from there",
                table.contract.name,
                place(*after),
                place(snapshot.txns.get(app).copied()),
            ))),
            None => Ok(()),
        }
    }

    /// Refuses to commit behind an entry that removes a file of ours: it was committed, and replaced since. The winner's
    /// schema and protocol are checked when the log is followed, its progress before the next put.
    fn check_winner(&self, table: &Table, winner: &LogEntry) -> Result<()> {
        if winner.adds.iter().any(|add| self.files.iter().any(|file| *file.path == add.path)) {
            return Ok(());
        }
        let ours: BTreeSet<&str> = self.files.iter().map(|file| &*file.path).collect();
        match winner.removes.iter().find(|remove| ours.contains(&*remove.path)) {
            Some(remove) => Err(Error::conflict(format!(
                "table `{}`: `{}` was committed and replaced already",
                table.contract.name, remove.path
            ))),
            None => Ok(()),
        }
    }

    /// Publishes the snapshot that holds our entry, which is in the log.
    async fn finish(&self, table: &Table, before: &State, version: u64) -> Result<Committed> {
        if table.gap_check_due() {
            return self.confirm(table).await;
        }
        let mut changes = Changes::at(version);
        for file in &self.files {
            changes.push_file(file.clone());
        }
        for progress in self.progress.iter().filter(|progress| progress.moves()) {
            changes.push_txn(progress.app.clone(), progress.next);
        }
        table.publish(changes.apply(&table.contract, Some(before))?);
        Ok(Committed::At(version))
    }

    /// Our put took so long that its version may have been checkpointed and cleaned up before: then nobody reads our
    /// entry. What a reader sees decides.
    async fn confirm(&self, table: &Table) -> Result<Committed> {
        let snapshot = table.reload().await?.snapshot;
        if let Some(version) = self.done(&snapshot) {
            return Ok(Committed::At(version));
        }
        Err(Error::unavailable(format!(
            "table `{}`: the commit came too late and does not count, retry the same files",
            table.contract.name
        )))
    }
}

/// A place in a source, in words.
fn place(version: Option<i64>) -> String {
    version.map_or("its start".to_owned(), |version| version.to_string())
}
