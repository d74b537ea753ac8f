//! Decodes the values of a row: replaces placeholders of unavailable values, and decodes logical types.
//!
//! **Invariant:** a row without such values is returned unchanged, without a copy.

use std::borrow::Cow;

use super::object_fields::ObjectFields;
use super::unavailable_value::UnavailableValue;
use super::value_type::{RowTypes, ValueType, write_key};

/// Decodes the rows of one message.
pub(super) struct RowReader<'t> {
    /// The types of the values. `None` if the message contains no schema.
    pub(super) types: Option<&'t RowTypes>,
    pub(super) unavailable: &'t UnavailableValue,
}

type Row<'a> = Option<Cow<'a, str>>;

impl RowReader<'_> {
    /// Decodes the rows before and after a change.
    ///
    /// If a value after the change is unavailable, the change has left it unchanged. It is replaced by the value before
    /// the change, or by null if that value is missing or unavailable too.
    pub(super) fn read<'a>(&self, before: Row<'a>, after: Row<'a>) -> Result<(Row<'a>, Row<'a>), String> {
        let [before_type, after_type] = match self.types {
            Some(types) => [&types.before, &types.after],
            None => [&ValueType::Plain; 2],
        };
        let after = after.map(|row| self.row(row, before.as_deref(), after_type)).transpose()?;
        let before = before.map(|row| self.row(row, None, before_type)).transpose()?;
        Ok((before, after))
    }

    fn row<'a>(&self, row: Cow<'a, str>, previous: Option<&str>, kind: &ValueType) -> Result<Cow<'a, str>, String> {
        let not_an_object = |error: serde_json::Error| format!("a row of the message is not an object: {error}");
        let fields = ObjectFields::parse(&row).map_err(not_an_object)?;
        let is_unavailable = |value: &str| self.unavailable.is(value);
        if *kind == ValueType::Plain && !fields.0.iter().any(|(_, value)| is_unavailable(value)) {
            return Ok(row);
        }
        let previous = previous.map(ObjectFields::parse).transpose().map_err(not_an_object)?.unwrap_or_default();
        let mut decoded = String::with_capacity(row.len());
        decoded.push('{');
        for (index, (name, value)) in fields.0.iter().enumerate() {
            let value = match is_unavailable(value) {
                true => previous.get(name).filter(|value| !is_unavailable(value)).unwrap_or("null"),
                false => value,
            };
            write_key(&mut decoded, index, name);
            let kind = kind.field(name);
            kind.write(value, &mut decoded).map_err(|why| format!("column `{name}` cannot be decoded: {why}"))?;
        }
        decoded.push('}');
        drop(fields);
        Ok(Cow::Owned(decoded))
    }
}
