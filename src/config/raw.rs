//! Merges the TOML text and the environment variables into one tree of raw values, and records the location of each
//! value.
//!
//! The variable `GLASSHOUSE__SECTION__KEY` overrides the key `section.key` in the text. The entries of each table keep
//! the order that they have in the text. This module does not interpret values: the type of a variable's value depends
//! on the key that the variable sets.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::error::{ConfigErrors, KeyLocation};

/// The prefix of Glasshouse's environment variables. The segments of a variable's name are separated by double
/// underscores, so a segment may contain single underscores.
pub(super) const VARIABLE_PREFIX: &str = "GLASSHOUSE__";

/// A value as it was read, before it is converted to the type of its key.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum RawValue {
    /// A TOML string.
    String(String),
    /// A TOML integer.
    Integer(i128),
    /// `true` or `false`.
    Bool(bool),
    /// A TOML array.
    List(Vec<RawValue>),
    /// A TOML table. The entries are in the order in which they appear in the text.
    Table(Vec<(String, RawValue)>),
    /// The value of an environment variable. Its type is not known yet.
    Variable(String),
    /// A TOML value of a type that no key accepts. The string describes that type.
    Other(&'static str),
}

impl RawValue {
    /// Returns a description of the value's type, such as `a string`, for errors of the form "must be …, but is …".
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::String(_) | Self::Variable(_) => "a string",
            Self::Integer(_) => "an integer",
            Self::Bool(_) => "a boolean",
            Self::List(_) => "a list",
            Self::Table(_) => "a table",
            Self::Other(name) => name,
        }
    }

    /// Interprets the value for a key that does not expect a string. The text of a variable is parsed as a TOML value,
    /// and text that is not valid TOML becomes a string. Other values are returned unchanged.
    pub(super) fn typed(self) -> Self {
        let Self::Variable(text) = self else { return self };
        match DeValue::parse(&text) {
            Ok(value) => convert(value.get_ref()),
            Err(_) => Self::String(text),
        }
    }
}

/// Parses TOML text. Adds every syntax error to `errors`, and returns the entries that could be read.
pub(super) fn parse(text: &str, errors: &mut ConfigErrors) -> Vec<(String, RawValue)> {
    let (table, syntax_errors) = DeTable::parse_recoverable(text);
    for error in syntax_errors {
        let offset = error.span().map_or(0, |span| span.start);
        errors.add_at(location(text, offset), "", error.message());
    }
    record_table(text, "", table.get_ref(), errors);
    entries(table.get_ref())
}

/// Adds the values of the environment variables whose names begin with [`VARIABLE_PREFIX`] to `root`. Ignores all other
/// variables.
pub(super) fn overlay(
    root: &mut Vec<(String, RawValue)>,
    env: impl Iterator<Item = (String, String)>,
    errors: &mut ConfigErrors,
) {
    let mut variables: Vec<_> = env.filter(|(name, _)| name.starts_with(VARIABLE_PREFIX)).collect();
    variables.sort();
    for (name, value) in variables {
        let path = name[VARIABLE_PREFIX.len()..].to_lowercase();
        let segments: Vec<&str> = path.split("__").collect();
        let at = KeyLocation::Variable(name.clone());
        if segments.len() < 2 || segments.iter().any(|segment| segment.is_empty()) {
            errors.add_at(at, "", "is not a key: use GLASSHOUSE__SECTION__KEY");
            continue;
        }
        if value.contains(char::REPLACEMENT_CHARACTER) {
            errors.add_at(at, &segments.join("."), "is not valid UTF-8");
            continue;
        }
        insert(root, &segments, String::new(), value, &at, errors);
    }
}

/// Follows the path `segments` in `table` to a key, and sets the value of this key. `prefix` is the full name of
/// `table`. Creates missing inner tables.
fn insert(
    table: &mut Vec<(String, RawValue)>,
    segments: &[&str],
    prefix: String,
    value: String,
    at: &KeyLocation,
    errors: &mut ConfigErrors,
) {
    let (name, rest) = (segments[0], &segments[1..]);
    let key = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") };
    let index = table.iter().position(|(entry, _)| entry == name).unwrap_or_else(|| {
        let empty = if rest.is_empty() { RawValue::Variable(String::new()) } else { RawValue::Table(Vec::new()) };
        table.push((name.to_owned(), empty));
        errors.record_location(&key, at.clone());
        table.len() - 1
    });
    match (&mut table[index].1, rest.is_empty()) {
        (RawValue::Table(inner), false) => insert(inner, rest, key, value, at, errors),
        (RawValue::Table(_), true) => {
            errors.add_at(at.clone(), &key, "is a section, not a value: set each of its keys with its own variable");
        }
        (_, false) => errors.add_at(at.clone(), &key, "is a value, not a section, so it has no keys"),
        (entry, true) => {
            *entry = RawValue::Variable(value);
            errors.record_location(key, at.clone());
        }
    }
}

/// Records the location of each key of `table`.
fn record_table(text: &str, prefix: &str, table: &DeTable<'_>, errors: &mut ConfigErrors) {
    for (name, value) in table.iter() {
        let key = if prefix.is_empty() { name.get_ref().to_string() } else { format!("{prefix}.{}", name.get_ref()) };
        record(text, key, name.span().start, value, errors);
    }
}

fn record(text: &str, key: String, start: usize, value: &Spanned<DeValue<'_>>, errors: &mut ConfigErrors) {
    match value.get_ref() {
        DeValue::Table(inner) => record_table(text, &key, inner, errors),
        DeValue::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                record(text, format!("{key}[{index}]"), item.span().start, item, errors);
            }
        }
        _ => {}
    }
    errors.record_location(key, location(text, start));
}

/// Returns the entries of a table in the order in which they appear in the text. The parser itself returns them sorted
/// by name.
fn entries(table: &DeTable<'_>) -> Vec<(String, RawValue)> {
    let mut entries: Vec<_> = table.iter().collect();
    entries.sort_by_key(|(name, _)| name.span().start);
    entries.into_iter().map(|(name, value)| (name.get_ref().to_string(), convert(value.get_ref()))).collect()
}

fn convert(value: &DeValue<'_>) -> RawValue {
    match value {
        DeValue::String(text) => RawValue::String(text.to_string()),
        DeValue::Integer(integer) => match i128::from_str_radix(integer.as_str(), integer.radix()) {
            Ok(number) => RawValue::Integer(number),
            Err(_) => RawValue::Other("an integer that is too large"),
        },
        DeValue::Boolean(yes) => RawValue::Bool(*yes),
        DeValue::Array(items) => RawValue::List(items.iter().map(|item| convert(item.get_ref())).collect()),
        DeValue::Table(inner) => RawValue::Table(entries(inner)),
        DeValue::Float(_) => RawValue::Other("a floating-point number"),
        DeValue::Datetime(_) => RawValue::Other("a date or time"),
    }
}

/// Converts a byte offset in `text` to a line and a column.
fn location(text: &str, offset: usize) -> KeyLocation {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |end| end + 1);
    KeyLocation::File { line: before.matches('\n').count() + 1, column: before[line_start..].chars().count() + 1 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str, env: &[(&str, &str)]) -> (Vec<(String, RawValue)>, String) {
        let mut errors = ConfigErrors::new("t.toml");
        let mut root = parse(text, &mut errors);
        overlay(&mut root, env.iter().map(|(k, v)| (k.to_string(), v.to_string())), &mut errors);
        (root, errors.or(()).err().map(|errors| errors.to_string()).unwrap_or_default())
    }

    #[test]
    fn entries_keep_the_order_of_the_text() {
        let (root, errors) = read("[z]\nb = 1\na = \"x\"\n[a]\n", &[]);
        assert_eq!(errors, "");
        let z = RawValue::Table(vec![("b".into(), RawValue::Integer(1)), ("a".into(), RawValue::String("x".into()))]);
        assert_eq!(root, [("z".into(), z), ("a".into(), RawValue::Table(vec![]))]);
    }

    #[test]
    fn variables_replace_values_and_create_sections() {
        let env =
            [("GLASSHOUSE__LAKE__URL", "memory:///"), ("GLASSHOUSE__AUTH__ISSUERS__DEV__SECRET", "s"), ("PATH", "/")];
        let (root, errors) = read("lake.url = \"file:///a\"", &env);
        assert_eq!(errors, "");
        let lake = RawValue::Table(vec![("url".into(), RawValue::Variable("memory:///".into()))]);
        assert_eq!(root[0], ("lake".into(), lake));
        assert_eq!(root[1].0, "auth");
    }

    #[test]
    fn errors_state_their_location() {
        let cases = [
            ("a = ", &[][..], "t.toml:1:5: "),
            ("x = 1\nx = 2", &[], "t.toml:2:1: duplicate key"),
            ("", &[("GLASSHOUSE__LAKE__URL", "a\u{fffd}b")], "GLASSHOUSE__LAKE__URL: lake.url: is not valid UTF-8"),
            ("", &[("GLASSHOUSE__", "1")], "GLASSHOUSE__: is not a key"),
            ("", &[("GLASSHOUSE__LAKE____URL", "1")], "GLASSHOUSE__LAKE____URL: is not a key"),
            ("[lake]", &[("GLASSHOUSE__LAKE__URL__X", "1"), ("GLASSHOUSE__LAKE__URL", "1")], "it has no keys"),
            ("[lake.options]", &[("GLASSHOUSE__LAKE__OPTIONS", "1")], "set each of its keys with its own variable"),
        ];
        for (text, env, expected) in cases {
            let (_, errors) = read(text, env);
            assert!(errors.contains(expected), "{text:?} {env:?}: {errors}");
        }
    }

    #[test]
    fn variables_are_parsed_as_toml_values() {
        let typed = |text: &str| RawValue::Variable(text.into()).typed();
        assert_eq!(typed("5"), RawValue::Integer(5));
        assert_eq!(typed("true"), RawValue::Bool(true));
        assert_eq!(typed("[\"a\"]"), RawValue::List(vec![RawValue::String("a".into())]));
        assert_eq!(typed("64 MiB"), RawValue::String("64 MiB".into()));
    }
}
