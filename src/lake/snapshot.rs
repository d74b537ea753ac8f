//! What a table holds at one version: its live files with the statistics that pruning needs, all in memory.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::clock::Micros;

/// One Parquet file.
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
    /// The least and greatest receive time in it, when known.
    pub received: Option<(Micros, Micros)>,
    /// When it was committed, milliseconds since 1970.
    pub modified: i64,
}

/// A table at one version. Immutable.
#[derive(Debug, Clone)]
pub struct Snapshot {
    /// The Delta version.
    pub version: u64,
    /// Live files, sorted by (day, least tenant).
    pub files: Arc<Vec<Arc<DataFile>>>,
    /// Newest application transactions by name.
    pub txns: BTreeMap<String, i64>,
}

impl Snapshot {
    /// Rows of all files.
    pub fn rows(&self) -> u64 {
        self.files.iter().map(|file| file.rows).sum()
    }
}
