//! The oracle for the server's protobuf decoder. The oracle parses protobuf with `prost-reflect`.
//!
//! The oracle returns the expected outcome for a message, given a [`TableSpec`]. `prost-reflect` determines which
//! messages are valid, and the values of their fields. The server differs from `prost-reflect` in the following rules.
//! Comments in the code refer to these rules by number:
//!
//! 1. A table treats ignored fields as unknown. If a message contains several members of a oneof, the table stores all
//!    of them. For this rule, the message descriptor in [`TableSpec`] has neither ignored fields nor oneofs.
//! 2. A message that contains a group is invalid, even if the group is an unknown field. Ignored nested messages are
//!    not checked.
//! 3. A map entry must have the wire type of a message. `prost-reflect` does not check this.
//! 4. Each occurrence of a field must fit its column, even if a later occurrence replaces it.
//! 5. A timestamp is one value: the last occurrence is stored, and is not merged with earlier occurrences.
//! 6. In an integer time column, a zero on the wire is a time, but an absent field is not.
//! 7. `types` gives a field a type that protobuf does not have. The value of the field must be valid for this type.
//! 8. The map column stores all values as text. Numbers are formatted by Rust with `{:?}`, and a float is first
//!    converted to a double. Enum values are stored as their names.

use glasshouse::contract::{ColumnKind, DecodeOptions, Reason};
use prost::encoding::{DecodeContext, WireType, decode_key, skip_field};
use prost_reflect::{DynamicMessage, Kind, MessageDescriptor, Value};

use super::outcome::{Cell, EventBuilder, Outcome};
use super::table_spec::{Column, Field, Object, Role, TableSpec};
use super::{enum_name, kind_values, time, zero};

/// A field of a message as encoded bytes, with the field number and the wire type.
struct Record<'a> {
    number: u32,
    wire_type: WireType,
    bytes: &'a [u8],
}

/// The error for a message that is invalid according to the rules in the module documentation.
struct SyntaxError;

/// Returns the expected outcome of one message.
pub(super) fn message(spec: &TableSpec, options: &DecodeOptions, bytes: &[u8]) -> Outcome {
    let descriptor = spec.message.as_ref().expect("the table is declared by a message");
    let whole = match DynamicMessage::decode(descriptor.clone(), bytes) {
        Ok(whole) => whole,
        // `prost-reflect` stopped at the first error, a string that is not valid UTF-8. The server may report this
        // error or another error in the message.
        Err(error) if error.to_string().contains("UTF-8") => {
            use Reason::{InvalidUtf8, Malformed, NotFinite, OutOfRange, TimeOutOfRange, TooLarge, WrongType};
            let reasons = [InvalidUtf8, Malformed, TooLarge, OutOfRange, TimeOutOfRange, NotFinite, WrongType];
            return Outcome::OneOf(reasons.into());
        }
        Err(_) => return Outcome::Reject(Reason::Malformed),
    };
    let mut builder = EventBuilder::new(&spec.contract, options);
    if walk(spec, &mut builder, &spec.root, descriptor, bytes).is_err() {
        return Outcome::Reject(Reason::Malformed);
    }
    set_columns(spec, &spec.root, &whole, &mut builder);
    builder.finish(bytes.len())
}

/// Splits a message, which `prost-reflect` has accepted, into its fields.
fn records(mut bytes: &[u8]) -> Result<Vec<Record<'_>>, SyntaxError> {
    let mut records = Vec::new();
    while !bytes.is_empty() {
        let record = bytes;
        let (number, wire_type) = decode_key(&mut bytes).map_err(|_| SyntaxError)?;
        skip_field(wire_type, number, &mut bytes, DecodeContext::default()).map_err(|_| SyntaxError)?;
        if matches!(wire_type, WireType::StartGroup | WireType::EndGroup) {
            return Err(SyntaxError);
        }
        records.push(Record { number, wire_type, bytes: &record[..record.len() - bytes.len()] });
    }
    Ok(records)
}

/// Returns the encoded nested message that a record contains.
fn inside<'a>(record: &Record<'a>) -> Result<&'a [u8], SyntaxError> {
    let mut bytes = record.bytes;
    decode_key(&mut bytes).map_err(|_| SyntaxError)?;
    prost::encoding::decode_varint(&mut bytes).map_err(|_| SyntaxError)?;
    Ok(bytes)
}

/// Checks each record separately: whether it is allowed, and whether it fits its column (rules 2 to 6).
fn walk(
    spec: &TableSpec,
    builder: &mut EventBuilder<'_>,
    object: &Object,
    descriptor: &MessageDescriptor,
    bytes: &[u8],
) -> Result<(), SyntaxError> {
    for record in records(bytes)? {
        let known = object.fields.iter().find(|field| field.number == record.number);
        let Some(field) = known else { continue };
        match &field.role {
            Role::Ignored => {}
            Role::Object(inner) => {
                let field = descriptor.get_field(record.number).expect("the field was declared");
                let kind = field.kind();
                walk(
                    spec,
                    builder,
                    inner,
                    kind.as_message().expect("the field was declared as a message"),
                    inside(&record)?,
                )?;
            }
            Role::Map(..) if record.wire_type != WireType::LengthDelimited => return Err(SyntaxError),
            Role::Map(..) => {
                records(inside(&record)?)?;
                entry(builder, field, &single_record(descriptor, &record), descriptor);
            }
            Role::Column(column) => {
                if matches!(column.wire, super::table_spec::TIME) {
                    records(inside(&record)?)?;
                }
                let message = single_record(descriptor, &record);
                let value = message.get_field_by_number(record.number).expect("the field was declared").into_owned();
                let read = read(*column, &value, spec);
                // A later occurrence of the field can replace this value. `set_columns` therefore sets all columns
                // except times again, from the whole message.
                builder.set(column.index, read);
            }
        }
    }
    Ok(())
}

/// Returns a message that consists only of this record.
fn single_record(descriptor: &MessageDescriptor, record: &Record<'_>) -> DynamicMessage {
    DynamicMessage::decode(descriptor.clone(), record.bytes).expect("it was decoded with others")
}

/// Converts a protobuf value to the value of a column.
fn read(column: Column, value: &Value, spec: &TableSpec) -> Result<Cell, Reason> {
    let integer = match value {
        Value::Bool(value) => return Ok(Cell::Bool(*value)),
        Value::String(text) => return from_string(column, text, spec),
        Value::Bytes(bytes) => return from_bytes(column, bytes, spec),
        Value::F64(value) if !value.is_finite() => return Err(Reason::NotFinite),
        Value::F32(value) if !value.is_finite() => return Err(Reason::NotFinite),
        Value::F64(value) => return Ok(Cell::Double(value.to_bits())),
        Value::F32(value) => return Ok(Cell::Single(value.to_bits())),
        Value::EnumNumber(number) => return Ok(Cell::Text(enum_name(*number))),
        Value::Message(time) => return timestamp(time),
        Value::List(elements) => {
            let ColumnKind::List(element) = column.kind else { unreachable!("only lists are repeated") };
            let element = Column { kind: *element, ..column };
            return elements.iter().map(|value| read(element, value, spec)).collect::<Result<_, _>>().map(Cell::List);
        }
        Value::I32(value) => i128::from(*value),
        Value::U32(value) => i128::from(*value),
        Value::I64(value) => i128::from(*value),
        Value::U64(value) => i128::from(*value),
        Value::Map(_) => unreachable!("columns cannot have this type"),
    };
    if let ColumnKind::Decimal { precision, scale } = column.kind {
        return kind_values::decimal(&integer.to_string(), precision.into(), scale.into());
    }
    let integer = i64::try_from(integer).map_err(|_| Reason::OutOfRange)?;
    if column.kind == ColumnKind::Timestamp { time::from_integer(integer, spec.unit) } else { Ok(Cell::Int(integer)) }
}

fn from_string(column: Column, text: &str, spec: &TableSpec) -> Result<Cell, Reason> {
    match column.kind {
        ColumnKind::Text => Ok(Cell::Text(text.to_owned())),
        ColumnKind::Timestamp => time::from_text(text, spec.unit),
        ColumnKind::Date => time::day(text),
        kind => kind_values::from_text(kind, text).expect("no other kind can be declared for a string"),
    }
}

fn from_bytes(column: Column, bytes: &[u8], spec: &TableSpec) -> Result<Cell, Reason> {
    match column.kind {
        ColumnKind::Bytes => Ok(Cell::Bytes(bytes.to_vec())),
        ColumnKind::Uuid if bytes.len() != 16 => Err(Reason::WrongType),
        ColumnKind::Uuid => {
            let digits: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            from_string(column, &digits, spec)
        }
        _ => from_string(column, std::str::from_utf8(bytes).map_err(|_| Reason::InvalidUtf8)?, spec),
    }
}

/// Converts a protobuf timestamp to microseconds. Fractions of a microsecond are truncated.
fn timestamp(time: &DynamicMessage) -> Result<Cell, Reason> {
    let part = |name: &str| time.get_field_by_name(name).expect("the field was declared").into_owned();
    let (seconds, nanos) = (part("seconds"), part("nanos"));
    let (seconds, nanos) = (seconds.as_i64().unwrap_or_default(), nanos.as_i32().unwrap_or_default());
    let micros = i128::from(seconds) * 1_000_000 + i128::from(nanos / 1_000);
    let is_valid = (0..1_000_000_000).contains(&nanos);
    i64::try_from(micros).ok().filter(|_| is_valid).map(Cell::Int).ok_or(Reason::OutOfRange)
}

/// Sets every column from the whole message. An absent field without presence is zero.
fn set_columns(spec: &TableSpec, object: &Object, message: &DynamicMessage, builder: &mut EventBuilder<'_>) {
    for field in &object.fields {
        match &field.role {
            // A field with the number 0 is another name for a column, which only JSON events can use.
            _ if field.number == 0 => {}
            Role::Column(column) if column.kind == ColumnKind::Timestamp => {}
            Role::Column(column) => {
                let value = message.get_field_by_number(field.number).expect("the field was declared");
                let cell = &mut builder.cells[column.index];
                *cell = match cell {
                    None => column.is_implicit.then(|| zero(*column)),
                    // If an occurrence does not fit the column, its error has already been recorded.
                    Some(_) => Some(read(*column, &value, spec).unwrap_or(Cell::Null)),
                };
            }
            Role::Object(inner) if message.has_field_by_number(field.number) => {
                let value = message.get_field_by_number(field.number).expect("the field was declared");
                set_columns(spec, inner, value.as_message().expect("the field was declared as a message"), builder);
            }
            Role::Map(..) | Role::Object(_) | Role::Ignored => {}
        }
    }
}

/// Adds one entry to the value of the map column, with its key and value as text.
fn entry(builder: &mut EventBuilder<'_>, field: &Field, message: &DynamicMessage, descriptor: &MessageDescriptor) {
    let value = message.get_field_by_number(field.number).expect("the field was declared");
    let Some((key, value)) = value.as_map().and_then(|map| map.iter().next()) else {
        return debug_assert!(false, "a map entry is read as a map");
    };
    debug_assert!(matches!(descriptor.get_field(field.number).map(|field| field.kind()), Some(Kind::Message(_))));
    match (as_text(&key.clone().into()), as_text(value)) {
        (Ok(key), Ok(value)) => drop(builder.add_entry(key, Some(value), true)),
        (Err(reason), _) | (_, Err(reason)) => builder.fail(reason),
    }
}

fn as_text(value: &Value) -> Result<String, Reason> {
    Ok(match value {
        Value::Bool(value) => value.to_string(),
        Value::String(text) => text.clone(),
        Value::F64(value) if !value.is_finite() => return Err(Reason::NotFinite),
        Value::F32(value) if !value.is_finite() => return Err(Reason::NotFinite),
        Value::F64(value) => format!("{value:?}"),
        Value::F32(value) => format!("{:?}", f64::from(*value)),
        Value::EnumNumber(number) => enum_name(*number),
        Value::I32(value) => value.to_string(),
        Value::U32(value) => value.to_string(),
        Value::I64(value) => value.to_string(),
        Value::U64(value) => value.to_string(),
        Value::Bytes(_) | Value::Message(_) | Value::List(_) | Value::Map(_) => {
            unreachable!("map values cannot have this type")
        }
    })
}
