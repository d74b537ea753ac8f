//! The live files of a table, grouped by day.
//!
//! ```text
//!   LiveFiles ─► day ─► DayFiles ─► chunk ─► DataFile
//! ```
//!
//! A commit copies the list of days, and the changed chunks of the days that it changes. Everything else is shared with
//! the previous version. So the cost of a commit depends on the number of days and on the number of chunks of the
//! changed days, but not on the number of files.
//!
//! A log entry removes a file by its path, which names the day. Other writers may choose other paths. Such misplaced
//! files are counted, and as long as there are some, a path that is not found in the day that it names is looked up in
//! the days with misplaced files.
//!
//! **Invariant:** each path appears once in all days together, and no day is empty.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::lake::DataFile;
use crate::lake::log::day_files::{DayFiles, day_of_path};
use crate::lake::log::file_history::FileChange;

/// The live files of one version.
#[derive(Debug, Clone, Default)]
pub(in crate::lake) struct LiveFiles {
    days: BTreeMap<i32, Arc<DayFiles>>,
    len: usize,
    rows: u64,
    /// The number of files whose path does not name the day of their rows.
    misplaced: usize,
}

impl LiveFiles {
    /// Returns the files of a checkpoint.
    pub(in crate::lake) fn of_checkpoint(version: u64, mut files: Vec<Arc<DataFile>>) -> Self {
        // In this order, each file is appended to the last chunk of its day.
        files.sort_by(|left, right| left.path.cmp(&right.path));
        let mut live = Self::default();
        for file in files {
            live.insert(version, file);
        }
        live.days.retain(|_, files| !files.is_empty());
        live
    }

    /// Applies the changes of the next log entry, and determines whether it is a rewrite. `paths` are the paths that
    /// the entry removes. The returned change lacks those of files that were not live. `changes_data` is false if all
    /// actions of the entry say that it only moves rows to other files.
    ///
    /// An entry is a rewrite if its actions say that no data has changed, all files that it removes were live, it
    /// replaces no other live file by one of the same path, and it adds as many rows as it removes. An entry is a
    /// deletion if it adds no files, or if its writer says that it only deletes rows (`is_delete`), all files that it
    /// removes were live, and it adds fewer rows than it removes.
    pub(in crate::lake) fn apply(
        &mut self,
        version: u64,
        added: Vec<Arc<DataFile>>,
        paths: &[Arc<str>],
        changes_data: bool,
        is_delete: bool,
    ) -> FileChange {
        let removed: Vec<_> = paths.iter().filter_map(|path| self.remove(version, path)).collect();
        let replaced: Vec<_> = added.iter().filter_map(|file| self.insert(version, Arc::clone(file))).collect();
        let (before, after) = (rows_by_day(removed.iter().chain(&replaced)), rows_by_day(added.iter()));
        let rows = |days: &BTreeMap<i32, u64>| days.values().fold(0, |all: u64, rows| all.saturating_add(*rows));
        let all_were_live = !removed.is_empty() && removed.len() == paths.len() && replaced.is_empty();
        let is_rewrite = !changes_data && all_were_live && rows(&before) == rows(&after);
        let is_smaller = is_delete && all_were_live && rows(&before) > rows(&after);
        let is_deletion = !is_rewrite && (added.is_empty() || is_smaller);
        for day in before.keys().chain(after.keys()) {
            // A rewrite that moves rows to another day changes the rows of both days.
            let changes_rows = !is_rewrite || before.get(day).unwrap_or(&0) != after.get(day).unwrap_or(&0);
            if let Some(files) = self.days.get_mut(day).filter(|_| changes_rows) {
                Arc::make_mut(files).changed = version;
            }
        }
        // Days stay until here, so that a rewrite of all files of a day keeps the version of its rows.
        for day in before.keys() {
            if self.days.get(day).is_some_and(|files| files.is_empty()) {
                self.days.remove(day);
            }
        }
        FileChange { version, added, removed, is_rewrite, is_deletion }
    }

    /// Returns the days with files, in order.
    pub(in crate::lake) fn days(&self) -> &BTreeMap<i32, Arc<DayFiles>> {
        &self.days
    }

    /// Returns the number of files.
    pub(in crate::lake) fn len(&self) -> usize {
        self.len
    }

    /// Returns the number of rows.
    pub(in crate::lake) fn rows(&self) -> u64 {
        self.rows
    }

    /// Returns the day of the file of this path, or `None` if it is not live.
    fn day_of(&self, path: &str) -> Option<i32> {
        let named = day_of_path(path).and_then(|day| self.days.get(&day));
        if let Some(files) = named.filter(|files| files.contains(path)) {
            return Some(files.day());
        }
        if self.misplaced == 0 {
            return None;
        }
        let mut others = self.days.values().filter(|files| files.misplaced() > 0);
        others.find(|files| files.contains(path)).map(|files| files.day())
    }

    /// Adds a file, and returns the file of the same path that it replaces, if any. That file may be of another day.
    fn insert(&mut self, version: u64, file: Arc<DataFile>) -> Option<Arc<DataFile>> {
        let moved = match self.day_of(&file.path) {
            Some(day) if day != file.day => self.update(day, version, |files| files.remove(&file.path)),
            _ => None,
        };
        let replaced = self.update(file.day, version, |files| files.insert(file));
        moved.or(replaced)
    }

    /// Removes the file of this path, and returns it if it was live. The day of the file may be empty afterwards.
    fn remove(&mut self, version: u64, path: &str) -> Option<Arc<DataFile>> {
        let day = self.day_of(path)?;
        self.update(day, version, |files| files.remove(path))
    }

    /// Changes the files of a day, and adapts the totals. Creates the day with this version if it has no files.
    fn update<T>(&mut self, day: i32, version: u64, change: impl FnOnce(&mut DayFiles) -> T) -> T {
        let files = Arc::make_mut(self.days.entry(day).or_insert_with(|| Arc::new(DayFiles::new(day, version))));
        let totals = |files: &DayFiles| (files.len(), files.rows(), files.misplaced());
        let before = totals(files);
        let result = change(files);
        let after = totals(files);
        self.len = self.len.wrapping_add(after.0).wrapping_sub(before.0);
        self.rows = self.rows.wrapping_add(after.1).wrapping_sub(before.1);
        self.misplaced = self.misplaced.wrapping_add(after.2).wrapping_sub(before.2);
        result
    }
}

fn rows_by_day<'a>(files: impl Iterator<Item = &'a Arc<DataFile>>) -> BTreeMap<i32, u64> {
    let mut days: BTreeMap<i32, u64> = BTreeMap::new();
    for file in files {
        let rows = days.entry(file.day).or_default();
        *rows = rows.saturating_add(file.rows);
    }
    days
}
