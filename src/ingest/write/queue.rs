//! The queue into one table: the only place where a [`Pending`] write is assembled.
//!
//! In: rows that are ready to be stored ([`WriteRequest`]), of clients, sources and replays alike. Out: the answer of the
//! table's committer, after the commit ([`WriteAnswer`]).

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use super::batch::{Pending, Stored};
use super::reservation::{MemoryBudget, MemoryReservation};
use crate::error::{Error, Result};
use crate::ingest::dedupe::Part;
use crate::lake::Progress;

/// Requests that wait in one table's queue; their bytes are bounded by `queue_bytes_max`.
const QUEUE_REQUESTS_MAX: usize = 1024;

/// The rows of one request for one table.
#[derive(Debug)]
pub(in crate::ingest) struct WriteRequest {
    /// The rows.
    pub(in crate::ingest) part: Arc<Part>,
    /// Their memory, held until the answer.
    pub(in crate::ingest) reservation: MemoryReservation,
    /// How far a source has come with them; a request of a client has none.
    pub(in crate::ingest) progress: Vec<Progress>,
    /// Whether they are a batch of their own: more is waiting behind them.
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
    /// Rows that no source has read.
    pub(in crate::ingest) fn new(part: Arc<Part>, reservation: MemoryReservation) -> Self {
        Self { part, reservation, progress: Vec::new(), is_whole: false }
    }

    /// What the committer takes, and where its answer comes out.
    pub(super) fn pending(self) -> (Pending, WriteAnswer) {
        let Self { part, reservation, progress, is_whole } = self;
        let (reply, answer) = oneshot::channel();
        (Pending { part, progress, is_whole, reservation, reply }, WriteAnswer(answer))
    }
}

impl WriteAnswer {
    /// Waits for the commit. `Unavailable` when the rows may or may not be stored.
    pub(in crate::ingest) async fn stored(self) -> Result<Stored> {
        self.0.await.map_err(|_| interrupted())?
    }
}

impl TableQueue {
    /// The queue into a table, and the end of it that the table's committer reads.
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

    /// Hands a request to the committer. Waits for a place in the queue as long as it takes.
    pub(in crate::ingest) async fn send(&self, request: WriteRequest) -> Result<WriteAnswer> {
        let (pending, answer) = request.pending();
        self.pending.send(pending).await.map_err(|_| stopping())?;
        Ok(answer)
    }

    /// The same, but `Limited` with a retry time when there is no place within `queue_wait_max`.
    pub(in crate::ingest) async fn offer(&self, request: WriteRequest) -> Result<WriteAnswer> {
        let (pending, answer) = request.pending();
        self.pending.send_timeout(pending, self.memory_budget.wait_max()).await.map_err(|error| match error {
            mpsc::error::SendTimeoutError::Timeout(_) => self.memory_budget.full(),
            mpsc::error::SendTimeoutError::Closed(_) => stopping(),
        })?;
        Ok(answer)
    }

    /// Stores the rows of a client's request: returns after their commit.
    pub(in crate::ingest) async fn store(&self, part: Part, reservation: MemoryReservation) -> Result<Stored> {
        self.offer(WriteRequest::new(Arc::new(part), reservation)).await?.stored().await
    }
}

/// What is known of rows whose committer panicked before it could answer.
pub(in crate::ingest) fn interrupted() -> Error {
    Error::unavailable("the table's committer was interrupted: send the events again, none is stored twice")
}

/// The answer of a server that takes no more events.
pub(in crate::ingest) fn stopping() -> Error {
    Error::unavailable("the server is stopping: send it to another one, or again later")
}
