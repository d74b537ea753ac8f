//! Removes files from a table, in one log entry. Compaction replaces files by files with the same rows. Retention removes
//! files, or replaces them by files without the expired rows.
//!
//! ```text
//!   all files live at version v? ─ no ─► void
//!     │ yes           ▲
//!     ▼               │ follow the log
//!   put at v + 1 ─────┴─ lost to another writer
//! ```
//!
//! The entry has no application transaction. The actions of a rewrite say that no data has changed, so streaming readers
//! skip the entry. The actions of a deletion say that data has changed, and the entry is a `DELETE` with a predicate.
//! Neither adds rows, so writers that append rows at the same time need not compare their rows again.
//!
//! **Invariant:** of two entries that replace the same file, only one is committed, because an entry is put only at the
//! version after a state in which all the files that it removes are live.
//! **Invariant:** the rows of a table before and after a rewrite are the same, and a deletion removes exactly the number
//! of rows that the caller states. The numbers of rows are compared here. The caller is responsible for their content.

use std::collections::HashSet;
use std::sync::Arc;

use serde_json::json;

use crate::error::{Error, Result};
use crate::lake::log::delta_log::{Add, DELETE, LogEntry, Remove};
use crate::lake::log::entry_put::{Attempt, EntryPut, Fate};
use crate::lake::log::table_state::{Changes, EntryFiles, TableState, write_add, write_remove};
use crate::lake::{DataFile, Table};

/// The maximum number of attempts. An attempt fails if another writer commits first, or if its result is in doubt.
const ATTEMPTS_MAX: usize = 100;
/// The number of lost races after which an attempt blocks the commits of this process. Otherwise, a rewrite whose put
/// takes as long as the commit interval would never succeed.
const RACES_WITHOUT_LOCK_MAX: usize = 8;
/// The maximum number of in-doubt results.
const IN_DOUBT_MAX: usize = 3;

/// The result of [`Table::replace`] and [`Table::delete_rows`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Replaced {
    /// The snapshot of this version has the new files, if there are any, instead of the old ones.
    At(u64),
    /// Another writer has removed one of the old files, or the new files are past the commit deadline, so nothing was
    /// replaced. The new files are deleted from the store, unless it is unknown whether they became part of the table.
    Void,
}

/// The rows that an entry deletes.
#[derive(Debug, Clone, Copy)]
struct DeletedRows<'a> {
    count: u64,
    predicate: &'a str,
}

/// A replacement that is being committed.
struct Replacement<'a> {
    from: &'a [Arc<DataFile>],
    is_delete: bool,
    to: Vec<Arc<DataFile>>,
    put: EntryPut,
}

impl Table {
    /// Replaces the files `from` by the files `to`, which must contain the same rows and must have been written with
    /// this handle. Tries again if other writers commit first. The removed files stay in the store, where running
    /// queries still read them. The new files get the latest `modified` time of the old ones, because their rows are
    /// not newer.
    ///
    /// Returns `Internal` if the numbers of rows differ or a file appears twice in `from`, and `Unsupported` if a file
    /// of another writer has a name that cannot be written to the log safely. Nothing was replaced in both cases. After
    /// `Unavailable`, the files may have been replaced or may still be replaced later, so the caller must not delete
    /// any of them.
    pub async fn replace(&self, from: &[Arc<DataFile>], to: Vec<DataFile>) -> Result<Replaced> {
        self.run_replacement(Replacement::new(self, from, to, None)?).await
    }

    /// Removes the files `from` and adds the files `to`, which must contain the same rows except `count` of them. If the
    /// entry deletes all rows, `to` is empty. `predicate` describes the deleted rows to people who read the log, as an
    /// SQL condition. Otherwise like [`Table::replace`].
    pub async fn delete_rows(
        &self,
        from: &[Arc<DataFile>],
        to: Vec<DataFile>,
        count: u64,
        predicate: &str,
    ) -> Result<Replaced> {
        self.run_replacement(Replacement::new(self, from, to, Some(DeletedRows { count, predicate }))?).await
    }

    async fn run_replacement(&self, mut replacement: Replacement<'_>) -> Result<Replaced> {
        let outcome = replacement.commit(self).await?;
        if outcome == Replaced::Void && !replacement.put.is_in_doubt() {
            self.delete(&replacement.to).await;
        }
        Ok(outcome)
    }
}

impl<'a> Replacement<'a> {
    fn new(
        table: &Table,
        from: &'a [Arc<DataFile>],
        mut to: Vec<DataFile>,
        deleted: Option<DeletedRows<'_>>,
    ) -> Result<Self> {
        let (contract, now_ms) = (&table.contract, table.now_ms());
        let paths: HashSet<&str> = from.iter().map(|file| &*file.path).collect();
        let rows_before: u64 = from.iter().map(|file| file.rows).sum();
        let rows_after: u64 = to.iter().map(|file| file.rows).sum();
        let deleted_count = deleted.map_or(0, |deleted| deleted.count);
        if from.is_empty() || paths.len() < from.len() || Some(rows_before) != rows_after.checked_add(deleted_count) {
            return Err(Error::internal(format!(
                "table `{}`: {} files with {rows_before} rows cannot be replaced by {} files with {rows_after} rows \
                 and {deleted_count} deleted rows",
                contract.name,
                paths.len(),
                to.len()
            )));
        }
        let modified = from.iter().map(|file| file.modified).max().unwrap_or_default();
        to.iter_mut().for_each(|file| file.modified = modified);
        let data_change = deleted.is_some();
        let add = |file: &DataFile| Ok(Add { data_change, ..write_add(contract, file)? });
        let remove = |file: &Arc<DataFile>| Ok(Remove { data_change, ..write_remove(contract, file, now_ms)? });
        let entry = LogEntry {
            adds: to.iter().map(add).collect::<Result<_>>()?,
            removes: from.iter().map(remove).collect::<Result<_>>()?,
            ..LogEntry::default()
        };
        let (kind, parameters) = match deleted {
            Some(deleted) => (DELETE, json!({ "predicate": json!([deleted.predicate]).to_string() })),
            None => ("OPTIMIZE", json!({ "predicate": "[]", "zOrderBy": "[]" })),
        };
        let to = to.into_iter().map(Arc::new).collect();
        Ok(Self { from, is_delete: deleted.is_some(), to, put: EntryPut::new(entry, kind, parameters, now_ms)? })
    }

    async fn commit(&mut self, table: &Table) -> Result<Replaced> {
        if table.gap_check_due() {
            table.refresh().await?;
        }
        let (mut races_lost, mut in_doubt) = (0, Vec::new());
        for _ in 0..ATTEMPTS_MAX {
            let permit = if races_lost < RACES_WITHOUT_LOCK_MAX {
                None
            } else {
                let permit = table.commit_lock.acquire().await;
                table.follow().await?;
                Some(permit.map_err(|_| Error::internal("a table's commit lock was closed"))?)
            };
            let state = table.state();
            if let Some(outcome) = self.outcome(table, &state).await? {
                return Ok(outcome);
            }
            if self.put.is_in_doubt() && table.ages.is_past_deadline(&self.to) {
                // The entry must not be put again. Afterwards, the entry at the tried version decides.
                match self.put.block(&table.log, table.now_ms()).await? {
                    Attempt::InDoubt(error) => in_doubt.push(error),
                    _ => drop(table.catch_up().await?),
                }
                if in_doubt.len() >= IN_DOUBT_MAX {
                    break;
                }
                continue;
            }
            let attempt = self.put.put(&table.log, state.snapshot.version + 1).await?;
            drop(permit);
            match attempt {
                // The put was slow, so the log may have been cleaned up before it. The next iteration looks for the
                // files in the table that was loaded again.
                Attempt::Committed if table.gap_check_due() => drop(table.reload().await?),
                Attempt::Committed => return self.publish(table, &state),
                Attempt::Lost => {
                    races_lost += 1;
                    table.follow().await?;
                }
                Attempt::InDoubt(error) => in_doubt.push(error),
            }
            if in_doubt.len() >= IN_DOUBT_MAX {
                break;
            }
        }
        let name = &table.contract.name;
        Err(match in_doubt.pop() {
            Some(error) => {
                Error::unavailable(format!("table `{name}`: a replacement of files may or may not have succeeded"))
                    .with_source(error)
            }
            None => Error::unavailable(format!(
                "table `{name}`: a replacement of files lost to other writers {ATTEMPTS_MAX} times: retry"
            )),
        })
    }

    /// Returns the outcome of the replacement, or `None` if an attempt is necessary and possible.
    async fn outcome(&mut self, table: &Table, state: &TableState) -> Result<Option<Replaced>> {
        let is_possible = self.from.iter().all(|file| state.snapshot.contains(file));
        Ok(match self.put.fate(&table.log, state).await? {
            Fate::Committed(version) => Some(Replaced::At(version)),
            Fate::InDoubt => None,
            Fate::NotCommitted if is_possible && !table.ages.is_past_deadline(&self.to) => None,
            Fate::NotCommitted => Some(Replaced::Void),
            Fate::Unknown if self.is_done_in(state) => Some(Replaced::At(state.snapshot.version)),
            // The entry would have removed the old files, and no file is added twice.
            Fate::Unknown if is_possible => {
                self.put.rule_out();
                None
            }
            // Another rewrite has removed the old files, or the new ones after this rewrite.
            Fate::Unknown => Some(Replaced::Void),
        })
    }

    /// Returns true if a state in which the entry may be shows that the files have been replaced. If there are no new
    /// files, it does not matter who has removed the old ones.
    fn is_done_in(&self, state: &TableState) -> bool {
        match self.to.is_empty() {
            true => !self.from.iter().any(|file| state.snapshot.contains(file)),
            false => self.to.iter().all(|file| state.snapshot.contains(file)),
        }
    }

    /// Publishes the snapshot with the new files. The entry must already be in the log.
    fn publish(&self, table: &Table, before: &TableState) -> Result<Replaced> {
        let version = before.snapshot.version + 1;
        let mut changes = Changes::at(version);
        let removed = self.from.iter().map(|file| Arc::clone(&file.path)).collect();
        let (changes_data, is_delete) = (self.is_delete, self.is_delete);
        changes.push_files(EntryFiles { version, added: self.to.clone(), removed, changes_data, is_delete });
        table.publish(changes.apply(&table.contract, Some(before))?);
        Ok(Replaced::At(version))
    }
}
