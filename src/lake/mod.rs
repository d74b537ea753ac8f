//! Event storage: open Delta tables of Parquet files in one object store.
//!
//! ```text
//!   batch ─► write (sorted Parquet + statistics) ─► log (put-if-absent of the next entry) ─► Snapshot
//!                                                        ▲                                    │
//!   other writers' entries ── refresh ───────────────────┘            checkpoint, clean-up ◄──┘
//! ```
//!
//! Each table also tracks the events in flight to it on this server ([`InFlight`]), which writers report and queries read.
//!
//! **Invariant:** the Delta log is the only state: a process may die at any time without losing acknowledged events.
//! **Invariant:** a snapshot is immutable and complete; a newer one replaces it as a whole.
//! **Invariant:** a put returns when it is durable, and a log entry is put only if its version has none.
//! **Invariant:** this is the only module that uses `deltalake`.

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
