//! A running answer: batches in the promised schema, until they end or a limit is met.
//!
//! In: the engine's stream. Out: the same rows as [`ResultStream::batches`]. Whatever ends it (the last row, a limit, a fault, a
//! cancel, a drop) frees the plan, its memory, its slot and its place among the running queries at once.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::{RecordBatch, RecordBatchOptions};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::SchemaRef;
use datafusion::execution::SendableRecordBatchStream;
use futures::{StreamExt as _, stream};
use tokio::time::{Instant, timeout_at};

use crate::clock::Micros;
use crate::config::QueryConfig;
use crate::error::{Error, Result};
use crate::query::error::of_engine;
use crate::query::request::engine::QueryTicket;
use crate::query::request::session::ResultStream;
use crate::supervise::catch_future;
use crate::telemetry::QueryOutcome;

/// When an answer must end, and what to say then.
pub(in crate::query) struct QueryDeadline {
    at: Instant,
    token_expires: bool,
}

impl QueryDeadline {
    /// `query.time_max` after `started`, or in `token_left` when the token expires before.
    pub(in crate::query) fn new(started: Instant, token_left: Micros, config: &QueryConfig) -> Self {
        let token_left = Duration::from_micros(u64::try_from(token_left).unwrap_or(0));
        let limit = started + config.time_max;
        match Instant::now().checked_add(token_left) {
            Some(expires) if expires < limit => Self { at: expires, token_expires: true },
            _ => Self { at: limit, token_expires: false },
        }
    }

    fn error(&self, config: &QueryConfig) -> Error {
        if self.token_expires {
            return Error::unauthenticated("the token expired while the query ran: get a new one");
        }
        Error::limited(format!(
            "the query took longer than {} s (limit query.time_max): ask for a shorter time or fewer groups",
            config.time_max.as_secs_f64()
        ))
    }
}

struct RunningPlan {
    batches: SendableRecordBatchStream,
    schema: SchemaRef,
    deadline: QueryDeadline,
    rows_left: usize,
    too_many_rows: bool,
    config: QueryConfig,
    ticket: QueryTicket,
}

/// Starts to hand out `batches`.
pub(in crate::query) fn start(
    batches: SendableRecordBatchStream,
    schema: SchemaRef,
    deadline: QueryDeadline,
    ticket: QueryTicket,
    config: QueryConfig,
) -> ResultStream {
    let (id, deadline_at) = (ticket.id, deadline.at);
    let run =
        RunningPlan { batches, schema, deadline, rows_left: config.rows_max, too_many_rows: false, config, ticket };
    let batches = stream::unfold(Some(run), |run| async move {
        let mut run = run?;
        match run.next().await {
            Some(Ok(batch)) => {
                run.ticket.rows(batch.num_rows());
                Some((Ok(batch), Some(run)))
            }
            Some(Err(error)) => {
                run.ticket.end(QueryOutcome::from(&error));
                Some((Err(error), None))
            }
            None => {
                run.ticket.end(QueryOutcome::Ok);
                None
            }
        }
    });
    ResultStream { id, deadline: deadline_at, batches: batches.boxed() }
}

impl RunningPlan {
    /// The next batch. Rows up to the limit are handed out before it is told.
    async fn next(&mut self) -> Option<Result<RecordBatch>> {
        if self.too_many_rows {
            return Some(Err(Error::limited(format!(
                "the answer has more than {} rows (limit query.rows_max): add a LIMIT or a filter",
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

    /// The next batch with rows.
    async fn pull(&mut self) -> Option<Result<RecordBatch>> {
        loop {
            // Batches that are always ready would never let the timer have its turn.
            if Instant::now() >= self.deadline.at {
                return Some(Err(self.deadline.error(&self.config)));
            }
            let next = catch_future(self.batches.next());
            let next = tokio::select! {
                biased;
                () = self.ticket.stop.cancelled() => return Some(Err(Error::cancelled("the query was cancelled"))),
                next = timeout_at(self.deadline.at, next) => next,
            };
            match next {
                Err(_) => return Some(Err(self.deadline.error(&self.config))),
                Ok(Err(panic)) => return Some(Err(Error::internal("the query panicked").with_source(panic))),
                Ok(Ok(None)) => return None,
                Ok(Ok(Some(Err(fault)))) => return Some(Err(of_engine(fault, &self.config))),
                Ok(Ok(Some(Ok(batch)))) if batch.num_rows() == 0 => {}
                Ok(Ok(Some(Ok(batch)))) => return Some(Ok(batch)),
            }
        }
    }

    /// The batch in the promised schema: the engine's may differ in nullability, metadata and inner types.
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
            .map_err(|error| Error::internal("the answer does not fit its promised schema").with_source(error))
    }
}
