//! Maintains the lake: chooses files to merge, merges them into fewer, larger files, and deletes files that are no longer
//! needed.
//!
//! ```text
//!   Snapshot, time ─► policy ─► Unit ─► merge ─► new files, proved ─► commit (lake)
//!
//!   merge:  inputs ─► cursor (decoded batches) ─► order (keys) ─► gather (columns) ─► output (row groups, files)
//!                         └───────────────── proof: row count and sum of hashes ─────────────┘
//!
//!   vacuum: removed files (log), orphans (listing) ─► candidates ─► deletes
//! ```
//!
//! `docs/maintenance.md` describes the levels of files and the layout of merged files.
//!
//! **Invariant:** a merge returns files only if they contain exactly the rows of its inputs. It never removes a file.
//! **Invariant:** only vacuum deletes files that a log entry may have named.
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

pub mod vacuum;
#[cfg(test)]
mod vacuum_tests;

#[cfg(test)]
mod foreign_files_tests;
#[cfg(test)]
mod merge_tests;
#[cfg(test)]
mod testing;
