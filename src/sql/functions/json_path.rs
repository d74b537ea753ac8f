//! Finds a value in a JSON string without parsing the whole string into a tree.
//!
//! [`find`] takes a JSON string and a path of keys and indexes, and returns the JSON of the value at this path. The
//! other functions convert this JSON to a string, number or boolean. Where possible, the results borrow from the input.
//!
//! [`find`] returns `None` if there is no value at the path. The conversions return `None` if the value is null or of
//! another type.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer as _, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

/// A step of a path, which leads from a value to one of its children.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Step<'a> {
    /// A key of an object. If a key appears more than once, its last value is used.
    Key(&'a str),
    /// An index into an array, starting at 0. Negative indexes count from the end.
    Index(i64),
    /// A key of an object, or an index into an array that is written as text.
    KeyOrIndex(&'a str),
}

/// Returns the JSON of the value at `path`. Returns `None` if no such value exists, or if an object on the path, or the part
/// of an array before the value, is not valid JSON.
pub(crate) fn find<'j>(json: &'j str, path: &[Step<'_>]) -> Option<&'j str> {
    match path.split_first() {
        None => serde_json::from_str::<&RawValue>(json).ok().map(RawValue::get),
        Some((first, rest)) => rest.iter().try_fold(child(json, *first)?, |value, step| child(value, *step)),
    }
}

/// Returns a string value without its quotes, any other value as JSON, and `None` for null.
pub(crate) fn text(value: &str) -> Option<Cow<'_, str>> {
    match value.as_bytes().first()? {
        b'n' => None,
        b'"' if !value.contains('\\') => Some(Cow::Borrowed(value.get(1..value.len() - 1)?)),
        b'"' => serde_json::from_str(value).ok().map(Cow::Owned),
        _ => Some(Cow::Borrowed(value)),
    }
}

/// Parses an integer, for example `12`, `12.0`, `1.2e1` or `"12"`. Returns `None` if the number has a fraction, or does not
/// fit into 64 bits. Nothing is rounded.
pub(crate) fn int(value: &str) -> Option<i64> {
    let digits = number(value)?;
    digits.parse().ok().or_else(|| whole(&digits))
}

/// Parses a number with a decimal point or an exponent whose value is an integer.
fn whole(number: &str) -> Option<i64> {
    let (unsigned, sign) = match number.strip_prefix('-') {
        Some(rest) => (rest, -1_i128),
        None => (number.strip_prefix('+').unwrap_or(number), 1),
    };
    let (mantissa, exponent) = unsigned.split_once(['e', 'E']).unwrap_or((unsigned, "0"));
    let (integer, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let is_number = !(integer.is_empty() && fraction.is_empty());
    let digits = format!("{integer}{fraction}");
    if !is_number || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let significant = digits.trim_end_matches('0');
    if significant.is_empty() {
        return exponent.parse::<i64>().ok().map(|_| 0);
    }
    // The value is `significant · 10^zeros`.
    let dropped = digits.len() - significant.len();
    let zeros = exponent.parse::<i64>().ok()?.checked_add(i64::try_from(dropped).ok()?)?;
    let zeros = zeros.checked_sub(i64::try_from(fraction.len()).ok()?)?;
    let factor = 10_i128.checked_pow(u32::try_from(zeros).ok()?)?;
    let magnitude = significant.trim_start_matches('0').parse::<i128>().ok()?.checked_mul(factor)?;
    i64::try_from(sign * magnitude).ok()
}

/// Parses a number, for example `1`, `1.5` or `"1.5"`.
pub(crate) fn float(value: &str) -> Option<f64> {
    number(value)?.parse().ok().filter(|number: &f64| number.is_finite())
}

/// Parses `true` or `false`.
pub(crate) fn boolean(value: &str) -> Option<bool> {
    match value {
        "true" => Some(true),
        "false" => Some(false),
        _ => None,
    }
}

/// Returns the name of a value's type, as PostgreSQL's `json_typeof` does.
pub(crate) fn type_name(value: &str) -> Option<&'static str> {
    Some(match value.as_bytes().first()? {
        b'{' => "object",
        b'[' => "array",
        b'"' => "string",
        b't' | b'f' => "boolean",
        b'n' => "null",
        _ => "number",
    })
}

/// Returns the JSON of each element of an array.
pub(crate) fn elements(value: &str) -> Option<Vec<&str>> {
    let elements: Vec<&RawValue> = serde_json::from_str(value).ok()?;
    Some(elements.into_iter().map(RawValue::get).collect())
}

/// Returns the text of a JSON number, or the contents of a JSON string that consists only of characters that occur in
/// numbers.
fn number(value: &str) -> Option<Cow<'_, str>> {
    let is_number = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E');
    text(value).filter(|digits| digits.bytes().all(|byte| is_number(&byte)))
}

/// Returns the JSON of one child of an object or array.
fn child<'j>(json: &'j str, step: Step<'_>) -> Option<&'j str> {
    let mut found = None;
    // The parser's result is ignored, because the visitor of an array stops the parser with an error as soon as it has the
    // value.
    let _read = serde_json::Deserializer::from_str(json).deserialize_any(ChildFinder { step, found: &mut found });
    found.map(RawValue::get)
}

/// A visitor that finds one child of an object or array.
struct ChildFinder<'s, 'j> {
    step: Step<'s>,
    found: &'s mut Option<&'j RawValue>,
}

impl<'j> Visitor<'j> for ChildFinder<'_, 'j> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object or an array")
    }

    fn visit_map<A: MapAccess<'j>>(self, mut map: A) -> Result<(), A::Error> {
        let (Step::Key(key) | Step::KeyOrIndex(key)) = self.step else { return Err(A::Error::custom("not an array")) };
        // A key can appear more than once. As in PostgreSQL, its last value counts.
        let mut last = None;
        while let Some(is_wanted) = map.next_key_seed(KeyEquals(key))? {
            if is_wanted {
                last = Some(map.next_value()?);
            } else {
                map.next_value::<IgnoredAny>()?;
            }
        }
        *self.found = last;
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'j>>(self, mut list: A) -> Result<(), A::Error> {
        let index = match self.step {
            Step::Index(index) => Some(index),
            Step::KeyOrIndex(text) => text.parse().ok(),
            Step::Key(_) => None,
        };
        let Some(index) = index else { return Err(A::Error::custom("not an object")) };
        let Ok(mut skip) = usize::try_from(index) else {
            let mut all: Vec<&'j RawValue> = Vec::new();
            while let Some(element) = list.next_element()? {
                all.push(element);
            }
            let from_end = usize::try_from(index.unsigned_abs()).unwrap_or(usize::MAX);
            *self.found = all.len().checked_sub(from_end).and_then(|index| all.get(index).copied());
            return Ok(());
        };
        while skip > 0 {
            if list.next_element::<IgnoredAny>()?.is_none() {
                return Ok(());
            }
            skip -= 1;
        }
        *self.found = list.next_element()?;
        Err(A::Error::custom("found"))
    }
}

/// Compares the keys of an object with the wanted key, without copying the keys.
struct KeyEquals<'s>(&'s str);

impl<'j> DeserializeSeed<'j> for KeyEquals<'_> {
    type Value = bool;

    fn deserialize<D: serde::Deserializer<'j>>(self, deserializer: D) -> Result<bool, D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for KeyEquals<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E>(self, key: &str) -> Result<bool, E> {
        Ok(key == self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDER: &str = r#" {"id":"o\"1","total":12.50,"n":3,"paid":true,"note":null,
        "items":[{"sku":"a","tags":["x","y"]},{"sku":"b"}],"id":"late"} "#;

    #[test]
    fn values_are_found_by_keys_and_indexes() {
        use Step::{Index, Key, KeyOrIndex};
        let cases: [(&[Step<'_>], Option<&str>); 13] = [
            (&[Key("n")], Some("3")),
            (&[Key("id")], Some(r#""late""#)),
            (&[Key("items"), Index(0), Key("tags"), Index(1)], Some(r#""y""#)),
            (&[Key("items"), Index(-1)], Some(r#"{"sku":"b"}"#)),
            (&[Key("items"), Index(-3)], None),
            (&[Key("items"), Index(2)], None),
            (&[Key("items"), Key("sku")], None),
            (&[Key("n"), Key("sku")], None),
            (&[Key("note")], Some("null")),
            (&[Key("none")], None),
            (&[KeyOrIndex("items"), KeyOrIndex("1"), KeyOrIndex("sku")], Some(r#""b""#)),
            (&[KeyOrIndex("items"), KeyOrIndex("sku")], None),
            (&[Key("items"), Key("1")], None),
        ];
        for (path, expected) in cases {
            assert_eq!(find(ORDER, path), expected, "{path:?}");
        }
        assert_eq!(find("no json", &[]), None);
        assert_eq!(find("{\"a\":1", &[Key("a")]), None);
        assert_eq!(find(" 12 ", &[]), Some("12"));
    }

    #[test]
    fn values_are_converted_by_type() {
        let cases = [
            ("12", Some("12"), Some(12), Some(12.0), None),
            ("12.0", Some("12.0"), Some(12), Some(12.0), None),
            ("1.5", Some("1.5"), None, Some(1.5), None),
            ("\"7\"", Some("7"), Some(7), Some(7.0), None),
            ("\"-0.5\"", Some("-0.5"), None, Some(-0.5), None),
            ("9223372036854775807", Some("9223372036854775807"), Some(i64::MAX), Some(9.223_372_036_854_776e18), None),
            ("1e300", Some("1e300"), None, Some(1e300), None),
            ("1.2e1", Some("1.2e1"), Some(12), Some(12.0), None),
            ("0e99", Some("0e99"), Some(0), Some(0.0), None),
            ("-1200e-2", Some("-1200e-2"), Some(-12), Some(-12.0), None),
            ("120.5e1", Some("120.5e1"), Some(1205), Some(1205.0), None),
            ("1e-1", Some("1e-1"), None, Some(0.1), None),
            (
                "9007199254740993.0",
                Some("9007199254740993.0"),
                Some(9_007_199_254_740_993),
                Some(9_007_199_254_740_992.0),
                None,
            ),
            (
                "-9223372036854775808.0",
                Some("-9223372036854775808.0"),
                Some(i64::MIN),
                Some(-9_223_372_036_854_775_808.0),
                None,
            ),
            ("9223372036854775808.0", Some("9223372036854775808.0"), None, Some(9_223_372_036_854_775_808.0), None),
            ("\"1e\"", Some("1e"), None, None, None),
            ("\".\"", Some("."), None, None, None),
            ("1e999", Some("1e999"), None, None, None),
            ("\"NaN\"", Some("NaN"), None, None, None),
            ("\"\"", Some(""), None, None, None),
            ("\"a\\u00e9\\n\"", Some("aé\n"), None, None, None),
            ("true", Some("true"), None, None, Some(true)),
            ("null", None, None, None, None),
            ("{\"a\":1}", Some("{\"a\":1}"), None, None, None),
        ];
        for (value, as_text, as_int, as_float, as_boolean) in cases {
            assert_eq!(text(value).as_deref(), as_text, "{value}");
            assert_eq!((int(value), float(value), boolean(value)), (as_int, as_float, as_boolean), "{value}");
        }
        assert_eq!(elements("[1, \"a\" ,{}]"), Some(vec!["1", "\"a\"", "{}"]));
        assert_eq!(elements("{}"), None);
    }
}
