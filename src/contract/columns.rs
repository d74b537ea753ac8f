//! Values of checked rows become Arrow columns.
//!
//! In: values row by row, into the [`Cells`] of their column. Out: arrays. Numbers of eight bytes become their column as they
//! are. Bytes of texts are moved once, while they are at hand: a body is read from its front to its end.
//!
//! **Invariant:** what the open row has written stands behind all that is kept, and is cut off when the row is dropped.

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
/// Bytes for a text that room is made for at first.
const TEXT_BYTES: usize = 8;
/// Rows that share a word of a bit set.
const WORD: usize = 64;
/// The place of a value that is null.
const NOWHERE: u32 = u32::MAX;
/// The bytes of one column.
const BYTES_MAX: usize = i32::MAX as usize;

/// One column's values while rows are added.
#[derive(Debug)]
pub(super) enum Cells {
    /// As the bits of numbers, and a bit for each row: whether it has a value.
    Numbers(Vec<u64>, Vec<u64>),
    /// As bytes, and the same.
    Bytes(Texts, Vec<u64>),
    /// The map's are somewhere else.
    Map,
}

/// Texts, one behind the other.
#[derive(Debug)]
pub(super) struct Texts {
    bytes: Vec<u8>,
    /// Where each begins, and the last one ends; behind that stands what is not kept yet.
    ends: Vec<i32>,
}

/// The map column while rows are added.
#[derive(Debug)]
pub(super) struct Entries {
    keys: Texts,
    /// In the order in which they came: of a key that comes again the earlier value stays here, and nobody reads it.
    values: Texts,
    /// For each key the place of its value.
    places: Vec<u32>,
    /// Where the entries of each kept row end.
    ends: Vec<usize>,
    /// Where the keys and the values of the open row begin.
    begin: usize,
    values_begin: usize,
}

/// A text in the bytes around it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span<'a> {
    pub(super) source: &'a [u8],
    pub(super) start: usize,
    pub(super) length: usize,
}

impl<'a> Span<'a> {
    /// A text by itself.
    pub(super) fn alone(source: &'a [u8]) -> Self {
        Self { source, start: 0, length: source.len() }
    }

    #[inline]
    pub(super) fn bytes(&self) -> &'a [u8] {
        &self.source[self.start..self.start + self.length]
    }
}

impl Texts {
    fn with_room(texts: usize) -> Self {
        let mut ends = Vec::with_capacity(texts + 1);
        ends.push(0);
        Self { bytes: Vec::with_capacity(texts * TEXT_BYTES), ends }
    }

    /// Where the text that is not kept yet begins.
    #[inline]
    fn begin(&self) -> usize {
        self.ends.last().map_or(0, |end| *end as usize)
    }

    /// Writes the text that is not kept yet, in place of what it was.
    #[inline]
    fn put(&mut self, text: Span<'_>) {
        let begin = self.begin();
        self.bytes.truncate(begin);
        match text.source.get(text.start..text.start + SHORT).and_then(<[u8]>::first_chunk::<SHORT>) {
            Some(short) if text.length <= SHORT => {
                self.bytes.extend_from_slice(short);
                self.bytes.truncate(begin + text.length);
            }
            _ => self.bytes.extend_from_slice(text.bytes()),
        }
    }

    /// Takes it away.
    fn clear(&mut self) {
        self.bytes.truncate(self.begin());
    }

    /// Keeps it, or an empty one. `Limited` when there are more bytes than a column can hold.
    #[inline]
    fn keep(&mut self) -> Result<()> {
        let end = i32::try_from(self.bytes.len()).map_err(|_| {
            Error::limited(format!("the texts of a column are more than {BYTES_MAX} bytes: send smaller bodies"))
        })?;
        self.ends.push(end);
        Ok(())
    }

    /// How many are kept.
    fn count(&self) -> usize {
        self.ends.len() - 1
    }

    /// A text that is kept.
    #[inline]
    fn get(&self, place: usize) -> &[u8] {
        &self.bytes[self.ends[place] as usize..self.ends[place + 1] as usize]
    }

    /// Leaves the first `count` texts.
    fn truncate(&mut self, count: usize) {
        self.ends.truncate(count + 1);
        self.clear();
    }

    fn finish(self) -> (OffsetBuffer<i32>, Buffer) {
        (OffsetBuffer::new(self.ends.into()), Buffer::from_vec(self.bytes))
    }
}

impl Cells {
    /// A column of a kind, with room for `rows` set aside.
    pub(super) fn new(kind: ColumnKind, rows: usize) -> Self {
        let valued = Vec::with_capacity(rows.div_ceil(WORD));
        match kind {
            ColumnKind::Map => Self::Map,
            ColumnKind::Text | ColumnKind::Bytes => Self::Bytes(Texts::with_room(rows), valued),
            _ => Self::Numbers(Vec::with_capacity(rows), valued),
        }
    }

    /// Makes `rows` rows writable.
    pub(super) fn grow(&mut self, rows: usize) {
        let (Self::Numbers(_, valued) | Self::Bytes(_, valued)) = self else { return };
        valued.resize(rows.div_ceil(WORD), 0);
        if let Self::Numbers(values, _) = self {
            values.resize(rows, 0);
        }
    }

    /// Writes a row's number.
    #[inline]
    pub(super) fn put(&mut self, row: usize, bits: u64) {
        let Self::Numbers(values, valued) = self else { return debug_assert!(false, "a number is no text") };
        values[row] = bits;
        valued[row / WORD] |= 1 << (row % WORD);
    }

    /// Writes the open row's text.
    #[inline]
    pub(super) fn put_text(&mut self, row: usize, text: Span<'_>) {
        let Self::Bytes(texts, valued) = self else { return debug_assert!(false, "a text is no number") };
        texts.put(text);
        valued[row / WORD] |= 1 << (row % WORD);
    }

    /// Takes the open row's value away, if there is one.
    pub(super) fn clear(&mut self, row: usize) {
        let (Self::Numbers(_, valued) | Self::Bytes(_, valued)) = self else { return };
        if let Some(word) = valued.get_mut(row / WORD) {
            *word &= !(1 << (row % WORD));
        }
        if let Self::Bytes(texts, _) = self {
            texts.clear();
        }
    }

    /// Keeps the open row's text, if it may have one. `Limited` when there is no place for it.
    #[inline]
    pub(super) fn keep(&mut self) -> Result<()> {
        if let Self::Bytes(texts, _) = self { texts.keep() } else { Ok(()) }
    }

    /// The open row's number.
    #[inline]
    pub(super) fn number(&self, row: usize) -> Option<u64> {
        let Self::Numbers(values, valued) = self else { return None };
        is_set(valued, row).then(|| values[row])
    }

    /// The open row's text.
    #[inline]
    pub(super) fn text(&self, row: usize) -> Option<&[u8]> {
        let Self::Bytes(texts, valued) = self else { return None };
        is_set(valued, row).then(|| &texts.bytes[texts.begin()..])
    }

    /// The column, of which `rows` rows are kept; none when it is the map's. Texts are checked to be UTF-8 as a whole, which
    /// is quicker than one by one.
    pub(super) fn finish(self, kind: ColumnKind, rows: usize) -> Result<Option<ArrayRef>> {
        let nulls = |valued| {
            let nulls = NullBuffer::new(BooleanBuffer::new(Buffer::from_vec(valued), 0, rows));
            Some(nulls).filter(|nulls| nulls.null_count() > 0)
        };
        Ok(Some(match self {
            Self::Map => return Ok(None),
            Self::Numbers(values, valued) => numbers(kind, values, rows, nulls(valued)),
            Self::Bytes(texts, valued) => {
                let ((offsets, bytes), nulls) = (texts.finish(), nulls(valued));
                match kind {
                    ColumnKind::Text => Arc::new(StringArray::try_new(offsets, bytes, nulls).map_err(unfit)?),
                    _ => Arc::new(BinaryArray::try_new(offsets, bytes, nulls).map_err(unfit)?),
                }
            }
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

impl Entries {
    /// No entries, with room for those of `rows` rows set aside.
    pub(super) fn new(rows: usize) -> Self {
        Self {
            keys: Texts::with_room(rows),
            values: Texts::with_room(rows),
            places: Vec::with_capacity(rows),
            ends: Vec::with_capacity(rows),
            begin: 0,
            values_begin: 0,
        }
    }

    /// How many entries the open row has.
    pub(super) fn open(&self) -> usize {
        self.places.len() - self.begin
    }

    /// The place of a key among the open row's.
    pub(super) fn find(&self, key: &[u8]) -> Option<usize> {
        (self.begin..self.places.len()).find(|entry| self.keys.get(*entry) == key)
    }

    /// Adds an entry to the open row. `Limited` when there is no place for it.
    pub(super) fn push(&mut self, key: Span<'_>, value: Option<Span<'_>>) -> Result<()> {
        self.keys.put(key);
        self.keys.keep()?;
        let place = self.add(value)?;
        self.places.push(place);
        Ok(())
    }

    /// Gives an entry of the open row another value. `Limited` when there is no place for it.
    pub(super) fn replace(&mut self, entry: usize, value: Option<Span<'_>>) -> Result<()> {
        self.places[entry] = self.add(value)?;
        Ok(())
    }

    fn add(&mut self, value: Option<Span<'_>>) -> Result<u32> {
        let Some(value) = value else { return Ok(NOWHERE) };
        let place = self.values.count();
        self.values.put(value);
        self.values.keep()?;
        u32::try_from(place).map_err(|_| Error::limited("a body has too many entries: send smaller bodies"))
    }

    /// Keeps the open row, and opens the next.
    pub(super) fn keep(&mut self) {
        (self.begin, self.values_begin) = (self.places.len(), self.values.count());
        self.ends.push(self.begin);
    }

    /// Empties the open row.
    pub(super) fn drop(&mut self) {
        self.keys.truncate(self.begin);
        self.values.truncate(self.values_begin);
        self.places.truncate(self.begin);
    }

    /// The values in the order of their keys, and which of them are there.
    fn values(texts: Texts, places: &[u32]) -> Result<(Texts, Option<NullBuffer>)> {
        if places.len() == texts.count() && (0..).zip(places).all(|(entry, place)| entry == *place) {
            return Ok((texts, None));
        }
        let mut values = Texts::with_room(places.len());
        for place in places {
            if *place != NOWHERE {
                values.put(Span::alone(texts.get(*place as usize)));
            }
            values.keep()?;
        }
        let nulls = NullBuffer::new(BooleanBuffer::collect_bool(places.len(), |entry| places[entry] != NOWHERE));
        Ok((values, Some(nulls).filter(|nulls| nulls.null_count() > 0)))
    }

    /// The map column. No entries is no map: protobuf cannot tell the two apart.
    pub(super) fn finish(self) -> Result<ArrayRef> {
        if self.places.is_empty() {
            return Ok(new_null_array(&ColumnKind::Map.data_type(), self.ends.len()));
        }
        let column = |texts: Texts, nulls| -> Result<ArrayRef> {
            let (offsets, bytes) = texts.finish();
            Ok(Arc::new(StringArray::try_new(offsets, bytes, nulls).map_err(unfit)?))
        };
        let (values, nulls) = Self::values(self.values, &self.places)?;
        let columns = vec![column(self.keys, None)?, column(values, nulls)?];
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
