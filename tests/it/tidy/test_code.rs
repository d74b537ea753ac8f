//! Rules against constructs that let a test pass or fail by chance.

use crate::source_tree::{File, Violation, item_length, paths, tokens};

/// Files whose tests may sleep, each with the reason.
const SLEEPERS: [(&str, &str); 2] = [
    ("tests/it/crash.rs", "a crash must happen at an arbitrary moment"),
    ("tests/it/server.rs", "a starting process is polled until it is ready"),
];

/// Attributes that mark a test.
const TESTS: [&str; 2] = ["#[test]", "#[tokio::test"];

pub(super) fn sleeps(file: &File) -> Vec<Violation> {
    if SLEEPERS.iter().any(|(path, _)| *path == file.path) {
        return Vec::new();
    }
    paths(&file.tests)
        .iter()
        .filter(|path| path.ends_with("time::sleep") || path.ends_with("thread::sleep"))
        .map(|path| Violation::new(path.line, "a test sleeps".to_owned()))
        .collect()
}

/// Finds tests that return early, because such a test passes without executing its assertions. A test that cannot run
/// on every host must use `needs!` instead (see `requirements.rs`).
pub(super) fn early_returns(file: &File) -> Vec<Violation> {
    let mut violations = Vec::new();
    for attribute in TESTS {
        for (start, _) in file.code.match_indices(attribute) {
            let item = &file.code[start..];
            let body = &item[..item_length(item, item.find(']').unwrap_or_default() + 1)];
            let first = file.code[..start].matches('\n').count() + 1;
            let tokens = tokens(body);
            let ends = |pair: &&[(usize, &str)]| pair[0].1 == "return" && matches!(pair[1].1, ";" | "}");
            let leaving = tokens.windows(2).filter(ends);
            violations
                .extend(leaving.map(|pair| Violation::new(first + pair[0].0 - 1, "a test returns early".to_owned())));
        }
    }
    violations
}
