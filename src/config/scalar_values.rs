//! Reads and shows scalar values: numbers, sizes, durations, strings, paths, secrets and choices.
//! Lists and tables are in `collection_values.rs`.
//!
//! A number is a TOML integer. A size is a number of bytes or a string such as `"64 MiB"`. A duration is a string such
//! as `"250ms"`, `"1s"`, `"15m"`, `"1h"` or `"7d"`. In an environment variable, these strings are written without
//! quotes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::error::ConfigErrors;
use super::raw::RawValue;
use super::secret_strength;
use super::section_macro::{BYTES, KeySpec, ShownValue, Value, none};
use super::{
    DecimalEncoding, Envelope, LogFormat, OnGap, OnTruncate, Secret, SourceFormat, SourceKind, TimeUnit, TypeProfile,
};
use crate::error::did_you_mean;

/// The units of sizes, largest first, each with its number of bytes.
const SIZES: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// The units of durations, largest first, each with its number of microseconds.
const TIMES: [(&str, u64); 6] =
    [("d", 86_400_000_000), ("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1_000), ("us", 1)];

/// The text that replaces a secret when values are shown.
pub(super) const REDACTED: &str = "(redacted)";

/// Formats a string as TOML, in quotes.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// Adds an error that states which form of value is expected and which type `raw` has. Always returns `None`, so that
/// callers can return its result.
pub(super) fn wrong<T: Value>(raw: &RawValue, key: &str, errors: &mut ConfigErrors) -> Option<T> {
    errors.add(key, format!("must be {}, but is {}", T::form(), raw.kind()));
    None
}

macro_rules! numbers {
    ($($type:ty),+) => {$(
        impl Value for $type {
            fn read(raw: RawValue, key: &str, spec: &KeySpec<Self>, errors: &mut ConfigErrors) -> Option<Self> {
                let number = match raw.typed() {
                    RawValue::Integer(number) => number,
                    RawValue::String(text) if spec.unit == BYTES => match parse_scaled(&text, &SIZES) {
                        Some(size) => i128::from(size),
                        None => {
                            errors.add(key, format!("must be a size such as \"64 MiB\" or a number of bytes, but is {}", quoted(&text)));
                            return None;
                        }
                    },
                    other => return wrong::<Self>(&other, key, errors),
                };
                let Ok(value) = Self::try_from(number) else {
                    errors.add(key, format!("must be {}, but is {number}", spec.allowed()));
                    return None;
                };
                spec.check(value, key, errors)
            }

            fn show(&self, unit: &'static str) -> ShownValue {
                let exact = SIZES.iter().find(|(_, size)| *self != 0 && (*self as u64).is_multiple_of(*size));
                ShownValue::Inline(match exact {
                    Some((name, size)) if unit == BYTES => format!("\"{} {name}\"", *self as u64 / size),
                    _ => self.to_string(),
                })
            }

            fn form() -> String {
                "an integer".to_owned()
            }
        }
    )+};
}

numbers!(usize, u64, u32, i32);

impl Value for Duration {
    fn read(raw: RawValue, key: &str, spec: &KeySpec<Self>, errors: &mut ConfigErrors) -> Option<Self> {
        match raw.typed() {
            RawValue::String(text) => match parse_scaled(&text, &TIMES) {
                Some(micros) => spec.check(Self::from_micros(micros), key, errors),
                None => {
                    errors.add(key, format!("must be {}, but is {}", Self::form(), quoted(&text)));
                    None
                }
            },
            RawValue::Integer(number) => {
                errors.add(key, format!("a time needs a unit, such as \"{number}s\" or \"{number}ms\""));
                None
            }
            other => wrong::<Self>(&other, key, errors),
        }
    }

    fn show(&self, _unit: &'static str) -> ShownValue {
        let micros = u64::try_from(self.as_micros()).unwrap_or(u64::MAX);
        let unit = TIMES.iter().find(|(_, size)| micros != 0 && micros.is_multiple_of(*size));
        let (name, size) = unit.copied().unwrap_or(("s", 1_000_000));
        ShownValue::Inline(format!("\"{}{name}\"", micros / size))
    }

    fn form() -> String {
        "a time such as \"250ms\", \"1s\", \"15m\", \"1h\" or \"7d\"".to_owned()
    }
}

/// Parses a duration from the command line. The format is the same as in the configuration.
pub(crate) fn parse_time(text: &str) -> Result<Duration, String> {
    let micros = parse_scaled(text, &TIMES);
    micros.map(Duration::from_micros).ok_or_else(|| format!("must be {}", Duration::form()))
}

/// Parses a whole number followed by one of `units`, and returns it in the smallest unit. A size without a unit is a
/// number of bytes.
fn parse_scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let name = text[digits..].trim();
    let is_size = units.len() == SIZES.len();
    if is_size && (name.is_empty() || name == "B") {
        return Some(number);
    }
    let (_, size) = units.iter().find(|(unit, _)| *unit == name)?;
    number.checked_mul(*size)
}

impl Value for bool {
    fn read(raw: RawValue, key: &str, _spec: &KeySpec<Self>, errors: &mut ConfigErrors) -> Option<Self> {
        match raw.typed() {
            RawValue::Bool(yes) => Some(yes),
            other => wrong::<Self>(&other, key, errors),
        }
    }

    fn show(&self, _unit: &'static str) -> ShownValue {
        ShownValue::Inline(self.to_string())
    }

    fn form() -> String {
        "true or false".to_owned()
    }
}

/// Reads a string. For a required key, adds an error if the string is empty.
pub(super) fn text<T: Value>(raw: RawValue, key: &str, spec: &KeySpec<T>, errors: &mut ConfigErrors) -> Option<String> {
    match raw {
        RawValue::String(text) | RawValue::Variable(text) if spec.required && text.trim().is_empty() => {
            errors.add(key, "must not be empty");
            None
        }
        RawValue::String(text) | RawValue::Variable(text) => Some(text),
        other => {
            wrong::<T>(&other, key, errors);
            None
        }
    }
}

impl Value for String {
    fn read(raw: RawValue, key: &str, spec: &KeySpec<Self>, errors: &mut ConfigErrors) -> Option<Self> {
        text(raw, key, spec, errors)
    }

    fn show(&self, _unit: &'static str) -> ShownValue {
        ShownValue::Inline(quoted(self))
    }

    fn form() -> String {
        "a string".to_owned()
    }
}

impl Value for PathBuf {
    fn read(raw: RawValue, key: &str, spec: &KeySpec<Self>, errors: &mut ConfigErrors) -> Option<Self> {
        let path = text(raw, key, spec, errors)?;
        if path.is_empty() {
            errors.add(key, "must not be empty: write a path, or omit the key");
            return None;
        }
        if let Some(problem) = secret_strength::shell_path(&path) {
            errors.add(key, problem);
            return None;
        }
        Some(path.into())
    }

    fn show(&self, _unit: &'static str) -> ShownValue {
        ShownValue::Inline(quoted(&self.to_string_lossy()))
    }

    fn form() -> String {
        "a path, relative to the configuration file".to_owned()
    }
}

impl Value for Secret {
    fn read(raw: RawValue, key: &str, spec: &KeySpec<Self>, errors: &mut ConfigErrors) -> Option<Self> {
        let secret = text(raw, key, spec, errors)?;
        if secret == REDACTED {
            errors.add(key, "is the placeholder that `config show` prints, not a secret");
            return None;
        }
        if let Some(problem) = secret_strength::placeholder(&secret) {
            errors.add(key, problem);
            return None;
        }
        Some(Self::new(secret))
    }

    fn show(&self, _unit: &'static str) -> ShownValue {
        if self.is_empty() { ShownValue::Absent } else { ShownValue::Inline(quoted(REDACTED)) }
    }

    fn form() -> String {
        "a string, which is kept secret".to_owned()
    }
}

impl Value for SocketAddr {
    fn read(raw: RawValue, key: &str, spec: &KeySpec<Self>, errors: &mut ConfigErrors) -> Option<Self> {
        let text = text(raw, key, spec, errors)?;
        text.parse().map_err(|_| errors.add(key, format!("must be {}, but is {}", Self::form(), quoted(&text)))).ok()
    }

    fn show(&self, _unit: &'static str) -> ShownValue {
        ShownValue::Inline(quoted(&self.to_string()))
    }

    fn form() -> String {
        "an address and a port, such as \"127.0.0.1:8080\" or \"[::1]:8080\"".to_owned()
    }
}

impl<T: Value + Default> Value for Option<T> {
    fn read(raw: RawValue, key: &str, _spec: &KeySpec<Self>, errors: &mut ConfigErrors) -> Option<Self> {
        T::read(raw, key, &none(), errors).map(Some)
    }

    fn show(&self, unit: &'static str) -> ShownValue {
        self.as_ref().map_or(ShownValue::Absent, |value| value.show(unit))
    }

    fn form() -> String {
        T::form()
    }
}

/// Formats alternatives as `a, b or c`.
fn alternatives(names: &[&str]) -> String {
    match names {
        [others @ .., last] if !others.is_empty() => format!("{} or {last}", others.join(", ")),
        _ => names.concat(),
    }
}

macro_rules! choices {
    ($($type:ident { $($text:literal => $variant:ident),+ $(,)? })+) => {$(
        impl Value for $type {
            fn read(raw: RawValue, key: &str, spec: &KeySpec<Self>, errors: &mut ConfigErrors) -> Option<Self> {
                let given = text(raw, key, spec, errors)?;
                match given.as_str() {
                    $($text => Some(Self::$variant),)+
                    other => {
                        let guess = did_you_mean(other, [$($text),+]);
                        errors.add(key, format!("must be {}, but is {}{guess}", Self::form(), quoted(other)));
                        None
                    }
                }
            }

            fn show(&self, _unit: &'static str) -> ShownValue {
                ShownValue::Inline(quoted(match self { $(Self::$variant => $text,)+ }))
            }

            fn form() -> String {
                alternatives(&[$(concat!("\"", $text, "\"")),+])
            }
        }
    )+};
}

choices! {
    TimeUnit {
        "auto" => Auto, "seconds" => Seconds, "millis" => Millis, "micros" => Micros, "nanos" => Nanos,
    }
    TypeProfile { "compat" => Compat, "native" => Native }
    LogFormat { "text" => Text, "json" => Json }
    SourceKind { "kafka" => Kafka }
    SourceFormat { "json" => Json, "protobuf" => Protobuf, "avro" => Avro }
    Envelope { "none" => None, "debezium" => Debezium }
    OnGap { "stop" => Stop, "earliest" => Earliest }
    OnTruncate { "stop" => Stop, "ignore" => Ignore }
    DecimalEncoding { "base64" => Base64, "text" => Text }
}
