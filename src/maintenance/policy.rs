//! Chooses which files to merge. Pure: a snapshot and the time go in, ordered units come out. Days that need no more
//! work are skipped until their files change.
//!
//! ```text
//!   files of a day ─┬─ hot: level 0 ─► 1 ─► 2 (cut at range boundaries)
//!                   ├─ closed: levels 0, 1 ─► 2, then each range ─► 3 (cut by tenant)
//!                   └─ late (the day has level 3): level 0 ─► 1 ─► 1 …, and into the base files once they are a tenth
//! ```
//!
//! A day is *closed* when it has been over for an hour and no file has been added for half an hour, or when its oldest
//! file has waited for three hours. The range boundaries of a day are tenants. They are read from the bounds of the
//! live files, so servers that maintain the same table agree on them.
//!
//! **Invariant:** the units of one plan do not share a file, and each has at most `unit_bytes_max` bytes of inputs.
//! **Invariant:** each unit reduces the number of files or raises the level of its files, so a table that receives no
//! files is left alone after finitely many units.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use crate::clock::{DAY, Micros, SECOND};
use crate::lake::{DataFile, DayFiles, Snapshot};
use crate::maintenance::file_cuts::{FileCuts, LEVEL_3_GROUP_ROWS_MAX};
use crate::maintenance::file_name::{LEVEL_MAX, level};
use crate::maintenance::ranges::{boundaries_of, is_within, overlaps_any, ranges_of, sized_boundaries, with_inherited};

const MINUTE: Micros = 60 * SECOND;
const HOUR: Micros = 60 * MINUTE;
const MB: u64 = 1_000_000;
const GB: u64 = 1_000 * MB;

/// When files are merged. Sizes are in bytes, and times in microseconds.
#[derive(Debug, Clone)]
pub struct Thresholds {
    /// Level-0 files younger than this are left alone.
    pub age_min: Micros,
    /// When the level-0 files of a hot day are merged.
    pub level_0: Trigger,
    /// When the level-1 files of a hot day are merged.
    pub level_1: Trigger,
    /// When the late level-0 files of a closed day are merged.
    pub late: Trigger,
    /// The time after the end of a day at which it can be closed.
    pub close_after: Micros,
    /// A day is closed if no file has been added for this time.
    pub close_quiet: Micros,
    /// A day is closed even if files are still added, if its oldest file is this old.
    pub close_wait_max: Micros,
    /// If no file has been added to a closed day for this time, its late files are merged into one.
    pub late_quiet: Micros,
    /// Late files are merged into the base files once they have at least this share of the rows, in percent.
    pub late_percent: u64,
    /// The maximum size of a unit's inputs.
    pub unit_bytes_max: u64,
    /// The maximum number of files of a unit that closes a day.
    pub unit_files_max: usize,
    /// The size of a range of a closed day.
    pub range_bytes: u64,
    /// The size from which a level-1 file is cut.
    pub level_1_bytes: u64,
    /// The size from which a level-2 file is cut.
    pub level_2_bytes: u64,
    /// The number of files into which a closed day is cut, if they have a size between the next two.
    pub level_3_files: u64,
    /// The minimum size from which a level-3 file is cut.
    pub level_3_bytes_min: u64,
    /// The maximum size from which a level-3 file is cut.
    pub level_3_bytes_max: u64,
}

/// When files of one level are merged: if there are `files` of them, or if their size is `bytes`, or if there are at
/// least `old_files` of them and the oldest has the age `old_age`.
#[derive(Debug, Clone)]
pub struct Trigger {
    /// The number of files of a full unit.
    pub files: usize,
    /// The size of a full unit.
    pub bytes: u64,
    /// The minimum number of files of a unit that is not full.
    pub old_files: usize,
    /// The age of the oldest file of a unit that is not full.
    pub old_age: Micros,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            age_min: 10 * SECOND,
            level_0: Trigger { files: 48, bytes: 1 << 30, old_files: 4, old_age: 10 * MINUTE },
            level_1: Trigger { files: 48, bytes: 5 * GB, old_files: 8, old_age: 2 * HOUR },
            late: Trigger { files: 16, bytes: 1 << 30, old_files: 2, old_age: HOUR },
            close_after: HOUR,
            close_quiet: 30 * MINUTE,
            close_wait_max: 3 * HOUR,
            late_quiet: DAY,
            late_percent: 10,
            unit_bytes_max: 5 * GB,
            unit_files_max: 128,
            range_bytes: 4 * GB,
            level_1_bytes: 256 * MB,
            level_2_bytes: 128 * MB,
            level_3_files: 512,
            level_3_bytes_min: 256 * MB,
            level_3_bytes_max: GB,
        }
    }
}

/// Files to merge with one commit.
#[derive(Debug, Clone)]
pub struct Unit {
    /// The UTC day of all files, in days since 1970-01-01.
    pub day: i32,
    /// The level of the new files.
    pub level: u8,
    /// The files to merge, in the order in which they were committed.
    pub inputs: Vec<Arc<DataFile>>,
    /// Where the new files end.
    pub cuts: FileCuts,
}

/// Files that a plan does not touch.
#[derive(Debug, Default)]
pub struct Excluded {
    /// The paths of files that are being merged.
    pub busy: HashSet<Arc<str>>,
    /// The paths of files that can never be merged.
    pub left_alone: HashSet<Arc<str>>,
}

/// The days whose files all have the highest level. They need no work until their files change, so a plan does not look
/// at their files again.
#[derive(Debug, Default)]
pub struct FinishedDays(BTreeMap<i32, Arc<DayFiles>>);

#[cfg(test)]
impl FinishedDays {
    pub(super) fn days(&self) -> Vec<i32> {
        self.0.keys().copied().collect()
    }
}

/// The urgency of a unit. Units with many level-0 files come first, because each file costs every query.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Priority {
    LevelZero { files_above_zero: usize },
    LevelOne,
    Closing { day: i32 },
    Late,
}

/// Returns the units that are due, the most urgent first. `now` is the time. `finished` starts empty, and belongs to
/// the table of the snapshot.
pub fn plan(
    snapshot: &Snapshot,
    now: Micros,
    thresholds: &Thresholds,
    excluded: &Excluded,
    finished: &mut FinishedDays,
) -> Vec<Unit> {
    let mut units: Vec<(Priority, Unit)> = Vec::new();
    let known = std::mem::take(&mut finished.0);
    let mut before: Option<&DayFiles> = None;
    for files in snapshot.days() {
        let is_known = known.get(&files.day()).is_some_and(|known| Arc::ptr_eq(known, files));
        if is_known || files.files().all(|file| level(&file.path) == LEVEL_MAX) {
            finished.0.insert(files.day(), Arc::clone(files));
        } else {
            Day::new(files, before, now, thresholds, excluded).plan(&mut units);
        }
        before = Some(&**files);
    }
    units.sort_by_key(|(priority, _)| *priority);
    units.into_iter().map(|(_, unit)| unit).collect()
}

/// A file and its level.
type LeveledFile<'a> = (u8, &'a Arc<DataFile>);

/// The files of one day.
struct Day<'a> {
    day: i32,
    now: Micros,
    thresholds: &'a Thresholds,
    /// All files of the day.
    all: Vec<LeveledFile<'a>>,
    /// The previous day with files.
    before: Option<&'a DayFiles>,
    /// The files that may be merged, by level. Those of levels 0 and 1 are in the order in which they were committed.
    levels: [Vec<&'a Arc<DataFile>>; LEVEL_MAX as usize + 1],
    /// True if files of level 0 or 1 are being merged.
    is_busy: bool,
}

impl<'a> Day<'a> {
    fn new(
        files: &'a DayFiles,
        before: Option<&'a DayFiles>,
        now: Micros,
        thresholds: &'a Thresholds,
        excluded: &Excluded,
    ) -> Self {
        let all: Vec<_> = files.files().map(|file| (level(&file.path), file)).collect();
        let mut levels: [Vec<&Arc<DataFile>>; LEVEL_MAX as usize + 1] = Default::default();
        let mut is_busy = false;
        for (level, file) in &all {
            let (level, file) = (*level, *file);
            let is_too_young = level == 0 && age(file, now) < thresholds.age_min;
            if excluded.busy.contains(&file.path) {
                is_busy |= level < 2;
            } else if !is_too_young && !excluded.left_alone.contains(&file.path) {
                levels[usize::from(level)].push(file);
            }
        }
        for files in &mut levels[..2] {
            files.sort_unstable_by_key(|file| (file.modified, &file.path));
        }
        Self { day: files.day(), now, thresholds, all, before, levels, is_busy }
    }

    fn plan(&self, units: &mut Vec<(Priority, Unit)>) {
        if self.all.iter().any(|(level, _)| *level == LEVEL_MAX) {
            self.plan_late(units);
        } else if self.is_closed() {
            self.plan_closing(units);
        } else {
            self.plan_hot(units);
        }
    }

    fn is_closed(&self) -> bool {
        let over = self.now.saturating_sub((i64::from(self.day) + 1) * DAY);
        let received =
            |file: &Arc<DataFile>| file.received.map_or(file.modified.saturating_mul(1_000), |(first, _)| first);
        let first = self.all.iter().map(|(_, file)| received(file)).min();
        let is_waiting = first.is_some_and(|first| self.now.saturating_sub(first) >= self.thresholds.close_wait_max);
        over >= self.thresholds.close_after && (is_waiting || self.is_quiet(self.thresholds.close_quiet))
    }

    /// Returns true if no row has been received for this time. Merged files keep the bounds of the receive time.
    fn is_quiet(&self, time: Micros) -> bool {
        let received =
            |file: &Arc<DataFile>| file.received.map_or(file.modified.saturating_mul(1_000), |(_, last)| last);
        let last = self.all.iter().map(|(_, file)| received(file)).max();
        last.is_none_or(|last| self.now.saturating_sub(last) >= time)
    }

    fn plan_hot(&self, units: &mut Vec<(Priority, Unit)>) {
        let thresholds = self.thresholds;
        let zero = self.due(&self.levels[0], &thresholds.level_0);
        if zero.is_empty() && self.due(&self.levels[1], &thresholds.level_1).is_empty() {
            return;
        }
        let boundaries = self.boundaries();
        let priority = Priority::LevelZero { files_above_zero: usize::MAX - self.levels[0].len() };
        for files in zero {
            // Pieces are half as large as files may be, because ranges differ in size.
            let pieces = pieces(&files, thresholds.level_1_bytes / 2);
            let cuts =
                FileCuts { boundaries: coarse(&boundaries, pieces), ..FileCuts::by_size(thresholds.level_1_bytes) };
            units.push((priority, self.unit(1, files, cuts)));
        }
        // Level-1 files that begin in the same eighth of the ranges are merged together.
        let mut groups: BTreeMap<usize, Vec<&Arc<DataFile>>> = BTreeMap::new();
        for file in &self.levels[1] {
            let first = file.tenants.as_ref().map_or(0, |(least, _)| boundaries.partition_point(|it| it <= least));
            groups.entry(first * 8 / (boundaries.len() + 1)).or_default().push(file);
        }
        for files in groups.values() {
            for files in self.due(files, &thresholds.level_1) {
                units.push((Priority::LevelOne, self.unit(2, files, self.cuts_of_level_2(&boundaries))));
            }
        }
    }

    fn plan_closing(&self, units: &mut Vec<(Priority, Unit)>) {
        let priority = Priority::Closing { day: self.day };
        let [zero, one, two, _] = &self.levels;
        let open: Vec<&Arc<DataFile>> = in_order(zero.iter().chain(one).copied().collect());
        let everything: Vec<&Arc<DataFile>> = in_order(open.iter().chain(two).copied().collect());
        let chunks = self.chunks(&everything, self.thresholds.unit_files_max, self.thresholds.unit_bytes_max);
        if self.is_busy || everything.is_empty() {
            return;
        }
        if let [all] = &chunks[..]
            && all.len() == everything.len()
        {
            units.push((priority, self.unit(3, all.clone(), self.cuts_of_level_3(Vec::new()))));
        } else if !open.is_empty() {
            let boundaries = self.boundaries();
            for files in self.chunks(&open, self.thresholds.unit_files_max, self.thresholds.unit_bytes_max) {
                units.push((priority, self.unit(2, files, self.cuts_of_level_2(&boundaries))));
            }
        } else {
            self.plan_ranges(two, priority, units);
        }
    }

    /// Merges the level-2 files of each range to level 3.
    fn plan_ranges(&self, files: &[&'a Arc<DataFile>], priority: Priority, units: &mut Vec<(Priority, Unit)>) {
        let boundaries = boundaries_of(files);
        for files in ranges_of(files, &boundaries) {
            let files = in_order(files);
            for files in self.chunks(&files, self.thresholds.unit_files_max, self.thresholds.unit_bytes_max) {
                units.push((priority, self.unit(3, files, self.cuts_of_level_3(boundaries.clone()))));
            }
        }
    }

    fn plan_late(&self, units: &mut Vec<(Priority, Unit)>) {
        let [zero, one, two, base] = &self.levels;
        let base_of_day = from_level(&self.all, LEVEL_MAX);
        if [zero, one, two].iter().all(|files| files.is_empty()) {
            return;
        }
        let boundaries = boundaries_of(&base_of_day);
        // Level-2 files of ranges that have not been closed, late files of one range, and files that are not cut.
        let (closed, open): (Vec<_>, Vec<_>) = two.iter().copied().partition(|file| overlaps_any(file, &base_of_day));
        let (cut, uncut): (Vec<_>, Vec<_>) = closed.into_iter().partition(|file| is_within(file, &boundaries));
        if !open.is_empty() {
            self.plan_ranges(&open, Priority::Closing { day: self.day }, units);
        }
        for range in ranges_of(&cut.into_iter().chain(base.iter().copied()).collect::<Vec<_>>(), &boundaries) {
            let (late, base): (Vec<_>, Vec<_>) = range.into_iter().partition(|file| level(&file.path) < LEVEL_MAX);
            if self.is_share(&late, &base) || late.len() >= self.thresholds.late.files {
                self.fold(&late, &base, &boundaries, units);
            }
        }
        let uncut = in_order(uncut.into_iter().chain(one.iter().copied()).collect());
        if self.is_share(&uncut, &base_of_day) {
            // Files are not cut again only because their bounds are not tight.
            let is_new = |files: &Vec<&Arc<DataFile>>| files.iter().any(|file| level(&file.path) < 2);
            let chunks = self.chunks(&uncut, self.thresholds.unit_files_max, self.thresholds.unit_bytes_max);
            for files in chunks.into_iter().filter(is_new) {
                units.push((Priority::Late, self.unit(2, files, self.cuts_of_level_2(&boundaries))));
            }
        } else {
            self.plan_late_files(zero, one, units);
        }
    }

    /// Merges the late files of a day that are too few to be merged with the base files.
    fn plan_late_files(
        &self,
        zero: &[&'a Arc<DataFile>],
        one: &[&'a Arc<DataFile>],
        units: &mut Vec<(Priority, Unit)>,
    ) {
        let thresholds = self.thresholds;
        let mut push = |files: Vec<&Arc<DataFile>>| {
            units.push((Priority::Late, self.unit(1, files, FileCuts::by_size(thresholds.level_1_bytes))));
        };
        // The new files are cut at this size. To merge larger files would not make them fewer.
        let one: Vec<&Arc<DataFile>> =
            one.iter().filter(|file| file.size < thresholds.level_1_bytes).copied().collect();
        let remaining = in_order(zero.iter().chain(&one).copied().collect());
        if self.is_quiet(thresholds.late_quiet) && !self.is_busy {
            let chunks = self.chunks(&remaining, thresholds.unit_files_max, thresholds.unit_bytes_max);
            chunks.into_iter().filter(|files| files.len() > 1).for_each(push);
            return;
        }
        self.due(zero, &thresholds.late).into_iter().for_each(&mut push);
        // Merge files of similar size, so that each row is rewritten only once each time its file grows sixteenfold.
        let mut classes: BTreeMap<u32, Vec<&Arc<DataFile>>> = BTreeMap::new();
        for file in one {
            classes.entry(file.rows.max(1).ilog2() / 4).or_default().push(file);
        }
        for files in classes.values() {
            let chunks = self.chunks(files, thresholds.late.files, thresholds.unit_bytes_max);
            chunks.into_iter().filter(|files| files.len() == thresholds.late.files).for_each(&mut push);
        }
    }

    /// Merges the late files of a range with its base files. If there are too many bytes for one unit, the late files
    /// are merged with one another.
    fn fold(
        &self,
        late: &[&'a Arc<DataFile>],
        base: &[&'a Arc<DataFile>],
        boundaries: &[Arc<str>],
        units: &mut Vec<(Priority, Unit)>,
    ) {
        let thresholds = self.thresholds;
        let all = in_order(late.iter().chain(base).copied().collect());
        let chunks = match bytes(&all) <= thresholds.unit_bytes_max {
            true => vec![all],
            false => self.chunks(late, thresholds.unit_files_max, thresholds.unit_bytes_max),
        };
        for files in chunks {
            if files.len() > 1 || bytes(&files) >= thresholds.level_3_bytes_min {
                units.push((Priority::Late, self.unit(3, files, self.cuts_of_level_3(boundaries.to_vec()))));
            }
        }
    }

    /// Returns true if `late` has at least [`Thresholds::late_percent`] of the rows of `base`.
    fn is_share(&self, late: &[&Arc<DataFile>], base: &[&Arc<DataFile>]) -> bool {
        let rows = |files: &[&Arc<DataFile>]| files.iter().map(|file| file.rows).sum::<u64>();
        let (late, base) = (rows(late), rows(base));
        late > 0 && late.saturating_mul(100) >= base.saturating_mul(self.thresholds.late_percent)
    }

    /// Returns the range boundaries of the day: those that its own files already have, and those of the previous day
    /// that do not cut a file of this day.
    fn boundaries(&self) -> Vec<Arc<str>> {
        let before = self.before.into_iter().flat_map(DayFiles::files).filter(|file| level(&file.path) >= 2);
        let (own, before) = (from_level(&self.all, 2), before.collect::<Vec<_>>());
        with_inherited(&own, sized_boundaries(&before, self.thresholds.range_bytes))
    }

    fn cuts_of_level_2(&self, boundaries: &[Arc<str>]) -> FileCuts {
        // Without boundaries, the sizes of the first files set them.
        let sizes = if boundaries.is_empty() { 1 } else { 2 };
        FileCuts { boundaries: boundaries.to_vec(), ..FileCuts::by_size(self.thresholds.level_2_bytes * sizes) }
    }

    fn cuts_of_level_3(&self, boundaries: Vec<Arc<str>>) -> FileCuts {
        let thresholds = self.thresholds;
        let all: u64 = self.all.iter().map(|(_, file)| file.size).fold(0, u64::saturating_add);
        let file_bytes = all / thresholds.level_3_files.max(1);
        FileCuts {
            boundaries,
            file_bytes: file_bytes.max(thresholds.level_3_bytes_min).min(thresholds.level_3_bytes_max),
            tenant_group_rows_max: LEVEL_3_GROUP_ROWS_MAX,
        }
    }

    /// Returns the units of one level that are due.
    fn due(&self, files: &[&'a Arc<DataFile>], trigger: &Trigger) -> Vec<Vec<&'a Arc<DataFile>>> {
        let mut chunks = self.chunks(files, trigger.files, trigger.bytes.min(self.thresholds.unit_bytes_max));
        if let Some(last) = chunks.last() {
            let is_old = last.first().is_some_and(|file| age(file, self.now) >= trigger.old_age);
            let is_full = last.len() >= trigger.files || bytes(last) >= trigger.bytes;
            if !(is_full || is_old && last.len() >= trigger.old_files) {
                chunks.pop();
            }
        }
        chunks
    }

    /// Splits files into units of at most `files_max` files and `bytes_max` bytes. Leaves out files that are too large.
    fn chunks(&self, files: &[&'a Arc<DataFile>], files_max: usize, bytes_max: u64) -> Vec<Vec<&'a Arc<DataFile>>> {
        let mut chunks: Vec<Vec<&Arc<DataFile>>> = Vec::new();
        for file in files.iter().filter(|file| file.size <= self.thresholds.unit_bytes_max) {
            match chunks.last_mut() {
                Some(chunk) if chunk.len() < files_max && bytes(chunk).saturating_add(file.size) <= bytes_max => {
                    chunk.push(file);
                }
                _ => chunks.push(vec![file]),
            }
        }
        chunks
    }

    fn unit(&self, level: u8, files: Vec<&Arc<DataFile>>, cuts: FileCuts) -> Unit {
        Unit { day: self.day, level, inputs: files.into_iter().cloned().collect(), cuts }
    }
}

fn age(file: &DataFile, now: Micros) -> Micros {
    now.saturating_sub(file.modified.saturating_mul(1_000))
}

/// Returns the files of this level and of higher levels.
fn from_level<'a>(files: &[LeveledFile<'a>], least: u8) -> Vec<&'a Arc<DataFile>> {
    files.iter().filter(|(level, _)| *level >= least).map(|(_, file)| *file).collect()
}

fn bytes(files: &[&Arc<DataFile>]) -> u64 {
    files.iter().map(|file| file.size).fold(0, u64::saturating_add)
}

fn in_order(mut files: Vec<&Arc<DataFile>>) -> Vec<&Arc<DataFile>> {
    files.sort_unstable_by_key(|file| (file.modified, &file.path));
    files
}

/// Returns the number of pieces into which the output of a unit is cut: a power of two, so that it seldom changes.
fn pieces(files: &[&Arc<DataFile>], piece_bytes: u64) -> usize {
    let pieces = (bytes(files) + piece_bytes / 2) / piece_bytes.max(1);
    usize::try_from(pieces).unwrap_or(usize::MAX).clamp(1, 1 << 10).next_power_of_two()
}

/// Returns the boundaries of `pieces` pieces with about the same number of ranges.
fn coarse(boundaries: &[Arc<str>], pieces: usize) -> Vec<Arc<str>> {
    let picked = (1..pieces).map(|piece| (boundaries.len() + 1) * piece / pieces);
    let mut picked: Vec<usize> = picked.filter_map(|index| index.checked_sub(1)).collect();
    picked.dedup();
    picked.into_iter().map(|index| Arc::clone(&boundaries[index])).collect()
}
