//! Texts of one column while rows are added: labels as long as few are different, else one behind the other.
//!
//! In: texts by their places. Out: an array. A label is a number and moves nowhere; other texts are moved once, while they
//! are at hand: a body is read from its front to its end.
//!
//! **Invariant:** what is open stands behind all that is kept, and can be cut off.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, StringArray};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer};

use super::column_builder::unfit;
use super::dictionary::DictionaryBuilder;
use super::padded_slice::PaddedSlice;
use crate::contract::schema::table::ColumnKind;
use crate::error::{Error, Result};

/// Different texts that are few, however few rows there are.
const LABELS_FEW: usize = 128;
/// How often each label comes, on average, where they are more.
const LABEL_REPEATS: usize = 4;
/// Bytes for a text that room is made for at first.
const TEXT_BYTES: usize = 8;
/// The bytes of one column.
const BYTES_MAX: usize = i32::MAX as usize;
/// The place of a text that is null.
pub(in crate::contract) const NOWHERE: u32 = u32::MAX;
/// The number of a row that has no text.
const NO_LABEL: u16 = u16::MAX;

/// Texts by their places, of which those before the open one are kept.
#[derive(Debug)]
pub(in crate::contract) enum TextBuilder {
    /// Few different ones, and the number of each.
    Labels(DictionaryBuilder, Vec<u16>),
    Texts(PlainTexts),
}

/// Texts, one behind the other.
#[derive(Debug)]
pub(in crate::contract) struct PlainTexts {
    bytes: Vec<u8>,
    /// Where each begins, and the last one ends; behind that stands what is not kept yet.
    ends: Vec<i32>,
}

impl TextBuilder {
    /// Texts that may be labels, with room for `count`.
    pub(in crate::contract) fn new(count: usize) -> Self {
        Self::Labels(DictionaryBuilder::default(), Vec::with_capacity(count))
    }

    /// Texts that are no labels, with room for `count`.
    pub(in crate::contract) fn plain(count: usize) -> Self {
        Self::Texts(PlainTexts::with_room(count))
    }

    /// Writes the text at `place`, which is the open one, in place of what it was.
    #[inline]
    pub(in crate::contract) fn put(&mut self, place: usize, text: PaddedSlice<'_>) {
        match self {
            Self::Texts(texts) => texts.put(text),
            Self::Labels(labels, numbers) => match labels.number(text, LABELS_FEW.max(place / LABEL_REPEATS)) {
                Some(number) => write(numbers, place, number),
                None => self.put_plain(place, text),
            },
        }
    }

    /// Writes the text, which is one too many: from now on none is a label.
    #[cold]
    fn put_plain(&mut self, place: usize, text: PaddedSlice<'_>) {
        if let Self::Labels(labels, numbers) = self {
            let mut texts = PlainTexts::with_room(place);
            // Each was somewhere in the body: together they are no more than a column can hold.
            for place in 0..place {
                let number = numbers.get(place).copied().filter(|number| *number != NO_LABEL);
                texts.push(number.map_or(PaddedSlice::alone(&[]), |number| labels.get(number)));
            }
            *self = Self::Texts(texts);
        }
        self.put(place, text);
    }

    /// Writes the text at `place`, if it is a label that is known. Whether it is.
    #[inline]
    pub(in crate::contract) fn put_known(&mut self, place: usize, text: PaddedSlice<'_>) -> bool {
        let Self::Labels(labels, numbers) = self else { return false };
        let Some(number) = labels.find(text) else { return false };
        write(numbers, place, number);
        true
    }

    /// Takes the open text away.
    pub(in crate::contract) fn clear(&mut self, place: usize) {
        match self {
            Self::Texts(texts) => texts.clear(),
            Self::Labels(_, numbers) => numbers.truncate(place),
        }
    }

    /// Keeps the open text, or an empty one. `Limited` when there is no place for it.
    #[inline]
    pub(in crate::contract) fn keep(&mut self) -> Result<()> {
        if let Self::Texts(texts) = self { texts.keep() } else { Ok(()) }
    }

    /// The open text as it is; none of a label.
    #[inline]
    pub(in crate::contract) fn open(&self) -> Option<&[u8]> {
        let Self::Texts(texts) = self else { return None };
        Some(&texts.bytes[texts.begin()..])
    }

    /// Whether the text at a place is the one at `open`, which is the open one.
    #[inline]
    pub(in crate::contract) fn is_same(&self, place: usize, open: usize) -> bool {
        match self {
            Self::Labels(_, numbers) => numbers[place] == numbers[open],
            Self::Texts(texts) => *texts.get(place) == texts.bytes[texts.begin()..],
        }
    }

    /// Leaves the first `count` texts.
    pub(in crate::contract) fn truncate(&mut self, count: usize) {
        match self {
            Self::Texts(texts) => texts.truncate(count),
            Self::Labels(_, numbers) => numbers.truncate(count),
        }
    }

    /// The texts at these places; an empty one for one that is nowhere.
    pub(in crate::contract) fn at(self, places: &[u32]) -> Result<Self> {
        Ok(match self {
            Self::Labels(labels, numbers) => {
                let number = |place: &u32| numbers.get(*place as usize).copied().unwrap_or(0);
                Self::Labels(labels, places.iter().map(number).collect())
            }
            Self::Texts(texts) => {
                let mut found = PlainTexts::with_room(places.len());
                for place in places {
                    if *place != NOWHERE {
                        found.put(PaddedSlice::alone(texts.get(*place as usize)));
                    }
                    found.keep()?;
                }
                Self::Texts(found)
            }
        })
    }

    /// The first `count` texts as a column. Each is checked to be UTF-8 with all the others, which is quicker than one by one.
    pub(in crate::contract) fn finish(
        self,
        kind: ColumnKind,
        count: usize,
        nulls: Option<NullBuffer>,
    ) -> Result<ArrayRef> {
        Ok(match self {
            Self::Labels(labels, mut numbers) => {
                numbers.resize(count, 0);
                numbers.iter_mut().filter(|number| **number == NO_LABEL).for_each(|number| *number = 0);
                Arc::new(labels.column(numbers, nulls).map_err(unfit)?)
            }
            Self::Texts(texts) => {
                let (offsets, bytes) = texts.finish();
                match kind {
                    ColumnKind::Bytes => Arc::new(BinaryArray::try_new(offsets, bytes, nulls).map_err(unfit)?),
                    _ => Arc::new(StringArray::try_new(offsets, bytes, nulls).map_err(unfit)?),
                }
            }
        })
    }
}

/// Writes a number at its place; the rows between it and the others have no text.
#[inline]
fn write(numbers: &mut Vec<u16>, place: usize, number: u16) {
    if place < numbers.len() {
        numbers[place] = number;
    } else {
        numbers.resize(place, NO_LABEL);
        numbers.push(number);
    }
}

impl PlainTexts {
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
    fn put(&mut self, text: PaddedSlice<'_>) {
        self.bytes.truncate(self.begin());
        text.append_to(&mut self.bytes);
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

    /// Adds a text and keeps it, where there is a place for it for sure.
    fn push(&mut self, text: PaddedSlice<'_>) {
        self.put(text);
        self.ends.push(i32::try_from(self.bytes.len()).unwrap_or(i32::MAX));
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
