//! Tickets and prepared handles. They are signed and contain all information that later calls need, so the server
//! stores no state.
//!
//! A handle identifies its caller. It contains a metadata command, or the text and the bound parameters of a statement.
//! Its format is `version (1) · HMAC-SHA256 (32) · payload`, but clients must not interpret it. A handle is valid on
//! any connection, and on any server with the same `handle_secret`.
//!
//! **Invariant:** a handle grants no rights. Only the caller that received a handle can use it. When the caller uses
//! the handle, the statement is planned again with the rights that the caller has at that time. A handle is refused if
//! it has expired or was modified. It is also refused if it was issued with another secret or to another caller.

use arrow::array::RecordBatch;
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use prost::Message;
use sha2::{Digest, Sha256};
use uuid::Uuid;

use super::result_arrow_types::ResultTypes;
use super::result_time_zone::ClientTimeZone;
use crate::clock::{Clock, Micros};
use crate::config::{Secret, TypeProfile};
use crate::error::{Error, Result};
use crate::tenancy::Access;

/// The version number of the handle format. Each new format gets a new number, and the server refuses handles in older
/// formats.
const VERSION: u8 = 1;
const MAC_BYTES: usize = 32;
/// The maximum size of a handle, in bytes. The limit keeps requests and responses, which contain handles, below 4 MiB.
pub(super) const HANDLE_BYTES_MAX: usize = 1024 * 1024;

/// Signs and verifies handles.
pub(super) struct HandleSigner {
    key: Hmac<Sha256>,
    age_max: Micros,
    clock: Clock,
}

/// The content of a handle.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Handle {
    /// The id of the flight. To cancel a ticket's queries, the server looks them up by this id.
    pub(super) id: Uuid,
    /// The settings that determined the column types of the schema that was sent with the handle.
    pub(super) types: ResultTypes,
    /// The statement or command that the handle contains.
    pub(super) purpose: Purpose,
}

/// The statement or command for which a handle was issued.
#[derive(Clone, PartialEq, prost::Oneof)]
pub(super) enum Purpose {
    /// A prepared statement.
    #[prost(message, tag = "5")]
    Prepared(Statement),
    /// The result of a statement.
    #[prost(message, tag = "6")]
    QueryResult(Statement),
    /// The result of a metadata command, which is stored as an encoded `Any`.
    #[prost(bytes = "bytes", tag = "7")]
    Catalog(Bytes),
}

/// The text and the parameters of a statement. The statement is planned each time the handle is used.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct Statement {
    /// The SQL text.
    #[prost(string, tag = "1")]
    pub(super) sql: String,
    /// The bound parameters as an Arrow IPC stream with one batch, or no bytes if no parameters are bound.
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
    /// The client's time zone, or an empty string if the client has not set one.
    #[prost(string, tag = "8")]
    zone: String,
}

impl Statement {
    /// Creates a statement from its SQL text and the rows of its bound parameters.
    pub(super) fn new(sql: String, parameters: Option<&RecordBatch>) -> Result<Self> {
        let parameters = match parameters {
            Some(rows) => encode_rows(rows)
                .map_err(|error| Error::invalid("cannot encode the bound parameters").with_source(error))?,
            None => Bytes::new(),
        };
        Ok(Self { sql, parameters })
    }

    /// Returns the rows of bound parameters, or `None` if no parameters are bound.
    pub(super) fn parameters(&self) -> Result<Option<RecordBatch>> {
        if self.parameters.is_empty() {
            return Ok(None);
        }
        decode_rows(&self.parameters).map_err(|error| {
            Error::internal("cannot decode bound parameters that this server signed").with_source(error)
        })
    }
}

impl HandleSigner {
    /// Creates a signer that uses `secret`. If the secret is empty, the key is random, and handles become invalid when
    /// the process ends.
    pub(super) fn new(secret: &Secret, age_max: Micros, clock: Clock) -> Self {
        let random: [u8; 32] = rand::random();
        let secret = if secret.is_empty() { &random[..] } else { secret.expose().as_bytes() };
        let derived = mac(&keyed(secret), &[b"glasshouse flight handle"]).finalize().into_bytes();
        Self { key: keyed(&derived), age_max, clock }
    }

    /// Returns the time at which a handle expires if it is signed now. This is when the handle reaches its maximum age
    /// or the caller's token expires, whichever comes first.
    pub(super) fn expiry(&self, access: &Access) -> Micros {
        self.clock.now().saturating_add(self.age_max).min(access.expires())
    }

    /// Signs a handle for this caller. Returns `Limited` if the handle would be too large.
    pub(super) fn sign(&self, access: &Access, handle: &Handle) -> Result<Bytes> {
        let payload = HandlePayload {
            owner: owner(access).to_vec(),
            expires: self.expiry(access),
            id: handle.id.as_bytes().to_vec(),
            native: handle.types.profile == TypeProfile::Native,
            zone: handle.types.zone.map(ClientTimeZone::name).unwrap_or_default(),
            purpose: Some(handle.purpose.clone()),
        };
        let size = 1 + MAC_BYTES + payload.encoded_len();
        if size > HANDLE_BYTES_MAX {
            return Err(Error::limited(format!(
                "the statement and its parameters take {size} bytes, but at most {HANDLE_BYTES_MAX} are allowed: send a \
                 shorter statement or smaller parameters"
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

    /// Verifies a handle and returns its content. Returns `Invalid` if the handle was modified, has expired, or was
    /// issued with another secret. Returns `Forbidden` if it belongs to another caller.
    pub(super) fn verify(&self, access: &Access, bytes: &[u8]) -> Result<Handle> {
        let unknown = || Error::invalid("the handle was not issued by this server or was modified: request a new one");
        let (version, rest) = bytes.split_first().ok_or_else(unknown)?;
        if *version != VERSION || rest.len() < MAC_BYTES || bytes.len() > HANDLE_BYTES_MAX {
            return Err(unknown());
        }
        let (tag, payload) = rest.split_at(MAC_BYTES);
        mac(&self.key, &[&[VERSION], payload]).verify_slice(tag).map_err(|_| unknown())?;
        let payload = HandlePayload::decode(payload).map_err(|_| unknown())?;
        if payload.owner != owner(access) {
            return Err(Error::forbidden(
                "the handle was issued to another caller, or your rights have changed: request a new one",
            ));
        }
        if payload.expires <= self.clock.now() {
            return Err(Error::invalid("the handle has expired: request a new one"));
        }
        Ok(Handle {
            id: Uuid::from_slice(&payload.id).map_err(|_| unknown())?,
            types: ResultTypes {
                profile: if payload.native { TypeProfile::Native } else { TypeProfile::Compat },
                zone: match payload.zone.as_str() {
                    "" => None,
                    zone => Some(ClientTimeZone::parse(zone)?),
                },
            },
            purpose: payload.purpose.ok_or_else(unknown)?,
        })
    }
}

/// Returns a digest of the caller's identity and rights. These rights determine which rows and columns the caller sees.
pub(super) fn owner(access: &Access) -> [u8; 32] {
    let (issuer, subject, _) = access.identity();
    digest(&[issuer.as_bytes(), subject.as_bytes(), &access.fingerprint()])
}

/// Returns the SHA-256 digest of the parts. The length of each part is hashed before the part itself.
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

fn encode_rows(rows: &RecordBatch) -> Result<Bytes, arrow::error::ArrowError> {
    let mut writer = StreamWriter::try_new(Vec::new(), rows.schema_ref())?;
    writer.write(rows)?;
    Ok(writer.into_inner()?.into())
}

fn decode_rows(bytes: &[u8]) -> Result<Option<RecordBatch>, arrow::error::ArrowError> {
    StreamReader::try_new(bytes, None)?.next().transpose()
}
