//! The schema reader, for messages that the table's contract cannot decode by itself: Avro, protobuf with a schema registry,
//! and protobuf for a transform.
//!
//! ```text
//!   messages ─► header (a zero, a schema's id, a path) ─► schema ─┬─► Avro: JSON text
//!                                                                 ├─► protobuf for a transform: JSON text
//!                                                                 └─► protobuf of the contract's message: unchanged
//! ```
//!
//! In: messages as received. Out: the same messages, each with either the bytes that the contract decodes instead of
//! the original, or the reason for its rejection. The quarantine keeps the received bytes.
//!
//! **Invariant:** the result for a message depends only on the message and its schema.
//! **Invariant:** a message whose schema is temporarily unavailable is not rejected: the batch is read again.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::registry::{KnownSchemas, Registry};
use crate::config::{SourceConfig, SourceFormat};
use crate::contract::{AvroSchema, Contract, Format, Kept, MessageType, ProtoFile, Reason};
use crate::error::{Error, Result};
use crate::ingest::source::{BatchMessage, TenantResolution, varint};
use crate::telemetry::Metrics;

/// The size of a header without a path: a zero byte and a schema id.
const HEADER_BYTES: usize = 5;
/// The maximum nesting depth of a message path.
const PATH_MAX: usize = 32;

/// The schema reader of a source.
#[derive(Debug)]
pub(in crate::ingest) struct SchemaReader {
    origin: SchemaOrigin,
    is_avro: bool,
    /// Whether each message begins with a schema registry's header.
    has_header: bool,
    /// Whether messages are converted to JSON, rather than passed on as the contract's own protobuf.
    is_text: bool,
    contract: Arc<Contract>,
}

/// The origin of schemas.
#[derive(Debug)]
enum SchemaOrigin {
    Registry(Box<Registry>),
    Avro(Arc<AvroSchema>),
    Protobuf(MessageType),
}

/// Messages in the form that the contract decodes.
#[derive(Debug)]
pub(in crate::ingest) struct Forms {
    pub(in crate::ingest) format: Format,
    pub(in crate::ingest) body: Bytes,
    /// One for each message, in order.
    pub(super) messages: Vec<BatchMessage>,
}

/// The schemas that the messages of a batch name, by id.
pub(in crate::ingest) type Schemas = BTreeMap<u32, KnownSchemas>;

/// How to convert the messages with one header.
#[derive(Debug, Clone)]
enum ReadPlan {
    Avro(Arc<AvroSchema>),
    Text(MessageType),
    /// Unchanged, without the header.
    Own,
}

/// The reason and detail of a rejected message.
type SchemaRejection = (Reason, String);

impl Forms {
    /// The format, the body, and the messages in it.
    pub(in crate::ingest) fn given(&self) -> (Format, &Bytes, &[BatchMessage]) {
        (self.format, &self.body, &self.messages)
    }
}

impl SchemaReader {
    /// Creates the reader of a source, if it needs one. Fails with `Invalid` if a schema or a certificate is invalid.
    pub(in crate::ingest) fn new(
        name: &str,
        config: &SourceConfig,
        contract: Option<&Arc<Contract>>,
        metrics: &Arc<Metrics>,
    ) -> Result<Option<Self>> {
        let has_transform = config.transform.is_some() || config.transform_file.is_some();
        let is_avro = config.format == SourceFormat::Avro;
        let is_needed = match config.format {
            SourceFormat::Json => false,
            SourceFormat::Avro => true,
            SourceFormat::Protobuf => has_transform || config.registry.is_some(),
        };
        // Without a contract the table itself is invalid, which the table's own check reports.
        let Some(contract) = contract.filter(|_| is_needed) else { return Ok(None) };
        let key = |field: &str| format!("sources.{name}.{field}");
        let origin = match (&config.registry, &config.schema_file) {
            (Some(registry), _) => {
                let registry = Registry::new(name, registry, Arc::clone(metrics));
                SchemaOrigin::Registry(Box::new(registry.map_err(|fault| fault.at(key("registry")))?))
            }
            (None, Some(file)) => of_file(file, config, is_avro).map_err(|fault| fault.at(key("schema_file")))?,
            (None, None) => SchemaOrigin::Protobuf(contract.message().ok_or_else(|| {
                Error::invalid("the messages have no schema: set `registry` or `schema_file`").at(key("format"))
            })?),
        };
        let has_header = config.confluent || config.registry.is_some();
        let is_text = is_avro || has_transform;
        Ok(Some(Self { origin, is_avro, has_header, is_text, contract: Arc::clone(contract) }))
    }

    /// The quarantine's name for the format of this source's messages.
    pub(in crate::ingest) fn kept_as(&self) -> Kept {
        if self.is_avro { Kept::Avro } else { Kept::SourceProtobuf }
    }

    /// The schema ids in the headers of messages.
    pub(in crate::ingest) fn ids<'b>(&self, payloads: impl Iterator<Item = &'b [u8]>) -> BTreeSet<u32> {
        if self.has_header { payloads.filter_map(id).collect() } else { BTreeSet::new() }
    }

    /// Returns the schemas of these ids, and requests those that are not cached. Fails with `Unavailable` if the registry is
    /// unreachable.
    pub(in crate::ingest) async fn learn(&self, ids: BTreeSet<u32>) -> Result<Schemas> {
        match &self.origin {
            SchemaOrigin::Registry(registry) => registry.learn(ids).await,
            SchemaOrigin::Avro(_) | SchemaOrigin::Protobuf(_) => Ok(Schemas::new()),
        }
    }

    /// Converts messages to the form that the contract decodes. Rejects a message of more than `bytes_max` bytes, before or
    /// after the conversion. Fails with `Limited` if all of them exceed `body_max` bytes of text; the caller should then pass
    /// fewer.
    pub(in crate::ingest) fn read(
        &self,
        body: &Bytes,
        messages: &[BatchMessage],
        schemas: &Schemas,
        (bytes_max, body_max): (usize, usize),
    ) -> Result<Forms> {
        let mut ways: HashMap<&[u8], Result<ReadPlan, SchemaRejection>> = HashMap::new();
        let (mut text, mut forms) = (Vec::new(), Vec::with_capacity(messages.len()));
        for message in messages {
            let mut form = BatchMessage { place: 0..0, ..message.clone() };
            let is_tombstone = message.meta.as_ref().is_some_and(|meta| meta.is_tombstone);
            if !is_tombstone && !matches!(message.tenant_resolution, TenantResolution::Refused(..)) {
                let payload = &body[message.place.clone()];
                let start = text.len();
                let read = self.way(payload, schemas, &mut ways).and_then(|(way, header)| {
                    write(&way, &payload[header..], &mut text, bytes_max)?;
                    Ok(header)
                });
                match read {
                    Ok(_) if self.is_text => form.place = start..text.len(),
                    Ok(header) => form.place = message.place.start + header..message.place.end,
                    Err((reason, detail)) => {
                        text.truncate(start);
                        let tenant = match &message.tenant_resolution {
                            TenantResolution::Tenant(tenant) => Some(tenant.clone()),
                            TenantResolution::PerEvent | TenantResolution::Refused(..) => None,
                        };
                        form.tenant_resolution = TenantResolution::Refused(tenant, reason, detail);
                    }
                }
            }
            if self.is_text {
                // A separator, so that a text that ends inside a character does not continue in the next text.
                text.push(b'\n');
            }
            if text.len() > body_max.saturating_add(bytes_max) {
                return Err(Error::limited(format!("a batch has more than {body_max} bytes as JSON")));
            }
            forms.push(form);
        }
        let (format, body) = if self.is_text { (Format::Json, text.into()) } else { (Format::Protobuf, body.clone()) };
        Ok(Forms { format, body, messages: forms })
    }

    /// Converts one message to the form that the contract decodes, using these schemas.
    pub(in crate::ingest) fn read_one(
        &self,
        payload: &Bytes,
        schemas: &Schemas,
        bytes_max: usize,
    ) -> Result<(Format, Bytes), SchemaRejection> {
        let (way, header) = self.way(payload, schemas, &mut HashMap::new())?;
        let mut text = Vec::new();
        write(&way, &payload[header..], &mut text, bytes_max)?;
        Ok(if self.is_text { (Format::Json, text.into()) } else { (Format::Protobuf, payload.slice(header..)) })
    }

    /// How to convert a message, and where its content begins after the header.
    fn way<'b>(
        &self,
        payload: &'b [u8],
        schemas: &Schemas,
        ways: &mut HashMap<&'b [u8], Result<ReadPlan, SchemaRejection>>,
    ) -> Result<(ReadPlan, usize), SchemaRejection> {
        let header = if self.has_header { header(payload, self.is_avro)? } else { 0..0 };
        let way = ways.entry(&payload[header.clone()]);
        let way = way.or_insert_with(|| self.find(&payload[header.clone()], schemas)).clone()?;
        Ok((way, header.end))
    }

    /// How to convert the messages with this header.
    fn find(&self, header: &[u8], schemas: &Schemas) -> Result<ReadPlan, SchemaRejection> {
        let known = match &self.origin {
            SchemaOrigin::Avro(schema) => return Ok(ReadPlan::Avro(Arc::clone(schema))),
            SchemaOrigin::Protobuf(message) => return Ok(ReadPlan::Text(message.clone())),
            SchemaOrigin::Registry(_) => id(header).and_then(|id| Some((id, schemas.get(&id)?))),
        };
        let Some((id, known)) = known else {
            return Err(malformed("the message names a schema that was not requested"));
        };
        let wanted = if self.is_avro { "AVRO" } else { "PROTOBUF" };
        let other =
            |kind: &str| malformed(format!("schema {id} of the registry is {kind}, but the source reads {wanted}"));
        match known {
            KnownSchemas::Unknown => Err(malformed(format!("the schema registry has no schema {id}"))),
            KnownSchemas::Unusable(why) => Err(malformed(format!("schema {id} of the registry cannot be used: {why}"))),
            KnownSchemas::Other(kind) => Err(other(kind)),
            KnownSchemas::Avro(schema) if self.is_avro => Ok(ReadPlan::Avro(Arc::clone(schema))),
            KnownSchemas::Avro(_) => Err(other("AVRO")),
            KnownSchemas::Protobuf(file) if !self.is_avro => self.message(id, file, header),
            KnownSchemas::Protobuf(_) => Err(other("PROTOBUF")),
        }
    }

    fn message(&self, id: u32, file: &ProtoFile, header: &[u8]) -> Result<ReadPlan, SchemaRejection> {
        let (path, _) = path(&header[HEADER_BYTES..]).ok_or_else(cut_off)?;
        let meant = file.messages(&path);
        let Some(first) = meant.first() else {
            return Err(malformed(format!("schema {id} of the registry has no message at {path:?}")));
        };
        if self.is_text {
            return Ok(ReadPlan::Text(first.clone()));
        }
        match (self.contract.agrees(first), meant.get(1).map(|second| self.contract.agrees(second))) {
            (Ok(()), _) | (_, Some(Ok(()))) => Ok(ReadPlan::Own),
            (Err(what), _) => Err((Reason::WrongType, format!("schema {id}: {what}"))),
        }
    }
}

fn of_file(file: &Path, config: &SourceConfig, is_avro: bool) -> Result<SchemaOrigin> {
    if is_avro {
        let text = std::fs::read_to_string(file)
            .map_err(|fault| Error::invalid(format!("{} cannot be read: {fault}", file.display())))?;
        return Ok(SchemaOrigin::Avro(Arc::new(AvroSchema::parse(&text, &[])?)));
    }
    let folder = file.parent().unwrap_or(file);
    MessageType::open(file, config.message.as_deref().unwrap_or_default(), folder).map(SchemaOrigin::Protobuf)
}

/// Appends a message's text, if it is converted to text.
fn write(way: &ReadPlan, message: &[u8], text: &mut Vec<u8>, bytes_max: usize) -> Result<(), SchemaRejection> {
    if message.len() > bytes_max {
        return Err((Reason::TooLarge, format!("the message has {} bytes; {bytes_max} are allowed", message.len())));
    }
    match way {
        ReadPlan::Avro(schema) => schema.write_json(message, text, bytes_max),
        ReadPlan::Text(kind) => kind.write_json(message, text, bytes_max),
        ReadPlan::Own => Ok(()),
    }
}

/// The schema id in a header, if it is a valid header.
fn id(payload: &[u8]) -> Option<u32> {
    match payload {
        [0, id @ ..] => id.first_chunk().copied().map(u32::from_be_bytes),
        _ => None,
    }
}

/// The range of a message's header.
fn header(payload: &[u8], is_avro: bool) -> Result<Range<usize>, SchemaRejection> {
    if id(payload).is_none() {
        return Err(malformed("the message does not begin with a schema registry's header (a zero and a schema id)"));
    }
    let rest = &payload[HEADER_BYTES..];
    let path = if is_avro { 0 } else { path(rest).ok_or_else(cut_off)?.1 };
    Ok(0..HEADER_BYTES + path)
}

/// The path to a message's type, and its size in bytes. A path is a count followed by that number of indexes, all zigzag
/// varints. A path without indexes is the short form of a single zero.
fn path(bytes: &[u8]) -> Option<(Vec<usize>, usize)> {
    let index = |bytes| {
        let (value, rest) = varint(bytes)?;
        // A zigzag varint of a non-negative number is twice its value.
        Some((usize::try_from(value).ok().filter(|value| value % 2 == 0)? / 2, rest))
    };
    let (count, mut rest) = index(bytes)?;
    if count > PATH_MAX {
        return None;
    }
    let mut path = Vec::with_capacity(count.max(1));
    for _ in 0..count {
        let (step, behind) = index(rest)?;
        path.push(step);
        rest = behind;
    }
    if path.is_empty() {
        path.push(0);
    }
    Some((path, bytes.len() - rest.len()))
}

fn malformed(what: impl Into<String>) -> SchemaRejection {
    (Reason::Malformed, what.into())
}

fn cut_off() -> SchemaRejection {
    malformed("the schema registry's header has no valid path to a message")
}
