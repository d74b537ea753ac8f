//! Exact dedupe within a bounded window: the newest event ids of one table, each a keyed 128-bit hash of (tenant, id).
//!
//! In: parts of a batch, each with the hashes of its rows ([`Keyer`]). Out: which of them are new ([`sift`]), and the rows
//! that remain ([`remaining`]). Ids enter the [`Window`] only when their commit has succeeded: a failed one has nothing to give back.
//!
//! **Invariant:** the hash is keyed with random bits of this process: nobody outside can make two ids collide.
//! **Invariant:** a full window forgets its oldest id first. One id costs 16 bytes and 6 to 12 of index.

use std::borrow::Borrow;
use std::hash::Hasher as _;
use std::sync::Arc;

use arrow::array::{Array, AsArray as _, BooleanArray, RecordBatch};
use arrow::compute::{concat_batches, filter_record_batch};
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use siphasher::sip128::{Hasher128 as _, SipHasher13};

use super::freshness::Held;
use crate::error::{Error, Result};

/// The hash of one (tenant, id).
pub(super) type IdHash = u128;

/// Turns (tenant, id) into an [`IdHash`] that means nothing in another process.
#[derive(Clone, Copy)]
pub(super) struct Keyer(SipHasher13);

impl Keyer {
    /// A keyer with a key of its own.
    pub(super) fn random() -> Self {
        Self(SipHasher13::new_with_keys(rand::random(), rand::random()))
    }

    /// The hash of one event. The tenant's length keeps ("a", "bc") and ("ab", "c") apart.
    pub(super) fn hash(&self, tenant: &str, id: &str) -> IdHash {
        let mut hasher = self.0;
        hasher.write_usize(tenant.len());
        hasher.write(tenant.as_bytes());
        hasher.write(id.as_bytes());
        hasher.finish128().as_u128()
    }

    /// The hashes of all rows, in order: from the columns at `tenant` and `id`, both text without nulls.
    pub(super) fn hashes(&self, rows: &RecordBatch, tenant: usize, id: usize) -> Result<Vec<IdHash>> {
        let text = |column: usize| {
            let array = rows.column(column).as_string_opt::<i32>().filter(|array| array.null_count() == 0);
            array.ok_or_else(|| Error::internal(format!("key column {column} is not text without nulls")))
        };
        let (tenants, ids) = (text(tenant)?, text(id)?);
        Ok((0..rows.num_rows()).map(|row| self.hash(tenants.value(row), ids.value(row))).collect())
    }
}

impl std::fmt::Debug for Keyer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Keyer(secret)")
    }
}

/// The newest ids, first in first out.
#[derive(Debug)]
pub(super) struct Window {
    /// A ring once it is full: `oldest` is the next to be forgotten.
    ids: Vec<IdHash>,
    oldest: usize,
    /// Slots of `ids` by hash.
    slots: HashTable<u32>,
    ids_max: usize,
}

impl Window {
    /// An empty window of at most `ids_max` ids (and never more than 2^32 - 1).
    pub(super) fn new(ids_max: usize) -> Self {
        let ids_max = ids_max.min(u32::MAX as usize);
        Self { ids: Vec::new(), oldest: 0, slots: HashTable::new(), ids_max }
    }

    /// Whether the id was stored before.
    pub(super) fn contains(&self, id: IdHash) -> bool {
        self.slots.find(short(id), |&slot| self.ids[slot as usize] == id).is_some()
    }

    /// Ids held now.
    pub(super) fn len(&self) -> usize {
        self.ids.len()
    }

    /// Remembers stored ids, oldest first; returns how many it had to forget for that.
    pub(super) fn extend(&mut self, stored: impl IntoIterator<Item = IdHash>) -> usize {
        stored.into_iter().filter(|id| self.push(*id)).count()
    }

    /// Remembers an id, also one that is there already. Whether one was forgotten, if only this one itself.
    fn push(&mut self, id: IdHash) -> bool {
        if self.ids_max == 0 {
            return true;
        }
        let full = self.ids.len() == self.ids_max;
        let slot = if self.ids.len() < self.ids_max {
            if self.ids.len() == self.ids.capacity() {
                // Doubles like any vector, but never past the bound.
                self.ids.reserve_exact(self.ids.len().max(1024).min(self.ids_max - self.ids.len()));
            }
            self.ids.push(id);
            self.ids.len() - 1
        } else {
            let slot = self.oldest;
            let forgotten = std::mem::replace(&mut self.ids[slot], id);
            if let Ok(entry) = self.slots.find_entry(short(forgotten), |&other| other as usize == slot) {
                entry.remove();
            }
            self.oldest = (slot + 1) % self.ids_max;
            slot
        };
        let slot = u32::try_from(slot).expect("a window has at most 2^32 - 1 slots");
        self.slots.insert_unique(short(id), slot, |&other| short(self.ids[other as usize]));
        full
    }
}

/// The part of a hash that finds its place in a table.
#[expect(clippy::cast_possible_truncation, reason = "the low half of a uniform hash is a uniform hash")]
fn short(id: IdHash) -> u64 {
    id as u64
}

/// Rows of one request with the hash of each.
#[derive(Debug)]
pub(super) struct Part {
    /// In the contract's schema.
    pub(super) rows: RecordBatch,
    /// One a row.
    pub(super) ids: Vec<IdHash>,
    /// Says that they are under way.
    pub(super) held: Option<Arc<Held>>,
}

/// What remains of a batch after dedupe.
#[derive(Debug)]
pub(super) struct Sifted {
    /// Rows to store, in order of arrival.
    pub(super) rows: RecordBatch,
    /// Their ids.
    pub(super) ids: Vec<IdHash>,
    /// How many rows of each part remain.
    pub(super) kept: Vec<usize>,
}

/// For each row of each part whether it is new: its id is neither in the window nor earlier in the batch.
pub(super) fn sift<P: Borrow<Part>>(window: &Window, parts: &[P]) -> Vec<Vec<bool>> {
    let rows_max = parts.iter().map(|part| part.borrow().ids.len()).sum();
    let mut seen: HashTable<IdHash> = HashTable::with_capacity(rows_max);
    let mut is_new = |id: IdHash| match seen.entry(short(id), |other| *other == id, |other| short(*other)) {
        Entry::Occupied(_) => false,
        Entry::Vacant(entry) => {
            entry.insert(id);
            !window.contains(id)
        }
    };
    parts.iter().map(|part| part.borrow().ids.iter().map(|id| is_new(*id)).collect()).collect()
}

/// The rows of the parts that `keep` names.
pub(super) fn remaining<P: Borrow<Part>>(parts: &[P], keep: Vec<Vec<bool>>) -> Result<Sifted> {
    let (mut ids, mut kept) = (Vec::new(), Vec::with_capacity(parts.len()));
    let mut rows = Vec::with_capacity(parts.len());
    for (part, keep) in parts.iter().map(Borrow::borrow).zip(keep) {
        let before = ids.len();
        ids.extend(part.ids.iter().zip(&keep).filter(|(_, keep)| **keep).map(|(id, _)| *id));
        kept.push(ids.len() - before);
        rows.push(filter(&part.rows, keep)?);
    }
    let schema = parts.first().map(|part| part.borrow().rows.schema());
    let schema = schema.ok_or_else(|| Error::internal("an empty batch has nothing to sift"))?;
    let rows = concat_batches(&schema, &rows).map_err(|cause| internal(cause, "cannot join a batch's rows"))?;
    Ok(Sifted { rows, ids, kept })
}

/// The rows to keep; no copy when that is all of them.
fn filter(rows: &RecordBatch, keep: Vec<bool>) -> Result<RecordBatch> {
    if keep.iter().all(|&keep| keep) {
        return Ok(rows.clone());
    }
    filter_record_batch(rows, &BooleanArray::from(keep)).map_err(|cause| internal(cause, "cannot drop duplicates"))
}

fn internal(cause: arrow::error::ArrowError, what: &'static str) -> Error {
    Error::internal(what).with_source(cause)
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use arrow::array::{ArrayRef, StringArray};

    use super::*;

    fn part(keyer: &Keyer, rows: &[(&str, &str)]) -> Part {
        let tenants: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.0)));
        let ids: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.1)));
        let rows = RecordBatch::try_from_iter([("tenant", tenants), ("id", ids)]).unwrap();
        let ids = keyer.hashes(&rows, 0, 1).unwrap();
        Part { rows, ids, held: None }
    }

    #[test]
    fn a_window_is_an_exact_queue() {
        // The oracle: a plain queue that is searched from end to end.
        for ids_max in [0, 1, 2, 7, 64] {
            let mut window = Window::new(ids_max);
            let mut oracle: VecDeque<IdHash> = VecDeque::new();
            let mut state: u64 = 7;
            for _ in 0..2_000 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                // Few distinct low halves: entries collide in the index and must still be told apart.
                let id = u128::from(state >> 61) | (u128::from((state >> 40) % 40) << 64);
                assert_eq!(window.contains(id), oracle.contains(&id));
                let forgotten = window.extend([id]);
                oracle.push_back(id);
                assert_eq!(forgotten, oracle.len().saturating_sub(ids_max));
                oracle.drain(..forgotten);
                assert_eq!(window.len(), oracle.len());
                assert!(oracle.iter().all(|&id| window.contains(id)));
            }
        }
    }

    #[test]
    fn keys_are_random_and_tell_tenant_from_id() {
        let (one, other) = (Keyer::random(), Keyer::random());
        assert_ne!(one.hash("a", "bc"), one.hash("ab", "c"));
        assert_ne!(one.hash("a", "x"), one.hash("b", "x"));
        assert_ne!(one.hash("a", "x"), other.hash("a", "x"));
        assert_eq!(one.hash("a", "x"), one.hash("a", "x"));
        assert!(!format!("{one:?}").contains(char::is_numeric));
    }

    #[test]
    fn sifting_keeps_the_first_of_each_id() {
        let keyer = Keyer::random();
        let mut window = Window::new(100);
        window.extend([keyer.hash("a", "0")]);
        let parts = [
            part(&keyer, &[("a", "0"), ("a", "1"), ("a", "1"), ("b", "0")]),
            part(&keyer, &[("b", "0"), ("a", "1")]),
            part(&keyer, &[("a", "2")]),
        ];
        let keep = sift(&window, &parts);
        assert_eq!(keep, [&[false, true, false, true][..], &[false, false], &[true]]);
        let sifted = remaining(&parts, keep).unwrap();
        assert_eq!(sifted.kept, [2, 0, 1]);
        assert_eq!(sifted.rows.column(0).as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["a", "b", "a"]);
        assert_eq!(sifted.rows.column(1).as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["1", "0", "2"]);
        assert_eq!(sifted.ids, [keyer.hash("a", "1"), keyer.hash("b", "0"), keyer.hash("a", "2")]);
        assert_eq!(window.len(), 1, "sifting does not change the window");
    }
}
