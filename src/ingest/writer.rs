//! The writer authorizes requests, decodes events, and stores each event once. It acknowledges a request after the
//! commit. All endpoints and sources use the writer.
//!
//! ```text
//!   authorize ─► IngestTarget ─► submit: memory ─► prepare (decode) ─┬─► the table's queue ─────┬─► receipt
//!                                                                   └─► its quarantine's queue ─┘
//! ```
//!
//! [`Writer::submit`] takes a [`Body`] and the caller's [`IngestTarget`]. It returns a [`Receipt`] after the commit, or
//! an error. After an error, the caller can send the same body again. If events were stored despite the error, the
//! retry counts them as duplicates.

use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use super::acknowledged_events::AcknowledgedEvents;
use super::body::Body;
use super::freshness::Freshness;
use super::group_commit::{MemoryBudget, MemoryReservation, ShutdownSignals, Stored, stopping};
use super::prepare::PreparedBatch;
use super::receipt::Receipt;
use super::target::{IngestTable, IngestTables, IngestTarget};
use crate::clock::{Clock, Micros};
use crate::config::IngestConfig;
use crate::contract::{DecodeOptions, Owner, decode_arrow};
use crate::error::{Error, Result};
use crate::lake::{InFlightGuard, Tables};
use crate::supervise::{self, Supervisor};
use crate::telemetry::{EventOutcome, Metrics};
use crate::tenancy::{Access, Scope};

/// The value of the `tenant` label in metrics that count events sent by an operator. Such events may belong to many
/// tenants.
const OPERATOR: &str = "(operator)";

/// Writes events to tables, for endpoints, sources and replays.
#[derive(Debug)]
pub struct Writer {
    pub(super) tables: IngestTables,
    memory_budget: MemoryBudget,
    /// Limits how many requests are decoded concurrently. The limit is the number of cores.
    decoders: Arc<Semaphore>,
    pub(super) limits: IngestConfig,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
    /// Tracks the requests that are running.
    pub(super) submits: TaskTracker,
    pub(super) shutdown: ShutdownSignals,
    /// For each table, the number of events that were acknowledged before their commit and are not committed yet.
    pub(super) acknowledged: AcknowledgedEvents,
    pub(super) supervisor: Supervisor,
}

/// Creates the options for decoding events that belong to `owner` and were received at `received`.
pub(super) fn stamp(limits: &IngestConfig, received: Micros, owner: Owner) -> DecodeOptions {
    let future_max = Micros::try_from(limits.future_max.as_micros()).unwrap_or(Micros::MAX);
    DecodeOptions {
        received,
        owner,
        time_max: received.saturating_add(future_max),
        event_bytes_max: limits.event_bytes_max,
        dimensions_max: limits.dimensions_max,
    }
}

impl Writer {
    /// Creates a writer that sends rows to the queues of `tables`.
    pub(super) fn new(
        tables: IngestTables,
        memory_budget: MemoryBudget,
        limits: IngestConfig,
        clock: Clock,
        metrics: Arc<Metrics>,
        shutdown: ShutdownSignals,
        supervisor: Supervisor,
    ) -> Self {
        let decoders = Arc::new(Semaphore::new(std::thread::available_parallelism().map_or(1, usize::from)));
        Self {
            tables,
            memory_budget,
            decoders,
            limits,
            clock,
            metrics,
            submits: TaskTracker::new(),
            shutdown,
            acknowledged: AcknowledgedEvents::default(),
            supervisor,
        }
    }

    /// Returns all tables, including quarantines.
    pub fn tables(&self) -> &Arc<Tables> {
        &self.tables.lake
    }

    /// Returns the number of bytes that are waiting for a commit, across all tables.
    pub fn queued_bytes(&self) -> usize {
        self.memory_budget.reserved_bytes()
    }

    /// Returns an `Unavailable` error that states the reason if the writer currently cannot accept events.
    pub fn ready(&self) -> Result<()> {
        self.check_open()?;
        match self.tables.queues.values().find(|queue| queue.is_closed()) {
            Some(queue) => Err(Error::unavailable(format!("the committer of table `{}` has ended", queue.table()))),
            None => Ok(()),
        }
    }

    /// Checks that the caller may send events to `table`. The returned [`IngestTarget`] is required by the functions
    /// that handle the rest of the request. An endpoint calls this function before it reads a request's body. Fails
    /// with `NotFound` if the caller may not see the table. Fails with `Forbidden` if the caller lacks the `ingest`
    /// scope or if the table is a quarantine.
    pub fn authorize(&self, access: &Access, table: &str) -> Result<IngestTarget> {
        self.admit(access)?;
        self.tables.authorize(access, table)
    }

    /// Creates an empty memory reservation for a body. The caller must grow the reservation before it reads bytes into
    /// memory.
    pub fn reservation(&self) -> MemoryReservation {
        self.memory_budget.empty()
    }

    /// Checks that batches with this schema can be stored in the table. Fails with `Invalid` if a column is unknown or
    /// has an incompatible type.
    pub fn check_schema(&self, target: &IngestTarget, schema: &SchemaRef) -> Result<()> {
        let empty = RecordBatch::new_empty(Arc::clone(schema));
        decode_arrow(target.table().table.contract(), &empty, 0, &self.stamp(Owner::PerEvent)).map(drop)
    }

    /// Decodes events, stores the new events, and returns after the commit. Fails with `Limited` and a retry delay if
    /// the queue is full. `reservation` is the memory that the caller has reserved for the body. `endpoint` ("http" or
    /// "flight") is recorded in the `place` column of quarantine entries. If the caller drops the future, events that
    /// are already queued are still stored.
    pub async fn submit(
        &self,
        mut reservation: MemoryReservation,
        target: &IngestTarget,
        body: Body,
        endpoint: &str,
    ) -> Result<Receipt> {
        let _running = self.submits.token();
        let PreparedBatch { good, bad, reject_indexes, notes } =
            self.prepare(&mut reservation, target, body, endpoint).await?;
        let table = target.table();
        let bad_reservation = reservation.split(bad.as_ref().map_or(0, |bad| bad.bytes));
        let bad = bad.map(|bad| table.quarantine_queue.store(bad, bad_reservation));
        let good = (good.rows.num_rows() > 0).then(|| table.queue.store(good, reservation));
        let (bad, good) = tokio::join!(stored_or_default(bad), stored_or_default(good));
        bad?;
        let good = good?;
        let receipt = Receipt {
            accepted: good.accepted,
            duplicate: good.duplicate,
            conflict: good.conflict,
            rejected: reject_indexes.len() as u64,
            rejects: notes,
            version: good.version,
        };
        self.count(target.access(), table.name(), &receipt);
        Ok(receipt)
    }

    /// Decodes the events of a body and reserves memory for their rows.
    pub(super) async fn prepare(
        &self,
        reservation: &mut MemoryReservation,
        target: &IngestTarget,
        body: Body,
        endpoint: &str,
    ) -> Result<PreparedBatch> {
        // While the body was arriving, the token may have expired or been revoked, or the server may have begun to
        // stop.
        self.admit(target.access())?;
        // The reservation may already be larger, because it also covers the Flight messages that contained the batches.
        reservation.grow(body.bytes()).await?;
        let (table, endpoint) = (target.table().clone(), endpoint.to_owned());
        let (stamp, in_flight) = self.stamp_in_flight(&table, target.access().owner());
        let prepared =
            self.decode(move || table.preparer.prepare(body, &stamp, &endpoint)).await?.with_in_flight(in_flight);
        // Columns may occupy more memory than the text from which they were decoded.
        reservation.resize(prepared.bytes()).await?;
        Ok(prepared)
    }

    /// Returns the freshness of a table. `table` may also be the name under which queries see all stored versions of a
    /// `latest` table. A tenant must be allowed to see the table and have the `read` scope. An operator must have the
    /// `admin` scope.
    pub fn freshness(&self, access: &Access, table: &str) -> Result<Freshness> {
        self.admit(access)?;
        let owner = access.owner();
        access.require(if owner == Owner::PerEvent { Scope::Admin } else { Scope::Read })?;
        Ok(Freshness::of(&self.tables.shown_as(access, table)?.table, &owner, &self.clock))
    }

    /// Checks that the server is not stopping and that the caller's token has neither expired nor been revoked.
    pub(super) fn admit(&self, access: &Access) -> Result<()> {
        self.check_open()?;
        access.check_valid(self.clock.now())
    }

    fn check_open(&self) -> Result<()> {
        if self.shutdown.stop_admitting.is_cancelled() { Err(stopping()) } else { Ok(()) }
    }

    /// Creates the options for decoding events that belong to `owner`, with the current time as their receive time.
    pub(super) fn stamp(&self, owner: Owner) -> DecodeOptions {
        stamp(&self.limits, self.clock.now(), owner)
    }

    /// Creates the same decode options as [`Writer::stamp`]. Also registers in-flight events for `table`. They remain
    /// registered until the guard is dropped.
    pub(super) fn stamp_in_flight(&self, table: &IngestTable, owner: Owner) -> (DecodeOptions, InFlightGuard) {
        let (received, in_flight) = table.table.in_flight().enter(&owner, &self.clock);
        (DecodeOptions { received, ..self.stamp(owner) }, in_flight)
    }

    /// Runs `decoding` on the blocking pool. At most one request per core is decoded at a time.
    pub(super) async fn decode<T: Send + 'static>(
        &self,
        decoding: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let permit = Arc::clone(&self.decoders).acquire_owned().await.map_err(|_| stopping())?;
        supervise::blocking("decoding", move || {
            let _turn = permit;
            decoding()
        })
        .await
    }

    /// Adds the event counts of a receipt to the metrics.
    pub(super) fn count(&self, access: &Access, table: &str, receipt: &Receipt) {
        let tenant = access.tenant().map_or(OPERATOR, |tenant| tenant.as_str());
        self.count_events(table, tenant, [receipt.accepted, receipt.duplicate, receipt.rejected]);
    }

    /// Adds event counts to the metrics. `counts` contains the numbers of accepted, duplicate and rejected events, in
    /// this order.
    pub(super) fn count_events(&self, table: &str, tenant: &str, counts: [u64; 3]) {
        let outcomes = [EventOutcome::Accepted, EventOutcome::Duplicate, EventOutcome::Rejected];
        for (outcome, count) in outcomes.into_iter().zip(counts).filter(|(_, count)| *count > 0) {
            self.metrics.events(table, tenant, outcome, count);
        }
    }
}

/// Waits for the result of a write. Returns zero counts if there was nothing to write.
async fn stored_or_default(answer: Option<impl Future<Output = Result<Stored>>>) -> Result<Stored> {
    match answer {
        Some(answer) => answer.await,
        None => Ok(Stored::default()),
    }
}
