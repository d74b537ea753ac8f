//! The result stream of a running query. The batches have the declared schema, and the stream ends after the last row
//! or when a limit is reached or the token is revoked. A task on the query runtime reads the engine's stream, and the
//! endpoint reads [`ResultStream::batches`].
//!
//! ```text
//!   query runtime: plan ─► limits ─► declared schema ─► channel of a few batches ─┬─► endpoint's runtime: ResultStream
//!                                                   └─► how it ended ─────────────┘
//! ```
//!
//! **Invariant:** when a query ends, its plan and its memory are freed first. Then its slot is freed, and it is removed
//! from the list of running queries. Last, the reader is notified that the query has ended. This order applies whether
//! the query ends after its last row, or because of a limit, an error, a cancellation or a dropped reader.
//! **Invariant:** limits apply even if the reader is slow. At most [`BATCHES_AHEAD`] batches wait for the reader. When
//! `query.time_max` has passed, the plan and the slot are freed even if batches still wait. If the plan does not yield,
//! neither is freed until it yields, but the reader stops waiting for it after [`ENDING_TIME_MAX`].

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::SchemaRef;
use datafusion::execution::SendableRecordBatchStream;
use futures::stream::BoxStream;
use futures::{StreamExt as _, stream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;
use tokio_util::task::AbortOnDropHandle;

use crate::clock::Micros;
use crate::config::QueryConfig;
use crate::error::{Error, Result};
use crate::query::error::from_engine;
use crate::query::query_runtime::{QueryRuntime, stopped};
use crate::query::running_queries::{QueryId, QueryTicket};
use crate::sql::engine_error_text::panicked;
use crate::sql::interrupt::Interrupt;
use crate::supervise::catch_future;
use crate::telemetry::QueryOutcome;
use crate::tenancy::Access;

/// The maximum number of batches that are computed before the reader asks for them.
const BATCHES_AHEAD: usize = 2;
/// After the deadline or the cancellation of a query, the reader waits at most this long for the query to end.
const ENDING_TIME_MAX: Duration = Duration::from_secs(2);

/// The result of a running query. Dropping the stream stops the query and frees its slot and memory.
pub struct ResultStream {
    /// The id with which the caller can cancel the query.
    pub id: QueryId,
    /// The deadline of the query. After the deadline, the endpoint must disconnect a client that has stopped reading
    /// (see `flight/unread_stream.rs`).
    pub deadline: QueryDeadline,
    /// The batches, which have exactly the declared schema. If the query exceeds its time, row or memory limit, the
    /// last item is a `Limited` error.
    pub batches: BoxStream<'static, Result<RecordBatch>>,
}

/// The time at which a query must end: when `query.time_max` has passed or when the token expires, whichever is
/// earlier.
#[derive(Debug, Clone, Copy)]
pub struct QueryDeadline {
    at: Instant,
    time_max: Duration,
    /// True if the token expires before `query.time_max` has passed.
    token_expires: bool,
}

impl QueryDeadline {
    /// Returns the deadline of a query that started at `started`. The token expires in `token_left` microseconds.
    pub(in crate::query) fn new(started: Instant, token_left: Micros, config: &QueryConfig) -> Self {
        let token_left = Duration::from_micros(u64::try_from(token_left).unwrap_or(0));
        let (time_max, limit) = (config.time_max, started + config.time_max);
        match Instant::now().checked_add(token_left) {
            Some(expires) if expires < limit => Self { at: expires, time_max, token_expires: true },
            _ => Self { at: limit, time_max, token_expires: false },
        }
    }

    /// Waits for the result of `work`, and fails if the deadline passes first.
    pub(in crate::query) async fn limit<T>(self, work: impl Future<Output = Result<T>>) -> Result<T> {
        match timeout_at(self.at, work).await {
            Ok(outcome) => outcome.map_err(|error| self.error_or(error)),
            Err(_) => Err(self.error()),
        }
    }

    /// Returns the interrupt that ends a task of the query after the deadline, or after `stop` has been cancelled.
    pub(in crate::query) fn interrupt(self, stop: &CancellationToken) -> Interrupt {
        Interrupt::new(stop.clone(), self.at)
    }

    /// Returns the error of the deadline if it has passed, because `error` may be that of an interrupted operation.
    fn error_or(self, error: Error) -> Error {
        if Instant::now() >= self.at { self.error() } else { error }
    }

    /// Returns the time at which the query must end.
    pub fn at(self) -> Instant {
        self.at
    }

    /// Returns the error of a query that did not end before the deadline.
    pub fn error(self) -> Error {
        if self.token_expires {
            return Error::unauthenticated("the token expired while the query was running: get a new token");
        }
        Error::limited(format!(
            "the query took longer than {} s (limit query.time_max): query a shorter time range or fewer groups",
            self.time_max.as_secs_f64()
        ))
    }
}

/// A query that runs on the query runtime.
struct RunningPlan {
    batches: SendableRecordBatchStream,
    schema: SchemaRef,
    deadline: QueryDeadline,
    rows_left: usize,
    too_many_rows: bool,
    config: QueryConfig,
    ticket: QueryTicket,
}

/// Receives the batches and the outcome of a query from the task on the query runtime.
struct Reader {
    batches: mpsc::Receiver<RecordBatch>,
    /// The channel that delivers the outcome of the query, or `None` after the reader has received the outcome.
    end: Option<oneshot::Receiver<Result<()>>>,
    stop: CancellationToken,
    access: Access,
    deadline: QueryDeadline,
    /// The task on the query runtime. Dropping this handle cancels the task.
    _task: AbortOnDropHandle<()>,
    /// The runtime of the task, which must not be stopped while the task runs.
    _runtime: Arc<QueryRuntime>,
}

/// Starts a task that reads `batches` and checks the limits, and returns the stream of results.
pub(in crate::query) fn start(
    runtime: Arc<QueryRuntime>,
    batches: SendableRecordBatchStream,
    schema: SchemaRef,
    deadline: QueryDeadline,
    ticket: QueryTicket,
    config: QueryConfig,
) -> ResultStream {
    let (id, stop, access) = (ticket.id, ticket.stop.clone(), ticket.access.clone());
    let running =
        RunningPlan { batches, schema, deadline, rows_left: config.rows_max, too_many_rows: false, config, ticket };
    let (sender, receiver) = mpsc::channel(BATCHES_AHEAD);
    let (ended, end) = oneshot::channel();
    let task = runtime.spawn(deadline.interrupt(&stop).cover(running.run(sender, ended)));
    let reader = Reader { batches: receiver, end: Some(end), stop, access, deadline, _task: task, _runtime: runtime };
    let batches = stream::unfold(reader, |mut reader| async move { Some((reader.next().await?, reader)) });
    ResultStream { id, deadline, batches: batches.boxed() }
}

impl Drop for Reader {
    /// Interrupts the query, which may not yield for a long time.
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

impl Reader {
    /// Returns the next batch, or the error that ended the query. If a limit was reached, first returns all batches
    /// that were computed before that. After a cancellation, returns no more batches.
    ///
    /// A plan that does not yield notices neither its deadline nor its cancellation. The reader therefore stops waiting
    /// [`ENDING_TIME_MAX`] after the deadline or the cancellation. The query keeps its slot until the plan yields.
    async fn next(&mut self) -> Option<Result<RecordBatch>> {
        self.end.as_ref()?;
        let (deadline, stop) = (self.deadline, self.stop.clone());
        let cancelled_long_ago = async {
            stop.cancelled().await;
            tokio::time::sleep(ENDING_TIME_MAX).await;
        };
        let error = tokio::select! {
            biased;
            next = self.receive() => return next,
            () = cancelled_long_ago => stopped_by(&self.access),
            () = tokio::time::sleep_until(deadline.at + ENDING_TIME_MAX) => deadline.error(),
        };
        self.end = None;
        self.stop.cancel();
        Some(Err(error))
    }

    async fn receive(&mut self) -> Option<Result<RecordBatch>> {
        while let Some(batch) = self.batches.recv().await {
            if !self.stop.is_cancelled() {
                return Some(Ok(batch));
            }
        }
        let outcome = self.end.as_mut()?.await;
        self.end = None;
        match outcome {
            Ok(Ok(())) => None,
            Ok(Err(error)) => Some(Err(error)),
            // The task was dropped because the runtime has stopped.
            Err(_) => Some(Err(stopped())),
        }
    }
}

impl RunningPlan {
    /// Sends all batches and then the outcome of the query.
    async fn run(mut self, sender: mpsc::Sender<RecordBatch>, ended: oneshot::Sender<Result<()>>) {
        let outcome = self.send_batches(&sender).await;
        let Self { batches, ticket, .. } = self;
        drop(batches);
        ticket.end(outcome.as_ref().err().map_or(QueryOutcome::Ok, QueryOutcome::from));
        // Sending fails only if the reader was dropped, in which case the outcome is not needed.
        let _ = ended.send(outcome);
    }

    async fn send_batches(&mut self, sender: &mpsc::Sender<RecordBatch>) -> Result<()> {
        while let Some(batch) = self.next().await {
            let batch = batch?;
            let rows = batch.num_rows();
            let (stop, deadline) = (self.ticket.stop.clone(), self.deadline);
            tokio::select! {
                biased;
                () = stop.cancelled() => return Err(stopped_by(&self.ticket.access)),
                sent = timeout_at(deadline.at, sender.send(batch)) => match sent {
                    Err(_) => return Err(deadline.error()),
                    Ok(Err(_)) => return Err(stopped_by(&self.ticket.access)),
                    Ok(Ok(())) => self.ticket.rows(rows),
                },
            }
        }
        Ok(())
    }

    /// Returns the next batch in the declared schema. If the result has too many rows, exactly `query.rows_max` rows
    /// are returned before the error.
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

    /// Returns the engine's next non-empty batch.
    async fn pull(&mut self) -> Option<Result<RecordBatch>> {
        loop {
            // Check the deadline here, too: `timeout_at` does not check its timer as long as the stream is always
            // ready.
            if Instant::now() >= self.deadline.at {
                return Some(Err(self.deadline.error()));
            }
            let next = catch_future(self.batches.next());
            let next = tokio::select! {
                biased;
                () = self.ticket.stop.cancelled() => return Some(Err(stopped_by(&self.ticket.access))),
                next = timeout_at(self.deadline.at, next) => next,
            };
            match next {
                Err(_) => return Some(Err(self.deadline.error())),
                Ok(Err(panic)) => return Some(Err(panicked(panic))),
                Ok(Ok(None)) => return None,
                Ok(Ok(Some(Err(_)))) if self.ticket.stop.is_cancelled() => {
                    return Some(Err(stopped_by(&self.ticket.access)));
                }
                Ok(Ok(Some(Err(error)))) => {
                    return Some(Err(self.deadline.error_or(from_engine(error, &self.config))));
                }
                Ok(Ok(Some(Ok(batch)))) if batch.num_rows() == 0 => {}
                Ok(Ok(Some(Ok(batch)))) => return Some(Ok(batch)),
            }
        }
    }

    /// Converts a batch to the declared schema. The engine's schema may differ in nullability, metadata and the types
    /// of nested fields.
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

impl fmt::Debug for ResultStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResultStream").field("id", &self.id).finish_non_exhaustive()
    }
}

/// Returns the error of a cancelled query. The caller cancelled it, or the caller's token was revoked.
fn stopped_by(access: &Access) -> Error {
    if access.is_revoked() {
        return Error::unauthenticated("the token was revoked while the query was running: get a new token");
    }
    Error::cancelled("the query was cancelled")
}
