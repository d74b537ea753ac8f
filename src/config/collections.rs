//! Lists and tables as values of keys: of texts, of sections, of sections by name.
//!
//! A list in a variable is `["a", "b"]` or `a,b`; a table in the environment is set key by key.

use std::collections::BTreeMap;

use super::error::ConfigErrors;
use super::key::{KeySpec, Section, SectionReader, ShownLine, ShownValue, Value, none, required};
use super::raw::RawConfig;
use super::value::{REDACTED, quoted, text, wrong};

/// The longest name of a table, a policy, an issuer or a column, in bytes.
const NAME_BYTES_MAX: usize = 64;

impl Value for Vec<String> {
    fn read(raw: RawConfig, key: &str, spec: &KeySpec<Self>, faults: &mut ConfigErrors) -> Option<Self> {
        let items = match raw.typed() {
            RawConfig::List(items) => items,
            // From a variable: a,b
            RawConfig::Text(text) => text.split(',').map(|item| RawConfig::Text(item.trim().to_owned())).collect(),
            other => return wrong::<Self>(&other, key, faults),
        };
        if spec.required && items.is_empty() {
            faults.add(key, "must not be empty");
            return None;
        }
        let item = required::<String>("");
        let read = items.into_iter().enumerate();
        let texts: Vec<_> = read.map(|(index, raw)| text(raw, &format!("{key}[{index}]"), &item, faults)).collect();
        texts.into_iter().collect()
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
    fn read(raw: RawConfig, key: &str, _knob: &KeySpec<Self>, faults: &mut ConfigErrors) -> Option<Self> {
        let RawConfig::List(items) = raw.typed() else {
            faults.add(key, format!("must be {}", Self::form()));
            return None;
        };
        let mut sections = Vec::with_capacity(items.len());
        for (index, item) in items.into_iter().enumerate() {
            let key = format!("{key}[{index}]");
            match item {
                RawConfig::Table(entries) => sections.push(S::read(SectionReader::new(&key, entries, faults))),
                other => faults.add(&key, format!("must be a table, is {}", other.kind())),
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

/// The entries of a table whose keys are names.
fn named(raw: RawConfig, key: &str, faults: &mut ConfigErrors) -> Option<Vec<(String, RawConfig)>> {
    match raw {
        RawConfig::Table(entries) => Some(entries),
        other => {
            faults.add(key, format!("must be a table of names, is {}", other.kind()));
            None
        }
    }
}

impl<S: Section> Value for BTreeMap<String, S> {
    fn read(raw: RawConfig, key: &str, _knob: &KeySpec<Self>, faults: &mut ConfigErrors) -> Option<Self> {
        let mut sections = Self::new();
        for (name, raw) in named(raw, key, faults)? {
            let key = format!("{key}.{name}");
            check_name(&name, &key, faults);
            match raw {
                RawConfig::Table(entries) => {
                    drop(sections.insert(name, S::read(SectionReader::new(&key, entries, faults))))
                }
                other => faults.add(&key, format!("must be a table, is {}", other.kind())),
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
        "a table for each name".to_owned()
    }
}

/// Options of the object store that are shown; any other option may be a secret.
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
    fn read(raw: RawConfig, key: &str, _knob: &KeySpec<Self>, faults: &mut ConfigErrors) -> Option<Self> {
        let mut options = Self::new();
        for (name, raw) in named(raw, key, faults)? {
            let text = match raw {
                RawConfig::Integer(number) => number.to_string(),
                RawConfig::Bool(yes) => yes.to_string(),
                other => text(other, &format!("{key}.{name}"), &none::<String>(), faults)?,
            };
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
        "a table of texts".to_owned()
    }
}

/// Reports a name that SQL would require to quote, or that a variable cannot contain.
pub(super) fn check_name(name: &str, key: &str, faults: &mut ConfigErrors) {
    let first = name.starts_with(|c: char| c.is_ascii_lowercase());
    let rest = name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    if !first || !rest || name.contains("__") || name.len() > NAME_BYTES_MAX {
        let allowed = "a to z, 0 to 9 and single underscores, beginning with a letter";
        faults.add(key, format!("is not a valid name: use {allowed}, at most {NAME_BYTES_MAX} characters"));
    }
}
