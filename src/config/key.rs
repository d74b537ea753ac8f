//! How a section is declared: each knob once, with type, unit, default, bounds and reason.
//!
//! ```text
//!   section! { … } ─► struct + Default + reading with range checks + `config show` + docs/configuration.md
//! ```
//!
//! A knob's value type says how it is read and shown ([`Value`], in `value.rs`); the knob says what is allowed.

use std::fmt;
use std::ops::RangeInclusive;

use super::error::Faults;
use super::raw::Raw;
use crate::error::did_you_mean;

/// One knob: what it is when nothing is said, and what may be said.
#[derive(Debug, Clone)]
pub(super) struct Knob<T> {
    pub(super) default: T,
    pub(super) unit: &'static str,
    pub(super) bounds: Option<RangeInclusive<T>>,
    pub(super) required: bool,
}

/// The unit that is read and shown as `64 MiB`.
pub(super) const BYTES: &str = "bytes";

/// A number of `unit` things.
pub(super) fn count<T>(unit: &'static str, default: T, bounds: RangeInclusive<T>) -> Knob<T> {
    Knob { default, unit, bounds: Some(bounds), required: false }
}

/// A size.
pub(super) fn bytes<T>(default: T, bounds: RangeInclusive<T>) -> Knob<T> {
    count(BYTES, default, bounds)
}

/// A length of time.
pub(super) fn time<T>(default: T, bounds: RangeInclusive<T>) -> Knob<T> {
    count("", default, bounds)
}

/// Any value of the type; `default` when nothing is said.
pub(super) fn plain<T>(default: impl Into<T>) -> Knob<T> {
    Knob { default: default.into(), unit: "", bounds: None, required: false }
}

/// Nothing, unless said.
pub(super) fn none<T: Default>() -> Knob<T> {
    plain(T::default())
}

/// Something has to be said. `default` is what a section built in code starts from.
pub(super) fn required<T>(default: impl Into<T>) -> Knob<T> {
    Knob { required: true, ..plain(default) }
}

/// A type that a knob can have.
pub(super) trait Value: Sized {
    /// Reads `raw`, which was written for `key`. Pushes every fault; `None` when there is one.
    fn read(raw: Raw, key: &str, knob: &Knob<Self>, faults: &mut Faults) -> Option<Self>;

    /// As it is written in TOML; secrets are redacted.
    fn show(&self, unit: &'static str) -> Shown;

    /// What may be said, beside bounds: `"a" or "b"`.
    fn form() -> String;
}

/// A value as it is written in TOML.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Shown {
    /// Not set.
    Absent,
    /// `64`, `"text"`, `["list"]`.
    Inline(String),
    /// A table of its own.
    Table(Vec<Line>),
}

/// One key of a table and its value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) key: String,
    pub(super) shown: Shown,
    pub(super) about: Option<About>,
}

/// What the page says of a knob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct About {
    /// What it is.
    pub(super) what: String,
    /// Why the default is what it is.
    pub(super) why: &'static str,
    /// Form, bounds and unit: `1 to 100 rows`.
    pub(super) allowed: String,
    /// The default as it is written, or `required`.
    pub(super) default: String,
}

/// A table of knobs, made by [`section!`].
pub(super) trait Section: Sized {
    /// Takes its keys, and complains of those that are left over.
    fn read(keys: Keys<'_>) -> Self;

    /// Its knobs in the order of the page, with their values.
    fn lines(&self) -> Vec<Line>;
}

/// The keys of one table while it is read.
pub(super) struct Keys<'a> {
    prefix: String,
    entries: Vec<(String, Raw)>,
    faults: &'a mut Faults,
}

impl<'a> Keys<'a> {
    /// The entries of the table at `prefix` (empty for the whole file).
    pub(super) fn new(prefix: &str, entries: Vec<(String, Raw)>, faults: &'a mut Faults) -> Self {
        Self { prefix: prefix.to_owned(), entries, faults }
    }

    /// The full name of a key of this table.
    pub(super) fn key(&self, name: &str) -> String {
        if self.prefix.is_empty() { name.to_owned() } else { format!("{}.{name}", self.prefix) }
    }

    /// Takes the value of `name`, or its default when it was not said or is faulty.
    pub(super) fn take<T: Value>(&mut self, name: &str, knob: Knob<T>) -> T {
        let key = self.key(name);
        let Some(index) = self.entries.iter().position(|(entry, _)| entry == name) else {
            if knob.required {
                self.faults.add(&key, format!("is missing: set it to {}", T::form()));
            }
            return knob.default;
        };
        let (_, raw) = self.entries.swap_remove(index);
        T::read(raw, &key, &knob, self.faults).unwrap_or(knob.default)
    }

    /// Takes a section, which has its defaults when nothing of it was said. What it requires is required then, too.
    pub(super) fn section<S: Section>(&mut self, name: &str) -> S {
        let key = self.key(name);
        let entries = match self.entries.iter().position(|(entry, _)| entry == name) {
            None => Vec::new(),
            Some(index) => match self.entries.swap_remove(index).1 {
                Raw::Table(entries) => entries,
                other => {
                    self.faults.add(&key, format!("is a section, not {}: write [{key}] and its keys", other.kind()));
                    Vec::new()
                }
            },
        };
        S::read(Keys::new(&key, entries, self.faults))
    }

    /// Complains of keys that nobody took.
    pub(super) fn finish(self, known: &[&str]) {
        for (name, _) in &self.entries {
            let guess = did_you_mean(name, known.iter().copied());
            let known = if guess.is_empty() { format!("; known are {}", known.join(", ")) } else { guess };
            self.faults.add(&self.key(name), format!("unknown key{known}"));
        }
    }
}

impl<T: Value + PartialOrd> Knob<T> {
    /// `value` when it is within the bounds.
    pub(super) fn check(&self, value: T, key: &str, faults: &mut Faults) -> Option<T> {
        match &self.bounds {
            Some(bounds) if !bounds.contains(&value) => {
                faults.add(key, format!("must be {}, is {}", self.allowed(), value.show(self.unit)));
                None
            }
            _ => Some(value),
        }
    }
}

impl<T: Value> Knob<T> {
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

    /// What the page says of this knob, given its doc comment and reason.
    pub(super) fn about(&self, what: &str, why: &'static str) -> About {
        let default = match (self.required, self.default.show(self.unit)) {
            (true, _) => "required".to_owned(),
            (false, Shown::Inline(text)) => text,
            (false, Shown::Absent | Shown::Table(_)) => "not set".to_owned(),
        };
        let what = what.split_whitespace().collect::<Vec<_>>().join(" ");
        About { what, why, allowed: self.allowed(), default }
    }
}

impl fmt::Display for Shown {
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

/// Declares a section: a struct whose every field is a knob.
///
/// `name: type = knob, "reason";` with [`count`], [`bytes`], [`time`], [`plain`], [`none`] or [`required`] as the knob.
macro_rules! section {
    (
        $(#[doc = $about:literal])+
        $name:ident {
            $( $(#[doc = $what:literal])+ $field:ident: $type:ty = $knob:expr, $why:literal; )+
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
                $( let $field: $crate::config::key::Knob<$type> = $knob; )+
                Self { $( $field: $field.default, )+ }
            }
        }

        impl $crate::config::key::Section for $name {
            fn read(mut keys: $crate::config::key::Keys<'_>) -> Self {
                let section = Self { $( $field: keys.take(stringify!($field), $knob), )+ };
                keys.finish(&[$( stringify!($field) ),+]);
                section
            }

            fn lines(&self) -> Vec<$crate::config::key::Line> {
                vec![$({
                    let knob: $crate::config::key::Knob<$type> = $knob;
                    $crate::config::key::Line {
                        key: stringify!($field).to_owned(),
                        shown: $crate::config::key::Value::show(&self.$field, knob.unit),
                        about: Some(knob.about(concat!($($what),+), $why)),
                    }
                }),+]
            }
        }

        /// As `config show` writes it, on one line: secrets stay hidden in logs as well.
        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                let lines = $crate::config::key::Section::lines(self);
                write!(f, "{} {}", stringify!($name), $crate::config::key::Shown::Table(lines))
            }
        }
    };
}

pub(super) use section;
