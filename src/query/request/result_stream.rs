//! The result of a running query: batches in the declared schema, until the rows end or a limit is reached.
//!
//! In: the engine's stream. Out: the same rows as [`ResultStream::batches`].
//!
//! ```text
//!   query runtime: plan ─► limits ─► declared schema ─► channel of a few batches ─┬─► endpoint's runtime: ResultStream
//!                                                   └─► how it ended ─────────────┘
//! ```
//!
//! **Invariant:** whatever ends the query (the last row, a limit, an error, a cancel, a drop) first frees the plan and
//! its memory, then the slot and the entry in the list of running queries, and only then notifies the reader.
//! **Invariant:** limits apply whether or not the reader reads: a slow reader holds at most [`BATCHES_AHEAD`] batches,
//! and no plan and no slot beyond `query.time_max`.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::SchemaRef;
use datafusion::execution::SendableRecordBatchStream;
use futures::{StreamExt as _, stream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::clock::Micros;
use crate::config::QueryConfig;
use crate::error::{Error, Result};
use crate::query::error::of_engine;
use crate::query::request::engine::QueryTicket;
use crate::query::request::query_runtime::{QueryRuntime, stopped};
use crate::query::request::session::ResultStream;
use crate::supervise::catch_future;
use crate::telemetry::QueryOutcome;

/// The number of batches that are computed ahead of the reader.
const BATCHES_AHEAD: usize = 2;

/// The deadline of a query, and the error for missing it.
#[derive(Debug, Clone, Copy)]
pub(in crate::query) struct QueryDeadline {
    at: Instant,
    time_max: Duration,
    token_expires: bool,
}

impl QueryDeadline {
    /// `query.time_max` after `started`, or after `token_left` if the token expires earlier.
    pub(in crate::query) fn new(started: Instant, token_left: Micros, config: &QueryConfig) -> Self {
        let token_left = Duration::from_micros(u64::try_from(token_left).unwrap_or(0));
        let (time_max, limit) = (config.time_max, started + config.time_max);
        match Instant::now().checked_add(token_left) {
            Some(expires) if expires < limit => Self { at: expires, time_max, token_expires: true },
            _ => Self { at: limit, time_max, token_expires: false },
        }
    }

    /// Waits for `work` until the deadline.
    pub(in crate::query) async fn limit<T>(self, work: impl Future<Output = Result<T>>) -> Result<T> {
        timeout_at(self.at, work).await.unwrap_or_else(|_| Err(self.error()))
    }

    fn error(self) -> Error {
        if self.token_expires {
            return Error::unauthenticated("the token expired while the query ran: get a new one");
        }
        Error::limited(format!(
            "the query took longer than {} s (limit query.time_max): query a shorter time range or fewer groups",
            self.time_max.as_secs_f64()
        ))
    }
}

/// A query running on the query runtime.
struct RunningPlan {
    batches: SendableRecordBatchStream,
    schema: SchemaRef,
    deadline: QueryDeadline,
    rows_left: usize,
    too_many_rows: bool,
    config: QueryConfig,
    ticket: QueryTicket,
}

/// The reader's side.
struct Reader {
    batches: mpsc::Receiver<RecordBatch>,
    /// How the query ended; the reader takes it once.
    end: Option<oneshot::Receiver<Result<()>>>,
    stop: CancellationToken,
    /// Dropping this ends the run.
    _run: AbortOnDropHandle<()>,
}

/// Starts returning `batches`.
pub(in crate::query) fn start(
    runtime: &QueryRuntime,
    batches: SendableRecordBatchStream,
    schema: SchemaRef,
    deadline: QueryDeadline,
    ticket: QueryTicket,
    config: QueryConfig,
) -> ResultStream {
    let (id, stop, ends) = (ticket.id, ticket.stop.clone(), deadline.at);
    let run =
        RunningPlan { batches, schema, deadline, rows_left: config.rows_max, too_many_rows: false, config, ticket };
    let (sender, receiver) = mpsc::channel(BATCHES_AHEAD);
    let (ended, end) = oneshot::channel();
    let run = runtime.spawn(run.until_end(sender, ended));
    let reader = Reader { batches: receiver, end: Some(end), stop, _run: run };
    let batches = stream::unfold(reader, |mut reader| async move { Some((reader.next().await?, reader)) });
    ResultStream { id, deadline: ends, batches: batches.boxed() }
}

impl Reader {
    /// The next batch, or the error that ended the query. Batches that were ready before a limit are still returned;
    /// nothing is returned after a cancel.
    async fn next(&mut self) -> Option<Result<RecordBatch>> {
        while let Some(batch) = self.batches.recv().await {
            if !self.stop.is_cancelled() {
                return Some(Ok(batch));
            }
        }
        match self.end.take()?.await {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(Err(error)),
            // The runtime has stopped and dropped the run.
            Err(_) => Some(Err(stopped())),
        }
    }
}

impl RunningPlan {
    /// Sends all batches, then the outcome.
    async fn until_end(mut self, sender: mpsc::Sender<RecordBatch>, ended: oneshot::Sender<Result<()>>) {
        let outcome = self.hand_out(&sender).await;
        let Self { batches, ticket, .. } = self;
        drop(batches);
        ticket.end(outcome.as_ref().err().map_or(QueryOutcome::Ok, QueryOutcome::from));
        // Without a reader nobody needs the outcome.
        let _ = ended.send(outcome);
    }

    async fn hand_out(&mut self, sender: &mpsc::Sender<RecordBatch>) -> Result<()> {
        while let Some(batch) = self.next().await {
            let batch = batch?;
            let rows = batch.num_rows();
            let (stop, deadline) = (self.ticket.stop.clone(), self.deadline);
            tokio::select! {
                biased;
                () = stop.cancelled() => return Err(cancelled()),
                sent = timeout_at(deadline.at, sender.send(batch)) => match sent {
                    Err(_) => return Err(deadline.error()),
                    Ok(Err(_)) => return Err(cancelled()),
                    Ok(Ok(())) => self.ticket.rows(rows),
                },
            }
        }
        Ok(())
    }

    /// The next batch. Rows up to the limit are returned before the error.
    async fn next(&mut self) -> Option<Result<RecordBatch>> {
        if self.too_many_rows {
            return Some(Err(Error::limited(format!(
                "the result has more than {} rows (limit query.rows_max): add a LIMIT or a filter",
                self.config.rows_max
            ))));
        }
        let batch = match self.pull().await? {
            Ok(batch) => batch,
            Err(error) => return Some(Err(error)),
        };
        let batch = match self.rows_left.checked_sub(batch.num_rows()) {
            Some(left) => {
                self.rows_left = left;
                batch
            }
            None => {
                self.too_many_rows = true;
                batch.slice(0, self.rows_left)
            }
        };
        Some(self.conform(&batch))
    }

    /// The next batch that has rows.
    async fn pull(&mut self) -> Option<Result<RecordBatch>> {
        loop {
            // A stream that is always ready would never let the timer fire.
            if Instant::now() >= self.deadline.at {
                return Some(Err(self.deadline.error()));
            }
            let next = catch_future(self.batches.next());
            let next = tokio::select! {
                biased;
                () = self.ticket.stop.cancelled() => return Some(Err(cancelled())),
                next = timeout_at(self.deadline.at, next) => next,
            };
            match next {
                Err(_) => return Some(Err(self.deadline.error())),
                Ok(Err(panic)) => return Some(Err(Error::internal("the query panicked").with_source(panic))),
                Ok(Ok(None)) => return None,
                Ok(Ok(Some(Err(fault)))) => return Some(Err(of_engine(fault, &self.config))),
                Ok(Ok(Some(Ok(batch)))) if batch.num_rows() == 0 => {}
                Ok(Ok(Some(Ok(batch)))) => return Some(Ok(batch)),
            }
        }
    }

    /// Converts a batch to the declared schema: the engine's may differ in nullability, metadata and inner types.
    fn conform(&self, batch: &RecordBatch) -> Result<RecordBatch> {
        let exact = CastOptions { safe: false, ..CastOptions::default() };
        let columns = batch.columns().iter().zip(self.schema.fields()).map(|(column, field)| {
            if column.data_type() == field.data_type() {
                Ok(Arc::clone(column))
            } else {
                cast_with_options(column, field.data_type(), &exact)
            }
        });
        let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
        columns
            .collect::<Result<Vec<_>, _>>()
            .and_then(|columns| RecordBatch::try_new_with_options(Arc::clone(&self.schema), columns, &options))
            .map_err(|error| Error::internal("the result does not match its declared schema").with_source(error))
    }
}

fn cancelled() -> Error {
    Error::cancelled("the query was cancelled")
}
