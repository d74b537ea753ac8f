//! Banned phrases, each with the words to use instead.
//!
//! The rule applies to all text in the repository: comments, messages, help, documentation and tests. The rule also
//! finds phrases that continue on the next line of a comment. Case is ignored, and only whole words match.

use crate::source_tree::{File, Violation};

/// The phrases, each with the words to use instead. Only this file may contain them.
const BANNED: [(&str, &str); 22] = [
    ("door", "endpoint"),
    ("doors", "endpoints"),
    ("house", "repository, tests, or the thing itself"),
    ("shelf", "quarantine reader"),
    ("desk", "quarantine session"),
    ("roster", "rollup coverage"),
    ("dimension table", "lookup table"),
    ("dimension tables", "lookup tables"),
    ("stands", "is, or appears"),
    ("stands twice", "appears more than once"),
    ("tells", "says, reports, or shows"),
    ("is told", "is notified, or learns"),
    ("told by", "inferred from"),
    ("whoever", "anyone who, or a caller that"),
    ("so many", "this many, or the number"),
    ("as ever", "as before"),
    ("that is none", "that is not one"),
    ("of which no", "not yet"),
    ("is no json", "is not valid JSON"),
    ("no utf-8", "not valid UTF-8"),
    ("broke down", "failed"),
    ("from before", "previous"),
];

/// Files that may contain the phrases.
const EXEMPT: [&str; 1] = ["tests/it/tidy/phrases.rs"];

pub(super) fn phrases(file: &File) -> Vec<Violation> {
    if EXEMPT.contains(&file.path.as_str()) {
        return Vec::new();
    }
    let (text, starts) = flowing(&file.text);
    let mut violations = Vec::new();
    for (phrase, instead) in BANNED {
        for (at, _) in text.match_indices(phrase) {
            let is_letter =
                |letter: Option<char>| letter.is_some_and(|letter| letter.is_alphanumeric() || letter == '_');
            let (before, after) = (text[..at].chars().next_back(), text[at + phrase.len()..].chars().next());
            if !is_letter(before) && !is_letter(after) {
                let line = starts.partition_point(|start| *start <= at);
                violations.push(Violation::new(line, format!("`{phrase}`: write {instead}")));
            }
        }
    }
    violations
}

/// Returns the text in lower case, as one line without comment markers, and the position of each original line in the
/// result.
fn flowing(text: &str) -> (String, Vec<usize>) {
    let (mut flow, mut starts) = (String::with_capacity(text.len()), Vec::new());
    for line in text.lines() {
        starts.push(flow.len());
        let tokens = line.trim_start().trim_start_matches(['/', '!', '#', '*']);
        flow.extend(tokens.split_whitespace().flat_map(|word| [word, " "]));
    }
    flow.make_ascii_lowercase();
    (flow, starts)
}
