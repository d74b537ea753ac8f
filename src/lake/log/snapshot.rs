//! Snapshots. A snapshot lists the live files of a table at one version, with their statistics for pruning. It is kept
//! in memory.
//!
//! Applying the changes of later log entries to a snapshot creates the next snapshot. The previous snapshot stays
//! unchanged.
//!
//! **Invariant:** files are sorted by (day, smallest tenant, path), and each path appears once.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::clock::Micros;

/// One Parquet file. The bounds include every row but need not be tight, because they are used only for pruning.
#[derive(Debug, Clone, PartialEq)]
pub struct DataFile {
    /// The path relative to the table, not percent-encoded.
    pub path: Arc<str>,
    /// The size in bytes.
    pub size: u64,
    /// The number of rows.
    pub rows: u64,
    /// The UTC day that all rows share, in days since 1970-01-01.
    pub day: i32,
    /// The smallest and the largest tenant id, if known.
    pub tenants: Option<(Arc<str>, Arc<str>)>,
    /// The earliest and the latest event time, if known.
    pub times: Option<(Micros, Micros)>,
    /// The smallest and the largest event id, if known.
    pub ids: Option<(Arc<str>, Arc<str>)>,
    /// The earliest and the latest receive time, if known.
    pub received: Option<(Micros, Micros)>,
    /// The time at which the file was written, in milliseconds since 1970.
    pub modified: i64,
}

/// An immutable view of a table at one version.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// The Delta version.
    pub version: u64,
    /// The live files, sorted by (day, smallest tenant, path).
    pub files: Arc<Vec<Arc<DataFile>>>,
    /// The newest version of each application transaction, by `appId`.
    pub txns: BTreeMap<String, i64>,
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

impl DataFile {
    /// Returns true if the file's name has only characters that log entries do not encode. A file with another name,
    /// which another program has written, cannot be removed: readers encode such names differently, so some of them
    /// would still read the file.
    pub fn has_plain_name(&self) -> bool {
        self.path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.=/".contains(&byte))
    }

    /// Returns the sort key that orders files in a snapshot.
    fn key(&self) -> (i32, Option<&str>, &str) {
        (self.day, self.tenants.as_ref().map(|(least, _)| &**least), &self.path)
    }
}

impl Snapshot {
    /// Returns the number of rows in all files.
    pub fn rows(&self) -> u64 {
        self.files.iter().map(|file| file.rows).sum()
    }

    /// Returns true if the file is live in this snapshot. Needs one binary search.
    pub fn contains(&self, file: &DataFile) -> bool {
        self.files.binary_search_by(|live| live.key().cmp(&file.key())).is_ok()
    }
}

/// The file changes of one or more log entries, by path. A value is the added file, or `None` if the last change
/// removed the file.
pub(in crate::lake) type FileChanges = BTreeMap<Arc<str>, Option<Arc<DataFile>>>;

/// Returns the live files that result from applying `changes` to `live`. Copies the list, which takes 0.3 ms for 10,000
/// files.
pub(in crate::lake) fn merge(live: &[Arc<DataFile>], changes: FileChanges) -> Vec<Arc<DataFile>> {
    let keep = |file: &&Arc<DataFile>| !changes.contains_key(&file.path);
    let mut files = Vec::with_capacity(live.len() + changes.len());
    files.extend(live.iter().filter(keep).cloned());
    let mut added: Vec<_> = changes.into_values().flatten().collect();
    added.sort_unstable_by(|left, right| left.key().cmp(&right.key()));
    if files.is_empty() {
        return added;
    }
    for file in added {
        let position = files.partition_point(|live| live.key() < file.key());
        files.insert(position, file);
    }
    files
}
