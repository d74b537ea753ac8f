//! Ingest targets: the tables that accept events, and the proof that a caller may send events to a table.
//!
//! [`IngestTables::authorize`] takes a caller's [`Access`] and a table name, and returns an [`IngestTarget`]. The later
//! steps of a request need only this target, not the access or the name.
//!
//! **Invariant:** only [`IngestTables::authorize`] creates an [`IngestTarget`], so the steps that need a target cannot
//! run for an unauthorized caller.
//! **Invariant:** a table that does not exist and a table that the caller may not see produce the same error.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::group_commit::TableQueue;
use super::prepare::Preparer;
use crate::config::QUARANTINE_SUFFIX;
use crate::contract::Owner;
use crate::error::{Error, Result};
use crate::lake::{Table, Tables};
use crate::tenancy::{Access, Scope};

/// A table that accepts events, and its quarantine.
#[derive(Debug)]
pub(in crate::ingest) struct IngestTable {
    pub(in crate::ingest) table: Arc<Table>,
    pub(in crate::ingest) queue: TableQueue,
    pub(in crate::ingest) quarantine: Arc<Table>,
    pub(in crate::ingest) quarantine_queue: TableQueue,
    pub(in crate::ingest) preparer: Preparer,
}

/// All tables of this server, and their queues.
#[derive(Debug)]
pub(in crate::ingest) struct IngestTables {
    /// All tables of the lake, including quarantines.
    pub(super) lake: Arc<Tables>,
    /// The queue of each table, including quarantines.
    pub(super) queues: BTreeMap<String, TableQueue>,
    /// The tables that the configuration declares. Only these tables accept events.
    pub(super) declared: BTreeMap<String, Arc<IngestTable>>,
}

/// A table, and a caller that may send events to it.
#[derive(Debug, Clone)]
pub struct IngestTarget {
    access: Access,
    table: Arc<IngestTable>,
}

/// Returns the name of a table's quarantine.
pub(super) fn quarantine_of(table: &str) -> String {
    format!("{table}{QUARANTINE_SUFFIX}")
}

/// Returns true if `name` is the name of a table's quarantine.
pub(super) fn is_quarantine(name: &str, tables: &Tables) -> bool {
    name.strip_suffix(QUARANTINE_SUFFIX).is_some_and(|table| tables.contains_key(table))
}

/// Creates the error for a table that does not exist or that the caller may not see.
pub(super) fn unknown_table(table: &str) -> Error {
    Error::not_found(format!("no table `{table}`"))
}

impl IngestTable {
    pub(in crate::ingest) fn name(&self) -> &str {
        &self.table.contract().name
    }
}

impl IngestTables {
    /// Returns the table with this name if it accepts events.
    pub(in crate::ingest) fn get(&self, table: &str) -> Option<&Arc<IngestTable>> {
        self.declared.get(table)
    }

    /// Returns the table with this name. Fails with `NotFound` if the table does not accept events or the caller may
    /// not see it.
    pub(super) fn visible(&self, access: &Access, table: &str) -> Result<&Arc<IngestTable>> {
        self.get(table).filter(|_| sees(access, table)).ok_or_else(|| unknown_table(table))
    }

    /// Returns the table with this name. The name may also be the second name of a `latest` table, under which queries
    /// see all stored versions. Fails with `NotFound` if there is no such table or the caller may not see the table.
    pub(super) fn shown_as(&self, access: &Access, name: &str) -> Result<&Arc<IngestTable>> {
        let shows_changes = |table: &&Arc<IngestTable>| {
            table.table.contract().changes_name().is_some_and(|changes| changes == name) && sees(access, table.name())
        };
        self.visible(access, name).or_else(|unknown| self.declared.values().find(shows_changes).ok_or(unknown))
    }

    /// Checks that the caller may send events to the table with this name. Fails with `NotFound` if the caller may not
    /// see the table. Fails with `Forbidden` if the caller lacks the `ingest` scope or if the table is a quarantine.
    pub(super) fn authorize(&self, access: &Access, table: &str) -> Result<IngestTarget> {
        access.require(Scope::Ingest)?;
        let is_visible_quarantine = self.get(table).is_none() && self.lake.contains_key(table) && sees(access, table);
        if is_visible_quarantine {
            return Err(Error::forbidden(format!("`{table}` is a quarantine: only the server writes to it")));
        }
        Ok(IngestTarget { access: access.clone(), table: self.visible(access, table)?.clone() })
    }
}

impl IngestTarget {
    /// Returns the caller's access.
    pub(in crate::ingest) fn access(&self) -> &Access {
        &self.access
    }

    /// Returns the table to which the events are written.
    pub(in crate::ingest) fn table(&self) -> &Arc<IngestTable> {
        &self.table
    }
}

/// Returns true if the caller may see the table. An operator sees every table.
fn sees(access: &Access, table: &str) -> bool {
    access.owner() == Owner::PerEvent || access.rules(table).is_some()
}
