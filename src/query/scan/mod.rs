//! Reads a table or a lookup table for a caller. A scan of a table selects files, selects the latest versions if the table declares `latest`, and
//! filters the rows in the tenant barrier.
//!
//! ```text
//!   table_provider ─► file_pruning (by tenant and time) ─► scan_spec ─► tenant_scan (plan leaf)
//!                                                                            │
//!          physical_plan: Parquet ─► latest_versions or open_quarantine_entries ─► barrier ─► the user's plan
//!
//!   lookup_provider (rows of the tenant) ─► lookup_scan (plan leaf): row rules ─► the user's plan
//! ```
//!
//! **Invariant:** a scan is a leaf of the plan, so no optimizer can move a user expression into the scan, before the
//! tenant barrier.

pub(super) mod file_pruning;
#[cfg(test)]
pub(super) mod latest_testing;
#[cfg(test)]
mod latest_tests;
pub(super) mod latest_versions;
pub(super) mod latest_versions_exec;
pub(super) mod lookup_provider;
pub(super) mod lookup_scan;
pub(super) mod open_quarantine_entries;
#[cfg(test)]
mod open_quarantine_entries_tests;
pub(super) mod physical_plan;
#[cfg(test)]
mod retention_tests;
pub(super) mod scan_spec;
#[cfg(test)]
mod scan_spec_tests;
pub(super) mod session_relation;
pub(super) mod table_provider;
pub(super) mod table_source;
pub(super) mod tenant_scan;
