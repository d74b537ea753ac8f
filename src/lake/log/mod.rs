//! The Delta log of a table: replays log entries to compute a table's state, commits new entries, and writes
//! checkpoints.
//!
//! ```text
//!   delta_log (entries, put if absent) ─► table_state ─┬─► snapshot (live_files by day, with stats)
//!        ▲                                    ▲        └─► file_history (recent changes of files)
//!        │                                    └── checkpoint (load, write) ◄─ log_maintenance (due? thin, clean)
//!        └── entry_put (retries, doubts) ◄─┬─ commit (files + transactions)
//!                                          ├─ replace (files by other files)
//!                                          ├─ missing_files (files that the store has lost)
//!                                          └─ fence (an entry without changes, for vacuum)
//!
//!   delta_schema: contract ─► Delta schema
//! ```
//!
//! **Invariant:** an entry is written only if its version has no entry yet. A snapshot is immutable, and a newer
//! snapshot replaces it as a whole.
//! **Invariant:** `replace` is the only code that removes a file from a table whose rows can be read. It keeps the rows.

pub(super) mod checkpoint;
pub(super) mod checkpoint_rows;
pub(super) mod commit;
#[cfg(test)]
mod commit_deadline_tests;
pub(super) mod data_file;
pub(super) mod day_files;
pub(super) mod delta_log;
pub(super) mod delta_schema;
pub(super) mod entry_put;
pub(super) mod fence;
pub(super) mod file_history;
pub(super) mod live_files;
#[cfg(test)]
mod live_files_tests;
pub(super) mod log_maintenance;
#[cfg(test)]
mod log_maintenance_tests;
pub(super) mod missing_files;
pub(super) mod removed_files;
pub(super) mod replace;
#[cfg(test)]
mod replace_tests;
pub(super) mod snapshot;
pub(super) mod stats;
pub(super) mod table_state;
