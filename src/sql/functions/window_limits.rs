//! Limits on aggregates whose results or running times grow with the size of a moving window.
//!
//! A window function returns a result for each row. If a result lists the rows of the window, as `array_agg` does, n
//! rows return up to n² elements. If computing a result sorts the window, as `mode` does, n rows take up to n² steps.
//! The engine computes the windows of a partition without yielding and without accounting for the memory of the
//! results, so neither `query.time_max` nor `query.memory_bytes_max` would stop such a query.
//!
//! **Invariant:** an aggregate outside of windows is not limited. It returns one result for each accumulator.

use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef};
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::function::{AccumulatorArgs, StateFieldsArgs};
use datafusion::logical_expr::utils::AggregateOrderSensitivity;
use datafusion::logical_expr::{
    Accumulator, AggregateUDF, AggregateUDFImpl, Documentation, GroupsAccumulator, ReversedUDAF, SetMonotonicity,
    Signature,
};

use crate::error::Error;
use crate::sql::functions::delegate::delegate;

/// The maximum total size of the results of all windows in one partition, in bytes.
const RESULT_BYTES_MAX: usize = 32 << 20;
/// The maximum total number of values in all windows of one partition.
const VALUES_MAX: usize = 20_000_000;

/// Wraps the functions whose results or running times grow with the size of the window, and returns the others
/// unchanged.
pub(super) fn with_window_limits(functions: Vec<Arc<AggregateUDF>>) -> Vec<Arc<AggregateUDF>> {
    let wrapped = functions.into_iter().map(|inner| match inner.name() {
        "array_agg" | "string_agg" | "percentile_disc" | "mode" => {
            Arc::new(AggregateUDF::new_from_impl(WindowLimited { inner }))
        }
        _ => inner,
    });
    wrapped.collect()
}

/// A function whose accumulators are limited.
#[derive(Debug, PartialEq, Eq, Hash)]
struct WindowLimited {
    inner: Arc<AggregateUDF>,
}

impl AggregateUDFImpl for WindowLimited {
    delegate! {
        fn name(&self) -> &str;
        fn aliases(&self) -> &[String];
        fn signature(&self) -> &Signature;
        fn return_type(&self, kinds: &[DataType]) -> Result<DataType>;
        fn return_field(&self, fields: &[FieldRef]) -> Result<FieldRef>;
        fn is_nullable(&self) -> bool;
        fn coerce_types(&self, kinds: &[DataType]) -> Result<Vec<DataType>>;
        fn state_fields(&self, args: StateFieldsArgs) -> Result<Vec<FieldRef>>;
        fn groups_accumulator_supported(&self, args: AccumulatorArgs) -> bool;
        fn create_groups_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn GroupsAccumulator>>;
        fn order_sensitivity(&self) -> AggregateOrderSensitivity;
        fn default_value(&self, kind: &DataType) -> Result<ScalarValue>;
        fn supports_null_handling_clause(&self) -> bool;
        fn supports_within_group_clause(&self) -> bool;
        fn documentation(&self) -> Option<&Documentation>;
    }

    fn accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let name = args.name.to_owned();
        Ok(WindowCost::boxed(self.inner.accumulator(args)?, name))
    }

    fn create_sliding_accumulator(&self, args: AccumulatorArgs) -> Result<Box<dyn Accumulator>> {
        let name = args.name.to_owned();
        Ok(WindowCost::boxed(self.inner.create_sliding_accumulator(args)?, name))
    }

    fn with_beneficial_ordering(self: Arc<Self>, is_ordered: bool) -> Result<Option<Arc<dyn AggregateUDFImpl>>> {
        let inner = AggregateUDF::clone(&self.inner).with_beneficial_ordering(is_ordered)?;
        Ok(inner.map(|inner| Arc::new(Self { inner: Arc::new(inner) }) as Arc<dyn AggregateUDFImpl>))
    }

    fn reverse_expr(&self) -> ReversedUDAF {
        match self.inner.reverse_udf() {
            ReversedUDAF::Reversed(inner) => {
                ReversedUDAF::Reversed(Arc::new(AggregateUDF::new_from_impl(Self { inner })))
            }
            other => other,
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

    /// Adds the values of the current window to the total, and checks it.
    fn count_values(&mut self) -> Result<()> {
        if self.has_result {
            self.total_values += self.values;
        }
        if self.total_values > VALUES_MAX {
            return Err(self.error(&format!("{VALUES_MAX} values")));
        }
        Ok(())
    }

    /// Adds the size of a result to the total, and checks it.
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
