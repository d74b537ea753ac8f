//! What a table holds at one version: its live files with the statistics that pruning needs, all in memory.
//!
//! In: the snapshot before and the changes of the entries since. Out: the next snapshot; the one before stays as it was.
//!
//! **Invariant:** files are sorted by (day, least tenant, path), and no path is there twice.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::clock::Micros;

/// One Parquet file. Its bounds hold every row, but need not be tight: they prune, and never answer a query.
#[derive(Debug, Clone, PartialEq)]
pub struct DataFile {
    /// Relative to the table, not encoded.
    pub path: Arc<str>,
    /// Bytes.
    pub size: u64,
    /// Rows.
    pub rows: u64,
    /// UTC day of all its rows, in days since 1970.
    pub day: i32,
    /// The least and greatest tenant in it, when known.
    pub tenants: Option<(Arc<str>, Arc<str>)>,
    /// The least and greatest time in it, when known.
    pub times: Option<(Micros, Micros)>,
    /// The least and greatest event id in it, when known.
    pub ids: Option<(Arc<str>, Arc<str>)>,
    /// The least and greatest receive time in it, when known.
    pub received: Option<(Micros, Micros)>,
    /// When it was written, milliseconds since 1970.
    pub modified: i64,
}

/// A table at one version. Immutable.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// The Delta version.
    pub version: u64,
    /// Live files, sorted by (day, least tenant).
    pub files: Arc<Vec<Arc<DataFile>>>,
    /// Newest application transactions by name.
    pub txns: BTreeMap<String, i64>,
}

/// How far a source has come: an application transaction of Delta, which moves only from where it is believed to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Progress {
    /// The source, or the part of it that moves by itself: the `appId`.
    pub app: String,
    /// What the table must hold; `None` when it must hold nothing yet.
    pub after: Option<i64>,
    /// What it holds then. The same as `after` changes nothing: then only the check counts.
    pub next: i64,
}

impl Progress {
    /// Whether it goes anywhere.
    pub fn moves(&self) -> bool {
        self.after != Some(self.next)
    }

    /// Whether the table stands where this begins.
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
    /// Rows of all files.
    pub fn rows(&self) -> u64 {
        self.files.iter().map(|file| file.rows).sum()
    }

    /// The files that `before`, an older snapshot of the table, does not have. Costs a binary search a file.
    pub fn since(&self, before: &Self) -> Vec<Arc<DataFile>> {
        self.files.iter().filter(|file| !before.holds(file)).cloned().collect()
    }

    /// Whether this very file is live. Costs a binary search.
    pub fn holds(&self, file: &DataFile) -> bool {
        self.files.binary_search_by(|live| live.key().cmp(&file.key())).is_ok()
    }
}

/// What one or more entries do to the files: each path's last word.
pub(in crate::lake) type FileChanges = BTreeMap<Arc<str>, Option<DataFile>>;

/// The live files after `changes`. Costs a copy of the list: 0.3 ms at 10,000 files, measured.
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
        let place = files.partition_point(|live| live.key() < file.key());
        files.insert(place, file);
    }
    files
}
