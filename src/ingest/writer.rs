//! The writer: authorises, decodes and stores events, each once, and acknowledges them after the commit.
//!
//! ```text
//!   authorize ─► IngestTarget ─► submit: memory ─► prepare (decode) ─┬─► the table's queue ─────┬─► receipt
//!                                                                   └─► its quarantine's queue ─┘
//! ```
//!
//! In: a [`Body`] with the [`IngestTarget`] of its caller. Out: a [`Receipt`], after the commit; or an error. After an error the
//! caller sends the same body again: events that were stored nevertheless are counted as duplicates.

use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

use super::acknowledged_events::AcknowledgedEvents;
use super::body::Body;
use super::freshness::Freshness;
use super::prepare::PreparedBatch;
use super::receipt::Receipt;
use super::target::{IngestTable, IngestTables, IngestTarget};
use super::write::{Ending, MemoryBudget, MemoryReservation, Stored, stopping};
use crate::clock::{Clock, Micros};
use crate::config::IngestConfig;
use crate::contract::{Owner, Stamp};
use crate::error::{Error, Result};
use crate::lake::{InFlightGuard, Tables};
use crate::supervise::{self, Supervisor};
use crate::telemetry::{EventOutcome, Metrics};
use crate::tenancy::{Access, Scope};

/// The tenant label in metrics for an operator, whose events may belong to many tenants.
const OPERATOR: &str = "(operator)";

/// Writes events to tables, for endpoints, sources and replays.
#[derive(Debug)]
pub struct Writer {
    pub(super) tables: IngestTables,
    memory_budget: MemoryBudget,
    /// Limits concurrent decoding to the number of cores.
    decoders: Arc<Semaphore>,
    pub(super) limits: IngestConfig,
    pub(super) clock: Clock,
    pub(super) metrics: Arc<Metrics>,
    /// Running requests.
    pub(super) submits: TaskTracker,
    pub(super) ending: Ending,
    /// Events that are acknowledged but not stored yet.
    pub(super) acknowledged: AcknowledgedEvents,
    pub(super) supervisor: Supervisor,
}

/// The stamp of events received at `received`.
pub(super) fn stamp(limits: &IngestConfig, received: Micros, owner: Owner) -> Stamp {
    let future_max = Micros::try_from(limits.future_max.as_micros()).unwrap_or(Micros::MAX);
    Stamp {
        received,
        owner,
        time_max: received.saturating_add(future_max),
        event_bytes_max: limits.event_bytes_max,
        dimensions_max: limits.dimensions_max,
    }
}

impl Writer {
    /// Creates a writer that fills the queues of `tables`.
    pub(super) fn new(
        tables: IngestTables,
        memory_budget: MemoryBudget,
        limits: IngestConfig,
        clock: Clock,
        metrics: Arc<Metrics>,
        ending: Ending,
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
            ending,
            acknowledged: AcknowledgedEvents::default(),
            supervisor,
        }
    }

    /// All tables, including quarantines.
    pub fn tables(&self) -> &Arc<Tables> {
        &self.tables.lake
    }

    /// The bytes that wait for a commit, of all tables.
    pub fn queued_bytes(&self) -> usize {
        self.memory_budget.taken_bytes()
    }

    /// Checks whether events can be accepted now: `Unavailable`, with the reason, if not.
    pub fn ready(&self) -> Result<()> {
        self.check_open()?;
        match self.tables.queues.values().find(|queue| queue.is_closed()) {
            Some(queue) => Err(Error::unavailable(format!("the committer of table `{}` has ended", queue.table()))),
            None => Ok(()),
        }
    }

    /// Checks that the caller may send events to `table` and returns the proof, which the later calls of the request take.
    /// An endpoint calls this before it reads a body. `NotFound` for a table that the caller may not see; `Forbidden` without
    /// the scope `ingest` and for a quarantine.
    pub fn authorize(&self, access: &Access, table: &str) -> Result<IngestTarget> {
        self.admit(access)?;
        self.tables.authorize(access, table)
    }

    /// An empty memory reservation for a body that is still arriving. Grow it before reading more bytes into memory.
    pub fn reservation(&self) -> MemoryReservation {
        self.memory_budget.empty()
    }

    /// Validates, stamps, dedupes and commits events, and then returns. `Limited` with a retry time if the queue is full.
    /// `endpoint` ("http", "flight") is recorded in the place of quarantine entries. Dropping the future does not undo what was
    /// admitted. `reservation` holds the memory reserved for the body so far.
    pub async fn submit(
        &self,
        mut reservation: MemoryReservation,
        target: &IngestTarget,
        body: Body,
        endpoint: &str,
    ) -> Result<Receipt> {
        let _running = self.submits.token();
        let PreparedBatch { good, bad, places, notes } = self.prepare(&mut reservation, target, body, endpoint).await?;
        let table = target.table();
        let bad_reservation = reservation.split(bad.as_ref().map_or(0, |bad| bad.bytes));
        let bad = bad.map(|bad| table.quarantine_queue.store(bad, bad_reservation));
        let good = (good.rows.num_rows() > 0).then(|| table.queue.store(good, reservation));
        let (bad, good) = tokio::join!(optional(bad), optional(good));
        bad?;
        let good = good?;
        let receipt = Receipt {
            accepted: good.accepted,
            duplicate: good.duplicate,
            conflict: good.conflict,
            rejected: places.len() as u64,
            rejects: notes,
            version: good.version,
        };
        self.count(target.access(), table.name(), &receipt);
        Ok(receipt)
    }

    /// Decodes the events of a body and reserves memory for their columns.
    pub(super) async fn prepare(
        &self,
        reservation: &mut MemoryReservation,
        target: &IngestTarget,
        body: Body,
        endpoint: &str,
    ) -> Result<PreparedBatch> {
        // The token may have expired, or a stop may have begun, while the body arrived.
        self.admit(target.access())?;
        // The reservation may already be larger: it may cover the messages that the batches were decoded from.
        reservation.grow(body.bytes()).await?;
        let (table, endpoint) = (target.table().clone(), endpoint.to_owned());
        let (stamp, held) = self.stamp_held(&table, target.access().owner());
        let prepared = self.decode(move || table.preparer.prepare(body, &stamp, &endpoint)).await?.held(held);
        // Columns may occupy more memory than the text they were decoded from.
        reservation.resize(prepared.bytes()).await?;
        Ok(prepared)
    }

    /// The freshness of a table, for a tenant that may see it and has the scope `read`, or an operator with the scope `admin`.
    pub fn freshness(&self, access: &Access, table: &str) -> Result<Freshness> {
        self.admit(access)?;
        let owner = access.owner();
        access.require(if owner == Owner::PerEvent { Scope::Admin } else { Scope::Read })?;
        Ok(Freshness::of(&self.tables.visible(access, table)?.table, &owner, &self.clock))
    }

    /// Refuses a caller whose token has expired, and every caller once the server is stopping.
    pub(super) fn admit(&self, access: &Access) -> Result<()> {
        self.check_open()?;
        access.check_expiry(self.clock.now())
    }

    fn check_open(&self) -> Result<()> {
        if self.ending.hurry.is_cancelled() { Err(stopping()) } else { Ok(()) }
    }

    /// The stamp to give to events that are received now.
    pub(super) fn stamp(&self, owner: Owner) -> Stamp {
        stamp(&self.limits, self.clock.now(), owner)
    }

    /// Like [`Writer::stamp`], and counts the events as in flight to `table` until the guard is dropped.
    pub(super) fn stamp_held(&self, table: &IngestTable, owner: Owner) -> (Stamp, InFlightGuard) {
        let (received, held) = table.table.in_flight().enter(&owner, &self.clock);
        (Stamp { received, ..self.stamp(owner) }, held)
    }

    /// Decodes on the blocking pool, at most one request per core at a time.
    pub(super) async fn decode<T: Send + 'static>(
        &self,
        decoding: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let turn = Arc::clone(&self.decoders).acquire_owned().await.map_err(|_| stopping())?;
        supervise::blocking("decoding", move || {
            let _turn = turn;
            decoding()
        })
        .await
    }

    pub(super) fn count(&self, access: &Access, table: &str, receipt: &Receipt) {
        let tenant = access.tenant().map_or(OPERATOR, |tenant| tenant.as_str());
        self.count_events(table, tenant, [receipt.accepted, receipt.duplicate, receipt.rejected]);
    }

    /// Adds accepted, duplicate and rejected events, in this order, to the metrics.
    pub(super) fn count_events(&self, table: &str, tenant: &str, counts: [u64; 3]) {
        let outcomes = [EventOutcome::Accepted, EventOutcome::Duplicate, EventOutcome::Rejected];
        for (outcome, count) in outcomes.into_iter().zip(counts).filter(|(_, count)| *count > 0) {
            self.metrics.events(table, tenant, outcome, count);
        }
    }
}

/// Awaits `storing`; the default if it is `None`.
async fn optional(storing: Option<impl Future<Output = Result<Stored>>>) -> Result<Stored> {
    match storing {
        Some(storing) => storing.await,
        None => Ok(Stored::default()),
    }
}
