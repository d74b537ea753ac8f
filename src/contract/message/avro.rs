//! Avro schemas, compiled for decoding: names are resolved once, and field names are stored as JSON keys.
//!
//! In: the text of a schema, and of the schemas that it references. Out: an [`AvroSchema`], which decodes messages
//! (`avro_json.rs`), or one `Invalid` error. The `apache_avro` library validates the schema. Messages are decoded here,
//! in one pass and with limits, because the producers of a topic may be untrusted.

use std::collections::BTreeMap;

use apache_avro::Schema;
use apache_avro::schema::{DecimalSchema, InnerDecimalSchema, NamespaceRef, RecordSchema, UuidSchema};

use crate::error::{Error, Result};

/// The maximum number of types in one schema.
const NODES_MAX: usize = 10_000;
/// The maximum scale of a decimal: digits after the decimal point.
pub(in crate::contract) const SCALE_MAX: usize = 1_000;

/// A writer schema of messages.
#[derive(Debug)]
pub struct AvroSchema {
    /// All types. The first is the type of the message.
    pub(in crate::contract) nodes: Vec<AvroNode>,
}

/// One type. It refers to other types by their index in [`AvroSchema::nodes`].
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
    /// The size in bytes.
    Fixed(usize),
    /// The symbols, as quoted JSON strings.
    Enum(Vec<String>),
    Array(usize),
    Map(usize),
    Union(Vec<usize>),
    /// The JSON keys, including quotes and colon, and the types of their values.
    Record(Vec<(String, usize)>),
    /// The size in bytes, or `None` if each value has a length prefix; and the scale.
    Decimal(Option<usize>, usize),
    /// A decimal whose values contain their scale.
    BigDecimal,
    /// The size in bytes, or `None` if each value has a length prefix.
    Uuid(Option<usize>),
    Date,
    Time(AvroTimeUnit),
    Timestamp(AvroTimeUnit),
    LocalTimestamp(AvroTimeUnit),
    Duration,
    /// A name without a definition so far. Exists only while the schema is compiled.
    Pending,
}

/// The unit of an integer time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::contract) enum AvroTimeUnit {
    Millis,
    Micros,
    Nanos,
}

impl AvroSchema {
    /// Compiles a schema. `references` are the texts of the schemas that it references, in any order.
    pub fn parse(text: &str, references: &[String]) -> Result<Self> {
        let broken = |fault: apache_avro::Error| Error::invalid(format!("the Avro schema is invalid: {fault}"));
        let (schema, others) = match references {
            [] => (Schema::parse_str(text).map_err(broken)?, Vec::new()),
            references => Schema::parse_str_with_list(text, references).map_err(broken)?,
        };
        let mut compiler = AvroWalk { nodes: vec![AvroNode::Pending], names: BTreeMap::new() };
        for other in &others {
            compiler.add_type(other, None)?;
        }
        let root = compiler.add_type(&schema, None)?;
        compiler.nodes[0] = compiler.nodes[root].clone();
        let undefined = compiler.names.iter().find(|(_, index)| compiler.nodes[**index] == AvroNode::Pending);
        if let Some((name, _)) = undefined {
            return Err(Error::invalid(format!(
                "the Avro schema uses the undefined type `{name}`: define it or add its schema as a reference"
            )));
        }
        Ok(Self { nodes: compiler.nodes })
    }
}

/// Compiles a schema recursively.
struct AvroWalk {
    nodes: Vec<AvroNode>,
    /// The index of each full name's type, which may still be pending.
    names: BTreeMap<String, usize>,
}

impl AvroWalk {
    /// Adds a type and returns its index.
    fn add_type(&mut self, schema: &Schema, namespace: NamespaceRef<'_>) -> Result<usize> {
        if self.nodes.len() >= NODES_MAX {
            return Err(Error::invalid(format!("the Avro schema has more than {NODES_MAX} types: split it")));
        }
        if let Schema::Ref { name } = schema {
            return Ok(self.named(name.fullname(namespace)));
        }
        // A name that was used before its definition already has an index.
        let index = match schema.name() {
            Some(name) => self.named(name.fullname(namespace)),
            None => self.add(AvroNode::Pending),
        };
        let node = match schema {
            Schema::Record(record) => self.record(record, namespace)?,
            Schema::Array(array) => AvroNode::Array(self.add_type(&array.items, namespace)?),
            Schema::Map(map) => AvroNode::Map(self.add_type(&map.types, namespace)?),
            Schema::Union(union) => {
                let indexes = union.variants().iter().map(|schema| self.add_type(schema, namespace));
                AvroNode::Union(indexes.collect::<Result<_>>()?)
            }
            plain => node(plain)?,
        };
        self.nodes[index] = node;
        Ok(index)
    }

    fn record(&mut self, record: &RecordSchema, namespace: NamespaceRef<'_>) -> Result<AvroNode> {
        let namespace = record.name.namespace().or(namespace);
        let fields = record.fields.iter().map(|field| {
            let key = format!("{}:", quoted(&field.name));
            Ok((key, self.add_type(&field.schema, namespace)?))
        });
        Ok(AvroNode::Record(fields.collect::<Result<_>>()?))
    }

    fn named(&mut self, name: String) -> usize {
        if let Some(index) = self.names.get(&name) {
            return *index;
        }
        let index = self.add(AvroNode::Pending);
        self.names.insert(name, index);
        index
    }

    fn add(&mut self, node: AvroNode) -> usize {
        self.nodes.push(node);
        self.nodes.len() - 1
    }
}

/// A type without nested types.
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
                "the Avro schema has a decimal of scale {scale}; at most {SCALE_MAX} is allowed"
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
            return Err(Error::internal("a nested Avro type was treated as a plain type"));
        }
    })
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
