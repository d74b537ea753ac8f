//! The live files of one UTC day.
//!
//! A day of a table that is not maintained can have a hundred thousand files, and each commit changes one day. The list
//! is therefore cut into chunks. A copy of the list shares all chunks with the original, and a change copies only the
//! chunks in which it adds or removes files.
//!
//! **Invariant:** files are sorted by path, and each path appears once.
//! **Invariant:** no chunk is empty, and two neighboring chunks together have more than half of [`CHUNK_FILES_MAX`]
//! files.

use std::sync::{Arc, OnceLock};

use chrono::{DateTime, NaiveDate};

use crate::clock::Micros;
use crate::contract::EVENT_DATE;
use crate::lake::DataFile;

/// The maximum number of files in a chunk.
pub(super) const CHUNK_FILES_MAX: usize = 256;

/// Files sorted by path.
type Chunk = Vec<Arc<DataFile>>;

/// The live files of one UTC day, sorted by path. Cloning it takes time proportional to a 256th of the files.
#[derive(Debug, Clone)]
pub struct DayFiles {
    day: i32,
    pub(super) changed: u64,
    chunks: Vec<Arc<Chunk>>,
    len: usize,
    rows: u64,
    bytes: u64,
    misplaced: usize,
    newest: OnceLock<Newest>,
}

/// The latest times of the files of a day, which are computed when they are first requested.
#[derive(Debug, Clone, Copy)]
struct Newest {
    received: Option<Micros>,
    modified: Option<i64>,
}

/// A file's chunk, and its position in that chunk.
type Position = (usize, usize);

impl DayFiles {
    /// Creates the list of a day that has no files before `version`.
    pub(super) fn new(day: i32, version: u64) -> Self {
        Self {
            day,
            changed: version,
            chunks: Vec::new(),
            len: 0,
            rows: 0,
            bytes: 0,
            misplaced: 0,
            newest: OnceLock::new(),
        }
    }

    /// Returns the day, in days since 1970-01-01.
    pub fn day(&self) -> i32 {
        self.day
    }

    /// Returns the last version that may have changed the *rows* of the day. A rewrite changes no rows. If a day has
    /// this version in two snapshots of a table, it has the same rows in both. To compare several days, compare the
    /// list of all days with their versions, because a snapshot does not list a day whose last file was removed. A
    /// server that has loaded the table from a checkpoint knows no earlier versions than that of the checkpoint.
    pub fn changed(&self) -> u64 {
        self.changed
    }

    /// Returns the files, sorted by path.
    pub fn files(&self) -> impl DoubleEndedIterator<Item = &Arc<DataFile>> + Clone {
        self.chunks.iter().flat_map(|chunk| chunk.iter())
    }

    /// Returns the number of files.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Returns true if the day has no files.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Returns the number of rows in all files.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// Returns the size of all files in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Returns the latest receive time in the files, if known. Looks at all files only if the day has changed since the
    /// last call.
    pub fn newest_received(&self) -> Option<Micros> {
        self.newest().received
    }

    /// Returns the latest time at which a file was written, in milliseconds since 1970. Otherwise like
    /// [`DayFiles::newest_received`].
    pub fn newest_modified(&self) -> Option<i64> {
        self.newest().modified
    }

    fn newest(&self) -> &Newest {
        self.newest.get_or_init(|| Newest {
            received: self.files().filter_map(|file| Some(file.received?.1)).max(),
            modified: self.files().map(|file| file.modified).max(),
        })
    }

    /// Returns the number of files whose path does not begin with this day. Other writers may name files freely.
    pub(super) fn misplaced(&self) -> usize {
        self.misplaced
    }

    /// Returns the number of files in each chunk.
    #[cfg(test)]
    pub(super) fn chunk_sizes(&self) -> Vec<usize> {
        self.chunks.iter().map(|chunk| chunk.len()).collect()
    }

    pub(super) fn contains(&self, path: &str) -> bool {
        self.position(path).is_ok()
    }

    /// Adds a file. Returns the file of the same path that it replaces, if any.
    pub(super) fn insert(&mut self, file: Arc<DataFile>) -> Option<Arc<DataFile>> {
        self.count(&file, usize::wrapping_add, u64::wrapping_add);
        match self.position(&file.path) {
            Ok((chunk, at)) => {
                let replaced = std::mem::replace(&mut Arc::make_mut(&mut self.chunks[chunk])[at], file);
                self.count(&replaced, usize::wrapping_sub, u64::wrapping_sub);
                Some(replaced)
            }
            Err((chunk, at)) => {
                if self.chunks.is_empty() {
                    self.chunks.push(Arc::default());
                }
                Arc::make_mut(&mut self.chunks[chunk]).insert(at, file);
                self.split(chunk);
                None
            }
        }
    }

    /// Removes the file of this path, and returns it.
    pub(super) fn remove(&mut self, path: &str) -> Option<Arc<DataFile>> {
        let (chunk, at) = self.position(path).ok()?;
        let file = Arc::make_mut(&mut self.chunks[chunk]).remove(at);
        self.count(&file, usize::wrapping_sub, u64::wrapping_sub);
        self.join(chunk);
        Some(file)
    }

    /// Returns the position of the file of this path, or the position at which it would be inserted. The latter is in
    /// chunk 0 if there are no chunks.
    fn position(&self, path: &str) -> Result<Position, Position> {
        let chunk = self.chunks.partition_point(|chunk| chunk.last().is_some_and(|last| *last.path < *path));
        match self.chunks.get(chunk) {
            Some(files) => match files.binary_search_by(|file| (*file.path).cmp(path)) {
                Ok(at) => Ok((chunk, at)),
                Err(at) => Err((chunk, at)),
            },
            // The path follows all others.
            None => Err(self.chunks.last().map_or((0, 0), |last| (chunk - 1, last.len()))),
        }
    }

    /// Cuts a chunk that has become too large.
    fn split(&mut self, chunk: usize) {
        let len = self.chunks[chunk].len();
        if len > CHUNK_FILES_MAX {
            // Names of new files mostly follow all others. The last chunk is therefore left full.
            let at = if chunk + 1 == self.chunks.len() { CHUNK_FILES_MAX } else { len / 2 };
            let rest = Arc::make_mut(&mut self.chunks[chunk]).split_off(at);
            self.chunks.insert(chunk + 1, Arc::new(rest));
        }
    }

    /// Drops a chunk that has become empty, or joins it with a neighbor if both are small.
    fn join(&mut self, chunk: usize) {
        if self.chunks[chunk].is_empty() {
            self.chunks.remove(chunk);
            return;
        }
        for left in [Some(chunk), chunk.checked_sub(1)].into_iter().flatten() {
            let is_small = |right: &Arc<Chunk>| self.chunks[left].len() + right.len() <= CHUNK_FILES_MAX / 2;
            if self.chunks.get(left + 1).is_some_and(is_small) {
                let right = self.chunks.remove(left + 1);
                Arc::make_mut(&mut self.chunks[left]).extend(right.iter().cloned());
                return;
            }
        }
    }

    /// Adds a file to the totals, or subtracts it from them. Totals wrap around, so that a wrong number in the log
    /// entry of another writer does not make a later subtraction fail.
    fn count(&mut self, file: &DataFile, files: fn(usize, usize) -> usize, numbers: fn(u64, u64) -> u64) {
        self.newest = OnceLock::new();
        self.len = files(self.len, 1);
        self.rows = numbers(self.rows, file.rows);
        self.bytes = numbers(self.bytes, file.size);
        self.misplaced = files(self.misplaced, usize::from(day_of_path(&file.path) != Some(self.day)));
    }
}

/// Returns the day that a path names, as in `event_date=2026-03-01/part-….parquet`. Other writers may give a file a
/// path that names no day, or even another day than that of its rows.
pub(super) fn day_of_path(path: &str) -> Option<i32> {
    let date = path.strip_prefix(EVENT_DATE)?.strip_prefix('=')?.split_once('/')?.0;
    read_day(date)
}

/// Parses a day in the format `YYYY-MM-DD`.
pub(super) fn read_day(text: &str) -> Option<i32> {
    let date = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok()?;
    i32::try_from(date.signed_duration_since(DateTime::UNIX_EPOCH.date_naive()).num_days()).ok()
}
