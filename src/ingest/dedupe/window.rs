//! The dedupe window: the newest event ids of one table, each a keyed hash of (tenant, id). Exact within its bound.
//!
//! In: parts of a batch, each with the [`EventKey`]s of its rows ([`EventKeyHasher`]). Out: which rows are new ([`compare`]),
//! and a batch of those rows ([`remaining`]). Event keys enter the [`Window`] only after their commit has succeeded, so a failed
//! commit needs no rollback.
//!
//! **Invariant:** the hash is keyed with random bits of this process, so no sender can make two ids collide.
//! **Invariant:** a full window evicts its oldest event key first. A key costs 16 bytes, plus 6 to 12 bytes of index.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::hash::Hasher as _;
use std::sync::Arc;

use arrow::array::{Array, AsArray as _, RecordBatch};
use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use siphasher::sip128::{Hasher128 as _, SipHasher13};

use super::content_hash::UNKNOWN;
use crate::contract::EventBatch;
use crate::error::{Error, Result};
use crate::lake::{InFlightGuard, RowSelection};

/// The growth factor of a small index, and the number of event keys up to which it applies.
const INDEX_STEP: usize = 4;
const INDEX_AHEAD_MAX: usize = 1 << 20;

/// The key of an event: 96 bits of the hash of its (tenant, id), and 32 bits of the hash of its content, if that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ingest) struct EventKey(u128);

impl EventKey {
    const CONTENT_BITS: u128 = 0xffff_ffff << 64;

    fn of(hash: u128, content: u32) -> Self {
        Self(hash & !Self::CONTENT_BITS | u128::from(content) << 64)
    }

    /// Whether both have the same tenant and id.
    fn is(self, other: Self) -> bool {
        (self.0 ^ other.0) & !Self::CONTENT_BITS == 0
    }

    /// Whether two keys of the same event are known to have different content.
    fn contradicts(self, other: Self) -> bool {
        let [one, other] = [self, other].map(|mark| (mark.0 >> 64) as u32);
        one != UNKNOWN && other != UNKNOWN && one != other
    }

    /// The part of the hash that selects a bucket of a hash table.
    #[expect(clippy::cast_possible_truncation, reason = "the low half of a uniform hash is a uniform hash")]
    fn short(self) -> u64 {
        self.0 as u64
    }
}

/// The relation of a row to the stored rows and the rows before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowVerdict {
    /// The first row with its id.
    New,
    /// A duplicate, with the same content as the first row as far as that is known.
    Again,
    /// A duplicate whose content differs from that of the first row.
    Conflict,
}

/// Hashes (tenant, id) to an [`EventKey`] that is valid only in this process.
#[derive(Clone, Copy)]
pub(in crate::ingest) struct EventKeyHasher(SipHasher13);

impl EventKeyHasher {
    /// Creates a hasher with a random key.
    pub(in crate::ingest) fn random() -> Self {
        Self(SipHasher13::new_with_keys(rand::random(), rand::random()))
    }

    /// The hash of one event. It includes the tenant's length, so that ("a", "bc") and ("ab", "c") differ.
    pub(in crate::ingest) fn hash(&self, tenant: &str, id: &str) -> u128 {
        let mut hasher = self.0;
        hasher.write_usize(tenant.len());
        hasher.write(tenant.as_bytes());
        hasher.write(id.as_bytes());
        hasher.finish128().as_u128()
    }

    /// The event keys of rows, in order. `tenant` and `id` are the indexes of text columns without nulls. `contents` holds one
    /// hash per row, or is empty.
    pub(in crate::ingest) fn marks(
        &self,
        rows: &RecordBatch,
        tenant: usize,
        id: usize,
        contents: &[u32],
    ) -> Result<Vec<EventKey>> {
        let text = |column: usize| {
            let array = rows.column(column).as_string_opt::<i32>().filter(|array| array.null_count() == 0);
            array.ok_or_else(|| Error::internal(format!("key column {column} is not text without nulls")))
        };
        let (tenants, ids) = (text(tenant)?, text(id)?);
        let mark = |row| {
            let content = contents.get(row).copied().unwrap_or(UNKNOWN);
            EventKey::of(self.hash(tenants.value(row), ids.value(row)), content)
        };
        Ok((0..rows.num_rows()).map(mark).collect())
    }
}

impl std::fmt::Debug for EventKeyHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EventKeyHasher(secret)")
    }
}

/// The newest event keys, first in, first out.
#[derive(Debug)]
pub(super) struct Window {
    /// A ring buffer once it is full: `oldest` is the next slot to evict.
    marks: Vec<EventKey>,
    oldest: usize,
    /// The slots of `marks`, by hash.
    slots: HashTable<u32>,
    ids_max: usize,
}

impl Window {
    /// Creates an empty window of at most `ids_max` event keys (and never more than 2^32 - 1).
    pub(super) fn new(ids_max: usize) -> Self {
        let ids_max = ids_max.min(u32::MAX as usize);
        Self { marks: Vec::new(), oldest: 0, slots: HashTable::new(), ids_max }
    }

    /// The stored key of the same event, if the window holds it.
    pub(super) fn find(&self, mark: EventKey) -> Option<EventKey> {
        let slot = self.slots.find(mark.short(), |&slot| self.marks[slot as usize].is(mark));
        slot.map(|slot| self.marks[*slot as usize])
    }

    /// The number of event keys.
    pub(super) fn len(&self) -> usize {
        self.marks.len()
    }

    /// Adds stored events, oldest first. Returns the number of events evicted.
    pub(super) fn extend(&mut self, stored: impl IntoIterator<Item = EventKey, IntoIter: ExactSizeIterator>) -> usize {
        let stored = stored.into_iter();
        self.reserve(stored.len());
        stored.filter(|mark| self.push(*mark)).count()
    }

    /// Reserves space in the index. Growing rehashes all entries, so a small index grows in large steps.
    fn reserve(&mut self, more: usize) {
        let wanted = (self.marks.len() + more).min(self.ids_max);
        if wanted > self.slots.capacity() {
            let ahead = (wanted * INDEX_STEP).min(INDEX_AHEAD_MAX).min(self.ids_max);
            let marks = &self.marks;
            self.slots.reserve(wanted.max(ahead) - self.slots.len(), |&other| marks[other as usize].short());
        }
    }

    /// Adds a key, even if the window already holds it. Returns whether a key was evicted, which may be the new one.
    fn push(&mut self, mark: EventKey) -> bool {
        if self.ids_max == 0 {
            return true;
        }
        let full = self.marks.len() == self.ids_max;
        let slot = if full {
            let slot = self.oldest;
            let forgotten = std::mem::replace(&mut self.marks[slot], mark);
            if let Ok(entry) = self.slots.find_entry(forgotten.short(), |&other| other as usize == slot) {
                entry.remove();
            }
            self.oldest = (slot + 1) % self.ids_max;
            slot
        } else {
            if self.marks.len() == self.marks.capacity() {
                // Doubles like any vector, but never exceeds the limit.
                self.marks.reserve_exact(self.marks.len().max(1024).min(self.ids_max - self.marks.len()));
            }
            self.marks.push(mark);
            self.marks.len() - 1
        };
        let slot = u32::try_from(slot).expect("a window has at most 2^32 - 1 slots");
        self.slots.insert_unique(mark.short(), slot, |&other| self.marks[other as usize].short());
        full
    }
}

/// The rows of one request for one table, with their event keys.
#[derive(Debug)]
pub(in crate::ingest) struct Part {
    /// The rows, in the contract's schema.
    pub(in crate::ingest) rows: EventBatch,
    /// One key per row.
    pub(in crate::ingest) marks: Vec<EventKey>,
    /// The memory that the rows occupy, in bytes.
    pub(in crate::ingest) bytes: usize,
    /// The guard that counts the rows as in flight.
    pub(in crate::ingest) held: Option<Arc<InFlightGuard>>,
}

/// The rows of prepared batches that remain after dedupe. One commit stores them.
#[derive(Debug)]
pub(in crate::ingest) struct DedupedBatch {
    /// Rows to store, in order of arrival.
    pub(in crate::ingest) rows: RowSelection,
    /// The keys of these rows.
    pub(in crate::ingest) marks: Vec<EventKey>,
    /// The counts of each part.
    pub(in crate::ingest) counts: Vec<Counts>,
    /// The counts of dropped rows, by tenant.
    pub(in crate::ingest) repeats: BTreeMap<String, Counts>,
    /// The table version against which the rows were compared.
    pub(in crate::ingest) seen: u64,
}

/// Counts of rows by verdict.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::ingest) struct Counts {
    /// New rows.
    pub(in crate::ingest) new: u64,
    /// Duplicates.
    pub(in crate::ingest) repeated: u64,
    /// Duplicates whose content differs from that of the first row.
    pub(in crate::ingest) conflict: u64,
}

impl Counts {
    fn add(&mut self, verdict: RowVerdict) {
        *match verdict {
            RowVerdict::New => &mut self.new,
            RowVerdict::Again | RowVerdict::Conflict => &mut self.repeated,
        } += 1;
        self.conflict += u64::from(verdict == RowVerdict::Conflict);
    }
}

/// The verdict on each row of each part. A row is new if its id is neither in the window nor earlier in the batch.
pub(super) fn compare<P: Borrow<Part>>(window: &Window, parts: &[P]) -> Vec<Vec<RowVerdict>> {
    let rows_max = parts.iter().map(|part| part.borrow().marks.len()).sum();
    let mut seen: HashTable<EventKey> = HashTable::with_capacity(rows_max);
    let mut judge = |mark: EventKey| {
        let first = match seen.entry(mark.short(), |other| other.is(mark), |other| other.short()) {
            Entry::Occupied(first) => Some(*first.get()),
            Entry::Vacant(entry) => {
                let stored = window.find(mark);
                entry.insert(stored.unwrap_or(mark));
                stored
            }
        };
        match first {
            None => RowVerdict::New,
            Some(first) if first.contradicts(mark) => RowVerdict::Conflict,
            Some(_) => RowVerdict::Again,
        }
    };
    parts.iter().map(|part| part.borrow().marks.iter().map(|mark| judge(*mark)).collect()).collect()
}

/// Selects the new rows of the parts, as of version `seen`. `tenant` is the index of the tenant column.
pub(super) fn remaining<P: Borrow<Part>>(
    parts: &[P],
    verdicts: &[Vec<RowVerdict>],
    tenant: usize,
    seen: u64,
) -> Result<DedupedBatch> {
    let (mut marks, mut counts, mut repeats) = (Vec::new(), Vec::with_capacity(parts.len()), BTreeMap::new());
    let (mut rows, mut begin) = (Vec::new(), 0);
    for (part, verdicts) in parts.iter().map(Borrow::borrow).zip(verdicts) {
        let mut count = Counts::default();
        let tenants = part.rows.column(tenant).as_string_opt::<i32>();
        let tenants = tenants.ok_or_else(|| Error::internal("rows without a tenant cannot be counted"))?;
        for (row, (verdict, mark)) in verdicts.iter().zip(&part.marks).enumerate() {
            count.add(*verdict);
            match verdict {
                RowVerdict::New => {
                    marks.push(*mark);
                    rows.push(u32::try_from(begin + row).map_err(|_| Error::internal("a batch has too many rows"))?);
                }
                RowVerdict::Again | RowVerdict::Conflict => {
                    let tenant = tenants.value(row);
                    let of_tenant: &mut Counts = match repeats.get_mut(tenant) {
                        Some(counts) => counts,
                        None => repeats.entry(tenant.to_owned()).or_default(),
                    };
                    of_tenant.add(*verdict);
                }
            }
        }
        begin += verdicts.len();
        counts.push(count);
    }
    let batches: Vec<&EventBatch> = parts.iter().map(|part| &part.borrow().rows).collect();
    let batch = EventBatch::concat(&batches)?;
    Ok(DedupedBatch { rows: RowSelection::new(batch, rows), marks, counts, repeats, seen })
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use arrow::array::{ArrayRef, StringArray};

    use super::*;

    /// Rows of (tenant, id, content).
    fn part(key_hasher: &EventKeyHasher, rows: &[(&str, &str, u32)]) -> Part {
        let tenants: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.0)));
        let ids: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.1)));
        let contents: Vec<u32> = rows.iter().map(|row| row.2).collect();
        let rows = RecordBatch::try_from_iter([("tenant", tenants), ("id", ids)]).unwrap();
        let marks = key_hasher.marks(&rows, 0, 1, &contents).unwrap();
        Part { rows: EventBatch::unchecked(rows), marks, bytes: 0, held: None }
    }

    #[test]
    fn a_window_is_an_exact_queue() {
        // The oracle: a plain queue with linear search.
        for ids_max in [0, 1, 2, 7, 64] {
            let mut window = Window::new(ids_max);
            let mut oracle: VecDeque<EventKey> = VecDeque::new();
            let mut state: u64 = 7;
            for turn in 0..2_000 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                // Few distinct low halves: entries collide in the index and must still be distinguished.
                let mark = EventKey::of(u128::from(state >> 61) | (u128::from((state >> 40) % 40) << 96), turn % 3);
                assert_eq!(window.find(mark).is_some(), oracle.iter().any(|other| other.is(mark)));
                let forgotten = window.extend([mark]);
                oracle.push_back(mark);
                assert_eq!(forgotten, oracle.len().saturating_sub(ids_max));
                oracle.drain(..forgotten);
                assert_eq!(window.len(), oracle.len());
                assert!(oracle.iter().all(|&mark| window.find(mark).is_some()));
            }
        }
    }

    #[test]
    fn hashes_are_keyed_and_separate_tenant_from_id() {
        let (one, other) = (EventKeyHasher::random(), EventKeyHasher::random());
        assert_ne!(one.hash("a", "bc"), one.hash("ab", "c"));
        assert_ne!(one.hash("a", "x"), one.hash("b", "x"));
        assert_ne!(one.hash("a", "x"), other.hash("a", "x"));
        assert_eq!(one.hash("a", "x"), one.hash("a", "x"));
        assert!(!format!("{one:?}").contains(char::is_numeric));
    }

    #[test]
    fn dedupe_keeps_the_first_of_each_id() {
        use RowVerdict::{Again, Conflict, New};
        let key_hasher = EventKeyHasher::random();
        let mut window = Window::new(100);
        window.extend(part(&key_hasher, &[("a", "0", 7), ("b", "9", UNKNOWN)]).marks);
        let parts = [
            part(&key_hasher, &[("a", "0", 7), ("a", "1", 1), ("a", "1", 2), ("b", "0", 1), ("b", "9", 3)]),
            part(&key_hasher, &[("b", "0", UNKNOWN), ("a", "1", 1), ("a", "0", 8), ("a", "0", 7)]),
            part(&key_hasher, &[("a", "2", 5)]),
        ];
        let verdicts = compare(&window, &parts);
        assert_eq!(
            verdicts,
            [vec![Again, New, Conflict, New, Again], vec![Again, Again, Conflict, Again], vec![New]],
            "the first row stays, whatever its content"
        );
        let deduped = remaining(&parts, &verdicts, 0, 7).unwrap();
        let counts = |new, repeated, conflict| Counts { new, repeated, conflict };
        assert_eq!(deduped.counts, [counts(2, 3, 1), counts(0, 4, 1), counts(1, 0, 0)]);
        assert_eq!(deduped.repeats, BTreeMap::from([("a".into(), counts(0, 5, 2)), ("b".into(), counts(0, 2, 0))]));
        let rows = deduped.rows.alone();
        assert_eq!(rows.column(0).as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["a", "b", "a"]);
        assert_eq!(rows.column(1).as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["1", "0", "2"]);
        assert_eq!(deduped.marks, [parts[0].marks[1], parts[0].marks[3], parts[2].marks[0]]);
        assert_eq!(window.len(), 2, "a comparison does not change the window");
    }
}
