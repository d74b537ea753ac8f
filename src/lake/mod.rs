//! Where events rest: open Delta tables of Parquet on one object store.
//!
//! ```text
//!   batch ─► write (sorted Parquet + statistics) ─► log (put-if-absent of the next entry) ─► Snapshot
//!                                                        ▲                                    │
//!   other writers' entries ── refresh ───────────────────┘            checkpoint, clean-up ◄──┘
//! ```
//!
//! **Invariant:** the Delta log is the only state: a process may die at any instant and nothing acknowledged is lost.
//! **Invariant:** a snapshot is immutable and complete; the newest one is swapped in, never edited.
//! **Invariant:** this is the only module that knows `deltalake`.

mod checkpoint;
mod log;
mod snapshot;
mod store;
mod table;
mod write;

pub use snapshot::{DataFile, Snapshot};
pub use store::Store;
pub use table::{Table, Tables};
pub use write::WriteOptions;
