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

/// Entries of one id that are shown: one a tenant, mostly one.
const SHOWN_MAX: usize = 16;

/// Requests of one tenant that wait to look through a quarantine.
const LOOKS_WAITING_MAX: usize = 4;

/// Rejected events: who may see them, sends them again or drops them.
#[derive(Debug)]
pub struct Quarantine {
    writer: Arc<Writer>,
    sources: Arc<Sources>,
    /// Who looks through quarantines, and changes them, takes turns.
    looks: Semaphore,
    lookers: Slots,
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

impl Quarantine {
    pub(in crate::ingest) fn new(writer: Arc<Writer>, sources: Arc<Sources>) -> Self {
        let lookers = Slots::new(1, LOOKS_WAITING_MAX, writer.limits.queue_wait_max);
        Self { writer, sources, looks: Semaphore::new(1), lookers }
    }

    /// The newest open entries, and how many there are. A tenant sees its own.
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

    /// The open entries of an id with their payloads, which take up the room that is returned. `NotFound` when there are none.
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

    /// Sends the payloads of a page of entries again, as they are.
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

    /// Sends one event in place of the payload of an entry. `Invalid` when it is not one event, or the id is of several
    /// tenants' entries; `NotFound` when no entry of this id is open.
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
            return Err(Error::invalid(format!("several tenants have an entry `{id}`: name the tenant as well")));
        }
        // The same bytes that were rejected more than once are one event: fixed once, it came when the first of them came.
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

    /// Closes entries without their events. They stay in the lake.
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
        let turn =
            tokio::time::timeout(self.writer.limits.queue_wait_max, self.looks.acquire()).await.map_err(|_| busy())?;
        Ok(ScanPermit { _turn: turn.map_err(|_| stopping())?, _slot: slot })
    }

    /// Stores the good events, then closes their entries.
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
    fn again_fixed(&self, body: Body, received: Micros, stamp: &Stamp) -> Result<DecodedEntries> {
        let (rows, rejects) = self.decode(body, stamp)?;
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
