//! The decoder of protobuf events. In a body, each message is preceded by its length as a varint.
//!
//! The decoder reads the wire format directly into a [`BatchBuilder`], and finds columns in the contract's field tree.
//! The decoder follows the rules of proto3. Unknown fields are skipped, because a producer may be newer than the
//! server. If a field occurs several times, the last value wins. Several occurrences of a nested message are merged, and
//! those of a repeated field form a list. A
//! message is malformed if it contains a group, a wrong wire type, or a length that exceeds the message. If the stream
//! is truncated, the incomplete last message is rejected.
//!
//! The decoder differs from a proto3 parser in three ways. Every occurrence of a field must be valid for its column,
//! even if a later one replaces it. Several occurrences of a timestamp are not merged. Instead, the last one replaces
//! the others. If a message contains several members of a oneof, all of them are kept.

use std::ops::Range;

use bytes::Bytes;

use super::accept_or_reject::EventCollector;
use super::column_value::{ColumnValue, Text};
use super::cursor::SyntaxError;
use super::protobuf_wire::{Input, LENGTH, Scalar, VARINT, is_utf8, wire_type_of};
use super::reject_reason::{Reason, RejectCause};
use crate::contract::columns::batch_builder::BatchBuilder;
use crate::contract::schema::fields::{FastPath, Field, FieldEncoding, Leaf, Target};
use crate::contract::{Contract, DecodeOptions, Decoded};
use crate::error::{Error, Result};

/// Decodes a whole body.
pub(in crate::contract) fn decode(contract: &Contract, body: &Bytes, options: &DecodeOptions) -> Result<Decoded> {
    let mut decoder = ProtobufDecoder::new(contract, body, options, 0)?;
    let mut at = 0;
    while at < body.len() {
        let mut rest = Input(&body[at..]);
        let Some(message) = rest.length_delimited() else {
            let detail = "the body ends inside a message: precede each message with its length as a varint";
            decoder.builder.open();
            decoder.collector.reject(
                &mut decoder.builder,
                at..body.len(),
                RejectCause::new(Reason::Malformed, detail),
            )?;
            break;
        };
        let end = body.len() - rest.0.len();
        decoder.event(end - message.len()..end)?;
        at = end;
    }
    decoder.collector.finish(decoder.builder)
}

/// Decodes messages that are given as ranges of the body. They have no length prefixes.
pub(in crate::contract) fn decode_messages(
    contract: &Contract,
    body: &Bytes,
    ranges: &[Range<usize>],
    options: &DecodeOptions,
) -> Result<Decoded> {
    let mut decoder = ProtobufDecoder::new(contract, body, options, ranges.len())?;
    for range in ranges {
        decoder.event(range.clone())?;
    }
    decoder.collector.finish(decoder.builder)
}

/// The decoder of one body.
struct ProtobufDecoder<'a> {
    contract: &'a Contract,
    body: &'a Bytes,
    collector: EventCollector<'a>,
    builder: BatchBuilder<'a>,
}

impl<'a> ProtobufDecoder<'a> {
    /// Creates a decoder. Returns an `Invalid` error if the table is declared without a `.proto` file.
    fn new(contract: &'a Contract, body: &'a Bytes, options: &'a DecodeOptions, rows: usize) -> Result<Self> {
        if contract.message.is_none() {
            let name = &contract.name;
            return Err(Error::invalid(format!(
                "table `{name}` is declared as a list of columns, not by a `.proto` file: send JSON or Arrow"
            )));
        }
        let (collector, builder) =
            (EventCollector::new(contract, body, options), BatchBuilder::new(contract, body, options, rows));
        Ok(Self { contract, body, collector, builder })
    }

    /// Decodes the event in `range` of the body.
    fn event(&mut self, range: Range<usize>) -> Result<()> {
        self.builder.open();
        let body: &'a [u8] = self.body;
        match self.message(0, Input(&body[range.clone()])) {
            Ok(()) => self.collector.accept_or_reject(&mut self.builder, range),
            Err(SyntaxError(what)) => {
                self.collector.reject(&mut self.builder, range, RejectCause::new(Reason::Malformed, what))
            }
        }
    }

    /// Reads the fields of a message. The recursion cannot be deeper than the contract's field tree.
    fn message(&mut self, node: usize, mut input: Input<'a>) -> Result<(), SyntaxError> {
        let contract = self.contract;
        let fields = &contract.tree.nodes[node];
        while !input.0.is_empty() {
            let key = input.varint().ok_or_else(|| truncated("a field's key"))?;
            if let Some((fast_path, field)) = fields.tagged(key) {
                self.fast_path(fast_path, field, &mut input)?;
                continue;
            }
            let (number, wire_type) = number_and_type(key)?;
            match fields.numbered(number) {
                None => input.skip(wire_type).ok_or_else(|| truncated("an unknown field"))?,
                Some(field) => self.field(field, wire_type, &mut input)?,
            }
        }
        Ok(())
    }

    /// Reads a field for which the contract has a fast path. Only fields of the most common types have one.
    fn fast_path(&mut self, fast_path: FastPath, field: &'a Field, input: &mut Input<'a>) -> Result<(), SyntaxError> {
        let truncated = || truncated(&field.name);
        let leaf = match &field.target {
            Target::Column(leaf) => leaf,
            _ => {
                let entry = Input(input.length_delimited().ok_or_else(truncated)?);
                return self.entry(field, FieldEncoding::Text, FieldEncoding::Text, entry);
            }
        };
        let bits = match fast_path {
            FastPath::Text => {
                let bytes = input.length_delimited().ok_or_else(truncated)?;
                if self.builder.put_known(leaf.column, bytes) {
                    return Ok(());
                }
                if is_utf8(bytes) {
                    self.builder.put_text(leaf.column, Text::Validated(bytes));
                } else {
                    self.reject_value(leaf, Reason::InvalidUtf8, Scalar::Bytes(bytes));
                }
                return Ok(());
            }
            FastPath::Double => u64::from_le_bytes(input.fixed().ok_or_else(truncated)?),
            FastPath::Uint32 => input.varint().ok_or_else(truncated)? & u64::from(u32::MAX),
            FastPath::Int64 | FastPath::Uint64 | FastPath::Texts => input.varint().ok_or_else(truncated)?,
        };
        if fast_path == FastPath::Double && !f64::from_bits(bits).is_finite() {
            self.reject_value(leaf, Reason::NotFinite, Scalar::Float(f64::from_bits(bits)));
        } else if fast_path == FastPath::Uint64 && i64::try_from(bits).is_err() {
            self.reject_value(leaf, Reason::OutOfRange, Scalar::TooLarge(bits));
        } else {
            self.builder.put(leaf.column, bits);
        }
        Ok(())
    }

    fn field(&mut self, field: &'a Field, wire_type: u8, input: &mut Input<'a>) -> Result<(), SyntaxError> {
        match &field.target {
            Target::Column(leaf) => {
                if let Some(element) = leaf.element() {
                    return self.list(field, &element, wire_type, input);
                }
                check_type(field, leaf.encoding, wire_type)?;
                self.column(field, leaf, input)
            }
            &Target::Node(node) => {
                let message = nested(field, wire_type, input)?;
                self.builder.enter(node);
                self.message(node, message)
            }
            &Target::Map(key, value) => {
                let entry = nested(field, wire_type, input)?;
                self.entry(field, key, value, entry)
            }
            Target::Ignored => input.skip(wire_type).ok_or_else(|| truncated(&field.name)),
        }
    }

    /// Reads the value of a column of any type.
    fn column(&mut self, field: &Field, leaf: &Leaf, input: &mut Input<'a>) -> Result<(), SyntaxError> {
        let value = input.scalar(leaf.encoding).ok_or_else(|| truncated(&field.name))?;
        match self.convert(field, leaf, value)? {
            Ok(value) => self.builder.set(leaf.column, value),
            Err(reason) => self.reject_value(leaf, reason, value),
        }
        Ok(())
    }

    /// Reads one occurrence of a repeated field, which contains one element, or several packed elements. Elements of all
    /// occurrences form a single list.
    fn list(&mut self, field: &Field, element: &Leaf, wire_type: u8, input: &mut Input<'a>) -> Result<(), SyntaxError> {
        self.builder.start_list(element.column);
        if wire_type == LENGTH && wire_type_of(element.encoding) != LENGTH {
            let mut packed = nested(field, wire_type, input)?;
            while !packed.0.is_empty() {
                self.element(field, element, &mut packed)?;
            }
            return Ok(());
        }
        check_type(field, element.encoding, wire_type)?;
        self.element(field, element, input)
    }

    fn element(&mut self, field: &Field, element: &Leaf, input: &mut Input<'a>) -> Result<(), SyntaxError> {
        let value = input.scalar(element.encoding).ok_or_else(|| truncated(&field.name))?;
        match self.convert(field, element, value)? {
            Ok(value) => self.builder.push(element.column, value),
            Err(reason) => self.reject_value(element, reason, value),
        }
        Ok(())
    }

    /// Converts a value to the type of its column.
    fn convert(
        &mut self,
        field: &Field,
        leaf: &Leaf,
        value: Scalar<'a>,
    ) -> Result<Result<ColumnValue<'a>, Reason>, SyntaxError> {
        Ok(match value {
            Scalar::Int(value) => leaf.int(value),
            Scalar::TooLarge(value) => leaf.large(value),
            Scalar::Float(value) if !value.is_finite() => Err(Reason::NotFinite),
            Scalar::Float(value) => Ok(ColumnValue::Float(value)),
            Scalar::Bool(value) => leaf.bool(value),
            Scalar::Enum(names, number) => Ok(ColumnValue::Text(self.name(names, number))),
            Scalar::Bytes(bytes) => leaf.bytes(bytes),
            Scalar::Time(bytes) => timestamp(field, Input(bytes))?,
        })
    }

    #[cold]
    fn reject_value(&mut self, leaf: &Leaf, reason: Reason, value: Scalar<'a>) {
        let reason = if leaf.column == self.contract.time { reason.of_time() } else { reason };
        let got = match value {
            Scalar::Int(value) => value.to_string(),
            Scalar::TooLarge(value) => value.to_string(),
            Scalar::Float(value) => value.to_string(),
            Scalar::Time(_) => "a google.protobuf.Timestamp".into(),
            _ => "bytes".into(),
        };
        self.builder.mark_rejected(|| RejectCause::value(reason, &self.contract.columns[leaf.column], got));
    }

    /// Reads an entry of the map column. An entry is a message whose field 1 is the key and whose field 2 is the value.
    /// An absent key or value has the default value of its type.
    fn entry(
        &mut self,
        field: &Field,
        key: FieldEncoding,
        value: FieldEncoding,
        entry: Input<'a>,
    ) -> Result<(), SyntaxError> {
        let texts = if (key, value) == (FieldEncoding::Text, FieldEncoding::Text) { entry.texts() } else { None };
        let (key, value) = match texts {
            Some(texts) => texts,
            None => {
                let [key, value] = self.parts(field, key, value, entry)?.map(|part| self.as_text(part));
                match (key, value) {
                    (Ok(key), Ok(value)) => (key, value),
                    (Err(reason), _) | (_, Err(reason)) => {
                        self.reject_entry(field, reason);
                        return Ok(());
                    }
                }
            }
        };
        self.builder.add_entry(key, Some(value), true);
        Ok(())
    }

    /// Reads the key and the value of an entry. Both may have any type, and they may occur in either order. Each string
    /// must be valid UTF-8, even if a later string replaces it.
    fn parts(
        &mut self,
        field: &Field,
        key: FieldEncoding,
        value: FieldEncoding,
        mut entry: Input<'a>,
    ) -> Result<[Scalar<'a>; 2], SyntaxError> {
        let mut parts = [Scalar::zero(key), Scalar::zero(value)];
        while !entry.0.is_empty() {
            let tag = entry.varint().ok_or_else(|| truncated(&field.name))?;
            let (number, wire_type) = number_and_type(tag)?;
            let (part, encoding) = match number {
                1 => (0, key),
                2 => (1, value),
                _ => {
                    entry.skip(wire_type).ok_or_else(|| truncated(&field.name))?;
                    continue;
                }
            };
            check_type(field, encoding, wire_type)?;
            if let Scalar::Bytes(replaced) = parts[part]
                && !is_utf8(replaced)
            {
                self.reject_entry(field, Reason::InvalidUtf8);
            }
            parts[part] = entry.scalar(encoding).ok_or_else(|| truncated(&field.name))?;
        }
        Ok(parts)
    }

    #[cold]
    fn reject_entry(&mut self, field: &Field, reason: Reason) {
        let detail = || format!("the key or value of an entry of map `{}` cannot be stored as text", field.name);
        self.builder.mark_rejected(|| RejectCause::new(reason, detail()));
    }

    fn as_text(&mut self, value: Scalar<'a>) -> Result<Text<'a>, Reason> {
        match value {
            Scalar::Bytes(bytes) => std::str::from_utf8(bytes).map(Text::Borrowed).map_err(|_| Reason::InvalidUtf8),
            Scalar::Bool(value) => Ok(Text::Borrowed(if value { "true" } else { "false" })),
            Scalar::Int(value) => Ok(self.builder.number(value)),
            Scalar::TooLarge(value) => Ok(self.builder.number(value)),
            Scalar::Float(value) if !value.is_finite() => Err(Reason::NotFinite),
            Scalar::Float(value) => Ok(self.builder.number(value)),
            Scalar::Enum(names, number) => Ok(self.name(names, number)),
            Scalar::Time(_) => Err(Reason::WrongType),
        }
    }

    /// Returns the name of an enum value. If the contract declares no name for the value, returns its number.
    fn name(&mut self, names: usize, number: i32) -> Text<'a> {
        match self.contract.tree.enums[names].name(number) {
            Some(name) => Text::Borrowed(name),
            None => self.builder.number(number),
        }
    }
}

fn nested<'a>(field: &Field, wire_type: u8, input: &mut Input<'a>) -> Result<Input<'a>, SyntaxError> {
    check_type(field, FieldEncoding::Bytes, wire_type)?;
    input.length_delimited().map(Input).ok_or_else(|| truncated(&field.name))
}

fn check_type(field: &Field, encoding: FieldEncoding, wire_type: u8) -> Result<(), SyntaxError> {
    let expected = wire_type_of(encoding);
    if wire_type == expected {
        return Ok(());
    }
    let (name, number) = (&field.name, field.number);
    Err(SyntaxError(format!("field {number} (`{name}`) has wire type {wire_type}, expected {expected}").into()))
}

#[cold]
fn truncated(what: &str) -> SyntaxError {
    SyntaxError(format!("the message is truncated or contains a group in `{what}`").into())
}

/// Splits a field's key into the field number and the wire type.
#[inline]
fn number_and_type(key: u64) -> Result<(u32, u8), SyntaxError> {
    let (number, wire_type) = ((key >> 3) as u32, (key & 7) as u8);
    if number == 0 || key > u64::from(u32::MAX) {
        return Err(SyntaxError("a field number is out of range".into()));
    }
    Ok((number, wire_type))
}

/// Reads a `google.protobuf.Timestamp`, which has the seconds as field 1 and the nanoseconds as field 2.
fn timestamp<'a>(field: &Field, mut input: Input<'a>) -> Result<Result<ColumnValue<'a>, Reason>, SyntaxError> {
    let truncated = || truncated(&field.name);
    let (mut seconds, mut nanos) = (0, 0);
    while !input.0.is_empty() {
        let (number, wire_type) = number_and_type(input.varint().ok_or_else(truncated)?)?;
        if number > 2 {
            input.skip(wire_type).ok_or_else(truncated)?;
            continue;
        }
        if wire_type != VARINT {
            let name = &field.name;
            let what = format!("field {number} of the timestamp `{name}` has wire type {wire_type}, expected {VARINT}");
            return Err(SyntaxError(what.into()));
        }
        let value = input.varint().ok_or_else(truncated)?;
        if number == 1 { seconds = value as i64 } else { nanos = i64::from(value as i32) }
    }
    let micros = seconds.checked_mul(1_000_000).and_then(|micros| micros.checked_add(nanos / 1_000));
    let in_second = (0..1_000_000_000).contains(&nanos);
    Ok(micros.filter(|_| in_second).map(ColumnValue::Int).ok_or(Reason::OutOfRange))
}
