//! Ingest targets: the tables that accept events, and the proof that a caller may send to one of them.
//!
//! In: a caller's [`Access`] and the name of a table. Out: an [`IngestTarget`], which the later steps of the request take
//! instead of both.
//!
//! **Invariant:** only [`IngestTables::authorize`] creates an [`IngestTarget`]: a request is authorised once, and its table is
//! looked up once.
//! **Invariant:** a missing table and a table that the caller may not see produce the same error.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::prepare::Preparer;
use super::write::TableQueue;
use crate::config::QUARANTINE_SUFFIX;
use crate::contract::Owner;
use crate::error::{Error, Result};
use crate::lake::{Table, Tables};
use crate::tenancy::{Access, Scope};

/// A table that accepts events, with its quarantine.
#[derive(Debug)]
pub(in crate::ingest) struct IngestTable {
    pub(in crate::ingest) table: Arc<Table>,
    pub(in crate::ingest) queue: TableQueue,
    pub(in crate::ingest) quarantine: Arc<Table>,
    pub(in crate::ingest) quarantine_queue: TableQueue,
    pub(in crate::ingest) preparer: Preparer,
}

/// All tables of this server.
#[derive(Debug)]
pub(in crate::ingest) struct IngestTables {
    /// All tables of the lake, including quarantines.
    pub(super) lake: Arc<Tables>,
    /// The queue of each table.
    pub(super) queues: BTreeMap<String, TableQueue>,
    /// The tables that accept events.
    pub(super) declared: BTreeMap<String, Arc<IngestTable>>,
}

/// A table, and a caller that may send events to it.
#[derive(Debug, Clone)]
pub struct IngestTarget {
    access: Access,
    table: Arc<IngestTable>,
}

/// The name of a table's quarantine.
pub(super) fn quarantine_of(table: &str) -> String {
    format!("{table}{QUARANTINE_SUFFIX}")
}

/// Whether this is the quarantine of one of the tables.
pub(super) fn is_quarantine(name: &str, tables: &Tables) -> bool {
    name.strip_suffix(QUARANTINE_SUFFIX).is_some_and(|table| tables.contains_key(table))
}

/// The error for a table that is missing or that the caller may not see.
pub(super) fn unknown(table: &str) -> Error {
    Error::not_found(format!("no table `{table}`"))
}

impl IngestTable {
    pub(in crate::ingest) fn name(&self) -> &str {
        &self.table.contract().name
    }
}

impl IngestTables {
    /// The table of this name, if it accepts events.
    pub(in crate::ingest) fn get(&self, table: &str) -> Option<&Arc<IngestTable>> {
        self.declared.get(table)
    }

    /// The table of this name, if the caller may see it. Operators have no row rules: they see every table.
    pub(super) fn visible(&self, access: &Access, table: &str) -> Result<&Arc<IngestTable>> {
        self.get(table).filter(|_| sees(access, table)).ok_or_else(|| unknown(table))
    }

    /// Checks that the caller may send events to this table. `Forbidden` without the scope `ingest` and for a quarantine;
    /// `NotFound` for a table that the caller may not see.
    pub(super) fn authorize(&self, access: &Access, table: &str) -> Result<IngestTarget> {
        access.require(Scope::Ingest)?;
        let is_filled_here = self.get(table).is_none() && self.lake.contains_key(table) && sees(access, table);
        if is_filled_here {
            return Err(Error::forbidden(format!("`{table}` is a quarantine: only the server writes to it")));
        }
        Ok(IngestTarget { access: access.clone(), table: self.visible(access, table)?.clone() })
    }
}

impl IngestTarget {
    /// The access of the caller.
    pub(in crate::ingest) fn access(&self) -> &Access {
        &self.access
    }

    /// The table that the events go to.
    pub(in crate::ingest) fn table(&self) -> &Arc<IngestTable> {
        &self.table
    }
}

fn sees(access: &Access, table: &str) -> bool {
    access.owner() == Owner::PerEvent || access.rules(table).is_some()
}
