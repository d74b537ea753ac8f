//! Removes files from a table that the store no longer has, after a commit that came too late.
//!
//! A writer names only files within the commit deadline (`file_ages.rs`), and vacuum deletes no such file. This code is
//! needed only if the process slept in the middle of a commit, and another tool deleted the files of that commit in the
//! meantime. Without it, every query of these files would fail.
//!
//! **Invariant:** only files for which the store reports that they do not exist are removed.

use std::sync::Arc;

use object_store::ObjectStoreExt as _;
use serde_json::json;

use crate::error::{Error, Result};
use crate::lake::log::delta_log::{LogEntry, Remove, Txn};
use crate::lake::log::entry_put::{Attempt, EntryPut};
use crate::lake::log::table_state::write_remove;
use crate::lake::store::client::store_error;
use crate::lake::{DataFile, Progress, Table};

/// The maximum number of attempts. An attempt fails if another writer commits first.
const ATTEMPTS_MAX: usize = 100;

impl Table {
    /// Removes those of the files that are live but no longer in the store, in an entry of their own. The same entry
    /// sets back the progress of sources that the files were committed with, where no later commit has moved it, so
    /// that the sources read the rows again. When this returns, none of the files is missing. Returns false if none was.
    ///
    /// After an error, the files may have been removed, and the function may be called again.
    pub(in crate::lake) async fn remove_missing(&self, files: &[Arc<DataFile>], progress: &[Progress]) -> Result<bool> {
        let mut has_removed = false;
        for _ in 0..ATTEMPTS_MAX {
            let state = self.catch_up().await?;
            let missing = self.missing(files.iter().filter(|file| state.snapshot.contains(file))).await?;
            if missing.is_empty() {
                return Ok(has_removed);
            }
            let current = |progress: &&Progress| state.snapshot.txns.get(&progress.app) == Some(&progress.next);
            let moved = progress.iter().filter(|progress| progress.moves()).filter(current);
            let txns =
                moved.filter_map(|progress| Some(Txn { app_id: progress.app.clone(), version: progress.after? }));
            let now_ms = self.now_ms();
            let remove =
                |file: &Arc<DataFile>| Ok(Remove { data_change: true, ..write_remove(&self.contract, file, now_ms)? });
            let entry = LogEntry {
                txns: txns.collect(),
                removes: missing.iter().map(remove).collect::<Result<_>>()?,
                ..LogEntry::default()
            };
            let mut put = EntryPut::new(entry, "DELETE", json!({ "predicate": "[]" }), now_ms)?;
            match put.put(&self.log, state.snapshot.version + 1).await? {
                Attempt::Committed => {
                    let paths: Vec<&str> = missing.iter().map(|file| &*file.path).collect();
                    tracing::error!(
                        table = %self.contract.name,
                        ?paths,
                        "removed files from the table that the store has lost: check which other tool deletes young files"
                    );
                    has_removed = true;
                }
                Attempt::Lost => {}
                Attempt::InDoubt(error) => return Err(error),
            }
        }
        Err(Error::unavailable(format!(
            "table `{}`: the removal of missing files lost to other writers {ATTEMPTS_MAX} times: retry",
            self.contract.name
        )))
    }

    /// Returns the files that the store does not have.
    async fn missing(&self, files: impl Iterator<Item = &Arc<DataFile>>) -> Result<Vec<Arc<DataFile>>> {
        let mut missing = Vec::new();
        for file in files {
            let path = self.file_path(file);
            match self.location().0.objects.head(&path).await {
                Ok(_) => {}
                Err(object_store::Error::NotFound { .. }) => missing.push(Arc::clone(file)),
                Err(error) => return Err(store_error(path, error)),
            }
        }
        Ok(missing)
    }
}
