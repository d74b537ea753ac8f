//! Reads a table for one caller: prunes files, applies the barrier, selects the newest versions.
//!
//! ```text
//!   tenant_table ─► prune (files by tenant and time) ─► tenant_scan: Parquet ─► barrier ─► newest_versions | open_quarantine
//! ```
//!
//! **Invariant:** a scan is a leaf of the plan: no optimizer moves a user expression below the barrier.

#[cfg(test)]
pub(super) mod newest_testing;
#[cfg(test)]
mod newest_tests;
pub(super) mod newest_versions;
pub(super) mod open_quarantine;
#[cfg(test)]
mod open_quarantine_tests;
pub(super) mod prune;
pub(super) mod row_versions;
pub(super) mod scan_plan;
pub(super) mod scan_spec;
#[cfg(test)]
mod scan_spec_tests;
pub(super) mod tenant_scan;
pub(super) mod tenant_table;
