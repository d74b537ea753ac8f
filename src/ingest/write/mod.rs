//! Group commit: requests that wait for a table share one commit, and each is answered after it.
//!
//! ```text
//!   room ─► a table's queue ─► committer ─► batch (full, or due) ─► store ─► dedupe ─► table.write ─► table.commit
//!   (bytes)                       ▲                                   │
//!                                 └── collects the next meanwhile ────┴─► an answer to each request
//! ```
//!
//! In: requests ([`WriteRequest`]), each with its [`MemoryReservation`]. Out: what became of each ([`Stored`]), or why it could not
//! be stored.
//!
//! **Invariant:** all bytes that wait, of all tables together, have room that was given to them before.
//! **Invariant:** of one table one batch at a time is deduped, written and committed, and no answer precedes its commit.

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
