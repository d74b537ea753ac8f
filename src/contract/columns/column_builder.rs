//! The builder of a single Arrow column.
//!
//! Takes values row by row and produces an array. The buffer of eight-byte values is moved into the array without a
//! copy. Strings are built by a [`TextBuilder`].
//!
//! **Invariant:** the value of the current row follows the values of all kept rows. When the row is dropped, the
//! buffers are truncated to remove its value.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Float32Array, Float64Array, Int32Array, Int64Array, MapBuilder, MapFieldNames,
    StringArray, StringBuilder, TimestampMicrosecondArray,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, ScalarBuffer};
use arrow::datatypes::ArrowNativeType;

use super::padded_slice::PaddedSlice;
use super::text_builder::TextBuilder;
use crate::contract::ColumnKind;
use crate::contract::{DecodeOptions, Owner};
use crate::error::Result;

/// The number of bits in a word of a bit set.
const WORD: usize = 64;

/// Builds one column.
#[derive(Debug)]
pub(in crate::contract) enum ColumnBuilder {
    /// A column of numbers, booleans or times. The first vector contains each value as 64 bits, and the second contains
    /// the validity bits.
    Numbers(Vec<u64>, Vec<u64>),
    /// A column of strings or byte strings, and its validity bits.
    Bytes(TextBuilder, Vec<u64>),
    /// A placeholder for the map column, which is built by a `MapBuilder`.
    Map,
}

impl ColumnBuilder {
    /// Creates a builder for a column of `kind` with capacity for `rows` rows. If `plain` is true, strings are never
    /// dictionary-encoded, and [`ColumnBuilder::text`] can return the string of the current row.
    pub(in crate::contract) fn new(kind: ColumnKind, plain: bool, rows: usize) -> Self {
        let validity = Vec::with_capacity(rows.div_ceil(WORD));
        match kind {
            ColumnKind::Map => Self::Map,
            ColumnKind::Text if !plain => Self::Bytes(TextBuilder::new(rows), validity),
            ColumnKind::Text | ColumnKind::Bytes => Self::Bytes(TextBuilder::plain(rows), validity),
            _ => Self::Numbers(Vec::with_capacity(rows), validity),
        }
    }

    /// Allocates space for a total of `rows` rows.
    pub(in crate::contract) fn grow(&mut self, rows: usize) {
        let (Self::Numbers(_, validity) | Self::Bytes(_, validity)) = self else { return };
        validity.resize(rows.div_ceil(WORD), 0);
        if let Self::Numbers(values, _) = self {
            values.resize(rows, 0);
        }
    }

    /// Writes a number, boolean or time, given by its bit pattern, to a row.
    #[inline]
    pub(in crate::contract) fn put(&mut self, row: usize, bits: u64) {
        let Self::Numbers(values, validity) = self else {
            return debug_assert!(false, "a number is written to a column of strings");
        };
        values[row] = bits;
        validity[row / WORD] |= 1 << (row % WORD);
    }

    /// Writes the current row's string.
    #[inline]
    pub(in crate::contract) fn put_text(&mut self, row: usize, text: PaddedSlice<'_>) {
        let Self::Bytes(texts, validity) = self else {
            return debug_assert!(false, "a string is written to a column of numbers");
        };
        texts.put(row, text);
        validity[row / WORD] |= 1 << (row % WORD);
    }

    /// Writes the current row's string if the column's dictionary already contains it. Returns true if the string was
    /// written.
    #[inline]
    pub(in crate::contract) fn put_known(&mut self, row: usize, text: PaddedSlice<'_>) -> bool {
        let Self::Bytes(texts, validity) = self else { return false };
        let known = texts.put_known(row, text);
        validity[row / WORD] |= u64::from(known) << (row % WORD);
        known
    }

    /// Sets the current row's value to null.
    pub(in crate::contract) fn clear(&mut self, row: usize) {
        let (Self::Numbers(_, validity) | Self::Bytes(_, validity)) = self else { return };
        if let Some(word) = validity.get_mut(row / WORD) {
            *word &= !(1 << (row % WORD));
        }
        if let Self::Bytes(texts, _) = self {
            texts.clear(row);
        }
    }

    /// Keeps the string of the current row. Does nothing in a column without strings. If this would make the column
    /// exceed its maximum size, returns a `Limited` error.
    #[inline]
    pub(in crate::contract) fn keep(&mut self) -> Result<()> {
        if let Self::Bytes(texts, _) = self { texts.keep() } else { Ok(()) }
    }

    /// Returns the bit pattern of the current row's number, or `None` if it is null.
    #[inline]
    pub(in crate::contract) fn number(&self, row: usize) -> Option<u64> {
        let Self::Numbers(values, validity) = self else { return None };
        is_set(validity, row).then(|| values[row])
    }

    /// Returns the current row's string, or `None` if it is null. Works only if the builder was created with `plain`
    /// set to true.
    #[inline]
    pub(in crate::contract) fn text(&self, row: usize) -> Option<&[u8]> {
        let Self::Bytes(texts, validity) = self else { return None };
        if is_set(validity, row) { texts.open() } else { None }
    }

    /// Converts the first `rows` rows to an array. Returns `None` for the map column.
    pub(in crate::contract) fn finish(self, kind: ColumnKind, rows: usize) -> Result<Option<ArrayRef>> {
        let nulls = |validity| {
            let nulls = NullBuffer::new(BooleanBuffer::new(Buffer::from_vec(validity), 0, rows));
            Some(nulls).filter(|nulls| nulls.null_count() > 0)
        };
        Ok(Some(match self {
            Self::Map => return Ok(None),
            Self::Numbers(values, validity) => numbers(kind, values, rows, nulls(validity)),
            Self::Bytes(texts, validity) => texts.finish(kind, rows, nulls(validity))?,
        }))
    }
}

fn is_set(bits: &[u64], row: usize) -> bool {
    bits.get(row / WORD).is_some_and(|word| word >> (row % WORD) & 1 == 1)
}

/// Converts the first `rows` values to an array of numbers, booleans, timestamps or dates.
fn numbers(kind: ColumnKind, mut values: Vec<u64>, rows: usize, nulls: Option<NullBuffer>) -> ArrayRef {
    values.truncate(rows);
    match kind {
        ColumnKind::Bool => {
            Arc::new(BooleanArray::new(BooleanBuffer::collect_bool(rows, |row| values[row] != 0), nulls))
        }
        // Each value is within the range of its type, which `Leaf::int` has checked.
        ColumnKind::Int32 => Arc::new(Int32Array::new(values.iter().map(|bits| *bits as i32).collect(), nulls)),
        ColumnKind::Date => Arc::new(Date32Array::new(values.iter().map(|bits| *bits as i32).collect(), nulls)),
        ColumnKind::Float32 => {
            let values = values.iter().map(|bits| f64::from_bits(*bits) as f32);
            Arc::new(Float32Array::new(values.collect(), nulls))
        }
        ColumnKind::Float64 => Arc::new(Float64Array::new(same_bits(values), nulls)),
        ColumnKind::Timestamp => {
            Arc::new(TimestampMicrosecondArray::new(same_bits(values), nulls).with_timezone("UTC"))
        }
        _ => Arc::new(Int64Array::new(same_bits(values), nulls)),
    }
}

/// Reinterprets eight-byte values as the array's native type without copying them.
fn same_bits<T: ArrowNativeType>(values: Vec<u64>) -> ScalarBuffer<T> {
    Buffer::from_vec(values).into()
}

/// Creates an Arrow map builder whose result has the type of the map column.
pub(in crate::contract) fn map_builder() -> MapBuilder<StringBuilder, StringBuilder> {
    let names = MapFieldNames { entry: "key_value".into(), key: "key".into(), value: "value".into() };
    MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new())
}

/// Returns the tenant column for rows that all belong to the sender's tenant.
pub(in crate::contract) fn tenant_column(options: &DecodeOptions, rows: usize) -> ArrayRef {
    match &options.owner {
        Owner::Tenant(tenant) => Arc::new(StringArray::from_iter_values(std::iter::repeat_n(tenant.as_str(), rows))),
        Owner::PerEvent => Arc::new(StringArray::new_null(rows)),
    }
}

/// Returns the receive time column, which has the same value in every row.
pub(in crate::contract) fn received_column(options: &DecodeOptions, rows: usize) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_value(options.received, rows).with_timezone("UTC"))
}
