//! The Delta log of a table: read into a state, extended by commits, checkpointed.
//!
//! ```text
//!   delta_log (entries, put if absent) ─► state ─► snapshot (live files with stats)
//!        ▲                                  ▲
//!        └── commit (files + transactions)  └── checkpoint (load, write)       schema: contract ─► Delta schema
//! ```
//!
//! **Invariant:** an entry is written only with put-if-absent; a snapshot is immutable and swapped as a whole.

pub(super) mod checkpoint;
pub(super) mod commit;
pub(super) mod delta_log;
pub(super) mod schema;
pub(super) mod snapshot;
pub(super) mod state;
pub(super) mod stats;
