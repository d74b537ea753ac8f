//! Maintains the lake: merges the files of tables into fewer, larger files, removes expired rows, and deletes files that
//! are no longer needed.
//!
//! ```text
//!   service, compact ─► table_merger ─► lease ─► merge ─► new files, proved ─► replace (lake)
//!                            │                    ▲
//!                            └─► policy ─► Unit ──┘      threads: low priority, CPU limit
//!
//!   Snapshot, time ─► retention ─► files with only expired rows ─► delete (lake)
//!
//!   merge:  inputs ─► cursor (decoded batches, without expired rows) ─► order (keys) ─► gather (columns) ─► output (row groups, files)
//!                         └───────────────── proof: row count and sum of hashes ─────────────┘
//!
//!   vacuum: removed files (log), orphans (listing) ─► candidates ─► deletes
//! ```
//!
//! `docs/maintenance.md` describes the levels of files and the layout of merged files.
//!
//! **Invariant:** a merge returns files only if they contain exactly the rows of its inputs, except expired ones. It
//! never removes a file.
//! **Invariant:** only expired rows are removed.
//! **Invariant:** only vacuum deletes files that a log entry may have named.
//! **Invariant:** a merge never loads all its inputs. Its memory has a limit that does not depend on their size.
//! **Invariant:** nothing in this module is on the path of an append or a query.

pub mod file_cuts;
pub mod file_name;
pub mod policy;
#[cfg(test)]
mod policy_tests;

mod ranges;

pub mod retention;
#[cfg(test)]
mod retention_tests;

pub mod merge;

mod cursor;
pub mod expired_rows;
mod gather;
mod order;
mod output;
mod proof;
mod uploads;

mod threads;

mod compact;
mod service;

mod table_merger;

mod housekeeping;
mod table_vacuum;
mod unit_name;

pub mod vacuum;
#[cfg(test)]
mod vacuum_tests;

#[cfg(test)]
mod foreign_files_tests;
#[cfg(test)]
mod merge_tests;
#[cfg(test)]
mod service_tests;
#[cfg(test)]
mod testing;

pub use compact::{CompactProgress, Compacted, Compaction, Extent};
pub use service::{Maintenance, TableHealth, levels};
pub use table_merger::MergeState;
pub use threads::MergeThreads;
