//! Tests of seeded schedules of crashes and faults: each event is stored once, and a topic is read exactly once.
//!
//! A seed determines the schedule: the requests of each client, the outcome of each store request, when each process crashes,
//! and the outcome of the requests that were then in flight. Every run plays [`SEEDS`]. To play another seed and print its
//! trace, run `GLASSHOUSE_SCHEDULES=17 cargo test --lib sim::tests::selection`; `GLASSHOUSE_SCHEDULES=1000..9000` plays a
//! range. Without the variable, that test plays one seed that is not among [`SEEDS`].

use std::ops::Range;

use super::audit::audit;
use super::schedule::{PlayedSchedule, play};

/// The seeds of every run, split into four tests that run in parallel.
const SEEDS: [Range<u64>; 4] = [0..32, 32..64, 64..96, 96..128];

/// The seed that [`selection`] runs by default.
const DEFAULT: u64 = 128;

/// Plays a seed and audits the result. Returns the number of crashes.
fn check(seed: u64) -> Result<usize, String> {
    let PlayedSchedule { bucket, expected, deaths, .. } = play(seed)?;
    audit(&bucket.objects, &expected).map(|()| deaths).map_err(|fault| fault.to_string())
}

/// Plays all seeds of a range, and reports those that fail.
fn check_all(seeds: Range<u64>) {
    let (mut deaths, mut failed) = (0, Vec::new());
    for seed in seeds.clone() {
        match check(seed) {
            Ok(died) => deaths += died,
            Err(fault) => failed.push(format!("GLASSHOUSE_SCHEDULES={seed}: {fault}")),
        }
    }
    assert!(failed.is_empty(), "{} of {seeds:?} fail\n{}", failed.len(), failed.join("\n"));
    assert!(deaths > 0, "no process crashed in any of the schedules");
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
        let traces = [play(seed), play(seed)].map(|played| played.unwrap().bucket.trace());
        assert_eq!(traces[0], traces[1], "seed {seed}");
    }
}

#[test]
fn selection() {
    // Without the variable this plays one seed, so that the test can fail in every run.
    let selection = std::env::var_os("GLASSHOUSE_SCHEDULES")
        .map_or_else(|| DEFAULT.to_string(), |text| text.into_string().unwrap());
    match selection.split_once("..") {
        Some((first, end)) => {
            let (first, end): (u64, u64) = (first.parse().unwrap(), end.parse().unwrap());
            assert!(first < end, "GLASSHOUSE_SCHEDULES={selection} is an empty range: it names no seed");
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
            let played = play(seed).unwrap();
            println!("{}", played.bucket.trace().join("\n"));
            audit(&played.bucket.objects, &played.expected).unwrap();
        }
    }
}
