//! The dedupe window, which contains the newest event ids of one table. Each id is stored as a keyed hash of the tenant
//! and the id.
//!
//! [`EventKeyHasher`] computes the [`EventKey`]s of a request's rows. [`compare`] classifies the rows of a batch as
//! new, duplicate or conflicting, and [`select_new`] selects the new ones for the commit. Event keys enter the
//! [`Window`] only after their commit has succeeded, so a failed commit needs no rollback.
//!
//! **Invariant:** the key of the hash is random and known only to this process, so no sender can construct ids whose
//! hashes collide.
//! **Invariant:** a full window evicts its oldest event key first. An event key takes 16 bytes, plus 6 to 12 bytes in
//! the hash table.

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

/// The ratio between the capacity that a small hash table reserves and the capacity that it needs.
const SMALL_TABLE_GROWTH: usize = 4;
/// A hash table with at most this many event keys reserves more capacity than it needs.
const SMALL_TABLE_KEYS_MAX: usize = 1 << 20;

/// The key of an event: 96 bits from the hash of its tenant and id, and 32 bits from the hash of its content. The
/// content bits are [`UNKNOWN`] if the content is not known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::ingest) struct EventKey(u128);

impl EventKey {
    const CONTENT_BITS: u128 = 0xffff_ffff << 64;

    fn of(hash: u128, content: u32) -> Self {
        Self(hash & !Self::CONTENT_BITS | u128::from(content) << 64)
    }

    /// Returns true if both keys belong to the same tenant and id.
    fn is_same_event(self, other: Self) -> bool {
        (self.0 ^ other.0) & !Self::CONTENT_BITS == 0
    }

    /// Returns true if the content of both keys is known and differs.
    fn has_other_content(self, other: Self) -> bool {
        let [content, other] = [self, other].map(|key| (key.0 >> 64) as u32);
        content != UNKNOWN && other != UNKNOWN && content != other
    }

    /// Returns the bits of the hash that select a bucket in a hash table.
    #[expect(clippy::cast_possible_truncation, reason = "the low half of a uniform hash is a uniform hash")]
    fn bucket_hash(self) -> u64 {
        self.0 as u64
    }
}

/// Whether a row has the same id and content as a stored row or an earlier row of the batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum RowVerdict {
    /// No stored row and no earlier row of the batch has the same id.
    New,
    /// A stored row or an earlier row of the batch has the same id, and its content is the same or unknown.
    Duplicate,
    /// A stored row or an earlier row of the batch has the same id but different content.
    Conflict,
}

/// Computes event keys. Event keys are valid only in this process, because the hash has a random key.
#[derive(Clone, Copy)]
pub(in crate::ingest) struct EventKeyHasher(SipHasher13);

impl EventKeyHasher {
    /// Creates a hasher with a new random key.
    pub(in crate::ingest) fn random() -> Self {
        Self(SipHasher13::new_with_keys(rand::random(), rand::random()))
    }

    /// Returns the hash of one event. The hash also covers the length of the tenant's name, so ("a", "bc") and ("ab",
    /// "c") have different hashes.
    pub(in crate::ingest) fn hash(&self, tenant: &str, id: &str) -> u128 {
        let mut hasher = self.0;
        hasher.write_usize(tenant.len());
        hasher.write(tenant.as_bytes());
        hasher.write(id.as_bytes());
        hasher.finish128().as_u128()
    }

    /// Returns the event key of each row. `tenant` and `id` are the indexes of text columns without nulls.
    /// `content_hashes` contains one hash per row, or is empty if the content is not known.
    pub(in crate::ingest) fn keys(
        &self,
        rows: &RecordBatch,
        tenant: usize,
        id: usize,
        content_hashes: &[u32],
    ) -> Result<Vec<EventKey>> {
        let strings = |column: usize| {
            let array = rows.column(column).as_string_opt::<i32>().filter(|array| array.null_count() == 0);
            array.ok_or_else(|| Error::internal(format!("key column {column} must be text without nulls")))
        };
        let (tenants, ids) = (strings(tenant)?, strings(id)?);
        let key = |row| {
            let content = content_hashes.get(row).copied().unwrap_or(UNKNOWN);
            EventKey::of(self.hash(tenants.value(row), ids.value(row)), content)
        };
        Ok((0..rows.num_rows()).map(key).collect())
    }
}

impl std::fmt::Debug for EventKeyHasher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("EventKeyHasher(secret)")
    }
}

/// A first-in, first-out set of the newest event keys.
#[derive(Debug)]
pub(super) struct Window {
    /// The keys. Once the window is full, each new key replaces the oldest one, as in a ring buffer.
    keys: Vec<EventKey>,
    /// The index of the key that a full window evicts next.
    oldest: usize,
    /// The index of each key in `keys`, by the hash of the key.
    slots: HashTable<u32>,
    /// The maximum number of event keys in the window.
    ids_max: usize,
}

impl Window {
    /// Creates an empty window for at most `ids_max` event keys, or 2^32 - 1 keys if `ids_max` is greater.
    pub(super) fn new(ids_max: usize) -> Self {
        let ids_max = ids_max.min(u32::MAX as usize);
        Self { keys: Vec::new(), oldest: 0, slots: HashTable::new(), ids_max }
    }

    /// Returns the key in the window that belongs to the same event, if there is one.
    pub(super) fn find(&self, key: EventKey) -> Option<EventKey> {
        let slot = self.slots.find(key.bucket_hash(), |&slot| self.keys[slot as usize].is_same_event(key));
        slot.map(|slot| self.keys[*slot as usize])
    }

    /// Returns the number of event keys.
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Adds the keys of stored events, oldest first. Returns the number of evicted keys.
    pub(super) fn extend(&mut self, stored: impl IntoIterator<Item = EventKey, IntoIter: ExactSizeIterator>) -> usize {
        let stored = stored.into_iter();
        self.reserve(stored.len());
        stored.filter(|key| self.push(*key)).count()
    }

    /// Reserves space in the hash table for `more` keys. A table that grows must rehash all its entries. To grow less
    /// often, a small table reserves several times the space that it needs.
    fn reserve(&mut self, more: usize) {
        let wanted = (self.keys.len() + more).min(self.ids_max);
        if wanted > self.slots.capacity() {
            let ahead = (wanted * SMALL_TABLE_GROWTH).min(SMALL_TABLE_KEYS_MAX).min(self.ids_max);
            let keys = &self.keys;
            self.slots.reserve(wanted.max(ahead) - self.slots.len(), |&slot| keys[slot as usize].bucket_hash());
        }
    }

    /// Adds a key, even if the window already contains it. Returns true if a key was evicted. If `ids_max` is 0, drops
    /// the new key and returns true.
    fn push(&mut self, key: EventKey) -> bool {
        if self.ids_max == 0 {
            return true;
        }
        let full = self.keys.len() == self.ids_max;
        let slot = if full {
            let slot = self.oldest;
            let evicted = std::mem::replace(&mut self.keys[slot], key);
            if let Ok(entry) = self.slots.find_entry(evicted.bucket_hash(), |&other| other as usize == slot) {
                entry.remove();
            }
            self.oldest = (slot + 1) % self.ids_max;
            slot
        } else {
            if self.keys.len() == self.keys.capacity() {
                // Double the capacity, as `Vec` does, but never exceed the limit.
                self.keys.reserve_exact(self.keys.len().max(1024).min(self.ids_max - self.keys.len()));
            }
            self.keys.push(key);
            self.keys.len() - 1
        };
        let slot = u32::try_from(slot).expect("a window has at most 2^32 - 1 slots");
        self.slots.insert_unique(key.bucket_hash(), slot, |&other| self.keys[other as usize].bucket_hash());
        full
    }
}

/// The rows of one request for one table, with their event keys.
#[derive(Debug)]
pub(in crate::ingest) struct PreparedRows {
    /// The rows, in the contract's schema.
    pub(in crate::ingest) rows: EventBatch,
    /// The event key of each row.
    pub(in crate::ingest) keys: Vec<EventKey>,
    /// The memory that the rows occupy, in bytes.
    pub(in crate::ingest) bytes: usize,
    /// Until this guard is dropped, the rows count as in flight to the table. `None` if the rows are not counted.
    pub(in crate::ingest) in_flight: Option<Arc<InFlightGuard>>,
}

/// The new rows from a batch of requests. They are stored in a single commit.
#[derive(Debug)]
pub(in crate::ingest) struct DedupedBatch {
    /// The rows to store, in order of arrival.
    pub(in crate::ingest) rows: RowSelection,
    /// The event keys of the rows to store.
    pub(in crate::ingest) keys: Vec<EventKey>,
    /// The counts for each request, in the order of the requests.
    pub(in crate::ingest) counts: Vec<Counts>,
    /// The counts of duplicates, by tenant.
    pub(in crate::ingest) duplicates: BTreeMap<String, Counts>,
    /// The table version that the rows were compared with.
    pub(in crate::ingest) compared_version: u64,
}

/// The number of rows with each verdict.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(in crate::ingest) struct Counts {
    /// The number of new rows.
    pub(in crate::ingest) new: u64,
    /// The number of duplicates, including conflicts.
    pub(in crate::ingest) duplicate: u64,
    /// The number of duplicates whose content differs from that of the first row with the same id.
    pub(in crate::ingest) conflict: u64,
}

impl Counts {
    fn add(&mut self, verdict: RowVerdict) {
        *match verdict {
            RowVerdict::New => &mut self.new,
            RowVerdict::Duplicate | RowVerdict::Conflict => &mut self.duplicate,
        } += 1;
        self.conflict += u64::from(verdict == RowVerdict::Conflict);
    }
}

/// Classifies each row of each request. A row is new if its id is neither in the window nor in an earlier row of the
/// batch.
pub(super) fn compare<P: Borrow<PreparedRows>>(window: &Window, requests: &[P]) -> Vec<Vec<RowVerdict>> {
    let rows_max = requests.iter().map(|request| request.borrow().keys.len()).sum();
    let mut first_keys: HashTable<EventKey> = HashTable::with_capacity(rows_max);
    let mut classify = |key: EventKey| {
        let first =
            match first_keys.entry(key.bucket_hash(), |other| other.is_same_event(key), |other| other.bucket_hash()) {
                Entry::Occupied(first) => Some(*first.get()),
                Entry::Vacant(entry) => {
                    let stored = window.find(key);
                    entry.insert(stored.unwrap_or(key));
                    stored
                }
            };
        match first {
            None => RowVerdict::New,
            Some(first) if first.has_other_content(key) => RowVerdict::Conflict,
            Some(_) => RowVerdict::Duplicate,
        }
    };
    requests.iter().map(|request| request.borrow().keys.iter().map(|key| classify(*key)).collect()).collect()
}

/// Selects the rows that [`compare`] found to be new, and counts the others. `tenant` is the index of the tenant
/// column. `compared_version` is the table version that the rows were compared with.
pub(super) fn select_new<P: Borrow<PreparedRows>>(
    requests: &[P],
    verdicts: &[Vec<RowVerdict>],
    tenant: usize,
    compared_version: u64,
) -> Result<DedupedBatch> {
    let (mut keys, mut counts, mut duplicates) = (Vec::new(), Vec::with_capacity(requests.len()), BTreeMap::new());
    let (mut rows, mut first_row) = (Vec::new(), 0);
    for (request, verdicts) in requests.iter().map(Borrow::borrow).zip(verdicts) {
        let mut count = Counts::default();
        let tenants = request.rows.column(tenant).as_string_opt::<i32>();
        let tenants = tenants.ok_or_else(|| Error::internal("the rows have no tenant column"))?;
        for (row, (verdict, key)) in verdicts.iter().zip(&request.keys).enumerate() {
            count.add(*verdict);
            match verdict {
                RowVerdict::New => {
                    keys.push(*key);
                    let row = u32::try_from(first_row + row);
                    rows.push(row.map_err(|_| Error::internal("a batch has too many rows"))?);
                }
                RowVerdict::Duplicate | RowVerdict::Conflict => {
                    let tenant = tenants.value(row);
                    let tenant_counts: &mut Counts = match duplicates.get_mut(tenant) {
                        Some(counts) => counts,
                        None => duplicates.entry(tenant.to_owned()).or_default(),
                    };
                    tenant_counts.add(*verdict);
                }
            }
        }
        first_row += verdicts.len();
        counts.push(count);
    }
    let batches: Vec<&EventBatch> = requests.iter().map(|request| &request.borrow().rows).collect();
    let batch = EventBatch::concat(&batches)?;
    Ok(DedupedBatch { rows: RowSelection::new(batch, rows), keys, counts, duplicates, compared_version })
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use arrow::array::{ArrayRef, StringArray};

    use super::*;

    /// Creates the rows of a request from the tenant, id and content hash of each row.
    fn request(key_hasher: &EventKeyHasher, rows: &[(&str, &str, u32)]) -> PreparedRows {
        let tenants: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.0)));
        let ids: ArrayRef = Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.1)));
        let content_hashes: Vec<u32> = rows.iter().map(|row| row.2).collect();
        let rows = RecordBatch::try_from_iter([("tenant", tenants), ("id", ids)]).unwrap();
        let keys = key_hasher.keys(&rows, 0, 1, &content_hashes).unwrap();
        PreparedRows { rows: EventBatch::unchecked(rows), keys, bytes: 0, in_flight: None }
    }

    #[test]
    fn a_window_holds_exactly_the_newest_keys() {
        // As a reference, the test uses a plain queue that is searched linearly.
        for ids_max in [0, 1, 2, 7, 64] {
            let mut window = Window::new(ids_max);
            let mut oracle: VecDeque<EventKey> = VecDeque::new();
            let mut state: u64 = 7;
            for step in 0..2_000 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                // The low halves of the hashes have few distinct values, so that many keys share a bucket of the hash
                // table.
                let key = EventKey::of(u128::from(state >> 61) | (u128::from((state >> 40) % 40) << 96), step % 3);
                assert_eq!(window.find(key).is_some(), oracle.iter().any(|other| other.is_same_event(key)));
                let evicted = window.extend([key]);
                oracle.push_back(key);
                assert_eq!(evicted, oracle.len().saturating_sub(ids_max));
                oracle.drain(..evicted);
                assert_eq!(window.len(), oracle.len());
                assert!(oracle.iter().all(|&key| window.find(key).is_some()));
            }
        }
    }

    #[test]
    fn hashes_are_keyed_and_separate_tenant_from_id() {
        let (first, second) = (EventKeyHasher::random(), EventKeyHasher::random());
        assert_ne!(first.hash("a", "bc"), first.hash("ab", "c"));
        assert_ne!(first.hash("a", "x"), first.hash("b", "x"));
        assert_ne!(first.hash("a", "x"), second.hash("a", "x"));
        assert_eq!(first.hash("a", "x"), first.hash("a", "x"));
        assert!(!format!("{first:?}").contains(char::is_numeric));
    }

    #[test]
    fn dedupe_keeps_the_first_of_each_id() {
        use RowVerdict::{Conflict, Duplicate, New};
        let key_hasher = EventKeyHasher::random();
        let mut window = Window::new(100);
        window.extend(request(&key_hasher, &[("a", "0", 7), ("b", "9", UNKNOWN)]).keys);
        let requests = [
            request(&key_hasher, &[("a", "0", 7), ("a", "1", 1), ("a", "1", 2), ("b", "0", 1), ("b", "9", 3)]),
            request(&key_hasher, &[("b", "0", UNKNOWN), ("a", "1", 1), ("a", "0", 8), ("a", "0", 7)]),
            request(&key_hasher, &[("a", "2", 5)]),
        ];
        let verdicts = compare(&window, &requests);
        assert_eq!(
            verdicts,
            [
                vec![Duplicate, New, Conflict, New, Duplicate],
                vec![Duplicate, Duplicate, Conflict, Duplicate],
                vec![New]
            ],
            "the first row with an id is kept, even if later rows have different content"
        );
        let deduped = select_new(&requests, &verdicts, 0, 7).unwrap();
        let counts = |new, duplicate, conflict| Counts { new, duplicate, conflict };
        assert_eq!(deduped.counts, [counts(2, 3, 1), counts(0, 4, 1), counts(1, 0, 0)]);
        assert_eq!(deduped.duplicates, BTreeMap::from([("a".into(), counts(0, 5, 2)), ("b".into(), counts(0, 2, 0))]));
        let rows = deduped.rows.to_batch();
        assert_eq!(rows.column(0).as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["a", "b", "a"]);
        assert_eq!(rows.column(1).as_string::<i32>().iter().flatten().collect::<Vec<_>>(), ["1", "0", "2"]);
        assert_eq!(deduped.keys, [requests[0].keys[1], requests[0].keys[3], requests[2].keys[0]]);
        assert_eq!(window.len(), 2, "a comparison must not change the window");
    }
}
