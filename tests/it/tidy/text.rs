//! Rules for the text of a file: module documentation, length, banned text and whitespace.

use crate::source_tree::{File, Violation};

/// Text that must not appear in the repository. Each entry is split into two strings, because the rule also checks this
/// file.
const BANNED: [(&str, &str); 6] = [
    (concat!("/wo", "rk/"), "a path that is specific to one machine"),
    (concat!("/ro", "ot/"), "a path that is specific to one machine"),
    (concat!("TO", "DO"), "unfinished work: do it, or document that it is missing"),
    (concat!("FIX", "ME"), "unfinished work: fix it"),
    (concat!("#[al", "low("), "an exception that never expires: use `#[expect(…, reason = …)]`"),
    (concat!("#[ign", "ore"), "a test that does not run proves nothing"),
];

/// The maximum length of a file, in lines.
pub(super) const LINES_MAX: usize = 500;

pub(super) fn module_docs(file: &File) -> Vec<Violation> {
    let has_docs = file.text.strip_prefix("//! ").is_some_and(|line| !line.trim().is_empty());
    if !file.is_rust() || has_docs || file.text.starts_with("#![doc = include_str!") {
        return Vec::new();
    }
    vec![Violation::new(1, "does not begin with `//!`".to_owned())]
}

pub(super) fn length(file: &File) -> Vec<Violation> {
    let lines = file.text.lines().count();
    if !file.is_rust() || lines <= LINES_MAX {
        return Vec::new();
    }
    vec![Violation::new(lines, format!("{lines} lines"))]
}

pub(super) fn diagrams(file: &File) -> Vec<Violation> {
    if !file.is_src() || !file.path.ends_with("/mod.rs") {
        return Vec::new();
    }
    [("//! ```text", "has no diagram (```text)"), ("//! **Invariant:**", "states no **Invariant:**")]
        .into_iter()
        .filter(|(mark, _)| !file.text.lines().any(|line| line.starts_with(mark)))
        .map(|(_, what)| Violation::new(1, what.to_owned()))
        .collect()
}

pub(super) fn banned(file: &File) -> Vec<Violation> {
    let lines = file.text.lines().enumerate();
    let hits = lines.flat_map(|(index, line)| {
        let found = BANNED.iter().filter(move |(text, _)| line.contains(text));
        found.map(move |(text, what)| Violation::new(index + 1, format!("`{text}` is {what}")))
    });
    hits.collect()
}

pub(super) fn whitespace(file: &File) -> Vec<Violation> {
    let may_have_tabs = file.path == "Makefile" || file.path.ends_with(".snap");
    let mut violations = Vec::new();
    for (index, line) in file.text.split('\n').enumerate() {
        if line.contains('\t') && !may_have_tabs {
            violations.push(Violation::new(index + 1, "a tab".to_owned()));
        }
        if line.ends_with([' ', '\r', '\t']) {
            violations.push(Violation::new(index + 1, "a space at the end of the line".to_owned()));
        }
    }
    let ends_well = file.text.is_empty() || (file.text.ends_with('\n') && !file.text.ends_with("\n\n"));
    if !ends_well {
        violations.push(Violation::new(file.text.lines().count(), "does not end with exactly one newline".to_owned()));
    }
    violations
}
