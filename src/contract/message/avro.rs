//! Compiles Avro schemas for decoding. Type names are resolved once, and field names are stored as JSON keys.
//!
//! The input is the text of a schema, and the texts of the schemas that it references. The result is an [`AvroSchema`],
//! which decodes messages (`avro_json.rs`), or an `Invalid` error. The `apache_avro` library is used only to validate
//! schemas. `avro_json.rs` decodes messages in a single pass and enforces limits, because the producers of a topic may
//! be untrusted.

use std::collections::BTreeMap;

use apache_avro::Schema;
use apache_avro::schema::{DecimalSchema, InnerDecimalSchema, NamespaceRef, RecordSchema, UuidSchema};

use super::debezium_types::{VARIABLE_SCALE_DECIMAL, with_logical_types};
use super::logical_values::{LogicalTimeUnit, SCALE_MAX};
use crate::error::{Error, Result};

/// The maximum number of types in one schema.
const NODES_MAX: usize = 10_000;

/// A compiled writer schema, which is the schema that the sender used to encode the messages.
#[derive(Debug)]
pub struct AvroSchema {
    /// All types. The first node is the type of the message.
    pub(in crate::contract) nodes: Vec<AvroNode>,
}

/// A type of the schema. A type refers to other types by their index in [`AvroSchema::nodes`].
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
    /// A `fixed` type with this number of bytes.
    Fixed(usize),
    /// An enum with these symbols. They are stored as JSON strings, including the quotes.
    Enum(Vec<String>),
    Array(usize),
    Map(usize),
    Union(Vec<usize>),
    /// A record. For each field, the vector contains the JSON key (including quotes and colon) and the index of the
    /// type.
    Record(Vec<(String, usize)>),
    /// A decimal. The first value is its size in bytes, and the second is its scale. If each value has a length prefix,
    /// the size is `None`.
    Decimal(Option<usize>, usize),
    /// A decimal whose scale is part of each value.
    BigDecimal,
    /// A decimal of Debezium, which is an int with the scale, followed by bytes with the unscaled value.
    VariableScaleDecimal,
    /// A UUID, encoded as a `fixed` of this size in bytes. If each value has a length prefix, the size is `None`.
    Uuid(Option<usize>),
    Date,
    Time(LogicalTimeUnit),
    Timestamp(LogicalTimeUnit),
    LocalTimestamp(LogicalTimeUnit),
    Duration,
    /// A named type whose definition has not been compiled yet. A compiled schema does not contain this variant.
    Pending,
}

impl AvroSchema {
    /// Compiles a schema. `references` contains, in any order, the texts of the schemas that `text` references.
    pub fn parse(text: &str, references: &[String]) -> Result<Self> {
        Self::compile(text, references, false)
    }

    /// Compiles a schema in which Debezium has named its logical types.
    pub fn parse_debezium(text: &str, references: &[String]) -> Result<Self> {
        let references: Vec<String> = references.iter().map(|text| with_logical_types(text)).collect();
        Self::compile(&with_logical_types(text), &references, true)
    }

    fn compile(text: &str, references: &[String], is_debezium: bool) -> Result<Self> {
        let invalid = |error: apache_avro::Error| Error::invalid(format!("the Avro schema is invalid: {error}"));
        let (schema, others) = match references {
            [] => (Schema::parse_str(text).map_err(invalid)?, Vec::new()),
            references => Schema::parse_str_with_list(text, references).map_err(invalid)?,
        };
        let mut compiler = AvroWalk { nodes: vec![AvroNode::Pending], names: BTreeMap::new(), is_debezium };
        for other in &others {
            compiler.add_type(other, None)?;
        }
        let root = compiler.add_type(&schema, None)?;
        compiler.nodes[0] = compiler.nodes[root].clone();
        let undefined = compiler.names.iter().find(|(_, index)| compiler.nodes[**index] == AvroNode::Pending);
        if let Some((name, _)) = undefined {
            return Err(Error::invalid(format!(
                "the Avro schema uses the undefined type `{name}`: define it, or add a reference to its schema"
            )));
        }
        Ok(Self { nodes: compiler.nodes })
    }
}

/// Compiles a schema recursively.
struct AvroWalk {
    nodes: Vec<AvroNode>,
    /// The index of each named type, by its full name. The node at this index may be an [`AvroNode::Pending`].
    names: BTreeMap<String, usize>,
    /// True if records of [`VARIABLE_SCALE_DECIMAL`] are decimals.
    is_debezium: bool,
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
        // If the schema has referred to a named type before its definition, the type already has an index.
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
        let is_decimal = record.name.fullname(namespace) == VARIABLE_SCALE_DECIMAL;
        if self.is_debezium && is_decimal && has_scale_and_value(record) {
            return Ok(AvroNode::VariableScaleDecimal);
        }
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

/// Returns true if a record has the fields of a decimal with its own scale.
fn has_scale_and_value(record: &RecordSchema) -> bool {
    let fields: Vec<_> = record.fields.iter().map(|field| (field.name.as_str(), &field.schema)).collect();
    matches!(fields[..], [("scale", Schema::Int), ("value", Schema::Bytes)])
}

/// Converts a type that contains no other types.
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
                "the Avro schema has a decimal with scale {scale}; at most {SCALE_MAX} is allowed"
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
        Schema::TimeMillis => AvroNode::Time(LogicalTimeUnit::Millis),
        Schema::TimeMicros => AvroNode::Time(LogicalTimeUnit::Micros),
        Schema::TimestampMillis => AvroNode::Timestamp(LogicalTimeUnit::Millis),
        Schema::TimestampMicros => AvroNode::Timestamp(LogicalTimeUnit::Micros),
        Schema::TimestampNanos => AvroNode::Timestamp(LogicalTimeUnit::Nanos),
        Schema::LocalTimestampMillis => AvroNode::LocalTimestamp(LogicalTimeUnit::Millis),
        Schema::LocalTimestampMicros => AvroNode::LocalTimestamp(LogicalTimeUnit::Micros),
        Schema::LocalTimestampNanos => AvroNode::LocalTimestamp(LogicalTimeUnit::Nanos),
        Schema::Duration(_) => AvroNode::Duration,
        Schema::Array(_) | Schema::Map(_) | Schema::Union(_) | Schema::Record(_) | Schema::Ref { .. } => {
            return Err(Error::internal("a nested Avro type was treated as a plain type"));
        }
    })
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
