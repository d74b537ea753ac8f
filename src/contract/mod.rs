//! What an event is: a table's columns, keys and time; protobuf, JSON and Arrow in, Arrow out; reasons to reject.
//!
//! ```text
//!   glasshouse.toml ─► Contract ◄─ .proto (compiled at start-up)
//!                         │
//!   avro | message ─► json text (of sources whose schema tells how) ─┐
//!   bytes ─► wire | json ◄───────────────────────────────────────────┘
//!              └──────► sheet ─► columns (words, entries) ─┐
//!   bytes ─► ipc ─► arrow_in ─► cast ─► columns ───────────┴─► check ─► Decoded { batch, rejects } ─► join
//! ```
//!
//! Texts that come again and again are [`DictionaryBuilder`] from here to their file.
//!
//! **Invariant:** decoding is pure: no clock, no IO. The receive time and the owner are arguments ([`Stamp`]).
//! **Invariant:** a bad event becomes a [`Reject`] and never spoils its neighbours.

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

/// The largest body that can be decoded: text columns of one batch hold less than 2 GiB.
const BODY_BYTES_MAX: usize = 1 << 30;

/// Whose rows: the value of a tenant column. Never empty, at most [`TenantId::BYTES_MAX`] bytes.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TenantId(Arc<str>);

/// The shape of a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One object, an array of objects, or one object a line.
    Json,
    /// Length-delimited messages (a varint length before each).
    Protobuf,
    /// An Arrow IPC stream.
    ArrowIpc,
}

/// How the bytes of a rejected event are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kept {
    /// One object.
    Json,
    /// One message of the table's contract.
    Protobuf,
    /// Avro, as its source received it.
    Avro,
    /// Protobuf, as its source received it: with a registry's header, or of another message than the table's.
    SourceProtobuf,
}

impl Format {
    /// How a rejected event's bytes are kept: an Arrow row as JSON.
    pub fn kept_as(self) -> Kept {
        match self {
            Self::Json | Self::ArrowIpc => Kept::Json,
            Self::Protobuf => Kept::Protobuf,
        }
    }
}

impl Kept {
    /// The word for it in the quarantine's `format` column.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Json => "json",
            Self::Protobuf => "protobuf",
            Self::Avro => "avro",
            Self::SourceProtobuf => "source_protobuf",
        }
    }

    /// What this word stands for. Entries of a time before it was stored have none: what begins like an object is JSON.
    pub fn of(word: Option<&str>, bytes: &[u8]) -> Self {
        match word {
            Some("protobuf") => Self::Protobuf,
            Some("avro") => Self::Avro,
            Some("source_protobuf") => Self::SourceProtobuf,
            None if !bytes.trim_ascii_start().starts_with(b"{") => Self::Protobuf,
            _ => Self::Json,
        }
    }

    /// The format of an event of the table; none when only its source knows how to read it.
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
    /// The sender's tenant (a token's, or that of a message's key): stamped where the event names none; an event that
    /// names another is rejected.
    Tenant(TenantId),
    /// Each event names its own (operators and sources only); one without is rejected.
    PerEvent,
}

/// What the door knows of the events: when they came, whose they are, and what is allowed.
#[derive(Debug, Clone)]
pub struct Stamp {
    /// The server's receive time.
    pub received: Micros,
    /// Whose events they are.
    pub owner: Owner,
    /// The latest believable event time.
    pub time_max: Micros,
    /// The size of one event.
    pub event_bytes_max: usize,
    /// Entries in one event's dimensions map.
    pub dimensions_max: usize,
}

/// A decoded body: the good events as columns in arrival order, the bad ones with their reasons.
#[derive(Debug)]
pub struct Decoded {
    /// Good events.
    pub batch: EventBatch,
    /// Bad events.
    pub rejects: Vec<Reject>,
}

impl TenantId {
    /// The longest tenant id.
    pub const BYTES_MAX: usize = 256;

    /// Checks and wraps a tenant id: not empty, not too long, no control characters.
    pub fn parse(text: &str) -> Result<Self> {
        Self::check(text).map(|()| Self(text.into()))
    }

    /// The same, only checked.
    pub(crate) fn check(text: &str) -> Result<()> {
        if text.is_empty() {
            return Err(Error::invalid("a tenant id is not empty"));
        }
        if text.len() > Self::BYTES_MAX {
            return Err(Error::invalid(format!("a tenant id has at most {} bytes", Self::BYTES_MAX)));
        }
        if text.contains(char::is_control) {
            return Err(Error::invalid("a tenant id has no control characters"));
        }
        Ok(())
    }

    /// Whether these bytes are one at the first glance: a short one of printable ASCII.
    pub(crate) fn is_plain(bytes: &[u8]) -> bool {
        !bytes.is_empty() && bytes.len() <= Self::BYTES_MAX && bytes.iter().all(|byte| matches!(byte, b' '..=b'~'))
    }

    /// The text of it.
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

/// Decodes a whole body. `Err` only when the body as a whole is no such format (so that nothing in it can be kept apart).
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
        return Err(Error::limited(format!("a body has at most {BODY_BYTES_MAX} bytes: send smaller ones")));
    }
    Ok(())
}

/// Decodes messages that stand apart from each other: each of `places` in `body` is one event, whatever is in it. Rejects
/// count by their place among `places`. `Err` only when no message of this format can be read.
///
/// What lies between two messages should be no text of theirs (a line break will do): a message that ends inside a
/// character must not find the rest of it in the next one.
pub fn decode_messages(
    contract: &Contract,
    format: Format,
    body: &Bytes,
    places: &[Range<usize>],
    stamp: &Stamp,
) -> Result<Decoded> {
    check_length(body)?;
    match format {
        Format::Json => decode::json::decode_messages(contract, body, places, stamp),
        Format::Protobuf => decode::protobuf::decode_messages(contract, body, places, stamp),
        Format::ArrowIpc => Err(Error::unsupported("a message is one event: send JSON or protobuf, not Arrow")),
    }
}

/// How many messages can be decoded at once, even if all of them are bad.
pub const MESSAGES_MAX: usize = decode::acceptor::BODY_REJECTS_MAX;

/// The same for columns that came as Arrow already (Flight, ADBC): columns are matched by name and cast when lossless.
pub fn decode_arrow(contract: &Contract, batch: &RecordBatch, first_index: u64, stamp: &Stamp) -> Result<Decoded> {
    decode::arrow_batch::decode(contract, batch, first_index, stamp)
}
