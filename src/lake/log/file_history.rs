//! The recent changes of a table's files. The dedupe index follows the table with this history.
//!
//! A [`FileHistory`] has one [`FileChange`] for each log entry that added or removed files, up to [`CHANGES_MAX`].
//!
//! **Invariant:** the changes are complete and in the order of their versions, from the version after
//! [`FileHistory::start`].

use std::collections::VecDeque;
use std::sync::Arc;

use crate::lake::DataFile;

/// The maximum number of changes in a history. A server that is further behind reads the files anew.
const CHANGES_MAX: usize = 1_024;

/// The files that one version added and removed.
#[derive(Debug, Clone, PartialEq)]
pub struct FileChange {
    /// The version.
    pub version: u64,
    /// The added files.
    pub added: Vec<Arc<DataFile>>,
    /// The removed files. Files that were not live are omitted.
    pub removed: Vec<Arc<DataFile>>,
    /// True if the added files contain the same rows as the removed files.
    pub is_rewrite: bool,
    /// True if the added files contain only rows of the removed files, but not all of them.
    pub is_deletion: bool,
}

impl FileChange {
    /// Returns true if the added files may contain rows that the table did not have before.
    pub fn adds_rows(&self) -> bool {
        !self.added.is_empty() && !self.is_rewrite && !self.is_deletion
    }
}

/// The most recent changes of a table's files.
#[derive(Debug, Clone)]
pub(in crate::lake) struct FileHistory {
    /// The version before the first change that the history may contain.
    start: u64,
    changes: VecDeque<Arc<FileChange>>,
}

impl FileHistory {
    /// Creates a history without changes, which begins after version `start`.
    pub(in crate::lake) fn after(start: u64) -> Self {
        Self { start, changes: VecDeque::new() }
    }

    /// Adds the change of a later version. Drops the oldest change if there are too many.
    pub(in crate::lake) fn push(&mut self, change: FileChange) {
        if self.changes.len() >= CHANGES_MAX
            && let Some(oldest) = self.changes.pop_front()
        {
            self.start = oldest.version;
        }
        self.changes.push_back(Arc::new(change));
    }

    /// Returns the changes after `version`, or `None` if the history begins later.
    pub(in crate::lake) fn since(&self, version: u64) -> Option<Vec<Arc<FileChange>>> {
        let first = self.changes.partition_point(|change| change.version <= version);
        (version >= self.start).then(|| self.changes.range(first..).cloned().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_history_keeps_the_newest_changes() {
        let mut history = FileHistory::after(7);
        let versions = |history: &FileHistory, since| {
            Some(history.since(since)?.iter().map(|change| change.version).collect::<Vec<_>>())
        };
        assert_eq!((versions(&history, 6), versions(&history, 7)), (None, Some(vec![])));
        // Every second version changes files.
        for index in 1..=CHANGES_MAX as u64 + 2 {
            let version = 7 + index * 2;
            history.push(FileChange { version, added: vec![], removed: vec![], is_rewrite: false, is_deletion: false });
        }
        let newest = 7 + 2 * (CHANGES_MAX as u64 + 2);
        assert_eq!(versions(&history, 10), None, "the change of version 11 was dropped");
        assert_eq!(versions(&history, 11).unwrap().len(), CHANGES_MAX);
        assert_eq!(versions(&history, 12).unwrap()[0], 13);
        assert_eq!(versions(&history, newest - 3), Some(vec![newest - 2, newest]));
        assert_eq!(versions(&history, newest - 1), Some(vec![newest]));
        assert_eq!(versions(&history, newest + 5), Some(vec![]));
    }
}
