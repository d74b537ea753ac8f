//! Which events a table holds already: each is stored once, whoever sends it how often.
//!
//! ```text
//!   rows ─► marks (keyed hash of tenant and id, fingerprint of the content) ─► memory ─┬─► new: to be written
//!                                                                              │       └─► seen before: counted
//!                              window (the newest ids, in memory) ◄────────────┤
//!                              cover ─► files behind the window, looked into ◄─┘
//! ```
//!
//! In: parts of a batch ([`Part`]). Out: the rows that are stored nowhere yet, counts of the rest, and the version of
//! the table of which that is true ([`DedupedBatch`]).
//!
//! **Invariant:** an id counts as stored when, and only when, the commit of its row has succeeded.
//! **Invariant:** each file of the version that was seen is in the window as a whole, or it is looked into.

mod index;

mod window;

mod content_hash;
mod uncovered_files;

pub(super) use content_hash::fingerprints;
pub(super) use index::DedupeIndex;
pub(super) use window::{Counts, DedupedBatch, EventKey, EventKeyHasher, Part};
