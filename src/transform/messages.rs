//! The table `messages`: a batch of messages as columns.
//!
//! In: messages as read from the source. Out: a [`MessagesTable`], and an error for each message that cannot be a row.
//!
//! | column | type | |
//! |---|---|---|
//! | `value` | text | the payload, which is valid JSON; NULL when the message has none |
//! | `key` | text | NULL if the message has none, or if it is not UTF-8 |
//! | `headers` | map | the last header of each name; a value that is not UTF-8 is NULL |
//! | `topic`, `partition`, `offset` | text, int, bigint | the message's position in Kafka |
//! | `time` | timestamp | the message's own time |
//!
//! and for database changes, read from Debezium's envelope: `op`, `before`, `after`, `source`, `row`, `deleted`,
//! `position`, `changed_time`.
//!
//! **Invariant:** the last column, [`PLACE`], is the message's index in the batch. Statements cannot read it.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Int32Array, Int64Array, MapBuilder, MapFieldNames, RecordBatch, StringArray, StringBuilder,
    TimestampMicrosecondArray, UInt32Array, new_null_array,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use serde_json::value::RawValue;

use super::debezium::ChangeEvent;
use super::{Message, MessageError};
use crate::config::Envelope;
use crate::contract::{ColumnKind, Reason};
use crate::error::{Error, Result};

/// The name of the table.
pub(super) const MESSAGES: &str = "messages";
/// The hidden column: `UInt32`.
pub(super) const PLACE: &str = "__place";

/// A property of a message that a statement may read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fact {
    Value,
    Key,
    Headers,
    Topic,
    Partition,
    Offset,
    Time,
    Op,
    Before,
    After,
    Source,
    Row,
    Deleted,
    Position,
    Changed,
}

const PLAIN: [(&str, Fact, ColumnKind); 7] = [
    ("value", Fact::Value, ColumnKind::Text),
    ("key", Fact::Key, ColumnKind::Text),
    ("headers", Fact::Headers, ColumnKind::Map),
    ("topic", Fact::Topic, ColumnKind::Text),
    ("partition", Fact::Partition, ColumnKind::Int32),
    ("offset", Fact::Offset, ColumnKind::Int64),
    ("time", Fact::Time, ColumnKind::Timestamp),
];

const DEBEZIUM: [(&str, Fact, ColumnKind); 8] = [
    ("op", Fact::Op, ColumnKind::Text),
    ("before", Fact::Before, ColumnKind::Text),
    ("after", Fact::After, ColumnKind::Text),
    ("source", Fact::Source, ColumnKind::Text),
    ("row", Fact::Row, ColumnKind::Text),
    ("deleted", Fact::Deleted, ColumnKind::Bool),
    ("position", Fact::Position, ColumnKind::Int64),
    ("changed_time", Fact::Changed, ColumnKind::Timestamp),
];

/// Messages as columns.
#[derive(Debug)]
pub(super) struct MessagesTable {
    /// In the order of arrival; [`PLACE`] last.
    pub(super) rows: RecordBatch,
    /// Messages that cannot become rows.
    pub(super) faults: Vec<MessageError>,
}

/// One message that becomes a row.
struct MessageRow<'a> {
    place: u32,
    message: &'a Message<'a>,
    value: Option<&'a str>,
    change: Option<ChangeEvent<'a>>,
}

fn facts(envelope: Envelope) -> impl Iterator<Item = (&'static str, Fact, ColumnKind)> {
    let debezium: &[_] = if envelope == Envelope::Debezium { &DEBEZIUM } else { &[] };
    PLAIN.iter().chain(debezium).copied()
}

/// The columns that a statement sees.
pub(super) fn schema(envelope: Envelope) -> SchemaRef {
    let fields = facts(envelope).map(|(name, _, kind)| Field::new(name, kind.data_type(), true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// The same columns and [`PLACE`].
pub(super) fn schema_with_place(envelope: Envelope) -> SchemaRef {
    let mut fields: Vec<_> = schema(envelope).fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new(PLACE, DataType::UInt32, false)));
    Arc::new(Schema::new(fields))
}

/// Builds columns from messages, without Debezium's tombstones. `is_needed` selects the columns to fill: the others hold
/// nulls.
pub(super) fn table(
    envelope: Envelope,
    messages: &[Message<'_>],
    is_needed: impl Fn(usize) -> bool,
) -> Result<MessagesTable> {
    let (mut rows, mut faults) = (Vec::with_capacity(messages.len()), Vec::new());
    for (place, message) in (0..).zip(messages) {
        match read(envelope, place, message) {
            Ok(row) => rows.extend(row),
            Err((reason, detail)) => faults.push(MessageError { message: place as usize, reason, detail }),
        }
    }
    let columns = facts(envelope).enumerate().map(|(index, (_, fact, kind))| match is_needed(index) {
        true => column(fact, &rows),
        false => new_null_array(&kind.data_type(), rows.len()),
    });
    let places: ArrayRef = Arc::new(UInt32Array::from_iter_values(rows.iter().map(|row| row.place)));
    let columns = columns.chain([places]).collect();
    let rows = RecordBatch::try_new(schema_with_place(envelope), columns)
        .map_err(|cause| Error::internal("messages do not fit their table").with_source(cause))?;
    Ok(MessagesTable { rows, faults })
}

fn read<'a>(
    envelope: Envelope,
    place: u32,
    message: &'a Message<'a>,
) -> std::result::Result<Option<MessageRow<'a>>, (Reason, String)> {
    let Some(bytes) = message.value else {
        let row = MessageRow { place, message, value: None, change: None };
        return Ok((envelope != Envelope::Debezium).then_some(row));
    };
    let value = std::str::from_utf8(bytes).map_err(|_| (Reason::InvalidUtf8, "the message is not UTF-8".to_owned()))?;
    serde_json::from_str::<&RawValue>(value)
        .map_err(|fault| (Reason::Malformed, format!("the message is not valid JSON: {fault}")))?;
    let change = match envelope {
        Envelope::None => None,
        Envelope::Debezium => match ChangeEvent::read(value).map_err(|fault| (Reason::Malformed, fault))? {
            Some(change) => Some(change),
            None => return Ok(None),
        },
    };
    Ok(Some(MessageRow { place, message, value: Some(value), change }))
}

fn column(fact: Fact, rows: &[MessageRow<'_>]) -> ArrayRef {
    let changes = || rows.iter().map(|row| row.change.as_ref());
    match fact {
        Fact::Value => texts(rows.iter().map(|row| row.value)),
        Fact::Key => texts(rows.iter().map(|row| utf8(row.message.key))),
        Fact::Headers => headers(rows),
        Fact::Topic => texts(rows.iter().map(|row| Some(row.message.topic))),
        Fact::Partition => Arc::new(Int32Array::from_iter_values(rows.iter().map(|row| row.message.partition))),
        Fact::Offset => Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.message.offset))),
        Fact::Time => times(rows.iter().map(|row| row.message.time)),
        Fact::Op => texts(changes().map(|change| change.map(|change| &*change.op))),
        Fact::Before => texts(changes().map(|change| change?.before)),
        Fact::After => texts(changes().map(|change| change?.after)),
        Fact::Source => texts(changes().map(|change| change?.source)),
        Fact::Row => texts(changes().map(|change| change?.row())),
        Fact::Deleted => Arc::new(changes().map(|change| change.map(ChangeEvent::is_delete)).collect::<BooleanArray>()),
        Fact::Position => Arc::new(changes().map(|change| change?.position()).collect::<Int64Array>()),
        Fact::Changed => times(changes().map(|change| change?.changed())),
    }
}

fn texts<'a>(values: impl Iterator<Item = Option<&'a str>>) -> ArrayRef {
    Arc::new(values.collect::<StringArray>())
}

fn times(values: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(values.collect::<TimestampMicrosecondArray>().with_timezone("UTC"))
}

fn utf8(bytes: Option<&[u8]>) -> Option<&str> {
    bytes.and_then(|bytes| std::str::from_utf8(bytes).ok())
}

fn headers(rows: &[MessageRow<'_>]) -> ArrayRef {
    let names = MapFieldNames { entry: "key_value".into(), key: "key".into(), value: "value".into() };
    let mut builder = MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new());
    for row in rows {
        let headers = row.message.headers;
        for (index, (name, value)) in headers.iter().enumerate() {
            if headers[index + 1..].iter().all(|(later, _)| later != name) {
                builder.keys().append_value(name);
                builder.values().append_option(utf8(value.as_deref()));
            }
        }
        builder.append(true).expect("each entry has added one key and one value");
    }
    Arc::new(builder.finish())
}
