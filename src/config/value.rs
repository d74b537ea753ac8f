//! The scalar types of keys: how each is read and shown. Lists and tables are in `collections.rs`.
//!
//! Numbers are TOML integers; sizes also `"64 MiB"`; times `"250ms"`, `"1s"`, `"15m"`, `"1h"`, `"7d"`. A variable's text
//! is read as the same, without the quotes.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use super::error::ConfigErrors;
use super::key::{BYTES, KeySpec, ShownValue, Value, none};
use super::raw::RawConfig;
use super::{Envelope, LogFormat, OnGap, Secret, SourceFormat, SourceKind, TimeUnit, TypeProfile};
use crate::error::did_you_mean;

/// Binary units, largest first.
const SIZES: [(&str, u64); 4] = [("TiB", 1 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];

/// Units of time in microseconds, largest first.
const TIMES: [(&str, u64); 6] =
    [("d", 86_400_000_000), ("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("ms", 1_000), ("us", 1)];

/// The placeholder for secrets wherever values are shown.
pub(super) const REDACTED: &str = "(redacted)";

/// A text in TOML's quotes.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// Adds "must be `form`, is `raw`".
pub(super) fn wrong<T: Value>(raw: &RawConfig, key: &str, faults: &mut ConfigErrors) -> Option<T> {
    faults.add(key, format!("must be {}, is {}", T::form(), raw.kind()));
    None
}

macro_rules! numbers {
    ($($type:ty),+) => {$(
        impl Value for $type {
            fn read(raw: RawConfig, key: &str, spec: &KeySpec<Self>, faults: &mut ConfigErrors) -> Option<Self> {
                let number = match raw.typed() {
                    RawConfig::Integer(number) => number,
                    RawConfig::Text(text) if spec.unit == BYTES => match parse_scaled(&text, &SIZES) {
                        Some(size) => i128::from(size),
                        None => {
                            faults.add(key, format!("must be a size such as \"64 MiB\" or a number of bytes, is {}", quoted(&text)));
                            return None;
                        }
                    },
                    other => return wrong::<Self>(&other, key, faults),
                };
                let Ok(value) = Self::try_from(number) else {
                    faults.add(key, format!("must be {}, is {number}", spec.allowed()));
                    return None;
                };
                spec.check(value, key, faults)
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
    fn read(raw: RawConfig, key: &str, spec: &KeySpec<Self>, faults: &mut ConfigErrors) -> Option<Self> {
        match raw.typed() {
            RawConfig::Text(text) => match parse_scaled(&text, &TIMES) {
                Some(micros) => spec.check(Self::from_micros(micros), key, faults),
                None => {
                    faults.add(key, format!("must be {}, is {}", Self::form(), quoted(&text)));
                    None
                }
            },
            RawConfig::Integer(number) => {
                faults.add(key, format!("a time needs a unit, such as \"{number}s\" or \"{number}ms\""));
                None
            }
            other => wrong::<Self>(&other, key, faults),
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

/// Parses a duration in the format of the configuration, for the command line.
pub(crate) fn parse_time(text: &str) -> Result<Duration, String> {
    let micros = parse_scaled(text, &TIMES);
    micros.map(Duration::from_micros).ok_or_else(|| format!("must be {}", Duration::form()))
}

/// A whole number and a unit of `units`; a bare number counts the smallest thing where `units` are sizes.
fn parse_scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let name = text[digits..].trim();
    let sizes = units.len() == SIZES.len();
    if sizes && (name.is_empty() || name == "B") {
        return Some(number);
    }
    let (_, size) = units.iter().find(|(unit, _)| *unit == name)?;
    number.checked_mul(*size)
}

impl Value for bool {
    fn read(raw: RawConfig, key: &str, _knob: &KeySpec<Self>, faults: &mut ConfigErrors) -> Option<Self> {
        match raw.typed() {
            RawConfig::Bool(yes) => Some(yes),
            other => wrong::<Self>(&other, key, faults),
        }
    }

    fn show(&self, _unit: &'static str) -> ShownValue {
        ShownValue::Inline(self.to_string())
    }

    fn form() -> String {
        "true or false".to_owned()
    }
}

/// Reads the value of a text key.
pub(super) fn text<T: Value>(
    raw: RawConfig,
    key: &str,
    spec: &KeySpec<T>,
    faults: &mut ConfigErrors,
) -> Option<String> {
    match raw {
        RawConfig::Text(text) | RawConfig::Variable(text) if spec.required && text.trim().is_empty() => {
            faults.add(key, "must not be empty");
            None
        }
        RawConfig::Text(text) | RawConfig::Variable(text) => Some(text),
        other => {
            wrong::<T>(&other, key, faults);
            None
        }
    }
}

impl Value for String {
    fn read(raw: RawConfig, key: &str, spec: &KeySpec<Self>, faults: &mut ConfigErrors) -> Option<Self> {
        text(raw, key, spec, faults)
    }

    fn show(&self, _unit: &'static str) -> ShownValue {
        ShownValue::Inline(quoted(self))
    }

    fn form() -> String {
        "text".to_owned()
    }
}

impl Value for PathBuf {
    fn read(raw: RawConfig, key: &str, spec: &KeySpec<Self>, faults: &mut ConfigErrors) -> Option<Self> {
        let path = text(raw, key, spec, faults)?;
        if path.is_empty() {
            faults.add(key, "must not be empty: omit it instead");
            return None;
        }
        Some(path.into())
    }

    fn show(&self, _unit: &'static str) -> ShownValue {
        ShownValue::Inline(quoted(&self.to_string_lossy()))
    }

    fn form() -> String {
        "a path, relative to the folder of this file".to_owned()
    }
}

impl Value for Secret {
    fn read(raw: RawConfig, key: &str, spec: &KeySpec<Self>, faults: &mut ConfigErrors) -> Option<Self> {
        let secret = text(raw, key, spec, faults)?;
        if secret == REDACTED {
            faults.add(key, "is the placeholder of `config show`, not a secret");
            return None;
        }
        Some(Self::new(secret))
    }

    fn show(&self, _unit: &'static str) -> ShownValue {
        if self.is_empty() { ShownValue::Absent } else { ShownValue::Inline(quoted(REDACTED)) }
    }

    fn form() -> String {
        "a secret text".to_owned()
    }
}

impl Value for SocketAddr {
    fn read(raw: RawConfig, key: &str, spec: &KeySpec<Self>, faults: &mut ConfigErrors) -> Option<Self> {
        let text = text(raw, key, spec, faults)?;
        text.parse().map_err(|_| faults.add(key, format!("must be {}, is {}", Self::form(), quoted(&text)))).ok()
    }

    fn show(&self, _unit: &'static str) -> ShownValue {
        ShownValue::Inline(quoted(&self.to_string()))
    }

    fn form() -> String {
        "an address and a port, such as \"127.0.0.1:8080\" or \"[::1]:8080\"".to_owned()
    }
}

impl<T: Value + Default> Value for Option<T> {
    fn read(raw: RawConfig, key: &str, _knob: &KeySpec<Self>, faults: &mut ConfigErrors) -> Option<Self> {
        T::read(raw, key, &none(), faults).map(Some)
    }

    fn show(&self, unit: &'static str) -> ShownValue {
        self.as_ref().map_or(ShownValue::Absent, |value| value.show(unit))
    }

    fn form() -> String {
        T::form()
    }
}

macro_rules! choices {
    ($($type:ident { $($text:literal => $variant:ident),+ $(,)? })+) => {$(
        impl Value for $type {
            fn read(raw: RawConfig, key: &str, spec: &KeySpec<Self>, faults: &mut ConfigErrors) -> Option<Self> {
                let given = text(raw, key, spec, faults)?;
                match given.as_str() {
                    $($text => Some(Self::$variant),)+
                    other => {
                        let guess = did_you_mean(other, [$($text),+]);
                        faults.add(key, format!("must be {}, is {}{guess}", Self::form(), quoted(other)));
                        None
                    }
                }
            }

            fn show(&self, _unit: &'static str) -> ShownValue {
                ShownValue::Inline(quoted(match self { $(Self::$variant => $text,)+ }))
            }

            fn form() -> String {
                [$(concat!("\"", $text, "\"")),+].join(" or ")
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
}
