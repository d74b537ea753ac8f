//! Reads single files for deduplication, the quarantine and merges. Queries use the scan in `query` instead.
//!
//! ```text
//!   file ─► object_reader ─┬─► event_keys ─► dedupe index
//!                          ├─► bloom_filters ─► event_lookup ─► which events are stored
//!                          ├─► row_reader ─► rows
//!                          └─► row_group_decoder ─► all columns of a row group
//! ```
//!
//! A rewrite removes files from the table, but they stay in the store for a while. They are read where they lie. A file
//! that the store no longer has is reported ([`ReadError::Missing`](read_error::ReadError::Missing)), so that the
//! caller reads the files that replaced it.
//!
//! **Invariant:** apart from a file's footer, only pages of the requested columns are fetched.

pub(super) mod bloom_filters;
pub(super) mod event_keys;
pub(super) mod event_lookup;
#[cfg(test)]
mod event_lookup_tests;
pub(super) mod object_reader;
pub(super) mod read_error;
pub(super) mod row_group_decoder;
pub(super) mod row_reader;
