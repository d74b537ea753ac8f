//! A quarantine session: checks a caller's access to one table's quarantine, and restricts its filter.
//!
//! In: a caller's [`Access`], a table and an [`EntryFilter`]. Out: a [`QuarantineSession`], which proves that the caller is
//! authorized. All further steps require it.
//!
//! **Invariant:** a tenant's filter selects only its own entries.

use std::sync::Arc;

use super::reader::{EntryCursor, EntryFilter, EntryRange, FoundEntries, QuarantineEntry, QuarantineReader};
use crate::contract::Owner;
use crate::error::{Error, Result};
use crate::ingest::target::{IngestTable, quarantine_of, unknown};
use crate::ingest::write::MemoryReservation;
use crate::ingest::writer::Writer;
use crate::tenancy::{Access, Scope};

/// The page size limit, for replaying, dropping and listing entries.
pub(super) const PAGE_ENTRIES_MAX: usize = 1_000;

/// One page of the matching entries.
#[derive(Debug, Clone)]
pub struct EntryPage {
    /// Return the entries after this cursor, in the order of their receipt.
    pub after: Option<EntryCursor>,
    /// The maximum number of entries; values above a thousand count as a thousand.
    pub limit: usize,
}

/// A table with its quarantine, for an authorized caller.
pub(super) struct QuarantineSession<'a> {
    pub(super) access: &'a Access,
    pub(super) table: &'a Arc<IngestTable>,
    pub(super) reader: QuarantineReader<'a>,
    /// The filter, restricted to what the caller may see.
    pub(super) pick: EntryFilter,
}

impl<'a> QuarantineSession<'a> {
    /// Opens a caller's session. Operators need the scope `admin`. Tenants need `scope` and unrestricted access to their part
    /// of the quarantine.
    pub(super) fn open(
        writer: &'a Writer,
        access: &'a Access,
        table: &str,
        scope: Scope,
        pick: &EntryFilter,
    ) -> Result<Self> {
        writer.admit(access)?;
        let (visible, pick) = match access.owner() {
            Owner::PerEvent => {
                access.require(Scope::Admin)?;
                (true, pick.clone())
            }
            Owner::Tenant(tenant) => {
                access.require(scope)?;
                // A quarantine holds whole events. A caller with restricted columns or rows must not see the rest,
                // nor infer it by replay.
                let rules = access.rules(&quarantine_of(table));
                let whole = rules.is_some_and(|rules| rules.columns.is_none() && rules.rows.is_empty());
                let own = Some(tenant.as_str().to_owned());
                let foreign = pick.tenant.is_some() && pick.tenant != own;
                if foreign {
                    return Err(Error::forbidden(
                        "a tenant's token gives access only to its own entries: omit `tenant`",
                    ));
                }
                (whole, EntryFilter { tenant: own, ..pick.clone() })
            }
        };
        let table = if visible { writer.tables.visible(access, table)? } else { return Err(unknown(table)) };
        let reader = QuarantineReader { table: &table.quarantine, key_hasher: table.preparer.key_hasher };
        Ok(Self { access, table, reader, pick })
    }

    /// The matching entries of a page, oldest first, and whether more follow.
    pub(super) async fn page(
        &self,
        page: EntryPage,
        reservation: Option<&mut MemoryReservation>,
    ) -> Result<(Vec<QuarantineEntry>, bool)> {
        let want = EntryRange::Next(page.after, page.limit.clamp(1, PAGE_ENTRIES_MAX));
        let found: FoundEntries = self.reader.find(&self.pick, &want).await?;
        let entries = self.reader.read(&found, reservation).await?;
        Ok((entries, found.more))
    }
}
