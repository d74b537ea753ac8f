//! Reads lists and tables, and formats them for `config show`: lists of strings, lists of sections, sections by name,
//! numbers of days by name, and the options of the object store.
//!
//! A list in an environment variable is `["a", "b"]` or `a,b`. A table cannot be set with one environment variable:
//! each key of the table needs its own variable.

use std::collections::BTreeMap;

use super::error::ConfigErrors;
use super::raw::RawValue;
use super::scalar_values::{REDACTED, quoted, text, wrong};
use super::secret_strength;
use super::section_macro::{KeySpec, Section, SectionReader, ShownLine, ShownValue, Value, count, none, required};

/// The maximum length of a table, policy, issuer or column name, in bytes.
const NAME_BYTES_MAX: usize = 64;
/// The maximum number of days in a table of days.
const DAYS_MAX: u32 = 36_500;

impl Value for Vec<String> {
    fn read(raw: RawValue, key: &str, spec: &KeySpec<Self>, errors: &mut ConfigErrors) -> Option<Self> {
        let items = match raw.typed() {
            RawValue::List(items) => items,
            // In an environment variable, a list can be written as `a,b`.
            RawValue::String(text) => text.split(',').map(|item| RawValue::String(item.trim().to_owned())).collect(),
            other => return wrong::<Self>(&other, key, errors),
        };
        if spec.required && items.is_empty() {
            errors.add(key, "must not be empty");
            return None;
        }
        let item = required::<String>("");
        let read = items.into_iter().enumerate();
        let strings: Vec<_> = read.map(|(index, raw)| text(raw, &format!("{key}[{index}]"), &item, errors)).collect();
        strings.into_iter().collect()
    }

    fn show(&self, _unit: &'static str) -> ShownValue {
        let items: Vec<_> = self.iter().map(|text| quoted(text)).collect();
        ShownValue::Inline(format!("[{}]", items.join(", ")))
    }

    fn form() -> String {
        "a list of strings".to_owned()
    }
}

impl<S: Section> Value for Vec<S> {
    fn read(raw: RawValue, key: &str, _spec: &KeySpec<Self>, errors: &mut ConfigErrors) -> Option<Self> {
        let RawValue::List(items) = raw.typed() else {
            errors.add(key, format!("must be {}", Self::form()));
            return None;
        };
        let mut sections = Vec::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            let key = format!("{key}[{index}]");
            match item {
                RawValue::Table(entries) => sections.push(S::read(SectionReader::new(&key, entries, errors))),
                other => errors.add(&key, format!("must be a table, but is {}", other.kind())),
            }
        }
        Some(sections)
    }

    fn show(&self, _unit: &'static str) -> ShownValue {
        let items: Vec<_> = self.iter().map(|section| ShownValue::Table(section.lines()).to_string()).collect();
        ShownValue::Inline(format!("[{}]", items.join(", ")))
    }

    fn form() -> String {
        "a list of tables".to_owned()
    }
}

/// Returns the entries of a table that has user-defined names as keys.
fn named(raw: RawValue, key: &str, errors: &mut ConfigErrors) -> Option<Vec<(String, RawValue)>> {
    match raw {
        RawValue::Table(entries) => Some(entries),
        other => {
            errors.add(key, format!("must be a table with one entry per name, but is {}", other.kind()));
            None
        }
    }
}

impl<S: Section> Value for BTreeMap<String, S> {
    fn read(raw: RawValue, key: &str, _spec: &KeySpec<Self>, errors: &mut ConfigErrors) -> Option<Self> {
        let mut sections = Self::new();
        for (name, raw) in named(raw, key, errors)? {
            let key = format!("{key}.{name}");
            check_name(&name, &key, errors);
            match raw {
                RawValue::Table(entries) => {
                    drop(sections.insert(name, S::read(SectionReader::new(&key, entries, errors))))
                }
                other => errors.add(&key, format!("must be a table, but is {}", other.kind())),
            }
        }
        Some(sections)
    }

    fn show(&self, _unit: &'static str) -> ShownValue {
        let line = |(name, section): (&String, &S)| ShownLine {
            key: name.clone(),
            shown: ShownValue::Table(section.lines()),
            about: None,
        };
        ShownValue::Table(self.iter().map(line).collect())
    }

    fn form() -> String {
        "one table per name".to_owned()
    }
}

/// The object store options whose values are shown. The values of all other options are redacted, because they may be
/// secret.
const OPTIONS_SHOWN: [&str; 8] = [
    "aws_allow_http",
    "aws_bucket",
    "aws_conditional_put",
    "aws_default_region",
    "aws_endpoint",
    "aws_region",
    "aws_unsigned_payload",
    "aws_virtual_hosted_style_request",
];

impl Value for BTreeMap<String, String> {
    fn read(raw: RawValue, key: &str, _spec: &KeySpec<Self>, errors: &mut ConfigErrors) -> Option<Self> {
        let mut options = Self::new();
        for (name, raw) in named(raw, key, errors)? {
            let text = match raw {
                RawValue::Integer(number) => number.to_string(),
                RawValue::Bool(yes) => yes.to_string(),
                other => text(other, &format!("{key}.{name}"), &none::<String>(), errors)?,
            };
            if let Some(problem) = secret_strength::placeholder(&text) {
                errors.add(&format!("{key}.{name}"), problem);
                continue;
            }
            options.insert(name, text);
        }
        Some(options)
    }

    fn show(&self, _unit: &'static str) -> ShownValue {
        let line = |(name, text): (&String, &String)| {
            let text = if OPTIONS_SHOWN.contains(&name.as_str()) { text } else { REDACTED };
            ShownLine { key: name.clone(), shown: ShownValue::Inline(quoted(text)), about: None }
        };
        ShownValue::Table(self.iter().map(line).collect())
    }

    fn form() -> String {
        "a table of strings".to_owned()
    }
}

impl Value for BTreeMap<String, u32> {
    fn read(raw: RawValue, key: &str, _spec: &KeySpec<Self>, errors: &mut ConfigErrors) -> Option<Self> {
        let days = count::<u32>("days", 1, 1..=DAYS_MAX);
        let entries = named(raw, key, errors)?.into_iter();
        Some(
            entries
                .filter_map(|(name, raw)| {
                    Some((name.clone(), u32::read(raw, &format!("{key}.{name}"), &days, errors)?))
                })
                .collect(),
        )
    }

    fn show(&self, _unit: &'static str) -> ShownValue {
        let line = |(name, days): (&String, &u32)| {
            let is_bare =
                !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte));
            let key = if is_bare { name.clone() } else { quoted(name) };
            ShownLine { key, shown: ShownValue::Inline(days.to_string()), about: None }
        };
        if self.is_empty() { ShownValue::Absent } else { ShownValue::Table(self.iter().map(line).collect()) }
    }

    fn form() -> String {
        "a table of days, such as { acme = 30 }".to_owned()
    }
}

/// Reports a name that would have to be quoted in SQL, or that cannot be part of an environment variable's name.
pub(super) fn check_name(name: &str, key: &str, errors: &mut ConfigErrors) {
    let first = name.starts_with(|c: char| c.is_ascii_lowercase());
    let rest = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if !first || !rest || name.contains("__") || name.len() > NAME_BYTES_MAX {
        let allowed = "a to z, 0 to 9 and single underscores, beginning with a letter";
        errors.add(key, format!("is not a valid name: use {allowed}, at most {NAME_BYTES_MAX} characters"));
    }
}
