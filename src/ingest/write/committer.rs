//! A table's committer: collects the next batch while one is being stored, in order, and ends when it is told to.
//!
//! ```text
//!   Committer (queue, collected batch) ─► run: one task ─ panic ─► run again: read the lake anew, go on with the queue
//! ```
//!
//! In: requests from the queue. Out: answers, each after the commit that it speaks of.
//!
//! A panic ends the task, not the [`Committer`]: its queue and the batch that it was collecting are kept. The requests of the
//! batch that was being stored lose their reply, which tells whoever waits to hand them in again. The next run is the same as
//! after a crash of the process: whether that batch was committed is read from the lake, and the dedupe index is built anew.
//!
//! **Invariant:** one batch at a time is deduped, written and committed; the next is collected meanwhile.
//! **Invariant:** when the queue closes, all that was in it is committed before the task ends.
//! **Invariant:** a run begins with what the lake says, never with what a run that panicked has left behind.

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

/// For so long after a panic each request is a batch of its own: one that makes the committer panic then fails alone.
const ALONE_TIME: Duration = Duration::from_secs(10);
/// The pause before the lake is read once more after a panic, when that has failed.
const REOPEN_PAUSE: Duration = Duration::from_secs(1);

/// What the committer's one storing stage does now.
enum Stage {
    Resting(Box<TableWriter>),
    Storing(BoxFuture<'static, Box<TableWriter>>),
    /// Never seen from outside a turn: the keeper is in the hands of the code that moves it.
    Between,
}

/// When the committers should end.
#[derive(Debug, Clone, Default)]
pub(in crate::ingest) struct Ending {
    /// From now on nothing waits for company any more: batches are small, and committed at once.
    pub(in crate::ingest) flush: CancellationToken,
    /// From now on nothing is admitted any more.
    pub(in crate::ingest) hurry: CancellationToken,
    /// Nothing more will come: close the queue, and end when it is empty.
    pub(in crate::ingest) close: CancellationToken,
}

/// How a table's keeper is made: at the start, and again after a panic.
#[derive(Debug, Clone)]
pub(in crate::ingest) struct Opening {
    pub(in crate::ingest) table: Arc<Table>,
    pub(in crate::ingest) is_quarantine: bool,
    pub(in crate::ingest) key_hasher: EventKeyHasher,
    pub(in crate::ingest) limits: IngestConfig,
    pub(in crate::ingest) metrics: Arc<Metrics>,
    /// Told after each commit.
    pub(in crate::ingest) committed: Arc<Notify>,
}

/// A table's committer, and what of it outlives a panic.
#[derive(Debug)]
pub(in crate::ingest) struct Committer {
    opening: Opening,
    ending: Ending,
    /// Held by the run.
    kept: Mutex<Kept>,
}

#[derive(Debug)]
struct Kept {
    queue: mpsc::Receiver<Pending>,
    /// The batch that is being collected.
    batch: Option<Batch>,
    pace: Pace,
    /// For the first run: opened before the server takes requests.
    table_writer: Option<Box<TableWriter>>,
}

impl Opening {
    /// A keeper whose memory is built from the table as it is known now.
    pub(in crate::ingest) async fn table_writer(&self) -> Result<TableWriter> {
        let (table, metrics, committed) = (self.table.clone(), self.metrics.clone(), self.committed.clone());
        TableWriter::open(table, self.is_quarantine, self.key_hasher, &self.limits, metrics, committed).await
    }

    /// The same after a panic: with what the lake holds by now, the batch included whose commit is in doubt.
    async fn keeper_again(&self) -> Result<TableWriter> {
        self.table.refresh().await?;
        self.table_writer().await
    }
}

impl Committer {
    /// A committer with its first keeper.
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
                // In this order: a batch takes whoever is already there before it closes.
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

    /// The keeper after a panic, when the lake can be read. Until then whoever comes is told to come again. None when the
    /// server stops before.
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

/// Hands the batch to the resting keeper.
fn begin(stage: Stage, batch: Option<Batch>) -> Stage {
    match (stage, batch) {
        (Stage::Resting(mut table_writer), Some(batch)) => Stage::Storing(Box::pin(async move {
            table_writer.store(batch.requests).await;
            table_writer
        })),
        (stage, _) => stage,
    }
}

/// The keeper, when the batch in its hands is stored; never, when there is none.
async fn stored(stage: &mut Stage) -> Box<TableWriter> {
    match stage {
        Stage::Storing(storing) => storing.await,
        Stage::Resting(_) | Stage::Between => std::future::pending().await,
    }
}

/// Ends at `due`; never, when nothing is due. What is due already does not wait for a timer, which counts in milliseconds.
async fn until(due: Option<Instant>) {
    match due {
        Some(due) if due <= Instant::now() => {}
        Some(due) => sleep_until(due).await,
        None => std::future::pending().await,
    }
}
