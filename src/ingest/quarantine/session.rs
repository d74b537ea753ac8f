//! A caller at one table's quarantine: whether it may be there, which entries it means, and whose turn it is.
//!
//! In: a caller's [`Access`], a table and an [`EntryFilter`]. Out: a [`QuarantineSession`], the proof that the caller may do what it
//! asks for, which all that follows takes.
//!
//! **Invariant:** a tenant's filter names its own entries, whatever it asked for.

use std::sync::Arc;

use super::reader::{EntryCursor, EntryFilter, EntryRange, FoundEntries, QuarantineEntry, QuarantineReader};
use crate::contract::Owner;
use crate::error::{Error, Result};
use crate::ingest::target::{IngestTable, quarantine_of, unknown};
use crate::ingest::write::MemoryReservation;
use crate::ingest::writer::Writer;
use crate::tenancy::{Access, Scope};

/// Entries of one page, replayed, dropped or listed.
pub(super) const PAGE_ENTRIES_MAX: usize = 1_000;

/// Which of the picked entries are taken at once.
#[derive(Debug, Clone)]
pub struct EntryPage {
    /// Those behind this one, in the order of their receipt.
    pub after: Option<EntryCursor>,
    /// At most so many, and never more than a thousand.
    pub limit: usize,
}

/// One table with its quarantine, for a caller who may work on it.
pub(super) struct QuarantineSession<'a> {
    pub(super) access: &'a Access,
    pub(super) table: &'a Arc<IngestTable>,
    pub(super) reader: QuarantineReader<'a>,
    /// The entries that are meant.
    pub(super) pick: EntryFilter,
}

impl<'a> QuarantineSession<'a> {
    /// The session of a caller. Operators need the scope `admin`, tenants `scope` and a quarantine that they may see whole.
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
                // It holds whole events: who sees a part of the table only must not see, nor learn by replay, the rest.
                let rules = access.rules(&quarantine_of(table));
                let whole = rules.is_some_and(|rules| rules.columns.is_none() && rules.rows.is_empty());
                let own = Some(tenant.as_str().to_owned());
                let foreign = pick.tenant.is_some() && pick.tenant != own;
                if foreign {
                    return Err(Error::forbidden("a tenant's token is for its own entries: leave `tenant` out"));
                }
                (whole, EntryFilter { tenant: own, ..pick.clone() })
            }
        };
        let table = if visible { writer.tables.visible(access, table)? } else { return Err(unknown(table)) };
        let reader = QuarantineReader { table: &table.quarantine, key_hasher: table.preparer.key_hasher };
        Ok(Self { access, table, reader, pick })
    }

    /// The picked entries of a page, oldest first, and whether there are more behind them.
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
