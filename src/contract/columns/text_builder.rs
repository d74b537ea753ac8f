//! The builder of a text column: a dictionary while there are few distinct texts, else plain texts.
//!
//! In: texts by position. Out: an array. In a dictionary only the index of a text is written; a plain text is copied once,
//! while it is in the processor's cache.
//!
//! **Invariant:** the open text comes after all kept texts, and can be truncated.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, StringArray};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer};

use super::column_builder::column_error;
use super::dictionary::DictionaryBuilder;
use super::padded_slice::PaddedSlice;
use crate::contract::schema::table::ColumnKind;
use crate::error::{Error, Result};

/// The number of distinct texts up to which a column is a dictionary, however few rows it has.
const DISTINCT_MIN: usize = 128;
/// The average number of repetitions of each text for a larger dictionary.
const REPETITIONS_MIN: usize = 4;
/// The initial capacity per text, in bytes.
const TEXT_BYTES: usize = 8;
/// The maximum size of one column, in bytes.
const BYTES_MAX: usize = i32::MAX as usize;
/// The position of a null.
pub(in crate::contract) const NULL_POSITION: u32 = u32::MAX;
/// The index of a row without a text.
const NO_INDEX: u16 = u16::MAX;

/// Builds a text column. All texts before the open one are kept.
#[derive(Debug)]
pub(in crate::contract) enum TextBuilder {
    /// The distinct texts, and the index of each row's text.
    Dictionary(DictionaryBuilder, Vec<u16>),
    /// Plain texts.
    Plain(PlainTexts),
}

/// Texts in one buffer.
#[derive(Debug)]
pub(in crate::contract) struct PlainTexts {
    bytes: Vec<u8>,
    /// The offset at which each text begins, and the end of the last one. The open text follows it.
    ends: Vec<i32>,
}

impl TextBuilder {
    /// A builder that may use a dictionary, with capacity for `count` texts.
    pub(in crate::contract) fn new(count: usize) -> Self {
        Self::Dictionary(DictionaryBuilder::default(), Vec::with_capacity(count))
    }

    /// A builder that never uses a dictionary, with capacity for `count` texts.
    pub(in crate::contract) fn plain(count: usize) -> Self {
        Self::Plain(PlainTexts::with_capacity_for(count))
    }

    /// Writes the text at `position`, which is the open one, and replaces its previous value.
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

    /// Writes a text that the dictionary has no room for: converts the column to plain texts first.
    #[cold]
    fn put_plain(&mut self, position: usize, text: PaddedSlice<'_>) {
        if let Self::Dictionary(dictionary, indexes) = self {
            let mut texts = PlainTexts::with_capacity_for(position);
            // All texts come from one body, so that together they fit a column.
            for position in 0..position {
                let index = indexes.get(position).copied().filter(|index| *index != NO_INDEX);
                texts.push(index.map_or(PaddedSlice::alone(&[]), |index| dictionary.get(index)));
            }
            *self = Self::Plain(texts);
        }
        self.put(position, text);
    }

    /// Writes the text at `position` if the dictionary contains it. Returns whether it does.
    #[inline]
    pub(in crate::contract) fn put_known(&mut self, position: usize, text: PaddedSlice<'_>) -> bool {
        let Self::Dictionary(dictionary, indexes) = self else { return false };
        let Some(index) = dictionary.find(text) else { return false };
        write(indexes, position, index);
        true
    }

    /// Removes the open text.
    pub(in crate::contract) fn clear(&mut self, position: usize) {
        match self {
            Self::Plain(texts) => texts.clear(),
            Self::Dictionary(_, indexes) => indexes.truncate(position),
        }
    }

    /// Keeps the open text, or an empty one if none was written. `Limited` if the column would exceed its maximum size.
    #[inline]
    pub(in crate::contract) fn keep(&mut self) -> Result<()> {
        if let Self::Plain(texts) = self { texts.keep() } else { Ok(()) }
    }

    /// The open text. `None` in a dictionary.
    #[inline]
    pub(in crate::contract) fn open(&self) -> Option<&[u8]> {
        let Self::Plain(texts) = self else { return None };
        Some(&texts.bytes[texts.begin()..])
    }

    /// Whether the text at `position` equals the open text, which is at `open`.
    #[inline]
    pub(in crate::contract) fn is_same(&self, position: usize, open: usize) -> bool {
        match self {
            Self::Dictionary(_, indexes) => indexes[position] == indexes[open],
            Self::Plain(texts) => *texts.get(position) == texts.bytes[texts.begin()..],
        }
    }

    /// Keeps only the first `count` texts.
    pub(in crate::contract) fn truncate(&mut self, count: usize) {
        match self {
            Self::Plain(texts) => texts.truncate(count),
            Self::Dictionary(_, indexes) => indexes.truncate(count),
        }
    }

    /// The texts at these positions; an empty text for [`NULL_POSITION`].
    pub(in crate::contract) fn at(self, positions: &[u32]) -> Result<Self> {
        Ok(match self {
            Self::Dictionary(dictionary, indexes) => {
                let index = |position: &u32| indexes.get(*position as usize).copied().unwrap_or(0);
                Self::Dictionary(dictionary, positions.iter().map(index).collect())
            }
            Self::Plain(texts) => {
                let mut found = PlainTexts::with_capacity_for(positions.len());
                for position in positions {
                    if *position != NULL_POSITION {
                        found.put(PaddedSlice::alone(texts.get(*position as usize)));
                    }
                    found.keep()?;
                }
                Self::Plain(found)
            }
        })
    }

    /// The first `count` texts as an array. UTF-8 is validated for the whole column at once, which is faster than text
    /// by text.
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

/// Writes an index at its position. Rows that were skipped have no text.
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

    /// The offset at which the open text begins.
    #[inline]
    fn begin(&self) -> usize {
        self.ends.last().map_or(0, |end| *end as usize)
    }

    /// Writes the open text and replaces its previous value.
    #[inline]
    fn put(&mut self, text: PaddedSlice<'_>) {
        self.bytes.truncate(self.begin());
        text.append_to(&mut self.bytes);
    }

    /// Removes the open text.
    fn clear(&mut self) {
        self.bytes.truncate(self.begin());
    }

    /// Keeps the open text. `Limited` if the column would exceed [`BYTES_MAX`].
    #[inline]
    fn keep(&mut self) -> Result<()> {
        let end = i32::try_from(self.bytes.len()).map_err(|_| {
            Error::limited(format!("the texts of one column have more than {BYTES_MAX} bytes: send smaller bodies"))
        })?;
        self.ends.push(end);
        Ok(())
    }

    /// Appends and keeps a text. The caller ensures that the column has room for it.
    fn push(&mut self, text: PaddedSlice<'_>) {
        self.put(text);
        self.ends.push(i32::try_from(self.bytes.len()).unwrap_or(i32::MAX));
    }

    /// A kept text.
    #[inline]
    fn get(&self, position: usize) -> &[u8] {
        &self.bytes[self.ends[position] as usize..self.ends[position + 1] as usize]
    }

    /// Keeps only the first `count` texts.
    fn truncate(&mut self, count: usize) {
        self.ends.truncate(count + 1);
        self.clear();
    }

    fn finish(self) -> (OffsetBuffer<i32>, Buffer) {
        (OffsetBuffer::new(self.ends.into()), Buffer::from_vec(self.bytes))
    }
}
