//! Converts a decoded value to the type of its column. The converted value borrows from the body where possible.
//!
//! The input is an integer, float, string or boolean that a decoder has read, and the [`Leaf`] of its column. The
//! result is a [`ColumnValue`] of the column's type, or the [`Reason`] for rejecting the event.

use arrow::datatypes::{Decimal128Type, DecimalType};

use super::json_text::is_json;
use super::reject_reason::Reason;
use super::{decimal, time};
use crate::config::DECIMAL_DIGITS_MAX;
use crate::contract::ColumnKind;
use crate::contract::schema::fields::{FieldEncoding, Leaf};

/// The value of a column in an event.
#[derive(Debug, Clone, Copy)]
pub(in crate::contract) enum ColumnValue<'a> {
    /// An explicit null.
    Null,
    Bool(bool),
    /// An integer. The value for a timestamp column is the number of microseconds since 1970, the value for a date column
    /// is the number of days, and the value for a time column is the number of microseconds since midnight.
    Int(i64),
    Float(f64),
    /// The unscaled value of a decimal.
    Decimal(i128),
    Uuid(u128),
    Text(Text<'a>),
    Bytes(&'a [u8]),
    /// Bytes that were decoded from base64. They are a range of the batch builder's `derived_bytes`.
    DerivedBytes(usize, usize),
}

/// A string in an event.
#[derive(Debug, Clone, Copy)]
pub(in crate::contract) enum Text<'a> {
    /// A string in the body or in the contract.
    Borrowed(&'a str),
    /// Bytes of the body that the decoder has validated. They are checked once more when the whole column is finished.
    Validated(&'a [u8]),
    /// A string that is not a slice of the body. It is a range of the batch builder's `derived` string.
    Derived(usize, usize),
}

/// The smallest positive float that is too large for an `i64`: 2^63.
const INT_END: f64 = 9_223_372_036_854_775_808.0;

impl Leaf {
    /// Converts an integer.
    pub(in crate::contract) fn int<'a>(&self, value: i64) -> Result<ColumnValue<'a>, Reason> {
        match self.kind {
            ColumnKind::Int64 => Ok(ColumnValue::Int(value)),
            ColumnKind::Int32 => i32::try_from(value).map(|_| ColumnValue::Int(value)).map_err(|_| Reason::OutOfRange),
            ColumnKind::Float64 | ColumnKind::Float32 => Ok(ColumnValue::Float(value as f64)),
            ColumnKind::Timestamp => time::from_epoch(value, self.unit).map(ColumnValue::Int).ok_or(Reason::OutOfRange),
            ColumnKind::Decimal { precision, scale } => {
                decimal::of_integer(value.into(), precision, scale).map(ColumnValue::Decimal).ok_or(Reason::OutOfRange)
            }
            _ => Err(Reason::WrongType),
        }
    }

    /// Converts an integer that is too large for an `i64`.
    pub(in crate::contract) fn large<'a>(&self, value: u64) -> Result<ColumnValue<'a>, Reason> {
        let ColumnKind::Decimal { precision, scale } = self.kind else { return Err(Reason::OutOfRange) };
        let unscaled = decimal::of_integer(value.into(), precision, scale);
        unscaled.map(ColumnValue::Decimal).ok_or(Reason::OutOfRange)
    }

    /// Converts a number that has a fraction or an exponent, or that is too large for an `i64`.
    pub(in crate::contract) fn float<'a>(&self, value: f64) -> Result<ColumnValue<'a>, Reason> {
        match self.kind {
            _ if value.is_nan() => Err(Reason::NotFinite),
            ColumnKind::Float64 if value.is_finite() => Ok(ColumnValue::Float(value)),
            ColumnKind::Float32 if value.abs() <= f64::from(f32::MAX) => Ok(ColumnValue::Float(value)),
            ColumnKind::Float64 | ColumnKind::Float32 => Err(Reason::OutOfRange),
            ColumnKind::Int64 | ColumnKind::Int32 if value.fract() != 0.0 => Err(Reason::WrongType),
            // -2^63 is in range, but is refused, because it may be the rounded value of a smaller integer, which is out
            // of range.
            ColumnKind::Int64 | ColumnKind::Int32 if value.abs() < INT_END => self.int(value as i64),
            ColumnKind::Int64 | ColumnKind::Int32 => Err(Reason::OutOfRange),
            ColumnKind::Timestamp => {
                time::from_epoch_float(value, self.unit).map(ColumnValue::Int).ok_or(Reason::OutOfRange)
            }
            _ => Err(Reason::WrongType),
        }
    }

    /// Converts a string. For a text column, returns `kept`, which refers to the same string as `text`.
    pub(in crate::contract) fn text<'a>(&self, text: &str, kept: Text<'a>) -> Result<ColumnValue<'a>, Reason> {
        match self.kind {
            ColumnKind::Text => Ok(ColumnValue::Text(kept)),
            ColumnKind::Uuid => uuid_from_text(text).map(ColumnValue::Uuid).ok_or(Reason::WrongType),
            ColumnKind::Json if is_json(text) => Ok(ColumnValue::Text(kept)),
            ColumnKind::Decimal { .. } => self.digits(text.as_bytes()),
            ColumnKind::Time => time::of_day_from_text(text).map(ColumnValue::Int).ok_or(Reason::WrongType),
            ColumnKind::Timestamp => time::from_text(text, self.unit).map(ColumnValue::Int).ok_or(Reason::WrongType),
            ColumnKind::Date => {
                time::day_from_text(text).map(|day| ColumnValue::Int(day.into())).ok_or(Reason::WrongType)
            }
            // Protobuf's JSON mapping writes 64-bit integers and non-finite floats as strings.
            ColumnKind::Int64 if self.is_wide() => text
                .parse()
                .map(ColumnValue::Int)
                .map_err(|_| if is_integer(text) { Reason::OutOfRange } else { Reason::WrongType }),
            ColumnKind::Float64 | ColumnKind::Float32
                if self.encoding != FieldEncoding::Undeclared && ["NaN", "Infinity", "-Infinity"].contains(&text) =>
            {
                Err(Reason::NotFinite)
            }
            _ => Err(Reason::WrongType),
        }
    }

    /// Converts a number that is given by its digits, which a decimal column stores exactly.
    pub(in crate::contract) fn digits<'a>(&self, number: &[u8]) -> Result<ColumnValue<'a>, Reason> {
        match self.kind {
            ColumnKind::Decimal { precision, scale } => {
                decimal::parse(number, precision, scale).map(ColumnValue::Decimal)
            }
            _ => Err(Reason::WrongType),
        }
    }

    /// Converts a byte string.
    pub(in crate::contract) fn bytes<'a>(&self, bytes: &'a [u8]) -> Result<ColumnValue<'a>, Reason> {
        match self.kind {
            ColumnKind::Bytes => Ok(ColumnValue::Bytes(bytes)),
            ColumnKind::Uuid if self.encoding != FieldEncoding::Text => {
                let bytes = bytes.try_into().map_err(|_| Reason::WrongType)?;
                Ok(ColumnValue::Uuid(u128::from_be_bytes(bytes)))
            }
            _ => match std::str::from_utf8(bytes) {
                Ok(text) => self.text(text, Text::Borrowed(text)),
                Err(_) => Err(Reason::InvalidUtf8),
            },
        }
    }

    /// Returns the leaf of the elements, if this is the leaf of a list.
    pub(in crate::contract) fn element(&self) -> Option<Self> {
        match self.kind {
            ColumnKind::List(element) => Some(Self { kind: *element, ..*self }),
            _ => None,
        }
    }

    /// Converts a boolean.
    pub(in crate::contract) fn bool<'a>(&self, value: bool) -> Result<ColumnValue<'a>, Reason> {
        match self.kind {
            ColumnKind::Bool => Ok(ColumnValue::Bool(value)),
            ColumnKind::Json => Ok(ColumnValue::Text(Text::Borrowed(if value { "true" } else { "false" }))),
            _ => Err(Reason::WrongType),
        }
    }

    fn is_wide(&self) -> bool {
        use FieldEncoding::{Fixed64, Int64, Sfixed64, Sint64, Uint64};
        matches!(self.encoding, Int64 | Uint64 | Sint64 | Fixed64 | Sfixed64)
    }
}

impl ColumnKind {
    /// Returns the text of a value in the form in which a query shows it: decimals with all digits of their scale, UUIDs
    /// in lower case, and times of day with microseconds. Values of other kinds are returned unchanged. Returns `None` if
    /// a column of this kind rejects the value.
    pub fn canonical_text(self, text: &str) -> Option<String> {
        match self {
            Self::Decimal { precision, scale } => {
                let unscaled = decimal::parse(text.as_bytes(), precision, scale).ok()?;
                Some(Decimal128Type::format_decimal(unscaled, precision, scale.cast_signed()))
            }
            Self::Int32 | Self::Int64 => {
                decimal::parse(text.as_bytes(), DECIMAL_DIGITS_MAX, 0).ok().map(|n| n.to_string())
            }
            Self::Uuid => uuid_from_text(text).map(|uuid| uuid::Uuid::from_u128(uuid).to_string()),
            Self::Time => {
                let micros = time::of_day_from_text(text)?;
                let (seconds, fraction) = (micros / 1_000_000, micros % 1_000_000);
                let (hours, minutes) = (seconds / 3_600, seconds / 60 % 60);
                Some(format!("{hours:02}:{minutes:02}:{:02}.{fraction:06}", seconds % 60))
            }
            _ => Some(text.to_owned()),
        }
    }
}

/// Parses a UUID with all of its hyphens or none.
fn uuid_from_text(text: &str) -> Option<u128> {
    // `try_parse` also accepts longer forms: braces and URNs.
    let is_plain = matches!(text.len(), 32 | 36);
    uuid::Uuid::try_parse(text).ok().filter(|_| is_plain).map(|uuid| uuid.as_u128())
}

fn is_integer(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit())
}
