//! Commits files and application transactions to a table as one log entry. The entry is written only if its version has
//! no entry yet.
//!
//! ```text
//!   draft (encoded once) ─► put at version + 1 ─► committed ─► publish
//!            ▲                   │
//!            └── follow the log ─┴─ lost to another writer
//! ```
//!
//! A [`Draft`] is a written batch that is not known to be committed. It remembers the version at which its entry may be
//! in the log. Only that version decides whether the batch is committed (see `entry_put.rs`): the files of a committed
//! batch may already have been rewritten.
//!
//! **Invariant:** rows that were deduplicated against a version are committed only if no other writer has added rows
//! since. If two writers both find an event to be new, only one of them stores it. Rewrites add no rows.
//! **Invariant:** a commit that advances a source's progress succeeds only if the table still has the progress that the
//! writer expects. Before each put, the expected progress is compared with the progress at the version before the new
//! entry. If two writers read the same messages of a source, one of them commits the messages and the other is refused.
//! **Invariant:** the files of a draft are deleted only if no version of the log can contain its entry.
//! **Invariant:** an entry is put only while its files are within the commit deadline (`file_ages.rs`).

use std::sync::Arc;

use serde_json::json;

use crate::contract::EVENT_DATE;
use crate::error::{Error, Result};
use crate::lake::log::delta_log::{LogEntry, Txn};
use crate::lake::log::entry_put::{Attempt, EntryPut, Fate};
use crate::lake::log::table_state::{Changes, EntryFiles, TableState, write_add};
use crate::lake::{DataFile, Progress, Snapshot, Table};

/// The maximum number of attempts for one commit. An attempt fails if another writer takes the version, or if the
/// result of the put is in doubt. Within a process, the commits of a table run one after another, so only rewrites and
/// other processes can take the version.
const ATTEMPTS_MAX: usize = 100;

/// The maximum number of in-doubt results during one commit. The limit can be low, because the store's client also
/// retries each request.
const IN_DOUBT_MAX: usize = 3;

/// The result of [`Table::commit_after`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Committed {
    /// The snapshot includes the commit. The version is that of the commit, or a later one.
    At(u64),
    /// Other writers have added rows since the given version. Nothing was committed.
    Behind,
    /// The log entry that would show whether the draft was committed has been removed, and its files may have been
    /// rewritten. The snapshot includes the rows if they were committed. The caller must compare the rows with it
    /// again, and must not delete the files.
    Unknown,
    /// The files of the draft are past the commit deadline. Nothing was committed, and this draft never will be. The
    /// caller must discard the draft and write the rows anew.
    Expired,
    /// The draft was committed, but so late that the store no longer had some of its files. These files have been
    /// removed from the table, and the progress of sources was set back where possible. The caller must store the rows
    /// anew. Rows that are still in the table are duplicates.
    Lost,
}

/// A written batch that is not known to be committed: its files, the progress of sources, and the log entry for both.
#[derive(Debug)]
pub struct Draft {
    files: Vec<Arc<DataFile>>,
    progress: Vec<Progress>,
    put: EntryPut,
}

impl Table {
    /// Makes a draft of files that [`Table::write`] has written, and of the progress of sources.
    pub fn draft(&self, files: Vec<DataFile>, progress: Vec<Progress>) -> Result<Draft> {
        let moves = progress.iter().filter(|progress| progress.moves());
        let entry = LogEntry {
            txns: moves.map(|progress| Txn { app_id: progress.app.clone(), version: progress.next }).collect(),
            adds: files.iter().map(|file| write_add(&self.contract, file)).collect::<Result<_>>()?,
            ..LogEntry::default()
        };
        let parameters = json!({ "mode": "Append", "partitionBy": json!([EVENT_DATE]).to_string() });
        let put = EntryPut::new(entry, "WRITE", parameters, self.now_ms())?;
        Ok(Draft { files: files.into_iter().map(Arc::new).collect(), progress, put })
    }

    /// Commits files and the progress of sources in one log entry, and returns its version. If another writer commits
    /// first, the commit is retried at the next version. It is not retried if the other writer changed the progress of
    /// the same sources, or changed the table's schema in a way that the contract does not allow. If the result of a
    /// put is in doubt, the entry is read back. When this function returns, the table's snapshot includes the files.
    ///
    /// Returns `Conflict` if a source's progress does not have the expected value. After this error, the snapshot
    /// contains the actual value. After `Unavailable`, the commit may have succeeded or may still succeed. A caller
    /// that has to know uses a [`Draft`] with [`Table::commit_after`].
    pub async fn commit(&self, files: Vec<DataFile>, progress: Vec<Progress>) -> Result<u64> {
        let mut draft = self.draft(files, progress)?;
        match append(self, &mut draft, None).await? {
            Committed::At(version) => Ok(version),
            Committed::Behind => Err(Error::internal("an unconditional commit reported newer rows")),
            Committed::Unknown => Err(Error::unavailable(format!(
                "table `{}`: a commit came so late that its outcome is unknown: read the table to find out",
                self.contract.name
            ))),
            Committed::Expired | Committed::Lost => Err(Error::unavailable(format!(
                "table `{}`: a commit came so late that its files may be deleted: write the rows again",
                self.contract.name
            ))),
        }
    }

    /// Commits a draft, unless another writer has added rows since version `seen`, against which the rows of the draft
    /// were deduplicated. Otherwise like [`Table::commit`].
    ///
    /// After an error or [`Committed::Behind`], the caller may commit the same draft again. It is never committed
    /// twice.
    pub async fn commit_after(&self, seen: u64, draft: &mut Draft) -> Result<Committed> {
        append(self, draft, Some(seen)).await
    }

    /// Deletes the files of a draft that will not be committed, on a best-effort basis. Keeps the files if the draft
    /// may be committed.
    pub async fn discard(&self, draft: Draft) {
        if draft.may_be_committed() {
            tracing::debug!(table = %self.contract.name, "kept the files of a commit in doubt");
            return;
        }
        self.delete(&draft.files).await;
    }
}

async fn append(table: &Table, draft: &mut Draft, seen: Option<u64>) -> Result<Committed> {
    let _permit = table.commit_lock.acquire().await.map_err(|_| Error::internal("a table's commit lock was closed"))?;
    if table.gap_check_due() {
        table.refresh().await?;
    }
    let mut in_doubt = Vec::new();
    for _ in 0..ATTEMPTS_MAX {
        let state = table.state();
        match draft.put.fate(&table.log, &state).await? {
            Fate::Committed(version) => return draft.committed(table, version).await,
            Fate::Unknown if draft.is_live_in(&state.snapshot) => return Ok(Committed::At(state.snapshot.version)),
            Fate::Unknown => return Ok(Committed::Unknown),
            Fate::InDoubt if draft.is_past_deadline(table) => {
                match draft.put.block(&table.log, table.now_ms()).await? {
                    Attempt::InDoubt(error) => in_doubt.push(error),
                    _ => drop(table.catch_up().await?),
                }
                if in_doubt.len() >= IN_DOUBT_MAX {
                    break;
                }
                continue;
            }
            Fate::InDoubt => {}
            Fate::NotCommitted if draft.is_past_deadline(table) => return Ok(Committed::Expired),
            Fate::NotCommitted => {
                if !draft.files.is_empty() && seen.is_some_and(|seen| state.last_addition > seen) {
                    return Ok(Committed::Behind);
                }
                draft.check(table, &state.snapshot)?;
            }
        }
        match draft.put.put(&table.log, state.snapshot.version + 1).await? {
            // The put was slow. Before it, other writers may have written a checkpoint of a later version and removed
            // the log entries before it. In that case, no reader reads the new entry. The next iteration looks for the
            // entry in the table that was loaded again.
            Attempt::Committed if table.gap_check_due() => drop(table.reload().await?),
            Attempt::Committed => {
                let version = draft.publish(table, &state)?;
                return draft.committed(table, version).await;
            }
            // Read the newer log entries before the next check: if the commit is refused, the caller reads the source's
            // current progress from the table's snapshot.
            Attempt::Lost => drop(table.follow().await?),
            Attempt::InDoubt(error) => in_doubt.push(error),
        }
        if in_doubt.len() >= IN_DOUBT_MAX {
            break;
        }
    }
    let name = &table.contract.name;
    Err(match in_doubt.pop() {
        Some(error) => Error::unavailable(format!("table `{name}`: a commit may or may not have succeeded: retry"))
            .with_source(error),
        None => {
            Error::unavailable(format!("table `{name}`: a commit lost to other writers {ATTEMPTS_MAX} times: retry"))
        }
    })
}

impl Draft {
    /// Returns the files.
    pub fn files(&self) -> &[Arc<DataFile>] {
        &self.files
    }

    /// Returns true if the draft is committed or may be committed, even if the caller does not try again.
    pub fn may_be_committed(&self) -> bool {
        self.put.is_in_doubt()
    }

    /// Returns true if a log entry may no longer name the files.
    fn is_past_deadline(&self, table: &Table) -> bool {
        table.ages.is_past_deadline(&self.files)
    }

    /// Returns the outcome of a draft that is committed at `version`. If the process slept between the check of the
    /// deadline and the put, the store may no longer have the files, because another tool has deleted them.
    async fn committed(&self, table: &Table, version: u64) -> Result<Committed> {
        match self.is_past_deadline(table) && table.remove_missing(&self.files, &self.progress).await? {
            true => Ok(Committed::Lost),
            false => Ok(Committed::At(version)),
        }
    }

    /// Returns true if the draft has files and all of them are live.
    fn is_live_in(&self, snapshot: &Snapshot) -> bool {
        !self.files.is_empty() && self.files.iter().all(|file| snapshot.contains(file))
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

    /// Publishes the snapshot that includes the commit, which must already be in the log. Returns its version.
    fn publish(&self, table: &Table, before: &TableState) -> Result<u64> {
        let version = before.snapshot.version + 1;
        let mut changes = Changes::at(version);
        let added = self.files.clone();
        changes.push_files(EntryFiles { version, added, changes_data: true, ..EntryFiles::default() });
        for progress in self.progress.iter().filter(|progress| progress.moves()) {
            changes.push_txn(progress.app.clone(), progress.next);
        }
        table.publish(changes.apply(&table.contract, Some(before))?);
        Ok(version)
    }
}

/// Formats a source's progress for an error message.
fn progress_text(version: Option<i64>) -> String {
    version.map_or("at its start".to_owned(), |version| version.to_string())
}
