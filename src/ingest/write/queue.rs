//! The queue of one table: the only place that creates a [`Pending`] write.
//!
//! In: rows that are ready to be stored ([`WriteRequest`]), from clients, sources and replays. Out: the answer of the table's
//! committer, after the commit ([`WriteAnswer`]).

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::batch::{Pending, Stored};
use super::reservation::{MemoryBudget, MemoryReservation};
use crate::error::{Error, Result};
use crate::ingest::dedupe::Part;
use crate::lake::Progress;

/// The maximum number of requests in one table's queue. `queue_bytes_max` limits their bytes.
const QUEUE_REQUESTS_MAX: usize = 1024;

/// The rows of one request for one table.
#[derive(Debug)]
pub(in crate::ingest) struct WriteRequest {
    /// The rows, with their event keys.
    pub(in crate::ingest) part: Arc<Part>,
    /// Their memory reservation, held until the answer.
    pub(in crate::ingest) reservation: MemoryReservation,
    /// The source offsets to commit with the rows; empty for a client's request.
    pub(in crate::ingest) progress: Vec<Progress>,
    /// Whether the rows form a batch of their own, because more of the same source are waiting.
    pub(in crate::ingest) is_whole: bool,
}

/// The answer to a [`WriteRequest`].
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
    /// A request without source offsets.
    pub(in crate::ingest) fn new(part: Arc<Part>, reservation: MemoryReservation) -> Self {
        Self { part, reservation, progress: Vec::new(), is_whole: false }
    }

    /// Splits the request into the committer's input and the receiver of its answer.
    pub(super) fn pending(self) -> (Pending, WriteAnswer) {
        let Self { part, reservation, progress, is_whole } = self;
        let (reply, answer) = oneshot::channel();
        (Pending { part, progress, is_whole, reservation, reply }, WriteAnswer(answer))
    }
}

impl WriteAnswer {
    /// Waits for the commit. `Unavailable` if it is unknown whether the rows are stored.
    pub(in crate::ingest) async fn stored(self) -> Result<Stored> {
        self.0.await.map_err(|_| interrupted())?
    }
}

impl TableQueue {
    /// Creates the queue of a table, and the receiving end for the table's committer.
    pub(in crate::ingest) fn new(table: &str, memory_budget: MemoryBudget) -> (Self, mpsc::Receiver<Pending>) {
        let (pending, receiver) = mpsc::channel(QUEUE_REQUESTS_MAX);
        (Self { table: table.into(), pending, memory_budget }, receiver)
    }

    /// The table's name.
    pub(in crate::ingest) fn table(&self) -> &str {
        &self.table
    }

    /// Whether its committer has ended.
    pub(in crate::ingest) fn is_closed(&self) -> bool {
        self.pending.is_closed()
    }

    /// Sends a request to the committer. Waits without a limit for a free slot in the queue.
    pub(in crate::ingest) async fn send(&self, request: WriteRequest) -> Result<WriteAnswer> {
        let (pending, answer) = request.pending();
        self.pending.send(pending).await.map_err(|_| stopping())?;
        Ok(answer)
    }

    /// Like [`TableQueue::send`], but `Limited` with a retry time if no slot is free within `queue_wait_max`.
    pub(in crate::ingest) async fn offer(&self, request: WriteRequest) -> Result<WriteAnswer> {
        let (pending, answer) = request.pending();
        self.pending.send_timeout(pending, self.memory_budget.wait_max()).await.map_err(|error| match error {
            mpsc::error::SendTimeoutError::Timeout(_) => self.memory_budget.full(),
            mpsc::error::SendTimeoutError::Closed(_) => stopping(),
        })?;
        Ok(answer)
    }

    /// Stores the rows of a client's request and returns after their commit.
    pub(in crate::ingest) async fn store(&self, part: Part, reservation: MemoryReservation) -> Result<Stored> {
        self.offer(WriteRequest::new(Arc::new(part), reservation)).await?.stored().await
    }
}

/// The error for rows whose committer panicked before it answered.
pub(in crate::ingest) fn interrupted() -> Error {
    Error::unavailable("the table's committer was interrupted: send the events again; no event is stored twice")
}

/// The error of a server that is stopping.
pub(in crate::ingest) fn stopping() -> Error {
    Error::unavailable("the server is stopping: retry, possibly on another server")
}
