//! Where events rest: open Delta tables of Parquet on one object store.
//!
//! ```text
//!   batch ─► write (sorted Parquet + statistics) ─► log (put-if-absent of the next entry) ─► Snapshot
//!                                                        ▲                                    │
//!   other writers' entries ── refresh ───────────────────┘            checkpoint, clean-up ◄──┘
//! ```
//!
//! Beside a table stands what is on its way into it on this server ([`InFlight`]): there writers and readers meet.
//!
//! **Invariant:** the Delta log is the only state: a process may die at any instant and nothing acknowledged is lost.
//! **Invariant:** a snapshot is immutable and complete; the newest one is swapped in, never edited.
//! **Invariant:** a put counts when it is durable, and a log entry is put only where there is none.
//! **Invariant:** this is the only module that knows `deltalake`.

mod log;
mod read;
mod store;
mod table;
mod write;

mod open;

mod in_flight;

#[cfg(test)]
mod tests;

pub use in_flight::{InFlight, InFlightGuard, LagState, PartitionFeed, SourceLag, Watermark};
pub use log::commit::Committed;
pub use log::snapshot::{DataFile, Progress, Snapshot};
pub use read::event_lookup::EventKeys;
pub use store::client::Store;
pub use table::{Table, Tables};
pub use write::sort::{RowSelection, WriteOptions};
