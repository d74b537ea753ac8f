//! Which files a dedupe window covers, and which have to be looked into because it has forgotten ids of theirs.
//!
//! In: files as their ids enter the window, and how many ids leave it. Out: for rows whether a file behind the window may
//! hold them, and the files of their days. Pure.
//!
//! **Invariant:** ids leave in the order in which they came, so the files that they came with leave in that order as well.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use arrow::array::{AsArray as _, RecordBatch};
use arrow::datatypes::TimestampMicrosecondType;

use super::window::RowVerdict;
use crate::clock::{DAY, Micros};
use crate::contract::Contract;
use crate::error::{Error, Result};
use crate::lake::{DataFile, Snapshot};

/// What a window covers of a table.
#[derive(Debug, Default)]
pub(super) struct UncoveredFiles {
    /// Oldest first.
    within: VecDeque<Group>,
    /// By UTC day.
    behind: BTreeMap<i32, UncoveredDay>,
}

/// Files whose ids came together, in an order that is not known.
#[derive(Debug)]
struct Group {
    /// Empty when they are behind the window.
    files: Vec<Arc<DataFile>>,
    /// Ids of theirs in the window.
    ids: usize,
}

/// Files of one day that the window does not cover.
#[derive(Debug)]
struct UncoveredDay {
    files: Vec<Arc<DataFile>>,
    /// No row of theirs is later.
    latest: Micros,
}

impl UncoveredFiles {
    /// The ids of these files have entered the window.
    pub(super) fn push(&mut self, files: Vec<Arc<DataFile>>, ids: usize) {
        self.within.push_back(Group { files, ids });
    }

    /// The window has forgotten so many of its oldest ids.
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

    /// These files are not in the window, or not as a whole.
    pub(super) fn leave(&mut self, files: Vec<Arc<DataFile>>) {
        for file in files {
            let latest = file.times.map_or(Micros::MAX, |(_, latest)| latest);
            let day = self.behind.entry(file.day).or_insert(UncoveredDay { files: Vec::new(), latest });
            day.latest = day.latest.max(latest);
            day.files.push(file);
        }
    }

    /// Drops files that are not live any more: what they held is in files that came after them.
    pub(super) fn retain_live(&mut self, snapshot: &Snapshot) {
        for day in self.behind.values_mut() {
            day.files.retain(|file| snapshot.holds(file));
        }
        self.behind.retain(|_, day| !day.files.is_empty());
    }

    /// Which of the rows that seem new a file behind the window may hold, by their time; their days join `days`.
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
        let times = times.ok_or_else(|| Error::internal("rows to compare have no time of their contract"))?;
        // Rows of a day mostly come together.
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

    /// The files of these days that the window does not cover.
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
    fn files_leave_with_their_first_id() {
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
