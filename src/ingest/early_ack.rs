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

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::{mpsc, oneshot};

use super::dedupe::Part;
use super::prepare::PreparedBatch;
use super::submit::{AdmittedRequest, interrupted};
use super::write::{MemoryReservation, Pending, Stored};
use super::{Ingest, Payload, Promise, Receipt, quarantine_of, stopping};
use crate::error::Result;
use crate::supervise::{AtStop, Task, TaskKind};
use crate::tenancy::Access;

/// The pause before rows that could not be stored are handed in again; it doubles up to [`PAUSE_MAX`].
const PAUSE_MIN: Duration = Duration::from_millis(100);
/// The longest such pause.
const PAUSE_MAX: Duration = Duration::from_secs(5);
/// How often they are handed in after the server was told to stop. Each time the committer tries `commit_attempts_max` times.
const LAST_ATTEMPTS_MAX: u32 = 3;

/// Events that were acknowledged and are neither stored nor lost yet, by the table that they are for.
#[derive(Debug, Default)]
pub(super) struct Owed(Mutex<BTreeMap<String, u64>>);

impl Owed {
    /// All of them, which are lost from now on.
    pub(super) fn take(&self) -> BTreeMap<String, u64> {
        std::mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn add(&self, followed: &PendingRows) {
        let mut owed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *owed.entry(followed.table.clone()).or_default() += followed.events();
    }

    fn settle(&self, followed: &PendingRows) {
        let mut owed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(events) = owed.get_mut(&followed.table) {
            *events = events.saturating_sub(followed.events());
        }
        owed.retain(|_, events| *events > 0);
    }
}

/// Rows on their way into one table.
struct PendingRows {
    queue: mpsc::Sender<Pending>,
    table: String,
    part: Arc<Part>,
    bytes: usize,
    /// None when it was lost with a panic: then they are handed in again.
    answer: Mutex<Option<oneshot::Receiver<Result<Stored>>>>,
    /// The room of the whole request, held until they are stored, or lost.
    _room: Arc<MemoryReservation>,
}

impl PendingRows {
    fn events(&self) -> u64 {
        self.part.marks.len() as u64
    }

    fn take_answer(&self) -> Option<oneshot::Receiver<Result<Stored>>> {
        self.answer.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
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
        let (bad, good) = (bad.map(Arc::new), good.map(Arc::new));
        for followed in [&bad, &good].into_iter().flatten() {
            self.owed.add(followed);
        }
        let (ingest, access, table, rejected) = (self.clone(), access.clone(), table.to_owned(), promise.rejected);
        self.submits.spawn(async move {
            let _running = running;
            let task = Task::new(TaskKind::Acknowledged, &table);
            let follow = || {
                let (ingest, bad, good) = (ingest.clone(), bad.clone(), good.clone());
                async move { tokio::join!(ingest.follow(bad), ingest.follow(good)) }
            };
            let followed = ingest.supervisor.keep(task, &ingest.ending.hurry, AtStop::Finish, follow).await;
            let (bad, good) = followed.unwrap_or_default();
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
        let answer = Mutex::new(Some(answer));
        Ok(PendingRows { queue: queue.clone(), table, part, bytes, answer, _room: reservation })
    }

    /// Waits until rows are stored, and hands them in again when they were not. None when there are none, or when they are
    /// lost.
    async fn follow(&self, followed: Option<Arc<PendingRows>>) -> Option<Stored> {
        let followed = followed?;
        let mut answer = followed.take_answer();
        let (mut pause, mut last_attempts) = (PAUSE_MIN, 0);
        loop {
            let fault = match answer {
                Some(answer) => match answer.await {
                    Ok(Ok(stored)) => {
                        self.owed.settle(&followed);
                        return Some(stored);
                    }
                    Ok(Err(error)) => error,
                    Err(_) => interrupted(),
                },
                None => interrupted(),
            };
            if self.ending.hurry.is_cancelled() {
                last_attempts += 1;
            }
            let (reply, next_answer) = oneshot::channel();
            let (part, bytes) = (followed.part.clone(), followed.bytes);
            let pending =
                Pending { part, progress: Vec::new(), is_whole: false, bytes, reservation: self.reservation(), reply };
            tracing::debug!(table = followed.table, ?fault, "acknowledged events were not stored yet, trying again");
            // A stop ends the pause, not the attempts.
            let _stopping = self.ending.hurry.run_until_cancelled(tokio::time::sleep(pause)).await;
            pause = (pause * 2).min(PAUSE_MAX);
            if last_attempts > LAST_ATTEMPTS_MAX || followed.queue.send(pending).await.is_err() {
                let events = followed.events();
                tracing::error!(table = followed.table, events, ?fault, "acknowledged events are lost");
                self.metrics.events_lost(&followed.table, events);
                self.owed.settle(&followed);
                return None;
            }
            answer = Some(next_answer);
        }
    }
}
