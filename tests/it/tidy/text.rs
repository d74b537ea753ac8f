//! Rules of the text of a file, whatever language it is in: how it opens, how long it is, what must not be in it.

use crate::source::{Fault, File};

/// What must stand nowhere in the repository. In two halves each, since this file stands in it, too.
const WORDS: [(&str, &str); 6] = [
    (concat!("/wo", "rk/"), "a path of one machine"),
    (concat!("/ro", "ot/"), "a path of one machine"),
    (concat!("TO", "DO"), "unfinished: do it, or write down in the documentation that it is not there"),
    (concat!("FIX", "ME"), "unfinished: fix it"),
    (concat!("#[al", "low("), "an exception without an end: use `#[expect(…, reason = …)]`"),
    (concat!("#[ign", "ore"), "a test that does not run proves nothing"),
];

/// The longest file, in lines.
pub(super) const LINES_MAX: usize = 500;

pub(super) fn opening(file: &File) -> Vec<Fault> {
    let says = file.text.strip_prefix("//! ").is_some_and(|words| !words.trim().is_empty());
    if !file.is_rust() || says || file.text.starts_with("#![doc = include_str!") {
        return Vec::new();
    }
    vec![Fault::new(1, "opens without `//!`".to_owned())]
}

pub(super) fn length(file: &File) -> Vec<Fault> {
    let lines = file.text.lines().count();
    if !file.is_rust() || lines <= LINES_MAX {
        return Vec::new();
    }
    vec![Fault::new(lines, format!("{lines} lines"))]
}

pub(super) fn drawings(file: &File) -> Vec<Fault> {
    if !file.is_src() || !file.path.ends_with("/mod.rs") {
        return Vec::new();
    }
    [("//! ```text", "has no drawing (```text)"), ("//! **Invariant:**", "names no **Invariant:**")]
        .into_iter()
        .filter(|(mark, _)| !file.text.lines().any(|line| line.starts_with(mark)))
        .map(|(_, what)| Fault::new(1, what.to_owned()))
        .collect()
}

pub(super) fn words(file: &File) -> Vec<Fault> {
    let lines = file.text.lines().enumerate();
    let hits = lines.flat_map(|(index, line)| {
        let found = WORDS.iter().filter(move |(word, _)| line.contains(word));
        found.map(move |(word, what)| Fault::new(index + 1, format!("`{word}` is {what}")))
    });
    hits.collect()
}

pub(super) fn whitespace(file: &File) -> Vec<Fault> {
    let may_have_tabs = file.path == "Makefile" || file.path.ends_with(".snap");
    let mut faults = Vec::new();
    for (index, line) in file.text.split('\n').enumerate() {
        if line.contains('\t') && !may_have_tabs {
            faults.push(Fault::new(index + 1, "a tab".to_owned()));
        }
        if line.ends_with([' ', '\r', '\t']) {
            faults.push(Fault::new(index + 1, "a space at the end of the line".to_owned()));
        }
    }
    let ends_well = file.text.is_empty() || (file.text.ends_with('\n') && !file.text.ends_with("\n\n"));
    if !ends_well {
        faults.push(Fault::new(file.text.lines().count(), "does not end in one newline".to_owned()));
    }
    faults
}
