//! The builder of a text column. The builder starts with a dictionary, and switches to plain strings when there are too
//! many distinct strings.
//!
//! Takes one string per row and produces an array. In a dictionary column, each row stores only the index of its
//! string. A plain string is copied once, while it is still in the processor's cache.
//!
//! **Invariant:** the current string, which belongs to the row that is being written, follows all kept strings. It can
//! therefore be removed by truncating the buffer.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, StringArray};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer};
use arrow::error::ArrowError;

use super::dictionary::DictionaryBuilder;
use super::padded_slice::PaddedSlice;
use crate::contract::ColumnKind;
use crate::error::{Error, Result};

/// A column remains a dictionary up to this number of distinct strings, even if it has few rows.
const DISTINCT_MIN: usize = 128;
/// With more distinct strings, a column remains a dictionary only if each string occurs at least this many times on
/// average.
const REPETITIONS_MIN: usize = 4;
/// The initial capacity per string, in bytes.
const TEXT_BYTES: usize = 8;
/// The maximum size of one column, in bytes.
const BYTES_MAX: usize = i32::MAX as usize;
/// Marks a null in a list of positions.
pub(in crate::contract) const NULL_POSITION: u32 = u32::MAX;
/// The dictionary index of a row without a string.
const NO_INDEX: u16 = u16::MAX;

/// Builds a text column.
#[derive(Debug)]
pub(in crate::contract) enum TextBuilder {
    /// The distinct strings, and the index of each row's string.
    Dictionary(DictionaryBuilder, Vec<u16>),
    /// The strings of all rows, in row order.
    Plain(PlainTexts),
}

/// Strings that are stored one after the other in a single buffer.
#[derive(Debug)]
pub(in crate::contract) struct PlainTexts {
    bytes: Vec<u8>,
    /// The offset in `bytes` at which each kept string begins, followed by the offset of the current string.
    ends: Vec<i32>,
}

impl TextBuilder {
    /// Creates a builder that may use a dictionary, with capacity for `count` strings.
    pub(in crate::contract) fn new(count: usize) -> Self {
        Self::Dictionary(DictionaryBuilder::default(), Vec::with_capacity(count))
    }

    /// Creates a builder that never uses a dictionary, with capacity for `count` strings.
    pub(in crate::contract) fn plain(count: usize) -> Self {
        Self::Plain(PlainTexts::with_capacity_for(count))
    }

    /// Writes the current string at the index `position`, and replaces its previous value, if it has one.
    #[inline]
    pub(in crate::contract) fn put(&mut self, position: usize, text: PaddedSlice<'_>) {
        match self {
            Self::Plain(texts) => texts.put(text),
            Self::Dictionary(dictionary, indexes) => {
                match dictionary.index(text, DISTINCT_MIN.max(position / REPETITIONS_MIN)) {
                    Some(index) => write(indexes, position, index),
                    None => self.put_plain(position, text),
                }
            }
        }
    }

    /// Writes a string that does not fit into the dictionary. Converts the column to plain strings first.
    #[cold]
    fn put_plain(&mut self, position: usize, text: PaddedSlice<'_>) {
        if let Self::Dictionary(dictionary, indexes) = self {
            let mut texts = PlainTexts::with_capacity_for(position);
            // All of these strings come from one body, so they do not exceed the maximum size of a column.
            for position in 0..position {
                let index = indexes.get(position).copied().filter(|index| *index != NO_INDEX);
                texts.push(index.map_or(PaddedSlice::unpadded(&[]), |index| dictionary.get(index)));
            }
            *self = Self::Plain(texts);
        }
        self.put(position, text);
    }

    /// If the dictionary already contains `text`, writes it as the current string at the index `position`. Returns true
    /// if the string was written.
    #[inline]
    pub(in crate::contract) fn put_known(&mut self, position: usize, text: PaddedSlice<'_>) -> bool {
        let Self::Dictionary(dictionary, indexes) = self else { return false };
        let Some(index) = dictionary.find(text) else { return false };
        write(indexes, position, index);
        true
    }

    /// Removes the current string, whose index is `position`.
    pub(in crate::contract) fn clear(&mut self, position: usize) {
        match self {
            Self::Plain(texts) => texts.clear(),
            Self::Dictionary(_, indexes) => indexes.truncate(position),
        }
    }

    /// Keeps the current string, or an empty string if none was written. Returns a `Limited` error if the column would
    /// exceed its maximum size.
    #[inline]
    pub(in crate::contract) fn keep(&mut self) -> Result<()> {
        if let Self::Plain(texts) = self { texts.keep() } else { Ok(()) }
    }

    /// Returns the string of the row that is being written, or `None` if the column is a dictionary.
    #[inline]
    pub(in crate::contract) fn open(&self) -> Option<&[u8]> {
        let Self::Plain(texts) = self else { return None };
        Some(&texts.bytes[texts.begin()..])
    }

    /// Returns true if the string at `position` equals the current string, whose index is `open`.
    #[inline]
    pub(in crate::contract) fn is_same(&self, position: usize, open: usize) -> bool {
        match self {
            Self::Dictionary(_, indexes) => indexes[position] == indexes[open],
            Self::Plain(texts) => *texts.get(position) == texts.bytes[texts.begin()..],
        }
    }

    /// Removes all strings after the first `count`.
    pub(in crate::contract) fn truncate(&mut self, count: usize) {
        match self {
            Self::Plain(texts) => texts.truncate(count),
            Self::Dictionary(_, indexes) => indexes.truncate(count),
        }
    }

    /// Returns a builder that contains the strings at these positions, in this order. Each [`NULL_POSITION`] becomes an
    /// empty string.
    pub(in crate::contract) fn select(self, positions: &[u32]) -> Result<Self> {
        Ok(match self {
            Self::Dictionary(dictionary, indexes) => {
                let index = |position: &u32| indexes.get(*position as usize).copied().unwrap_or(0);
                Self::Dictionary(dictionary, positions.iter().map(index).collect())
            }
            Self::Plain(texts) => {
                let mut found = PlainTexts::with_capacity_for(positions.len());
                for position in positions {
                    if *position != NULL_POSITION {
                        found.put(PaddedSlice::unpadded(texts.get(*position as usize)));
                    }
                    found.keep()?;
                }
                Self::Plain(found)
            }
        })
    }

    /// Converts the first `count` strings to an array. The whole column is validated as UTF-8 in one pass, which is
    /// faster than validating each string.
    pub(in crate::contract) fn finish(
        self,
        kind: ColumnKind,
        count: usize,
        nulls: Option<NullBuffer>,
    ) -> Result<ArrayRef> {
        Ok(match self {
            Self::Dictionary(dictionary, mut indexes) => {
                indexes.resize(count, 0);
                indexes.iter_mut().filter(|index| **index == NO_INDEX).for_each(|index| *index = 0);
                Arc::new(dictionary.column(indexes, nulls).map_err(column_error)?)
            }
            Self::Plain(texts) => {
                let (offsets, bytes) = texts.finish();
                match kind {
                    ColumnKind::Bytes => Arc::new(BinaryArray::try_new(offsets, bytes, nulls).map_err(column_error)?),
                    _ => Arc::new(StringArray::try_new(offsets, bytes, nulls).map_err(column_error)?),
                }
            }
        })
    }
}

/// Converts an error that Arrow returned for a finished column. Such an error indicates a bug, because a decoder checks
/// every value before writing it.
pub(in crate::contract) fn column_error(cause: ArrowError) -> Error {
    Error::internal("decoded values do not fit their column").with_source(cause)
}

/// Writes a dictionary index at `position`. Earlier rows that have no index yet get [`NO_INDEX`].
#[inline]
fn write(indexes: &mut Vec<u16>, position: usize, index: u16) {
    if position < indexes.len() {
        indexes[position] = index;
    } else {
        indexes.resize(position, NO_INDEX);
        indexes.push(index);
    }
}

impl PlainTexts {
    fn with_capacity_for(texts: usize) -> Self {
        let mut ends = Vec::with_capacity(texts + 1);
        ends.push(0);
        Self { bytes: Vec::with_capacity(texts * TEXT_BYTES), ends }
    }

    /// Returns the offset at which the current string begins.
    #[inline]
    fn begin(&self) -> usize {
        self.ends.last().map_or(0, |end| *end as usize)
    }

    /// Writes the current string and replaces its previous value, if it has one.
    #[inline]
    fn put(&mut self, text: PaddedSlice<'_>) {
        self.bytes.truncate(self.begin());
        text.append_to(&mut self.bytes);
    }

    /// Removes the current string.
    fn clear(&mut self) {
        self.bytes.truncate(self.begin());
    }

    /// Keeps the current string. Returns a `Limited` error if the kept strings would have more than [`BYTES_MAX`] bytes
    /// in total.
    #[inline]
    fn keep(&mut self) -> Result<()> {
        let end = i32::try_from(self.bytes.len()).map_err(|_| {
            Error::limited(format!("the strings of one column have more than {BYTES_MAX} bytes: send smaller bodies"))
        })?;
        self.ends.push(end);
        Ok(())
    }

    /// Appends and keeps a string. The caller must ensure that all strings of the column together have at most
    /// [`BYTES_MAX`] bytes.
    fn push(&mut self, text: PaddedSlice<'_>) {
        self.put(text);
        self.ends.push(i32::try_from(self.bytes.len()).unwrap_or(i32::MAX));
    }

    /// Returns the kept string at `position`.
    #[inline]
    fn get(&self, position: usize) -> &[u8] {
        &self.bytes[self.ends[position] as usize..self.ends[position + 1] as usize]
    }

    /// Removes all strings after the first `count`.
    fn truncate(&mut self, count: usize) {
        self.ends.truncate(count + 1);
        self.clear();
    }

    fn finish(self) -> (OffsetBuffer<i32>, Buffer) {
        (OffsetBuffer::new(self.ends.into()), Buffer::from_vec(self.bytes))
    }
}
