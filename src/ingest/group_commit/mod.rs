//! Group commit: several requests that write to the same table share one commit, and are answered after that commit.
//!
//! ```text
//!   memory ─► a table's queue ─► committer ─► batch (full, or due) ─► store ─► dedupe ─► table.write ─► table.commit
//!   (bytes)                         ▲                                   │
//!                                   └── collects the next meanwhile ────┴─► an answer to each request
//! ```
//!
//! A [`TableQueue`] takes requests ([`WriteRequest`]), each with its [`MemoryReservation`]. A request is answered with
//! an error or with a [`Stored`], which says how many rows were stored and how many were duplicates.
//!
//! **Invariant:** the memory for a request is reserved before the request is queued. All tables share one memory
//! budget.
//! **Invariant:** for each table, only one batch at a time is deduped, written and committed. A request is answered
//! only after its commit.

mod reservation;

mod queue;

mod committer;

mod batch;

mod table_writer;

#[cfg(test)]
mod shared_table_tests;

pub use reservation::MemoryReservation;

pub(super) use batch::Stored;
pub(super) use committer::{Committer, ShutdownSignals, TableWriterOpener};
pub(super) use queue::{TableQueue, WriteAnswer, WriteRequest, interrupted, stopping};
pub(super) use reservation::MemoryBudget;
