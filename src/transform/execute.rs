//! Runs a plan over a batch, and over parts of the batch to find its bad messages.
//!
//! ```text
//!   all ─► run ─┬─ good ─► accept ─► done
//!               └─ bad ──► one message? ─┬─ yes ─► this is the bad one
//!                                        └─ no ──► two halves ─► run each
//! ```
//!
//! In: rows of `messages`. Out: the accepted rows, and the messages that failed, each with its reason. The caller's `accept`
//! takes the rows, and may refuse them as a whole: the search finds and reports the cause in the same way.
//!
//! **Invariant:** a message is refused only after it failed in a run of its own.
//! **Invariant:** time, memory and rows of a batch are limited, including the search for its bad messages. A batch that exceeds
//! a limit is `Limited`, and may be retried in smaller batches; a single message that exceeds a limit is refused.

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

use super::batch_table::BatchTables;
use super::deadline::RunDeadline;
use super::error::{of_engine, out_of_memory};
use super::messages::{MESSAGES, MessagesTable};
use super::plan::TransformPlan;
use super::{MessageError, Outcome, Rows, TransformLimits};
use crate::contract::Reason;
use crate::error::{Error, Kind, Result};
use crate::supervise::catch;

/// The contents of lookup tables, by name.
pub(super) type Lookups = BTreeMap<Arc<str>, Arc<Vec<RecordBatch>>>;

/// The execution of one batch.
pub(super) struct BatchRun<'a> {
    pub(super) plan: &'a TransformPlan,
    pub(super) lookups: &'a Lookups,
    pub(super) bounds: TransformLimits,
    pub(super) runtime: &'a Handle,
}

impl BatchRun<'_> {
    /// Runs over all of `table`. Blocks: do not call this on a runtime thread.
    pub(super) fn all<T>(&self, table: MessagesTable, mut accept: impl FnMut(Rows) -> Result<T>) -> Result<Outcome<T>> {
        let MessagesTable { rows, faults } = table;
        let deadline =
            RunDeadline { at: Instant::now() + self.bounds.time_max, seconds: self.bounds.time_max.as_secs_f64() };
        let mut outcome = Outcome { parts: Vec::new(), faults, messages: rows.num_rows() };
        let is_alone = rows.num_rows() == 1;
        let (mut rows_left, mut bytes_left) = (self.bounds.rows_max, self.bounds.bytes_max);
        let mut work = Vec::from([Range { start: 0, end: rows.num_rows() }]);
        while let Some(range) = work.pop().filter(|range| !range.is_empty()) {
            let part = rows.slice(range.start, range.len());
            let done = self.part(&part, deadline).and_then(|made| {
                let (count, bytes) = (made.batch.num_rows(), bytes_of(&made.batch));
                Ok((accept(made)?, count, bytes))
            });
            match done {
                Ok((accepted, count, bytes)) => {
                    rows_left = rows_left.checked_sub(count).ok_or_else(|| too_many_rows(self.bounds.rows_max))?;
                    bytes_left = bytes_left.checked_sub(bytes).ok_or_else(out_of_memory)?;
                    outcome.parts.push(accepted);
                }
                // There is no time left to search parts of the batch.
                Err(error) if !is_alone && deadline.check().is_err() => {
                    return Err(deadline.fault().with_source(error));
                }
                Err(error) if range.len() == 1 => {
                    let place = part.column(part.num_columns() - 1).as_primitive::<UInt32Type>().value(0);
                    outcome.faults.push(refused(place, &error));
                }
                Err(_) => split(&range, &mut work),
            }
        }
        outcome.faults.sort_by_key(|fault| fault.message);
        Ok(outcome)
    }

    /// One run. A panic of the engine is an error of this run.
    fn part(&self, messages: &RecordBatch, deadline: RunDeadline) -> Result<Rows> {
        let running = || self.runtime.block_on(self.run(messages, deadline));
        catch(running).unwrap_or_else(|panic| Err(Error::internal("the transform panicked").with_source(panic)))
    }

    async fn run(&self, messages: &RecordBatch, deadline: RunDeadline) -> Result<Rows> {
        let physical = reset_plan_states(Arc::clone(&self.plan.physical)).map_err(of_engine)?;
        let schema = physical.schema();
        let mut stream = execute_stream(physical, self.task(messages, deadline)).map_err(of_engine)?;
        let (mut batches, mut rows, mut bytes) = (Vec::new(), 0, 0);
        loop {
            let next = timeout_at(deadline.at, stream.next()).await.map_err(|_| deadline.fault())?;
            let Some(batch) = next.transpose().map_err(of_engine)? else { break };
            rows += batch.num_rows();
            bytes += bytes_of(&batch);
            if rows > self.bounds.rows_max {
                return Err(too_many_rows(self.bounds.rows_max));
            }
            if bytes > self.bounds.bytes_max {
                return Err(out_of_memory());
            }
            batches.push(batch);
        }
        let all = concat_batches(&schema, &batches);
        rows_of(&all.map_err(|cause| Error::internal("cannot join the rows of a transform").with_source(cause))?)
    }

    /// The task context of one run: its tables, its deadline and its memory limit.
    fn task(&self, messages: &RecordBatch, deadline: RunDeadline) -> Arc<TaskContext> {
        let mut filled = self.lookups.clone();
        filled.insert(MESSAGES.into(), Arc::new(vec![messages.clone()]));
        let config = self.plan.config.clone();
        let config = config.with_extension(Arc::new(BatchTables(filled))).with_extension(Arc::new(deadline));
        let memory_pool = Arc::new(GreedyMemoryPool::new(self.bounds.bytes_max));
        let runtime = Arc::new(RuntimeEnv { memory_pool, ..RuntimeEnv::clone(&self.plan.runtime) });
        let (scalar, higher_order) = (HashMap::new(), HashMap::new());
        let (aggregate, window) = (HashMap::new(), HashMap::new());
        Arc::new(TaskContext::new(None, String::new(), config, scalar, higher_order, aggregate, window, runtime))
    }
}

/// Splits a batch into halves; the second waits until the first is done.
fn split(range: &Range<usize>, work: &mut Vec<Range<usize>>) {
    let middle = range.start + range.len() / 2;
    work.push(middle..range.end);
    work.push(range.start..middle);
}

/// Removes the hidden column.
fn rows_of(all: &RecordBatch) -> Result<Rows> {
    let (last, shown) =
        all.columns().split_last().ok_or_else(|| Error::internal("rows of a transform have no message index"))?;
    let places = last.as_primitive_opt::<UInt32Type>().filter(|places| places.null_count() == 0);
    let places = places.ok_or_else(|| Error::internal("rows of a transform have no message index"))?;
    let fields = all.schema_ref().fields()[..shown.len()].to_vec();
    let options = RecordBatchOptions::new().with_row_count(Some(all.num_rows()));
    let batch = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), shown.to_vec(), &options)
        .map_err(|cause| Error::internal("rows of a transform do not fit").with_source(cause))?;
    Ok(Rows { batch, messages: places.values().to_vec() })
}

fn refused(place: u32, error: &Error) -> MessageError {
    let reason = match error.kind() {
        Kind::Limited => Reason::TooLarge,
        _ => Reason::TransformFailed,
    };
    MessageError { message: place as usize, reason, detail: error.message().to_owned() }
}

fn too_many_rows(rows_max: usize) -> Error {
    Error::limited(format!("the transform produces more than {rows_max} rows (limit ingest.transform_rows_max)"))
}

fn bytes_of(batch: &RecordBatch) -> usize {
    let columns = batch.columns().iter();
    columns.map(|column| column.to_data().get_slice_memory_size().unwrap_or(column.get_array_memory_size())).sum()
}
