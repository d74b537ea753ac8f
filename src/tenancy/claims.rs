//! Strict parsing of token claims. Duplicate keys and claims of the wrong type are errors.
//!
//! The input is a base64url segment of a token, or the text of a key set. The result is a typed value, or an error that
//! names the claim.
//!
//! **Invariant:** a duplicate key at any depth is an error, because different parsers could use different values for
//! the key.
//! **Invariant:** a claim of the wrong type is an error, and is never treated as absent.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;
use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// The maximum length of `iss`, `sub`, `jti`, `kid` and `typ`, in bytes.
pub(super) const TEXT_BYTES_MAX: usize = 256;
/// The latest valid time in a claim, in seconds since 1970: the last second of the year 9999.
const SECONDS_MAX: i64 = 253_402_300_799;

/// A JSON object from a token: its header or its claims.
#[derive(Debug)]
pub(super) struct Claims {
    values: Map<String, Value>,
    /// The text from which the values were parsed. It contains all digits of the numbers.
    json: String,
}

impl Claims {
    /// Decodes one segment of a token, which is a JSON object in base64url without padding.
    pub(super) fn parse(part: &str) -> Result<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(part).map_err(|error| malformed("is not base64url").with_source(error))?;
        let values = object(&bytes)?;
        let json = String::from_utf8(bytes).map_err(|error| malformed("is not UTF-8").with_source(error))?;
        Ok(Self { values, json })
    }

    /// Returns the value of a top-level claim.
    pub(super) fn get(&self, name: &str) -> Option<&Value> {
        self.values.get(name)
    }

    /// Returns an optional string claim. The string must not be empty, must not be longer than [`TEXT_BYTES_MAX`], and
    /// must not contain control characters.
    pub(super) fn text(&self, name: &str) -> Result<Option<&str>> {
        match self.values.get(name) {
            None => Ok(None),
            Some(Value::String(text)) if text.is_empty() => Err(refuse(name, "is empty")),
            Some(Value::String(text)) if text.len() > TEXT_BYTES_MAX => Err(refuse(name, "is too long")),
            Some(Value::String(text)) if text.contains(char::is_control) => Err(refuse(name, "has control characters")),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(refuse(name, "is not a string")),
        }
    }

    /// Returns an optional time claim (RFC 7519, NumericDate) in seconds since 1970. Fractions are truncated.
    pub(super) fn seconds(&self, name: &str) -> Result<Option<i64>> {
        let Some(value) = self.values.get(name) else { return Ok(None) };
        let Value::Number(number) = value else { return Err(refuse(name, "is not a number")) };
        let seconds = number.as_i64().or_else(|| number.as_f64().and_then(whole));
        match seconds.filter(|seconds| (0..=SECONDS_MAX).contains(seconds)) {
            Some(seconds) => Ok(Some(seconds)),
            None => Err(refuse(name, "is not a time in seconds since 1970")),
        }
    }

    /// Returns the value at `path`, or `None` if the path does not exist.
    pub(super) fn at(&self, path: &ClaimPath) -> Option<&Value> {
        let (first, rest) = path.0.split_first()?;
        rest.iter().try_fold(self.values.get(first)?, |value, step| value.as_object()?.get(step))
    }

    /// Returns the JSON of the value at `path`, exactly as the token contains it, or `None` if the path does not exist. A
    /// number that [`Claims::at`] returns can have lost digits.
    pub(super) fn json_at(&self, path: &ClaimPath) -> Option<&str> {
        path.0.iter().try_fold(self.json.as_str(), |json, step| {
            let object: BTreeMap<String, &RawValue> = serde_json::from_str(json).ok()?;
            object.get(step).map(|value| value.get())
        })
    }
}

/// The path of a claim: one name, or several names joined by dots (`app.tenant`). A name in double quotes may contain dots
/// (`"org.id"`, `"https://example.com/claims".tenant`). A URL or URN without quotes (`https://example.com/tenant`) is a
/// single name, even if it contains dots.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct ClaimPath(Vec<String>);

impl ClaimPath {
    /// Parses a path. Returns `Invalid` if the path contains an empty name, or a quote that is not closed.
    pub(super) fn parse(text: &str) -> Result<Self> {
        let is_one_name = !text.contains('"') && (text.contains("://") || text.starts_with("urn:"));
        let steps = if is_one_name { Some(vec![text.to_owned()]) } else { names(text) };
        let steps = steps.filter(|steps| steps.iter().all(|step| !step.is_empty()));
        steps.map(Self).ok_or_else(|| {
            Error::invalid(format!(
                "`{text}` is not a claim name: use a name, or names joined by dots such as `app.tenant`, and enclose a \
                 name that contains dots in double quotes, such as `\"org.id\"`"
            ))
        })
    }

    /// Formats the path for people: the names, from the outermost to the innermost.
    pub(super) fn describe(&self) -> String {
        self.0.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" → ")
    }

    /// Returns the first name in the path, which is the name of a top-level claim.
    pub(super) fn first(&self) -> &str {
        &self.0[0]
    }

    /// Sets the value at this path. Missing objects on the path are created, and other values on the path are replaced
    /// by objects.
    pub(super) fn put(&self, claims: &mut Map<String, Value>, value: Value) {
        let (last, parents) = self.0.split_last().expect("`parse` creates only paths with at least one step");
        let mut object = claims;
        for step in parents {
            let next = object.entry(step.clone()).or_insert_with(|| Value::Object(Map::new()));
            if !next.is_object() {
                *next = Value::Object(Map::new());
            }
            object = next.as_object_mut().expect("replaced by an object just above");
        }
        object.insert(last.clone(), value);
    }
}

/// Splits a path at the dots outside of double quotes. Returns `None` if a quote is not closed, or is not at the beginning
/// and the end of a name.
fn names(text: &str) -> Option<Vec<String>> {
    let (mut names, mut rest) = (Vec::new(), text);
    loop {
        let (name, after) = match rest.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => rest.split_at(rest.find('.').unwrap_or(rest.len())),
        };
        if name.contains('"') {
            return None;
        }
        names.push(name.to_owned());
        match after.strip_prefix('.') {
            Some(next) => rest = next,
            None => return after.is_empty().then_some(names),
        }
    }
}

/// Parses one JSON object, and refuses duplicate keys.
pub(super) fn object(bytes: &[u8]) -> Result<Map<String, Value>> {
    match serde_json::from_slice::<Strict>(bytes) {
        Ok(Strict(Value::Object(map))) => Ok(map),
        Ok(_) => Err(malformed("is not a JSON object")),
        Err(error) => Err(malformed("is not valid JSON with distinct keys").with_source(error)),
    }
}

fn malformed(why: &str) -> Error {
    Error::unauthenticated(format!("the token is malformed: one of its parts {why}"))
}

fn refuse(name: &str, why: &str) -> Error {
    Error::unauthenticated(format!("the token is refused: `{name}` {why}"))
}

fn whole(seconds: f64) -> Option<i64> {
    #[expect(clippy::cast_precision_loss, reason = "the bound is far below 2^53")]
    let in_range = (0.0..=SECONDS_MAX as f64).contains(&seconds);
    #[expect(clippy::cast_possible_truncation, reason = "in range, and fractions are truncated on purpose")]
    in_range.then_some(seconds as i64)
}

/// A JSON value without duplicate keys.
struct Strict(Value);

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Self, D::Error> {
        deserializer.deserialize_any(StrictVisitor).map(Strict)
    }
}

struct StrictVisitor;

impl<'de> Visitor<'de> for StrictVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> std::result::Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> std::result::Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> std::result::Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> std::result::Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> std::result::Result<Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> std::result::Result<Value, E> {
        Ok(value.into())
    }

    fn visit_string<E>(self, value: String) -> std::result::Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> std::result::Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(Strict(item)) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> std::result::Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let Strict(value) = entries.next_value()?;
            if map.insert(key, value).is_some() {
                return Err(A::Error::custom("a key appears more than once"));
            }
        }
        Ok(Value::Object(map))
    }
}
