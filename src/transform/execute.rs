//! Runs a plan over a batch of messages. If the run fails, runs the plan over parts of the batch to find the failing
//! messages.
//!
//! ```text
//!   all ─► run ─┬─ succeeds ─► accept ─► done
//!               └─ fails ────► one message? ─┬─ yes ─► report the message
//!                                            └─ no ──► two halves ─► run each
//! ```
//!
//! The result contains the accepted rows, and the failed messages with their reasons. The caller's function `accept`
//! receives the rows of a run, and either accepts or refuses all of them. If the function refuses the rows, the run
//! counts as failed.
//!
//! **Invariant:** a message is reported as failed only after a run over this message alone has failed.
//! **Invariant:** the time, memory and rows of a batch are limited, and the search for failing messages counts towards
//! these limits. If a batch exceeds a limit, the transform fails with `Limited`, and the caller may retry with smaller
//! batches. If a single message exceeds a limit, the message is reported as failed.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array as _, AsArray as _, RecordBatch, RecordBatchOptions};
use arrow::compute::concat_batches;
use arrow::datatypes::{Schema, UInt32Type};
use datafusion::execution::TaskContext;
use datafusion::execution::memory_pool::GreedyMemoryPool;
use datafusion::execution::runtime_env::RuntimeEnv;
use datafusion::physical_plan::execute_stream;
use datafusion::physical_plan::execution_plan::reset_plan_states;
use futures::StreamExt as _;
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout_at};

use super::deadline::RunDeadline;
use super::error::{of_engine, of_run_with_lookups, out_of_memory};
use super::messages_table::{MESSAGES, MessagesTable};
use super::placeholder_table::TableContents;
use super::plan::TransformPlan;
use super::{MessageError, Outcome, Rows, TransformLimits};
use crate::contract::Reason;
use crate::error::{Error, Kind, Result};
use crate::supervise::catch;

/// The contents of all lookup tables, by name.
pub(super) type Lookups = BTreeMap<Arc<str>, Arc<Vec<RecordBatch>>>;

/// Runs a plan over one batch of messages.
pub(super) struct BatchRun<'a> {
    pub(super) plan: &'a TransformPlan,
    pub(super) lookups: &'a Lookups,
    pub(super) limits: TransformLimits,
    pub(super) runtime: &'a Handle,
}

impl BatchRun<'_> {
    /// Runs the plan over all messages of `table`. This function blocks the calling thread, which must not be a worker
    /// thread of the async runtime.
    pub(super) fn run_all<T>(
        &self,
        table: MessagesTable,
        mut accept: impl FnMut(Rows) -> Result<T>,
    ) -> Result<Outcome<T>> {
        let MessagesTable { rows, errors, .. } = table;
        let deadline =
            RunDeadline { at: Instant::now() + self.limits.time_max, seconds: self.limits.time_max.as_secs_f64() };
        let mut outcome = Outcome { parts: Vec::new(), errors, messages: rows.num_rows(), truncation: None };
        let is_alone = rows.num_rows() == 1;
        let (mut rows_left, mut bytes_left) = (self.limits.rows_max, self.limits.bytes_max);
        let mut work = Vec::from([Range { start: 0, end: rows.num_rows() }]);
        while let Some(range) = work.pop().filter(|range| !range.is_empty()) {
            let part = rows.slice(range.start, range.len());
            let result = self.run_part(&part, deadline).and_then(|produced| {
                let (count, bytes) = (produced.batch.num_rows(), bytes_of(&produced.batch));
                Ok((accept(produced)?, count, bytes))
            });
            match result {
                Ok((accepted, count, bytes)) => {
                    rows_left = rows_left.checked_sub(count).ok_or_else(|| too_many_rows(self.limits.rows_max))?;
                    bytes_left = bytes_left.checked_sub(bytes).ok_or_else(out_of_memory)?;
                    outcome.parts.push(accepted);
                }
                // After the deadline, there is no time to search for the failing messages.
                Err(error) if !is_alone && deadline.check().is_err() => {
                    return Err(deadline.error().with_source(error));
                }
                Err(error) if range.len() == 1 => {
                    let index = part.column(part.num_columns() - 1).as_primitive::<UInt32Type>().value(0);
                    outcome.errors.push(message_error(index, &error));
                }
                Err(_) => split(&range, &mut work),
            }
        }
        outcome.errors.sort_by_key(|error| error.message);
        Ok(outcome)
    }

    /// Runs the plan once. If the engine panics, the run fails with an error.
    fn run_part(&self, messages: &RecordBatch, deadline: RunDeadline) -> Result<Rows> {
        let running = || self.runtime.block_on(self.run(messages, deadline));
        catch(running).unwrap_or_else(|panic| Err(Error::internal("the transform panicked").with_source(panic)))
    }

    async fn run(&self, messages: &RecordBatch, deadline: RunDeadline) -> Result<Rows> {
        let physical = reset_plan_states(Arc::clone(&self.plan.physical)).map_err(of_engine)?;
        let schema = physical.schema();
        let to_error = if self.lookups.is_empty() { of_engine } else { of_run_with_lookups };
        let mut stream = execute_stream(physical, self.task(messages, deadline)).map_err(to_error)?;
        let (mut batches, mut rows, mut bytes) = (Vec::new(), 0, 0);
        loop {
            let next = timeout_at(deadline.at, stream.next()).await.map_err(|_| deadline.error())?;
            let Some(batch) = next.transpose().map_err(to_error)? else { break };
            rows += batch.num_rows();
            bytes += bytes_of(&batch);
            if rows > self.limits.rows_max {
                return Err(too_many_rows(self.limits.rows_max));
            }
            if bytes > self.limits.bytes_max {
                return Err(out_of_memory());
            }
            batches.push(batch);
        }
        let all = concat_batches(&schema, &batches);
        split_index(
            &all.map_err(|cause| Error::internal("cannot concatenate the rows of a transform").with_source(cause))?,
        )
    }

    /// Returns the task context for one run, with the table contents, the deadline and the memory limit.
    fn task(&self, messages: &RecordBatch, deadline: RunDeadline) -> Arc<TaskContext> {
        let mut contents = self.lookups.clone();
        contents.insert(MESSAGES.into(), Arc::new(vec![messages.clone()]));
        let config = self.plan.config.clone();
        let config = config.with_extension(Arc::new(TableContents(contents))).with_extension(Arc::new(deadline));
        let memory_pool = Arc::new(GreedyMemoryPool::new(self.limits.bytes_max));
        let runtime = Arc::new(RuntimeEnv { memory_pool, ..RuntimeEnv::clone(&self.plan.runtime) });
        let (scalar, higher_order) = (HashMap::new(), HashMap::new());
        let (aggregate, window) = (HashMap::new(), HashMap::new());
        Arc::new(TaskContext::new(None, String::new(), config, scalar, higher_order, aggregate, window, runtime))
    }
}

/// Splits a range into halves, and pushes them onto the stack `work`. The first half is on top, so it is processed
/// first.
fn split(range: &Range<usize>, work: &mut Vec<Range<usize>>) {
    let middle = range.start + range.len() / 2;
    work.push(middle..range.end);
    work.push(range.start..middle);
}

/// Removes the hidden last column from the rows. Its values become [`Rows::messages`], the message index of each row.
fn split_index(all: &RecordBatch) -> Result<Rows> {
    let (last, columns) =
        all.columns().split_last().ok_or_else(|| Error::internal("rows of a transform have no message index"))?;
    let indexes = last.as_primitive_opt::<UInt32Type>().filter(|indexes| indexes.null_count() == 0);
    let indexes = indexes.ok_or_else(|| Error::internal("rows of a transform have no message index"))?;
    let fields = all.schema_ref().fields()[..columns.len()].to_vec();
    let options = RecordBatchOptions::new().with_row_count(Some(all.num_rows()));
    let batch = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns.to_vec(), &options)
        .map_err(|cause| Error::internal("the rows of a transform do not fit their schema").with_source(cause))?;
    Ok(Rows { batch, messages: indexes.values().to_vec() })
}

fn message_error(index: u32, error: &Error) -> MessageError {
    let reason = match error.kind() {
        Kind::Limited => Reason::TooLarge,
        _ => Reason::TransformFailed,
    };
    MessageError { message: index as usize, reason, detail: error.message().to_owned() }
}

fn too_many_rows(rows_max: usize) -> Error {
    Error::limited(format!("the transform produces more than {rows_max} rows (limit ingest.transform_rows_max)"))
}

fn bytes_of(batch: &RecordBatch) -> usize {
    let columns = batch.columns().iter();
    columns.map(|column| column.to_data().get_slice_memory_size().unwrap_or(column.get_array_memory_size())).sum()
}
