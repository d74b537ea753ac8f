//! Deduplication: each event is stored once, no matter how often it is sent or who sends it.
//!
//! ```text
//!   rows ─► event keys (keyed hash of tenant and id, hash of the content) ─► index ─┬─► new: to be written
//!                                                                            │      └─► duplicate: counted
//!                     window (the newest ids, in memory) ◄───────────────────┤
//!                     files that the window does not cover, looked up ◄──────┘
//! ```
//!
//! [`DedupeIndex`] takes the rows of several requests ([`PreparedRows`]) and returns a [`DedupedBatch`]. The batch
//! contains the rows that are not stored yet, the counts of duplicates, and the table version that the rows were
//! compared with.
//!
//! **Invariant:** the index contains an id if and only if the row with that id is committed.
//! **Invariant:** each file of the known table version either has all its ids in the window, or is read during lookups.

mod index;
#[cfg(test)]
mod index_tests;

mod window;

mod content_hash;
mod window_coverage;

pub(super) use content_hash::content_hashes;
pub(super) use index::DedupeIndex;
pub(super) use window::{Counts, DedupedBatch, EventKey, EventKeyHasher, PreparedRows};
