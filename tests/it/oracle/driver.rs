//! Generates cases from many seeds, and compares the results of a decoder and its oracle. A run checks a fixed number
//! of seeds, or as many seeds as it can within a given time.
//!
//! `GLASSHOUSE_FUZZ_SECONDS=60` runs new seeds for a minute, and `GLASSHOUSE_FUZZ_SEED=17` runs only seed 17. If a seed
//! fails, the test prints the seed, the smallest failing input that it found, and the difference between the outcomes.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use glasshouse::contract::Reason;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use super::{Tally, json, protobuf};

/// The number of seeds in an ordinary test run.
const SEEDS: u64 = 500;
/// The maximum number of bytes per seed, which is enough for a table and a few bodies.
const BYTES_MAX: usize = 4_096;
/// The time limit for reducing a failing case.
const SHRINK_TIME_MAX: Duration = Duration::from_secs(20);

type Check = fn(&[u8]) -> Result<Tally, String>;

#[test]
fn json_is_read_as_serde_json_reads_it() {
    use Reason::{
        DuplicateKey, ForeignTenant, InvalidUtf8, Malformed, MissingId, MissingTenant, MissingTime, NotFinite,
        OutOfRange, TimeOutOfRange, TooLarge, UnknownField, WrongType,
    };
    let reasons = [
        DuplicateKey,
        ForeignTenant,
        InvalidUtf8,
        Malformed,
        MissingId,
        MissingTenant,
        MissingTime,
        NotFinite,
        OutOfRange,
        TimeOutOfRange,
        TooLarge,
        UnknownField,
        WrongType,
    ];
    run_seeds("json", json, &reasons);
}

#[test]
fn protobuf_is_read_as_prost_reflect_reads_it() {
    use Reason::{
        ForeignTenant, InvalidUtf8, Malformed, MissingId, MissingTenant, MissingTime, NotFinite, OutOfRange,
        TimeOutOfRange, TooLarge, WrongType,
    };
    let reasons = [
        ForeignTenant,
        InvalidUtf8,
        Malformed,
        MissingId,
        MissingTenant,
        MissingTime,
        NotFinite,
        OutOfRange,
        TimeOutOfRange,
        TooLarge,
        WrongType,
    ];
    run_seeds("protobuf", protobuf, &reasons);
}

/// Runs a check for each seed, until all seeds have been checked or the given time has passed. An ordinary run must
/// produce rows, and rejected events for each of the given reasons. Otherwise, the generated cases are too simple.
fn run_seeds(name: &str, check: Check, reasons: &[Reason]) {
    let number = |key: &str| std::env::var_os(key).map(|text| text.into_string().unwrap().parse::<u64>().unwrap());
    let seconds = number("GLASSHOUSE_FUZZ_SECONDS");
    let (first, end) = match (number("GLASSHOUSE_FUZZ_SEED"), seconds) {
        (Some(seed), _) => (seed, seed + 1),
        (None, Some(_)) => (rand::random::<u64>() >> 1, u64::MAX),
        (None, None) => (0, SEEDS),
    };
    let until = seconds.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    let (next, failed, tally) = (AtomicU64::new(first), Mutex::new(None), Mutex::new(Tally::new()));
    let is_over = || failed.lock().unwrap().is_some() || until.is_some_and(|until| Instant::now() >= until);
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end || is_over() {
                        break;
                    }
                    match run(check, &bytes(seed)) {
                        Ok(counts) => {
                            let mut tally = tally.lock().unwrap();
                            counts.into_iter().for_each(|(reason, count)| *tally.entry(reason).or_default() += count);
                        }
                        Err(_) => drop(failed.lock().unwrap().get_or_insert(seed)),
                    }
                }
            });
        }
    });
    if let Some(seed) = failed.into_inner().unwrap() {
        let (bytes, what) = shrink(check, bytes(seed));
        panic!("{name}: seed {seed} fails; smallest failing input: {bytes:?}\n{what}");
    }
    let tally = tally.into_inner().unwrap();
    println!("{name}: {} seeds from {first}: {tally:?}", next.into_inner().min(end) - first);
    if (first, end) == (0, SEEDS) {
        let rows = tally.get(&None).copied().unwrap_or_default();
        assert!(rows * 10 > tally.values().sum::<usize>(), "{name}: too few events become rows: {tally:?}");
        let missing: Vec<_> = reasons.iter().filter(|reason| !tally.contains_key(&Some(**reason))).collect();
        assert!(missing.is_empty(), "{name}: no event is rejected for {missing:?}: {tally:?}");
    }
}

fn bytes(seed: u64) -> Vec<u8> {
    let mut random = SmallRng::seed_from_u64(seed);
    let length = random.random_range(0..BYTES_MAX);
    (0..length).map(|_| random.random()).collect()
}

/// Runs a check. A panic counts as a failure.
fn run(check: Check, bytes: &[u8]) -> Result<Tally, String> {
    catch_unwind(AssertUnwindSafe(|| check(bytes))).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default())
    })
}

/// Makes a failing input smaller in steps, and keeps each smaller input that still fails. Returns the smallest input
/// that it finds, and the error for this input.
fn shrink(check: Check, mut bytes: Vec<u8>) -> (Vec<u8>, String) {
    let until = Instant::now() + SHRINK_TIME_MAX;
    let mut what = run(check, &bytes).err().unwrap_or_default();
    let mut attempt = |bytes: &mut Vec<u8>, smaller: Vec<u8>| {
        let error = run(check, &smaller).err();
        let is_smaller = error.is_some();
        if let Some(error) = error {
            (*bytes, what) = (smaller, error);
        }
        is_smaller
    };
    let mut step = bytes.len().div_ceil(2);
    while step > 0 && Instant::now() < until {
        let mut at = 0;
        while at < bytes.len() && Instant::now() < until {
            let end = bytes.len().min(at + step);
            let cut = [&bytes[..at], &bytes[end..]].concat();
            let zeros = [&bytes[..at], &vec![0; end - at], &bytes[end..]].concat();
            let is_zero = zeros == bytes;
            if !attempt(&mut bytes, cut) {
                if !is_zero {
                    attempt(&mut bytes, zeros);
                }
                at = end;
            }
        }
        step /= 2;
    }
    (bytes, what)
}
