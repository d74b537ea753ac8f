//! Uncovered files: the files that lookups must read because the dedupe window no longer holds all of their ids.
//!
//! In: files whose ids enter the window, and the number of ids that the window evicts. Out: whether an uncovered file may hold
//! a row, and the uncovered files of given days. Pure.
//!
//! **Invariant:** the window evicts ids in the order in which they entered, so files become uncovered in that order as well.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use arrow::array::{AsArray as _, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;

use super::window::RowVerdict;
use crate::clock::{DAY, Micros};
use crate::contract::Contract;
use crate::error::{Error, Result};
use crate::lake::{DataFile, Snapshot};

/// The files of a table that a window covers, and those that it does not.
#[derive(Debug, Default)]
pub(super) struct UncoveredFiles {
    /// Covered files, oldest first.
    within: VecDeque<Group>,
    /// Uncovered files, by UTC day.
    behind: BTreeMap<i32, UncoveredDay>,
}

/// Files whose ids entered the window together, in an unknown order.
#[derive(Debug)]
struct Group {
    /// Empty once the files are uncovered.
    files: Vec<Arc<DataFile>>,
    /// The number of their ids in the window.
    ids: usize,
}

/// The uncovered files of one day.
#[derive(Debug)]
struct UncoveredDay {
    files: Vec<Arc<DataFile>>,
    /// No row of these files has a later event time.
    latest: Micros,
}

impl UncoveredFiles {
    /// Records that the ids of these files have entered the window.
    pub(super) fn push(&mut self, files: Vec<Arc<DataFile>>, ids: usize) {
        self.within.push_back(Group { files, ids });
    }

    /// Records that the window has evicted this number of its oldest ids.
    pub(super) fn forget(&mut self, mut ids: usize) {
        while let Some(oldest) = self.within.front_mut().filter(|oldest| ids > 0 || oldest.ids == 0) {
            let leaving = ids.min(oldest.ids);
            let files = if leaving > 0 { std::mem::take(&mut oldest.files) } else { Vec::new() };
            oldest.ids -= leaving;
            ids -= leaving;
            if oldest.ids == 0 {
                self.within.pop_front();
            }
            self.leave(files);
        }
    }

    /// Records files of which the window does not hold all ids.
    pub(super) fn leave(&mut self, files: Vec<Arc<DataFile>>) {
        for file in files {
            let latest = file.times.map_or(Micros::MAX, |(_, latest)| latest);
            let day = self.behind.entry(file.day).or_insert(UncoveredDay { files: Vec::new(), latest });
            day.latest = day.latest.max(latest);
            day.files.push(file);
        }
    }

    /// Drops files that are no longer live: newer files hold their rows.
    pub(super) fn retain_live(&mut self, snapshot: &Snapshot) {
        for day in self.behind.values_mut() {
            day.files.retain(|file| snapshot.holds(file));
        }
        self.behind.retain(|_, day| !day.files.is_empty());
    }

    /// For each row whether it is new and, by its time, an uncovered file may hold it. Adds the days of such rows to `days`.
    pub(super) fn old(
        &self,
        contract: &Contract,
        rows: &RecordBatch,
        verdicts: &[RowVerdict],
        days: &mut BTreeSet<i32>,
    ) -> Result<Vec<bool>> {
        if self.behind.is_empty() {
            return Ok(vec![false; verdicts.len()]);
        }
        let times = rows.column(contract.time).as_primitive_opt::<TimestampMicrosecondType>();
        let times = times.ok_or_else(|| Error::internal("the rows to compare have no time column"))?;
        // Consecutive rows are usually of the same day.
        let mut last: Option<(Micros, Option<Micros>)> = None;
        let old = verdicts.iter().zip(times.values()).map(|(verdict, time)| {
            let day = time.div_euclid(DAY);
            let latest = match last {
                Some((known, latest)) if known == day => latest,
                _ => {
                    let behind = i32::try_from(day).ok().and_then(|day| self.behind.get(&day));
                    last.insert((day, behind.map(|behind| behind.latest))).1
                }
            };
            let old = *verdict == RowVerdict::New && latest.is_some_and(|latest| *time <= latest);
            if let (true, Ok(day)) = (old, i32::try_from(day)) {
                days.insert(day);
            }
            old
        });
        Ok(old.collect())
    }

    /// The uncovered files of these days.
    pub(super) fn files(&self, days: &BTreeSet<i32>) -> Vec<Arc<DataFile>> {
        days.iter().filter_map(|day| self.behind.get(day)).flat_map(|day| day.files.iter().cloned()).collect()
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
        let mut cover = UncoveredFiles::default();
        cover.push(vec![file("a", 1), file("b", 2)], 3);
        cover.push(vec![], 0);
        cover.push(vec![file("c", 1)], 2);
        cover.push(vec![file("d", 2)], 1);
        let steps: [(usize, &[&str]); 6] = [
            (0, &[]),
            (1, &["a", "b"]),
            (2, &["a", "b"]),
            (1, &["a", "c", "b"]),
            (1, &["a", "c", "b"]),
            (9, &["a", "c", "b", "d"]),
        ];
        for (ids, expected) in steps {
            cover.forget(ids);
            let files = cover.files(&BTreeSet::from([1, 2]));
            assert_eq!(files.iter().map(|file| &*file.path).collect::<Vec<_>>(), expected, "after {ids} more");
        }
        assert!(cover.files(&BTreeSet::from([3])).is_empty());
    }
}
