//! Declares sections: each key once, with type, unit, default, bounds and reason.
//!
//! ```text
//!   section! { … } ─► struct + Default + reading with range checks + `config show` + docs/configuration.md
//! ```
//!
//! The value type of a key defines how it is read and shown ([`Value`], in `value.rs`); the key defines what is allowed.

use std::fmt;
use std::ops::RangeInclusive;

use super::error::ConfigErrors;
use super::raw::RawConfig;
use crate::error::did_you_mean;

/// The declaration of one key: its default and its allowed values.
#[derive(Debug, Clone)]
pub(super) struct KeySpec<T> {
    pub(super) default: T,
    pub(super) unit: &'static str,
    pub(super) bounds: Option<RangeInclusive<T>>,
    pub(super) required: bool,
}

/// The unit of values that are read and shown as `64 MiB`.
pub(super) const BYTES: &str = "bytes";

/// A number of `unit` things.
pub(super) fn count<T>(unit: &'static str, default: T, bounds: RangeInclusive<T>) -> KeySpec<T> {
    KeySpec { default, unit, bounds: Some(bounds), required: false }
}

/// A size.
pub(super) fn bytes<T>(default: T, bounds: RangeInclusive<T>) -> KeySpec<T> {
    count(BYTES, default, bounds)
}

/// A length of time.
pub(super) fn time<T>(default: T, bounds: RangeInclusive<T>) -> KeySpec<T> {
    count("", default, bounds)
}

/// Any value of the type, with a default.
pub(super) fn plain<T>(default: impl Into<T>) -> KeySpec<T> {
    KeySpec { default: default.into(), unit: "", bounds: None, required: false }
}

/// An optional value, empty by default.
pub(super) fn none<T: Default>() -> KeySpec<T> {
    plain(T::default())
}

/// A required value. `default` is only for sections that are built in code.
pub(super) fn required<T>(default: impl Into<T>) -> KeySpec<T> {
    KeySpec { required: true, ..plain(default) }
}

/// A type that a key can have.
pub(super) trait Value: Sized {
    /// Reads `raw`, the value of `key`. Adds every error to `faults`, and returns `None` if there is one.
    fn read(raw: RawConfig, key: &str, spec: &KeySpec<Self>, faults: &mut ConfigErrors) -> Option<Self>;

    /// As it is written in TOML; secrets are redacted.
    fn show(&self, unit: &'static str) -> ShownValue;

    /// The allowed values, without bounds: `"a" or "b"`.
    fn form() -> String;
}

/// A value as it is written in TOML.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ShownValue {
    /// Not set.
    Absent,
    /// `64`, `"text"`, `["list"]`.
    Inline(String),
    /// A table of its own.
    Table(Vec<ShownLine>),
}

/// One key of a table and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ShownLine {
    pub(super) key: String,
    pub(super) shown: ShownValue,
    pub(super) about: Option<SectionInfo>,
}

/// The documentation of a key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct SectionInfo {
    /// What the key sets.
    pub(super) what: String,
    /// The reason for the default.
    pub(super) why: &'static str,
    /// Form, bounds and unit: `1 to 100 rows`.
    pub(super) allowed: String,
    /// The default as it is written, or `required`.
    pub(super) default: String,
}

/// A table of keys, declared by [`section!`].
pub(super) trait Section: Sized {
    /// Reads its keys, and reports unknown ones.
    fn read(keys: SectionReader<'_>) -> Self;

    /// Its keys in their documented order, with their values.
    fn lines(&self) -> Vec<ShownLine>;
}

/// The keys of one table while it is read.
pub(super) struct SectionReader<'a> {
    prefix: String,
    entries: Vec<(String, RawConfig)>,
    faults: &'a mut ConfigErrors,
}

impl<'a> SectionReader<'a> {
    /// The entries of the table at `prefix` (empty for the whole file).
    pub(super) fn new(prefix: &str, entries: Vec<(String, RawConfig)>, faults: &'a mut ConfigErrors) -> Self {
        Self { prefix: prefix.to_owned(), entries, faults }
    }

    /// The full name of a key of this table.
    pub(super) fn key(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_owned() } else { format!("{}.{name}", self.prefix) }
    }

    /// Takes the value of `name`, or its default if it is missing or invalid.
    pub(super) fn take<T: Value>(&mut self, name: &str, spec: KeySpec<T>) -> T {
        let key = self.key(name);
        let Some(index) = self.entries.iter().position(|(entry, _)| entry == name) else {
            if spec.required {
                self.faults.add(&key, format!("is missing: set it to {}", T::form()));
            }
            return spec.default;
        };
        let (_, raw) = self.entries.swap_remove(index);
        T::read(raw, &key, &spec, self.faults).unwrap_or(spec.default)
    }

    /// Takes a section, or its defaults if it is missing. Its required keys are required in both cases.
    pub(super) fn section<S: Section>(&mut self, name: &str) -> S {
        let key = self.key(name);
        let entries = match self.entries.iter().position(|(entry, _)| entry == name) {
            None => Vec::new(),
            Some(index) => match self.entries.swap_remove(index).1 {
                RawConfig::Table(entries) => entries,
                other => {
                    self.faults.add(&key, format!("is a section, not {}: use [{key}] and its keys", other.kind()));
                    Vec::new()
                }
            },
        };
        S::read(SectionReader::new(&key, entries, self.faults))
    }

    /// Reports keys that were not taken.
    pub(super) fn finish(self, known: &[&str]) {
        for (name, _) in &self.entries {
            let guess = did_you_mean(name, known.iter().copied());
            let known = if guess.is_empty() { format!("; known keys are {}", known.join(", ")) } else { guess };
            self.faults.add(&self.key(name), format!("unknown key{known}"));
        }
    }
}

impl<T: Value + PartialOrd> KeySpec<T> {
    /// `value` if it is within the bounds.
    pub(super) fn check(&self, value: T, key: &str, faults: &mut ConfigErrors) -> Option<T> {
        match &self.bounds {
            Some(bounds) if !bounds.contains(&value) => {
                faults.add(key, format!("must be {}, is {}", self.allowed(), value.show(self.unit)));
                None
            }
            _ => Some(value),
        }
    }
}

impl<T: Value> KeySpec<T> {
    /// Form, bounds and unit in words.
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

    /// The documentation of this key, from its doc comment and reason.
    pub(super) fn about(&self, what: &str, why: &'static str) -> SectionInfo {
        let default = match (self.required, self.default.show(self.unit)) {
            (true, _) => "required".to_owned(),
            (false, ShownValue::Inline(text)) => text,
            (false, ShownValue::Absent | ShownValue::Table(_)) => "not set".to_owned(),
        };
        let what = what.split_whitespace().collect::<Vec<_>>().join(" ");
        SectionInfo { what, why, allowed: self.allowed(), default }
    }
}

impl fmt::Display for ShownValue {
    /// On one line: tables in braces.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Absent => f.write_str("(not set)"),
            Self::Inline(text) => f.write_str(text),
            Self::Table(lines) => {
                let set = lines.iter().filter(|line| line.shown != Self::Absent);
                let texts: Vec<_> = set.map(|line| format!("{} = {}", line.key, line.shown)).collect();
                if texts.is_empty() { f.write_str("{}") } else { write!(f, "{{ {} }}", texts.join(", ")) }
            }
        }
    }
}

/// Declares a section: a struct whose every field is a key.
///
/// `name: type = spec, "reason";` with [`count`], [`bytes`], [`time`], [`plain`], [`none`] or [`required`] as the spec.
macro_rules! section {
    (
        $(#[doc = $about:literal])+
        $name:ident {
            $( $(#[doc = $what:literal])+ $field:ident: $type:ty = $spec:expr, $why:literal; )+
        }
    ) => {
        $(#[doc = $about])+
        #[derive(Clone)]
        pub struct $name {
            $(
                $(#[doc = $what])+
                #[doc = concat!("\n\nReason: ", $why, ".")]
                pub $field: $type,
            )+
        }

        impl Default for $name {
            fn default() -> Self {
                $( let $field: $crate::config::key::KeySpec<$type> = $spec; )+
                Self { $( $field: $field.default, )+ }
            }
        }

        impl $crate::config::key::Section for $name {
            fn read(mut keys: $crate::config::key::SectionReader<'_>) -> Self {
                let section = Self { $( $field: keys.take(stringify!($field), $spec), )+ };
                keys.finish(&[$( stringify!($field) ),+]);
                section
            }

            fn lines(&self) -> Vec<$crate::config::key::ShownLine> {
                vec![$({
                    let spec: $crate::config::key::KeySpec<$type> = $spec;
                    $crate::config::key::ShownLine {
                        key: stringify!($field).to_owned(),
                        shown: $crate::config::key::Value::show(&self.$field, spec.unit),
                        about: Some(spec.about(concat!($($what),+), $why)),
                    }
                }),+]
            }
        }

        /// The same as `config show`, on one line, so that secrets are also redacted in logs.
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let lines = $crate::config::key::Section::lines(self);
                write!(f, "{} {}", stringify!($name), $crate::config::key::ShownValue::Table(lines))
            }
        }
    };
}

pub(super) use section;
