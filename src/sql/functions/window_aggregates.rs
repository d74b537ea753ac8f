//! Aggregates over window frames.
//!
//! **Moving frames.** A moving frame loses rows at its start. The engine refuses such frames for functions that cannot
//! subtract rows, such as `string_agg` and `bool_and`. These functions are computed again for each row
//! (`recomputed_window.rs`).
//!
//! **Order.** If the rows are already sorted in the opposite order, the engine reverses a window. It would also do so for
//! `array_agg`, and return reversed arrays. Only functions that do not depend on the order of the rows can be reversed.
//!
//! **Limits.** A window function returns a result for each row. If each result lists the rows of the window, as for
//! `array_agg`, n rows return up to n² elements. If computing a result visits all rows of the window, n rows take up to
//! n² steps. The engine computes the windows of a partition without yielding and without accounting for the memory of
//! the results, so neither `query.time_max` nor `query.memory_bytes_max` would stop such a query.
//!
//! **Invariant:** an aggregate outside of windows is not limited. It returns one result for each accumulator.

use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef};
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawWindowExpr};
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, ReversedUDAF, SetMonotonicity, Signature,
    WindowFunctionDefinition,
};

use crate::error::Error;
use crate::sql::functions::counted_windows::counted_accumulator;
use crate::sql::functions::delegate::delegate;
use crate::sql::functions::recomputed_window::RecomputedWindow;

/// The maximum total size of the results of all windows in one partition, in bytes.
const RESULT_BYTES_MAX: usize = 32 << 20;
/// The maximum total number of values in all windows of one partition.
const VALUES_MAX: usize = 20_000_000;

/// The functions whose results or running times grow with the size of the window.
const LIMITED: [&str; 4] = ["array_agg", "string_agg", "percentile_disc", "mode"];
/// The functions that the engine can evaluate over all windows.
const UNCHANGED: [&str; 9] =
    ["avg", "count", "median", "percentile_cont", "stddev", "stddev_pop", "sum", "var", "var_pop"];

/// Wraps the aggregates that are called with OVER.
#[derive(Debug)]
pub(crate) struct WindowAggregatePlanner;

impl ExprPlanner for WindowAggregatePlanner {
    fn plan_window(&self, mut expr: RawWindowExpr) -> Result<PlannerResult<RawWindowExpr>> {
        if let WindowFunctionDefinition::AggregateUDF(inner) = &expr.func_def
            && !UNCHANGED.contains(&inner.name())
        {
            let wrapped = AggregateUDF::new_from_impl(WindowAggregate { inner: Arc::clone(inner) });
            expr.func_def = WindowFunctionDefinition::AggregateUDF(Arc::new(wrapped));
        }
        Ok(PlannerResult::Original(expr))
    }
}

/// An aggregate that is called with OVER.
#[derive(Debug, PartialEq, Eq, Hash)]
struct WindowAggregate {
    inner: Arc<AggregateUDF>,
}

impl AggregateUDFImpl for WindowAggregate {
    delegate! {
        fn name(&self) -> &str;
        fn aliases(&self) -> &[String];
        fn signature(&self) -> &Signature;
        fn return_type(&self, kinds: &[DataType]) -> Result<DataType>;
        fn return_field(&self, fields: &[FieldRef]) -> Result<FieldRef>;
        fn is_nullable(&self) -> bool;
        fn coerce_types(&self, kinds: &[DataType]) -> Result<Vec<DataType>>;
        fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>>;
        fn default_value(&self, kind: &DataType) -> Result<ScalarValue>;
        fn supports_null_handling_clause(&self) -> bool;
        fn supports_within_group_clause(&self) -> bool;
        fn documentation(&self) -> Option<&Documentation>;
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let (name, kind) = (args.name.to_owned(), args.return_field.data_type().clone());
        let accumulator = counted_accumulator(self.inner.accumulator(args)?, &kind);
        Ok(if LIMITED.contains(&self.name()) { WindowCost::boxed(accumulator, name) } else { accumulator })
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let (name, kind) = (args.name.to_owned(), args.return_field.data_type().clone());
        let accumulator = counted_accumulator(self.inner.create_sliding_accumulator(args.clone())?, &kind);
        if !accumulator.supports_retract_batch() {
            let recomputed = counted_accumulator(RecomputedWindow::boxed(&self.inner, args), &kind);
            return Ok(WindowCost::boxed(recomputed, name));
        }
        Ok(if LIMITED.contains(&self.name()) { WindowCost::boxed(accumulator, name) } else { accumulator })
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        match self.inner.reverse_udf() {
            ReversedUDAF::Identical => ReversedUDAF::Identical,
            ReversedUDAF::NotSupported | ReversedUDAF::Reversed(_) => ReversedUDAF::NotSupported,
        }
    }

    fn set_monotonicity(&self, kind: &DataType) -> SetMonotonicity {
        self.inner.inner().set_monotonicity(kind)
    }
}

/// Counts the results of an accumulator, and fails if they exceed a limit. The first result is not counted.
#[derive(Debug)]
struct WindowCost {
    inner: Box<dyn Accumulator>,
    /// The text of the expression, for errors.
    name: String,
    /// The number of values in the current window.
    values: usize,
    has_result: bool,
    total_values: usize,
    total_bytes: usize,
}

impl WindowCost {
    fn boxed(inner: Box<dyn Accumulator>, name: String) -> Box<dyn Accumulator> {
        Box::new(Self { inner, name, values: 0, has_result: false, total_values: 0, total_bytes: 0 })
    }

    /// Adds the number of values in the current window to the total, and checks the limit.
    fn count_values(&mut self) -> Result<()> {
        if self.has_result {
            self.total_values += self.values;
        }
        if self.total_values > VALUES_MAX {
            return Err(self.error(&format!("{VALUES_MAX} values")));
        }
        Ok(())
    }

    /// Adds the size of a result to the total, and checks the limit.
    fn count_bytes(&mut self, result: &ScalarValue) -> Result<()> {
        if self.has_result {
            self.total_bytes += result.size();
        }
        self.has_result = true;
        if self.total_bytes > RESULT_BYTES_MAX {
            return Err(self.error(&format!("{RESULT_BYTES_MAX} bytes of results")));
        }
        Ok(())
    }

    fn error(&self, limit: &str) -> DataFusionError {
        DataFusionError::External(Box::new(Error::limited(format!(
            "the windows of {} have more than {limit}: use a smaller frame, smaller partitions, or GROUP BY",
            self.name
        ))))
    }
}

impl Accumulator for WindowCost {
    fn update_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.values += values.first().map_or(0, |values| values.len());
        self.inner.update_batch(values)
    }

    fn evaluate(&mut self) -> Result<ScalarValue> {
        self.count_values()?;
        let result = self.inner.evaluate()?;
        self.count_bytes(&result)?;
        Ok(result)
    }

    fn size(&self) -> usize {
        self.inner.size() + size_of_val(self)
    }

    fn state(&mut self) -> Result<Vec<ScalarValue>> {
        self.inner.state()
    }

    fn merge_batch(&mut self, states: &[ArrayRef]) -> Result<()> {
        self.inner.merge_batch(states)
    }

    fn retract_batch(&mut self, values: &[ArrayRef]) -> Result<()> {
        self.values = self.values.saturating_sub(values.first().map_or(0, |values| values.len()));
        self.inner.retract_batch(values)
    }

    fn supports_retract_batch(&self) -> bool {
        self.inner.supports_retract_batch()
    }
}
