//! Maintains the lake: chooses files to merge, and merges them into fewer, larger files.
//!
//! ```text
//!   service, compact ─► table_merger ─► lease ─► merge ─► new files, proved ─► replace (lake)
//!                            │                    ▲
//!                            └─► policy ─► Unit ──┘      threads: low priority, CPU limit
//!
//!   merge:  inputs ─► cursor (decoded batches) ─► order (keys) ─► gather (columns) ─► output (row groups, files)
//!                         └───────────────── proof: row count and sum of hashes ─────────────┘
//! ```
//!
//! `docs/maintenance.md` describes the levels of files and the layout of merged files.
//!
//! **Invariant:** a merge returns files only if they contain exactly the rows of its inputs. It never removes a file.
//! **Invariant:** a merge never loads all its inputs. Its memory has a limit that does not depend on their size.
//! **Invariant:** nothing in this module is on the path of an append or a query.

pub mod file_cuts;
pub mod file_name;
pub mod policy;
#[cfg(test)]
mod policy_tests;

mod ranges;

pub mod merge;

mod cursor;
mod gather;
mod order;
mod output;
mod proof;
mod uploads;

mod threads;

mod compact;
mod service;

mod lease;
mod table_merger;
mod unit_name;

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
