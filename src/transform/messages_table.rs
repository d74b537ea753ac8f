//! The table `messages`, which holds a batch of messages as columns.
//!
//! A [`MessagesTable`] contains one row for each valid message that was read from the source. It also lists the invalid
//! messages, which have no row.
//!
//! | column | type | |
//! |---|---|---|
//! | `value` | text | the payload, which is valid JSON; NULL if the message has none |
//! | `key` | text | the message key; NULL if the message has none, or if it is not valid UTF-8 |
//! | `headers` | map | the last header of each name; a value that is not valid UTF-8 is NULL |
//! | `topic`, `partition`, `offset` | text, int, bigint | the message's position in Kafka |
//! | `time` | timestamp | the message's timestamp |
//!
//! Messages in Debezium's envelope have additional columns: `op`, `before`, `after`, `source`, `row`, `deleted`,
//! `change_order`, `change_id`, `changed_time`. The last three columns are never NULL.
//!
//! **Invariant:** the last column, [`MESSAGE_INDEX`], is the message's index in the batch. Statements cannot read it.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Int32Array, Int64Array, MapBuilder, MapFieldNames, RecordBatch, StringArray, StringBuilder,
    TimestampMicrosecondArray, UInt32Array, new_null_array,
};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use serde_json::value::RawValue;

use super::debezium::{ChangeEvent, ChangeReader, DebeziumMessage, UnavailableValue};
use super::{Message, MessageError};
use crate::config::Envelope;
use crate::contract::{ColumnKind, Reason};
use crate::error::{Error, Result};

/// The name of the table.
pub(super) const MESSAGES: &str = "messages";
/// The name of the hidden `UInt32` column that contains the index of the message.
pub(super) const MESSAGE_INDEX: &str = "__message_index";

/// The property of a message that a column of the table `messages` contains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum MessageColumn {
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
    ChangeOrder,
    ChangeId,
    Changed,
}

/// The columns that every message has.
const PLAIN: [(&str, MessageColumn, ColumnKind); 7] = [
    ("value", MessageColumn::Value, ColumnKind::Text),
    ("key", MessageColumn::Key, ColumnKind::Text),
    ("headers", MessageColumn::Headers, ColumnKind::Map),
    ("topic", MessageColumn::Topic, ColumnKind::Text),
    ("partition", MessageColumn::Partition, ColumnKind::Int32),
    ("offset", MessageColumn::Offset, ColumnKind::Int64),
    ("time", MessageColumn::Time, ColumnKind::Timestamp),
];

/// The additional columns of messages in Debezium's envelope.
const DEBEZIUM: [(&str, MessageColumn, ColumnKind); 9] = [
    ("op", MessageColumn::Op, ColumnKind::Text),
    ("before", MessageColumn::Before, ColumnKind::Text),
    ("after", MessageColumn::After, ColumnKind::Text),
    ("source", MessageColumn::Source, ColumnKind::Text),
    ("row", MessageColumn::Row, ColumnKind::Text),
    ("deleted", MessageColumn::Deleted, ColumnKind::Bool),
    ("change_order", MessageColumn::ChangeOrder, ColumnKind::Text),
    ("change_id", MessageColumn::ChangeId, ColumnKind::Text),
    ("changed_time", MessageColumn::Changed, ColumnKind::Timestamp),
];

/// A batch of messages as columns.
#[derive(Debug)]
pub(super) struct MessagesTable {
    /// One row per message, in the order of the batch. The last column is [`MESSAGE_INDEX`].
    pub(super) rows: RecordBatch,
    /// The invalid messages, which have no row.
    pub(super) errors: Vec<MessageError>,
    /// The indexes of the messages that report the truncation of a database table. They have no row.
    pub(super) truncations: Vec<usize>,
}

/// A valid message, from which one row is built.
struct MessageRow<'a> {
    index: u32,
    message: &'a Message<'a>,
    value: Option<&'a str>,
    change: Option<Box<ChangeEvent<'a>>>,
}

/// The role of a message in the table.
enum MessageRole<'a> {
    Row(MessageRow<'a>),
    Truncation,
    /// The message has no row.
    Skipped,
}

fn columns_of(envelope: Envelope) -> impl Iterator<Item = (&'static str, MessageColumn, ColumnKind)> {
    let debezium: &[_] = if envelope == Envelope::Debezium { &DEBEZIUM } else { &[] };
    PLAIN.iter().chain(debezium).copied()
}

/// Returns the columns that a statement can read.
pub(super) fn schema(envelope: Envelope) -> SchemaRef {
    let fields = columns_of(envelope).map(|(name, _, kind)| Field::new(name, kind.data_type(), true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// Returns the columns that a statement can read, followed by [`MESSAGE_INDEX`].
pub(super) fn schema_with_index(envelope: Envelope) -> SchemaRef {
    let mut fields: Vec<_> = schema(envelope).fields().iter().cloned().collect();
    fields.push(Arc::new(Field::new(MESSAGE_INDEX, DataType::UInt32, false)));
    Arc::new(Schema::new(fields))
}

/// Builds columns from messages. Debezium's tombstones and logical messages are skipped. Columns for which `is_needed`
/// returns false contain only nulls, because the statement does not read them. `unavailable` is `None` if the messages
/// have no envelope.
pub(super) fn table(
    unavailable: Option<&UnavailableValue>,
    messages: &[Message<'_>],
    is_needed: impl Fn(usize) -> bool,
) -> Result<MessagesTable> {
    let envelope = if unavailable.is_some() { Envelope::Debezium } else { Envelope::None };
    let mut changes = unavailable.map(ChangeReader::new);
    let (mut rows, mut errors, mut truncations) = (Vec::with_capacity(messages.len()), Vec::new(), Vec::new());
    for (index, message) in (0..).zip(messages) {
        match read(changes.as_mut(), index, message) {
            Ok(MessageRole::Row(row)) => rows.push(row),
            Ok(MessageRole::Truncation) => truncations.push(index as usize),
            Ok(MessageRole::Skipped) => {}
            Err((reason, detail)) => errors.push(MessageError { message: index as usize, reason, detail }),
        }
    }
    let columns = columns_of(envelope).enumerate().map(|(index, (_, property, kind))| match is_needed(index) {
        true => column(property, &rows),
        false => new_null_array(&kind.data_type(), rows.len()),
    });
    let indexes: ArrayRef = Arc::new(UInt32Array::from_iter_values(rows.iter().map(|row| row.index)));
    let columns = columns.chain([indexes]).collect();
    let rows = RecordBatch::try_new(schema_with_index(envelope), columns)
        .map_err(|cause| Error::internal("the messages do not fit their table").with_source(cause))?;
    Ok(MessagesTable { rows, errors, truncations })
}

/// Reads a message. `changes` is `None` if the messages have no envelope.
fn read<'a>(
    changes: Option<&mut ChangeReader<'a>>,
    index: u32,
    message: &'a Message<'a>,
) -> std::result::Result<MessageRole<'a>, (Reason, String)> {
    let Some(bytes) = message.value else {
        return Ok(match changes {
            Some(_) => MessageRole::Skipped,
            None => MessageRole::Row(MessageRow { index, message, value: None, change: None }),
        });
    };
    let value =
        std::str::from_utf8(bytes).map_err(|_| (Reason::InvalidUtf8, "the message is not valid UTF-8".to_owned()))?;
    serde_json::from_str::<&RawValue>(value)
        .map_err(|error| (Reason::Malformed, format!("the message is not valid JSON: {error}")))?;
    let change = match changes {
        None => None,
        Some(changes) => match changes.read(value).map_err(|error| (Reason::Malformed, error))? {
            DebeziumMessage::Change(change) if change.changed(message).is_none() => {
                let why = "the change has no time: neither the database, Debezium nor Kafka has added one";
                return Err((Reason::Malformed, why.to_owned()));
            }
            DebeziumMessage::Change(change) => Some(change),
            DebeziumMessage::Truncate => return Ok(MessageRole::Truncation),
            DebeziumMessage::Other => return Ok(MessageRole::Skipped),
        },
    };
    Ok(MessageRole::Row(MessageRow { index, message, value: Some(value), change }))
}

fn column(property: MessageColumn, rows: &[MessageRow<'_>]) -> ArrayRef {
    let changes = || rows.iter().map(|row| row.change.as_deref());
    let with_message = || rows.iter().map(|row| Some((row.change.as_deref()?, row.message)));
    match property {
        MessageColumn::Value => strings(rows.iter().map(|row| row.value)),
        MessageColumn::Key => strings(rows.iter().map(|row| utf8(row.message.key))),
        MessageColumn::Headers => headers(rows),
        MessageColumn::Topic => strings(rows.iter().map(|row| Some(row.message.topic))),
        MessageColumn::Partition => {
            Arc::new(Int32Array::from_iter_values(rows.iter().map(|row| row.message.partition)))
        }
        MessageColumn::Offset => Arc::new(Int64Array::from_iter_values(rows.iter().map(|row| row.message.offset))),
        MessageColumn::Time => times(rows.iter().map(|row| row.message.time)),
        MessageColumn::Op => strings(changes().map(|change| change.map(ChangeEvent::op))),
        MessageColumn::Before => strings(changes().map(|change| change?.before.as_deref())),
        MessageColumn::After => strings(changes().map(|change| change?.after.as_deref())),
        MessageColumn::Source => strings(changes().map(|change| change?.source())),
        MessageColumn::Row => strings(changes().map(|change| change?.row())),
        MessageColumn::Deleted => {
            Arc::new(changes().map(|change| change.map(ChangeEvent::is_delete)).collect::<BooleanArray>())
        }
        MessageColumn::ChangeOrder => {
            owned(with_message().map(|row| row.map(|(change, message)| change.order(message))))
        }
        MessageColumn::ChangeId => owned(with_message().map(|row| row.map(|(change, message)| change.id(message)))),
        MessageColumn::Changed => {
            times(with_message().map(|row| row.and_then(|(change, message)| change.changed(message))))
        }
    }
}

fn strings<'a>(values: impl Iterator<Item = Option<&'a str>>) -> ArrayRef {
    Arc::new(values.collect::<StringArray>())
}

fn owned(values: impl Iterator<Item = Option<String>>) -> ArrayRef {
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
