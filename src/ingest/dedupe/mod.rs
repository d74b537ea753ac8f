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
//! contains the rows that are not stored yet, the counts of duplicates, and the table version with which the rows were
//! compared.
//!
//! **Invariant:** an id counts as stored if and only if its row has been committed.
//! **Invariant:** for each file of the known table version, either the window contains all ids in the file, or lookups
//! read the file.

mod index;

mod window;

mod content_hash;
mod window_coverage;

pub(super) use content_hash::content_hashes;
pub(super) use index::DedupeIndex;
pub(super) use window::{Counts, DedupedBatch, EventKey, EventKeyHasher, PreparedRows};
