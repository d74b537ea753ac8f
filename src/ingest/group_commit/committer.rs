//! The committer of a table stores one batch of requests at a time. While it stores a batch, it collects the next one.
//!
//! ```text
//!   Committer (queue, collected batch) ─► run: one task ─ panic ─► run again: reread the lake, continue with the queue
//! ```
//!
//! The committer takes requests from the table's queue and answers each request after its rows are committed.
//!
//! After a panic, the committer runs again. The [`Committer`] keeps its queue and the batch that it was collecting. The
//! batch that was being stored is dropped with its reply channels, so the senders of its requests get an error that
//! asks them to retry. Like a restarted process, the next run rebuilds the dedupe index from the latest table version.
//! If the dropped batch was committed, the index then contains its rows.
//!
//! **Invariant:** the committer dedupes, writes and commits only one batch at a time.
//! **Invariant:** when the queue is closed, all requests in it are committed before the committer's task ends.
//! **Invariant:** after a panic, the next run reads the state of the table from the lake. It keeps nothing of the
//! failed run except the queue, the collected batch and the commit rate.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::sync::{Mutex, Notify, mpsc};
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::batch::{Batch, Pace, Pending};
use super::table_writer::{TableWriter, refuse};
use crate::config::IngestConfig;
use crate::error::Result;
use crate::ingest::dedupe::EventKeyHasher;
use crate::lake::Table;
use crate::telemetry::Metrics;

/// For this long after a panic, each request is stored in its own batch, so that a request that causes another panic
/// does not make other requests fail.
const ALONE_TIME: Duration = Duration::from_secs(10);
/// The pause between two attempts to read the lake again after a panic.
const REOPEN_PAUSE: Duration = Duration::from_secs(1);

/// What the table writer is doing.
enum Stage {
    /// It is waiting for the next batch.
    Idle(Box<TableWriter>),
    /// It is storing a batch. The future resolves to the table writer when the batch is stored.
    Storing(BoxFuture<'static, Box<TableWriter>>),
    /// A placeholder while `Idle` changes to `Storing`.
    Between,
}

/// The steps of a shutdown, in order. A step begins when its token is cancelled.
#[derive(Debug, Clone, Default)]
pub(in crate::ingest) struct ShutdownSignals {
    /// Commit batches immediately, without waiting for more requests.
    pub(in crate::ingest) flush: CancellationToken,
    /// Refuse new requests.
    pub(in crate::ingest) stop_admitting: CancellationToken,
    /// Close the queue of each committer, because no more requests can arrive. A committer ends when its queue is
    /// empty.
    pub(in crate::ingest) close: CancellationToken,
}

/// Opens the [`TableWriter`] of a table, at startup and after each panic in the committer.
#[derive(Debug, Clone)]
pub(in crate::ingest) struct TableWriterOpener {
    pub(in crate::ingest) table: Arc<Table>,
    pub(in crate::ingest) is_quarantine: bool,
    pub(in crate::ingest) key_hasher: EventKeyHasher,
    pub(in crate::ingest) limits: IngestConfig,
    pub(in crate::ingest) metrics: Arc<Metrics>,
    /// Notified after each commit to the table.
    pub(in crate::ingest) committed: Arc<Notify>,
}

/// The committer of one table.
#[derive(Debug)]
pub(in crate::ingest) struct Committer {
    opener: TableWriterOpener,
    shutdown: ShutdownSignals,
    /// The state that is kept after a panic. A run holds the lock until it ends.
    state: Mutex<CommitterState>,
}

/// The part of a committer's state that is kept after a panic.
#[derive(Debug)]
struct CommitterState {
    queue: mpsc::Receiver<Pending>,
    /// The batch that is being collected. `None` if no request is waiting.
    batch: Option<Batch>,
    pace: Pace,
    /// The table writer for the first run, which was opened before the server began to accept requests. Later runs open
    /// their own table writers.
    table_writer: Option<Box<TableWriter>>,
}

impl TableWriterOpener {
    /// Opens a table writer. The dedupe index is built from the latest table version that this server has read or
    /// committed.
    pub(in crate::ingest) async fn table_writer(&self) -> Result<TableWriter> {
        let (table, metrics, committed) = (self.table.clone(), self.metrics.clone(), self.committed.clone());
        TableWriter::open(table, self.is_quarantine, self.key_hasher, &self.limits, metrics, committed).await
    }

    /// Opens a table writer after a panic. First reads the latest table version, which may contain the batch that was
    /// being stored.
    async fn table_writer_after_panic(&self) -> Result<TableWriter> {
        self.table.refresh().await?;
        self.table_writer().await
    }
}

impl Committer {
    /// Creates a committer that uses `table_writer` in its first run.
    pub(in crate::ingest) fn new(
        queue: mpsc::Receiver<Pending>,
        table_writer: TableWriter,
        opener: TableWriterOpener,
        shutdown: ShutdownSignals,
    ) -> Self {
        let pace = Pace::new(opener.limits.batch_age_max, Instant::now());
        let state = CommitterState { queue, batch: None, pace, table_writer: Some(Box::new(table_writer)) };
        Self { opener, shutdown, state: Mutex::new(state) }
    }

    /// Collects and stores batches until the queue is closed and empty.
    pub(in crate::ingest) async fn run(&self) {
        let mut state = self.state.lock().await;
        let (table_writer, alone_until) = match state.table_writer.take() {
            Some(table_writer) => (table_writer, Instant::now()),
            None => match self.reopen(&mut state).await {
                Some(table_writer) => (table_writer, Instant::now() + ALONE_TIME),
                None => return,
            },
        };
        self.store_all(&mut state, table_writer, alone_until).await;
    }

    async fn store_all(&self, state: &mut CommitterState, table_writer: Box<TableWriter>, alone_until: Instant) {
        let (limits, shutdown) = (&self.opener.limits, &self.shutdown);
        let CommitterState { queue, batch, pace, .. } = state;
        let mut stage = Stage::Idle(table_writer);
        let mut is_open = true;
        while is_open || batch.is_some() || matches!(stage, Stage::Storing(_)) {
            let now = Instant::now();
            let is_full = |batch: &Batch| batch.is_full(limits.batch_rows_max, limits.batch_bytes_max);
            let is_batch_full = batch.as_ref().is_some_and(|batch| now < alone_until || is_full(batch));
            let is_urgent = is_batch_full || !is_open || shutdown.flush.is_cancelled();
            let due = batch.as_ref().map(|batch| if is_urgent { now } else { batch.due(pace, now) });
            tokio::select! {
                // The branches are polled in this order, so all waiting requests are added to the batch before it is
                // stored.
                biased;
                request = queue.recv(), if is_open && !is_batch_full => match (request, batch.as_mut()) {
                    (Some(request), Some(batch)) => batch.push(request),
                    (Some(request), None) => *batch = Some(Batch::open(request, now)),
                    (None, _) => is_open = false,
                },
                table_writer = finish_storing(&mut stage) => stage = Stage::Idle(table_writer),
                () = until(due), if matches!(stage, Stage::Idle(_)) => {
                    pace.begin(Instant::now());
                    stage = start_storing(std::mem::replace(&mut stage, Stage::Between), batch.take());
                }
                () = shutdown.flush.cancelled(), if !is_urgent => {}
                () = shutdown.close.cancelled(), if !queue.is_closed() => queue.close(),
            }
        }
        if let Stage::Idle(table_writer) = stage {
            table_writer.close().await;
        }
    }

    /// Opens a table writer after a panic, and retries until the lake can be read. Until then, all requests are
    /// answered with an error. Returns `None` if the server stops before the lake can be read.
    async fn reopen(&self, state: &mut CommitterState) -> Option<Box<TableWriter>> {
        loop {
            let error = match self.opener.table_writer_after_panic().await {
                Ok(table_writer) => return Some(Box::new(table_writer)),
                Err(error) => error,
            };
            let is_closing = self.shutdown.close.is_cancelled();
            if is_closing {
                state.queue.close();
            }
            let mut requests = state.batch.take().map_or_else(Vec::new, |batch| batch.requests);
            while let Ok(request) = state.queue.try_recv() {
                requests.push(request);
            }
            refuse(&self.opener.table.contract().name, requests, &error);
            if is_closing {
                return None;
            }
            let _closing = self.shutdown.close.run_until_cancelled(tokio::time::sleep(REOPEN_PAUSE)).await;
        }
    }
}

/// Starts to store `batch` if the table writer is idle.
fn start_storing(stage: Stage, batch: Option<Batch>) -> Stage {
    match (stage, batch) {
        (Stage::Idle(mut table_writer), Some(batch)) => Stage::Storing(Box::pin(async move {
            table_writer.store(batch.requests).await;
            table_writer
        })),
        (stage, _) => stage,
    }
}

/// Waits until the current batch is stored, and returns the table writer. If no batch is being stored, waits forever.
async fn finish_storing(stage: &mut Stage) -> Box<TableWriter> {
    match stage {
        Stage::Storing(storing) => storing.await,
        Stage::Idle(_) | Stage::Between => std::future::pending().await,
    }
}

/// Waits until `due`. If `due` is `None`, waits forever. If `due` has already passed, returns immediately instead of
/// starting a timer, because a timer takes at least a millisecond.
async fn until(due: Option<Instant>) {
    match due {
        Some(due) if due <= Instant::now() => {}
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}
