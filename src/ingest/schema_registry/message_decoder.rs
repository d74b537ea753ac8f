//! The message decoder. It converts messages to a form that the table's contract can decode. A source needs a decoder
//! for Avro messages, for protobuf messages with a schema registry's header, and for protobuf messages that a transform
//! processes.
//!
//! ```text
//!   messages ─► header (a zero, a schema's id, a path) ─► schema ─┬─► Avro: JSON text
//!                                                                 ├─► protobuf for a transform: JSON text
//!                                                                 └─► protobuf of the contract's message: unchanged
//! ```
//!
//! [`MessageDecoder::decode`] takes messages as they were received. For each message, it returns bytes that the
//! contract can decode, or the reason for rejecting the message. A rejected message is stored in the quarantine as it
//! was received.
//!
//! **Invariant:** the result for a message depends only on the message and its schema.
//! **Invariant:** no message is rejected if its schema is only temporarily unavailable. Instead, the source reads the
//! whole batch again later.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::client::{RegistryClient, ResolvedSchema};
use crate::config::{Envelope, SourceConfig, SourceFormat};
use crate::contract::{AvroSchema, Contract, Format, MessageType, PayloadFormat, ProtoFile, Reason};
use crate::error::{Error, Result};
use crate::ingest::source::{BatchMessage, TenantResolution, varint};
use crate::telemetry::Metrics;

/// The size of the part of a header before the path: a zero byte and a schema id.
const HEADER_BYTES: usize = 5;
/// The maximum number of indexes in the path that identifies a message type.
const PATH_MAX: usize = 32;

/// The message decoder of one source.
#[derive(Debug)]
pub(in crate::ingest) struct MessageDecoder {
    origin: SchemaOrigin,
    /// True for Avro, false for protobuf.
    is_avro: bool,
    /// True if each message begins with a schema registry's header.
    has_header: bool,
    /// True if messages are converted to JSON. False if the decoder only removes the header of each message, because
    /// the contract can decode the rest.
    to_json: bool,
    contract: Arc<Contract>,
}

/// Where a source's schemas come from.
#[derive(Debug)]
enum SchemaOrigin {
    /// Each message contains the id of a schema in a registry.
    Registry(Box<RegistryClient>),
    /// All messages have this Avro schema.
    Avro(Arc<AvroSchema>),
    /// All messages have this protobuf type.
    Protobuf(MessageType),
}

/// Messages in a form that the contract can decode.
#[derive(Debug)]
pub(in crate::ingest) struct DecodedMessages {
    pub(in crate::ingest) format: Format,
    /// The bytes of all messages.
    pub(in crate::ingest) body: Bytes,
    /// The messages, in the order in which they were received. Rejected messages are included.
    pub(super) messages: Vec<BatchMessage>,
}

/// Maps the schema ids that occur in a batch of messages to schemas.
pub(in crate::ingest) type Schemas = BTreeMap<u32, ResolvedSchema>;

/// The conversion for all messages that have the same header.
#[derive(Debug, Clone)]
enum Conversion {
    /// Converts Avro messages with this schema to JSON.
    AvroToJson(Arc<AvroSchema>),
    /// Converts protobuf messages of this type to JSON.
    ProtobufToJson(MessageType),
    /// Removes the header, and leaves the rest of the message unchanged.
    Unchanged,
}

/// The reason code for rejecting a message, and a sentence that explains it.
type SchemaRejection = (Reason, String);

impl DecodedMessages {
    /// Returns the format, the body, and the messages in the body.
    pub(in crate::ingest) fn parts(&self) -> (Format, &Bytes, &[BatchMessage]) {
        (self.format, &self.body, &self.messages)
    }
}

impl MessageDecoder {
    /// Creates the decoder for a source. Returns `None` if the contract or the transform can decode the messages
    /// directly. Fails with `Invalid` if a schema or a certificate is invalid.
    pub(in crate::ingest) fn new(
        name: &str,
        config: &SourceConfig,
        contract: Option<&Arc<Contract>>,
        metrics: &Arc<Metrics>,
    ) -> Result<Option<Self>> {
        let has_transform = config.transform.is_some() || config.transform_file.is_some();
        let (is_avro, is_debezium) = (config.format == SourceFormat::Avro, config.envelope == Envelope::Debezium);
        let is_needed = match config.format {
            SourceFormat::Json => false,
            SourceFormat::Avro => true,
            SourceFormat::Protobuf => has_transform || config.registry.is_some(),
        };
        // If the table's declaration is invalid, there is no contract. Another check reports this problem.
        let Some(contract) = contract.filter(|_| is_needed) else { return Ok(None) };
        let key = |field: &str| format!("sources.{name}.{field}");
        let origin = match (&config.registry, &config.schema_file) {
            (Some(registry), _) => {
                let registry = RegistryClient::new(name, registry, is_debezium, Arc::clone(metrics));
                SchemaOrigin::Registry(Box::new(registry.map_err(|error| error.at(key("registry")))?))
            }
            (None, Some(file)) => {
                load_schema_file(file, config, is_avro).map_err(|error| error.at(key("schema_file")))?
            }
            (None, None) => SchemaOrigin::Protobuf(contract.message().ok_or_else(|| {
                Error::invalid("the messages have no schema: set `registry` or `schema_file`").at(key("format"))
            })?),
        };
        let has_header = config.confluent || config.registry.is_some();
        let to_json = is_avro || has_transform;
        Ok(Some(Self { origin, is_avro, has_header, to_json, contract: Arc::clone(contract) }))
    }

    /// Returns the format in which the quarantine stores this source's messages.
    pub(in crate::ingest) fn kept_as(&self) -> PayloadFormat {
        if self.is_avro { PayloadFormat::Avro } else { PayloadFormat::SourceProtobuf }
    }

    /// Returns the schema ids in the headers of messages.
    pub(in crate::ingest) fn schema_ids<'b>(&self, payloads: impl Iterator<Item = &'b [u8]>) -> BTreeSet<u32> {
        if self.has_header { payloads.filter_map(schema_id).collect() } else { BTreeSet::new() }
    }

    /// Returns the schemas with these ids. Those that are not cached are requested from the registry. Fails with
    /// `Unavailable` if the registry is unreachable.
    pub(in crate::ingest) async fn fetch_schemas(&self, ids: BTreeSet<u32>) -> Result<Schemas> {
        match &self.origin {
            SchemaOrigin::Registry(registry) => registry.resolve(ids).await,
            SchemaOrigin::Avro(_) | SchemaOrigin::Protobuf(_) => Ok(Schemas::new()),
        }
    }

    /// Converts messages to a form that the contract can decode. Rejects a message if it, or its converted form, has
    /// more than `bytes_max` bytes. Fails with `Limited` if the JSON of all messages has more than `body_max` bytes.
    /// The caller should then pass fewer messages.
    pub(in crate::ingest) fn decode(
        &self,
        body: &Bytes,
        messages: &[BatchMessage],
        schemas: &Schemas,
        (bytes_max, body_max): (usize, usize),
    ) -> Result<DecodedMessages> {
        let mut conversions: HashMap<&[u8], Result<Conversion, SchemaRejection>> = HashMap::new();
        let (mut json, mut decoded) = (Vec::new(), Vec::with_capacity(messages.len()));
        for message in messages {
            let mut result = BatchMessage { range: 0..0, ..message.clone() };
            let is_tombstone = message.meta.as_ref().is_some_and(|meta| meta.is_tombstone);
            if !is_tombstone && !matches!(message.tenant_resolution, TenantResolution::Refused(..)) {
                let payload = &body[message.range.clone()];
                let start = json.len();
                let conversion = self.conversion_for(payload, schemas, &mut conversions);
                let converted = conversion.and_then(|(conversion, header)| {
                    convert(&conversion, &payload[header..], &mut json, bytes_max)?;
                    Ok(header)
                });
                match converted {
                    Ok(_) if self.to_json => result.range = start..json.len(),
                    Ok(header) => result.range = message.range.start + header..message.range.end,
                    Err((reason, detail)) => {
                        json.truncate(start);
                        let tenant = match &message.tenant_resolution {
                            TenantResolution::Tenant(tenant) => Some(tenant.clone()),
                            TenantResolution::PerEvent | TenantResolution::Refused(..) => None,
                        };
                        result.tenant_resolution = TenantResolution::Refused(tenant, reason, detail);
                    }
                }
            }
            if self.to_json {
                // Separate the messages with newlines. Otherwise, a truncated UTF-8 character at the end of a message
                // could be completed by the start of the next one.
                json.push(b'\n');
            }
            if json.len() > body_max.saturating_add(bytes_max) {
                return Err(Error::limited(format!("a batch has more than {body_max} bytes as JSON")));
            }
            decoded.push(result);
        }
        let (format, body) = if self.to_json { (Format::Json, json.into()) } else { (Format::Protobuf, body.clone()) };
        Ok(DecodedMessages { format, body, messages: decoded })
    }

    /// Converts one message to a form that the contract can decode. `schemas` must contain the message's schema.
    pub(in crate::ingest) fn decode_one(
        &self,
        payload: &Bytes,
        schemas: &Schemas,
        bytes_max: usize,
    ) -> Result<(Format, Bytes), SchemaRejection> {
        let (conversion, header) = self.conversion_for(payload, schemas, &mut HashMap::new())?;
        let mut json = Vec::new();
        convert(&conversion, &payload[header..], &mut json, bytes_max)?;
        Ok(if self.to_json { (Format::Json, json.into()) } else { (Format::Protobuf, payload.slice(header..)) })
    }

    /// Returns the conversion for a message, and the size of the message's header. `conversions` is a cache that is
    /// keyed by header.
    fn conversion_for<'b>(
        &self,
        payload: &'b [u8],
        schemas: &Schemas,
        conversions: &mut HashMap<&'b [u8], Result<Conversion, SchemaRejection>>,
    ) -> Result<(Conversion, usize), SchemaRejection> {
        let header = if self.has_header { header(payload, self.is_avro)? } else { 0..0 };
        let entry = conversions.entry(&payload[header.clone()]);
        let conversion = entry.or_insert_with(|| self.select_conversion(&payload[header.clone()], schemas)).clone()?;
        Ok((conversion, header.end))
    }

    /// Determines the conversion for all messages with this header.
    fn select_conversion(&self, header: &[u8], schemas: &Schemas) -> Result<Conversion, SchemaRejection> {
        let schema = match &self.origin {
            SchemaOrigin::Avro(schema) => return Ok(Conversion::AvroToJson(Arc::clone(schema))),
            SchemaOrigin::Protobuf(message) => return Ok(Conversion::ProtobufToJson(message.clone())),
            SchemaOrigin::Registry(_) => schema_id(header).and_then(|id| Some((id, schemas.get(&id)?))),
        };
        let Some((id, schema)) = schema else {
            return Err(malformed("the message refers to a schema that was not requested"));
        };
        let wanted = if self.is_avro { "AVRO" } else { "PROTOBUF" };
        let wrong_kind =
            |kind: &str| malformed(format!("schema {id} in the registry is {kind}, but the source reads {wanted}"));
        match schema {
            ResolvedSchema::Unknown => Err(malformed(format!("the schema registry has no schema {id}"))),
            ResolvedSchema::Unusable(why) => {
                Err(malformed(format!("schema {id} in the registry cannot be used: {why}")))
            }
            ResolvedSchema::Other(kind) => Err(wrong_kind(kind)),
            ResolvedSchema::Avro(schema) if self.is_avro => Ok(Conversion::AvroToJson(Arc::clone(schema))),
            ResolvedSchema::Avro(_) => Err(wrong_kind("AVRO")),
            ResolvedSchema::Protobuf(file) if !self.is_avro => self.protobuf_conversion(id, file, header),
            ResolvedSchema::Protobuf(_) => Err(wrong_kind("PROTOBUF")),
        }
    }

    /// Determines the conversion for protobuf messages. Without a transform, the message type must match the contract.
    fn protobuf_conversion(&self, id: u32, file: &ProtoFile, header: &[u8]) -> Result<Conversion, SchemaRejection> {
        let (path, _) = path(&header[HEADER_BYTES..]).ok_or_else(invalid_path)?;
        let candidates = file.messages(&path);
        let Some(first) = candidates.first() else {
            return Err(malformed(format!("schema {id} in the registry has no message at {path:?}")));
        };
        if self.to_json {
            return Ok(Conversion::ProtobufToJson(first.clone()));
        }
        match (self.contract.agrees(first), candidates.get(1).map(|second| self.contract.agrees(second))) {
            (Ok(()), _) | (_, Some(Ok(()))) => Ok(Conversion::Unchanged),
            (Err(what), _) => Err((Reason::WrongType, format!("schema {id}: {what}"))),
        }
    }
}

/// Reads a source's schema from a file.
fn load_schema_file(file: &Path, config: &SourceConfig, is_avro: bool) -> Result<SchemaOrigin> {
    if is_avro {
        let text = std::fs::read_to_string(file)
            .map_err(|error| Error::invalid(format!("{} cannot be read: {error}", file.display())))?;
        let is_debezium = config.envelope == Envelope::Debezium;
        let parse = if is_debezium { AvroSchema::parse_debezium } else { AvroSchema::parse };
        return Ok(SchemaOrigin::Avro(Arc::new(parse(&text, &[])?)));
    }
    let folder = file.parent().unwrap_or(file);
    MessageType::open(file, config.message.as_deref().unwrap_or_default(), folder).map(SchemaOrigin::Protobuf)
}

/// Checks the size of a message and applies `conversion`. A conversion to JSON appends its result to `json`.
fn convert(
    conversion: &Conversion,
    message: &[u8],
    json: &mut Vec<u8>,
    bytes_max: usize,
) -> Result<(), SchemaRejection> {
    if message.len() > bytes_max {
        let bytes = message.len();
        return Err((Reason::TooLarge, format!("the message has {bytes} bytes; at most {bytes_max} are allowed")));
    }
    match conversion {
        Conversion::AvroToJson(schema) => schema.write_json(message, json, bytes_max),
        Conversion::ProtobufToJson(message_type) => message_type.write_json(message, json, bytes_max),
        Conversion::Unchanged => Ok(()),
    }
}

/// Returns the schema id in the header of a message, or `None` if the message does not begin with a header.
fn schema_id(payload: &[u8]) -> Option<u32> {
    match payload {
        [0, id @ ..] => id.first_chunk().copied().map(u32::from_be_bytes),
        _ => None,
    }
}

/// Returns the range of bytes that a message's header occupies.
fn header(payload: &[u8], is_avro: bool) -> Result<Range<usize>, SchemaRejection> {
    if schema_id(payload).is_none() {
        return Err(malformed(
            "the message does not begin with a schema registry's header (a zero byte and a schema id)",
        ));
    }
    let rest = &payload[HEADER_BYTES..];
    let path_bytes = if is_avro { 0 } else { path(rest).ok_or_else(invalid_path)?.1 };
    Ok(0..HEADER_BYTES + path_bytes)
}

/// Parses the path that identifies a message type. Returns the path and its encoded size in bytes. A path is encoded as
/// a count followed by that number of indexes, all of them zigzag varints. A count of zero is the short form of a path
/// whose only index is zero.
fn path(bytes: &[u8]) -> Option<(Vec<usize>, usize)> {
    let read_index = |bytes| {
        let (value, rest) = varint(bytes)?;
        // The zigzag encoding of a non-negative number is twice its value.
        Some((usize::try_from(value).ok().filter(|value| value % 2 == 0)? / 2, rest))
    };
    let (count, mut rest) = read_index(bytes)?;
    if count > PATH_MAX {
        return None;
    }
    let mut path = Vec::with_capacity(count.max(1));
    for _ in 0..count {
        let (index, after_index) = read_index(rest)?;
        path.push(index);
        rest = after_index;
    }
    if path.is_empty() {
        path.push(0);
    }
    Some((path, bytes.len() - rest.len()))
}

fn malformed(what: impl Into<String>) -> SchemaRejection {
    (Reason::Malformed, what.into())
}

fn invalid_path() -> SchemaRejection {
    malformed("the schema registry's header has no valid path to a message")
}
