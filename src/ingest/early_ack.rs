//! Events that are acknowledged before their commit, because their sender asked for that.
//!
//! In: a payload. Out: a [`Promise`] as soon as its rows are in their tables' queues; then they are followed until they are
//! stored.
//!
//! ```text
//!   decode ─► queues ─► promise ─► the sender
//!                │
//!                └─► stored? ─ no ─► a pause ─► the queue again, as long as the server lives
//! ```
//!
//! **Invariant:** what is promised holds its room in the queue until it is stored: a store that is away fills the queue, and
//! then senders are told to come back.
//! **Invariant:** a stop of the server waits for all of it. What cannot be stored even then is counted as lost, and logged.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::dedupe::Part;
use super::prepare::PreparedBatch;
use super::submit::AdmittedRequest;
use super::write::{MemoryReservation, Pending, Stored};
use super::{Ingest, Payload, Promise, Receipt, quarantine_of, stopping};
use crate::error::{Error, Result};
use crate::tenancy::Access;

/// The pause before rows that could not be stored are handed in again; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest such pause.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How often they are handed in after the server was told to stop. Each time the committer tries `commit_attempts_max` times.
const LAST_ATTEMPTS_MAX: u32 = 3;

/// Rows on their way into one table.
struct PendingRows {
    queue: mpsc::Sender<Pending>,
    table: String,
    part: Arc<Part>,
    bytes: usize,
    answer: oneshot::Receiver<Result<Stored>>,
    /// The room of the whole request, held until they are stored, or lost.
    _room: Arc<MemoryReservation>,
}

impl Ingest {
    /// The same as [`Ingest::submit_in`], but returns when the events are in their tables' queues: before they are stored,
    /// within about `batch_age_max`. They are lost when the server dies before that.
    pub async fn submit_received(
        self: &Arc<Self>,
        mut reservation: MemoryReservation,
        access: &Access,
        table: &str,
        payload: Payload,
        door: &str,
    ) -> Result<Promise> {
        let running = self.submits.token();
        let AdmittedRequest { intake, table_queue, quarantine, bytes: (good_bytes, bad_bytes) } =
            self.take(&mut reservation, access, table, payload, door).await?;
        let (PreparedBatch { good, bad, places, notes }, reservation) = (intake, Arc::new(reservation));
        let promise = Promise { received: good.rows.num_rows() as u64, rejected: places.len() as u64, rejects: notes };

        // The bad ones first: when there is no place for the good ones the sender tries again, and they are known then.
        let bad = match bad {
            Some(bad) => {
                let handed =
                    self.hand_in(&quarantine.queue, quarantine_of(table), bad, (bad_bytes, reservation.clone()));
                Some(handed.await?)
            }
            None => None,
        };
        let good = match promise.received {
            0 => None,
            _ => Some(self.hand_in(&table_queue.queue, table.to_owned(), good, (good_bytes, reservation)).await?),
        };
        let (ingest, access, table, rejected) = (self.clone(), access.clone(), table.to_owned(), promise.rejected);
        self.submits.spawn(async move {
            let _running = running;
            let (bad, good) = tokio::join!(ingest.follow(bad), ingest.follow(good));
            let rejected = if bad.is_some() { rejected } else { 0 };
            let Stored { accepted, duplicate, .. } = good.unwrap_or_default();
            ingest.count(&access, &table, &Receipt { accepted, duplicate, rejected, ..Receipt::default() });
        });
        Ok(promise)
    }

    /// Hands rows to a committer and does not wait for its answer.
    async fn hand_in(
        &self,
        queue: &mpsc::Sender<Pending>,
        table: String,
        part: Part,
        (bytes, reservation): (usize, Arc<MemoryReservation>),
    ) -> Result<PendingRows> {
        let (reply, answer) = oneshot::channel();
        let part = Arc::new(part);
        let pending = Pending {
            part: part.clone(),
            progress: Vec::new(),
            is_whole: false,
            bytes,
            reservation: self.reservation(),
            reply,
        };
        queue.send_timeout(pending, self.limits.queue_wait_max).await.map_err(|error| match error {
            mpsc::error::SendTimeoutError::Timeout(_) => self.memory_budget.full(),
            mpsc::error::SendTimeoutError::Closed(_) => stopping(),
        })?;
        Ok(PendingRows { queue: queue.clone(), table, part, bytes, answer, _room: reservation })
    }

    /// Waits until rows are stored, and hands them in again when they were not. None when there are none, or when they are
    /// lost.
    async fn follow(&self, followed: Option<PendingRows>) -> Option<Stored> {
        let mut followed = followed?;
        let (mut pause, mut last_attempts) = (PAUSE_MIN, 0);
        loop {
            let fault = match followed.answer.await {
                Ok(Ok(stored)) => return Some(stored),
                Ok(Err(error)) => error,
                Err(_) => Error::unavailable("the table's committer has ended"),
            };
            if self.ending.hurry.is_cancelled() {
                last_attempts += 1;
            }
            let (reply, answer) = oneshot::channel();
            let (part, bytes) = (followed.part.clone(), followed.bytes);
            let pending =
                Pending { part, progress: Vec::new(), is_whole: false, bytes, reservation: self.reservation(), reply };
            tracing::debug!(table = followed.table, ?fault, "acknowledged events were not stored yet, trying again");
            // A stop ends the pause, not the attempts.
            let _stopping = self.ending.hurry.run_until_cancelled(tokio::time::sleep(pause)).await;
            pause = (pause * 2).min(PAUSE_MAX);
            if last_attempts > LAST_ATTEMPTS_MAX || followed.queue.send(pending).await.is_err() {
                let events = followed.part.marks.len();
                tracing::error!(table = followed.table, events, ?fault, "acknowledged events are lost");
                self.metrics.events_lost(&followed.table, events as u64);
                return None;
            }
            followed.answer = answer;
        }
    }
}
