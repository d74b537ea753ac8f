//! JSON values as `serde_json` reads them, with strings and numbers as raw text.
//!
//! `serde_json` determines which syntax is valid. Strings and numbers are decoded later, when the type of their column
//! is known.

use serde::de::{DeserializeSeed, Deserializer as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::{MARK_BAD_BYTE, MARK_NOT_FINITE};

/// The maximum nesting depth of objects and arrays (rule 4 of the oracle).
pub(super) const DEPTH_MAX: usize = 64;

/// A value with valid syntax. Its keys, strings and numbers are raw text. Objects and arrays also have their whole raw
/// text.
pub(super) enum Tree<'a> {
    Object(Vec<(&'a str, Tree<'a>)>, &'a str),
    Array(Vec<Tree<'a>>, &'a str),
    /// The raw text of a string, a number, or a literal such as `true`.
    Scalar(&'a str),
}

/// The syntax is invalid, or the value has an error that is treated as invalid syntax.
pub(super) struct SyntaxError;

/// Decodes a string. Returns `None` if it is not valid UTF-8, or if an escape does not encode a character (rule 3).
pub(super) fn string(raw: &str) -> Option<String> {
    serde_json::from_str(raw).ok().filter(|_| !raw.contains(char::from(MARK_BAD_BYTE)))
}

/// Parses a value.
pub(super) fn tree<'a>(text: &'a str) -> Result<Tree<'a>, SyntaxError> {
    let raw: &'a RawValue = serde_json::from_str(text).map_err(|_| SyntaxError)?;
    let text = raw.get();
    match text.as_bytes()[0] {
        b'{' => {
            let mut entries = Vec::new();
            serde_json::Deserializer::from_str(text)
                .deserialize_map(Elements(&mut entries))
                .map_err(|_| SyntaxError)?;
            let entry = |(key, value): (&'a str, &'a str)| {
                // `NaN` or an infinity (rule 2) is not a valid key.
                if key.contains(char::from(MARK_NOT_FINITE)) { Err(SyntaxError) } else { Ok((key, tree(value)?)) }
            };
            entries.into_iter().map(entry).collect::<Result<_, _>>().map(|entries| Tree::Object(entries, text))
        }
        b'[' => {
            let mut values = Vec::new();
            serde_json::Deserializer::from_str(text).deserialize_seq(Elements(&mut values)).map_err(|_| SyntaxError)?;
            values.into_iter().map(tree).collect::<Result<_, _>>().map(|values| Tree::Array(values, text))
        }
        _ => Ok(Tree::Scalar(text)),
    }
}

impl Tree<'_> {
    pub(super) fn depth(&self) -> usize {
        match self {
            Self::Object(entries, _) => 1 + entries.iter().map(|(_, value)| value.depth()).max().unwrap_or(0),
            Self::Array(values, _) => 1 + values.iter().map(Self::depth).max().unwrap_or(0),
            Self::Scalar(_) => 0,
        }
    }

    pub(super) fn check_depth(&self) -> Result<(), SyntaxError> {
        if self.depth() <= DEPTH_MAX { Ok(()) } else { Err(SyntaxError) }
    }

    fn any(&self, is_it: &impl Fn(&str) -> bool) -> bool {
        match self {
            Self::Object(entries, _) => entries.iter().any(|(key, value)| is_it(key) || value.any(is_it)),
            Self::Array(values, _) => values.iter().any(|value| value.any(is_it)),
            Self::Scalar(text) => is_it(text),
        }
    }

    pub(super) fn is_not_finite(&self) -> bool {
        self.any(&|text| text.contains(char::from(MARK_NOT_FINITE)))
    }

    pub(super) fn has_bad_bytes(&self) -> bool {
        self.any(&|text| text.contains(char::from(MARK_BAD_BYTE)))
    }

    /// Returns true if a string or key is not valid UTF-8, or has an escape that does not encode a character.
    pub(super) fn has_invalid_strings(&self) -> bool {
        self.any(&|text| text.starts_with('"') && string(text).is_none())
    }

    /// Returns the text of the value, exactly as it was sent.
    pub(super) fn raw(&self) -> &str {
        match self {
            Self::Object(_, raw) | Self::Array(_, raw) | Self::Scalar(raw) => raw,
        }
    }

    pub(super) fn write(&self, into: &mut String) {
        match self {
            Self::Object(entries, _) => {
                for (index, (key, value)) in entries.iter().enumerate() {
                    *into += if index == 0 { "{" } else { "," };
                    *into += key;
                    *into += ":";
                    value.write(into);
                }
                *into += if entries.is_empty() { "{}" } else { "}" };
            }
            Self::Array(values, _) => {
                for (index, value) in values.iter().enumerate() {
                    *into += if index == 0 { "[" } else { "," };
                    value.write(into);
                }
                *into += if values.is_empty() { "[]" } else { "]" };
            }
            Self::Scalar(text) => *into += text,
        }
    }
}

/// Collects the raw parts of an object or an array up to the first error.
pub(super) struct Elements<'v, T>(pub(super) &'v mut Vec<T>);

impl<'de> Visitor<'de> for Elements<'_, (&'de str, &'de str)> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some((key, value)) = map.next_entry_seed(Raw, Raw)? {
            self.0.push((key, value));
        }
        Ok(())
    }
}

impl<'de> Visitor<'de> for Elements<'_, &'de str> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(value) = seq.next_element_seed(Raw)? {
            self.0.push(value);
        }
        Ok(())
    }
}

/// Reads the raw text of a value.
struct Raw;

impl<'de> DeserializeSeed<'de> for Raw {
    type Value = &'de str;

    fn deserialize<D: serde::Deserializer<'de>>(self, json: D) -> Result<&'de str, D::Error> {
        <&RawValue as serde::Deserialize>::deserialize(json).map(RawValue::get)
    }
}
