//! One file of a table, with the statistics that its log entry contains.

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

impl DataFile {
    /// Returns true if the file's name has only characters that log entries do not encode. A file with another name,
    /// which another program has written, cannot be removed: readers encode such names differently, so some of them
    /// would still read the file.
    pub fn has_plain_name(&self) -> bool {
        self.path.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.=/".contains(&byte))
    }
}
