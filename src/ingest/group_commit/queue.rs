//! The queue of write requests for one table. The table's committer reads from it.
//!
//! Clients, sources and replays send rows that are ready to be stored ([`WriteRequest`]). Each sender receives a
//! [`WriteAnswer`] and can use it to wait for the commit.

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::batch::{Pending, Stored};
use super::reservation::{MemoryBudget, MemoryReservation};
use crate::error::{Error, Result};
use crate::ingest::dedupe::PreparedRows;
use crate::lake::Progress;

/// The maximum number of requests in one table's queue. The configuration key `queue_bytes_max` limits the total size
/// of the requests in all queues.
const QUEUE_REQUESTS_MAX: usize = 1024;

/// The rows of one request for one table.
#[derive(Debug)]
pub(in crate::ingest) struct WriteRequest {
    /// The rows and their event keys.
    pub(in crate::ingest) prepared: Arc<PreparedRows>,
    /// The memory reservation for the rows, which is held until the request is answered.
    pub(in crate::ingest) reservation: MemoryReservation,
    /// The source offsets that are committed with the rows. Empty for requests from clients.
    pub(in crate::ingest) progress: Vec<Progress>,
    /// True if the batch must be committed without waiting for more requests. This field is set for a source that has
    /// more rows to store, because the source waits for this commit before it continues.
    pub(in crate::ingest) is_separate: bool,
}

/// The answer to a [`WriteRequest`], which arrives after the commit.
#[derive(Debug)]
pub(in crate::ingest) struct WriteAnswer(oneshot::Receiver<Result<Stored>>);

/// The sending side of one table's queue.
#[derive(Debug, Clone)]
pub(in crate::ingest) struct TableQueue {
    table: Arc<str>,
    pending: mpsc::Sender<Pending>,
    memory_budget: MemoryBudget,
}

impl WriteRequest {
    /// Creates a request without source offsets.
    pub(in crate::ingest) fn new(prepared: Arc<PreparedRows>, reservation: MemoryReservation) -> Self {
        Self { prepared, reservation, progress: Vec::new(), is_separate: false }
    }

    /// Splits the request into the part that is sent to the committer and the [`WriteAnswer`] that the sender keeps.
    pub(super) fn pending(self) -> (Pending, WriteAnswer) {
        let Self { prepared, reservation, progress, is_separate } = self;
        let (reply, answer) = oneshot::channel();
        (Pending { prepared, progress, is_separate, reservation, reply }, WriteAnswer(answer))
    }
}

impl WriteAnswer {
    /// Waits for the commit. Fails with `Unavailable` if it is unknown whether the rows are stored.
    pub(in crate::ingest) async fn stored(self) -> Result<Stored> {
        self.0.await.map_err(|_| interrupted())?
    }
}

impl TableQueue {
    /// Creates the queue of a table. Returns the sending side, and the receiving side for the table's committer.
    pub(in crate::ingest) fn new(table: &str, memory_budget: MemoryBudget) -> (Self, mpsc::Receiver<Pending>) {
        let (pending, receiver) = mpsc::channel(QUEUE_REQUESTS_MAX);
        (Self { table: table.into(), pending, memory_budget }, receiver)
    }

    /// Returns the table's name.
    pub(in crate::ingest) fn table(&self) -> &str {
        &self.table
    }

    /// Returns true if the table's committer has ended.
    pub(in crate::ingest) fn is_closed(&self) -> bool {
        self.pending.is_closed()
    }

    /// Sends a request to the committer. If the queue is full, waits without a time limit.
    pub(in crate::ingest) async fn send(&self, request: WriteRequest) -> Result<WriteAnswer> {
        let (pending, answer) = request.pending();
        self.pending.send(pending).await.map_err(|_| stopping())?;
        Ok(answer)
    }

    /// Sends a request to the committer. If the queue stays full for `queue_wait_max`, fails with `Limited`. The error
    /// says when to retry.
    pub(in crate::ingest) async fn offer(&self, request: WriteRequest) -> Result<WriteAnswer> {
        let (pending, answer) = request.pending();
        self.pending.send_timeout(pending, self.memory_budget.wait_max()).await.map_err(|error| match error {
            mpsc::error::SendTimeoutError::Timeout(_) => self.memory_budget.full(),
            mpsc::error::SendTimeoutError::Closed(_) => stopping(),
        })?;
        Ok(answer)
    }

    /// Sends the rows of a client's request to the committer, and waits for their commit.
    pub(in crate::ingest) async fn store(
        &self,
        prepared: PreparedRows,
        reservation: MemoryReservation,
    ) -> Result<Stored> {
        self.offer(WriteRequest::new(Arc::new(prepared), reservation)).await?.stored().await
    }
}

/// Creates the error for a request that was not answered because the committer panicked.
pub(in crate::ingest) fn interrupted() -> Error {
    Error::unavailable(
        "the table's committer failed and was restarted: send the events again; no event is stored twice",
    )
}

/// Creates the error for requests to a server that is stopping.
pub(in crate::ingest) fn stopping() -> Error {
    Error::unavailable("the server is stopping: retry, possibly on another server")
}
