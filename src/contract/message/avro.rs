//! An Avro schema, made ready for reading: names are looked up once, and keys are written as they stand in JSON.
//!
//! In: the text of a schema, and of those that it refers to by name. Out: an [`AvroSchema`], which reads messages
//! (`avro_json.rs`), or one `Invalid` error. The library checks the schema; messages are read by us, in one pass and within
//! bounds, since who may write to a topic is not always a friend.

use std::collections::BTreeMap;

use apache_avro::Schema;
use apache_avro::schema::{DecimalSchema, InnerDecimalSchema, NamespaceRef, RecordSchema, UuidSchema};

use crate::error::{Error, Result};

/// Types in one schema.
const NODES_MAX: usize = 10_000;
/// Digits behind the point of a decimal.
pub(in crate::contract) const SCALE_MAX: usize = 1_000;

/// A schema that messages were written with.
#[derive(Debug)]
pub struct AvroSchema {
    /// All types; the message itself is the first.
    pub(in crate::contract) nodes: Vec<AvroNode>,
}

/// One type. Others are named by their place in [`AvroSchema::nodes`].
#[derive(Debug, Clone, PartialEq)]
pub(in crate::contract) enum AvroNode {
    Null,
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    Text,
    /// So many bytes.
    Fixed(usize),
    /// The symbols, as JSON texts.
    Enum(Vec<String>),
    Array(usize),
    Map(usize),
    Union(Vec<usize>),
    /// Keys as they stand in JSON, colon included, and the types of their values.
    Record(Vec<(String, usize)>),
    /// Bytes of this number, or as many as are told; and digits behind the point.
    Decimal(Option<usize>, usize),
    /// A decimal that tells its own scale.
    BigDecimal,
    /// 16 bytes: as they are, or with their number in front.
    Uuid(Option<usize>),
    Date,
    Time(AvroTimeUnit),
    Timestamp(AvroTimeUnit),
    LocalTimestamp(AvroTimeUnit),
    Duration,
    /// A name that is not known yet, only while the schema is read.
    Pending,
}

/// What an integer time counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::contract) enum AvroTimeUnit {
    Millis,
    Micros,
    Nanos,
}

impl AvroSchema {
    /// Reads a schema. `references` are the texts of the schemas whose names it uses, in any order.
    pub fn parse(text: &str, references: &[String]) -> Result<Self> {
        let broken = |fault: apache_avro::Error| Error::invalid(format!("the Avro schema is faulty: {fault}"));
        let (schema, others) = match references {
            [] => (Schema::parse_str(text).map_err(broken)?, Vec::new()),
            references => Schema::parse_str_with_list(text, references).map_err(broken)?,
        };
        let mut walk = AvroWalk { nodes: vec![AvroNode::Pending], names: BTreeMap::new() };
        for other in &others {
            walk.place(other, None)?;
        }
        let root = walk.place(&schema, None)?;
        walk.nodes[0] = walk.nodes[root].clone();
        let nameless = walk.names.iter().find(|(_, place)| walk.nodes[**place] == AvroNode::Pending);
        if let Some((name, _)) = nameless {
            return Err(Error::invalid(format!("the Avro schema uses `{name}`, which nothing declares")));
        }
        Ok(Self { nodes: walk.nodes })
    }
}

/// A walk over a schema.
struct AvroWalk {
    nodes: Vec<AvroNode>,
    /// Where the type of each full name is, or will be.
    names: BTreeMap<String, usize>,
}

impl AvroWalk {
    /// Adds a type and says where it is.
    fn place(&mut self, schema: &Schema, namespace: NamespaceRef<'_>) -> Result<usize> {
        if self.nodes.len() >= NODES_MAX {
            return Err(Error::invalid(format!("the Avro schema has more than {NODES_MAX} types")));
        }
        if let Schema::Ref { name } = schema {
            return Ok(self.named(name.fullname(namespace)));
        }
        // A name that was used before it is declared has its place already.
        let place = match schema.name() {
            Some(name) => self.named(name.fullname(namespace)),
            None => self.add(AvroNode::Pending),
        };
        let node = match schema {
            Schema::Record(record) => self.record(record, namespace)?,
            Schema::Array(array) => AvroNode::Array(self.place(&array.items, namespace)?),
            Schema::Map(map) => AvroNode::Map(self.place(&map.types, namespace)?),
            Schema::Union(union) => {
                let places = union.variants().iter().map(|schema| self.place(schema, namespace));
                AvroNode::Union(places.collect::<Result<_>>()?)
            }
            plain => node(plain)?,
        };
        self.nodes[place] = node;
        Ok(place)
    }

    fn record(&mut self, record: &RecordSchema, namespace: NamespaceRef<'_>) -> Result<AvroNode> {
        let namespace = record.name.namespace().or(namespace);
        let fields = record.fields.iter().map(|field| {
            let key = format!("{}:", quoted(&field.name));
            Ok((key, self.place(&field.schema, namespace)?))
        });
        Ok(AvroNode::Record(fields.collect::<Result<_>>()?))
    }

    fn named(&mut self, name: String) -> usize {
        if let Some(place) = self.names.get(&name) {
            return *place;
        }
        let place = self.add(AvroNode::Pending);
        self.names.insert(name, place);
        place
    }

    fn add(&mut self, node: AvroNode) -> usize {
        self.nodes.push(node);
        self.nodes.len() - 1
    }
}

/// A type that holds no other.
fn node(schema: &Schema) -> Result<AvroNode> {
    Ok(match schema {
        Schema::Null => AvroNode::Null,
        Schema::Boolean => AvroNode::Boolean,
        Schema::Int => AvroNode::Int,
        Schema::Long => AvroNode::Long,
        Schema::Float => AvroNode::Float,
        Schema::Double => AvroNode::Double,
        Schema::Bytes => AvroNode::Bytes,
        Schema::String => AvroNode::Text,
        Schema::Fixed(fixed) => AvroNode::Fixed(fixed.size),
        Schema::Enum(symbols) => AvroNode::Enum(symbols.symbols.iter().map(|symbol| quoted(symbol)).collect()),
        Schema::Decimal(DecimalSchema { scale, .. }) if *scale > SCALE_MAX => {
            return Err(Error::invalid(format!(
                "the Avro schema has a decimal of scale {scale}; {SCALE_MAX} are allowed"
            )));
        }
        Schema::Decimal(DecimalSchema { scale, inner, .. }) => match inner {
            InnerDecimalSchema::Bytes => AvroNode::Decimal(None, *scale),
            InnerDecimalSchema::Fixed(fixed) => AvroNode::Decimal(Some(fixed.size), *scale),
        },
        Schema::BigDecimal => AvroNode::BigDecimal,
        Schema::Uuid(UuidSchema::String) => AvroNode::Text,
        Schema::Uuid(UuidSchema::Bytes) => AvroNode::Uuid(None),
        Schema::Uuid(UuidSchema::Fixed(fixed)) => AvroNode::Uuid(Some(fixed.size)),
        Schema::Date => AvroNode::Date,
        Schema::TimeMillis => AvroNode::Time(AvroTimeUnit::Millis),
        Schema::TimeMicros => AvroNode::Time(AvroTimeUnit::Micros),
        Schema::TimestampMillis => AvroNode::Timestamp(AvroTimeUnit::Millis),
        Schema::TimestampMicros => AvroNode::Timestamp(AvroTimeUnit::Micros),
        Schema::TimestampNanos => AvroNode::Timestamp(AvroTimeUnit::Nanos),
        Schema::LocalTimestampMillis => AvroNode::LocalTimestamp(AvroTimeUnit::Millis),
        Schema::LocalTimestampMicros => AvroNode::LocalTimestamp(AvroTimeUnit::Micros),
        Schema::LocalTimestampNanos => AvroNode::LocalTimestamp(AvroTimeUnit::Nanos),
        Schema::Duration(_) => AvroNode::Duration,
        Schema::Array(_) | Schema::Map(_) | Schema::Union(_) | Schema::Record(_) | Schema::Ref { .. } => {
            return Err(Error::internal("a type that holds others was taken for a plain one"));
        }
    })
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
