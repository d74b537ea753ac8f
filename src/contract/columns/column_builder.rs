//! Values of checked rows become Arrow columns.
//!
//! In: values row by row, into the [`ColumnBuilder`] of their column. Out: arrays. Numbers of eight bytes become their column as they
//! are, texts as [`TextBuilder`] has them.
//!
//! **Invariant:** what the open row has written stands behind all that is kept, and is cut off when the row is dropped.

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

/// Rows that share a word of a bit set.
const WORD: usize = 64;

/// One column's values while rows are added.
#[derive(Debug)]
pub(in crate::contract) enum ColumnBuilder {
    /// As the bits of numbers, and a bit for each row: whether it has a value.
    Numbers(Vec<u64>, Vec<u64>),
    /// As bytes, and the same.
    Bytes(TextBuilder, Vec<u64>),
    /// The map's are somewhere else.
    Map,
}

impl ColumnBuilder {
    /// A column of a kind, with room for `rows` set aside. `plain` texts are no labels: they can be read before the row is
    /// kept.
    pub(in crate::contract) fn new(kind: ColumnKind, plain: bool, rows: usize) -> Self {
        let valued = Vec::with_capacity(rows.div_ceil(WORD));
        match kind {
            ColumnKind::Map => Self::Map,
            ColumnKind::Text if !plain => Self::Bytes(TextBuilder::new(rows), valued),
            ColumnKind::Text | ColumnKind::Bytes => Self::Bytes(TextBuilder::plain(rows), valued),
            _ => Self::Numbers(Vec::with_capacity(rows), valued),
        }
    }

    /// Makes `rows` rows writable.
    pub(in crate::contract) fn grow(&mut self, rows: usize) {
        let (Self::Numbers(_, valued) | Self::Bytes(_, valued)) = self else { return };
        valued.resize(rows.div_ceil(WORD), 0);
        if let Self::Numbers(values, _) = self {
            values.resize(rows, 0);
        }
    }

    /// Writes a row's number.
    #[inline]
    pub(in crate::contract) fn put(&mut self, row: usize, bits: u64) {
        let Self::Numbers(values, valued) = self else { return debug_assert!(false, "a number is no text") };
        values[row] = bits;
        valued[row / WORD] |= 1 << (row % WORD);
    }

    /// Writes the open row's text.
    #[inline]
    pub(in crate::contract) fn put_text(&mut self, row: usize, text: PaddedSlice<'_>) {
        let Self::Bytes(words, valued) = self else { return debug_assert!(false, "a text is no number") };
        words.put(row, text);
        valued[row / WORD] |= 1 << (row % WORD);
    }

    /// Writes the open row's text, if it is a label that is known. Whether it is.
    #[inline]
    pub(in crate::contract) fn put_known(&mut self, row: usize, text: PaddedSlice<'_>) -> bool {
        let Self::Bytes(words, valued) = self else { return false };
        let known = words.put_known(row, text);
        valued[row / WORD] |= u64::from(known) << (row % WORD);
        known
    }

    /// Takes the open row's value away, if there is one.
    pub(in crate::contract) fn clear(&mut self, row: usize) {
        let (Self::Numbers(_, valued) | Self::Bytes(_, valued)) = self else { return };
        if let Some(word) = valued.get_mut(row / WORD) {
            *word &= !(1 << (row % WORD));
        }
        if let Self::Bytes(words, _) = self {
            words.clear(row);
        }
    }

    /// Keeps the open row's text, if it may have one. `Limited` when there is no place for it.
    #[inline]
    pub(in crate::contract) fn keep(&mut self) -> Result<()> {
        if let Self::Bytes(words, _) = self { words.keep() } else { Ok(()) }
    }

    /// The open row's number.
    #[inline]
    pub(in crate::contract) fn number(&self, row: usize) -> Option<u64> {
        let Self::Numbers(values, valued) = self else { return None };
        is_set(valued, row).then(|| values[row])
    }

    /// The open row's text, in a column of plain ones.
    #[inline]
    pub(in crate::contract) fn text(&self, row: usize) -> Option<&[u8]> {
        let Self::Bytes(words, valued) = self else { return None };
        if is_set(valued, row) { words.open() } else { None }
    }

    /// The column, of which `rows` rows are kept; none when it is the map's.
    pub(in crate::contract) fn finish(self, kind: ColumnKind, rows: usize) -> Result<Option<ArrayRef>> {
        let nulls = |valued| {
            let nulls = NullBuffer::new(BooleanBuffer::new(Buffer::from_vec(valued), 0, rows));
            Some(nulls).filter(|nulls| nulls.null_count() > 0)
        };
        Ok(Some(match self {
            Self::Map => return Ok(None),
            Self::Numbers(values, valued) => numbers(kind, values, rows, nulls(valued)),
            Self::Bytes(words, valued) => words.finish(kind, rows, nulls(valued))?,
        }))
    }
}

fn is_set(bits: &[u64], row: usize) -> bool {
    bits.get(row / WORD).is_some_and(|word| word >> (row % WORD) & 1 == 1)
}

/// The first `rows` values as a column of numbers, truth values, times or days.
fn numbers(kind: ColumnKind, mut values: Vec<u64>, rows: usize, nulls: Option<NullBuffer>) -> ArrayRef {
    values.truncate(rows);
    match kind {
        ColumnKind::Bool => {
            Arc::new(BooleanArray::new(BooleanBuffer::collect_bool(rows, |row| values[row] != 0), nulls))
        }
        // Both were checked to fit by the leaf that made the value.
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

/// Values of eight bytes as the column has them.
fn same_bits<T: ArrowNativeType>(values: Vec<u64>) -> ScalarBuffer<T> {
    Buffer::from_vec(values).into()
}

/// An error would be a fault of a decoder: it has looked at each value.
pub(in crate::contract) fn unfit(cause: ArrowError) -> Error {
    Error::internal("decoded values do not fit their column").with_source(cause)
}

/// A builder of the map column's exact type.
pub(in crate::contract) fn map_builder() -> MapBuilder<StringBuilder, StringBuilder> {
    let names = MapFieldNames { entry: "key_value".into(), key: "key".into(), value: "value".into() };
    MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new())
}

/// The token's tenant in every row.
pub(in crate::contract) fn tenant_column(stamp: &Stamp, rows: usize) -> ArrayRef {
    match &stamp.owner {
        Owner::Tenant(tenant) => Arc::new(StringArray::from_iter_values(std::iter::repeat_n(tenant.as_str(), rows))),
        Owner::PerEvent => Arc::new(StringArray::new_null(rows)),
    }
}

/// The receive time in every row.
pub(in crate::contract) fn received_column(stamp: &Stamp, rows: usize) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_value(stamp.received, rows).with_timezone("UTC"))
}
