//! Commits files and application transactions to a table as one log entry. The entry is written only if its version has
//! no entry yet.
//!
//! ```text
//!   encode once ─► put at version + 1 ─► written ─► publish
//!                    ▲       │ taken or in doubt: read that entry back
//!                    │       ├─ ours ─► publish
//!                    │       ├─ missing ─► put it again at the same version
//!                    └───────┴─ another writer's ─► check it, follow the log
//! ```
//!
//! **Invariant:** a commit is retried at a later version only after another writer's entry has been read at the version
//! of the previous attempt. A delayed put can therefore never store the files of the commit twice.
//! **Invariant:** rows that were deduplicated against a version are committed only if no other writer has added rows
//! since. If two writers both find an event to be new, only one of them stores it.
//! **Invariant:** a commit that advances a source's progress succeeds only if the table still has the progress that the
//! writer expects. Before each put, the expected progress is compared with the progress at the version before the new
//! entry. If two writers read the same messages of a source, one of them commits the messages and the other is refused.

use std::collections::BTreeSet;

use bytes::Bytes;
use serde_json::json;
use uuid::Uuid;

use crate::contract::EVENT_DATE;
use crate::error::{Error, Result};
use crate::lake::log::delta_log::{LogEntry, PutOutcome, Txn};
use crate::lake::log::table_state::{Changes, TableState, write_add};
use crate::lake::{DataFile, Progress, Snapshot, Table};

/// The maximum number of attempts for one commit. An attempt fails if another writer takes the version, or if the
/// result of the put is in doubt. Within a process, the commits to a table run one after another, so only other
/// processes can take the version.
const ATTEMPTS_MAX: usize = 100;

/// The maximum number of in-doubt results during one commit. The limit can be low, because the store's client also
/// retries each request.
const IN_DOUBT_MAX: usize = 3;

/// The result of [`Table::commit_after`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    /// The snapshot of this version includes the commit.
    At(u64),
    /// Other writers have added rows since the given version. Nothing was committed.
    Behind,
}

/// A commit, encoded as a log entry.
struct CommitRequest {
    /// The unique id by which the writer recognizes its own log entry.
    operation: Uuid,
    files: Vec<DataFile>,
    progress: Vec<Progress>,
    /// If another writer has added rows after this version, the commit fails. `None` if such rows do not matter.
    seen: Option<u64>,
    /// The encoded log entry.
    bytes: Bytes,
}

impl Table {
    /// Commits files and the progress of sources in one log entry, and returns its version. If another writer commits
    /// first, the commit is retried at the next version. It is not retried if the other writer changed the progress of
    /// the same sources, or changed the table's schema in a way that the contract does not allow. If the result of a
    /// put is in doubt, the entry is read back. When this function returns, the table's snapshot includes the files.
    ///
    /// Returns `Conflict` if a source's progress does not have the expected value. After this error, the snapshot
    /// contains the actual value. After `Unavailable`, the commit may have succeeded. The caller can safely commit the
    /// same files and progress again. If a version already includes them, the retry returns that version.
    pub async fn commit(&self, files: Vec<DataFile>, progress: Vec<Progress>) -> Result<u64> {
        match append(self, files, progress, None).await? {
            Committed::At(version) => Ok(version),
            Committed::Behind => Err(Error::internal("an unconditional commit reported newer rows")),
        }
    }

    /// Like [`Table::commit`], but commits only if no other writer has added rows since version `seen`, against which
    /// the rows were deduplicated.
    pub async fn commit_after(&self, seen: u64, files: Vec<DataFile>, progress: Vec<Progress>) -> Result<Committed> {
        append(self, files, progress, Some(seen)).await
    }
}

async fn append(table: &Table, files: Vec<DataFile>, progress: Vec<Progress>, seen: Option<u64>) -> Result<Committed> {
    let request = CommitRequest { seen, ..CommitRequest::new(table, files, progress)? };
    let _permit = table.commit_lock.acquire().await.map_err(|_| Error::internal("a table's commit lock was closed"))?;
    if table.gap_check_due() {
        table.refresh().await?;
    }
    let mut state = table.state();
    let mut in_doubt = Vec::new();
    for _ in 0..ATTEMPTS_MAX {
        if let Some(version) = request.done(&state.snapshot) {
            return Ok(Committed::At(version));
        }
        // After a failed attempt, another writer's entry occupies the attempted version, so the earlier put can no
        // longer succeed.
        if !request.files.is_empty() && request.seen.is_some_and(|seen| state.last_addition > seen) {
            return Ok(Committed::Behind);
        }
        request.check(table, &state.snapshot)?;
        let version = state.snapshot.version + 1;
        let error = match table.log.create(version, request.bytes.clone()).await? {
            PutOutcome::Written => return request.finish(table, &state, version).await,
            PutOutcome::Taken => None,
            PutOutcome::InDoubt(error) => Some(error),
        };
        match table.log.read(version).await {
            Ok(Some(entry)) if entry.operation == Some(request.operation.to_string()) => {
                return request.finish(table, &state, version).await;
            }
            Ok(Some(winner)) => {
                // Read the newer log entries before the check: if the commit is refused, the caller reads the source's
                // current progress from the table's snapshot.
                state = table.follow().await?;
                request.check_winner(table, &winner)?;
            }
            Ok(None) => in_doubt.extend(error),
            Err(error) => in_doubt.push(error),
        }
        if in_doubt.len() >= IN_DOUBT_MAX {
            break;
        }
    }
    Err(match in_doubt.pop() {
        Some(error) => Error::unavailable(format!(
            "table `{}`: a commit may or may not have succeeded: retry with the same files",
            table.contract.name
        ))
        .with_source(error),
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
        let bytes = entry.encode(operation, "WRITE", parameters, table.now_ms())?;
        Ok(Self { operation, files, progress, seen: None, bytes })
    }

    /// Returns the snapshot's version if the snapshot already contains this commit, for example from an earlier attempt
    /// whose result was in doubt. Files are recognized by their unique names. A commit without files is considered done
    /// if the progress has the new values, even if another writer set them.
    fn done(&self, snapshot: &Snapshot) -> Option<u64> {
        let is_set = |progress: &Progress| snapshot.txns.get(&progress.app) == Some(&progress.next);
        let is_done = match self.files.is_empty() {
            false => self.files.iter().all(|file| snapshot.contains(file)),
            true => self.progress.iter().any(Progress::moves) && self.progress.iter().all(is_set),
        };
        is_done.then_some(snapshot.version)
    }

    /// Checks that each source's progress has the expected value. If it has a different value, another writer has taken
    /// over the source.
    fn check(&self, table: &Table, snapshot: &Snapshot) -> Result<()> {
        match self.progress.iter().find(|progress| !progress.fits(snapshot)) {
            Some(Progress { app, after, .. }) => Err(Error::conflict(format!(
                "table `{}`: expected the progress of `{app}` to be {}, but it is {}: another writer has taken over this \
                 source; resume from the stored progress",
                table.contract.name,
                progress_text(*after),
                progress_text(snapshot.txns.get(app).copied()),
            ))),
            None => Ok(()),
        }
    }

    /// Fails if `winner` removes one of the commit's files: the file was already committed, and another file has
    /// replaced it. This function does not check the schema, the protocol or the progress. The schema and the protocol
    /// are checked when newer log entries are read, and the progress is checked before the next put.
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

    /// Publishes the snapshot that includes the commit, which must already be in the log.
    async fn finish(&self, table: &Table, before: &TableState, version: u64) -> Result<Committed> {
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

    /// Checks that a slow commit took effect, by loading the table again. Before the put, other writers may have
    /// written a checkpoint of a later version and removed the log entries before it. In that case, no reader reads the
    /// new entry.
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

/// Formats a source's progress for an error message.
fn progress_text(version: Option<i64>) -> String {
    version.map_or("at its start".to_owned(), |version| version.to_string())
}
