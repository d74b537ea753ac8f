//! Compares [`LiveFiles`] with a plain list of files, over random log entries.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use super::day_files::{CHUNK_FILES_MAX, day_of_path};
use super::file_history::FileChange;
use super::live_files::LiveFiles;
use crate::lake::DataFile;
use crate::lake::log::table_state::day_text;

const FIRST_DAY: i32 = 20_513;
const DAYS: i32 = 4;

/// A log entry, and whether it is a correct rewrite.
#[derive(Debug, Default)]
struct Entry {
    added: Vec<Arc<DataFile>>,
    removed: Vec<Arc<str>>,
    changes_data: bool,
    is_rewrite: bool,
}

/// The live files as a list, in no order. The rows of a file are numbers, which its `ids` list.
#[derive(Debug, Clone, Default)]
struct Model {
    live: Vec<Arc<DataFile>>,
    /// The number of files and rows so far.
    files: u64,
    rows: u64,
}

impl Model {
    fn apply(&mut self, entry: &Entry) {
        let added = entry.added.iter().map(|file| &file.path);
        let paths: HashSet<&Arc<str>> = entry.removed.iter().chain(added).collect();
        self.live.retain(|file| !paths.contains(&file.path));
        self.live.extend(entry.added.iter().cloned());
    }

    /// Returns a file with the given rows. Some paths name no day or another day.
    fn file(&mut self, random: &mut StdRng, day: i32, rows: &[String]) -> Arc<DataFile> {
        self.files += 1;
        // Names are not in the order in which the files are added.
        let name = format!("{:04x}-{}.parquet", random.random::<u16>(), self.files);
        let path = match random.random_range(0..20) {
            0 => name,
            1 => format!("event_date={}/{name}", day_text(day + 1).unwrap()),
            2 => format!("event_date=__HIVE_DEFAULT_PARTITION__/{name}"),
            _ => format!("event_date={}/{name}", day_text(day).unwrap()),
        };
        file(path.into(), day, rows)
    }

    fn new_rows(&mut self, count: u64) -> Vec<String> {
        self.rows += count;
        (self.rows - count..self.rows).map(|row| row.to_string()).collect()
    }

    fn new_file(&mut self, random: &mut StdRng) -> Arc<DataFile> {
        let rows = self.new_rows(random.random_range(0..3));
        let day = FIRST_DAY + random.random_range(0..DAYS);
        self.file(random, day, &rows)
    }

    fn some(&self, random: &mut StdRng, count: usize) -> Vec<Arc<DataFile>> {
        self.live.sample(random, count).cloned().collect()
    }

    fn entry(&mut self, random: &mut StdRng) -> Entry {
        let kind = random.random_range(0..12);
        let count =
            if random.random_range(0..4) == 0 { random.random_range(1..500) } else { random.random_range(1..4) };
        match kind {
            0..4 => Entry {
                added: (0..count).map(|_| self.new_file(random)).collect(),
                changes_data: random.random(),
                ..Entry::default()
            },
            // A rewrite of files of one day, or of several days if it moves rows.
            4..8 => {
                let mut from = self.some(random, count);
                let moves = random.random_range(0..8) == 0;
                let day = from.first().map_or(FIRST_DAY, |file| file.day);
                from.retain(|file| moves || file.day == day);
                let mut rows: Vec<String> = from.iter().flat_map(|file| rows_of(file)).collect();
                // Some entries only claim that no data has changed.
                let is_wrong = random.random_range(0..8) == 0 && rows.pop().is_some();
                let cut = random.random_range(0..=rows.len());
                let (first, second) = rows.split_at(cut);
                Entry {
                    added: vec![self.file(random, day, first), self.file(random, day, second)],
                    removed: from.iter().map(|file| Arc::clone(&file.path)).collect(),
                    changes_data: false,
                    is_rewrite: !from.is_empty() && !is_wrong,
                }
            }
            // Removed files, of which some are unknown or named twice.
            8 | 9 => {
                let mut removed: Vec<Arc<str>> =
                    self.some(random, count).iter().map(|file| Arc::clone(&file.path)).collect();
                removed.extend(removed.first().cloned().filter(|_| random.random()));
                removed.extend(random.random::<bool>().then(|| "event_date=2026-03-02/unknown.parquet".into()));
                let added: Vec<_> = (0..random.random_range(0..2)).map(|_| self.new_file(random)).collect();
                let changes_data = !added.is_empty() || random.random();
                Entry { added, removed, changes_data, is_rewrite: false }
            }
            // Files that are removed and added again, or only added again, possibly with another day or other rows.
            _ => {
                let files = self.some(random, count);
                let mut again = |file: &Arc<DataFile>| match random.random_range(0..3) {
                    0 => file_of_other_day(file),
                    1 => file_with(file, &self.new_rows(2)),
                    _ => Arc::clone(file),
                };
                let added = files.iter().map(&mut again).collect();
                let removed =
                    if kind == 10 { files.iter().map(|file| Arc::clone(&file.path)).collect() } else { vec![] };
                Entry { added, removed, changes_data: true, is_rewrite: false }
            }
        }
    }
}

fn file(path: Arc<str>, day: i32, rows: &[String]) -> Arc<DataFile> {
    let size = 10 + rows.len() as u64;
    let modified = rows.first().map_or(-1, |row| row.parse().unwrap());
    let received = Some((0, modified)).filter(|_| rows.len() == 2);
    let (rows, ids) = (rows.len() as u64, Some((rows.join(",").into(), "".into())));
    Arc::new(DataFile { path, size, rows, day, tenants: None, times: None, ids, received, modified })
}

fn file_of_other_day(of: &DataFile) -> Arc<DataFile> {
    file(Arc::clone(&of.path), FIRST_DAY + (of.day + 1 - FIRST_DAY) % DAYS, &rows_of(of))
}

fn file_with(of: &DataFile, rows: &[String]) -> Arc<DataFile> {
    file(Arc::clone(&of.path), of.day, rows)
}

fn rows_of(file: &DataFile) -> Vec<String> {
    let rows = file.ids.as_ref().map_or("", |(rows, _)| rows);
    rows.split(',').filter(|row| !row.is_empty()).map(str::to_owned).collect()
}

/// The day's `changed` and rows.
type DayRows = BTreeMap<i32, (u64, BTreeSet<String>)>;

/// Compares the files with the model, and returns the rows of each day.
fn check(live: &LiveFiles, model: &Model) -> DayRows {
    let mut expected = model.live.clone();
    expected.sort_by(|left, right| (left.day, &left.path).cmp(&(right.day, &right.path)));
    let files: Vec<_> = live.days().values().flat_map(|day| day.files().cloned()).collect();
    assert_eq!(files, expected);
    assert_eq!(live.len(), expected.len());
    assert_eq!(live.rows(), expected.iter().map(|file| file.rows).sum::<u64>());
    let days: BTreeSet<i32> = expected.iter().map(|file| file.day).collect();
    assert!(live.days().keys().eq(&days), "no day is empty");
    let rows = live.days().iter().map(|(number, day)| {
        assert!(day.files().all(|file| file.day == *number) && day.day() == *number);
        assert_eq!(day.len(), day.files().count());
        assert_eq!(day.rows(), day.files().map(|file| file.rows).sum::<u64>());
        assert_eq!(day.bytes(), day.files().map(|file| file.size).sum::<u64>());
        assert_eq!(day.misplaced(), day.files().filter(|file| day_of_path(&file.path) != Some(*number)).count());
        assert_eq!(day.newest_received(), day.files().filter_map(|file| Some(file.received?.1)).max());
        assert_eq!(day.newest_modified(), day.files().map(|file| file.modified).max());
        let sizes = day.chunk_sizes();
        assert!(sizes.iter().all(|size| (1..=CHUNK_FILES_MAX).contains(size)), "{sizes:?}");
        assert!(sizes.windows(2).all(|pair| pair[0] + pair[1] > CHUNK_FILES_MAX / 2), "{sizes:?}");
        (*number, (day.changed(), day.files().flat_map(|file| rows_of(file)).collect()))
    });
    rows.collect()
}

#[test]
fn random_entries_change_the_same_files_as_in_a_list() {
    for seed in 0..6 {
        let random = &mut StdRng::seed_from_u64(seed);
        let (mut model, mut live) = (Model::default(), LiveFiles::default());
        let mut versions: Vec<(LiveFiles, Model, DayRows)> = Vec::new();
        let mut version = 0;
        for _ in 0..40 {
            // Several entries are often applied at once.
            let start = live.clone();
            for _ in 0..random.random_range(1..4) {
                version += 1;
                let entry = model.entry(random);
                let before = model.clone();
                let mut changed: Vec<_> = live.days().values().map(|day| (day.day(), day.changed())).collect();
                model.apply(&entry);
                let change = live.apply(version, entry.added.clone(), &entry.removed, entry.changes_data, false);
                check_change(&change, &entry, &before);
                let is_rewrite_of_one_day = change.is_rewrite
                    && change.added.iter().chain(&change.removed).all(|file| file.day == change.removed[0].day);
                if is_rewrite_of_one_day {
                    // A rewrite can drop a day without rows.
                    changed.retain(|(day, _)| live.days().contains_key(day));
                    let now: Vec<_> = live.days().values().map(|day| (day.day(), day.changed())).collect();
                    assert_eq!(now, changed, "seed {seed}: a rewrite changes no rows");
                }
            }
            if let Some((last, model, rows)) = versions.last() {
                assert_eq!(check(&start, model), *rows, "the version before is unchanged");
                assert_eq!(start.len(), last.len());
            }
            let rows = check(&live, &model);
            let loaded = LiveFiles::of_checkpoint(version, model.live.clone());
            let loaded_rows = check(&loaded, &model);
            assert!(loaded_rows.values().all(|(changed, _)| *changed == version));
            versions.push((live.clone(), model.clone(), rows));
            if random.random_range(0..10) == 0 {
                live = loaded;
                versions.pop();
                versions.push((live.clone(), model.clone(), loaded_rows));
            }
        }
        let mut known: BTreeMap<(i32, u64), BTreeSet<String>> = BTreeMap::new();
        for (live, model, rows) in &versions {
            assert_eq!(check(live, model), *rows, "seed {seed}: an old version is unchanged");
            for (day, (changed, rows)) in rows {
                let first = known.entry((*day, *changed)).or_insert_with(|| rows.clone());
                assert_eq!(first, rows, "seed {seed}: day {day} changed after version {changed}");
            }
        }
    }
}

/// Checks the removed files of a change, and whether it is a rewrite.
fn check_change(change: &FileChange, entry: &Entry, before: &Model) {
    let paths = |files: &[Arc<DataFile>]| files.iter().map(|file| Arc::clone(&file.path)).collect::<BTreeSet<_>>();
    let live = paths(&before.live);
    let removed: BTreeSet<Arc<str>> = entry.removed.iter().filter(|path| live.contains(*path)).cloned().collect();
    assert_eq!((paths(&change.removed), change.removed.len()), (removed.clone(), removed.len()));
    assert!(change.removed.iter().all(|file| before.live.contains(file)));
    assert_eq!(change.added, entry.added);
    if entry.is_rewrite {
        assert!(change.is_rewrite, "{entry:?}");
    }
    if change.is_rewrite {
        let rows = |files: &[Arc<DataFile>]| files.iter().flat_map(|file| rows_of(file)).collect::<BTreeSet<_>>();
        assert_eq!(rows(&change.added), rows(&change.removed), "a rewrite has the same rows");
    }
}
