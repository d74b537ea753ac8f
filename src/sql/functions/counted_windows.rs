//! Makes window functions interruptible, and counts the memory of their results.
//!
//! A window function returns a value for each row. If `first_value` returns a text of 1 MB, its results for a batch of
//! rows take up 8 GB. The engine reserves memory for these results only after the whole batch.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::compute::SortOptions;
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::function::WindowFunctionSimplification;
use datafusion::logical_expr::function::{ExpressionArgs, PartitionEvaluatorArgs, WindowUDFFieldArgs};
use datafusion::logical_expr::window_state::WindowAggState;
use datafusion::logical_expr::{
    Accumulator, ColumnarValue, Documentation, LimitEffect, PartitionEvaluator, ReversedUDWF, Signature, WindowUDF,
    WindowUDFImpl,
};
use datafusion::physical_expr::PhysicalExpr;

use crate::sql::functions::counted_functions::{count_result, is_short};
use crate::sql::functions::delegate::delegate;
use crate::sql::{batch_memory, interrupt};

/// The number of results between two checks for an interruption.
const CHECK_EVERY: usize = 256;

/// Wraps window functions so that their results are counted.
pub(crate) fn with_counts(functions: Vec<Arc<WindowUDF>>) -> Vec<Arc<WindowUDF>> {
    functions.into_iter().map(counted).collect()
}

fn counted(inner: Arc<WindowUDF>) -> Arc<WindowUDF> {
    Arc::new(WindowUDF::new_from_impl(CountedWindow { inner }))
}

/// Wraps an aggregate over windows so that its results are counted, unless they have a small fixed size.
pub(super) fn counted_accumulator(inner: Box<dyn Accumulator>, kind: &DataType) -> Box<dyn Accumulator> {
    if is_short(kind) { inner } else { Box::new(CountedAccumulator { inner, results: 0 }) }
}

/// Adds the size of the result for one row to the memory of the batch. `results` is the number of results so far.
fn count(result: &ScalarValue, results: &mut usize) -> Result<()> {
    *results += 1;
    if results.is_multiple_of(CHECK_EVERY) {
        interrupt::check()?;
    }
    batch_memory::grow(result.size().saturating_sub(size_of::<ScalarValue>()))
}

/// A window function whose results are counted.
#[derive(Debug, PartialEq, Eq, Hash)]
struct CountedWindow {
    inner: Arc<WindowUDF>,
}

impl WindowUDFImpl for CountedWindow {
    delegate! {
        fn name(&self) -> &str;
        fn aliases(&self) -> &[String];
        fn signature(&self) -> &Signature;
        fn expressions(&self, args: ExpressionArgs) -> Vec<Arc<dyn PhysicalExpr>>;
        fn simplify(&self) -> Option<WindowFunctionSimplification>;
        fn field(&self, args: WindowUDFFieldArgs) -> Result<FieldRef>;
        fn sort_options(&self) -> Option<SortOptions>;
        fn coerce_types(&self, kinds: &[DataType]) -> Result<Vec<DataType>>;
        fn documentation(&self) -> Option<&Documentation>;
    }

    fn partition_evaluator(&self, args: PartitionEvaluatorArgs) -> Result<Box<dyn PartitionEvaluator>> {
        Ok(Box::new(CountedEvaluator { inner: self.inner.partition_evaluator_factory(args)?, results: 0 }))
    }

    fn reverse_expr(&self) -> ReversedUDWF {
        match self.inner.reverse_expr() {
            ReversedUDWF::Reversed(inner) => ReversedUDWF::Reversed(counted(inner)),
            other => other,
        }
    }

    fn limit_effect(&self, args: &[Arc<dyn PhysicalExpr>]) -> LimitEffect {
        self.inner.inner().limit_effect(args)
    }
}

#[derive(Debug)]
struct CountedEvaluator {
    inner: Box<dyn PartitionEvaluator>,
    results: usize,
}

impl PartitionEvaluator for CountedEvaluator {
    delegate! {
        fn get_range(&self, row: usize, rows: usize) -> Result<Range<usize>>;
        fn is_causal(&self) -> bool;
        fn evaluate_all_with_rank(&self, rows: usize, ranks: &[Range<usize>]) -> Result<ArrayRef>;
        fn supports_bounded_execution(&self) -> bool;
        fn uses_window_frame(&self) -> bool;
        fn include_rank(&self) -> bool;
    }

    fn memoize(&mut self, state: &mut WindowAggState) -> Result<()> {
        self.inner.memoize(state)
    }

    fn evaluate_all(&mut self, values: &[ArrayRef], rows: usize) -> Result<ArrayRef> {
        interrupt::check()?;
        let result = self.inner.evaluate_all(values, rows)?;
        count_result(&ColumnarValue::Array(Arc::clone(&result)), rows)?;
        Ok(result)
    }

    fn evaluate(&mut self, values: &[ArrayRef], range: &Range<usize>) -> Result<ScalarValue> {
        let result = self.inner.evaluate(values, range)?;
        count(&result, &mut self.results)?;
        Ok(result)
    }
}

#[derive(Debug)]
struct CountedAccumulator {
    inner: Box<dyn Accumulator>,
    results: usize,
}

impl Accumulator for CountedAccumulator {
    delegate! {
        fn size(&self) -> usize;
        fn supports_retract_batch(&self) -> bool;
    }

    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.inner.update_batch(values)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        let result = self.inner.evaluate()?;
        count(&result, &mut self.results)?;
        Ok(result)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.inner.state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.inner.merge_batch(states)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.inner.retract_batch(values)
    }
}
