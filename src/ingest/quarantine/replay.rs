//! Replays and drops quarantine entries, for operators, and for tenants with their own entries.
//!
//! ```text
//!   entries ─► decode (payload, or a fixed event) ─► the table's queue ─► committed ─► closing rows ─► the quarantine's queue
//! ```
//!
//! In: a filter of entries. Out: how many were stored, rejected or dropped. A replayed event keeps its entry's receive time.
//!
//! **Invariant:** an entry is closed after its event is stored. If a replay stops in between, its repetition finds a duplicate
//! event. An entry that is rejected again stays open.
//! **Invariant:** the id of a closing row derives from the entry's id: it is stored once, no matter how often or by whom the
//! entry is closed.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array};
use bytes::{Bytes, BytesMut};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::decode_entry::{DecodedEntry, read_again};
use super::reader::{EntryCount, EntryCursor, EntryFilter, EntryRange, QuarantineEntry, closing_id};
use super::session::{EntryPage, PAGE_ENTRIES_MAX, QuarantineSession};
use crate::clock::Micros;
use crate::contract::{
    ColumnKind, Contract, EventBatch, Format, Kept, Owner, RESOLUTION, RESOLVED_BY, RESOLVES, Reason, Stamp, TenantId,
    decode_messages,
};
use crate::error::{Error, Result};
use crate::ingest::body::Body;
use crate::ingest::dedupe::Part;
use crate::ingest::prepare::Preparer;
use crate::ingest::receipt::Receipt;
use crate::ingest::source::Sources;
use crate::ingest::write::{MemoryReservation, Stored, TableQueue, stopping};
use crate::ingest::writer::Writer;
use crate::tenancy::{Access, Scope, Slot, Slots};

/// The maximum number of entries with one id in a response: one per tenant, usually one in total.
const SHOWN_MAX: usize = 16;

/// The maximum number of waiting quarantine requests of one tenant.
const LOOKS_WAITING_MAX: usize = 4;

/// The service for rejected events: it lists, replays and drops them.
#[derive(Debug)]
pub struct Quarantine {
    writer: Arc<Writer>,
    sources: Arc<Sources>,
    /// Lets one request at a time scan or change quarantines.
    looks: Semaphore,
    lookers: Slots,
}

/// The counts of open entries, and the newest of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QuarantineListing {
    /// The counts by reason and tenant.
    pub counts: Vec<EntryCount>,
    /// The newest entries, newest first, without payloads.
    pub entries: Vec<QuarantineEntry>,
}

/// The result of a replay.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReplayResult {
    /// Entries whose events this replay stored; they are closed.
    pub accepted: u64,
    /// Entries whose events were already stored; they are closed.
    pub duplicate: u64,
    /// Entries that were rejected again; they stay open.
    pub rejected: u64,
    /// The first rejected entries, at most `receipt_rejects_max`.
    pub rejects: Vec<ReplayNote>,
    /// The table version that holds the events (0 if nothing had to be committed).
    pub version: u64,
    /// The cursor of the next page; `None` after the last page.
    pub next: Option<EntryCursor>,
}

/// An entry that was rejected again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayNote {
    /// Its id.
    pub id: String,
    /// Its tenant; empty if unknown.
    pub tenant: String,
    /// The reason of the new rejection.
    pub reason: Reason,
    /// The reason as a sentence for people.
    pub detail: String,
}

/// The result of a drop.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DropResult {
    /// The number of entries that this request dropped.
    pub dropped: u64,
    /// Whether more matching entries are open.
    pub more: bool,
}

/// The result of decoding entries again.
struct DecodedEntries {
    good: Part,
    /// For each entry, the reason why it was rejected again, if it was.
    faults: Vec<Option<(Reason, String)>>,
}

/// A permit to scan a quarantine.
struct ScanPermit<'a> {
    _turn: SemaphorePermit<'a>,
    _slot: Option<Slot>,
}

impl Quarantine {
    pub(in crate::ingest) fn new(writer: Arc<Writer>, sources: Arc<Sources>) -> Self {
        let lookers = Slots::new(1, LOOKS_WAITING_MAX, writer.limits.queue_wait_max);
        Self { writer, sources, looks: Semaphore::new(1), lookers }
    }

    /// Lists the newest open entries and counts all. A tenant sees its own.
    pub async fn list(
        &self,
        access: &Access,
        table: &str,
        pick: &EntryFilter,
        limit: usize,
    ) -> Result<QuarantineListing> {
        let session = QuarantineSession::open(&self.writer, access, table, Scope::Read, pick)?;
        let _turn = self.look(access).await?;
        let mut found = session.reader.find(&session.pick, &EntryRange::Newest(limit.min(PAGE_ENTRIES_MAX))).await?;
        Ok(QuarantineListing { counts: found.take_counts(), entries: session.reader.read(&found, None).await? })
    }

    /// The open entries with an id, with payloads, and the memory reservation that covers the payloads. Fails with `NotFound`
    /// if there are none.
    pub async fn show(
        &self,
        access: &Access,
        table: &str,
        id: &str,
        tenant: Option<&str>,
    ) -> Result<(Vec<QuarantineEntry>, MemoryReservation)> {
        let session = QuarantineSession::open(&self.writer, access, table, Scope::Read, &of_id(id, tenant))?;
        let _turn = self.look(access).await?;
        let found = session.reader.find(&session.pick, &EntryRange::Next(None, SHOWN_MAX)).await?;
        let mut reservation = self.writer.reservation();
        let entries = session.reader.read(&found, Some(&mut reservation)).await?;
        if entries.is_empty() { Err(no_entry(table, id)) } else { Ok((entries, reservation)) }
    }

    /// Replays a page of entries with their payloads unchanged.
    pub async fn replay(
        &self,
        access: &Access,
        table: &str,
        pick: &EntryFilter,
        page: EntryPage,
    ) -> Result<ReplayResult> {
        let _running = self.writer.submits.token();
        let session = QuarantineSession::open(&self.writer, access, table, Scope::Ingest, pick)?;
        let _turn = self.look(access).await?;
        let mut reservation = self.writer.reservation();
        let (entries, more) = session.page(page, Some(&mut reservation)).await?;
        let next = entries.last().filter(|_| more).map(QuarantineEntry::mark);
        let (forms, entries) = (read_again(&self.writer, &self.sources, &entries).await?, Arc::new(entries));
        let (table, stamp, again) = (session.table.clone(), self.writer.stamp(Owner::PerEvent), entries.clone());
        let again = self.writer.decode(move || table.preparer.again(&again, forms, &stamp)).await?;
        let replayed = self.settle(&session, &entries, again).await?;
        Ok(ReplayResult { next, ..replayed })
    }

    /// Replays an entry with a fixed event in place of its payload. Fails with `Invalid` if the body is not exactly one event,
    /// or if several tenants have entries with this id, and with `NotFound` if no entry with this id is open.
    pub async fn replay_fixed(
        &self,
        access: &Access,
        table: &str,
        id: &str,
        tenant: Option<&str>,
        body: Body,
    ) -> Result<ReplayResult> {
        let _running = self.writer.submits.token();
        let session = QuarantineSession::open(&self.writer, access, table, Scope::Ingest, &of_id(id, tenant))?;
        let _turn = self.look(access).await?;
        let (entries, _) = session.page(EntryPage { after: None, limit: SHOWN_MAX }, None).await?;
        let first = entries.first().ok_or_else(|| no_entry(table, id))?;
        if entries.iter().any(|entry| entry.tenant != first.tenant) {
            return Err(Error::invalid(format!("several tenants have an entry `{id}`: set `tenant` as well")));
        }
        // Entries with the same bytes are one event: the fixed event gets the receive time of the first entry.
        let (received, owner) = (first.received, owner(&first.tenant)?);
        let (table, stamp) = (session.table.clone(), self.writer.stamp(owner));
        let again = self.writer.decode(move || table.preparer.again_fixed(body, received, &stamp)).await?;
        let (fault, all) = (again.faults.first().cloned().flatten(), entries.len());
        let replayed = self.settle(&session, &entries, DecodedEntries { faults: vec![fault; all], ..again }).await?;
        Ok(ReplayResult {
            rejected: replayed.rejected.min(1),
            rejects: replayed.rejects.into_iter().take(1).collect(),
            ..replayed
        })
    }

    /// Closes entries without storing their events. The entries stay in the lake.
    pub async fn drop_entries(
        &self,
        access: &Access,
        table: &str,
        pick: &EntryFilter,
        limit: usize,
    ) -> Result<DropResult> {
        let _running = self.writer.submits.token();
        let session = QuarantineSession::open(&self.writer, access, table, Scope::Ingest, pick)?;
        let _turn = self.look(access).await?;
        let (entries, more) = session.page(EntryPage { after: None, limit }, None).await?;
        let dropped = self.close(&session, &entries.iter().collect::<Vec<_>>(), "dropped").await?;
        Ok(DropResult { dropped: dropped.accepted, more })
    }

    /// Waits for the permit to scan and change quarantines. If two requests replay an entry, the second finds it closed. Only
    /// one request of each tenant waits for the permit at a time, so a tenant with many requests does not starve others.
    async fn look(&self, access: &Access) -> Result<ScanPermit<'_>> {
        let busy = || {
            let busy = Error::limited("other requests are scanning quarantines: retry later");
            busy.retry_after(Duration::from_secs(1))
        };
        let slot = match access.owner() {
            Owner::Tenant(tenant) => Some(self.lookers.take(&tenant).await.map_err(|_| busy())?),
            Owner::PerEvent => None,
        };
        let turn =
            tokio::time::timeout(self.writer.limits.queue_wait_max, self.looks.acquire()).await.map_err(|_| busy())?;
        Ok(ScanPermit { _turn: turn.map_err(|_| stopping())?, _slot: slot })
    }

    /// Stores the valid events, then closes their entries.
    async fn settle(
        &self,
        session: &QuarantineSession<'_>,
        entries: &[QuarantineEntry],
        again: DecodedEntries,
    ) -> Result<ReplayResult> {
        let DecodedEntries { good, faults } = again;
        let stored = match good.rows.num_rows() {
            0 => Stored::default(),
            _ => self.store(&session.table.queue, good).await?,
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
            rejects: notes.into_iter().take(self.writer.limits.receipt_rejects_max).collect(),
            version: stored.version,
            next: None,
        };
        let receipt = Receipt { accepted: stored.accepted, duplicate: stored.duplicate, ..Receipt::default() };
        self.writer.count(session.access, session.table.name(), &receipt);
        let closed: Vec<&QuarantineEntry> =
            entries.iter().zip(&faults).filter(|(_, fault)| fault.is_none()).map(|(e, _)| e).collect();
        self.close(session, &closed, "replayed").await?;
        Ok(replayed)
    }

    async fn close(
        &self,
        session: &QuarantineSession<'_>,
        entries: &[&QuarantineEntry],
        how: &'static str,
    ) -> Result<Stored> {
        if entries.is_empty() {
            return Ok(Stored::default());
        }
        let (_, subject, _) = session.access.identity();
        let (table, preparer, now) = (session.table, &session.table.preparer, self.writer.clock.now());
        let rows = closing_rows(&preparer.quarantine, table.name(), entries, (how, subject, now))?;
        let stored = self.store(&table.quarantine_queue, preparer.part(&preparer.quarantine, rows, &[])?).await?;
        self.writer.metrics.quarantine_closed(table.name(), how, stored.accepted);
        Ok(stored)
    }

    async fn store(&self, queue: &TableQueue, part: Part) -> Result<Stored> {
        let mut reservation = self.writer.reservation();
        reservation.resize(part.bytes).await?;
        queue.store(part, reservation).await
    }
}

impl Preparer {
    /// Decodes the payloads of entries, each for its own tenant.
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

    /// Decodes one event and gives it the receive time `received`.
    fn again_fixed(&self, body: Body, received: Micros, stamp: &Stamp) -> Result<DecodedEntries> {
        let (rows, rejects) = self.decode(body, stamp)?;
        let events = rows.num_rows() + rejects.len();
        if events != 1 {
            return Err(Error::invalid(format!(
                "the body holds {events} events: send exactly one, which replaces the entry's payload"
            )));
        }
        let rows = received_at(&self.contract, &rows, vec![received; 1 - rejects.len()])?;
        let fault = rejects.into_iter().next().map(|reject| (reject.reason, reject.detail));
        Ok(DecodedEntries { good: self.good(rows)?, faults: vec![fault] })
    }
}

/// The owner of an entry's event. An entry without a tenant is decoded like an operator's event, which names its tenant.
fn owner(tenant: &str) -> Result<Owner> {
    if tenant.is_empty() { Ok(Owner::PerEvent) } else { TenantId::parse(tenant).map(Owner::Tenant) }
}

fn of_id(id: &str, tenant: Option<&str>) -> EntryFilter {
    EntryFilter { ids: vec![id.to_owned()], tenant: tenant.map(str::to_owned), ..EntryFilter::default() }
}

fn no_entry(table: &str, id: &str) -> Error {
    Error::not_found(format!("no open entry `{id}` in the quarantine of `{table}`"))
}

/// Replaces the receive times of rows.
fn received_at(contract: &Contract, rows: &EventBatch, received: Vec<Micros>) -> Result<EventBatch> {
    let mut columns = rows.columns().to_vec();
    columns[contract.received] = Arc::new(TimestampMicrosecondArray::from(received).with_timezone("UTC"));
    rows.with_columns(columns)
        .map_err(|cause| Error::internal("decoded events do not match their entries").with_source(cause))
}

/// Builds the rows that close entries, with the kind of resolution, the user and the time.
fn closing_rows(
    contract: &Contract,
    table: &str,
    entries: &[&QuarantineEntry],
    (how, by, now): (&str, &str, Micros),
) -> Result<EventBatch> {
    // A page may hold the same entry twice; it needs one closing row.
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
