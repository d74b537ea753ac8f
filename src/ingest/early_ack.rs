//! Early acknowledgement: if a sender asks for it, the server responds before it commits the sender's events.
//!
//! [`Writer::submit_received`] takes a body and returns a [`Promise`] as soon as the rows are queued. A background task
//! then waits for the commit. If the commit fails, the task queues the rows again.
//!
//! ```text
//!   prepare ─► queues ─► promise ─► the sender
//!                 │
//!                 └─► stored? ─ no ─► pause ─► the queue again, while the server runs
//! ```
//!
//! **Invariant:** promised events keep their memory reservation until they are stored. If the store is unavailable, the
//! ingest queue therefore fills up, and later requests are refused with an error that says when to retry.
//! **Invariant:** before a server stops, it tries to store all promised events. If these attempts fail, the server logs
//! the events and counts them as lost.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::body::Body;
use super::dedupe::PreparedRows;
use super::group_commit::{MemoryReservation, Stored, TableQueue, WriteAnswer, WriteRequest, interrupted};
use super::prepare::PreparedBatch;
use super::receipt::{Promise, Receipt};
use super::target::IngestTarget;
use super::writer::Writer;
use crate::error::Result;
use crate::supervise::{AtStop, Task, TaskKind};

/// The pause between the first failure and the next attempt. The pause doubles with each failure, up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// The maximum pause between a failure and the next attempt.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// The maximum number of times that rows are queued again after the server has begun to stop. Each time, the committer
/// makes up to `commit_attempts_max` attempts to store them.
const STOP_ATTEMPTS_MAX: u32 = 3;

/// Acknowledged rows of one table that are not stored yet.
struct PendingRows {
    queue: TableQueue,
    prepared: Arc<PreparedRows>,
    /// The channel on which the table's committer will answer. The task that waits for the answer takes the channel and
    /// leaves `None`. If that task panics, the answer is lost, and the restarted task queues the rows again.
    answer: Mutex<Option<WriteAnswer>>,
    /// The memory reservation for the whole request, which is held until the request's rows are stored or lost.
    _reservation: Arc<MemoryReservation>,
}

impl PendingRows {
    fn events(&self) -> u64 {
        self.prepared.keys.len() as u64
    }

    fn take_answer(&self) -> Option<WriteAnswer> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Writer {
    /// Submits events like [`Writer::submit`], but returns as soon as the events are queued. The events are usually
    /// stored within `batch_age_max`. If the server crashes before the events are stored, they are lost.
    pub async fn submit_received(
        self: &Arc<Self>,
        mut reservation: MemoryReservation,
        target: IngestTarget,
        body: Body,
        endpoint: &str,
    ) -> Result<Promise> {
        let running = self.submits.token();
        let PreparedBatch { good, bad, reject_indexes, notes } =
            self.prepare(&mut reservation, &target, body, endpoint).await?;
        let (table, reservation) = (target.table(), Arc::new(reservation));
        let promise =
            Promise { received: good.rows.num_rows() as u64, rejected: reject_indexes.len() as u64, rejects: notes };

        // Queue the rejected events first. If the queue for the accepted events is full, the sender gets an error and
        // sends everything again. The quarantine then recognizes the rejected events as duplicates.
        let bad = match bad {
            Some(bad) => Some(self.enqueue(&table.quarantine_queue, bad, reservation.clone()).await?),
            None => None,
        };
        let good = match promise.received {
            0 => None,
            _ => Some(self.enqueue(&table.queue, good, reservation).await?),
        };
        let (bad, good) = (bad.map(Arc::new), good.map(Arc::new));
        for pending in [&bad, &good].into_iter().flatten() {
            self.acknowledged.add(pending.queue.table(), pending.events());
        }
        let (writer, rejected) = (self.clone(), promise.rejected);
        self.submits.spawn(async move {
            let _running = running;
            let task = Task::new(TaskKind::Acknowledged, target.table().name());
            let store = || {
                let (writer, bad, good) = (writer.clone(), bad.clone(), good.clone());
                async move { tokio::join!(writer.store_eventually(bad), writer.store_eventually(good)) }
            };
            let stored = writer.supervisor.keep(task, &writer.shutdown.stop_admitting, AtStop::Finish, store).await;
            let (bad, good) = stored.unwrap_or_default();
            let rejected = if bad.is_some() { rejected } else { 0 };
            let Stored { accepted, duplicate, .. } = good.unwrap_or_default();
            let receipt = Receipt { accepted, duplicate, rejected, ..Receipt::default() };
            writer.count(target.access(), target.table().name(), &receipt);
        });
        Ok(promise)
    }

    /// Sends rows to a table's committer without waiting for the answer.
    async fn enqueue(
        &self,
        queue: &TableQueue,
        prepared: PreparedRows,
        reservation: Arc<MemoryReservation>,
    ) -> Result<PendingRows> {
        let prepared = Arc::new(prepared);
        let answer = queue.offer(WriteRequest::new(prepared.clone(), self.reservation())).await?;
        Ok(PendingRows { queue: queue.clone(), prepared, answer: Mutex::new(Some(answer)), _reservation: reservation })
    }

    /// Waits until rows are stored, and queues them again after each failure. Returns `None` if `pending` is `None` or
    /// if the rows are lost.
    async fn store_eventually(&self, pending: Option<Arc<PendingRows>>) -> Option<Stored> {
        let pending = pending?;
        let (queue, mut answer) = (&pending.queue, pending.take_answer());
        let (mut pause, mut stop_attempts) = (PAUSE_MIN, 0);
        loop {
            let outcome = match answer {
                Some(answer) => answer.stored().await,
                None => Err(interrupted()),
            };
            let error = match outcome {
                Ok(stored) => {
                    self.acknowledged.remove(queue.table(), pending.events());
                    return Some(stored);
                }
                Err(error) => error,
            };
            if self.shutdown.stop_admitting.is_cancelled() {
                stop_attempts += 1;
            }
            tracing::debug!(table = queue.table(), ?error, "acknowledged events are not stored yet; trying again");
            // As soon as the server begins to stop, the task retries without pauses.
            let _stopping = self.shutdown.stop_admitting.run_until_cancelled(tokio::time::sleep(pause)).await;
            pause = (pause * 2).min(PAUSE_MAX);
            answer = match stop_attempts > STOP_ATTEMPTS_MAX {
                true => None,
                false => queue.send(WriteRequest::new(pending.prepared.clone(), self.reservation())).await.ok(),
            };
            if answer.is_none() {
                let events = pending.events();
                tracing::error!(table = queue.table(), events, ?error, "acknowledged events are lost");
                self.metrics.events_lost(queue.table(), events);
                self.acknowledged.remove(queue.table(), events);
                return None;
            }
        }
    }
}
