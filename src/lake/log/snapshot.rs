//! Snapshots: the live files of a table at one version with the statistics for pruning, all in memory.
//!
//! In: the previous snapshot and the changes of later entries. Out: the next snapshot; the previous one is unchanged.
//!
//! **Invariant:** files are sorted by (day, least tenant, path), and each path appears once.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::clock::Micros;

/// One Parquet file. Its bounds include every row but need not be tight: they are for pruning only.
#[derive(Debug, Clone, PartialEq)]
pub struct DataFile {
    /// The path relative to the table, not percent-encoded.
    pub path: Arc<str>,
    /// The size in bytes.
    pub size: u64,
    /// The number of rows.
    pub rows: u64,
    /// The UTC day of all rows, in days since 1970.
    pub day: i32,
    /// The least and greatest tenant, if known.
    pub tenants: Option<(Arc<str>, Arc<str>)>,
    /// The least and greatest time, if known.
    pub times: Option<(Micros, Micros)>,
    /// The least and greatest event id, if known.
    pub ids: Option<(Arc<str>, Arc<str>)>,
    /// The least and greatest receive time, if known.
    pub received: Option<(Micros, Micros)>,
    /// The time of writing, in milliseconds since 1970.
    pub modified: i64,
}

/// A table at one version. Immutable.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// The Delta version.
    pub version: u64,
    /// Live files, sorted by (day, least tenant).
    pub files: Arc<Vec<Arc<DataFile>>>,
    /// The newest version of each application transaction, by name.
    pub txns: BTreeMap<String, i64>,
}

/// The progress of a source: a Delta application transaction that is compared and set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The source, or a part of it with its own progress: the `appId`.
    pub app: String,
    /// The expected version in the table; `None` if the table must not have one yet.
    pub after: Option<i64>,
    /// The new version. If it equals `after`, the commit only checks it.
    pub next: i64,
}

impl Progress {
    /// Whether it changes the version.
    pub fn moves(&self) -> bool {
        self.after != Some(self.next)
    }

    /// Whether the table has the expected version.
    pub fn fits(&self, snapshot: &Snapshot) -> bool {
        snapshot.txns.get(&self.app).copied() == self.after
    }
}

impl DataFile {
    /// The order of files in a snapshot.
    fn key(&self) -> (i32, Option<&str>, &str) {
        (self.day, self.tenants.as_ref().map(|(least, _)| &**least), &self.path)
    }
}

impl Snapshot {
    /// The number of rows in all files.
    pub fn rows(&self) -> u64 {
        self.files.iter().map(|file| file.rows).sum()
    }

    /// The files that `before`, an older snapshot of the table, does not have. Costs one binary search per file.
    pub fn since(&self, before: &Self) -> Vec<Arc<DataFile>> {
        self.files.iter().filter(|file| !before.holds(file)).cloned().collect()
    }

    /// Whether a file is live. Costs one binary search.
    pub fn holds(&self, file: &DataFile) -> bool {
        self.files.binary_search_by(|live| live.key().cmp(&file.key())).is_ok()
    }
}

/// The file changes of one or more entries: the last action for each path, `None` if it is a removal.
pub(in crate::lake) type FileChanges = BTreeMap<Arc<str>, Option<DataFile>>;

/// The live files after `changes`. Copies the list, which was measured to take 0.3 ms for 10,000 files.
pub(in crate::lake) fn merge(live: &[Arc<DataFile>], changes: FileChanges) -> Vec<Arc<DataFile>> {
    let keep = |file: &&Arc<DataFile>| !changes.contains_key(&file.path);
    let mut files = Vec::with_capacity(live.len() + changes.len());
    files.extend(live.iter().filter(keep).cloned());
    let mut added: Vec<_> = changes.into_values().flatten().map(Arc::new).collect();
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
