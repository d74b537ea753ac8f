//! The decoder of protobuf events. In a body, each message is preceded by its length as a varint.
//!
//! The decoder reads the wire format directly into a [`BatchBuilder`], and finds columns in the contract's field tree.
//! The decoder follows the rules of proto3. Unknown fields are skipped, because a producer may be newer than the
//! server. If a field occurs several times, the last value wins. Several occurrences of a nested message are merged. A
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
use super::reject_reason::{Reason, RejectCause};
use crate::contract::ColumnKind;
use crate::contract::columns::batch_builder::BatchBuilder;
use crate::contract::schema::fields::{FastPath, Field, FieldEncoding, Leaf, Target};
use crate::contract::{Contract, DecodeOptions, Decoded};
use crate::error::{Error, Result};

// The wire types. The low three bits of a field's key are its wire type.
const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const LENGTH: u8 = 2;
const FIXED32: u8 = 5;

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
        let read = match value {
            Scalar::Int(value) => leaf.int(value),
            Scalar::TooLarge(_) => Err(Reason::OutOfRange),
            Scalar::Float(value) if !value.is_finite() => Err(Reason::NotFinite),
            Scalar::Float(value) => Ok(ColumnValue::Float(value)),
            Scalar::Bool(value) => leaf.bool(value),
            Scalar::Enum(names, number) => Ok(ColumnValue::Text(self.name(names, number))),
            Scalar::Bytes(bytes) if leaf.kind == ColumnKind::Bytes => Ok(ColumnValue::Bytes(bytes)),
            Scalar::Bytes(bytes) => match std::str::from_utf8(bytes) {
                Ok(text) => leaf.text(text, Text::Borrowed(text)),
                Err(_) => Err(Reason::InvalidUtf8),
            },
            Scalar::Time(bytes) => timestamp(field, Input(bytes))?,
        };
        match read {
            Ok(value) => self.builder.set(leaf.column, value),
            Err(reason) => self.reject_value(leaf, reason, value),
        }
        Ok(())
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

/// A decoded wire value.
#[derive(Debug, Clone, Copy)]
enum Scalar<'a> {
    Bool(bool),
    Int(i64),
    /// An unsigned integer that is too large for an `i64`.
    TooLarge(u64),
    Float(f64),
    Bytes(&'a [u8]),
    Enum(usize, i32),
    Time(&'a [u8]),
}

impl Scalar<'_> {
    fn zero(encoding: FieldEncoding) -> Self {
        match encoding {
            FieldEncoding::Bool => Self::Bool(false),
            FieldEncoding::Float | FieldEncoding::Double => Self::Float(0.0),
            FieldEncoding::Text | FieldEncoding::Bytes | FieldEncoding::Time | FieldEncoding::Undeclared => {
                Self::Bytes(&[])
            }
            FieldEncoding::Enum(names) => Self::Enum(names, 0),
            _ => Self::Int(0),
        }
    }
}

/// Returns true if the bytes are valid UTF-8. Most strings are short and ASCII. For these, this check is much faster
/// than the standard library's.
#[inline]
fn is_utf8(bytes: &[u8]) -> bool {
    const TOPS: u64 = 0x8080_8080_8080_8080;
    let mut seen = 0;
    let mut rest = bytes;
    while let Some((chunk, tail)) = rest.split_first_chunk::<8>() {
        seen |= u64::from_ne_bytes(*chunk);
        rest = tail;
    }
    match bytes.last_chunk::<8>() {
        Some(last) => seen |= u64::from_ne_bytes(*last),
        None => seen |= rest.iter().fold(0, |seen, byte| seen | u64::from(*byte)),
    }
    seen & TOPS == 0 || std::str::from_utf8(bytes).is_ok()
}

/// The remaining bytes of a message. A method that reads a value returns `None` if the value is incomplete.
#[derive(Clone, Copy)]
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn scalar(&mut self, encoding: FieldEncoding) -> Option<Scalar<'a>> {
        Some(match encoding {
            FieldEncoding::Uint64 => unsigned(self.varint()?),
            FieldEncoding::Int64 => Scalar::Int(self.varint()? as i64),
            // A 32-bit value is the lower 32 bits of its varint. The upper 32 bits are ignored, as proto3 requires.
            FieldEncoding::Uint32 => Scalar::Int(i64::from(self.varint()? as u32)),
            FieldEncoding::Int32 => Scalar::Int(i64::from(self.varint()? as i32)),
            FieldEncoding::Sint32 => Scalar::Int(i64::from(unzigzag(u64::from(self.varint()? as u32)) as i32)),
            FieldEncoding::Sint64 => Scalar::Int(unzigzag(self.varint()?)),
            FieldEncoding::Bool => Scalar::Bool(self.varint()? != 0),
            FieldEncoding::Enum(names) => Scalar::Enum(names, self.varint()? as i32),
            FieldEncoding::Double => Scalar::Float(f64::from_le_bytes(self.fixed()?)),
            FieldEncoding::Float => Scalar::Float(f64::from(f32::from_le_bytes(self.fixed()?))),
            FieldEncoding::Fixed64 => unsigned(u64::from_le_bytes(self.fixed()?)),
            FieldEncoding::Sfixed64 => Scalar::Int(i64::from_le_bytes(self.fixed()?)),
            FieldEncoding::Fixed32 => Scalar::Int(i64::from(u32::from_le_bytes(self.fixed()?))),
            FieldEncoding::Sfixed32 => Scalar::Int(i64::from(i32::from_le_bytes(self.fixed()?))),
            FieldEncoding::Text | FieldEncoding::Bytes | FieldEncoding::Undeclared => {
                Scalar::Bytes(self.length_delimited()?)
            }
            FieldEncoding::Time => Scalar::Time(self.length_delimited()?),
        })
    }

    #[inline]
    fn varint(&mut self) -> Option<u64> {
        let (first, rest) = self.0.split_first()?;
        if *first < 0x80 {
            self.0 = rest;
            return Some(u64::from(*first));
        }
        let mut value = 0;
        for (index, byte) in self.0.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f) << (7 * index);
            if *byte < 0x80 {
                self.0 = &self.0[index + 1..];
                // Nine bytes contain 63 bits, so the tenth byte may contain only the highest bit.
                return (index < 9 || *byte <= 1).then_some(value);
            }
        }
        None
    }

    #[inline]
    fn fixed<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*bytes)
    }

    #[inline]
    fn length_delimited(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.varint()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    /// The fast path for a map entry that consists of a string key followed by a string value. Returns `None` for an
    /// entry of any other form.
    fn texts(mut self) -> Option<(Text<'a>, Text<'a>)> {
        let mut text = |tag: u8| {
            if self.fixed::<1>()? != [tag] {
                return None;
            }
            self.length_delimited().filter(|bytes| is_utf8(bytes)).map(Text::Validated)
        };
        let entry = (text(1 << 3 | LENGTH)?, text(2 << 3 | LENGTH)?);
        self.0.is_empty().then_some(entry)
    }

    /// Skips a value. Returns `None` if the value is truncated or if it is a group.
    fn skip(&mut self, wire_type: u8) -> Option<()> {
        match wire_type {
            VARINT => self.varint().map(drop),
            FIXED64 => self.fixed::<8>().map(drop),
            LENGTH => self.length_delimited().map(drop),
            FIXED32 => self.fixed::<4>().map(drop),
            _ => None,
        }
    }
}

fn nested<'a>(field: &Field, wire_type: u8, input: &mut Input<'a>) -> Result<Input<'a>, SyntaxError> {
    check_type(field, FieldEncoding::Bytes, wire_type)?;
    input.length_delimited().map(Input).ok_or_else(|| truncated(&field.name))
}

fn check_type(field: &Field, encoding: FieldEncoding, wire_type: u8) -> Result<(), SyntaxError> {
    let expected = match encoding {
        FieldEncoding::Fixed64 | FieldEncoding::Sfixed64 | FieldEncoding::Double => FIXED64,
        FieldEncoding::Fixed32 | FieldEncoding::Sfixed32 | FieldEncoding::Float => FIXED32,
        FieldEncoding::Text | FieldEncoding::Bytes | FieldEncoding::Time | FieldEncoding::Undeclared => LENGTH,
        _ => VARINT,
    };
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

fn unsigned<'a>(value: u64) -> Scalar<'a> {
    i64::try_from(value).map_or(Scalar::TooLarge(value), Scalar::Int)
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
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
