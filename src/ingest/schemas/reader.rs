//! Messages that the table's contract cannot read by itself: Avro, protobuf by a registry, protobuf for a transform.
//!
//! ```text
//!   messages ─► header (a zero, a schema's id, a path) ─► schema ─┬─► Avro: JSON text
//!                                                                 ├─► protobuf for a transform: JSON text
//!                                                                 └─► protobuf: is it the contract's message? as it is
//! ```
//!
//! In: messages as they were received. Out: the same, each with the bytes that are decoded in its place, or with why it is
//! refused. The quarantine keeps what was received.
//!
//! **Invariant:** what becomes of a message depends on it and on its schema alone.
//! **Invariant:** a message whose schema cannot be had now is not judged: the batch is read again.

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

/// The bytes of a header without a path: a zero and a schema's id.
const HEADER_BYTES: usize = 5;
/// Messages in messages that a path may lead through.
const PATH_MAX: usize = 32;

/// How a source's messages are read.
#[derive(Debug)]
pub(in crate::ingest) struct SchemaReader {
    origin: SchemaOrigin,
    is_avro: bool,
    /// Whether a registry's header stands in front of each.
    has_header: bool,
    /// Whether they become JSON, and not the contract's own protobuf.
    is_text: bool,
    contract: Arc<Contract>,
}

/// Where schemas come from.
#[derive(Debug)]
enum SchemaOrigin {
    Registry(Box<Registry>),
    Avro(Arc<AvroSchema>),
    Protobuf(MessageType),
}

/// Messages in the form in which they are decoded.
#[derive(Debug)]
pub(in crate::ingest) struct Forms {
    pub(in crate::ingest) format: Format,
    pub(in crate::ingest) body: Bytes,
    /// One for each message, in their order.
    pub(super) messages: Vec<BatchMessage>,
}

/// Schemas that the messages of a batch name.
pub(in crate::ingest) type Schemas = BTreeMap<u32, KnownSchemas>;

/// What reads the messages with one header.
#[derive(Debug, Clone)]
enum ReadPlan {
    Avro(Arc<AvroSchema>),
    Text(MessageType),
    /// As they are, behind the header.
    Own,
}

/// Why a message is refused.
type SchemaRejection = (Reason, String);

impl Forms {
    /// What is decoded: how it is written, in what, and where.
    pub(in crate::ingest) fn given(&self) -> (Format, &Bytes, &[BatchMessage]) {
        (self.format, &self.body, &self.messages)
    }
}

impl SchemaReader {
    /// The reader of a source, if it needs one. `Invalid` for a schema or a certificate that is none.
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
        // Without a contract the table itself is faulty, which is told elsewhere.
        let Some(contract) = contract.filter(|_| is_needed) else { return Ok(None) };
        let key = |field: &str| format!("sources.{name}.{field}");
        let origin = match (&config.registry, &config.schema_file) {
            (Some(registry), _) => {
                let registry = Registry::new(name, registry, Arc::clone(metrics));
                SchemaOrigin::Registry(Box::new(registry.map_err(|fault| fault.at(key("registry")))?))
            }
            (None, Some(file)) => of_file(file, config, is_avro).map_err(|fault| fault.at(key("schema_file")))?,
            (None, None) => SchemaOrigin::Protobuf(contract.message().ok_or_else(|| {
                Error::invalid("nothing says how the messages are read: set `registry` or `schema_file`")
                    .at(key("format"))
            })?),
        };
        let has_header = config.confluent || config.registry.is_some();
        let is_text = is_avro || has_transform;
        Ok(Some(Self { origin, is_avro, has_header, is_text, contract: Arc::clone(contract) }))
    }

    /// How the quarantine calls what this source has received.
    pub(in crate::ingest) fn kept_as(&self) -> Kept {
        if self.is_avro { Kept::Avro } else { Kept::SourceProtobuf }
    }

    /// The ids of the schemas that messages name.
    pub(in crate::ingest) fn ids<'b>(&self, payloads: impl Iterator<Item = &'b [u8]>) -> BTreeSet<u32> {
        if self.has_header { payloads.filter_map(id).collect() } else { BTreeSet::new() }
    }

    /// What these ids stand for, asked for where it is not known. `Unavailable` when that cannot be had now.
    pub(in crate::ingest) async fn learn(&self, ids: BTreeSet<u32>) -> Result<Schemas> {
        match &self.origin {
            SchemaOrigin::Registry(registry) => registry.learn(ids).await,
            SchemaOrigin::Avro(_) | SchemaOrigin::Protobuf(_) => Ok(Schemas::new()),
        }
    }

    /// The messages in the form in which they are decoded. A message of more than `bytes_max` bytes, as it is or as text, is
    /// refused. `Limited` when all of them are more than `body_max` bytes of text: then there should be fewer.
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
                // So that a text that ends inside a character does not find the rest of it in the next one.
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

    /// One message in the form in which it is decoded, when its schema is among these.
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

    /// What reads a message, and where it begins behind the header.
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

    /// What reads the messages with this header.
    fn find(&self, header: &[u8], schemas: &Schemas) -> Result<ReadPlan, SchemaRejection> {
        let known = match &self.origin {
            SchemaOrigin::Avro(schema) => return Ok(ReadPlan::Avro(Arc::clone(schema))),
            SchemaOrigin::Protobuf(message) => return Ok(ReadPlan::Text(message.clone())),
            SchemaOrigin::Registry(_) => id(header).and_then(|id| Some((id, schemas.get(&id)?))),
        };
        let Some((id, known)) = known else {
            return Err(malformed("the message names a schema that was not asked for"));
        };
        let wanted = if self.is_avro { "AVRO" } else { "PROTOBUF" };
        let other =
            |kind: &str| malformed(format!("schema {id} of the registry is {kind}, and the source reads {wanted}"));
        match known {
            KnownSchemas::Unknown => Err(malformed(format!("the schema registry knows no schema {id}"))),
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

/// Adds a message's text, if it becomes one.
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

/// The id in a header, if that is one.
fn id(payload: &[u8]) -> Option<u32> {
    match payload {
        [0, id @ ..] => id.first_chunk().copied().map(u32::from_be_bytes),
        _ => None,
    }
}

/// Where a message's header stands.
fn header(payload: &[u8], is_avro: bool) -> Result<Range<usize>, SchemaRejection> {
    if id(payload).is_none() {
        return Err(malformed("the message does not begin with a schema registry's header (a zero and a schema id)"));
    }
    let rest = &payload[HEADER_BYTES..];
    let path = if is_avro { 0 } else { path(rest).ok_or_else(cut_off)?.1 };
    Ok(0..HEADER_BYTES + path)
}

/// The path to a message's type, and how many bytes it takes: a count and as many indexes, all zigzag varints. No index at
/// all is the short form of one zero.
fn path(bytes: &[u8]) -> Option<(Vec<usize>, usize)> {
    let index = |bytes| {
        let (value, rest) = varint(bytes)?;
        // A zigzag varint of what is not negative: twice its value.
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
