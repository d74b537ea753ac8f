//! Group commit: requests that wait for the same table share one commit, and are answered after that commit.
//!
//! ```text
//!   memory ─► a table's queue ─► committer ─► batch (full, or due) ─► store ─► dedupe ─► table.write ─► table.commit
//!   (bytes)                         ▲                                   │
//!                                   └── collects the next meanwhile ────┴─► an answer to each request
//! ```
//!
//! A [`TableQueue`] takes requests ([`WriteRequest`]), each with its [`MemoryReservation`]. The answer to a request is
//! either the counts of its rows ([`Stored`]) or an error.
//!
//! **Invariant:** the memory for a request is reserved before the request is queued. All tables share one memory
//! budget.
//! **Invariant:** each table dedupes, writes and commits one batch at a time, and answers a request only after its
//! commit.

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
