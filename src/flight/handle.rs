//! Tickets and prepared handles: what a statement needs to run later, signed, so that the server keeps nothing.
//!
//! In: a statement (its text and bound parameters) or a metadata command, and the caller. Out: opaque bytes
//! `version (1) · HMAC-SHA256 (32) · payload`, good on any connection and any server with the same `handle_secret`.
//!
//! **Invariant:** a handle gives no right. It is bound to the caller that got it, and what it holds is planned again with
//! the rights of the caller that shows it. Refuses: tampered or foreign bytes, another caller's handle, expired handles.

use arrow::array::RecordBatch;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use prost::Message;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use crate::clock::{Clock, Micros};
use crate::config::{Secret, TypeProfile};
use crate::error::{Error, Result};
use crate::tenancy::Access;

/// The layout of a handle. A new one gets a new number, and old handles are refused as such.
const VERSION: u8 = 1;
const MAC_BYTES: usize = 32;
/// The largest handle: it travels in requests and answers that have to stay below 4 MiB.
pub(super) const HANDLE_BYTES_MAX: usize = 1024 * 1024;

/// Seals and unseals handles.
pub(super) struct Sealer {
    key: Hmac<Sha256>,
    age_max: Micros,
    clock: Clock,
}

/// What a handle holds.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Handle {
    /// Names the flight, so that it can be cancelled by its ticket.
    pub(super) id: Uuid,
    /// The types that its schema promised.
    pub(super) types: TypeProfile,
    /// What it is good for.
    pub(super) purpose: Purpose,
}

/// What a handle is good for.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Purpose {
    /// A prepared statement.
    #[prost(message, tag = "5")]
    Prepared(Statement),
    /// The answer of a statement.
    #[prost(message, tag = "6")]
    Answer(Statement),
    /// The answer of a metadata command (an encoded `Any`).
    #[prost(bytes = "bytes", tag = "7")]
    Catalog(Bytes),
}

/// A statement to be planned.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Statement {
    /// Its text.
    #[prost(string, tag = "1")]
    pub(super) sql: String,
    /// An Arrow IPC stream with one row, or nothing.
    #[prost(bytes = "bytes", tag = "2")]
    parameters: Bytes,
}

#[derive(Clone, PartialEq, prost::Message)]
struct HandlePayload {
    #[prost(bytes = "vec", tag = "1")]
    owner: Vec<u8>,
    #[prost(int64, tag = "2")]
    expires: Micros,
    #[prost(bytes = "vec", tag = "3")]
    id: Vec<u8>,
    #[prost(bool, tag = "4")]
    native: bool,
    #[prost(oneof = "Purpose", tags = "5, 6, 7")]
    purpose: Option<Purpose>,
}

impl Statement {
    /// A statement with one row of parameters, if any.
    pub(super) fn new(sql: String, parameters: Option<&RecordBatch>) -> Result<Self> {
        let parameters = match parameters {
            Some(row) => encode_row(row)
                .map_err(|error| Error::invalid("the bound parameters cannot be kept").with_source(error))?,
            None => Bytes::new(),
        };
        Ok(Self { sql, parameters })
    }

    /// The bound parameters: one row, or nothing.
    pub(super) fn parameters(&self) -> Result<Option<RecordBatch>> {
        if self.parameters.is_empty() {
            return Ok(None);
        }
        decode_row(&self.parameters)
            .map_err(|error| Error::internal("bound parameters that we signed cannot be read").with_source(error))
    }
}

impl Sealer {
    /// Signs with `secret`; without one with a random key, so that handles end with the process.
    pub(super) fn new(secret: &Secret, age_max: Micros, clock: Clock) -> Self {
        let random: [u8; 32] = rand::random();
        let secret = if secret.is_empty() { &random[..] } else { secret.expose().as_bytes() };
        let derived = mac(&keyed(secret), &[b"glasshouse flight handle"]).finalize().into_bytes();
        Self { key: keyed(&derived), age_max, clock }
    }

    /// When a handle sealed now expires: after the greatest age, and never after the caller's token.
    pub(super) fn expiry(&self, access: &Access) -> Micros {
        self.clock.now().saturating_add(self.age_max).min(access.expires())
    }

    /// The bytes of a handle for this caller. `Limited` when it would be too large.
    pub(super) fn seal(&self, access: &Access, handle: &Handle) -> Result<Bytes> {
        let payload = HandlePayload {
            owner: owner(access).to_vec(),
            expires: self.expiry(access),
            id: handle.id.as_bytes().to_vec(),
            native: handle.types == TypeProfile::Native,
            purpose: Some(handle.purpose.clone()),
        };
        let size = 1 + MAC_BYTES + payload.encoded_len();
        if size > HANDLE_BYTES_MAX {
            return Err(Error::limited(format!(
                "the statement and its parameters take {size} bytes, at most {HANDLE_BYTES_MAX} are allowed"
            )));
        }
        let payload = payload.encode_to_vec();
        let tag = mac(&self.key, &[&[VERSION], &payload]).finalize().into_bytes();
        let mut bytes = Vec::with_capacity(size);
        bytes.push(VERSION);
        bytes.extend_from_slice(&tag);
        bytes.extend_from_slice(&payload);
        Ok(bytes.into())
    }

    /// What a handle holds. `Invalid` when it is not ours, changed or expired; `Forbidden` when it is another caller's.
    pub(super) fn unseal(&self, access: &Access, bytes: &[u8]) -> Result<Handle> {
        let unknown = || Error::invalid("this handle was not made by this server, or was changed: ask for a new one");
        let (version, rest) = bytes.split_first().ok_or_else(unknown)?;
        if *version != VERSION || rest.len() < MAC_BYTES || bytes.len() > HANDLE_BYTES_MAX {
            return Err(unknown());
        }
        let (tag, payload) = rest.split_at(MAC_BYTES);
        mac(&self.key, &[&[VERSION], payload]).verify_slice(tag).map_err(|_| unknown())?;
        let payload = HandlePayload::decode(payload).map_err(|_| unknown())?;
        if payload.owner != owner(access) {
            return Err(Error::forbidden("this handle was made for another caller or other rights: ask for a new one"));
        }
        if payload.expires <= self.clock.now() {
            return Err(Error::invalid("this handle has expired: ask for a new one"));
        }
        Ok(Handle {
            id: Uuid::from_slice(&payload.id).map_err(|_| unknown())?,
            types: if payload.native { TypeProfile::Native } else { TypeProfile::Compat },
            purpose: payload.purpose.ok_or_else(unknown)?,
        })
    }
}

/// Names the caller and its rights: who it is, and everything that decides which rows and columns it sees.
pub(super) fn owner(access: &Access) -> [u8; 32] {
    let (issuer, subject, _) = access.identity();
    digest(&[issuer.as_bytes(), subject.as_bytes(), &access.fingerprint()])
}

/// SHA-256 of parts whose boundaries count.
pub(super) fn digest(parts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

fn keyed(key: &[u8]) -> Hmac<Sha256> {
    Hmac::new_from_slice(key).expect("HMAC takes keys of any length")
}

fn mac(key: &Hmac<Sha256>, parts: &[&[u8]]) -> Hmac<Sha256> {
    let mut mac = key.clone();
    for part in parts {
        mac.update(part);
    }
    mac
}

fn encode_row(row: &RecordBatch) -> Result<Bytes, arrow::error::ArrowError> {
    let mut writer = StreamWriter::try_new(Vec::new(), row.schema_ref())?;
    writer.write(row)?;
    Ok(writer.into_inner()?.into())
}

fn decode_row(bytes: &[u8]) -> Result<Option<RecordBatch>, arrow::error::ArrowError> {
    StreamReader::try_new(bytes, None)?.next().transpose()
}
