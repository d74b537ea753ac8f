//! Table contracts: the columns, keys and time of a table's events, the decoders of JSON, protobuf and Arrow, and the
//! reasons for rejecting an event.
//!
//! ```text
//!   glasshouse.toml ─► Contract ◄─ .proto (compiled at start-up)
//!                         │
//!   avro | dynamic_protobuf ─► JSON text (messages of sources with a schema) ─┐
//!   bytes ─► protobuf | json ◄────────────────────────────────────────────────┘
//!              └──────► batch_builder ─► column_builder (text_builder, map_builder) ─┐
//!   bytes ─► ipc ─► arrow_batch ─► cast ─► columns ──────────────────────────────────┴─► check ─► Decoded { batch, rejects }
//! ```
//!
//! Repeated texts are dictionary-encoded ([`DictionaryBuilder`]) from the decoder to the Parquet file.
//!
//! **Invariant:** decoding is pure: no clock, no IO. The receive time and the owner are arguments ([`Stamp`]).
//! **Invariant:** a bad event becomes a [`Reject`] and does not affect other events.

mod columns;
mod decode;
mod message;
mod schema;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use columns::dictionary::{DICTIONARY_VALUES_MAX, DictionaryBuilder, TextDictionaryArray, as_dictionary};
pub use columns::event_batch::EventBatch;
pub use columns::padded_slice::{PaddedSlice, SHORT_BYTES_MAX};
pub use decode::reject::{Reason, Reject};
pub use message::avro::AvroSchema;
pub use message::dynamic_protobuf::{MessageType, ProtoFile};
pub use schema::latest::Latest;
pub use schema::quarantine_resolution::{RESOLUTION, RESOLVED_BY, RESOLVES};
pub use schema::table::{Column, ColumnKind, Contract, EVENT_DATE, RECEIVED_TIME};

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use bytes::Bytes;

use crate::clock::Micros;
use crate::error::{Error, Result};

/// The largest body that can be decoded. It keeps each text column of a batch below 2 GiB.
const BODY_BYTES_MAX: usize = 1 << 30;

/// The owner of rows: the value of a tenant column. Never empty, at most [`TenantId::BYTES_MAX`] bytes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantId(Arc<str>);

/// The format of a request body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One object, an array of objects, or one object per line.
    Json,
    /// Length-delimited messages: each is preceded by its length as a varint.
    Protobuf,
    /// An Arrow IPC stream.
    ArrowIpc,
}

/// The format of a rejected event's bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kept {
    /// One JSON object.
    Json,
    /// One protobuf message of the table's contract.
    Protobuf,
    /// An Avro message as the source received it.
    Avro,
    /// A protobuf message as the source received it: with a schema registry's header, or of a type other than the table's.
    SourceProtobuf,
}

impl Format {
    /// The format in which a rejected event is kept. Arrow rows are kept as JSON.
    pub fn kept_as(self) -> Kept {
        match self {
            Self::Json | Self::ArrowIpc => Kept::Json,
            Self::Protobuf => Kept::Protobuf,
        }
    }
}

impl Kept {
    /// The value in the quarantine's `format` column.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Protobuf => "protobuf",
            Self::Avro => "avro",
            Self::SourceProtobuf => "source_protobuf",
        }
    }

    /// Parses the quarantine's `format` column. Entries written before that column existed have none: bytes that begin
    /// with `{` are JSON, all others protobuf.
    pub fn of(word: Option<&str>, bytes: &[u8]) -> Self {
        match word {
            Some("protobuf") => Self::Protobuf,
            Some("avro") => Self::Avro,
            Some("source_protobuf") => Self::SourceProtobuf,
            None if !bytes.trim_ascii_start().starts_with(b"{") => Self::Protobuf,
            _ => Self::Json,
        }
    }

    /// The decoder for events in this format. `None` if only the source can read them.
    pub fn format(self) -> Option<Format> {
        match self {
            Self::Json => Some(Format::Json),
            Self::Protobuf => Some(Format::Protobuf),
            Self::Avro | Self::SourceProtobuf => None,
        }
    }
}

/// Who owns the decoded events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// The sender's tenant, from the token or the message key. Events without a tenant get this one; events that name a
    /// different tenant are rejected.
    Tenant(TenantId),
    /// Each event names its tenant (operators and sources only). An event without a tenant is rejected.
    PerEvent,
}

/// What the endpoint or source knows about events: their receive time, their owner, and the limits.
#[derive(Debug, Clone)]
pub struct Stamp {
    /// The server's receive time.
    pub received: Micros,
    /// The owner of the events.
    pub owner: Owner,
    /// The latest event time that is accepted.
    pub time_max: Micros,
    /// The maximum size of one event, in bytes.
    pub event_bytes_max: usize,
    /// The maximum number of entries in one event's dimensions map.
    pub dimensions_max: usize,
}

/// A decoded body: accepted events as columns in arrival order, and rejected events with their reasons.
#[derive(Debug)]
pub struct Decoded {
    /// The accepted events.
    pub batch: EventBatch,
    /// The rejected events.
    pub rejects: Vec<Reject>,
}

impl TenantId {
    /// The maximum length of a tenant id, in bytes.
    pub const BYTES_MAX: usize = 256;

    /// Parses a tenant id, which must not be empty, too long, or contain control characters.
    pub fn parse(text: &str) -> Result<Self> {
        Self::check(text).map(|()| Self(text.into()))
    }

    /// Checks a tenant id like [`TenantId::parse`], without allocating.
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
        Ok(())
    }

    /// A fast path of [`TenantId::check`]: whether the bytes are a valid tenant id of printable ASCII.
    pub(crate) fn is_plain(bytes: &[u8]) -> bool {
        !bytes.is_empty() && bytes.len() <= Self::BYTES_MAX && bytes.iter().all(|byte| matches!(byte, b' '..=b'~'))
    }

    /// The tenant id as text.
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

/// Decodes a whole body. `Err` only if the body as a whole is not in this format, so that it cannot be split into events.
pub fn decode(contract: &Contract, format: Format, body: &Bytes, stamp: &Stamp) -> Result<Decoded> {
    check_length(body)?;
    match format {
        Format::Json => decode::json::decode(contract, body, stamp),
        Format::Protobuf => decode::protobuf::decode(contract, body, stamp),
        Format::ArrowIpc => decode::ipc::decode(contract, body, stamp),
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

/// Decodes separate messages: each of `ranges` in `body` is one event, whatever its bytes. The index of a reject is its
/// index in `ranges`. `Err` only if the table cannot read messages of this format.
///
/// Put a separator, such as a line break, between two messages: a message that ends inside a UTF-8 character must not be
/// completed by the first bytes of the next.
pub fn decode_messages(
    contract: &Contract,
    format: Format,
    body: &Bytes,
    ranges: &[Range<usize>],
    stamp: &Stamp,
) -> Result<Decoded> {
    check_length(body)?;
    match format {
        Format::Json => decode::json::decode_messages(contract, body, ranges, stamp),
        Format::Protobuf => decode::protobuf::decode_messages(contract, body, ranges, stamp),
        Format::ArrowIpc => Err(Error::unsupported(
            "messages cannot be in Arrow format: send one event per message, as JSON or protobuf",
        )),
    }
}

/// The maximum number of messages in one call of [`decode_messages`], such that all of them may be rejected.
pub const MESSAGES_MAX: usize = decode::acceptor::BODY_REJECTS_MAX;

/// Decodes an Arrow batch (Flight, ADBC): columns are matched by name and cast if the cast is lossless.
pub fn decode_arrow(contract: &Contract, batch: &RecordBatch, first_index: u64, stamp: &Stamp) -> Result<Decoded> {
    decode::arrow_batch::decode(contract, batch, first_index, stamp)
}
