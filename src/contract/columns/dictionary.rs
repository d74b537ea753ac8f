//! Dictionary encoding: each distinct string is stored once and identified by its index.
//!
//! Strings are numbered from 0 in the order in which they first appear. Most text columns of events are
//! dictionary-encoded. Such a column can be checked, sorted and written to a file without reading a string more than
//! once.
//!
//! **Invariant:** the hash function is keyed with a secret that is different in each process, so a sender cannot
//! construct strings that collide.

use std::hash::Hasher as _;
use std::sync::{Arc, LazyLock};

use arrow::array::{Array as _, ArrayRef, AsArray as _, DictionaryArray, StringArray, UInt16Array};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, UInt16Type};
use arrow::error::ArrowError;
use siphasher::sip128::{Hasher128 as _, SipHasher13};

use super::padded_slice::{PaddedSlice, SHORT_BYTES_MAX};

/// The maximum number of values in one dictionary.
pub const DICTIONARY_VALUES_MAX: usize = 1 << 11;
/// The number of slots in a new hash table. A table grows before more than half of its slots are used.
const SLOTS_MIN: usize = 1 << 5;
/// A free slot. Its length is greater than that of any string.
const FREE: TableSlot = TableSlot { key: [0; 2], length: u32::MAX, index: 0 };

/// An array of dictionary-encoded strings.
pub type TextDictionaryArray = DictionaryArray<UInt16Type>;

/// The hash function, keyed with the secret of this process.
static SECRET: LazyLock<SipHasher13> = LazyLock::new(|| SipHasher13::new_with_keys(rand::random(), rand::random()));

/// Assigns an index to each distinct string.
#[derive(Debug)]
pub struct DictionaryBuilder {
    /// The hash table. The number of slots is a power of two.
    slots: Vec<TableSlot>,
    /// The offset in `bytes` at which each string begins, followed by the end of the last string.
    ends: Vec<i32>,
    bytes: Vec<u8>,
    secret: [u64; 2],
}

/// A slot of the hash table. It contains the hash key, the length and the index of one string.
#[derive(Debug, Clone, Copy)]
struct TableSlot {
    key: [u64; 2],
    length: u32,
    index: u16,
}

impl Default for DictionaryBuilder {
    fn default() -> Self {
        let secret = SECRET.finish128();
        Self { slots: vec![FREE; SLOTS_MIN], ends: vec![0], bytes: Vec::new(), secret: [secret.h1, secret.h2] }
    }
}

impl DictionaryBuilder {
    /// Returns the number of distinct strings.
    pub fn len(&self) -> usize {
        self.ends.len() - 1
    }

    /// Returns true if the dictionary is empty.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the string at an index. The index must have been returned by this dictionary.
    pub fn get(&self, index: u16) -> PaddedSlice<'_> {
        let [start, end] = [0, 1].map(|next| self.ends[usize::from(index) + next] as usize);
        PaddedSlice::new(&self.bytes, start, end)
    }

    /// Returns the index of a string, if the dictionary contains it.
    #[inline]
    pub fn find(&self, text: PaddedSlice<'_>) -> Option<u16> {
        self.seek(key(text), text).ok()
    }

    /// Returns the index of a string and adds the string if it is new. Returns `None` if the string is new and the
    /// dictionary already has `values_max` or [`DICTIONARY_VALUES_MAX`] strings.
    #[inline]
    pub fn index(&mut self, text: PaddedSlice<'_>, values_max: usize) -> Option<u16> {
        let key = key(text);
        match self.seek(key, text) {
            Ok(index) => Some(index),
            Err(slot) => self.add(slot, key, text, values_max.min(DICTIONARY_VALUES_MAX)),
        }
    }

    /// Looks up a string and returns its index. If the dictionary does not contain the string, returns `Err` with the
    /// free slot in which it can be stored.
    #[inline]
    fn seek(&self, key: [u64; 2], text: PaddedSlice<'_>) -> Result<u16, usize> {
        let mut at = self.first_slot(key, text.length());
        loop {
            let slot = &self.slots[at];
            if slot.key == key && slot.length as usize == text.length() {
                // The hash key of a short string is the string itself.
                if text.length() <= SHORT_BYTES_MAX || self.get(slot.index).bytes() == text.bytes() {
                    return Ok(slot.index);
                }
            }
            if slot.length == FREE.length {
                return Err(at);
            }
            at = (at + 1) & (self.slots.len() - 1);
        }
    }

    #[cold]
    fn add(&mut self, slot: usize, key: [u64; 2], text: PaddedSlice<'_>, values_max: usize) -> Option<u16> {
        let index = u16::try_from(self.len()).ok().filter(|index| usize::from(*index) < values_max)?;
        let (length, end) = (
            u32::try_from(text.length()).ok().filter(|length| *length < FREE.length)?,
            self.bytes.len().checked_add(text.length())?,
        );
        self.ends.push(i32::try_from(end).ok()?);
        text.append_to(&mut self.bytes);
        self.slots[slot] = TableSlot { key, length, index };
        if self.len() * 2 > self.slots.len() {
            self.grow();
        }
        Some(index)
    }

    fn grow(&mut self) {
        let wide = vec![FREE; self.slots.len() * 4];
        let narrow = std::mem::replace(&mut self.slots, wide);
        for taken in narrow.into_iter().filter(|slot| slot.length != FREE.length) {
            let mut at = self.first_slot(taken.key, taken.length as usize);
            while self.slots[at].length != FREE.length {
                at = (at + 1) & (self.slots.len() - 1);
            }
            self.slots[at] = taken;
        }
    }

    /// Returns the first slot of a key's probe sequence.
    #[inline]
    fn first_slot(&self, key: [u64; 2], length: usize) -> usize {
        let [low, high] = [key[0] ^ self.secret[0], key[1].rotate_left(29) ^ self.secret[1] ^ length as u64];
        // Both factors depend on the secret, so an attacker cannot predict which keys share a slot.
        let product = u128::from(low) * u128::from(high);
        (product as u64 ^ (product >> 64) as u64) as usize & (self.slots.len() - 1)
    }

    /// Returns the distinct strings, ordered by index. Fails if a string is not valid UTF-8.
    pub fn values(self) -> Result<StringArray, ArrowError> {
        StringArray::try_new(OffsetBuffer::new(self.ends.into()), Buffer::from_vec(self.bytes), None)
    }

    /// Returns a dictionary array with the values of this dictionary. Except at null positions, `indexes` must contain
    /// only indexes that this dictionary has returned. Fails if a string is not valid UTF-8.
    pub fn column(self, indexes: Vec<u16>, nulls: Option<NullBuffer>) -> Result<TextDictionaryArray, ArrowError> {
        let indexes = UInt16Array::try_new(indexes.into(), nulls)?;
        TextDictionaryArray::try_new(indexes, Arc::new(self.values()?))
    }
}

/// Returns the hash key of a string. The key of a short string is the string itself, and the key of a longer string is
/// its hash.
#[inline]
fn key(text: PaddedSlice<'_>) -> [u64; 2] {
    text.words().unwrap_or_else(|| {
        let mut hasher = *SECRET;
        hasher.write(text.bytes());
        let hash = hasher.finish128();
        [hash.h1, hash.h2]
    })
}

/// Returns the column as a dictionary array of strings, or `None` if it has another type.
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
    fn each_distinct_string_has_one_index() {
        let mut rng = StdRng::seed_from_u64(7);
        for (different, length) in [(1, 0), (3, 4), (40, 15), (300, 16), (DICTIONARY_VALUES_MAX, 17), (900, 40)] {
            let (mut dictionary, mut oracle) = (DictionaryBuilder::default(), HashMap::new());
            for _ in 0..20_000 {
                let text = format!("{:>length$}", rng.random_range(0..different));
                assert_eq!(dictionary.find(PaddedSlice::unpadded(text.as_bytes())), oracle.get(&text).copied());
                let next = oracle.len() as u16;
                let index = dictionary.index(PaddedSlice::unpadded(text.as_bytes()), usize::MAX).unwrap();
                assert_eq!(index, *oracle.entry(text.clone()).or_insert(next));
                assert_eq!(dictionary.get(index).bytes(), text.as_bytes());
            }
            assert_eq!(dictionary.len(), oracle.len());
        }
    }

    #[test]
    fn strings_of_zero_bytes_with_different_lengths_are_distinct() {
        let mut dictionary = DictionaryBuilder::default();
        for length in 0..40 {
            assert_eq!(dictionary.index(PaddedSlice::unpadded(&[0; 40][..length]), usize::MAX), Some(length as u16));
        }
    }

    #[test]
    fn a_dictionary_does_not_exceed_its_limit() {
        let mut dictionary = DictionaryBuilder::default();
        let mut index = |text: usize, max| dictionary.index(PaddedSlice::unpadded(text.to_string().as_bytes()), max);
        assert_eq!((index(0, 2), index(1, 2), index(2, 2), index(1, 2)), (Some(0), Some(1), None, Some(1)));
        assert_eq!(
            (2..DICTIONARY_VALUES_MAX).filter_map(|text| index(text, usize::MAX)).count(),
            DICTIONARY_VALUES_MAX - 2
        );
        assert_eq!((index(DICTIONARY_VALUES_MAX, usize::MAX), index(0, usize::MAX)), (None, Some(0)));
    }
}
