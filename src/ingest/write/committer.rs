//! A table's committer: stores batches in order, and collects the next batch while one is being stored.
//!
//! ```text
//!   Committer (queue, collected batch) ─► run: one task ─ panic ─► run again: reread the lake, continue with the queue
//! ```
//!
//! In: requests from the queue. Out: answers, each after the commit of its rows.
//!
//! A panic ends the task, not the [`Committer`]: its queue and the batch that it was collecting survive. The requests of the
//! batch that was being stored lose their reply channel, so their senders get an error and retry. The next run starts as after
//! a crash of the process: it reads from the lake whether that batch was committed, and rebuilds the dedupe index.
//!
//! **Invariant:** one batch at a time is deduped, written and committed; the next is collected meanwhile.
//! **Invariant:** when the queue closes, all requests in it are committed before the task ends.
//! **Invariant:** a run starts from the state of the lake, never from the memory of a run that panicked.

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

/// The time after a panic during which each request is a batch of its own, so that one that causes a panic fails alone.
const ALONE_TIME: Duration = Duration::from_secs(10);
/// The pause between attempts to reread the lake after a panic.
const REOPEN_PAUSE: Duration = Duration::from_secs(1);

/// The state of the committer's storing stage.
enum Stage {
    Resting(Box<TableWriter>),
    Storing(BoxFuture<'static, Box<TableWriter>>),
    /// A transition between the other two; not visible outside one loop iteration.
    Between,
}

/// The signals of a shutdown to the committers, in order.
#[derive(Debug, Clone, Default)]
pub(in crate::ingest) struct Ending {
    /// Batches no longer wait for more requests: they are committed at once.
    pub(in crate::ingest) flush: CancellationToken,
    /// No request is admitted any more.
    pub(in crate::ingest) hurry: CancellationToken,
    /// No request will follow: committers close their queues, and end when these are empty.
    pub(in crate::ingest) close: CancellationToken,
}

/// Opens a table's writer: at startup, and again after a panic.
#[derive(Debug, Clone)]
pub(in crate::ingest) struct Opening {
    pub(in crate::ingest) table: Arc<Table>,
    pub(in crate::ingest) is_quarantine: bool,
    pub(in crate::ingest) key_hasher: EventKeyHasher,
    pub(in crate::ingest) limits: IngestConfig,
    pub(in crate::ingest) metrics: Arc<Metrics>,
    /// Notified after each commit.
    pub(in crate::ingest) committed: Arc<Notify>,
}

/// A table's committer, with the state that survives a panic.
#[derive(Debug)]
pub(in crate::ingest) struct Committer {
    opening: Opening,
    ending: Ending,
    /// Locked by the current run.
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    queue: mpsc::Receiver<Pending>,
    /// The batch that is being collected.
    batch: Option<Batch>,
    pace: Pace,
    /// The writer of the first run, opened before the server accepts requests.
    table_writer: Option<Box<TableWriter>>,
}

impl Opening {
    /// Opens a table writer, with a dedupe index built from the currently known version of the table.
    pub(in crate::ingest) async fn table_writer(&self) -> Result<TableWriter> {
        let (table, metrics, committed) = (self.table.clone(), self.metrics.clone(), self.committed.clone());
        TableWriter::open(table, self.is_quarantine, self.key_hasher, &self.limits, metrics, committed).await
    }

    /// Opens a table writer after a panic: first reads the latest version, which may contain the batch in doubt.
    async fn keeper_again(&self) -> Result<TableWriter> {
        self.table.refresh().await?;
        self.table_writer().await
    }
}

impl Committer {
    /// Creates a committer with its first table writer.
    pub(in crate::ingest) fn new(
        queue: mpsc::Receiver<Pending>,
        table_writer: TableWriter,
        opening: Opening,
        ending: Ending,
    ) -> Self {
        let pace = Pace::new(opening.limits.batch_age_max, Instant::now());
        let kept = Kept { queue, batch: None, pace, table_writer: Some(Box::new(table_writer)) };
        Self { opening, ending, kept: Mutex::new(kept) }
    }

    /// Collects and stores until the queue is closed and empty.
    pub(in crate::ingest) async fn run(&self) {
        let mut kept = self.kept.lock().await;
        let (table_writer, alone_until) = match kept.table_writer.take() {
            Some(table_writer) => (table_writer, Instant::now()),
            None => match self.reopen(&mut kept).await {
                Some(table_writer) => (table_writer, Instant::now() + ALONE_TIME),
                None => return,
            },
        };
        self.store_all(&mut kept, table_writer, alone_until).await;
    }

    async fn store_all(&self, kept: &mut Kept, table_writer: Box<TableWriter>, alone_until: Instant) {
        let (limits, ending) = (&self.opening.limits, &self.ending);
        let Kept { queue, batch, pace, .. } = kept;
        let mut stage = Stage::Resting(table_writer);
        let mut open = true;
        while open || batch.is_some() || matches!(stage, Stage::Storing(_)) {
            let now = Instant::now();
            let is_full = |batch: &Batch| batch.is_full(limits.batch_rows_max, limits.batch_bytes_max);
            let full = batch.as_ref().is_some_and(|batch| now < alone_until || is_full(batch));
            let hurry = full || !open || ending.flush.is_cancelled();
            let due = batch.as_ref().map(|batch| if hurry { now } else { batch.due(pace, now) });
            tokio::select! {
                // In this order: a batch takes all requests that already wait before it closes.
                biased;
                request = queue.recv(), if open && !full => match (request, batch.as_mut()) {
                    (Some(request), Some(batch)) => batch.push(request),
                    (Some(request), None) => *batch = Some(Batch::open(request, now)),
                    (None, _) => open = false,
                },
                table_writer = stored(&mut stage) => stage = Stage::Resting(table_writer),
                () = until(due), if matches!(stage, Stage::Resting(_)) => {
                    pace.begin(Instant::now());
                    stage = begin(std::mem::replace(&mut stage, Stage::Between), batch.take());
                }
                () = ending.flush.cancelled(), if !hurry => {}
                () = ending.close.cancelled(), if !queue.is_closed() => queue.close(),
            }
        }
        if let Stage::Resting(table_writer) = stage {
            table_writer.close().await;
        }
    }

    /// Opens the table writer after a panic, and retries until the lake can be read. Meanwhile requests are refused with a
    /// retry time. `None` if the server stops first.
    async fn reopen(&self, kept: &mut Kept) -> Option<Box<TableWriter>> {
        loop {
            let error = match self.opening.keeper_again().await {
                Ok(table_writer) => return Some(Box::new(table_writer)),
                Err(error) => error,
            };
            let is_closing = self.ending.close.is_cancelled();
            if is_closing {
                kept.queue.close();
            }
            let mut requests = kept.batch.take().map_or_else(Vec::new, |batch| batch.requests);
            while let Ok(request) = kept.queue.try_recv() {
                requests.push(request);
            }
            refuse(&self.opening.table.contract().name, requests, &error);
            if is_closing {
                return None;
            }
            let _closing = self.ending.close.run_until_cancelled(tokio::time::sleep(REOPEN_PAUSE)).await;
        }
    }
}

/// Starts to store the batch with the idle table writer.
fn begin(stage: Stage, batch: Option<Batch>) -> Stage {
    match (stage, batch) {
        (Stage::Resting(mut table_writer), Some(batch)) => Stage::Storing(Box::pin(async move {
            table_writer.store(batch.requests).await;
            table_writer
        })),
        (stage, _) => stage,
    }
}

/// Returns the table writer when its batch is stored; pending forever if no batch is being stored.
async fn stored(stage: &mut Stage) -> Box<TableWriter> {
    match stage {
        Stage::Storing(storing) => storing.await,
        Stage::Resting(_) | Stage::Between => std::future::pending().await,
    }
}

/// Completes at `due`; pending forever if it is `None`. A past `due` skips the timer, whose resolution is a millisecond.
async fn until(due: Option<Instant>) {
    match due {
        Some(due) if due <= Instant::now() => {}
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}
