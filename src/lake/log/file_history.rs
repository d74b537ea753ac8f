//! The recent changes of a table's files. The dedupe index follows the table with this history.
//!
//! A [`FileHistory`] has one [`FileChange`] for each log entry that added or removed files, up to [`CHANGES_MAX`].
//!
//! **Invariant:** the changes are complete and in the order of their versions, from the version after
//! [`FileHistory::start`].

use std::collections::VecDeque;
use std::sync::Arc;

use crate::lake::DataFile;

/// The maximum number of changes in a history, a multiple of [`GROUP_CHANGES`]. A server that is further behind reads
/// the files anew.
const CHANGES_MAX: usize = 1_024;
/// The number of changes in a group.
const GROUP_CHANGES: usize = 32;

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

/// The most recent changes of a table's files. Each commit copies the history, so the changes are kept in groups that
/// copies share.
#[derive(Debug, Clone)]
pub(in crate::lake) struct FileHistory {
    /// The version before the first change that the history may contain.
    start: u64,
    /// The changes in groups of [`GROUP_CHANGES`]. Only the last group can have fewer. No group is empty.
    groups: VecDeque<Arc<Vec<Arc<FileChange>>>>,
}

impl FileHistory {
    /// Creates a history without changes, which begins after version `start`.
    pub(in crate::lake) fn after(start: u64) -> Self {
        Self { start, groups: VecDeque::new() }
    }

    /// Adds the change of a later version. Drops the oldest group of changes if there are too many.
    pub(in crate::lake) fn push(&mut self, change: FileChange) {
        let change = Arc::new(change);
        match self.groups.back_mut().filter(|group| group.len() < GROUP_CHANGES) {
            Some(group) => Arc::make_mut(group).push(change),
            None => self.groups.push_back(Arc::new(vec![change])),
        }
        if self.groups.len() > CHANGES_MAX / GROUP_CHANGES
            && let Some(newest) = self.groups.pop_front().and_then(|oldest| Some(oldest.last()?.version))
        {
            self.start = newest;
        }
    }

    /// Returns the changes after `version`, or `None` if the history begins later.
    pub(in crate::lake) fn since(&self, version: u64) -> Option<Vec<Arc<FileChange>>> {
        let is_known = |group: &Arc<Vec<Arc<FileChange>>>| group.last().is_none_or(|last| last.version <= version);
        let first = self.groups.partition_point(is_known);
        let changes = self.groups.range(first..).flat_map(|group| group.iter());
        (version >= self.start).then(|| changes.filter(|change| change.version > version).cloned().collect())
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
        let (mut copies, mut pushed) = (Vec::new(), Vec::new());
        for index in 1..=3 * CHANGES_MAX as u64 {
            let version = 7 + index * 2;
            copies.push((history.clone(), pushed.len()));
            history.push(FileChange { version, added: vec![], removed: vec![], is_rewrite: false, is_deletion: false });
            pushed.push(version);
            let oldest = pushed[pushed.len().saturating_sub(CHANGES_MAX - GROUP_CHANGES + 1)];
            for since in [oldest - 1, oldest, version - 2, version - 1, version, version + 5] {
                let expected = pushed[pushed.partition_point(|pushed| *pushed <= since)..].to_vec();
                assert_eq!(versions(&history, since), Some(expected), "{version} since {since}");
            }
        }
        let dropped = pushed[2 * CHANGES_MAX - 1];
        assert_eq!((versions(&history, dropped - 1), versions(&history, dropped).unwrap().len()), (None, CHANGES_MAX));
        for (copy, count) in copies {
            assert_eq!(
                versions(&copy, (pushed[count] - 3).max(7)),
                Some(pushed[count.saturating_sub(1)..count].to_vec())
            );
        }
    }
}
