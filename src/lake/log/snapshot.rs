//! Snapshots. A snapshot lists the live files of a table at one version, grouped by day, with their statistics for
//! pruning. It is kept in memory.
//!
//! Applying the changes of later log entries to a snapshot creates the next snapshot. The previous snapshot stays
//! unchanged. Both share the lists of the days that the entries do not change.
//!
//! **Invariant:** files are sorted by (day, path), and each path appears once.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::sync::Arc;

use crate::lake::DataFile;
use crate::lake::log::day_files::DayFiles;
use crate::lake::log::live_files::LiveFiles;

/// An immutable view of a table at one version. Two snapshots are equal if they have the same version, files and
/// transactions.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The Delta version.
    pub version: u64,
    /// The live files.
    pub(in crate::lake) live: LiveFiles,
    /// The newest version of each application transaction, by `appId`.
    pub txns: Arc<BTreeMap<String, i64>>,
}

/// The progress of a source, stored as a Delta application transaction. A commit that changes the progress fails if the
/// table does not contain the progress that the committer expects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The `appId`, which identifies the source, or a part of the source whose progress is tracked separately, such as
    /// a partition.
    pub app: String,
    /// The version that the table is expected to contain for this `appId`, or `None` if it is expected to contain no
    /// version.
    pub after: Option<i64>,
    /// The new version. If it equals `after`, the commit checks the version but does not change it.
    pub next: i64,
}

impl Progress {
    /// Returns true if the commit changes the version of the `appId`.
    pub fn moves(&self) -> bool {
        self.after != Some(self.next)
    }

    /// Returns true if the snapshot contains the expected version of the `appId`.
    pub fn fits(&self, snapshot: &Snapshot) -> bool {
        snapshot.txns.get(&self.app).copied() == self.after
    }
}

impl Snapshot {
    /// Creates a snapshot without transactions.
    #[cfg(test)]
    pub(crate) fn of(version: u64, files: Vec<Arc<DataFile>>) -> Self {
        Self { version, live: LiveFiles::of_checkpoint(version, files), txns: Arc::default() }
    }

    /// Returns the days with live files, in order.
    pub fn days(&self) -> impl DoubleEndedIterator<Item = &Arc<DayFiles>> + Clone {
        self.live.days().values()
    }

    /// Returns those days of a range that have live files, in order. Days are counted from 1970-01-01. The range may be
    /// empty.
    pub fn days_in(&self, range: RangeInclusive<i32>) -> impl DoubleEndedIterator<Item = &Arc<DayFiles>> + Clone {
        let range = (!range.is_empty()).then_some(range);
        range.into_iter().flat_map(|range| self.live.days().range(range)).map(|(_, files)| files)
    }

    /// Returns the live files, sorted by (day, path).
    pub fn files(&self) -> impl DoubleEndedIterator<Item = &Arc<DataFile>> + Clone {
        self.days().flat_map(|day| day.files())
    }

    /// Returns the number of live files.
    pub fn len(&self) -> usize {
        self.live.len()
    }

    /// Returns true if there are no live files.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the number of rows in all files.
    pub fn rows(&self) -> u64 {
        self.live.rows()
    }

    /// Returns true if the file is live in this snapshot. Needs two binary searches.
    pub fn contains(&self, file: &DataFile) -> bool {
        self.live.days().get(&file.day).is_some_and(|files| files.contains(&file.path))
    }
}

impl PartialEq for Snapshot {
    fn eq(&self, other: &Self) -> bool {
        self.version == other.version && self.txns == other.txns && self.files().eq(other.files())
    }
}
