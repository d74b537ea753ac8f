//! Tests with random schedules of crashes, faults, and rewrites and removals of files. Each event must be stored once, and each
//! message in a topic must be processed exactly once.
//!
//! A seed determines the requests of each client, the outcome of each store request, the time of each crash, and the
//! outcome of the requests that are in flight at the crash. Every test run covers [`SEEDS`]. To check another seed and
//! print the trace of its schedule, run `GLASSHOUSE_SCHEDULES=17 cargo test --lib sim::tests::selected_schedules`. With
//! `GLASSHOUSE_SCHEDULES=1000..9000`, this test checks a range of seeds. Without the variable, it checks only the seed
//! [`DEFAULT`].

use std::ops::Range;

use super::audit::audit;
use super::audit_deletes::audit_deletes;
use super::schedule::{ScheduleResult, run_schedule};

/// The seeds that every test run covers, split into four tests that run in parallel.
const SEEDS: [Range<u64>; 4] = [0..32, 32..64, 64..96, 96..128];

/// The seed that [`selected_schedules`] runs by default.
const DEFAULT: u64 = 128;

/// Runs the schedule of a seed and audits the result. Returns the numbers of crashes, of rewrites, of expired files that
/// were removed, and of files that vacuums have deleted.
fn check(seed: u64) -> Result<[u64; 4], String> {
    let result = run_schedule(seed)?;
    let ScheduleResult { bucket, expected, has_expired, crashes, rewrites, files_removed, vacuumed, .. } = result;
    audit(&bucket.archive(), &expected, has_expired)?;
    audit_deletes(&bucket)?;
    Ok([crashes as u64, rewrites as u64, files_removed as u64, vacuumed])
}

/// Runs all seeds in a range, and reports those that fail.
fn check_all(seeds: Range<u64>) {
    let (mut totals, mut failed) = ([0; 4], Vec::new());
    for seed in seeds.clone() {
        match check(seed) {
            Ok(counts) => totals.iter_mut().zip(counts).for_each(|(total, count)| *total += count),
            Err(failure) => failed.push(format!("GLASSHOUSE_SCHEDULES={seed}: {failure}")),
        }
    }
    assert!(failed.is_empty(), "{} of {seeds:?} fail\n{}", failed.len(), failed.join("\n"));
    let [crashes, rewrites, files_removed, vacuumed] = totals;
    assert!(crashes > 0, "no process crashed in any of the schedules");
    assert!(rewrites > 0, "no file was rewritten in any of the schedules");
    assert!(files_removed > 0, "no expired file was removed in any of the schedules");
    assert!(vacuumed > 0, "no file was deleted in any of the schedules");
}

#[test]
fn each_event_is_stored_once_in_the_first_schedules() {
    check_all(SEEDS[0].clone());
}

#[test]
fn each_event_is_stored_once_in_the_second_schedules() {
    check_all(SEEDS[1].clone());
}

#[test]
fn each_event_is_stored_once_in_the_third_schedules() {
    check_all(SEEDS[2].clone());
}

#[test]
fn each_event_is_stored_once_in_the_fourth_schedules() {
    check_all(SEEDS[3].clone());
}

#[test]
fn a_seed_determines_the_schedule() {
    for seed in SEEDS[0].clone().step_by(8) {
        let traces = [run_schedule(seed), run_schedule(seed)].map(|result| result.unwrap().bucket.trace());
        assert_eq!(traces[0], traces[1], "seed {seed}");
    }
}

#[test]
fn selected_schedules() {
    // Check one seed even if the variable is not set, so that this code runs in every test run.
    let selection = std::env::var_os("GLASSHOUSE_SCHEDULES")
        .map_or_else(|| DEFAULT.to_string(), |text| text.into_string().unwrap());
    match selection.split_once("..") {
        Some((first, end)) => {
            let (first, end): (u64, u64) = (first.parse().unwrap(), end.parse().unwrap());
            assert!(
                first < end,
                "GLASSHOUSE_SCHEDULES={selection} is an empty range; the start must be less than the end"
            );
            let cores = std::thread::available_parallelism().map_or(1, usize::from) as u64;
            let part = (end - first).div_ceil(cores).max(1);
            std::thread::scope(|scope| {
                for start in (first..end).step_by(usize::try_from(part).unwrap()) {
                    scope.spawn(move || check_all(start..end.min(start + part)));
                }
            });
        }
        None => {
            let seed = selection.parse().unwrap();
            let result = run_schedule(seed).unwrap();
            println!("{}", result.bucket.trace().join("\n"));
            audit(&result.bucket.archive(), &result.expected, result.has_expired).unwrap();
            audit_deletes(&result.bucket).unwrap();
        }
    }
}
