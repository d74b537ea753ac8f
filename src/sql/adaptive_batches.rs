//! A plan node that returns smaller batches if the node above it produces large rows.
//!
//! The engine processes batches of `query.batch_rows` rows. If a projection computes a text of 100 kB for each row, one
//! batch takes up 800 MB. [`AdaptiveBatchExec`], the node below the projection, therefore splits its input batches. It
//! starts with a small batch. It then measures how much memory the functions above it needed per row of the previous
//! batch, and chooses the size of the next batch accordingly.
//!
//! ```text
//!   ProjectionExec: repeat(x, 100000)         64 rows, then 160, 160, …
//!     AdaptiveBatchExec                       8 192 rows
//!       TenantScan
//! ```
//!
//! **Invariant:** the node returns the rows of its input in the same order.

use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};

use arrow::array::{Array as _, ArrayRef, AsArray as _, RecordBatch};
use arrow::datatypes::{DataType, SchemaRef};
use datafusion::error::Result;
use datafusion::execution::{RecordBatchStream, SendableRecordBatchStream, TaskContext};
use datafusion::logical_expr::ColumnarValue;
use datafusion::physical_plan::{DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties};
use futures::{Stream, StreamExt as _};

use crate::sql::batch_memory::BatchMemory;
use crate::sql::functions::counted_functions::is_short;
use crate::sql::functions::function_size::Measure;
use crate::sql::interrupt;
use crate::sql::plan_node::one_input_methods;

/// The size in bytes that the results for one batch should have.
const TARGET_BYTES: usize = 8 << 20;
/// The number of rows of the first batch, if the functions above the node have results of unknown size.
const FIRST_ROWS: usize = 64;
/// The assumed size in bytes of a value of fixed length.
pub(super) const VALUE_BYTES: usize = 16;
/// The maximum factor by which the number of rows grows from one batch to the next.
const GROWTH: usize = 8;

/// How the node above uses its input.
#[derive(Debug, Clone)]
pub(super) enum BatchUse {
    /// The node computes expressions for each row.
    Expressions {
        /// The total size, in bytes, of the values of known size that the node computes for each row.
        row_bytes: usize,
        /// True if the node calls functions whose results have no fixed size.
        calls_functions: bool,
    },
    /// The node returns a row for each element of the lists in these columns.
    Unnest(Vec<usize>),
    /// The node keeps all rows until the end of its input, and adds columns that take up `row_bytes` bytes per row.
    Retain { row_bytes: usize },
    /// The node is a join, and the input is its build side. The number is the size of the largest row in bytes.
    Build(Arc<AtomicUsize>),
    /// The node is a join, and the input is its probe side.
    Probe {
        /// The size of the largest row of the build side in bytes.
        build_row_bytes: Arc<AtomicUsize>,
        /// The maximum number of rows of a batch that the join returns. `None` for a join whose batches have as many
        /// rows as its input batches.
        batch_rows: Option<usize>,
    },
}

/// The plan node that splits batches.
#[derive(Debug)]
pub(super) struct AdaptiveBatchExec {
    input: Arc<dyn ExecutionPlan>,
    batch_use: BatchUse,
}

impl AdaptiveBatchExec {
    pub(super) fn new(input: Arc<dyn ExecutionPlan>, batch_use: BatchUse) -> Self {
        Self { input, batch_use }
    }

    /// Returns true if the node above can compute long values that its input does not contain.
    pub(super) fn makes_large_rows(&self) -> bool {
        !matches!(self.batch_use, BatchUse::Build(_) | BatchUse::Probe { .. })
    }
}

impl ExecutionPlan for AdaptiveBatchExec {
    fn name(&self) -> &'static str {
        "AdaptiveBatchExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.input.properties()
    }

    one_input_methods! { |node, input| Ok(Self::new(input, node.batch_use.clone())) }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let memory = BatchMemory::of_node(context.memory_pool());
        let rows = match &self.batch_use {
            BatchUse::Expressions { row_bytes, calls_functions } => {
                let rows = (TARGET_BYTES / (*row_bytes).max(1)).max(1);
                if *calls_functions { rows.min(FIRST_ROWS) } else { rows }
            }
            _ => usize::MAX,
        };
        let input = self.input.execute(partition, context)?;
        let batch_use = self.batch_use.clone();
        Ok(Box::pin(AdaptiveBatches { input, batch_use, memory, rows, returned: 0, rest: None }))
    }
}

impl DisplayAs for AdaptiveBatchExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AdaptiveBatchExec")
    }
}

struct AdaptiveBatches {
    input: SendableRecordBatchStream,
    batch_use: BatchUse,
    memory: Arc<BatchMemory>,
    /// The maximum number of rows of the next batch.
    rows: usize,
    /// The number of rows of the previous batch.
    returned: usize,
    /// The rows of the last input batch that have not been returned yet.
    rest: Option<RecordBatch>,
}

impl AdaptiveBatches {
    /// Releases the memory of the previous batch, and sets the size of the next one.
    fn finish_previous(&mut self) {
        let BatchUse::Expressions { row_bytes, calls_functions: true } = self.batch_use else {
            if !matches!(self.batch_use, BatchUse::Retain { .. }) {
                self.memory.release();
            }
            return;
        };
        let Some(measured) = self.memory.release().checked_div(self.returned) else { return };
        let rows = TARGET_BYTES / row_bytes.saturating_add(measured).max(1);
        self.rows = rows.clamp(1, self.rows.saturating_mul(GROWTH));
    }

    /// Returns the first rows of a batch, and keeps the rest.
    fn next_batch(&mut self, batch: RecordBatch) -> Result<RecordBatch> {
        let rows = match &self.batch_use {
            BatchUse::Expressions { .. } => self.rows,
            BatchUse::Unnest(lists) => {
                let (rows, bytes) = unnested(&batch, lists);
                self.memory.grow(bytes)?;
                rows
            }
            BatchUse::Retain { row_bytes } => {
                // The node keeps the rows, and concatenates them at the end, so it holds them twice.
                let bytes = slice_bytes(&batch).saturating_mul(2);
                self.memory.grow(bytes.saturating_add(row_bytes.saturating_mul(batch.num_rows())))?;
                batch.num_rows()
            }
            BatchUse::Build(row_bytes) => {
                row_bytes.fetch_max(largest_row(&batch), Ordering::Relaxed);
                batch.num_rows()
            }
            BatchUse::Probe { build_row_bytes, batch_rows } => {
                let row_bytes = build_row_bytes.load(Ordering::Relaxed).saturating_add(largest_row(&batch));
                match batch_rows {
                    Some(batch_rows) => {
                        // The join may repeat the largest rows until its batch is full. Usual rows need no reservation.
                        let bytes = row_bytes.saturating_mul(*batch_rows);
                        self.memory.grow(if bytes > TARGET_BYTES { bytes } else { 0 })?;
                        batch.num_rows()
                    }
                    None => (TARGET_BYTES / row_bytes.max(1)).max(1),
                }
            }
        };
        self.returned = rows.min(batch.num_rows());
        if self.returned == batch.num_rows() {
            return Ok(batch);
        }
        self.rest = Some(batch.slice(self.returned, batch.num_rows() - self.returned));
        Ok(batch.slice(0, self.returned))
    }
}

impl Stream for AdaptiveBatches {
    type Item = Result<RecordBatch>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.finish_previous();
        self.returned = 0;
        if let Err(error) = interrupt::check() {
            return Poll::Ready(Some(Err(error)));
        }
        let batch = match self.rest.take() {
            Some(rest) => Some(Ok(rest)),
            None => ready!(self.input.poll_next_unpin(context)),
        };
        let batch = batch.map(|batch| batch.and_then(|batch| self.next_batch(batch)));
        self.memory.enter();
        Poll::Ready(batch)
    }
}

impl RecordBatchStream for AdaptiveBatches {
    fn schema(&self) -> SchemaRef {
        self.input.schema()
    }
}

/// Returns how many rows of a batch UNNEST should process at once, and the size of the result for these rows in bytes.
fn unnested(batch: &RecordBatch, lists: &[usize]) -> (usize, usize) {
    let value = |index: usize| ColumnarValue::Array(Arc::clone(batch.column(index)));
    let elements: Vec<_> = lists.iter().map(|index| Measure::elements(Some(&value(*index)))).collect();
    let others = (0..batch.num_columns()).filter(|index| !lists.contains(index));
    let others: Vec<_> = others.map(|index| Measure::sizes(Some(&value(index)))).collect();
    let averages: usize = lists.iter().map(|index| slice_bytes_of(batch, *index) / batch.num_rows().max(1)).sum();
    let (mut rows, mut bytes) = (0, 0_usize);
    while rows < batch.num_rows() {
        let count = elements.iter().map(|elements| elements.at(rows)).max().unwrap_or(0);
        let other_bytes = others.iter().fold(0, |sum: usize, sizes| sum.saturating_add(sizes.at(rows)));
        let row = count.saturating_mul(other_bytes).saturating_add(averages);
        if rows > 0 && bytes.saturating_add(row) > TARGET_BYTES {
            break;
        }
        bytes = bytes.saturating_add(row);
        rows += 1;
    }
    (rows, bytes)
}

/// Returns an upper bound on the size of the largest row of a batch in bytes.
fn largest_row(batch: &RecordBatch) -> usize {
    batch.columns().iter().map(largest_value).fold(0, usize::saturating_add)
}

/// Returns the size of the largest value of a column in bytes. For lists and structs, it is estimated from the average
/// size of their elements.
fn largest_value(column: &ArrayRef) -> usize {
    let average = |values: &ArrayRef| {
        let data = values.to_data();
        let bytes = data.get_slice_memory_size().unwrap_or_else(|_| values.get_array_memory_size());
        bytes / values.len().max(1) + 1
    };
    let longest = |lengths: &mut dyn Iterator<Item = usize>| lengths.max().unwrap_or(0);
    match column.data_type() {
        DataType::Utf8 => longest(&mut column.as_string::<i32>().offsets().lengths()),
        DataType::LargeUtf8 => longest(&mut column.as_string::<i64>().offsets().lengths()),
        DataType::Binary => longest(&mut column.as_binary::<i32>().offsets().lengths()),
        DataType::LargeBinary => longest(&mut column.as_binary::<i64>().offsets().lengths()),
        DataType::List(_) => {
            let lists = column.as_list::<i32>();
            longest(&mut lists.offsets().lengths()).saturating_mul(average(lists.values()))
        }
        kind if is_short(kind) => VALUE_BYTES,
        _ => average(column),
    }
}

fn slice_bytes(batch: &RecordBatch) -> usize {
    (0..batch.num_columns()).map(|index| slice_bytes_of(batch, index)).sum()
}

fn slice_bytes_of(batch: &RecordBatch, index: usize) -> usize {
    let column = batch.column(index);
    column.to_data().get_slice_memory_size().unwrap_or_else(|_| column.get_array_memory_size())
}
