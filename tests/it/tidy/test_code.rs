//! Rules for test code: constructs that let a test pass or fail by chance.

use crate::source::{Fault, File, item_length, paths, words};

/// Files whose tests may sleep, each with the reason.
const SLEEPERS: [(&str, &str); 2] = [
    ("tests/it/crash.rs", "a crash happens at an arbitrary moment, not at one that the server chooses"),
    ("tests/it/server.rs", "a starting process is polled until it is ready"),
];

/// Attributes that mark a test.
const TESTS: [&str; 2] = ["#[test]", "#[tokio::test"];

pub(super) fn sleeps(file: &File) -> Vec<Fault> {
    if SLEEPERS.iter().any(|(path, _)| *path == file.path) {
        return Vec::new();
    }
    paths(&file.tests)
        .iter()
        .filter(|path| path.ends_with("time::sleep") || path.ends_with("thread::sleep"))
        .map(|path| Fault::new(path.line, "a test sleeps".to_owned()))
        .collect()
}

/// Finds tests that return early: they pass without their assertions. A test that cannot run on a machine is skipped by `needs!`
/// instead, see `needs.rs`.
pub(super) fn early_returns(file: &File) -> Vec<Fault> {
    let mut faults = Vec::new();
    for attribute in TESTS {
        for (start, _) in file.code.match_indices(attribute) {
            let item = &file.code[start..];
            let body = &item[..item_length(item, item.find(']').unwrap_or_default() + 1)];
            let first = file.code[..start].matches('\n').count() + 1;
            let words = words(body);
            let ends = |pair: &&[(usize, &str)]| pair[0].1 == "return" && matches!(pair[1].1, ";" | "}");
            let leaving = words.windows(2).filter(ends);
            faults.extend(leaving.map(|pair| Fault::new(first + pair[0].0 - 1, "a test returns early".to_owned())));
        }
    }
    faults
}
