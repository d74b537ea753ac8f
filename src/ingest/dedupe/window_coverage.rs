//! Tracks which files of a table the dedupe window covers. A file is covered if the window contains all ids in the
//! file. Lookups must read the files that are not covered.
//!
//! The dedupe index updates [`WindowCoverage`] when ids enter the window and when the window evicts ids. The coverage
//! determines which rows may be in an uncovered file, and lists the uncovered files of given days. It performs no I/O.
//!
//! A rewrite replaces files by files with the same rows, so no file needs to be read to follow it. The new files are
//! covered if all the old ones are covered. They become uncovered with the oldest of them.
//!
//! **Invariant:** the window evicts ids in the order in which they entered it, so files become uncovered in the same
//! order.

use std::collections::{BTreeMap, BTreeSet, HashSet, VecDeque};
use std::sync::Arc;

use arrow::array::{AsArray as _, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;

use super::window::RowVerdict;
use crate::clock::{DAY, Micros};
use crate::contract::{Contract, ExpiryBounds};
use crate::error::{Error, Result};
use crate::lake::{DataFile, FileChange};

/// The covered and the uncovered files of a table.
#[derive(Debug, Default)]
pub(super) struct WindowCoverage {
    /// Covered files, oldest first.
    covered: VecDeque<CoveredFiles>,
    /// The files that the window does not cover, grouped by UTC day.
    uncovered: BTreeMap<i32, UncoveredDay>,
}

/// Files whose ids entered the window together. The order of the ids is unknown, so all these files become uncovered as
/// soon as the window evicts the first of the ids.
#[derive(Debug)]
struct CoveredFiles {
    /// The files. Empty once the files are uncovered.
    files: Vec<Arc<DataFile>>,
    /// The number of ids from these files that are still in the window.
    ids: usize,
}

/// The uncovered files of one day.
#[derive(Debug)]
struct UncoveredDay {
    files: Vec<Arc<DataFile>>,
    /// An upper bound for the event times in the files.
    latest: Micros,
}

impl WindowCoverage {
    /// Records that the window contains all ids of these files. `ids` is the number of ids in the files.
    pub(super) fn add_covered(&mut self, files: Vec<Arc<DataFile>>, ids: usize) {
        self.covered.push_back(CoveredFiles { files, ids });
    }

    /// Records that the window has evicted the given number of its oldest ids.
    pub(super) fn evict(&mut self, mut ids: usize) {
        while let Some(oldest) = self.covered.front_mut().filter(|oldest| ids > 0 || oldest.ids == 0) {
            let leaving = ids.min(oldest.ids);
            // Files can belong to a group without ids: a rewrite may have added them to files without rows.
            let files = std::mem::take(&mut oldest.files);
            oldest.ids -= leaving;
            ids -= leaving;
            if oldest.ids == 0 {
                self.covered.pop_front();
            }
            self.add_uncovered(files);
        }
    }

    /// Records files whose ids are not all in the window. Ignores files without rows.
    pub(super) fn add_uncovered(&mut self, files: Vec<Arc<DataFile>>) {
        for file in files.into_iter().filter(|file| file.rows > 0) {
            let latest = file.times.map_or(Micros::MAX, |(_, latest)| latest);
            let day = self.uncovered.entry(file.day).or_insert(UncoveredDay { files: Vec::new(), latest });
            day.latest = day.latest.max(latest);
            day.files.push(file);
        }
    }

    /// Removes the files that a change of the table has removed. If the change is a rewrite or a deletion, adds its new
    /// files. Returns true if the window may contain ids whose rows are gone, so that it must be rebuilt.
    pub(super) fn remove(&mut self, change: &FileChange) -> bool {
        if change.removed.is_empty() {
            return false;
        }
        let paths: HashSet<&str> = change.removed.iter().map(|file| &*file.path).collect();
        let (mut covered, mut oldest) = (HashSet::new(), None);
        for (index, group) in self.covered.iter_mut().enumerate() {
            let count = group.files.len();
            group.files.retain(|file| {
                let is_removed = paths.contains(&*file.path);
                if is_removed {
                    covered.insert(Arc::clone(&file.path));
                }
                !is_removed
            });
            if group.files.len() < count {
                oldest.get_or_insert(index);
            }
        }
        let mut is_covered = covered.len() == paths.len();
        let days: BTreeSet<i32> = change.removed.iter().map(|file| file.day).collect();
        for day in days {
            let Some(uncovered) = self.uncovered.get_mut(&day) else { continue };
            let count = uncovered.files.len();
            uncovered.files.retain(|file| !paths.contains(&*file.path));
            is_covered &= uncovered.files.len() == count;
            if uncovered.files.is_empty() {
                self.uncovered.remove(&day);
            }
        }
        if !change.is_rewrite {
            if change.is_deletion {
                self.add_uncovered(change.added.clone());
            }
            return oldest.is_some();
        }
        match oldest.filter(|_| is_covered).and_then(|oldest| self.covered.get_mut(oldest)) {
            Some(group) => group.files.extend(change.added.iter().cloned()),
            None => self.add_uncovered(change.added.clone()),
        }
        false
    }

    /// Returns true if the window contains ids of a day that is expired.
    pub(super) fn covers_expired(&self, expiry: &ExpiryBounds) -> bool {
        self.covered.iter().flat_map(|group| &group.files).any(|file| expiry.includes_day(file.day))
    }

    /// For each row, returns whether an uncovered file may contain the row. The value is true if the row's verdict is
    /// `New` and its event time is not later than the latest event time in the uncovered files of its day. For each
    /// such row, adds its day to `days`.
    pub(super) fn may_hold(
        &self,
        contract: &Contract,
        rows: &RecordBatch,
        verdicts: &[RowVerdict],
        days: &mut BTreeSet<i32>,
    ) -> Result<Vec<bool>> {
        if self.uncovered.is_empty() {
            return Ok(vec![false; verdicts.len()]);
        }
        let times = rows.column(contract.time).as_primitive_opt::<TimestampMicrosecondType>();
        let times = times.ok_or_else(|| Error::internal("the rows to compare have no time column"))?;
        // Remember the last day and the result for this day, because consecutive rows usually belong to the same day.
        let mut last: Option<(Micros, Option<Micros>)> = None;
        let may_hold = verdicts.iter().zip(times.values()).map(|(verdict, time)| {
            let day = time.div_euclid(DAY);
            let latest = match last {
                Some((last_day, latest)) if last_day == day => latest,
                _ => {
                    let uncovered = i32::try_from(day).ok().and_then(|day| self.uncovered.get(&day));
                    last.insert((day, uncovered.map(|uncovered| uncovered.latest))).1
                }
            };
            let may_hold = *verdict == RowVerdict::New && latest.is_some_and(|latest| *time <= latest);
            if let (true, Ok(day)) = (may_hold, i32::try_from(day)) {
                days.insert(day);
            }
            may_hold
        });
        Ok(may_hold.collect())
    }

    /// Returns the uncovered files of the given days.
    pub(super) fn uncovered_files(&self, days: &BTreeSet<i32>) -> Vec<Arc<DataFile>> {
        days.iter().filter_map(|day| self.uncovered.get(day)).flat_map(|day| day.files.iter().cloned()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(name: &str, day: i32) -> Arc<DataFile> {
        Arc::new(DataFile {
            path: name.into(),
            size: 1,
            rows: 2,
            day,
            tenants: None,
            times: None,
            ids: None,
            received: None,
            modified: 0,
        })
    }

    #[test]
    fn a_file_is_uncovered_when_its_first_id_is_evicted() {
        let mut coverage = WindowCoverage::default();
        coverage.add_covered(vec![file("a", 1), file("b", 2)], 3);
        coverage.add_covered(vec![], 0);
        coverage.add_covered(vec![file("c", 1)], 2);
        coverage.add_covered(vec![file("d", 2)], 1);
        let steps: [(usize, &[&str]); 6] = [
            (0, &[]),
            (1, &["a", "b"]),
            (2, &["a", "b"]),
            (1, &["a", "c", "b"]),
            (1, &["a", "c", "b"]),
            (9, &["a", "c", "b", "d"]),
        ];
        for (ids, expected) in steps {
            coverage.evict(ids);
            let files = coverage.uncovered_files(&BTreeSet::from([1, 2]));
            assert_eq!(
                files.iter().map(|file| &*file.path).collect::<Vec<_>>(),
                expected,
                "after {ids} more evictions"
            );
        }
        assert!(coverage.uncovered_files(&BTreeSet::from([3])).is_empty());
    }

    #[test]
    fn a_rewritten_file_is_covered_as_long_as_all_its_rows_are() {
        // Each case rewrites some of the files `a` to `e` as `x` and `y`, and then evicts ids. File `a` is uncovered at
        // first. The other files enter the window one after another, with one id each, except that `e` has no rows.
        let cases: [(&[&str], &[(usize, &str)]); 6] = [
            (&["a"], &[(0, "xy"), (1, "xyb"), (2, "xybcd")]),
            (&["a", "c"], &[(0, "xy"), (1, "xyb"), (2, "xybd")]),
            (&["c"], &[(0, "a"), (1, "ab"), (1, "abxy"), (1, "abxyd")]),
            (&["d", "b"], &[(0, "a"), (1, "axy"), (1, "axyc"), (1, "axyc")]),
            (&["e"], &[(0, "a"), (2, "abc"), (1, "abcdxy")]),
            // A file that the index does not know.
            (&["b", "?"], &[(0, "axy"), (3, "axycd")]),
        ];
        for (removed, steps) in cases {
            let mut coverage = WindowCoverage::default();
            coverage.add_uncovered(vec![file("a", 1)]);
            for name in ["b", "c", "d"] {
                coverage.add_covered(vec![file(name, 1)], 1);
            }
            let empty = DataFile { rows: 0, ..DataFile::clone(&file("e", 1)) };
            coverage.add_covered(vec![Arc::new(empty)], 0);
            let removed: Vec<_> = removed.iter().map(|name| file(name, 1)).collect();
            let added = vec![file("x", 1), file("y", 1)];
            let (is_rewrite, is_deletion) = (true, false);
            let change = FileChange { version: 1, added, removed: removed.clone(), is_rewrite, is_deletion };
            assert!(!coverage.remove(&change), "no row is gone");
            for (ids, expected) in steps {
                coverage.evict(*ids);
                let files = coverage.uncovered_files(&BTreeSet::from([1]));
                let found: BTreeSet<String> = files.iter().map(|file| file.path.to_string()).collect();
                let expected: BTreeSet<String> = expected.chars().map(String::from).collect();
                assert_eq!(found, expected, "{removed:?} rewritten, then {ids} ids evicted");
            }
        }
    }

    #[test]
    fn dropped_files_leave_the_coverage() {
        let mut coverage = WindowCoverage::default();
        coverage.add_uncovered(vec![file("a", 1), file("b", 2)]);
        coverage.add_covered(vec![file("c", 1), file("d", 1)], 4);
        let change = |name: &str, day, is_deletion| FileChange {
            version: 1,
            added: vec![file("x", 1)],
            removed: vec![file(name, day)],
            is_rewrite: false,
            is_deletion,
        };
        assert!(!coverage.remove(&change("b", 2, false)), "the window has no id of this file");
        assert!(coverage.remove(&change("c", 1, false)), "the window has ids of this file");
        coverage.evict(1);
        let paths = |coverage: &WindowCoverage| {
            let files = coverage.uncovered_files(&BTreeSet::from([1, 2]));
            files.iter().map(|file| file.path.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(paths(&coverage), ["a", "d"]);
        assert!(!coverage.remove(&change("a", 1, true)));
        assert_eq!(paths(&coverage), ["d", "x"], "the rest of a deletion is looked up");
    }
}
