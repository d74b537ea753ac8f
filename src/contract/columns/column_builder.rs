//! Builders of single Arrow columns.
//!
//! In: values, row by row. Out: an array. Eight-byte numbers become the array's buffer without a copy; texts are built by a
//! [`TextBuilder`].
//!
//! **Invariant:** values of the open row come after all kept values, and are truncated when the row is dropped.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Float32Array, Float64Array, Int32Array, Int64Array, MapBuilder, MapFieldNames,
    StringArray, StringBuilder, TimestampMicrosecondArray,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, ScalarBuffer};
use arrow::datatypes::ArrowNativeType;
use arrow::error::ArrowError;

use super::padded_slice::PaddedSlice;
use super::text_builder::TextBuilder;
use crate::contract::schema::table::ColumnKind;
use crate::contract::{Owner, Stamp};
use crate::error::{Error, Result};

/// Bits in one word of a bit set.
const WORD: usize = 64;

/// The builder of one column.
#[derive(Debug)]
pub(in crate::contract) enum ColumnBuilder {
    /// The bits of each row's number, and a validity bit per row.
    Numbers(Vec<u64>, Vec<u64>),
    /// Texts or byte strings, and a validity bit per row.
    Bytes(TextBuilder, Vec<u64>),
    /// The map column, which `MapBuilder` builds.
    Map,
}

impl ColumnBuilder {
    /// A builder of a column of `kind`, with capacity for `rows` rows. `plain` texts are never dictionary-encoded, so
    /// that they can be read back before the row is kept.
    pub(in crate::contract) fn new(kind: ColumnKind, plain: bool, rows: usize) -> Self {
        let validity = Vec::with_capacity(rows.div_ceil(WORD));
        match kind {
            ColumnKind::Map => Self::Map,
            ColumnKind::Text if !plain => Self::Bytes(TextBuilder::new(rows), validity),
            ColumnKind::Text | ColumnKind::Bytes => Self::Bytes(TextBuilder::plain(rows), validity),
            _ => Self::Numbers(Vec::with_capacity(rows), validity),
        }
    }

    /// Grows the column to `rows` writable rows.
    pub(in crate::contract) fn grow(&mut self, rows: usize) {
        let (Self::Numbers(_, validity) | Self::Bytes(_, validity)) = self else { return };
        validity.resize(rows.div_ceil(WORD), 0);
        if let Self::Numbers(values, _) = self {
            values.resize(rows, 0);
        }
    }

    /// Writes a row's number.
    #[inline]
    pub(in crate::contract) fn put(&mut self, row: usize, bits: u64) {
        let Self::Numbers(values, validity) = self else {
            return debug_assert!(false, "the column holds texts, not numbers");
        };
        values[row] = bits;
        validity[row / WORD] |= 1 << (row % WORD);
    }

    /// Writes the open row's text.
    #[inline]
    pub(in crate::contract) fn put_text(&mut self, row: usize, text: PaddedSlice<'_>) {
        let Self::Bytes(texts, validity) = self else {
            return debug_assert!(false, "the column holds numbers, not texts");
        };
        texts.put(row, text);
        validity[row / WORD] |= 1 << (row % WORD);
    }

    /// Writes the open row's text if the column's dictionary contains it. Returns whether it does.
    #[inline]
    pub(in crate::contract) fn put_known(&mut self, row: usize, text: PaddedSlice<'_>) -> bool {
        let Self::Bytes(texts, validity) = self else { return false };
        let known = texts.put_known(row, text);
        validity[row / WORD] |= u64::from(known) << (row % WORD);
        known
    }

    /// Sets the open row's value to null.
    pub(in crate::contract) fn clear(&mut self, row: usize) {
        let (Self::Numbers(_, validity) | Self::Bytes(_, validity)) = self else { return };
        if let Some(word) = validity.get_mut(row / WORD) {
            *word &= !(1 << (row % WORD));
        }
        if let Self::Bytes(texts, _) = self {
            texts.clear(row);
        }
    }

    /// Keeps the open row's text, if this is a text column. `Limited` if the column would exceed its maximum size.
    #[inline]
    pub(in crate::contract) fn keep(&mut self) -> Result<()> {
        if let Self::Bytes(texts, _) = self { texts.keep() } else { Ok(()) }
    }

    /// The open row's number.
    #[inline]
    pub(in crate::contract) fn number(&self, row: usize) -> Option<u64> {
        let Self::Numbers(values, validity) = self else { return None };
        is_set(validity, row).then(|| values[row])
    }

    /// The open row's text, in a column of plain texts.
    #[inline]
    pub(in crate::contract) fn text(&self, row: usize) -> Option<&[u8]> {
        let Self::Bytes(texts, validity) = self else { return None };
        if is_set(validity, row) { texts.open() } else { None }
    }

    /// The array of the first `rows` rows. `None` for the map column.
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

/// The first `rows` values as an array of numbers, booleans, timestamps or dates.
fn numbers(kind: ColumnKind, mut values: Vec<u64>, rows: usize, nulls: Option<NullBuffer>) -> ArrayRef {
    values.truncate(rows);
    match kind {
        ColumnKind::Bool => {
            Arc::new(BooleanArray::new(BooleanBuffer::collect_bool(rows, |row| values[row] != 0), nulls))
        }
        // The leaf that made the value has checked its range.
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

/// Reinterprets eight-byte values as the array's native type, without a copy.
fn same_bits<T: ArrowNativeType>(values: Vec<u64>) -> ScalarBuffer<T> {
    Buffer::from_vec(values).into()
}

/// An Arrow error while a column is finished. It would be a bug of a decoder, which checks every value.
pub(in crate::contract) fn column_error(cause: ArrowError) -> Error {
    Error::internal("decoded values do not fit their column").with_source(cause)
}

/// A builder of the map column's exact type.
pub(in crate::contract) fn map_builder() -> MapBuilder<StringBuilder, StringBuilder> {
    let names = MapFieldNames { entry: "key_value".into(), key: "key".into(), value: "value".into() };
    MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new())
}

/// The tenant column when every row belongs to the sender's tenant.
pub(in crate::contract) fn tenant_column(stamp: &Stamp, rows: usize) -> ArrayRef {
    match &stamp.owner {
        Owner::Tenant(tenant) => Arc::new(StringArray::from_iter_values(std::iter::repeat_n(tenant.as_str(), rows))),
        Owner::PerEvent => Arc::new(StringArray::new_null(rows)),
    }
}

/// The receive time column: the same time in every row.
pub(in crate::contract) fn received_column(stamp: &Stamp, rows: usize) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_value(stamp.received, rows).with_timezone("UTC"))
}
