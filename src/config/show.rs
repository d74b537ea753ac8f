//! Formats the effective configuration as TOML, for `config show`. If requested, a comment above each key explains it.
//!
//! **Invariant:** this module never receives a secret, because [`super::section_macro::Value::show`] redacts secrets
//! first.

use std::fmt::Write;

use super::Config;
use super::section_macro::{KeyInfo, ShownLine, ShownValue};

/// The maximum width of a comment line, in characters.
const WIDTH: usize = 118;

impl Config {
    /// Formats the effective values as TOML. If `explain` is true, writes the documentation of each key above it.
    pub fn show(&self, explain: bool) -> String {
        let mut text = String::new();
        for line in self.lines() {
            table(&mut text, &line.key, &line.shown, explain);
        }
        text.trim_start().to_owned()
    }
}

/// Writes a table: first its values, and then its inner tables. TOML requires this order.
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

/// Writes the documentation of a key as a comment, wrapped at [`WIDTH`].
fn comment(text: &mut String, about: &KeyInfo) {
    let default =
        if about.default == "required" { "Required".to_owned() } else { format!("Default: {}", about.default) };
    let words = format!("{} {}. {default}. Allowed: {}.", about.what, about.note, about.allowed);
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
