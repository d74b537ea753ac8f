//! The fields of a JSON object, in the order of the text. The values stay JSON text.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer as _, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The names of an object's fields, and their values as JSON.
#[derive(Debug, Default)]
pub(super) struct ObjectFields<'a>(pub(super) Vec<(Cow<'a, str>, &'a str)>);

impl<'a> ObjectFields<'a> {
    /// Parses an object.
    pub(super) fn parse(json: &'a str) -> Result<Self, serde_json::Error> {
        serde_json::Deserializer::from_str(json).deserialize_map(FieldsVisitor)
    }

    /// Returns the value of a field as JSON, or `None` if the field is missing or null.
    pub(super) fn get(&self, key: &str) -> Option<&'a str> {
        self.0.iter().find(|(name, _)| name == key).map(|(_, value)| *value).filter(|value| *value != "null")
    }
}

/// The name of a field, which is copied only if it contains an escape.
#[derive(Deserialize)]
struct FieldName<'a>(#[serde(borrow)] Cow<'a, str>);

/// A visitor that reads the fields of an object.
struct FieldsVisitor;

impl<'a> Visitor<'a> for FieldsVisitor {
    type Value = ObjectFields<'a>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'a>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = Vec::new();
        while let Some((name, value)) = map.next_entry::<FieldName<'a>, &'a RawValue>()? {
            fields.push((name.0, value.get()));
        }
        Ok(ObjectFields(fields))
    }
}
