//! Deduplication: each event is stored once, no matter how often or by whom it is sent.
//!
//! ```text
//!   rows ─► event keys (keyed hash of tenant and id, hash of the content) ─► index ─┬─► new: to be written
//!                                                                            │      └─► duplicate: counted
//!                     window (the newest ids, in memory) ◄───────────────────┤
//!                     uncovered files (older than the window), looked up ◄───┘
//! ```
//!
//! In: parts of a batch ([`Part`]). Out: the rows that are not stored yet, counts of the rest, and the table version for which
//! that holds ([`DedupedBatch`]).
//!
//! **Invariant:** an id counts as stored if and only if the commit of its row has succeeded.
//! **Invariant:** the window holds all ids of a file of the version that was seen, or lookups read that file.

mod index;

mod window;

mod content_hash;
mod uncovered_files;

pub(super) use content_hash::fingerprints;
pub(super) use index::DedupeIndex;
pub(super) use window::{Counts, DedupedBatch, EventKey, EventKeyHasher, Part};
