//! Entries of a quarantine, sent again or dropped: by operators, and by tenants for their own.
//!
//! ```text
//!   entries ─► decode (payload, or a fixed event) ─► the table's queue ─► committed ─► what closes them ─► quarantine's queue
//! ```
//!
//! In: which entries. Out: what became of them. An event that is stored this way keeps the receive time of its entry.
//!
//! **Invariant:** an entry is closed after its event is stored: a replay that ends in between is repeated, and the event is
//! then a duplicate. What is rejected again stays as it was.
//! **Invariant:** what closes an entry has an id made of the entry's: it is stored once, whoever closes it how often.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array};
use bytes::{Bytes, BytesMut};
use tokio::sync::SemaphorePermit;

use super::decode_entry::DecodedEntry;
use super::reader::{
    EntryCount, EntryCursor, EntryFilter, EntryRange, FoundEntries, QuarantineEntry, QuarantineReader, closing_id,
};
use crate::clock::Micros;
use crate::contract::{
    ColumnKind, Contract, EventBatch, Format, Kept, Owner, RESOLUTION, RESOLVED_BY, RESOLVES, Reason, Stamp, TenantId,
    decode_messages,
};
use crate::error::{Error, Result};
use crate::ingest::dedupe::Part;
use crate::ingest::prepare::Preparer;
use crate::ingest::submit::unknown;
use crate::ingest::write::{MemoryReservation, Stored};
use crate::ingest::{Ingest, Payload, Receipt, TableQueue, quarantine_of, stopping};
use crate::tenancy::{Access, Scope, Slot};

/// Entries of one page, replayed, dropped or listed.
pub(super) const PAGE_ENTRIES_MAX: usize = 1_000;
/// Entries of one id that are shown: one a tenant, mostly one.
const SHOWN_MAX: usize = 16;

/// Which of the picked entries are taken at once.
#[derive(Debug, Clone)]
pub struct EntryPage {
    /// Those behind this one, in the order of their receipt.
    pub after: Option<EntryCursor>,
    /// At most so many, and never more than a thousand.
    pub limit: usize,
}

/// Open entries: how many, and the newest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QuarantineListing {
    /// By reason and tenant.
    pub counts: Vec<EntryCount>,
    /// Newest first, without payloads.
    pub entries: Vec<QuarantineEntry>,
}

/// What became of replayed entries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReplayResult {
    /// Stored now, and closed.
    pub accepted: u64,
    /// Stored before, and closed.
    pub duplicate: u64,
    /// Rejected again, and still open.
    pub rejected: u64,
    /// The first of those: at most `receipt_rejects_max`.
    pub rejects: Vec<ReplayNote>,
    /// The table's version that holds the events (0 when nothing had to be committed).
    pub version: u64,
    /// Where the next page begins; none when this was the last.
    pub next: Option<EntryCursor>,
}

/// An entry that was rejected again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayNote {
    /// Its id.
    pub id: String,
    /// Its tenant, or empty.
    pub tenant: String,
    /// Why, this time.
    pub reason: Reason,
    /// For a person.
    pub detail: String,
}

/// How many entries were dropped.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DropResult {
    /// Now.
    pub dropped: u64,
    /// Whether more of the picked ones are open.
    pub more: bool,
}

/// What entries are when they are decoded again.
struct DecodedEntries {
    good: Part,
    /// Of each entry, why it was rejected again.
    faults: Vec<Option<(Reason, String)>>,
}

/// A turn to look through a quarantine.
struct ScanPermit<'a> {
    _turn: SemaphorePermit<'a>,
    _slot: Option<Slot>,
}

/// One table with its quarantine, for a caller who may work on it.
struct QuarantineSession<'a> {
    table_queue: &'a TableQueue,
    preparer: &'a Preparer,
    queue: &'a TableQueue,
    reader: QuarantineReader<'a>,
    pick: EntryFilter,
}

impl Ingest {
    /// The newest open entries, and how many there are. A tenant sees its own.
    pub async fn quarantine(
        &self,
        access: &Access,
        table: &str,
        pick: &EntryFilter,
        limit: usize,
    ) -> Result<QuarantineListing> {
        let session = self.session(access, table, Scope::Read, pick)?;
        let _turn = self.look(access).await?;
        let mut found = session.reader.find(&session.pick, &EntryRange::Newest(limit.min(PAGE_ENTRIES_MAX))).await?;
        Ok(QuarantineListing { counts: found.take_counts(), entries: session.reader.read(&found, None).await? })
    }

    /// The open entries of an id with their payloads, which take up the room that is returned. `NotFound` when there are none.
    pub async fn quarantined(
        &self,
        access: &Access,
        table: &str,
        id: &str,
        tenant: Option<&str>,
    ) -> Result<(Vec<QuarantineEntry>, MemoryReservation)> {
        let session = self.session(access, table, Scope::Read, &of_id(id, tenant))?;
        let _turn = self.look(access).await?;
        let found = session.reader.find(&session.pick, &EntryRange::Next(None, SHOWN_MAX)).await?;
        let mut reservation = self.reservation();
        let entries = session.reader.read(&found, Some(&mut reservation)).await?;
        if entries.is_empty() { Err(no_entry(table, id)) } else { Ok((entries, reservation)) }
    }

    /// Sends the payloads of a page of entries again, as they are.
    pub async fn replay(
        &self,
        access: &Access,
        table: &str,
        pick: &EntryFilter,
        page: EntryPage,
    ) -> Result<ReplayResult> {
        let _running = self.submits.token();
        let session = self.session(access, table, Scope::Ingest, pick)?;
        let _turn = self.look(access).await?;
        let mut reservation = self.reservation();
        let (entries, more) = session.page(page, Some(&mut reservation)).await?;
        let next = entries.last().filter(|_| more).map(QuarantineEntry::mark);
        let (forms, entries) = (self.read_again(&entries).await?, Arc::new(entries));
        let (taker, stamp, again) = (session.preparer.clone(), self.stamp(Owner::PerEvent), entries.clone());
        let again = self.decode(move || taker.again(&again, forms, &stamp)).await?;
        let replayed = self.settle_again(access, &session, &entries, again).await?;
        Ok(ReplayResult { next, ..replayed })
    }

    /// Sends one event in place of the payload of an entry. `Invalid` when it is not one event, or the id is of several
    /// tenants' entries; `NotFound` when no entry of this id is open.
    pub async fn replay_fixed(
        &self,
        access: &Access,
        table: &str,
        id: &str,
        tenant: Option<&str>,
        payload: Payload,
    ) -> Result<ReplayResult> {
        let _running = self.submits.token();
        let session = self.session(access, table, Scope::Ingest, &of_id(id, tenant))?;
        let _turn = self.look(access).await?;
        let (entries, _) = session.page(EntryPage { after: None, limit: SHOWN_MAX }, None).await?;
        let first = entries.first().ok_or_else(|| no_entry(table, id))?;
        if entries.iter().any(|entry| entry.tenant != first.tenant) {
            return Err(Error::invalid(format!("several tenants have an entry `{id}`: name the tenant as well")));
        }
        // The same bytes that were rejected more than once are one event: fixed once, it came when the first of them came.
        let (received, owner) = (first.received, owner(&first.tenant)?);
        let (taker, stamp) = (session.preparer.clone(), self.stamp(owner));
        let again = self.decode(move || taker.again_fixed(payload, received, &stamp)).await?;
        let (fault, all) = (again.faults.first().cloned().flatten(), entries.len());
        let replayed =
            self.settle_again(access, &session, &entries, DecodedEntries { faults: vec![fault; all], ..again }).await?;
        Ok(ReplayResult {
            rejected: replayed.rejected.min(1),
            rejects: replayed.rejects.into_iter().take(1).collect(),
            ..replayed
        })
    }

    /// Closes entries without their events. They stay in the lake.
    pub async fn drop_quarantined(
        &self,
        access: &Access,
        table: &str,
        pick: &EntryFilter,
        limit: usize,
    ) -> Result<DropResult> {
        let _running = self.submits.token();
        let session = self.session(access, table, Scope::Ingest, pick)?;
        let _turn = self.look(access).await?;
        let (entries, more) = session.page(EntryPage { after: None, limit }, None).await?;
        let dropped = self.close(access, &session, &entries.iter().collect::<Vec<_>>(), "dropped").await?;
        Ok(DropResult { dropped: dropped.accepted, more })
    }

    /// The table's desk. Operators need the scope `admin`, tenants `scope` and a quarantine that they may see whole.
    fn session<'a>(
        &'a self,
        access: &Access,
        table: &str,
        scope: Scope,
        pick: &EntryFilter,
    ) -> Result<QuarantineSession<'a>> {
        if self.ending.hurry.is_cancelled() {
            return Err(stopping());
        }
        access.check_expiry(self.clock.now())?;
        let name = quarantine_of(table);
        let (visible, pick) = match access.owner() {
            Owner::PerEvent => {
                access.require(Scope::Admin)?;
                (true, pick.clone())
            }
            Owner::Tenant(tenant) => {
                access.require(scope)?;
                // It holds whole events: who sees a part of the table only must not see, nor learn by replay, the rest.
                let whole = access.rules(&name).is_some_and(|rules| rules.columns.is_none() && rules.rows.is_empty());
                let own = Some(tenant.as_str().to_owned());
                let foreign = pick.tenant.is_some() && pick.tenant != own;
                if foreign {
                    return Err(Error::forbidden("a tenant's token is for its own entries: leave `tenant` out"));
                }
                (whole && access.rules(table).is_some(), EntryFilter { tenant: own, ..pick.clone() })
            }
        };
        let found = || {
            let table_queue = self.table_queues.get(table)?;
            let (queue, table) = (self.table_queues.get(&name)?, self.tables.get(&name)?);
            Some((table_queue, table_queue.preparer.as_ref()?, queue, table))
        };
        let (table_queue, preparer, queue, table) = found().filter(|_| visible).ok_or_else(|| unknown(table))?;
        Ok(QuarantineSession {
            table_queue,
            preparer,
            queue,
            reader: QuarantineReader { table, key_hasher: preparer.key_hasher },
            pick,
        })
    }

    /// A turn to look through a quarantine, and to change it: of two who replay an entry the second finds it closed. One
    /// request of a tenant waits for it at a time, so that a tenant which asks without end leaves turns to others.
    async fn look(&self, access: &Access) -> Result<ScanPermit<'_>> {
        let busy = || {
            let busy = Error::limited("other requests look through quarantines: send it again later");
            busy.retry_after(Duration::from_secs(1))
        };
        let slot = match access.owner() {
            Owner::Tenant(tenant) => Some(self.lookers.take(&tenant).await.map_err(|_| busy())?),
            Owner::PerEvent => None,
        };
        let turn = tokio::time::timeout(self.limits.queue_wait_max, self.looks.acquire()).await.map_err(|_| busy())?;
        Ok(ScanPermit { _turn: turn.map_err(|_| stopping())?, _slot: slot })
    }

    /// Stores the good events, then closes their entries.
    async fn settle_again(
        &self,
        access: &Access,
        session: &QuarantineSession<'_>,
        entries: &[QuarantineEntry],
        again: DecodedEntries,
    ) -> Result<ReplayResult> {
        let DecodedEntries { good, faults } = again;
        let stored = match good.rows.num_rows() {
            0 => Stored::default(),
            _ => self.store_part(session.table_queue, good).await?,
        };
        let notes = entries.iter().zip(&faults).filter_map(|(entry, fault)| {
            let (reason, detail) = fault.clone()?;
            Some(ReplayNote { id: entry.id.clone(), tenant: entry.tenant.clone(), reason, detail })
        });
        let notes: Vec<ReplayNote> = notes.collect();
        let replayed = ReplayResult {
            accepted: stored.accepted,
            duplicate: stored.duplicate,
            rejected: notes.len() as u64,
            rejects: notes.into_iter().take(self.limits.receipt_rejects_max).collect(),
            version: stored.version,
            next: None,
        };
        let receipt = Receipt { accepted: stored.accepted, duplicate: stored.duplicate, ..Receipt::default() };
        self.count(access, &session.preparer.contract.name, &receipt);
        let closed: Vec<&QuarantineEntry> =
            entries.iter().zip(&faults).filter(|(_, fault)| fault.is_none()).map(|(e, _)| e).collect();
        self.close(access, session, &closed, "replayed").await?;
        Ok(replayed)
    }

    async fn close(
        &self,
        access: &Access,
        session: &QuarantineSession<'_>,
        entries: &[&QuarantineEntry],
        how: &'static str,
    ) -> Result<Stored> {
        if entries.is_empty() {
            return Ok(Stored::default());
        }
        let (_, subject, _) = access.identity();
        let (preparer, now) = (session.preparer, self.clock.now());
        let rows = closing_rows(&preparer.quarantine, &preparer.contract.name, entries, (how, subject, now))?;
        let stored = self.store_part(session.queue, preparer.part(&preparer.quarantine, rows, &[])?).await?;
        self.metrics.quarantine_closed(&preparer.contract.name, how, stored.accepted);
        Ok(stored)
    }

    async fn store_part(&self, table_queue: &TableQueue, part: Part) -> Result<Stored> {
        let (bytes, mut reservation) = (part.rows.plain_bytes(), self.reservation());
        reservation.resize(bytes).await?;
        self.store(&table_queue.queue, part, bytes, reservation).await
    }
}

impl QuarantineSession<'_> {
    /// The picked entries of a page, oldest first, and whether there are more behind them.
    async fn page(
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

impl Preparer {
    /// Decodes what entries hold, each as its own tenant's.
    fn again(&self, entries: &[QuarantineEntry], forms: Vec<DecodedEntry>, stamp: &Stamp) -> Result<DecodedEntries> {
        let (mut rows, mut faults) = (vec![EventBatch::empty(&self.contract)], vec![None; entries.len()]);
        let mut groups: BTreeMap<(&str, Kept), (Format, Vec<usize>)> = BTreeMap::new();
        let mut payloads = Vec::with_capacity(entries.len());
        for (index, (entry, form)) in entries.iter().zip(forms).enumerate() {
            match form {
                Ok((format, payload)) => {
                    groups.entry((&entry.tenant, format.kept_as())).or_insert((format, Vec::new())).1.push(index);
                    payloads.push(payload);
                }
                Err(fault) => {
                    faults[index] = Some(fault);
                    payloads.push(Bytes::new());
                }
            }
        }
        for ((tenant, _), (format, indexes)) in groups {
            let (mut body, mut places) = (BytesMut::new(), Vec::with_capacity(indexes.len()));
            for index in &indexes {
                let start = body.len();
                body.extend_from_slice(&payloads[*index]);
                places.push(start..body.len());
                body.extend_from_slice(b"\n");
            }
            let stamp = Stamp { owner: owner(tenant)?, ..stamp.clone() };
            let body: Bytes = body.freeze();
            let decoded = decode_messages(&self.contract, format, &body, &places, &stamp)?;
            for reject in decoded.rejects {
                faults[indexes[reject.index as usize]] = Some((reject.reason, reject.detail));
            }
            let good = indexes.iter().filter(|index| faults[**index].is_none());
            rows.push(received_at(
                &self.contract,
                &decoded.batch,
                good.map(|index| entries[*index].received).collect(),
            )?);
        }
        Ok(DecodedEntries { good: self.good(self.join(rows)?)?, faults })
    }

    /// Decodes one event that came as `received`.
    fn again_fixed(&self, payload: Payload, received: Micros, stamp: &Stamp) -> Result<DecodedEntries> {
        let (rows, rejects) = self.decode(payload, stamp)?;
        let events = rows.num_rows() + rejects.len();
        if events != 1 {
            return Err(Error::invalid(format!(
                "the body holds {events} events: send the one that takes the entry's place"
            )));
        }
        let rows = received_at(&self.contract, &rows, vec![received; 1 - rejects.len()])?;
        let fault = rejects.into_iter().next().map(|reject| (reject.reason, reject.detail));
        Ok(DecodedEntries { good: self.good(rows)?, faults: vec![fault] })
    }
}

/// Whose an entry's event is. An entry of nobody is decoded like an operator's event, which names its tenant.
fn owner(tenant: &str) -> Result<Owner> {
    if tenant.is_empty() { Ok(Owner::PerEvent) } else { TenantId::parse(tenant).map(Owner::Tenant) }
}

fn of_id(id: &str, tenant: Option<&str>) -> EntryFilter {
    EntryFilter { ids: vec![id.to_owned()], tenant: tenant.map(str::to_owned), ..EntryFilter::default() }
}

fn no_entry(table: &str, id: &str) -> Error {
    Error::not_found(format!("no open entry `{id}` in the quarantine of `{table}`"))
}

/// The rows with these receive times.
fn received_at(contract: &Contract, rows: &EventBatch, received: Vec<Micros>) -> Result<EventBatch> {
    let mut columns = rows.columns().to_vec();
    columns[contract.received] = Arc::new(TimestampMicrosecondArray::from(received).with_timezone("UTC"));
    rows.with_columns(columns)
        .map_err(|cause| Error::internal("decoded events do not match their entries").with_source(cause))
}

/// The rows that close entries: how, by whom and when.
fn closing_rows(
    contract: &Contract,
    table: &str,
    entries: &[&QuarantineEntry],
    (how, by, now): (&str, &str, Micros),
) -> Result<EventBatch> {
    // The same entry twice in a page would be the same row twice.
    let entries: BTreeSet<EntryCursor> = entries.iter().map(|entry| entry.mark()).collect();
    let texts = |text: &dyn Fn(&EntryCursor) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(entries.iter().map(text)))
    };
    let times = |time: &dyn Fn(&EntryCursor) -> Micros| -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from_iter_values(entries.iter().map(time)).with_timezone("UTC"))
    };
    let columns = contract.columns.iter().enumerate().map(|(index, column)| match column.name.as_str() {
        _ if index == contract.tenant => texts(&|entry| entry.tenant().to_owned()),
        _ if index == contract.time => times(&EntryCursor::received),
        _ if index == contract.id => texts(&|entry| closing_id(entry.id(), entry.received())),
        "source_table" => texts(&|_| table.to_owned()),
        RESOLVES => texts(&|entry| entry.id().to_owned()),
        RESOLUTION => texts(&|_| how.to_owned()),
        RESOLVED_BY => texts(&|_| by.to_owned()),
        _ if column.kind == ColumnKind::Timestamp => times(&|_| now),
        _ => new_null_array(&column.kind.data_type(), entries.len()),
    });
    RecordBatch::try_new(contract.schema().clone(), columns.collect())
        .map_err(|cause| Error::internal("cannot build rows that close entries").with_source(cause))
        .and_then(|rows| EventBatch::new(contract, rows))
}
