//! Lists the files that the log has removed, for vacuum. The table does not keep them in memory.
//!
//! ```text
//!   newest checkpoint (its remove actions) ─► entries after it, up to a version ─► removed files
//! ```
//!
//! Writers of checkpoints drop a removed file once its retention has passed, so the list need not be complete for files
//! that were removed long ago.
//!
//! **Invariant:** a gap in the log is an error: a file that is missing in the list would look like a file that no entry
//! has named.

use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _};

use crate::error::{Error, Result};
use crate::lake::Table;
use crate::lake::log::checkpoint_rows::{CheckpointRow, checkpoint_rows};
use crate::lake::log::table_state::decode_path;

/// The maximum number of log entries that are read concurrently.
const READS_MAX: usize = 16;

/// A file that the log has removed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RemovedFile {
    /// The path relative to the table, not percent-encoded.
    pub(crate) path: Arc<str>,
    /// The time of the removal in milliseconds since 1970, according to the writer that removed the file. `None` if the
    /// writer has not stated it.
    pub(crate) removed_ms: Option<i64>,
    /// The version that removed the file, or a later one.
    pub(crate) version: u64,
    /// The size in bytes, or 0 if it is not known.
    pub(crate) size: u64,
}

impl Table {
    /// Calls `each` with the files that were removed at `version` or earlier. Files outside the table's folder are
    /// omitted.
    pub(crate) async fn removed_files(&self, version: u64, each: &mut (dyn FnMut(RemovedFile) + Send)) -> Result<()> {
        let mut removed = |path: &str, removed_ms, size: Option<i64>, version| {
            if let Ok(path) = decode_path(&self.contract, path) {
                let size = size.and_then(|size| u64::try_from(size).ok()).unwrap_or(0);
                each(RemovedFile { path: path.into(), removed_ms, version, size });
            }
        };
        let hint = self.log.hint().await?.unwrap_or(0);
        let mut listing = self.log.list(hint).await?;
        if listing.checkpoints.range(..=version).next().is_none() && hint > 0 {
            listing = self.log.list(0).await?;
        }
        let checkpoint = listing.checkpoints.range(..=version).next_back();
        if let Some((checkpoint, files)) = checkpoint {
            let leaves = ["remove.path", "remove.deletionTimestamp", "remove.size"];
            let mut row = |row: CheckpointRow<'_>| {
                if let CheckpointRow::Remove { path, removed_ms, size } = row {
                    removed(path, removed_ms, size, *checkpoint);
                }
            };
            checkpoint_rows(self.location().0, files, &leaves, &mut row).await?;
        }
        let first = checkpoint.map_or(0, |(version, _)| version + 1);
        let entries = futures::stream::iter(first..=version)
            .map(|version| async move { Ok::<_, Error>((version, self.log.read(version).await?)) });
        let mut entries = entries.buffered(READS_MAX);
        while let Some((version, entry)) = entries.try_next().await? {
            let entry = entry.ok_or_else(|| {
                Error::unavailable(format!("table `{}`: log entry {version} is missing: retry", self.contract.name))
            })?;
            for remove in entry.removes {
                removed(&remove.path, remove.deletion_timestamp, remove.size, version);
            }
        }
        Ok(())
    }
}
