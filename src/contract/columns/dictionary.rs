//! Few different texts that come again and again: each is kept once, and has a number.
//!
//! In: texts. Out: their numbers, from 0 in the order in which they came first. Labels are most of an event's columns: with
//! their numbers alone they are checked, moved into order and written to a file without being read again.
//!
//! **Invariant:** the table is keyed by a secret: nobody outside can choose texts that are slow to tell apart.

use std::hash::Hasher as _;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array as _, ArrayRef, AsArray as _, DictionaryArray, StringArray, UInt16Array};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, UInt16Type};
use arrow::error::ArrowError;
use siphasher::sip128::{Hasher128 as _, SipHasher13};

use super::padded_slice::{PaddedSlice, SHORT_BYTES_MAX};

/// The most that are numbered.
pub const DICTIONARY_VALUES_MAX: usize = 1 << 11;
/// Places of a new table. It grows before it is half full.
const SLOTS_MIN: usize = 1 << 5;
/// What stands in a place that is free: no text is that long.
const FREE: TableSlot = TableSlot { key: [0; 2], length: u32::MAX, number: 0 };

/// Texts by their numbers: a column of labels.
pub type TextDictionaryArray = DictionaryArray<UInt16Type>;

/// The secret of this process.
static SECRET: LazyLock<SipHasher13> = LazyLock::new(|| SipHasher13::new_with_keys(rand::random(), rand::random()));

/// Different texts and their numbers.
#[derive(Debug)]
pub struct DictionaryBuilder {
    /// As many as a power of two.
    slots: Vec<TableSlot>,
    /// Where each text begins, and the last one ends.
    ends: Vec<i32>,
    bytes: Vec<u8>,
    secret: [u64; 2],
}

/// A place of the table: a text's key and length, and its number.
#[derive(Debug, Clone, Copy)]
struct TableSlot {
    key: [u64; 2],
    length: u32,
    number: u16,
}

impl Default for DictionaryBuilder {
    fn default() -> Self {
        let secret = SECRET.finish128();
        Self { slots: vec![FREE; SLOTS_MIN], ends: vec![0], bytes: Vec::new(), secret: [secret.h1, secret.h2] }
    }
}

impl DictionaryBuilder {
    /// How many there are.
    pub fn len(&self) -> usize {
        self.ends.len() - 1
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// The text with a number that was given.
    pub fn get(&self, number: u16) -> PaddedSlice<'_> {
        let [start, end] = [0, 1].map(|place| self.ends[usize::from(number) + place] as usize);
        PaddedSlice::new(&self.bytes, start, end)
    }

    /// The number of a text that is known.
    #[inline]
    pub fn find(&self, text: PaddedSlice<'_>) -> Option<u16> {
        self.seek(key(text), text).ok()
    }

    /// The number of a text, a new one if need be; none when that would be one more than `labels_max` or [`DICTIONARY_VALUES_MAX`].
    #[inline]
    pub fn number(&mut self, text: PaddedSlice<'_>, labels_max: usize) -> Option<u16> {
        let key = key(text);
        match self.seek(key, text) {
            Ok(number) => Some(number),
            Err(slot) => self.add(slot, key, text, labels_max.min(DICTIONARY_VALUES_MAX)),
        }
    }

    /// The number of a text, or the place where it would be.
    #[inline]
    fn seek(&self, key: [u64; 2], text: PaddedSlice<'_>) -> Result<u16, usize> {
        let mut at = self.place(key, text.length());
        loop {
            let slot = &self.slots[at];
            if slot.key == key && slot.length as usize == text.length() {
                // A short text is its key.
                if text.length() <= SHORT_BYTES_MAX || self.get(slot.number).bytes() == text.bytes() {
                    return Ok(slot.number);
                }
            }
            if slot.length == FREE.length {
                return Err(at);
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }

    #[cold]
    fn add(&mut self, slot: usize, key: [u64; 2], text: PaddedSlice<'_>, labels_max: usize) -> Option<u16> {
        let number = u16::try_from(self.len()).ok().filter(|number| usize::from(*number) < labels_max)?;
        let (length, end) = (
            u32::try_from(text.length()).ok().filter(|length| *length < FREE.length)?,
            self.bytes.len().checked_add(text.length())?,
        );
        self.ends.push(i32::try_from(end).ok()?);
        text.append_to(&mut self.bytes);
        self.slots[slot] = TableSlot { key, length, number };
        if self.len() * 2 > self.slots.len() {
            self.grow();
        }
        Some(number)
    }

    fn grow(&mut self) {
        let wide = vec![FREE; self.slots.len() * 4];
        let narrow = std::mem::replace(&mut self.slots, wide);
        for taken in narrow.into_iter().filter(|slot| slot.length != FREE.length) {
            let mut at = self.place(taken.key, taken.length as usize);
            while self.slots[at].length != FREE.length {
                at = (at + 1) & (self.slots.len() - 1);
            }
            self.slots[at] = taken;
        }
    }

    /// The first place where a key is looked for.
    #[inline]
    fn place(&self, key: [u64; 2], length: usize) -> usize {
        let [low, high] = [key[0] ^ self.secret[0], key[1].rotate_left(29) ^ self.secret[1] ^ length as u64];
        // A product of two secrets: from outside nobody can tell what either half of a key does to it.
        let product = u128::from(low) * u128::from(high);
        (product as u64 ^ (product >> 64) as u64) as usize & (self.slots.len() - 1)
    }

    /// The texts in the order of their numbers. An error when they are not UTF-8.
    pub fn texts(self) -> Result<StringArray, ArrowError> {
        StringArray::try_new(OffsetBuffer::new(self.ends.into()), Buffer::from_vec(self.bytes), None)
    }

    /// A column of these numbers, which were given by this table where they are not null. An error when a text is not UTF-8.
    pub fn column(self, numbers: Vec<u16>, nulls: Option<NullBuffer>) -> Result<TextDictionaryArray, ArrowError> {
        let numbers = UInt16Array::try_new(numbers.into(), nulls)?;
        TextDictionaryArray::try_new(numbers, Arc::new(self.texts()?))
    }
}

/// A short text as it is, a long one by its hash.
#[inline]
fn key(text: PaddedSlice<'_>) -> [u64; 2] {
    text.numbers().unwrap_or_else(|| {
        let mut hasher = *SECRET;
        hasher.write(text.bytes());
        let hash = hasher.finish128();
        [hash.h1, hash.h2]
    })
}

/// The column as a dictionary of texts, if it is one.
pub fn as_dictionary(column: &ArrayRef) -> Option<&TextDictionaryArray> {
    let texts = column.as_dictionary_opt::<UInt16Type>()?;
    (*texts.values().data_type() == DataType::Utf8).then_some(texts)
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};

    use super::*;

    #[test]
    fn a_text_has_one_number() {
        let mut dice = StdRng::seed_from_u64(7);
        for (different, length) in [(1, 0), (3, 4), (40, 15), (300, 16), (DICTIONARY_VALUES_MAX, 17), (900, 40)] {
            let (mut labels, mut oracle) = (DictionaryBuilder::default(), HashMap::new());
            for _ in 0..20_000 {
                let text = format!("{:>length$}", dice.random_range(0..different));
                assert_eq!(labels.find(PaddedSlice::alone(text.as_bytes())), oracle.get(&text).copied());
                let next = oracle.len() as u16;
                let number = labels.number(PaddedSlice::alone(text.as_bytes()), usize::MAX).unwrap();
                assert_eq!(number, *oracle.entry(text.clone()).or_insert(next));
                assert_eq!(labels.get(number).bytes(), text.as_bytes());
            }
            assert_eq!(labels.len(), oracle.len());
        }
    }

    #[test]
    fn texts_of_zeros_are_told_apart() {
        let mut labels = DictionaryBuilder::default();
        for length in 0..40 {
            assert_eq!(labels.number(PaddedSlice::alone(&[0; 40][..length]), usize::MAX), Some(length as u16));
        }
    }

    #[test]
    fn there_are_no_more_than_wanted() {
        let mut labels = DictionaryBuilder::default();
        let mut number = |text: usize, most| labels.number(PaddedSlice::alone(text.to_string().as_bytes()), most);
        assert_eq!((number(0, 2), number(1, 2), number(2, 2), number(1, 2)), (Some(0), Some(1), None, Some(1)));
        assert_eq!(
            (2..DICTIONARY_VALUES_MAX).filter_map(|text| number(text, usize::MAX)).count(),
            DICTIONARY_VALUES_MAX - 2
        );
        assert_eq!((number(DICTIONARY_VALUES_MAX, usize::MAX), number(0, usize::MAX)), (None, Some(0)));
    }
}
