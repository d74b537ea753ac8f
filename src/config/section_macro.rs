//! The macro [`section!`] declares a section of the configuration. The rest of this file reads, shows and documents the
//! keys of a section.
//!
//! Each key is declared once, with its type, unit, default, bounds and documentation.
//!
//! ```text
//!   section! { … } ─► struct + Default + reading with range checks + `config show` + docs/configuration.md
//! ```
//!
//! The type of a key determines how values are read and shown (see [`Value`]). The declaration of a key sets the bounds
//! of its value.

use std::fmt;
use std::ops::RangeInclusive;

use super::error::ConfigErrors;
use super::raw::RawValue;
use crate::error::did_you_mean;

/// The declaration of one key, without its name and documentation.
#[derive(Debug, Clone)]
pub(super) struct KeySpec<T> {
    pub(super) default: T,
    pub(super) unit: &'static str,
    pub(super) bounds: Option<RangeInclusive<T>>,
    pub(super) required: bool,
}

/// The unit of keys that are sizes. Sizes are read and shown in the form `64 MiB`.
pub(super) const BYTES: &str = "bytes";

/// Declares a whole number with a unit. `unit` is a plural noun, such as `rows`.
pub(super) fn count<T>(unit: &'static str, default: T, bounds: RangeInclusive<T>) -> KeySpec<T> {
    KeySpec { default, unit, bounds: Some(bounds), required: false }
}

/// Declares a size in bytes.
pub(super) fn bytes<T>(default: T, bounds: RangeInclusive<T>) -> KeySpec<T> {
    count(BYTES, default, bounds)
}

/// Declares a duration.
pub(super) fn time<T>(default: T, bounds: RangeInclusive<T>) -> KeySpec<T> {
    count("", default, bounds)
}

/// Declares a key that accepts any value of its type.
pub(super) fn plain<T>(default: impl Into<T>) -> KeySpec<T> {
    KeySpec { default: default.into(), unit: "", bounds: None, required: false }
}

/// Declares an optional key. If it is not set, its value is `T::default()`.
pub(super) fn none<T: Default>() -> KeySpec<T> {
    plain(T::default())
}

/// Declares a required key. `default` is only a placeholder, because a configuration without the key is invalid.
pub(super) fn required<T>(default: impl Into<T>) -> KeySpec<T> {
    KeySpec { required: true, ..plain(default) }
}

/// A type that a key can have.
pub(super) trait Value: Sized {
    /// Reads the value of `key` from `raw`. If the value is invalid, adds the errors to `errors` and returns `None`.
    fn read(raw: RawValue, key: &str, spec: &KeySpec<Self>, errors: &mut ConfigErrors) -> Option<Self>;

    /// Formats the value as TOML. Secrets are redacted.
    fn show(&self, unit: &'static str) -> ShownValue;

    /// Describes the values that the type allows, without bounds, such as `"a" or "b"`.
    fn form() -> String;
}

/// A value formatted as TOML.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ShownValue {
    /// An optional key that is not set.
    Absent,
    /// A value on one line, such as `64`, `"text"` or `["list"]`.
    Inline(String),
    /// A table with its own header.
    Table(Vec<ShownLine>),
}

/// One key of a table, its value and its documentation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ShownLine {
    pub(super) key: String,
    pub(super) shown: ShownValue,
    pub(super) about: Option<KeyInfo>,
}

/// The documentation of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KeyInfo {
    /// The description of the key, in full sentences.
    pub(super) what: String,
    /// The reason for the setting or its default, without a final full stop.
    pub(super) note: &'static str,
    /// The allowed values, such as `1 to 100 rows`.
    pub(super) allowed: String,
    /// The default as TOML, or `required`.
    pub(super) default: String,
}

/// A section that [`section!`] declares.
pub(super) trait Section: Sized {
    /// Reads the section's keys, and reports unknown keys.
    fn read(keys: SectionReader<'_>) -> Self;

    /// Returns the section's keys and their values, in the order of their declarations.
    fn lines(&self) -> Vec<ShownLine>;
}

/// Reads the keys of one table.
pub(super) struct SectionReader<'a> {
    prefix: String,
    entries: Vec<(String, RawValue)>,
    errors: &'a mut ConfigErrors,
}

impl<'a> SectionReader<'a> {
    /// Creates a reader for the table with the name `prefix`, whose entries are `entries`. An empty `prefix` means
    /// the root table.
    pub(super) fn new(prefix: &str, entries: Vec<(String, RawValue)>, errors: &'a mut ConfigErrors) -> Self {
        Self { prefix: prefix.to_owned(), entries, errors }
    }

    /// Returns the dotted name of a key of this table, such as `lake.location`.
    pub(super) fn key(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_owned() } else { format!("{}.{name}", self.prefix) }
    }

    /// Reads the key `name`. Returns the key's default if the key is missing or its value is invalid.
    pub(super) fn take<T: Value>(&mut self, name: &str, spec: KeySpec<T>) -> T {
        let key = self.key(name);
        let Some(index) = self.entries.iter().position(|(entry, _)| entry == name) else {
            if spec.required {
                self.errors.add(&key, format!("is missing: set it to {}", T::form()));
            }
            return spec.default;
        };
        let (_, raw) = self.entries.swap_remove(index);
        T::read(raw, &key, &spec, self.errors).unwrap_or(spec.default)
    }

    /// Reads the section `name`. A missing section is treated as an empty one, so that each required key is reported as
    /// missing.
    pub(super) fn section<S: Section>(&mut self, name: &str) -> S {
        let key = self.key(name);
        let entries = match self.entries.iter().position(|(entry, _)| entry == name) {
            None => Vec::new(),
            Some(index) => match self.entries.swap_remove(index).1 {
                RawValue::Table(entries) => entries,
                other => {
                    self.errors.add(&key, format!("is a section, not {}: use [{key}] and its keys", other.kind()));
                    Vec::new()
                }
            },
        };
        S::read(SectionReader::new(&key, entries, self.errors))
    }

    /// Reports the remaining entries as unknown keys. Call this only after all known keys have been read.
    pub(super) fn finish(self, known: &[&str]) {
        for (name, _) in &self.entries {
            let guess = did_you_mean(name, known.iter().copied());
            let known = if guess.is_empty() { format!("; known keys are {}", known.join(", ")) } else { guess };
            self.errors.add(&self.key(name), format!("unknown key{known}"));
        }
    }
}

impl<T: Value + PartialOrd> KeySpec<T> {
    /// Returns `value` if it is within the bounds. Otherwise adds an error.
    pub(super) fn check(&self, value: T, key: &str, errors: &mut ConfigErrors) -> Option<T> {
        match &self.bounds {
            Some(bounds) if !bounds.contains(&value) => {
                errors.add(key, format!("must be {}, but is {}", self.allowed(), value.show(self.unit)));
                None
            }
            _ => Some(value),
        }
    }
}

impl<T: Value> KeySpec<T> {
    /// Describes the allowed values with their bounds and unit.
    pub(super) fn allowed(&self) -> String {
        match &self.bounds {
            None => T::form(),
            Some(bounds) => {
                let (low, high) = (bounds.start().show(self.unit), bounds.end().show(self.unit));
                let unit = if self.unit == BYTES { "" } else { self.unit };
                format!("{low} to {high} {unit}").trim_end().replace('"', "")
            }
        }
    }

    /// Builds the documentation of this key. `what` is its doc comment, and `note` gives a reason for the key or its
    /// default.
    pub(super) fn document(&self, what: &str, note: &'static str) -> KeyInfo {
        let default = match (self.required, self.default.show(self.unit)) {
            (true, _) => "required".to_owned(),
            (false, ShownValue::Inline(text)) => text,
            (false, ShownValue::Absent | ShownValue::Table(_)) => "not set".to_owned(),
        };
        let what = what.split_whitespace().collect::<Vec<_>>().join(" ");
        KeyInfo { what, note, allowed: self.allowed(), default }
    }
}

impl fmt::Display for ShownValue {
    /// Writes the value on one line, with tables in braces.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("(not set)"),
            Self::Inline(text) => f.write_str(text),
            Self::Table(lines) => {
                let set = lines.iter().filter(|line| line.shown != Self::Absent);
                let entries: Vec<_> = set.map(|line| format!("{} = {}", line.key, line.shown)).collect();
                if entries.is_empty() { f.write_str("{}") } else { write!(f, "{{ {} }}", entries.join(", ")) }
            }
        }
    }
}

/// Declares a section as a struct with one field per key.
///
/// Each key is declared in the form `name: type = spec, "note";`. The spec is one of [`count`], [`bytes`], [`time`],
/// [`plain`], [`none`] and [`required`].
macro_rules! section {
    (
        $(#[doc = $about:literal])+
        $name:ident {
            $( $(#[doc = $what:literal])+ $field:ident: $type:ty = $spec:expr, $note:literal; )+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Clone)]
        pub struct $name {
            $(
                $(#[doc = $what])+
                #[doc = concat!("\n\n", $note, ".")]
                pub $field: $type,
            )+
        }

        impl Default for $name {
            fn default() -> Self {
                $( let $field: $crate::config::section_macro::KeySpec<$type> = $spec; )+
                Self { $( $field: $field.default, )+ }
            }
        }

        impl $crate::config::section_macro::Section for $name {
            fn read(mut keys: $crate::config::section_macro::SectionReader<'_>) -> Self {
                let section = Self { $( $field: keys.take(stringify!($field), $spec), )+ };
                keys.finish(&[$( stringify!($field) ),+]);
                section
            }

            fn lines(&self) -> Vec<$crate::config::section_macro::ShownLine> {
                vec![$({
                    let spec: $crate::config::section_macro::KeySpec<$type> = $spec;
                    $crate::config::section_macro::ShownLine {
                        key: stringify!($field).to_owned(),
                        shown: $crate::config::section_macro::Value::show(&self.$field, spec.unit),
                        about: Some(spec.document(concat!($($what),+), $note)),
                    }
                }),+]
            }
        }

        /// Writes the values on one line, in the form that `config show` uses for each value. Secrets are redacted, so
        /// they do not appear in logs.
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let lines = $crate::config::section_macro::Section::lines(self);
                write!(f, "{} {}", stringify!($name), $crate::config::section_macro::ShownValue::Table(lines))
            }
        }
    };
}

pub(super) use section;
