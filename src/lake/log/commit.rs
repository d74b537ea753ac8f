//! Commits: one log entry with files and application transactions, put if absent.
//!
//! ```text
//!   encode once ─► put at version + 1 ─► written ─► publish
//!                    ▲       │ taken or in doubt: read that entry back
//!                    │       ├─ ours ─► publish
//!                    │       ├─ none ─► put it again, at the same version
//!                    └───────┴─ another writer's ─► check it, follow the log
//! ```
//!
//! **Invariant:** an entry is put at a later version only after another writer's entry was read at the previous one. A
//! delayed put can therefore never become a second copy.
//! **Invariant:** rows that were deduplicated against a version are committed only if no other writer has added rows
//! since. Two writers therefore never both store an event that each found to be new.
//! **Invariant:** the progress of a source moves only from the value that its writer expects, which is checked before
//! each put against the state that the entry follows. Of two writers that read the same part of a source, one commits
//! it and the other is refused.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde_json::json;
use uuid::Uuid;

use crate::contract::EVENT_DATE;
use crate::error::{Error, Result};
use crate::lake::log::delta_log::{LogEntry, PutOutcome, Txn};
use crate::lake::log::state::{Changes, State, write_add};
use crate::lake::{DataFile, Progress, Snapshot, Table};

/// The maximum number of attempts of one commit; each failed one lost to another writer or is in doubt. One handle
/// makes one commit at a time, so that only other processes compete.
const ATTEMPTS_MAX: usize = 100;

/// The maximum number of in-doubt results during one commit. The store's client has already retried each of them.
const IN_DOUBT_MAX: usize = 3;

/// The result of a commit that requires that no rows were added since a version.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    /// The commit is in this version.
    At(u64),
    /// Other writers have added rows since. Nothing was committed, and the files remain uncommitted.
    Behind,
}

/// The content of a commit.
struct CommitRequest {
    operation: Uuid,
    files: Vec<DataFile>,
    progress: Vec<Progress>,
    /// The version after which no other writer may have added rows.
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
    let _permit = table.commit_lock.acquire().await.map_err(|_| Error::internal("a table's commit lock was closed"))?;
    if table.gap_check_due() {
        table.refresh().await?;
    }
    let mut state = table.state();
    let mut doubts = Vec::new();
    for _ in 0..ATTEMPTS_MAX {
        if let Some(version) = append.done(&state.snapshot) {
            return Ok(Committed::At(version));
        }
        // Another writer's entry is at the version where ours was tried, so that ours cannot arrive any more.
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
                // Follow the log first: after a refusal, the table's snapshot shows where to continue.
                state = table.follow().await?;
                append.check_winner(table, &winner)?;
            }
            Ok(None) => doubts.extend(answer),
            Err(error) => doubts.push(error),
        }
        if doubts.len() >= IN_DOUBT_MAX {
            break;
        }
    }
    let fault = Error::unavailable(format!(
        "table `{}`: it is in doubt whether a commit succeeded: retry with the same files",
        table.contract.name
    ));
    Err(match doubts.pop() {
        Some(error) => fault.with_source(error),
        None => Error::unavailable(format!(
            "table `{}`: a commit lost to other writers {ATTEMPTS_MAX} times: retry with the same files",
            table.contract.name
        )),
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

    /// The version that already contains this commit, if an earlier attempt of it was in doubt. File names are unique.
    /// Without files, it is enough that the progress has the wanted values, even if another writer set them.
    fn done(&self, snapshot: &Snapshot) -> Option<u64> {
        let there = |progress: &Progress| snapshot.txns.get(&progress.app) == Some(&progress.next);
        let done = match self.files.is_empty() {
            false => self.files.iter().all(|file| snapshot.holds(file)),
            true => self.progress.iter().any(Progress::moves) && self.progress.iter().all(there),
        };
        done.then_some(snapshot.version)
    }

    /// Checks that each source's progress has the expected value. If not, another writer has taken over the source.
    fn check(&self, table: &Table, snapshot: &Snapshot) -> Result<()> {
        match self.progress.iter().find(|progress| !progress.fits(snapshot)) {
            Some(Progress { app, after, .. }) => Err(Error::conflict(format!(
                "table `{}`: the progress of `{app}` is expected to be {}, but is {}: another writer has continued \
                 with this source, continue from there",
                table.contract.name,
                progress_text(*after),
                progress_text(snapshot.txns.get(app).copied()),
            ))),
            None => Ok(()),
        }
    }

    /// Refuses to commit after an entry that removes one of our files: that file was committed and has been replaced.
    /// Schema and protocol are checked when the log is followed, progress before the next put.
    fn check_winner(&self, table: &Table, winner: &LogEntry) -> Result<()> {
        if winner.adds.iter().any(|add| self.files.iter().any(|file| *file.path == add.path)) {
            return Ok(());
        }
        let ours: BTreeSet<&str> = self.files.iter().map(|file| &*file.path).collect();
        match winner.removes.iter().find(|remove| ours.contains(&*remove.path)) {
            Some(remove) => Err(Error::conflict(format!(
                "table `{}`: file `{}` was already committed and has been replaced",
                table.contract.name, remove.path
            ))),
            None => Ok(()),
        }
    }

    /// Publishes the snapshot with our entry, which is in the log.
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

    /// Confirms a slow commit by loading the table. Its version may have been checkpointed and cleaned up before the
    /// put, and then no reader sees the entry.
    async fn confirm(&self, table: &Table) -> Result<Committed> {
        let snapshot = table.reload().await?.snapshot;
        if let Some(version) = self.done(&snapshot) {
            return Ok(Committed::At(version));
        }
        Err(Error::unavailable(format!(
            "table `{}`: the commit came too late and has no effect: retry with the same files",
            table.contract.name
        )))
    }
}

/// The progress of a source as text.
fn progress_text(version: Option<i64>) -> String {
    version.map_or("at its start".to_owned(), |version| version.to_string())
}
