//! Early acknowledgement: events that are acknowledged before their commit, at the request of their sender.
//!
//! In: a body. Out: a [`Promise`] as soon as its rows are in their tables' queues. A task then follows the rows until they are
//! stored.
//!
//! ```text
//!   prepare ─► queues ─► promise ─► the sender
//!                 │
//!                 └─► stored? ─ no ─► pause ─► the queue again, while the server runs
//! ```
//!
//! **Invariant:** promised events keep their memory reservation until they are stored: if the store is unavailable the queue
//! fills up, and later requests are refused with a retry time.
//! **Invariant:** a stop of the server waits for all promised events. Events that cannot be stored even then are counted as
//! lost and logged.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use super::body::Body;
use super::dedupe::Part;
use super::prepare::PreparedBatch;
use super::receipt::{Promise, Receipt};
use super::target::IngestTarget;
use super::write::{MemoryReservation, Stored, TableQueue, WriteAnswer, WriteRequest, interrupted};
use super::writer::Writer;
use crate::error::Result;
use crate::supervise::{AtStop, Task, TaskKind};

/// The pause before rows that could not be stored are queued again; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// The maximum pause.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How often rows are queued again after a stop begins. Each time the committer tries `commit_attempts_max` times.
const LAST_ATTEMPTS_MAX: u32 = 3;

/// Acknowledged rows that are not stored in their table yet.
struct PendingRows {
    queue: TableQueue,
    part: Arc<Part>,
    /// `None` if a panic lost it: then the rows are queued again.
    answer: Mutex<Option<WriteAnswer>>,
    /// The memory reservation of the whole request, held until its rows are stored or lost.
    _room: Arc<MemoryReservation>,
}

impl PendingRows {
    fn events(&self) -> u64 {
        self.part.marks.len() as u64
    }

    fn take_answer(&self) -> Option<WriteAnswer> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Writer {
    /// Like [`Writer::submit`], but returns when the events are in their tables' queues. They are stored later, within about
    /// `batch_age_max`; they are lost if the server dies before that.
    pub async fn submit_received(
        self: &Arc<Self>,
        mut reservation: MemoryReservation,
        target: IngestTarget,
        body: Body,
        endpoint: &str,
    ) -> Result<Promise> {
        let running = self.submits.token();
        let PreparedBatch { good, bad, places, notes } =
            self.prepare(&mut reservation, &target, body, endpoint).await?;
        let (table, reservation) = (target.table(), Arc::new(reservation));
        let promise = Promise { received: good.rows.num_rows() as u64, rejected: places.len() as u64, rejects: notes };

        // Bad events first: if the good ones find the queue full, the sender retries, and the bad ones are then duplicates.
        let bad = match bad {
            Some(bad) => Some(self.hand_in(&table.quarantine_queue, bad, reservation.clone()).await?),
            None => None,
        };
        let good = match promise.received {
            0 => None,
            _ => Some(self.hand_in(&table.queue, good, reservation).await?),
        };
        let (bad, good) = (bad.map(Arc::new), good.map(Arc::new));
        for followed in [&bad, &good].into_iter().flatten() {
            self.acknowledged.add(followed.queue.table(), followed.events());
        }
        let (writer, rejected) = (self.clone(), promise.rejected);
        self.submits.spawn(async move {
            let _running = running;
            let task = Task::new(TaskKind::Acknowledged, target.table().name());
            let follow = || {
                let (writer, bad, good) = (writer.clone(), bad.clone(), good.clone());
                async move { tokio::join!(writer.follow(bad), writer.follow(good)) }
            };
            let followed = writer.supervisor.keep(task, &writer.ending.hurry, AtStop::Finish, follow).await;
            let (bad, good) = followed.unwrap_or_default();
            let rejected = if bad.is_some() { rejected } else { 0 };
            let Stored { accepted, duplicate, .. } = good.unwrap_or_default();
            let receipt = Receipt { accepted, duplicate, rejected, ..Receipt::default() };
            writer.count(target.access(), target.table().name(), &receipt);
        });
        Ok(promise)
    }

    /// Queues rows for a committer without waiting for the answer.
    async fn hand_in(
        &self,
        queue: &TableQueue,
        part: Part,
        reservation: Arc<MemoryReservation>,
    ) -> Result<PendingRows> {
        let part = Arc::new(part);
        let answer = queue.offer(WriteRequest::new(part.clone(), self.reservation())).await?;
        Ok(PendingRows { queue: queue.clone(), part, answer: Mutex::new(Some(answer)), _room: reservation })
    }

    /// Waits until rows are stored, and queues them again after each failure. `None` if there are no rows, or if they are
    /// lost.
    async fn follow(&self, followed: Option<Arc<PendingRows>>) -> Option<Stored> {
        let followed = followed?;
        let (queue, mut answer) = (&followed.queue, followed.take_answer());
        let (mut pause, mut last_attempts) = (PAUSE_MIN, 0);
        loop {
            let outcome = match answer {
                Some(answer) => answer.stored().await,
                None => Err(interrupted()),
            };
            let fault = match outcome {
                Ok(stored) => {
                    self.acknowledged.settle(queue.table(), followed.events());
                    return Some(stored);
                }
                Err(error) => error,
            };
            if self.ending.hurry.is_cancelled() {
                last_attempts += 1;
            }
            tracing::debug!(table = queue.table(), ?fault, "acknowledged events are not stored yet; trying again");
            // A stop ends the pause, not the attempts.
            let _stopping = self.ending.hurry.run_until_cancelled(tokio::time::sleep(pause)).await;
            pause = (pause * 2).min(PAUSE_MAX);
            answer = match last_attempts > LAST_ATTEMPTS_MAX {
                true => None,
                false => queue.send(WriteRequest::new(followed.part.clone(), self.reservation())).await.ok(),
            };
            if answer.is_none() {
                let events = followed.events();
                tracing::error!(table = queue.table(), events, ?fault, "acknowledged events are lost");
                self.metrics.events_lost(queue.table(), events);
                self.acknowledged.settle(queue.table(), events);
                return None;
            }
        }
    }
}
