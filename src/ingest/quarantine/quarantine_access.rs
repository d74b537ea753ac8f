//! A quarantine session. It checks a caller's access to one table's quarantine, and restricts the caller's filter.
//!
//! [`QuarantineSession::open`] authorizes a caller. All further steps of a request are methods of the session, or take
//! it as an argument, so none of them can be reached without authorization.
//!
//! **Invariant:** whatever filter a tenant sends, the session's filter selects only the tenant's own entries.
//! **Invariant:** the session's filter selects no expired entries, also for operators.

use std::sync::Arc;

use super::reader::{EntryCursor, EntryFilter, EntryRange, FoundEntries, QuarantineEntry, QuarantineReader};
use crate::contract::Owner;
use crate::error::{Error, Result};
use crate::ingest::group_commit::MemoryReservation;
use crate::ingest::target::{IngestTable, quarantine_of, unknown_table};
use crate::ingest::writer::Writer;
use crate::tenancy::{Access, Scope};

/// The maximum number of entries that one request lists, replays or drops.
pub(super) const PAGE_ENTRIES_MAX: usize = 1_000;

/// One page of the matching entries, in the order in which they were received.
#[derive(Debug, Clone)]
pub struct EntryPage {
    /// The page begins after this cursor. Without a cursor, the page begins with the oldest entry.
    pub after: Option<EntryCursor>,
    /// The maximum number of entries on the page. Values above 1000 are treated as 1000.
    pub limit: usize,
}

/// An authorized caller with access to the quarantine of one table.
pub(super) struct QuarantineSession<'a> {
    pub(super) access: &'a Access,
    pub(super) table: &'a Arc<IngestTable>,
    pub(super) reader: QuarantineReader<'a>,
    /// The filter, restricted to the entries that the caller may see.
    pub(super) filter: EntryFilter,
}

impl<'a> QuarantineSession<'a> {
    /// Opens a session. An operator needs the scope `admin`. A tenant needs the given `scope`, and access to all rows
    /// and columns of its own entries.
    pub(super) fn open(
        writer: &'a Writer,
        access: &'a Access,
        table: &str,
        scope: Scope,
        filter: &EntryFilter,
    ) -> Result<Self> {
        writer.admit(access)?;
        let (is_visible, filter) = match access.owner() {
            Owner::PerEvent => {
                access.require(Scope::Admin)?;
                (true, filter.clone())
            }
            Owner::Tenant(tenant) => {
                access.require(scope)?;
                // A quarantine entry contains a whole event. A caller that may see only some columns or rows therefore
                // gets no access, because entries and the results of replays would reveal the other columns and rows.
                let rules = access.rules(&quarantine_of(table));
                let is_unrestricted = rules.is_some_and(|rules| rules.columns.is_none() && rules.rows.is_empty());
                let own = Some(tenant.as_str().to_owned());
                if filter.tenant.is_some() && filter.tenant != own {
                    return Err(Error::forbidden(
                        "a tenant's token gives access only to the tenant's own entries: omit `tenant`",
                    ));
                }
                (is_unrestricted, EntryFilter { tenant: own, ..filter.clone() })
            }
        };
        let table = if is_visible { writer.tables.visible(access, table)? } else { return Err(unknown_table(table)) };
        let kept_since = table.quarantine.contract().retention.bounds(writer.clock.now()).all;
        let filter = EntryFilter { since: filter.since.max(kept_since), ..filter };
        let reader = QuarantineReader { table: &table.quarantine, key_hasher: table.preparer.key_hasher };
        Ok(Self { access, table, reader, filter })
    }

    /// Returns the entries of a page, oldest first. The second value is true if more entries follow the page. Reads
    /// payloads only if `reservation` is given.
    pub(super) async fn page(
        &self,
        page: EntryPage,
        reservation: Option<&mut MemoryReservation>,
    ) -> Result<(Vec<QuarantineEntry>, bool)> {
        let range = EntryRange::Next(page.after, page.limit.clamp(1, PAGE_ENTRIES_MAX));
        let found: FoundEntries = self.reader.find(&self.filter, &range).await?;
        let entries = self.reader.read(&found, reservation).await?;
        Ok((entries, found.more))
    }
}
