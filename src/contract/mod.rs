//! Table contracts, and the decoders that turn received bytes into rows.
//!
//! A *contract* is the checked declaration of a table. It defines the table's columns, designates its tenant, time and
//! id columns, and maps event fields to columns. The term does not refer to API contracts or to agreements between
//! teams. The module contains the decoders for JSON, protobuf, Avro and Arrow, the column builders, and the reasons for
//! rejecting an event.
//!
//! ```text
//!   glasshouse.toml ─► Contract ◄─ .proto (compiled at startup)
//!                         │
//!   avro | dynamic_protobuf ─► JSON text (messages of sources with a schema) ─┐
//!   bytes ─► protobuf | json ◄────────────────────────────────────────────────┘
//!              └──────► batch_builder ─► column_builder (text_builder, map_builder) ─┐
//!   bytes ─► ipc ─► arrow_batch ─► cast ─► columns ──────────────────────────────────┴─► check ─► Decoded { batch, rejects }
//! ```
//!
//! The decoders dictionary-encode strings that repeat ([`DictionaryBuilder`]). The strings stay encoded until they are
//! written to a Parquet file.
//!
//! **Invariant:** decoding uses neither a clock nor I/O. The caller passes the receive time and the owner in
//! [`DecodeOptions`].
//! **Invariant:** an invalid event is returned as a [`Reject`] and does not affect other events.

mod columns;
mod decode;
mod message;
mod schema;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use crate::config::ColumnKind;
pub use columns::dictionary::{DICTIONARY_VALUES_MAX, DictionaryBuilder, TextDictionaryArray, as_dictionary};
pub use columns::dictionary_ops::{concat_columns, map_leaves, plain_column};
pub use columns::event_batch::EventBatch;
pub use columns::padded_slice::{PaddedSlice, SHORT_BYTES_MAX};
pub use decode::cast::{InvalidValue, exact_column};
pub use decode::json_text::{is_json, without_byte_order_mark};
pub use decode::reject_reason::{Reason, Reject};
pub use message::avro::AvroSchema;
pub use message::dynamic_protobuf::{MessageType, ProtoFile};
pub use message::logical_values::{LogicalTimeUnit, decimal_text, long_date_text, long_time_text, long_timestamp_text};
pub use schema::column::{Column, EVENT_DATE, KIND_KEY, RECEIVED_TIME};
pub use schema::latest::Latest;
pub use schema::quarantine_resolution::{RESOLUTION, RESOLVED_BY, RESOLVES};
pub use schema::retention::{ExpiryBounds, Retention};
pub use schema::table::Contract;

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use bytes::Bytes;

use crate::clock::Micros;
use crate::error::{Error, Result};

/// The maximum size of a body in bytes. The limit keeps each text column of a batch below 2 GiB, which is Arrow's
/// limit.
const BODY_BYTES_MAX: usize = 1 << 30;

/// The id of the tenant that owns a row, which is the value of the tenant column. A tenant id is never empty and has at
/// most [`TenantId::BYTES_MAX`] bytes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantId(Arc<str>);

/// The format of a request body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON object, an array of objects, or one object per line.
    Json,
    /// Protobuf messages, each preceded by its length as a varint.
    Protobuf,
    /// An Arrow IPC stream.
    ArrowIpc,
}

/// The format of the bytes that the quarantine stores for a rejected event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PayloadFormat {
    /// One JSON object.
    Json,
    /// One protobuf message of the type that the table's contract declares.
    Protobuf,
    /// An Avro message, exactly as the source received it.
    Avro,
    /// A protobuf message, exactly as the source received it. The table's contract cannot decode it, because it has a
    /// schema-registry header or another message type.
    SourceProtobuf,
}

impl Format {
    /// Returns the format in which the quarantine stores the rejected events of a request body in this format. For an
    /// Arrow stream, each rejected row is stored as JSON.
    pub fn payload_format(self) -> PayloadFormat {
        match self {
            Self::Json | Self::ArrowIpc => PayloadFormat::Json,
            Self::Protobuf => PayloadFormat::Protobuf,
        }
    }
}

impl PayloadFormat {
    /// Returns the value for the quarantine's `format` column.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Protobuf => "protobuf",
            Self::Avro => "avro",
            Self::SourceProtobuf => "source_protobuf",
        }
    }

    /// Parses a value of the quarantine's `format` column. In entries that were written before the column existed, the
    /// value is null. The format of such an entry is JSON if its bytes begin with `{`, and protobuf otherwise.
    pub fn parse(name: Option<&str>, bytes: &[u8]) -> Self {
        match name {
            Some("protobuf") => Self::Protobuf,
            Some("avro") => Self::Avro,
            Some("source_protobuf") => Self::SourceProtobuf,
            None if !without_byte_order_mark(bytes).trim_ascii_start().starts_with(b"{") => Self::Protobuf,
            _ => Self::Json,
        }
    }

    /// Returns the format that [`decode_messages`] needs to decode the stored bytes, or `None` if only the source can
    /// decode them.
    pub fn format(self) -> Option<Format> {
        match self {
            Self::Json => Some(Format::Json),
            Self::Protobuf => Some(Format::Protobuf),
            Self::Avro | Self::SourceProtobuf => None,
        }
    }
}

/// The rule by which the decoder determines the owner of each event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// All events belong to the sender's tenant, which the token or the message key names. An event need not name this
    /// tenant. An event that names a different tenant is rejected.
    Tenant(TenantId),
    /// Each event belongs to the tenant that it names. An event that names none is rejected. This rule applies only to
    /// the events of operators and sources.
    PerEvent,
}

/// The parameters for decoding the events of one request: the receive time, the owner and the limits.
#[derive(Debug, Clone)]
pub struct DecodeOptions {
    /// The time at which the server received the events.
    pub received: Micros,
    /// The owner of the events.
    pub owner: Owner,
    /// The latest event time that is accepted. Events with a later time are rejected.
    pub time_max: Micros,
    /// The maximum size of one event, in bytes.
    pub event_bytes_max: usize,
    /// The maximum number of entries in one event's dimensions map.
    pub dimensions_max: usize,
}

/// The accepted and the rejected events of a decoded body.
#[derive(Debug)]
pub struct Decoded {
    /// The accepted events, in the order in which they were received.
    pub batch: EventBatch,
    /// The rejected events, in the order in which they were received.
    pub rejects: Vec<Reject>,
}

impl TenantId {
    /// The maximum length of a tenant id, in bytes.
    pub const BYTES_MAX: usize = 256;

    /// Parses a tenant id. A tenant id must not be empty, must not be longer than [`TenantId::BYTES_MAX`], and must not
    /// contain control characters or a byte order mark. A byte order mark is invisible, so an id that contains one would
    /// look like the id of another tenant.
    pub fn parse(text: &str) -> Result<Self> {
        Self::check(text).map(|()| Self(text.into()))
    }

    /// Does the same checks as [`TenantId::parse`], without allocating memory.
    pub(crate) fn check(text: &str) -> Result<()> {
        if text.is_empty() {
            return Err(Error::invalid("a tenant id must not be empty"));
        }
        if text.len() > Self::BYTES_MAX {
            return Err(Error::invalid(format!(
                "the tenant id has {} bytes; at most {} are allowed",
                text.len(),
                Self::BYTES_MAX
            )));
        }
        if text.contains(char::is_control) {
            return Err(Error::invalid("a tenant id must not contain control characters"));
        }
        if text.contains('\u{feff}') {
            return Err(Error::invalid("a tenant id must not contain a byte order mark (U+FEFF): remove it"));
        }
        Ok(())
    }

    /// Returns true if the bytes are a valid tenant id that consists of printable ASCII characters. This fast path
    /// covers nearly all tenant ids. [`TenantId::check`] also accepts other characters.
    pub(crate) fn is_plain(bytes: &[u8]) -> bool {
        !bytes.is_empty() && bytes.len() <= Self::BYTES_MAX && bytes.iter().all(|byte| matches!(byte, b' '..=b'~'))
    }

    /// Returns the tenant id as a string.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Decodes a whole body. Invalid events are returned as rejects. Returns an error only if the body exceeds a limit, or
/// if it cannot be split into events because it is not in `format`.
pub fn decode(contract: &Contract, format: Format, body: &Bytes, options: &DecodeOptions) -> Result<Decoded> {
    check_length(body)?;
    match format {
        Format::Json => decode::json::decode(contract, body, options),
        Format::Protobuf => decode::protobuf::decode(contract, body, options),
        Format::ArrowIpc => decode::ipc::decode(contract, body, options),
    }
}

fn check_length(body: &Bytes) -> Result<()> {
    if body.len() > BODY_BYTES_MAX {
        return Err(Error::limited(format!(
            "the body has {} bytes; at most {BODY_BYTES_MAX} are allowed: send smaller bodies",
            body.len()
        )));
    }
    Ok(())
}

/// Decodes messages, each of which must contain one event. Each range of `body` is one message, and produces exactly
/// one row or one reject. The index of a reject is the index of its range. Returns an error if there are too many
/// messages, or if the table cannot read messages in this format.
///
/// The caller must put a separator, such as a line break, between two messages. Without it, the first bytes of a
/// message could complete a UTF-8 character that is truncated at the end of the previous message.
pub fn decode_messages(
    contract: &Contract,
    format: Format,
    body: &Bytes,
    ranges: &[Range<usize>],
    options: &DecodeOptions,
) -> Result<Decoded> {
    check_length(body)?;
    match format {
        Format::Json => decode::json::decode_messages(contract, body, ranges, options),
        Format::Protobuf => decode::protobuf::decode_messages(contract, body, ranges, options),
        Format::ArrowIpc => Err(Error::unsupported(
            "messages cannot be in Arrow format: send one event per message as JSON or protobuf",
        )),
    }
}

/// The maximum number of messages in one call to [`decode_messages`]. All of them may be rejected without exceeding the
/// limit on rejects.
pub const MESSAGES_MAX: usize = decode::accept_or_reject::BODY_REJECTS_MAX;

/// Decodes an Arrow batch, for example one that a Flight or ADBC client sent. Matches columns by name, and casts a
/// column if a cast is necessary and lossless. `first_index` is the index of the batch's first row in the request.
pub fn decode_arrow(
    contract: &Contract,
    batch: &RecordBatch,
    first_index: u64,
    options: &DecodeOptions,
) -> Result<Decoded> {
    decode::arrow_batch::decode(contract, batch, first_index, options)
}
