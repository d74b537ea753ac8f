//! The builder of a single Arrow column.
//!
//! Takes values row by row and produces an array. The buffer of eight-byte values is moved into the array without a
//! copy. Strings are built by a [`TextBuilder`].
//!
//! **Invariant:** the value of the current row follows the values of all kept rows. When the row is dropped, the
//! buffers are truncated to remove its value.

use std::sync::Arc;

use arrow::array::{
    ArrayRef, BooleanArray, Date32Array, Decimal128Array, Float32Array, Float64Array, Int32Array, Int64Array,
    ListArray, MapBuilder, MapFieldNames, StringArray, StringBuilder, TimestampMicrosecondArray,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, ScalarBuffer};
use arrow::datatypes::{ArrowNativeType, DataType};

use super::dictionary_ops::plain_column;
use super::list_offsets::ListOffsets;
use super::padded_slice::PaddedSlice;
use super::text_builder::{TextBuilder, column_error};
use crate::contract::ColumnKind;
use crate::contract::decode::column_value::{ColumnValue, Text};
use crate::contract::{DecodeOptions, Owner};
use crate::error::{Error, Result};

/// The number of bits in a word of a bit set.
const WORD: usize = 64;

/// Builds one column.
#[derive(Debug)]
pub(in crate::contract) enum ColumnBuilder {
    /// A column of numbers (except decimals), booleans or times. The first vector contains each value as 64 bits, and the second contains
    /// the validity bits.
    Numbers(Vec<u64>, Vec<u64>),
    /// A column of decimals. The first vector contains each unscaled value, and the second contains the validity bits.
    Decimals(Vec<i128>, Vec<u64>),
    /// A column of strings or byte strings, and its validity bits.
    Bytes(TextBuilder, Vec<u64>),
    /// A column of lists: the elements of all rows, the offsets of the rows, and their validity bits.
    Lists(Box<ColumnBuilder>, ListOffsets, Vec<u64>),
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
            ColumnKind::Text | ColumnKind::Uuid | ColumnKind::Json | ColumnKind::Bytes => {
                Self::Bytes(TextBuilder::plain(rows), validity)
            }
            ColumnKind::Decimal { .. } => Self::Decimals(Vec::with_capacity(rows), validity),
            ColumnKind::List(element) => {
                Self::Lists(Box::new(Self::new(*element, false, 0)), ListOffsets::new(rows), validity)
            }
            _ => Self::Numbers(Vec::with_capacity(rows), validity),
        }
    }

    /// Allocates space for a total of `rows` rows.
    pub(in crate::contract) fn grow(&mut self, rows: usize) {
        let Some(validity) = self.validity() else { return };
        validity.resize(rows.div_ceil(WORD), 0);
        match self {
            Self::Numbers(values, _) => values.resize(rows, 0),
            Self::Decimals(values, _) => values.resize(rows, 0),
            _ => {}
        }
    }

    fn validity(&mut self) -> Option<&mut Vec<u64>> {
        match self {
            Self::Numbers(_, validity)
            | Self::Decimals(_, validity)
            | Self::Bytes(_, validity)
            | Self::Lists(_, _, validity) => Some(validity),
            Self::Map => None,
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

    /// Writes a value that is not in a buffer of the batch builder. Writes nothing for a null.
    pub(in crate::contract) fn set(&mut self, row: usize, value: ColumnValue<'_>) {
        match value {
            ColumnValue::Null => {}
            ColumnValue::Bool(value) => self.put(row, u64::from(value)),
            ColumnValue::Int(value) => self.put(row, value.cast_unsigned()),
            ColumnValue::Float(value) => self.put(row, value.to_bits()),
            ColumnValue::Decimal(unscaled) => self.put_decimal(row, unscaled),
            ColumnValue::Uuid(uuid) => self.put_uuid(row, uuid),
            ColumnValue::Text(Text::Borrowed(text)) => self.put_text(row, PaddedSlice::unpadded(text.as_bytes())),
            ColumnValue::Text(Text::Validated(bytes)) | ColumnValue::Bytes(bytes) => {
                self.put_text(row, PaddedSlice::unpadded(bytes));
            }
            ColumnValue::Text(Text::Derived(..)) | ColumnValue::DerivedBytes(..) => {
                debug_assert!(false, "only the batch builder has the buffers of derived values");
            }
        }
    }

    /// Writes a decimal, given by its unscaled value, to a row.
    pub(in crate::contract) fn put_decimal(&mut self, row: usize, unscaled: i128) {
        let Self::Decimals(values, validity) = self else {
            return debug_assert!(false, "a decimal is written to a column of another kind");
        };
        values[row] = unscaled;
        validity[row / WORD] |= 1 << (row % WORD);
    }

    /// Writes a UUID in its canonical form to the current row.
    pub(in crate::contract) fn put_uuid(&mut self, row: usize, uuid: u128) {
        let mut text = uuid::Uuid::encode_buffer();
        let text = uuid::Uuid::from_u128(uuid).hyphenated().encode_lower(&mut text);
        self.put_text(row, PaddedSlice::unpadded(text.as_bytes()));
    }

    /// Starts the current row's list, which is empty until [`ColumnBuilder::push`] adds elements to it. Does nothing if
    /// the list was started before.
    pub(in crate::contract) fn start_list(&mut self, row: usize) {
        let Self::Lists(_, _, validity) = self else {
            return debug_assert!(false, "a list is written to a column of another kind");
        };
        validity[row / WORD] |= 1 << (row % WORD);
    }

    /// Adds an element to the current row's list. `write` writes its value at the given index of the builder of the
    /// elements, or nothing if the element is null.
    pub(in crate::contract) fn push(&mut self, write: impl FnOnce(&mut Self, usize)) -> Result<()> {
        match self {
            Self::Lists(elements, offsets, _) => {
                let (index, capacity) = offsets.next();
                if let Some(capacity) = capacity {
                    elements.grow(capacity);
                }
                write(elements, index);
                elements.keep()
            }
            _ => Err(Error::internal("an element is added to a column of another kind")),
        }
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
        let Some(validity) = self.validity() else { return };
        if let Some(word) = validity.get_mut(row / WORD) {
            *word &= !(1 << (row % WORD));
        }
        match self {
            Self::Bytes(texts, _) => texts.clear(row),
            Self::Lists(elements, offsets, _) => {
                let removed = offsets.clear();
                elements.truncate(removed.start, removed.end);
            }
            _ => {}
        }
    }

    /// Sets the values of all rows from `kept` to `rows` (exclusive) to null, and removes their strings.
    pub(in crate::contract) fn truncate(&mut self, kept: usize, rows: usize) {
        if let Some(validity) = self.validity() {
            (kept..rows).for_each(|row| validity[row / WORD] &= !(1 << (row % WORD)));
        }
        if let Self::Bytes(texts, _) = self {
            texts.truncate(kept);
        }
    }

    /// Keeps the string or the list of the current row. Does nothing in a column of another kind. If this would make the
    /// column exceed its maximum size, returns a `Limited` error.
    #[inline]
    pub(in crate::contract) fn keep(&mut self) -> Result<()> {
        match self {
            Self::Bytes(texts, _) => texts.keep(),
            Self::Lists(_, offsets, _) => offsets.keep(),
            _ => Ok(()),
        }
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
            Self::Decimals(values, validity) => decimals(kind, values, rows, nulls(validity))?,
            Self::Bytes(texts, validity) => texts.finish(kind, rows, nulls(validity))?,
            Self::Lists(elements, offsets, validity) => lists(kind, *elements, offsets, nulls(validity))?,
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

fn decimals(kind: ColumnKind, mut values: Vec<i128>, rows: usize, nulls: Option<NullBuffer>) -> Result<ArrayRef> {
    values.truncate(rows);
    let array = Decimal128Array::new(Buffer::from_vec(values).into(), nulls).with_data_type(kind.data_type());
    Ok(Arc::new(array))
}

/// Converts the kept rows to an array of lists, as they are stored.
fn lists(
    kind: ColumnKind,
    elements: ColumnBuilder,
    offsets: ListOffsets,
    nulls: Option<NullBuffer>,
) -> Result<ArrayRef> {
    let (ColumnKind::List(element), DataType::List(field)) = (kind, kind.stored_type()) else {
        return Err(Error::internal(format!("{kind} is not a list")));
    };
    let elements = elements.finish(*element, offsets.kept())?;
    let elements = elements.ok_or_else(|| Error::internal("a list cannot contain maps"))?;
    // The builder of the elements may have used a dictionary, but stored lists are plain.
    let elements = plain_column(&elements).map_err(column_error)?;
    Ok(Arc::new(ListArray::try_new(field, offsets.finish(), elements, nulls).map_err(column_error)?))
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
