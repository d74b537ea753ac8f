//! Parses Debezium's envelope.
//!
//! [`ChangeReader::read`] takes the JSON of a message. It returns a change to a row, or determines that the message is
//! not a change to a row.
//!
//! **Invariant:** a value that cannot be decoded is an error. It never becomes NULL or another value.

use std::borrow::Cow;
use std::collections::HashMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::object_fields::ObjectFields;
use super::row_values::RowReader;
use super::unavailable_value::UnavailableValue;
use super::value_type::RowTypes;
use crate::clock::Micros;
use crate::sql::functions::json_path::{Step, find, int};
use crate::transform::Message;

/// A message of a Debezium connector.
#[derive(Debug)]
pub(in crate::transform) enum DebeziumMessage<'a> {
    /// A change to one row.
    Change(Box<ChangeEvent<'a>>),
    /// All rows of the table were removed. The message contains neither a key nor a row.
    Truncate,
    /// The message is not a change: a tombstone, which makes Kafka delete all older messages with the same key, or a
    /// message that an application has written to the database's log.
    Other,
}

/// A change to one row.
#[derive(Debug)]
pub(in crate::transform) struct ChangeEvent<'a> {
    /// The row before the change, as JSON.
    pub(in crate::transform) before: Option<Cow<'a, str>>,
    /// The row after the change, as JSON.
    pub(in crate::transform) after: Option<Cow<'a, str>>,
    /// The message as it was received.
    pub(super) envelope: Envelope<'a>,
    pub(super) op: Cow<'a, str>,
    pub(super) source_fields: ObjectFields<'a>,
}

/// The fields of Debezium's envelope. All other fields are ignored.
#[derive(Debug, Default, Deserialize)]
pub(super) struct Envelope<'a> {
    #[serde(borrow, default)]
    op: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    pub(super) before: Option<&'a RawValue>,
    #[serde(borrow, default)]
    pub(super) after: Option<&'a RawValue>,
    /// MongoDB's description of an update whose message does not contain the whole document.
    #[serde(borrow, default, rename = "updateDescription")]
    pub(super) update_description: Option<&'a RawValue>,
    #[serde(borrow, default)]
    source: Option<&'a RawValue>,
    #[serde(borrow, default)]
    ts_us: Option<&'a RawValue>,
    #[serde(borrow, default)]
    ts_ns: Option<&'a RawValue>,
    #[serde(borrow, default)]
    ts_ms: Option<&'a RawValue>,
    /// The converter's wrapper has only these two fields.
    #[serde(borrow, default)]
    schema: Option<&'a RawValue>,
    #[serde(borrow, default)]
    payload: Option<&'a RawValue>,
}

/// Reads the messages of one batch. Messages with the same schema share its compiled form.
pub(in crate::transform) struct ChangeReader<'a> {
    unavailable: &'a UnavailableValue,
    schemas: HashMap<&'a str, Result<RowTypes, String>>,
}

impl<'a> ChangeReader<'a> {
    pub(in crate::transform) fn new(unavailable: &'a UnavailableValue) -> Self {
        Self { unavailable, schemas: HashMap::new() }
    }

    /// Reads a message, which must be valid JSON.
    pub(in crate::transform) fn read(&mut self, json: &'a str) -> Result<DebeziumMessage<'a>, String> {
        if json.trim() == "null" {
            return Ok(DebeziumMessage::Other);
        }
        let (mut envelope, mut schema) = (Envelope::parse(json)?, None);
        if envelope.op.is_none() && wrapped_null(json) {
            return Ok(DebeziumMessage::Other);
        }
        if let Some(payload) = envelope.payload.filter(|_| envelope.op.is_none()) {
            schema = envelope.schema.map(RawValue::get).filter(|schema| *schema != "null");
            envelope = Envelope::parse(payload.get())?;
        }
        let op = envelope.op.take().ok_or_else(|| not_a_change("it has no `op`"))?;
        match &*op {
            "c" | "u" | "d" | "r" => {}
            "t" => return Ok(DebeziumMessage::Truncate),
            "m" => return Ok(DebeziumMessage::Other),
            other => return Err(not_a_change(&format!("`op` is `{other}`; it must be c, u, d, r, t or m"))),
        }
        let source_fields = source_object(envelope.source)?;
        let [before, after] =
            [("before", envelope.before), ("after", envelope.after)].map(|(name, value)| object_field(name, value));
        let types = match schema {
            None => None,
            Some(schema) => {
                let types = self.schemas.entry(schema).or_insert_with(|| RowTypes::parse(schema));
                Some(types.as_ref().map_err(Clone::clone)?)
            }
        };
        let reader = RowReader { types, unavailable: self.unavailable };
        let (before, after) = reader.read(before?, after?)?;
        Ok(DebeziumMessage::Change(Box::new(ChangeEvent { before, after, envelope, op, source_fields })))
    }
}

impl<'a> ChangeEvent<'a> {
    /// Returns the operation: `c` for create, `u` for update, `d` for delete, `r` for read (a snapshot).
    pub(in crate::transform) fn op(&self) -> &str {
        &self.op
    }

    /// Returns the origin of the change (table, position and time), as JSON.
    pub(in crate::transform) fn source(&self) -> Option<&'a str> {
        self.envelope.source.map(RawValue::get).filter(|source| *source != "null")
    }

    /// Returns true if the change deletes the row.
    pub(in crate::transform) fn is_delete(&self) -> bool {
        self.op == "d"
    }

    /// Returns the row after the change, or the row before it if the change is a delete.
    pub(in crate::transform) fn row(&self) -> Option<&str> {
        if self.is_delete() { self.before.as_deref() } else { self.after.as_deref() }
    }

    /// Returns the time at which the change was made in the database. If the database does not state this time, which
    /// is often the case for rows of a snapshot, returns the time at which Debezium or Kafka received the change.
    pub(in crate::transform) fn changed(&self, message: &Message<'_>) -> Option<Micros> {
        let source = |key: &str| self.source_fields.get(key);
        let database = time([source("ts_us"), source("ts_ns"), source("ts_ms")]);
        let raw = |value: Option<&'a RawValue>| value.map(RawValue::get);
        let Envelope { ts_us, ts_ns, ts_ms, .. } = self.envelope;
        database.or_else(|| time([raw(ts_us), raw(ts_ns), raw(ts_ms)])).or(message.time)
    }
}

impl<'a> Envelope<'a> {
    fn parse(json: &'a str) -> Result<Self, String> {
        if !json.trim_start().starts_with('{') {
            return Err(not_a_change("it is not an object"));
        }
        serde_json::from_str(json).map_err(|error| not_a_change(&error.to_string()))
    }
}

/// Returns true if the message is a tombstone in the converter's wrapper. Serde does not distinguish a payload that is
/// null from a payload that is missing.
fn wrapped_null(json: &str) -> bool {
    find(json, &[Step::Key("payload")]) == Some("null")
}

/// Returns the first of three times, in microseconds, nanoseconds and milliseconds since 1970, that is greater than 0.
fn time([micros, nanos, millis]: [Option<&str>; 3]) -> Option<Micros> {
    let positive = |value: Option<&str>| value.and_then(int).filter(|value| *value > 0);
    let nanos = || positive(nanos).map(|nanos| nanos / 1_000);
    positive(micros).or_else(nanos).or_else(|| positive(millis)?.checked_mul(1_000))
}

/// Returns the fields of `source`, which is an object.
fn source_object(value: Option<&RawValue>) -> Result<ObjectFields<'_>, String> {
    match value.map(RawValue::get).filter(|text| *text != "null") {
        None => Ok(ObjectFields::default()),
        Some(json) => ObjectFields::parse(json).map_err(|_| not_a_change("`source` is not an object")),
    }
}

/// Returns the object in a field. MongoDB's connector sends documents as strings that contain JSON.
fn object_field<'a>(name: &str, value: Option<&'a RawValue>) -> Result<Option<Cow<'a, str>>, String> {
    let Some(text) = value.map(RawValue::get).filter(|text| *text != "null") else { return Ok(None) };
    let is_object = |json: &str| json.trim_start().starts_with('{') && serde_json::from_str::<&RawValue>(json).is_ok();
    let object = match text.starts_with('"') {
        true => serde_json::from_str::<String>(text).ok().filter(|json| is_object(json)).map(Cow::Owned),
        false => text.starts_with('{').then_some(Cow::Borrowed(text)),
    };
    object.map(Some).ok_or_else(|| not_a_change(&format!("`{name}` is not an object")))
}

fn not_a_change(why: &str) -> String {
    format!("the message is not a Debezium change event: {why}")
}
