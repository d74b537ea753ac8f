//! One request on its way: may it, is there room, what does it hold, is it committed.
//!
//! In: a payload with its caller's [`Access`]. Out: a [`Receipt`], after the commit; or an error, and then the caller
//! sends the same again: events that were stored all the same are counted as duplicates.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::dedupe::Part;
use super::prepare::{PreparedBatch, Preparer};
use super::write::{MemoryReservation, Pending, Stored};
use super::{Ingest, Payload, Receipt, TableQueue, quarantine_of, stopping};
use crate::clock::Micros;
use crate::config::IngestConfig;
use crate::contract::{EventBatch, Format, Owner, Stamp};
use crate::error::{Error, Result};
use crate::lake::InFlightGuard;
use crate::supervise;
use crate::telemetry::EventOutcome;
use crate::tenancy::{Access, Scope};

/// The metrics' name for an operator, whose events may be of many tenants.
const OPERATOR: &str = "(operator)";

/// What a request holds, and where it goes.
pub(super) struct AdmittedRequest<'a> {
    pub(super) intake: PreparedBatch,
    pub(super) table_queue: &'a TableQueue,
    /// The lane of the table's bad events.
    pub(super) quarantine: &'a TableQueue,
    /// Of the good events and of the bad ones.
    pub(super) bytes: (usize, usize),
}

/// What is known of events that came at `received`.
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

impl Ingest {
    /// Validates, stamps, dedupes, commits, and only then returns. `Limited` with a retry time when the queue is full;
    /// `NotFound` for a table that the caller may not see; `Forbidden` without the ingest scope. `door` names the way in
    /// ("http", "flight") for the quarantine's place. Dropping the future does not undo what was admitted.
    pub async fn submit(&self, access: &Access, table: &str, payload: Payload, door: &str) -> Result<Receipt> {
        self.submit_in(self.reservation(), access, table, payload, door).await
    }

    /// Room in the queue for a body that is still arriving. Grow it before taking more bytes into memory.
    pub fn reservation(&self) -> MemoryReservation {
        self.memory_budget.empty()
    }

    /// The same as [`Ingest::submit`], for a payload that has room already.
    pub async fn submit_in(
        &self,
        mut reservation: MemoryReservation,
        access: &Access,
        table: &str,
        payload: Payload,
        door: &str,
    ) -> Result<Receipt> {
        let _running = self.submits.token();
        let AdmittedRequest { intake, table_queue, quarantine, bytes: (good_bytes, bad_bytes) } =
            self.take(&mut reservation, access, table, payload, door).await?;
        let PreparedBatch { good, bad, places, notes } = intake;
        let bad_room = reservation.split(bad_bytes);
        let bad = bad.map(|bad| self.store(&quarantine.queue, bad, bad_bytes, bad_room));
        let good = (good.rows.num_rows() > 0).then(|| self.store(&table_queue.queue, good, good_bytes, reservation));
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
        self.count(access, table, &receipt);
        Ok(receipt)
    }

    /// A payload of a caller who may send it, decoded, with room for its columns.
    pub(super) async fn take(
        &self,
        reservation: &mut MemoryReservation,
        access: &Access,
        table: &str,
        payload: Payload,
        door: &str,
    ) -> Result<AdmittedRequest<'_>> {
        let (table_queue, preparer) = self.table_queue(access, table)?;
        // What is there already may be more: the messages that the batches were decoded from.
        reservation.grow(payload.bytes()).await?;
        let (taker, way) = (preparer.clone(), door.to_owned());
        let (stamp, held) = self.stamp_held(table, access.owner())?;
        let intake = self.decode(move || taker.take(payload, &stamp, &way)).await?.held(held);
        let bytes = (intake.good.rows.plain_bytes(), intake.bad.as_ref().map_or(0, |bad| bad.rows.plain_bytes()));
        // Columns may take more than the text they came from.
        reservation.resize(bytes.0 + bytes.1).await?;
        let quarantine = self.table_queues.get(&quarantine_of(table)).unwrap_or(table_queue);
        Ok(AdmittedRequest { intake, table_queue, quarantine, bytes })
    }

    /// Whether the caller may send events to `table` now: what a door asks before it reads a body.
    pub fn check(&self, access: &Access, table: &str) -> Result<()> {
        self.table_queue(access, table).map(|_| ())
    }

    /// The table's lane, for a caller who may use it.
    pub(super) fn table_queue(&self, access: &Access, table: &str) -> Result<(&TableQueue, &Preparer)> {
        if self.ending.hurry.is_cancelled() {
            return Err(stopping());
        }
        access.check_expiry(self.clock.now())?;
        access.require(Scope::Ingest)?;
        // Operators have no rules of their own: they send for every tenant.
        let visible = access.owner() == Owner::PerEvent || access.rules(table).is_some();
        let table_queue = self.table_queues.get(table).filter(|_| visible).ok_or_else(|| unknown(table))?;
        let preparer = table_queue.preparer.as_ref();
        let preparer =
            preparer.ok_or_else(|| Error::forbidden(format!("`{table}` is a quarantine: only the server fills it")))?;
        Ok((table_queue, preparer))
    }

    /// What is known of events that come now.
    pub(super) fn stamp(&self, owner: Owner) -> Stamp {
        stamp(&self.limits, self.clock.now(), owner)
    }

    /// The same, of events that are under way from now on.
    pub(super) fn stamp_held(&self, table: &str, owner: Owner) -> Result<(Stamp, InFlightGuard)> {
        let in_flight = self.tables.get(table).ok_or_else(|| unknown(table))?.in_flight();
        let (received, held) = in_flight.enter(&owner, &self.clock);
        Ok((Stamp { received, ..self.stamp(owner) }, held))
    }

    /// Decodes on the blocking pool, as many requests at once as there are cores.
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

    /// Hands rows to a committer and waits for its answer.
    pub(super) async fn store(
        &self,
        queue: &mpsc::Sender<Pending>,
        part: Part,
        bytes: usize,
        reservation: MemoryReservation,
    ) -> Result<Stored> {
        let (reply, answer) = oneshot::channel();
        let pending =
            Pending { part: Arc::new(part), progress: Vec::new(), is_whole: false, bytes, reservation, reply };
        queue.send_timeout(pending, self.limits.queue_wait_max).await.map_err(|error| match error {
            mpsc::error::SendTimeoutError::Timeout(_) => self.memory_budget.full(),
            mpsc::error::SendTimeoutError::Closed(_) => stopping(),
        })?;
        answer.await.map_err(|_| interrupted())?
    }

    pub(super) fn count(&self, access: &Access, table: &str, receipt: &Receipt) {
        let tenant = access.tenant().map_or(OPERATOR, |tenant| tenant.as_str());
        let counts = [
            (EventOutcome::Accepted, receipt.accepted),
            (EventOutcome::Duplicate, receipt.duplicate),
            (EventOutcome::Rejected, receipt.rejected),
        ];
        for (outcome, count) in counts.into_iter().filter(|(_, count)| *count > 0) {
            self.metrics.events(table, tenant, outcome, count);
        }
    }
}

impl Payload {
    /// How it is written.
    pub(super) fn format(&self) -> Format {
        match self {
            Self::Encoded(format, _) => *format,
            Self::Arrow(_) => Format::ArrowIpc,
        }
    }

    /// What it takes of the memory.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Encoded(_, body) => body.len(),
            Self::Arrow(batches) => batches.iter().map(EventBatch::plain_bytes_of).sum(),
        }
    }
}

/// The outcome of something that may be absent.
async fn optional(storing: Option<impl Future<Output = Result<Stored>>>) -> Result<Stored> {
    match storing {
        Some(storing) => storing.await,
        None => Ok(Stored::default()),
    }
}

/// What is known of rows whose committer panicked before it could answer.
pub(super) fn interrupted() -> Error {
    Error::unavailable("the table's committer was interrupted: send the events again, none is stored twice")
}

/// The same answer for a table that is absent and one that the caller may not see.
pub(super) fn unknown(table: &str) -> Error {
    Error::not_found(format!("no table `{table}`"))
}
