//! Replays and drops quarantine entries. An operator may replay and drop all entries. A tenant may replay and drop only
//! its own entries.
//!
//! ```text
//!   entries ─► decode (payload or corrected event) ─► the table's queue ─► committed
//!           ─► closing rows ─► the quarantine's queue
//! ```
//!
//! The entries are selected by an [`EntryFilter`]. The result says how many of them were stored, rejected or dropped. A
//! replayed event keeps the receive time of its entry.
//!
//! **Invariant:** a replay closes an entry only after it has stored the event. If a replay is interrupted before it
//! closes the entry, the replay can be repeated, because the event is then recognized as a duplicate. An entry that is
//! rejected again stays open.
//! **Invariant:** the id of a closing row is derived from the id of its entry. An entry therefore has at most one
//! closing row, even if several requests close it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array};
use bytes::{Bytes, BytesMut};
use tokio::sync::{Semaphore, SemaphorePermit};

use super::decode_payloads::{DecodedPayload, decode_payloads};
use super::quarantine_access::{EntryPage, PAGE_ENTRIES_MAX, QuarantineSession};
use super::reader::{EntryCount, EntryCursor, EntryFilter, EntryRange, QuarantineEntry, closing_id};
use crate::clock::Micros;
use crate::contract::{
    ColumnKind, Contract, DecodeOptions, EventBatch, Format, Owner, PayloadFormat, RESOLUTION, RESOLVED_BY, RESOLVES,
    Reason, TenantId, decode_messages,
};
use crate::error::{Error, Result};
use crate::ingest::body::Body;
use crate::ingest::dedupe::PreparedRows;
use crate::ingest::group_commit::{MemoryReservation, Stored, TableQueue, stopping};
use crate::ingest::prepare::Preparer;
use crate::ingest::receipt::Receipt;
use crate::ingest::source::Sources;
use crate::ingest::writer::Writer;
use crate::tenancy::{Access, Scope, Slot, Slots};

/// The maximum number of entries that one request reads if it selects a single id. Usually, there is only one such
/// entry.
const SAME_ID_ENTRIES_MAX: usize = 16;

/// The maximum number of quarantine requests that wait for the slot of one tenant.
const TENANT_REQUESTS_WAITING_MAX: usize = 4;

/// Lists, replays and drops rejected events.
#[derive(Debug)]
pub struct Quarantine {
    writer: Arc<Writer>,
    sources: Arc<Sources>,
    /// Allows only one request at a time to scan or change quarantines.
    scans: Semaphore,
    /// One slot per tenant. A request must hold its tenant's slot while it waits for `scans`.
    tenant_slots: Slots,
}

/// The counts of open entries, and the newest open entries.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct QuarantineListing {
    /// The number of open entries by reason and tenant.
    pub counts: Vec<EntryCount>,
    /// The newest entries, newest first, without payloads.
    pub entries: Vec<QuarantineEntry>,
}

/// The result of a replay.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReplayResult {
    /// The number of entries whose events this replay stored. The replay has closed these entries.
    pub accepted: u64,
    /// The number of entries whose events were already stored. The replay has closed these entries too.
    pub duplicate: u64,
    /// The number of entries that were rejected again. These entries stay open.
    pub rejected: u64,
    /// The first entries that were rejected again, at most `receipt_rejects_max`.
    pub rejects: Vec<ReplayNote>,
    /// The table version that contains the events, or 0 if nothing had to be committed.
    pub version: u64,
    /// The cursor for the next page. `None` if this is the last page.
    pub next: Option<EntryCursor>,
}

/// An entry that was rejected again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplayNote {
    /// The entry's id.
    pub id: String,
    /// The tenant of the entry. Empty if the tenant is unknown.
    pub tenant: String,
    /// The reason for the new rejection.
    pub reason: Reason,
    /// A sentence that explains the reason.
    pub detail: String,
}

/// The result of a drop.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DropResult {
    /// The number of entries that this request dropped.
    pub dropped: u64,
    /// True if further open entries match the filter. Another request can drop them.
    pub more: bool,
}

/// The result of decoding the payloads of entries again.
struct DecodedEntries {
    /// The decoded events.
    good: PreparedRows,
    /// One value per entry: the reason and the detail with which it is rejected again, or `None` if its event was
    /// decoded.
    rejections: Vec<Option<(Reason, String)>>,
}

/// A permit to scan or change quarantines.
struct ScanPermit<'a> {
    _permit: SemaphorePermit<'a>,
    _slot: Option<Slot>,
}

impl Quarantine {
    pub(in crate::ingest) fn new(writer: Arc<Writer>, sources: Arc<Sources>) -> Self {
        let tenant_slots = Slots::new(1, TENANT_REQUESTS_WAITING_MAX, writer.limits.queue_wait_max);
        Self { writer, sources, scans: Semaphore::new(1), tenant_slots }
    }

    /// Checks that the caller may replay and drop entries of `table`. Endpoints use this check before they read a
    /// request's body.
    pub fn authorize_changes(&self, access: &Access, table: &str) -> Result<()> {
        let filter = EntryFilter::default();
        QuarantineSession::open(&self.writer, access, table, Scope::Ingest, &filter).map(|_session| ())
    }

    /// Counts the open entries that match `filter`, and lists the newest of them. A tenant sees only its own entries.
    pub async fn list(
        &self,
        access: &Access,
        table: &str,
        filter: &EntryFilter,
        limit: usize,
    ) -> Result<QuarantineListing> {
        let session = QuarantineSession::open(&self.writer, access, table, Scope::Read, filter)?;
        let _permit = self.scan_permit(access).await?;
        let mut found = session.reader.find(&session.filter, &EntryRange::Newest(limit.min(PAGE_ENTRIES_MAX))).await?;
        Ok(QuarantineListing { counts: found.take_counts(), entries: session.reader.read(&found, None).await? })
    }

    /// Returns the open entries with this id, including their payloads. The second value is the memory reservation for
    /// the payloads. Fails with `NotFound` if no open entry has this id.
    pub async fn show(
        &self,
        access: &Access,
        table: &str,
        id: &str,
        tenant: Option<&str>,
    ) -> Result<(Vec<QuarantineEntry>, MemoryReservation)> {
        let session = QuarantineSession::open(&self.writer, access, table, Scope::Read, &id_filter(id, tenant))?;
        let _permit = self.scan_permit(access).await?;
        let found = session.reader.find(&session.filter, &EntryRange::Next(None, SAME_ID_ENTRIES_MAX)).await?;
        let mut reservation = self.writer.reservation();
        let entries = session.reader.read(&found, Some(&mut reservation)).await?;
        if entries.is_empty() { Err(no_entry(table, id)) } else { Ok((entries, reservation)) }
    }

    /// Replays a page of entries with their original payloads.
    pub async fn replay(
        &self,
        access: &Access,
        table: &str,
        filter: &EntryFilter,
        page: EntryPage,
    ) -> Result<ReplayResult> {
        let _running = self.writer.submits.token();
        let session = QuarantineSession::open(&self.writer, access, table, Scope::Ingest, filter)?;
        let _permit = self.scan_permit(access).await?;
        let mut reservation = self.writer.reservation();
        let (entries, more) = session.page(page, Some(&mut reservation)).await?;
        let next = entries.last().filter(|_| more).map(QuarantineEntry::cursor);
        let (payloads, entries) = (decode_payloads(&self.writer, &self.sources, &entries).await?, Arc::new(entries));
        let (table, stamp, replayed) = (session.table.clone(), self.writer.stamp(Owner::PerEvent), entries.clone());
        let decoded = self.writer.decode(move || table.preparer.decode_entries(&replayed, payloads, &stamp)).await?;
        let replayed = self.store_and_close(&session, &entries, decoded).await?;
        Ok(ReplayResult { next, ..replayed })
    }

    /// Replays an entry with a corrected event instead of its payload. Fails with `Invalid` if the body does not
    /// contain exactly one event, or if entries of several tenants have this id. Fails with `NotFound` if no open entry
    /// has this id.
    pub async fn replay_fixed(
        &self,
        access: &Access,
        table: &str,
        id: &str,
        tenant: Option<&str>,
        body: Body,
    ) -> Result<ReplayResult> {
        let _running = self.writer.submits.token();
        let session = QuarantineSession::open(&self.writer, access, table, Scope::Ingest, &id_filter(id, tenant))?;
        let _permit = self.scan_permit(access).await?;
        let (entries, _) = session.page(EntryPage { after: None, limit: SAME_ID_ENTRIES_MAX }, None).await?;
        let first = entries.first().ok_or_else(|| no_entry(table, id))?;
        if entries.iter().any(|entry| entry.tenant != first.tenant) {
            return Err(Error::invalid(format!("several tenants have an entry `{id}`: set `tenant` to select one")));
        }
        // Entries with the same id contain the same bytes, so they represent a single event. This event gets the
        // receive time of the first entry.
        let (received, owner) = (first.received, owner(&first.tenant)?);
        let (table, stamp) = (session.table.clone(), self.writer.stamp(owner));
        let decoded = self.writer.decode(move || table.preparer.decode_fixed(body, received, &stamp)).await?;
        let rejection = decoded.rejections.first().cloned().flatten();
        let decoded = DecodedEntries { rejections: vec![rejection; entries.len()], ..decoded };
        let replayed = self.store_and_close(&session, &entries, decoded).await?;
        Ok(ReplayResult {
            rejected: replayed.rejected.min(1),
            rejects: replayed.rejects.into_iter().take(1).collect(),
            ..replayed
        })
    }

    /// Closes entries without storing their events. The rows of closed entries remain in the lake.
    pub async fn drop_entries(
        &self,
        access: &Access,
        table: &str,
        filter: &EntryFilter,
        limit: usize,
    ) -> Result<DropResult> {
        let _running = self.writer.submits.token();
        let session = QuarantineSession::open(&self.writer, access, table, Scope::Ingest, filter)?;
        let _permit = self.scan_permit(access).await?;
        let (entries, more) = session.page(EntryPage { after: None, limit }, None).await?;
        let dropped = self.close(&session, &entries.iter().collect::<Vec<_>>(), "dropped").await?;
        Ok(DropResult { dropped: dropped.accepted, more })
    }

    /// Waits for the permit to scan or change quarantines. There is only one permit, so two requests cannot replay the
    /// same entry: the second request finds the entry closed. At any time, at most one request of each tenant waits for
    /// the permit, so a tenant that sends many requests does not delay other tenants.
    async fn scan_permit(&self, access: &Access) -> Result<ScanPermit<'_>> {
        let busy = || {
            let busy = Error::limited("other requests are scanning quarantines: retry later");
            busy.retry_after(Duration::from_secs(1))
        };
        let slot = match access.owner() {
            Owner::Tenant(tenant) => Some(self.tenant_slots.take(&tenant).await.map_err(|_| busy())?),
            Owner::PerEvent => None,
        };
        let permit =
            tokio::time::timeout(self.writer.limits.queue_wait_max, self.scans.acquire()).await.map_err(|_| busy())?;
        Ok(ScanPermit { _permit: permit.map_err(|_| stopping())?, _slot: slot })
    }

    /// Stores the decoded events, and then closes their entries.
    async fn store_and_close(
        &self,
        session: &QuarantineSession<'_>,
        entries: &[QuarantineEntry],
        decoded: DecodedEntries,
    ) -> Result<ReplayResult> {
        let DecodedEntries { good, rejections } = decoded;
        let stored = match good.rows.num_rows() {
            0 => Stored::default(),
            _ => self.store(&session.table.queue, good).await?,
        };
        let notes = entries.iter().zip(&rejections).filter_map(|(entry, rejection)| {
            let (reason, detail) = rejection.clone()?;
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
            entries.iter().zip(&rejections).filter(|(_, rejection)| rejection.is_none()).map(|(e, _)| e).collect();
        self.close(session, &closed, "replayed").await?;
        Ok(replayed)
    }

    /// Closes entries. `resolution` is `replayed` or `dropped`.
    async fn close(
        &self,
        session: &QuarantineSession<'_>,
        entries: &[&QuarantineEntry],
        resolution: &'static str,
    ) -> Result<Stored> {
        if entries.is_empty() {
            return Ok(Stored::default());
        }
        let (_, subject, _) = session.access.identity();
        let (table, preparer, now) = (session.table, &session.table.preparer, self.writer.clock.now());
        let rows = closing_rows(&preparer.quarantine, table.name(), entries, (resolution, subject, now))?;
        let rows = preparer.prepare_rows(&preparer.quarantine, rows, &[])?;
        let stored = self.store(&table.quarantine_queue, rows).await?;
        self.writer.metrics.quarantine_closed(table.name(), resolution, stored.accepted);
        Ok(stored)
    }

    /// Reserves memory for rows and stores them.
    async fn store(&self, queue: &TableQueue, rows: PreparedRows) -> Result<Stored> {
        let mut reservation = self.writer.reservation();
        reservation.resize(rows.bytes).await?;
        queue.store(rows, reservation).await
    }
}

impl Preparer {
    /// Decodes the payloads of entries into rows. Each event gets the tenant and the receive time of its entry.
    fn decode_entries(
        &self,
        entries: &[QuarantineEntry],
        payloads: Vec<DecodedPayload>,
        stamp: &DecodeOptions,
    ) -> Result<DecodedEntries> {
        let (mut rows, mut rejections) = (vec![EventBatch::empty(&self.contract)], vec![None; entries.len()]);
        let mut groups: BTreeMap<(&str, PayloadFormat), (Format, Vec<usize>)> = BTreeMap::new();
        let mut bytes = Vec::with_capacity(entries.len());
        for (index, (entry, payload)) in entries.iter().zip(payloads).enumerate() {
            match payload {
                Ok((format, payload)) => {
                    groups
                        .entry((&entry.tenant, format.payload_format()))
                        .or_insert((format, Vec::new()))
                        .1
                        .push(index);
                    bytes.push(payload);
                }
                Err(rejection) => {
                    rejections[index] = Some(rejection);
                    bytes.push(Bytes::new());
                }
            }
        }
        for ((tenant, _), (format, indexes)) in groups {
            let (mut body, mut ranges) = (BytesMut::new(), Vec::with_capacity(indexes.len()));
            for index in &indexes {
                let start = body.len();
                body.extend_from_slice(&bytes[*index]);
                ranges.push(start..body.len());
                body.extend_from_slice(b"\n");
            }
            let stamp = DecodeOptions { owner: owner(tenant)?, ..stamp.clone() };
            let body: Bytes = body.freeze();
            let decoded = decode_messages(&self.contract, format, &body, &ranges, &stamp)?;
            for reject in decoded.rejects {
                rejections[indexes[reject.index as usize]] = Some((reject.reason, reject.detail));
            }
            let good = indexes.iter().filter(|index| rejections[**index].is_none());
            let received = good.map(|index| entries[*index].received).collect();
            rows.push(with_receive_times(&self.contract, &decoded.batch, received)?);
        }
        Ok(DecodedEntries { good: self.prepare_good_rows(self.join(rows)?)?, rejections })
    }

    /// Decodes a body, which must contain exactly one event. The event gets the receive time `received`.
    fn decode_fixed(&self, body: Body, received: Micros, stamp: &DecodeOptions) -> Result<DecodedEntries> {
        let (rows, rejects) = self.decode(body, stamp)?;
        let events = rows.num_rows() + rejects.len();
        if events != 1 {
            return Err(Error::invalid(format!(
                "the body contains {events} events: send exactly one event, which replaces the entry's payload"
            )));
        }
        let rows = with_receive_times(&self.contract, &rows, vec![received; 1 - rejects.len()])?;
        let rejection = rejects.into_iter().next().map(|reject| (reject.reason, reject.detail));
        Ok(DecodedEntries { good: self.prepare_good_rows(rows)?, rejections: vec![rejection] })
    }
}

/// Returns the owner of an entry's event. If the entry has no tenant, the event itself must name its tenant, as events
/// from operators do.
fn owner(tenant: &str) -> Result<Owner> {
    if tenant.is_empty() { Ok(Owner::PerEvent) } else { TenantId::parse(tenant).map(Owner::Tenant) }
}

/// Creates a filter for the entries with this id.
fn id_filter(id: &str, tenant: Option<&str>) -> EntryFilter {
    EntryFilter { ids: vec![id.to_owned()], tenant: tenant.map(str::to_owned), ..EntryFilter::default() }
}

fn no_entry(table: &str, id: &str) -> Error {
    Error::not_found(format!("no open entry `{id}` in the quarantine of `{table}`"))
}

/// Sets the receive time of each row.
fn with_receive_times(contract: &Contract, rows: &EventBatch, received: Vec<Micros>) -> Result<EventBatch> {
    let mut columns = rows.columns().to_vec();
    columns[contract.received] = Arc::new(TimestampMicrosecondArray::from(received).with_timezone("UTC"));
    rows.with_columns(columns).map_err(|cause| {
        Error::internal("the number of decoded events differs from the number of entries").with_source(cause)
    })
}

/// Builds the rows that close entries. Each row records the resolution, the subject of the caller's token, and the
/// time.
fn closing_rows(
    contract: &Contract,
    table: &str,
    entries: &[&QuarantineEntry],
    (resolution, user, now): (&str, &str, Micros),
) -> Result<EventBatch> {
    // Remove repeated entries, because a page can contain an entry twice, and each entry needs only one closing row.
    let entries: BTreeSet<EntryCursor> = entries.iter().map(|entry| entry.cursor()).collect();
    let strings = |value: &dyn Fn(&EntryCursor) -> String| -> ArrayRef {
        Arc::new(StringArray::from_iter_values(entries.iter().map(value)))
    };
    let times = |time: &dyn Fn(&EntryCursor) -> Micros| -> ArrayRef {
        Arc::new(TimestampMicrosecondArray::from_iter_values(entries.iter().map(time)).with_timezone("UTC"))
    };
    let columns = contract.columns.iter().enumerate().map(|(index, column)| match column.name.as_str() {
        _ if index == contract.tenant => strings(&|entry| entry.tenant().to_owned()),
        _ if index == contract.time => times(&EntryCursor::received),
        _ if index == contract.id => strings(&|entry| closing_id(entry.id(), entry.received())),
        "source_table" => strings(&|_| table.to_owned()),
        RESOLVES => strings(&|entry| entry.id().to_owned()),
        RESOLUTION => strings(&|_| resolution.to_owned()),
        RESOLVED_BY => strings(&|_| user.to_owned()),
        _ if column.kind == ColumnKind::Timestamp => times(&|_| now),
        _ => new_null_array(&column.kind.data_type(), entries.len()),
    });
    RecordBatch::try_new(contract.schema().clone(), columns.collect())
        .map_err(|cause| Error::internal("cannot build rows that close entries").with_source(cause))
        .and_then(|rows| EventBatch::new(contract, rows))
}
