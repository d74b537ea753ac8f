//! `config show`: the effective configuration as valid TOML, with an explanation above each key.
//!
//! **Invariant:** [`super::key::Value::show`] redacts secrets; this module does not have to.

use std::fmt::Write;

use super::Config;
use super::key::{SectionInfo, ShownLine, ShownValue};

/// Columns of a line, so that comments wrap.
const WIDTH: usize = 118;

impl Config {
    /// The effective values as TOML. With `explain`, comments give the meaning, default, bounds and reason of every key.
    pub fn show(&self, explain: bool) -> String {
        let mut text = String::new();
        for line in self.lines() {
            table(&mut text, &line.key, &line.shown, explain);
        }
        text.trim_start().to_owned()
    }
}

/// Writes a table: its values first, then the tables in it, as TOML requires.
fn table(text: &mut String, key: &str, shown: &ShownValue, explain: bool) {
    let ShownValue::Table(lines) = shown else { return };
    let (tables, values): (Vec<&ShownLine>, Vec<&ShownLine>) =
        lines.iter().partition(|line| matches!(line.shown, ShownValue::Table(_)));
    if !values.is_empty() {
        push(text, &format!("\n[{key}]"));
    }
    for ShownLine { key, shown, about } in values {
        if let Some(about) = about.as_ref().filter(|_| explain) {
            comment(text, about);
        }
        match shown {
            ShownValue::Inline(value) => push(text, &format!("{key} = {value}")),
            _ => push(text, &format!("# {key} is not set")),
        }
    }
    for ShownLine { key: name, shown, .. } in tables {
        table(text, &format!("{key}.{name}"), shown, explain);
    }
}

/// The documentation of a key, wrapped.
fn comment(text: &mut String, about: &SectionInfo) {
    let default =
        if about.default == "required" { "required".to_owned() } else { format!("default {}", about.default) };
    let words = format!("{} ({default}; {}) Reason: {}.", about.what, about.allowed, about.why);
    let mut line = String::from("#");
    push(text, "");
    for word in words.split_whitespace() {
        if line.chars().count() + 1 + word.chars().count() > WIDTH {
            push(text, &line);
            line = String::from("#");
        }
        let _ = write!(line, " {word}");
    }
    push(text, &line);
}

fn push(text: &mut String, line: &str) {
    text.push_str(line);
    text.push('\n');
}
