//! Tests the policy with simulated days: only statistics of files, no rows, and a simulated clock.

use std::collections::HashMap;
use std::sync::Arc;

use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};
use uuid::Uuid;

use super::file_cuts::FileCuts;
use super::file_name::level;
use super::policy::{Excluded, FinishedDays, Thresholds, Unit, plan};
use crate::clock::{DAY, Micros, SECOND};
use crate::lake::{DataFile, Snapshot};

const TODAY: i32 = 20_513;
const TENANTS: usize = 5_000;
/// The bytes that an event takes at each level.
const ROW_BYTES: [f64; 4] = [58.0, 50.0, 46.0, 43.0];

/// The share of each tenant, in the order of their names. The largest tenant has 10 %, and the others follow Zipf's
/// law.
struct Tenants {
    /// The total share of all tenants before each index.
    before: Vec<f64>,
    largest: usize,
    median: usize,
}

impl Tenants {
    fn new() -> Self {
        let exponent = {
            let first = |exponent: f64| 1.0 / (1..=TENANTS).map(|rank| (rank as f64).powf(-exponent)).sum::<f64>();
            let (mut low, mut high) = (0.0, 4.0);
            for _ in 0..60 {
                let middle = f64::midpoint(low, high);
                if first(middle) < 0.10 { low = middle } else { high = middle }
            }
            low
        };
        let weight = |rank: usize| ((rank + 1) as f64).powf(-exponent);
        let total: f64 = (0..TENANTS).map(weight).sum();
        // The rank of the tenant at each position: 3,001 and 5,000 have no common divisor.
        let rank = |position: usize| position * 3_001 % TENANTS;
        let mut before = vec![0.0];
        for position in 0..TENANTS {
            before.push(before[position] + weight(rank(position)) / total);
        }
        let position_of = |wanted: usize| (0..TENANTS).find(|position| rank(*position) == wanted).unwrap();
        Self { before, largest: position_of(0), median: position_of(TENANTS / 2) }
    }

    fn share(&self, from: usize, to: usize) -> f64 {
        self.before[to] - self.before[from]
    }
}

fn name(position: usize) -> Arc<str> {
    format!("tenant-{position:05}").into()
}

/// A file: its tenants `from..to`, and the number of rows of all tenants that were received while its rows were. A file
/// that contains only a part of one tenant has a smaller `part`.
#[derive(Debug, Clone, Copy)]
struct Content {
    from: usize,
    to: usize,
    rows_of_all: f64,
    part: f64,
}

/// A simulated table.
struct Simulation {
    tenants: Tenants,
    thresholds: Thresholds,
    files: Vec<Arc<DataFile>>,
    contents: HashMap<Arc<str>, Content>,
    now: Micros,
    written: f64,
    /// The number of live level-0 files.
    waiting: usize,
    runs: [usize; 4],
    made: [usize; 4],
}

impl Simulation {
    fn new() -> Self {
        Self {
            tenants: Tenants::new(),
            thresholds: Thresholds::default(),
            files: Vec::new(),
            contents: HashMap::new(),
            now: i64::from(TODAY) * DAY,
            written: 0.0,
            waiting: 0,
            runs: [0; 4],
            made: [0; 4],
        }
    }

    fn add(&mut self, day: i32, level: u8, content: Content, received: (Micros, Micros)) {
        let rows = content.rows_of_all * self.tenants.share(content.from, content.to) * content.part;
        let size = rows * ROW_BYTES[usize::from(level)];
        let name_of_file = match level {
            0 => format!("event_date=x/part-{}.zstd.parquet", Uuid::now_v7()),
            level => format!("event_date=x/part-{level}-0-{}.zstd.parquet", Uuid::now_v7()),
        };
        let file = DataFile {
            path: name_of_file.into(),
            size: size as u64,
            rows: rows as u64,
            day,
            tenants: Some((name(content.from), name(content.to - 1))),
            times: None,
            ids: None,
            received: Some(received),
            modified: self.now / 1_000,
        };
        self.waiting += usize::from(level == 0);
        self.written += size;
        self.made[usize::from(level)] += 1;
        self.contents.insert(Arc::clone(&file.path), content);
        self.files.push(Arc::new(file));
    }

    fn commit(&mut self, day: i32, rows: f64) {
        let content = Content { from: 0, to: TENANTS, rows_of_all: rows, part: 1.0 };
        self.add(day, 0, content, (self.now, self.now));
    }

    fn plan(&self, now: Micros, excluded: &Excluded) -> Vec<Unit> {
        let snapshot = Snapshot::of(1, self.files.clone());
        plan(&snapshot, now, &self.thresholds, excluded, &mut FinishedDays::default())
    }

    /// Plans and runs all units that are due.
    fn maintain(&mut self) -> usize {
        let units = self.plan(self.now, &Excluded::default());
        check(&units, &self.thresholds);
        let count = units.len();
        for unit in units {
            self.run(&unit);
        }
        count
    }

    /// Replaces the inputs of a unit by the files that a merge would write.
    fn run(&mut self, unit: &Unit) {
        self.runs[usize::from(unit.level)] += 1;
        let inputs: std::collections::HashSet<&Arc<str>> = unit.inputs.iter().map(|file| &file.path).collect();
        self.waiting -= inputs.iter().filter(|path| level(path) == 0).count();
        self.files.retain(|file| !inputs.contains(&file.path));
        let contents: Vec<Content> = inputs.iter().map(|path| self.contents[*path]).collect();
        let times = unit.inputs.iter().filter_map(|file| file.received);
        let received = times.fold((Micros::MAX, Micros::MIN), |all, it| (all.0.min(it.0), all.1.max(it.1)));
        let (first, last) = (contents.iter().map(|it| it.from).min(), contents.iter().map(|it| it.to).max());
        let boundaries: Vec<usize> = unit.cuts.boundaries.iter().map(|it| it[7..].parse().unwrap()).collect();
        // The rows of all tenants, of which each tenant has its share.
        let mut changes: Vec<(usize, f64)> = contents
            .iter()
            .flat_map(|it| [(it.from, it.rows_of_all * it.part), (it.to, -it.rows_of_all * it.part)])
            .collect();
        changes.sort_unstable_by_key(|(position, _)| *position);
        let (mut changes, mut all, mut outputs) = (changes.into_iter().peekable(), 0.0, Vec::new());
        let target = unit.cuts.file_bytes as f64 / ROW_BYTES[usize::from(unit.level)];
        let (mut start, mut rows) = (first.unwrap(), 0.0);
        let mut end_file = |from: usize, to: usize, rows: f64, pieces: f64| {
            if rows >= 1.0 {
                let rows_of_all = rows / self.tenants.share(from, to);
                let content = Content { from, to, rows_of_all, part: 1.0 / pieces };
                outputs.extend(std::iter::repeat_n(content, pieces as usize));
            }
        };
        for position in first.unwrap()..last.unwrap() {
            if position > start && (rows >= target || boundaries.binary_search(&position).is_ok()) {
                end_file(start, position, rows, 1.0);
                (start, rows) = (position, 0.0);
            }
            while let Some((_, change)) = changes.next_if(|(at, _)| *at <= position) {
                all += change;
            }
            let own = all * self.tenants.share(position, position + 1);
            // A large tenant fills several files.
            let pieces = (own / target).floor();
            if pieces >= 2.0 {
                end_file(start, position, rows, 1.0);
                end_file(position, position + 1, own, pieces);
                (start, rows) = (position + 1, 0.0);
            } else {
                rows += own;
            }
        }
        end_file(start, last.unwrap(), rows, 1.0);
        for output in outputs {
            self.add(unit.day, unit.level, output, received);
        }
    }

    /// Returns the number of live files that contain a tenant.
    fn touched(&self, day: i32, position: usize) -> usize {
        let live = self.files.iter().filter(|file| file.day == day);
        live.filter(|file| (self.contents[&file.path].from..self.contents[&file.path].to).contains(&position)).count()
    }

    fn count(&self, day: i32) -> usize {
        self.files.iter().filter(|file| file.day == day).count()
    }
}

/// Checks what is true of every plan.
fn check(units: &[Unit], thresholds: &Thresholds) {
    let mut seen = std::collections::HashSet::new();
    for unit in units {
        assert!(!unit.inputs.is_empty());
        assert!(unit.inputs.iter().map(|file| file.size).sum::<u64>() <= thresholds.unit_bytes_max, "{unit:?}");
        for file in &unit.inputs {
            assert_eq!(file.day, unit.day);
            assert!(seen.insert(Arc::clone(&file.path)), "units share a file");
        }
        assert!(unit.cuts.boundaries.is_sorted());
        let is_progress = unit.inputs.len() > 1 || unit.inputs.iter().all(|file| level(&file.path) < unit.level);
        assert!(is_progress, "{unit:?}");
    }
}

/// The figures of a simulated day.
#[derive(Debug)]
struct Figures {
    level_1_files: f64,
    level_2_runs: f64,
    hot_mean: f64,
    hot_max: f64,
    closed_files: f64,
    median_closed: f64,
    largest_closed: f64,
    amplification: f64,
}

/// Simulates a day with one commit a second during the first `hours` hours.
fn simulate(rows_per_second: f64, hours: i64) -> Figures {
    let mut table = Simulation::new();
    // The previous day is closed.
    let yesterday = TODAY - 1;
    table.commit(yesterday, rows_per_second * 86_400.0);
    let all = table.files[0].clone();
    let cuts =
        FileCuts { file_bytes: (all.size * 43 / 58 / 512).clamp(256_000_000, 1_000_000_000), ..FileCuts::by_size(0) };
    table.run(&Unit { day: yesterday, level: 3, inputs: vec![all], cuts });
    (table.written, table.runs, table.made) = (0.0, [0; 4], [0; 4]);
    let (mut sum, mut most, mut samples) = (0, 0, 0);
    // Fewer level-0 files are never due, so nothing is planned before.
    let files_min = if rows_per_second > 300_000.0 { 46 } else { 58 };
    for second in 0..hours * 3_600 {
        table.now = i64::from(TODAY) * DAY + second * SECOND;
        table.commit(TODAY, rows_per_second);
        if table.waiting >= files_min || second % 600 == 0 {
            table.maintain();
        }
        if second % 300 == 0 {
            let touched = table.touched(TODAY, table.tenants.median);
            (sum, most, samples) = (sum + touched, most.max(touched), samples + 1);
        }
    }
    table.now = (i64::from(TODAY) + 1) * DAY;
    // Two hours later, the day is closed.
    for _ in 0..120 {
        table.now += 60 * SECOND;
        table.maintain();
    }
    assert_eq!(table.maintain(), 0, "nothing is left to do");
    let live = table.files.iter().filter(|file| file.day == TODAY);
    assert!(live.clone().all(|file| level(&file.path) == 3));
    let at_rest: u64 = live.map(|file| file.size).sum();
    Figures {
        level_1_files: table.made[1] as f64 * 24.0 / hours as f64,
        level_2_runs: table.runs[2] as f64,
        hot_mean: f64::from(sum as u32) / f64::from(samples),
        hot_max: most as f64,
        closed_files: table.count(TODAY) as f64,
        median_closed: table.touched(TODAY, table.tenants.median) as f64,
        largest_closed: table.touched(TODAY, table.tenants.largest) as f64,
        amplification: table.written / at_rest as f64,
    }
}

#[test]
fn simulated_days_have_the_documented_figures() {
    // The day at 500,000 events a second is long enough to reach a steady state.
    for (rate, hours, expected) in [
        (10_000.0, 24, [1_800.0, 38.0, 73.0, 131.0, 137.0, 1.0, 14.0, 4.6]),
        (60_000.0, 24, [1_800.0, 53.0, 75.0, 131.0, 462.0, 1.0, 44.0, 4.6]),
        (500_000.0, 2, [18_700.0, 43.0, 51.0, 89.0, 553.0, 1.0, 45.0, 4.6]),
    ] {
        let found = simulate(rate, hours);
        println!("{rate} {found:?}");
        let figures = [
            found.level_1_files,
            found.level_2_runs,
            found.hot_mean,
            found.hot_max,
            found.closed_files,
            found.median_closed,
            found.largest_closed,
            found.amplification,
        ];
        for (index, (found, expected)) in figures.into_iter().zip(expected).enumerate() {
            let ratio = found / expected;
            assert!((1.0 / 1.2..=1.2).contains(&ratio), "{rate}: figure {index} is {found}, not {expected}");
        }
    }
}

#[test]
fn late_rows_are_merged_without_rewriting_the_day_each_time() {
    let mut table = Simulation::new();
    let rows = 5_000.0 * 86_400.0;
    for _ in 0..8 {
        table.commit(TODAY, rows / 8.0);
        table.now += SECOND;
    }
    let settle = |table: &mut Simulation| {
        for _ in 0..200 {
            table.now += 60 * SECOND;
            table.maintain();
        }
    };
    table.now = (i64::from(TODAY) + 1) * DAY;
    settle(&mut table);
    assert!(table.files.iter().all(|file| level(&file.path) == 3));
    // Late rows arrive for two days, a fifth of the day in total.
    table.written = 0.0;
    let commits = 2 * 1_440;
    let mut most = 0;
    for _ in 0..commits {
        table.now += 60 * SECOND;
        table.commit(TODAY, rows / 5.0 / f64::from(commits));
        table.maintain();
        most = most.max(table.touched(TODAY, table.tenants.median));
    }
    let late_bytes = rows / 5.0 * ROW_BYTES[3];
    let amplification = table.written / late_bytes;
    println!("late rows: amplification {amplification}, at most {most} files");
    assert!(amplification < 25.0 && most < 80, "{amplification} {most}");
    // Two days after the last late row, one late file is left.
    table.now += 2 * DAY;
    settle(&mut table);
    let left = table.touched(TODAY, table.tenants.median);
    assert!(left <= 8, "{left}");
    let rows_now: u64 = table.files.iter().map(|file| file.rows).sum();
    assert!((rows_now as f64 / (rows * 1.2) - 1.0).abs() < 0.001, "no rows are lost");
}

#[test]
fn a_single_late_file_is_left_alone() {
    let mut table = Simulation::new();
    table.commit(TODAY, 1e6);
    table.now = (i64::from(TODAY) + 2) * DAY;
    table.maintain();
    assert_eq!(table.files.iter().map(|file| level(&file.path)).collect::<Vec<_>>(), [3]);
    table.commit(TODAY, 10.0);
    for _ in 0..100 {
        table.now += DAY / 24;
        assert_eq!(table.maintain(), 0);
    }
    table.commit(TODAY, 10.0);
    table.now += 2 * DAY;
    table.maintain();
    assert_eq!(table.files.len(), 2, "two late files are merged into one");
}

#[test]
fn random_files_are_planned_soundly_and_only_finitely_often() {
    for seed in 0..60 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut table = Simulation::new();
        let start = i64::from(TODAY) * DAY;
        for _ in 0..rng.random_range(0..400) {
            let from = rng.random_range(0..TENANTS - 1);
            let to = rng.random_range(from + 1..=TENANTS);
            let content = Content { from, to, rows_of_all: 10_f64.powf(rng.random_range(0.0..9.5)), part: 1.0 };
            table.now = start + rng.random_range(-DAY..2 * DAY);
            let times = (table.now - SECOND, table.now);
            table.add(TODAY - rng.random_range(-2..3), rng.random_range(0..4), content, times);
        }
        // Bounds may be unknown, and files too large for a unit.
        for file in &mut table.files {
            let mut changed = DataFile::clone(file);
            match rng.random_range(0..20) {
                0 => changed.received = None,
                1 => changed.size = 6_000_000_000,
                2 => changed.modified = i64::MIN,
                _ => continue,
            }
            *file = Arc::new(changed);
        }
        table.now = start + 2 * DAY;
        let busy = table.files.iter().filter(|_| rng.random_range(0..10) == 0).map(|file| Arc::clone(&file.path));
        let excluded = Excluded { busy: busy.collect(), ..Excluded::default() };
        for now in [Micros::MIN, 0, table.now, Micros::MAX] {
            let units = table.plan(now, &excluded);
            check(&units, &table.thresholds);
            let inputs = units.iter().flat_map(|unit| &unit.inputs);
            assert!(inputs.clone().all(|file| !excluded.busy.contains(&file.path)));
        }
        // The files become fewer until there is nothing left to do.
        for _ in 0..200 {
            table.now += 3 * 3_600 * SECOND;
            table.maintain();
        }
        let units = table.plan(table.now, &Excluded::default());
        assert!(units.is_empty(), "seed {seed}: the plan never ends: {:?}", units[0]);
    }
}

#[test]
fn a_finished_day_is_skipped_until_its_files_change() {
    let mut table = Simulation::new();
    let content = Content { from: 0, to: TENANTS, rows_of_all: 1e6, part: 1.0 };
    for (day, level) in [(TODAY - 2, 3), (TODAY - 1, 0), (TODAY - 1, 0)] {
        table.add(day, level, content, (table.now, table.now));
    }
    table.now += 2 * DAY;
    let mut finished = FinishedDays::default();
    let mut planned = |table: &Simulation, snapshot: &Snapshot| {
        let units = plan(snapshot, table.now, &table.thresholds, &Excluded::default(), &mut finished);
        (units.iter().map(|unit| (unit.day, unit.inputs.len())).collect::<Vec<_>>(), finished.days())
    };
    let snapshot = Snapshot::of(1, table.files.clone());
    for _ in 0..2 {
        assert_eq!(planned(&table, &snapshot), (vec![(TODAY - 1, 2)], vec![TODAY - 2]));
    }
    for _ in 0..2 {
        table.add(TODAY - 2, 0, content, (table.now, table.now));
    }
    table.now += 2 * DAY;
    let snapshot = Snapshot::of(2, table.files.clone());
    assert_eq!(planned(&table, &snapshot), (vec![(TODAY - 1, 2), (TODAY - 2, 2)], vec![]));
}
