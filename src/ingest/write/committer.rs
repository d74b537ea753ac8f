//! A table's committer: collects the next batch while one is being stored, in order, and ends when it is told to.
//!
//! In: requests from the queue. Out: answers, each after the commit that it speaks of.
//!
//! **Invariant:** one batch at a time is deduped, written and committed; the next is collected meanwhile.
//! **Invariant:** when the queue closes, all that was in it is committed before the task ends.

use futures::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::batch::{Batch, Pace, Pending};
use super::table_writer::TableWriter;
use crate::config::IngestConfig;

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
    /// From now on nothing waits for company any more.
    pub(in crate::ingest) hurry: CancellationToken,
    /// Nothing more will come: close the queue, and end when it is empty.
    pub(in crate::ingest) close: CancellationToken,
}

/// Collects and stores until the queue is closed and empty.
pub(in crate::ingest) async fn run(
    mut queue: mpsc::Receiver<Pending>,
    table_writer: TableWriter,
    limits: IngestConfig,
    ending: Ending,
) {
    let mut pace = Pace::new(limits.batch_age_max, Instant::now());
    let mut stage = Stage::Resting(Box::new(table_writer));
    let mut batch: Option<Batch> = None;
    let mut open = true;
    while open || batch.is_some() || matches!(stage, Stage::Storing(_)) {
        let full = batch.as_ref().is_some_and(|batch| batch.is_full(limits.batch_rows_max, limits.batch_bytes_max));
        let hurry = full || !open || ending.hurry.is_cancelled();
        let now = Instant::now();
        let due = batch.as_ref().map(|batch| if hurry { now } else { batch.due(&pace, now) });
        tokio::select! {
            // In this order: a batch takes whoever is already there before it closes.
            biased;
            request = queue.recv(), if open && !full => match (request, &mut batch) {
                (Some(request), Some(batch)) => batch.push(request),
                (Some(request), None) => batch = Some(Batch::open(request, now)),
                (None, _) => open = false,
            },
            table_writer = stored(&mut stage) => stage = Stage::Resting(table_writer),
            () = until(due), if matches!(stage, Stage::Resting(_)) => {
                pace.begin(Instant::now());
                stage = begin(std::mem::replace(&mut stage, Stage::Between), batch.take());
            }
            () = ending.hurry.cancelled(), if !hurry => {}
            () = ending.close.cancelled(), if !queue.is_closed() => queue.close(),
        }
    }
    if let Stage::Resting(table_writer) = stage {
        table_writer.close().await;
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
