//! Values of checked rows become Arrow columns.
//!
//! In: [`Cells`], one column's values as eight bytes each, and the [`Texts`] in which they stand. Out: arrays. Numbers of
//! eight bytes become their column as they are; bytes of texts are moved once, into a buffer of the right size.
//!
//! **Invariant:** a cell without a value is 0, which is an empty text.

use std::sync::Arc;

use arrow::array::{
    Array as _, ArrayRef, BinaryArray, BooleanArray, Date32Array, Float32Array, Float64Array, Int32Array, Int64Array,
    MapArray, MapBuilder, MapFieldNames, NullBufferBuilder, StringArray, StringBuilder, StructArray,
    TimestampMicrosecondArray, new_null_array,
};
use arrow::buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer};
use arrow::datatypes::{ArrowNativeType, Field};
use arrow::error::ArrowError;
use arrow::record_batch::{RecordBatch, RecordBatchOptions};

use super::table::{ColumnKind, Contract, entry_fields};
use super::{Owner, Stamp};
use crate::error::{Error, Result};

/// Bytes of a short text, which are moved at once whatever its length.
const SHORT: usize = 16;
/// Rows that share a word of a bit set.
const WORD: usize = 64;
/// Marks a text's cell whose place is not in the body.
const OWN: u64 = 1 << 63;
/// The largest place, and the largest length, that a cell can tell.
const PLACE_MAX: usize = u32::MAX as usize;
const LENGTH_MAX: usize = i32::MAX as usize;
/// An entry's value that is null.
const NO_TEXT: u64 = u64::MAX;

/// One column's values while rows are added.
#[derive(Debug, Default)]
pub(super) struct Cells {
    values: Vec<u64>,
    /// A bit for each row: whether it has a value.
    valued: Vec<u64>,
}

/// The map column while rows are added.
#[derive(Debug, Default)]
pub(super) struct Entries {
    keys: Vec<u64>,
    values: Vec<u64>,
    /// Where the entries of each kept row end.
    ends: Vec<usize>,
    /// Where those of the open row begin.
    begin: usize,
}

/// Where the bytes of texts stand.
#[derive(Debug, Clone, Copy)]
pub(super) struct Texts<'a> {
    pub(super) body: &'a [u8],
    pub(super) own: &'a [u8],
}

/// The cell of a text: where it stands, in the body or not. Texts beyond what a cell can tell are empty: no body has them.
pub(super) fn place(start: usize, length: usize, is_own: bool) -> u64 {
    if start > PLACE_MAX || length > LENGTH_MAX {
        return 0;
    }
    (length as u64) << 32 | start as u64 | if is_own { OWN } else { 0 }
}

fn length(cell: u64) -> usize {
    (cell >> 32) as usize & LENGTH_MAX
}

impl<'a> Texts<'a> {
    /// The bytes of a text's cell.
    pub(super) fn of(&self, cell: u64) -> &'a [u8] {
        let (source, start) = self.source(cell);
        &source[start..start + length(cell)]
    }

    fn source(&self, cell: u64) -> (&'a [u8], usize) {
        (if cell & OWN == 0 { self.body } else { self.own }, (cell & u64::from(u32::MAX)) as usize)
    }

    /// All texts in one buffer, and where each of them ends. `Limited` when a column cannot hold them.
    fn gather(&self, cells: &[u64]) -> Result<(OffsetBuffer<i32>, Buffer)> {
        let total: usize = cells.iter().map(|cell| length(*cell)).sum();
        if total > LENGTH_MAX {
            return Err(Error::limited("the texts of a column are more than 2 GiB: send smaller bodies"));
        }
        let mut bytes = vec![0; total + SHORT];
        let mut ends = Vec::with_capacity(cells.len() + 1);
        let mut end = 0;
        ends.push(0);
        for cell in cells {
            let (length, (source, start)) = (length(*cell), self.source(*cell));
            match source.get(start..start + SHORT) {
                Some(short) if length <= SHORT => bytes[end..end + SHORT].copy_from_slice(short),
                _ => bytes[end..end + length].copy_from_slice(&source[start..start + length]),
            }
            end += length;
            ends.push(end as i32);
        }
        bytes.truncate(total);
        Ok((OffsetBuffer::new(ends.into()), bytes.into()))
    }
}

impl Cells {
    /// Room for `rows`.
    pub(super) fn with_room(rows: usize) -> Self {
        Self { values: vec![0; rows], valued: vec![0; rows.div_ceil(WORD)] }
    }

    /// Room for `rows`, unless it is the map's.
    pub(super) fn grow(&mut self, rows: usize) {
        self.values.resize(rows, 0);
        self.valued.resize(rows.div_ceil(WORD), 0);
    }

    /// Writes a row's value.
    pub(super) fn set(&mut self, row: usize, bits: u64) {
        self.values[row] = bits;
        self.valued[row / WORD] |= 1 << (row % WORD);
    }

    /// Takes a row's value away, if there is one.
    pub(super) fn clear(&mut self, row: usize) {
        if let (Some(value), Some(word)) = (self.values.get_mut(row), self.valued.get_mut(row / WORD)) {
            *value = 0;
            *word &= !(1 << (row % WORD));
        }
    }

    /// A row's value.
    pub(super) fn get(&self, row: usize) -> Option<u64> {
        (self.valued.get(row / WORD)? >> (row % WORD) & 1 == 1).then(|| self.values[row])
    }

    /// The first `rows` values, and which of them are there.
    fn finish(mut self, rows: usize) -> (Vec<u64>, Option<NullBuffer>) {
        self.values.truncate(rows);
        let nulls = NullBuffer::new(BooleanBuffer::new(Buffer::from_vec(self.valued), 0, rows));
        (self.values, Some(nulls).filter(|nulls| nulls.null_count() > 0))
    }

    /// A column of numbers, truth values, times or days.
    pub(super) fn numbers(self, kind: ColumnKind, rows: usize) -> ArrayRef {
        let (values, nulls) = self.finish(rows);
        if is_empty(nulls.as_ref()) {
            return new_null_array(&kind.data_type(), rows);
        }
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

    /// A column of texts. They are checked to be UTF-8 as a whole, which is quicker than one by one.
    pub(super) fn texts(self, rows: usize, texts: &Texts<'_>) -> Result<ArrayRef> {
        let (cells, nulls) = self.finish(rows);
        if is_empty(nulls.as_ref()) {
            return Ok(new_null_array(&ColumnKind::Text.data_type(), rows));
        }
        let (offsets, bytes) = texts.gather(&cells)?;
        Ok(Arc::new(StringArray::try_new(offsets, bytes, nulls).map_err(unfit)?))
    }

    /// A column of bytes.
    pub(super) fn bytes(self, rows: usize, bytes: &Texts<'_>) -> Result<ArrayRef> {
        let (cells, nulls) = self.finish(rows);
        let (offsets, bytes) = bytes.gather(&cells)?;
        Ok(Arc::new(BinaryArray::try_new(offsets, bytes, nulls).map_err(unfit)?))
    }
}

impl Entries {
    /// How many entries the open row has.
    pub(super) fn open(&self) -> usize {
        self.keys.len() - self.begin
    }

    /// The place of a key among the open row's.
    pub(super) fn find(&self, key: u64, texts: &Texts<'_>) -> Option<usize> {
        let is_key = |known: &u64| length(*known) == length(key) && texts.of(*known) == texts.of(key);
        self.keys[self.begin..].iter().position(is_key).map(|entry| self.begin + entry)
    }

    /// Adds an entry to the open row.
    pub(super) fn push(&mut self, key: u64, value: Option<u64>) {
        self.keys.push(key);
        self.values.push(value.unwrap_or(NO_TEXT));
    }

    /// Gives an entry another value.
    pub(super) fn replace(&mut self, entry: usize, value: Option<u64>) {
        self.values[entry] = value.unwrap_or(NO_TEXT);
    }

    /// Keeps the open row, and opens the next.
    pub(super) fn keep(&mut self) {
        self.begin = self.keys.len();
        self.ends.push(self.begin);
    }

    /// Empties the open row.
    pub(super) fn drop(&mut self) {
        self.keys.truncate(self.begin);
        self.values.truncate(self.begin);
    }

    /// The map column. No entries is no map: protobuf cannot tell the two apart.
    pub(super) fn finish(mut self, texts: &Texts<'_>) -> Result<ArrayRef> {
        let nulls = self.values.contains(&NO_TEXT).then(|| {
            NullBuffer::new(BooleanBuffer::collect_bool(self.values.len(), |entry| self.values[entry] != NO_TEXT))
        });
        self.values.iter_mut().filter(|value| **value == NO_TEXT).for_each(|value| *value = 0);
        let column = |cells: &[u64], nulls| -> Result<ArrayRef> {
            let (offsets, bytes) = texts.gather(cells)?;
            Ok(Arc::new(StringArray::try_new(offsets, bytes, nulls).map_err(unfit)?))
        };
        let columns = vec![column(&self.keys, None)?, column(&self.values, nulls)?];
        let mut present = NullBufferBuilder::new(self.ends.len());
        let mut before = 0;
        let lengths = self.ends.iter().map(|end| end - std::mem::replace(&mut before, *end));
        let offsets = OffsetBuffer::from_lengths(lengths.inspect(|length| present.append(*length > 0)));
        let entries = StructArray::try_new(entry_fields(), columns, None).map_err(unfit)?;
        let field = Arc::new(Field::new("key_value", entries.data_type().clone(), false));
        Ok(Arc::new(MapArray::try_new(field, offsets, entries, present.finish(), false).map_err(unfit)?))
    }
}

/// Values of eight bytes as the column has them.
fn same_bits<T: ArrowNativeType>(values: Vec<u64>) -> ScalarBuffer<T> {
    Buffer::from_vec(values).into()
}

/// Whether there is no value at all.
fn is_empty(nulls: Option<&NullBuffer>) -> bool {
    nulls.is_some_and(|nulls| nulls.null_count() == nulls.len())
}

/// An error would be a fault of a decoder: it has looked at each value.
fn unfit(cause: ArrowError) -> Error {
    Error::internal("decoded values do not fit their column").with_source(cause)
}

/// A builder of the map column's exact type.
pub(super) fn map_builder() -> MapBuilder<StringBuilder, StringBuilder> {
    let names = MapFieldNames { entry: "key_value".into(), key: "key".into(), value: "value".into() };
    MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new())
}

/// The token's tenant in every row.
pub(super) fn tenant_column(stamp: &Stamp, rows: usize) -> ArrayRef {
    match &stamp.owner {
        Owner::Tenant(tenant) => Arc::new(StringArray::from_iter_values(std::iter::repeat_n(tenant.as_str(), rows))),
        Owner::PerEvent => Arc::new(StringArray::new_null(rows)),
    }
}

/// The receive time in every row.
pub(super) fn received_column(stamp: &Stamp, rows: usize) -> ArrayRef {
    Arc::new(TimestampMicrosecondArray::from_value(stamp.received, rows).with_timezone("UTC"))
}

/// Columns in stored order as one batch.
pub(super) fn batch_of(contract: &Contract, columns: Vec<ArrayRef>, rows: usize) -> Result<RecordBatch> {
    let options = RecordBatchOptions::new().with_row_count(Some(rows));
    RecordBatch::try_new_with_options(Arc::clone(contract.schema()), columns, &options)
        .map_err(|fault| Error::internal("decoded columns do not fit their contract").with_source(fault))
}
