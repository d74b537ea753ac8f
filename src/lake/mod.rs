//! Where events rest: open Delta tables of Parquet on one object store.
//!
//! ```text
//!   batch ─► write (sorted Parquet + statistics) ─► log (put-if-absent of the next entry) ─► Snapshot
//!                                                        ▲                                    │
//!   other writers' entries ── refresh ───────────────────┘            checkpoint, clean-up ◄──┘
//! ```
//!
//! Beside a table stands what is on its way into it on this server ([`Inflow`]): there writers and readers meet.
//!
//! **Invariant:** the Delta log is the only state: a process may die at any instant and nothing acknowledged is lost.
//! **Invariant:** a snapshot is immutable and complete; the newest one is swapped in, never edited.
//! **Invariant:** a put counts when it is durable, and a log entry is put only where there is none.
//! **Invariant:** this is the only module that knows `deltalake`.

mod folder;
mod store;
mod table;

mod open;
mod schema;

mod stats;

mod labels;

mod file;
mod gather;

mod write;

mod commit;
mod log;
mod snapshot;
mod state;

mod checkpoint;
mod filters;
mod inflow;
mod keys;
mod lookup;
mod reader;
mod rows;

#[cfg(test)]
mod faults;
#[cfg(test)]
mod labels_tests;
#[cfg(test)]
mod lookup_tests;
#[cfg(test)]
mod tests;

pub use commit::Committed;
pub use inflow::{Feed, Held, Inflow, SourceLag, Standing, Watermark};
pub use lookup::Keys;
pub use snapshot::{DataFile, Progress, Snapshot};
pub use store::Store;
pub use table::{Table, Tables};
pub use write::{Chosen, WriteOptions};
