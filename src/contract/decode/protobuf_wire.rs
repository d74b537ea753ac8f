//! Reads the values of the protobuf wire format.

use super::column_value::Text;
use crate::contract::schema::fields::FieldEncoding;

// The wire types. The low three bits of a field's key are its wire type.
pub(super) const VARINT: u8 = 0;
pub(super) const FIXED64: u8 = 1;
pub(super) const LENGTH: u8 = 2;
pub(super) const FIXED32: u8 = 5;

/// A decoded wire value.
#[derive(Debug, Clone, Copy)]
pub(super) enum Scalar<'a> {
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
    pub(super) fn zero(encoding: FieldEncoding) -> Self {
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
pub(super) fn is_utf8(bytes: &[u8]) -> bool {
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
pub(super) struct Input<'a>(pub(super) &'a [u8]);

impl<'a> Input<'a> {
    pub(super) fn scalar(&mut self, encoding: FieldEncoding) -> Option<Scalar<'a>> {
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
    pub(super) fn varint(&mut self) -> Option<u64> {
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
    pub(super) fn fixed<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*bytes)
    }

    #[inline]
    pub(super) fn length_delimited(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.varint()?).ok()?;
        let (bytes, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(bytes)
    }

    /// The fast path for a map entry that consists of a string key followed by a string value. Returns `None` for an
    /// entry of any other form.
    pub(super) fn texts(mut self) -> Option<(Text<'a>, Text<'a>)> {
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
    pub(super) fn skip(&mut self, wire_type: u8) -> Option<()> {
        match wire_type {
            VARINT => self.varint().map(drop),
            FIXED64 => self.fixed::<8>().map(drop),
            LENGTH => self.length_delimited().map(drop),
            FIXED32 => self.fixed::<4>().map(drop),
            _ => None,
        }
    }
}

pub(super) fn wire_type_of(encoding: FieldEncoding) -> u8 {
    match encoding {
        FieldEncoding::Fixed64 | FieldEncoding::Sfixed64 | FieldEncoding::Double => FIXED64,
        FieldEncoding::Fixed32 | FieldEncoding::Sfixed32 | FieldEncoding::Float => FIXED32,
        FieldEncoding::Text | FieldEncoding::Bytes | FieldEncoding::Time | FieldEncoding::Undeclared => LENGTH,
        _ => VARINT,
    }
}

pub(super) fn unsigned<'a>(value: u64) -> Scalar<'a> {
    i64::try_from(value).map_or(Scalar::TooLarge(value), Scalar::Int)
}

pub(super) fn unzigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}
