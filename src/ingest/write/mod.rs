//! Group commit: requests that wait for the same table share one commit, and each is answered after it.
//!
//! ```text
//!   memory ─► a table's queue ─► committer ─► batch (full, or due) ─► store ─► dedupe ─► table.write ─► table.commit
//!   (bytes)                         ▲                                   │
//!                                   └── collects the next meanwhile ────┴─► an answer to each request
//! ```
//!
//! In: requests ([`WriteRequest`]), each with its [`MemoryReservation`]. Out: the outcome of each ([`Stored`]), or the error.
//!
//! **Invariant:** memory is reserved for all bytes that wait, across all tables, before they are queued.
//! **Invariant:** each table dedupes, writes and commits one batch at a time, and no answer precedes its commit.

mod reservation;

mod queue;

mod committer;

mod batch;

mod table_writer;

#[cfg(test)]
mod shared_table_tests;

pub use reservation::MemoryReservation;

pub(super) use batch::Stored;
pub(super) use committer::{Committer, Ending, Opening};
pub(super) use queue::{TableQueue, WriteAnswer, WriteRequest, interrupted, stopping};
pub(super) use reservation::MemoryBudget;
