//! Merges text and environment into one tree of raw values, with the location of each.
//!
//! In: TOML text and variables `GLASSHOUSE__SECTION__KEY`. Out: entries in the order they were written; a variable
//! replaces the value in the text. Nothing is interpreted here: the key that reads a variable determines its type.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigErrors, KeyLocation};

/// The prefix of our variables. A double underscore separates segments, so that names may contain single underscores.
pub(super) const VARIABLE_PREFIX: &str = "GLASSHOUSE__";

/// A value as it was written.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum RawConfig {
    /// A TOML string.
    Text(String),
    /// A TOML integer.
    Integer(i128),
    /// `true` or `false`.
    Bool(bool),
    /// `[…]`
    List(Vec<RawConfig>),
    /// A table, in the order it was written.
    Table(Vec<(String, RawConfig)>),
    /// The text of a variable, whose type is not known yet.
    Variable(String),
    /// A TOML value of a type that no key has; the name of the type.
    Other(&'static str),
}

impl RawConfig {
    /// The kind of the value, for "must be …, is …".
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) | Self::Variable(_) => "text",
            Self::Integer(_) => "an integer",
            Self::Bool(_) => "a boolean",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Other(name) => name,
        }
    }

    /// The same for a key that is not text: a variable's text is parsed as a TOML value, or remains text.
    pub(super) fn typed(self) -> Self {
        let Self::Variable(text) = self else { return self };
        match DeValue::parse(&text) {
            Ok(value) => convert(value.get_ref()),
            Err(_) => Self::Text(text),
        }
    }
}

/// Parses a TOML text. Reports every syntax error, and returns the entries that could be read.
pub(super) fn parse(text: &str, faults: &mut ConfigErrors) -> Vec<(String, RawConfig)> {
    let (table, errors) = DeTable::parse_recoverable(text);
    for error in errors {
        let at = error.span().map_or(0, |span| span.start);
        faults.add_at(place(text, at), "", error.message());
    }
    note_table(text, "", table.get_ref(), faults);
    entries(table.get_ref())
}

/// Overlays our variables on `root`. Ignores other variables.
pub(super) fn overlay(
    root: &mut Vec<(String, RawConfig)>,
    env: impl Iterator<Item = (String, String)>,
    faults: &mut ConfigErrors,
) {
    let mut ours: Vec<_> = env.filter(|(name, _)| name.starts_with(VARIABLE_PREFIX)).collect();
    ours.sort();
    for (name, value) in ours {
        let path = name[VARIABLE_PREFIX.len()..].to_lowercase();
        let segments: Vec<&str> = path.split("__").collect();
        let at = KeyLocation::Variable(name.clone());
        if segments.len() < 2 || segments.iter().any(|segment| segment.is_empty()) {
            faults.add_at(at, "", "is not a key: use GLASSHOUSE__SECTION__KEY");
            continue;
        }
        if value.contains(char::REPLACEMENT_CHARACTER) {
            faults.add_at(at, &segments.join("."), "is not UTF-8");
            continue;
        }
        insert(root, &segments, String::new(), value, &at, faults);
    }
}

/// Sets the value at `segments` under `prefix`, and creates missing tables.
fn insert(
    table: &mut Vec<(String, RawConfig)>,
    segments: &[&str],
    prefix: String,
    value: String,
    at: &KeyLocation,
    faults: &mut ConfigErrors,
) {
    let (name, rest) = (segments[0], &segments[1..]);
    let key = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") };
    let index = table.iter().position(|(entry, _)| entry == name).unwrap_or_else(|| {
        let empty = if rest.is_empty() { RawConfig::Variable(String::new()) } else { RawConfig::Table(Vec::new()) };
        table.push((name.to_owned(), empty));
        faults.place(&key, at.clone());
        table.len() - 1
    });
    match (&mut table[index].1, rest.is_empty()) {
        (RawConfig::Table(inner), false) => insert(inner, rest, key, value, at, faults),
        (RawConfig::Table(_), true) => faults.add_at(at.clone(), &key, "is a section: set its keys one by one"),
        (_, false) => faults.add_at(at.clone(), &key, "is a value, not a section: it has no keys"),
        (entry, true) => {
            *entry = RawConfig::Variable(value);
            faults.place(key, at.clone());
        }
    }
}

/// Records where each key of `table` was written.
fn note_table(text: &str, prefix: &str, table: &DeTable<'_>, faults: &mut ConfigErrors) {
    for (name, value) in table.iter() {
        let key = if prefix.is_empty() { name.get_ref().to_string() } else { format!("{prefix}.{}", name.get_ref()) };
        note(text, key, name.span().start, value, faults);
    }
}

fn note(text: &str, key: String, start: usize, value: &Spanned<DeValue<'_>>, faults: &mut ConfigErrors) {
    match value.get_ref() {
        DeValue::Table(inner) => note_table(text, &key, inner, faults),
        DeValue::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                note(text, format!("{key}[{index}]"), item.span().start, item, faults);
            }
        }
        _ => {}
    }
    faults.place(key, place(text, start));
}

/// The entries of a table as they were written: the parser sorts by name.
fn entries(table: &DeTable<'_>) -> Vec<(String, RawConfig)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    entries.into_iter().map(|(name, value)| (name.get_ref().to_string(), convert(value.get_ref()))).collect()
}

fn convert(value: &DeValue<'_>) -> RawConfig {
    match value {
        DeValue::String(text) => RawConfig::Text(text.to_string()),
        DeValue::Integer(integer) => match i128::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(number) => RawConfig::Integer(number),
            Err(_) => RawConfig::Other("a huge integer"),
        },
        DeValue::Boolean(yes) => RawConfig::Bool(*yes),
        DeValue::Array(items) => RawConfig::List(items.iter().map(|item| convert(item.get_ref())).collect()),
        DeValue::Table(inner) => RawConfig::Table(entries(inner)),
        DeValue::Float(_) => RawConfig::Other("a fraction"),
        DeValue::Datetime(_) => RawConfig::Other("a date"),
    }
}

/// Line and column of a byte of `text`.
fn place(text: &str, at: usize) -> KeyLocation {
    let before = text.get(..at).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    KeyLocation::File { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, env: &[(&str, &str)]) -> (Vec<(String, RawConfig)>, String) {
        let mut faults = ConfigErrors::new("t.toml");
        let mut root = parse(text, &mut faults);
        overlay(&mut root, env.iter().map(|(k, v)| (k.to_string(), v.to_string())), &mut faults);
        (root, faults.or(()).err().map(|faults| faults.to_string()).unwrap_or_default())
    }

    #[test]
    fn keeps_the_order_of_the_text() {
        let (root, faults) = read("[z]\nb = 1\na = \"x\"\n[a]\n", &[]);
        assert_eq!(faults, "");
        let z = RawConfig::Table(vec![("b".into(), RawConfig::Integer(1)), ("a".into(), RawConfig::Text("x".into()))]);
        assert_eq!(root, [("z".into(), z), ("a".into(), RawConfig::Table(vec![]))]);
    }

    #[test]
    fn a_variable_replaces_the_text_and_makes_sections() {
        let env =
            [("GLASSHOUSE__LAKE__URL", "memory:///"), ("GLASSHOUSE__AUTH__ISSUERS__DEV__SECRET", "s"), ("PATH", "/")];
        let (root, faults) = read("lake.url = \"file:///a\"", &env);
        assert_eq!(faults, "");
        let lake = RawConfig::Table(vec![("url".into(), RawConfig::Variable("memory:///".into()))]);
        assert_eq!(root[0], ("lake".into(), lake));
        assert_eq!(root[1].0, "auth");
    }

    #[test]
    fn faults_name_their_place() {
        let cases = [
            ("a = ", &[][..], "t.toml:1:5: "),
            ("x = 1\nx = 2", &[], "t.toml:2:1: duplicate key"),
            ("", &[("GLASSHOUSE__LAKE__URL", "a\u{fffd}b")], "GLASSHOUSE__LAKE__URL: lake.url: is not UTF-8"),
            ("", &[("GLASSHOUSE__", "1")], "GLASSHOUSE__: is not a key"),
            ("", &[("GLASSHOUSE__LAKE____URL", "1")], "GLASSHOUSE__LAKE____URL: is not a key"),
            ("[lake]", &[("GLASSHOUSE__LAKE__URL__X", "1"), ("GLASSHOUSE__LAKE__URL", "1")], "it has no keys"),
            ("[lake.options]", &[("GLASSHOUSE__LAKE__OPTIONS", "1")], "set its keys one by one"),
        ];
        for (text, env, expected) in cases {
            let (_, faults) = read(text, env);
            assert!(faults.contains(expected), "{text:?} {env:?}: {faults}");
        }
    }

    #[test]
    fn a_variable_is_typed_by_its_reader() {
        let typed = |text: &str| RawConfig::Variable(text.into()).typed();
        assert_eq!(typed("5"), RawConfig::Integer(5));
        assert_eq!(typed("true"), RawConfig::Bool(true));
        assert_eq!(typed("[\"a\"]"), RawConfig::List(vec![RawConfig::Text("a".into())]));
        assert_eq!(typed("64 MiB"), RawConfig::Text("64 MiB".into()));
    }
}
