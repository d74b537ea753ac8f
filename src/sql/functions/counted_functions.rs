//! Makes functions interruptible, and counts the memory of their results.
//!
//! A wrapper around each function checks for an interruption before the call, and adds the size of the result to the
//! memory of the batch (`batch_memory.rs`) after it. `function_limits.rs` does both for the functions whose results can
//! be much larger than their arguments.

use std::sync::Arc;

use arrow::array::Array as _;
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::logical_expr::interval_arithmetic::Interval;
use datafusion::logical_expr::preimage::PreimageResult;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, Expr, ExpressionPlacement, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature,
};

use crate::sql::functions::definition::not_negative;
use crate::sql::functions::delegate::delegate;
use crate::sql::{batch_memory, interrupt};

/// The functions that cannot be wrapped, because the engine checks their Rust types. They return parts of their
/// arguments, or numbers.
const UNWRAPPED: [&str; 5] = ["get_field", "log", "named_struct", "power", "struct"];

/// Wraps a function, or returns `None` if it is already wrapped or cannot be wrapped.
pub(super) fn counted(function: &Arc<ScalarUDF>) -> Option<Arc<ScalarUDF>> {
    let is_wrapped = function.inner().is::<CountedFunction>() || UNWRAPPED.contains(&function.name());
    (!is_wrapped).then(|| Arc::new(ScalarUDF::new_from_impl(CountedFunction { inner: Arc::clone(function) })))
}

/// Adds the size of a function's result to the memory of the batch. A scalar counts once per row, because the engine
/// may copy it for each row.
pub(super) fn count_result(result: &ColumnarValue, rows: usize) -> Result<()> {
    if is_short(&result.data_type()) {
        return Ok(());
    }
    let bytes = match result {
        ColumnarValue::Scalar(scalar) => scalar.size().saturating_mul(rows),
        ColumnarValue::Array(array) => {
            array.to_data().get_slice_memory_size().unwrap_or_else(|_| array.get_array_memory_size())
        }
    };
    batch_memory::grow(bytes)
}

/// Returns true if all values of a type have the same, small size.
pub(crate) fn is_short(kind: &DataType) -> bool {
    kind.is_primitive() || matches!(kind, DataType::Boolean | DataType::Null)
}

/// A function whose results are counted.
#[derive(Debug, PartialEq, Eq, Hash)]
struct CountedFunction {
    inner: Arc<ScalarUDF>,
}

impl ScalarUDFImpl for CountedFunction {
    delegate! {
        fn name(&self) -> &str;
        fn aliases(&self) -> &[String];
        fn signature(&self) -> &Signature;
        fn return_type(&self, kinds: &[DataType]) -> Result<DataType>;
        fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef>;
        fn schema_name(&self, args: &[Expr]) -> Result<String>;
        fn documentation(&self) -> Option<&Documentation>;
        fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult>;
        fn preimage(&self, args: &[Expr], literal: &Expr, info: &SimplifyContext) -> Result<PreimageResult>;
        fn short_circuits(&self) -> bool;
        fn is_strict(&self) -> bool;
        fn evaluate_bounds(&self, input: &[&Interval]) -> Result<Interval>;
        fn propagate_constraints(&self, interval: &Interval, inputs: &[&Interval]) -> Result<Option<Vec<Interval>>>;
        fn output_ordering(&self, inputs: &[ExprProperties]) -> Result<SortProperties>;
        fn preserves_lex_ordering(&self, inputs: &[ExprProperties]) -> Result<bool>;
        fn strictly_order_preserving(&self, inputs: &[ExprProperties]) -> Result<bool>;
        fn placement(&self, args: &[ExpressionPlacement]) -> ExpressionPlacement;
    }

    fn conditional_arguments<'a>(&self, args: &'a [Expr]) -> Option<(Vec<&'a Expr>, Vec<&'a Expr>)> {
        self.inner.conditional_arguments(args)
    }

    fn with_updated_config(&self, config: &ConfigOptions) -> Option<ScalarUDF> {
        self.inner.inner().with_updated_config(config)
    }

    fn coerce_types(&self, kinds: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.inner().coerce_types(kinds)
    }

    fn invoke_with_args(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        interrupt::check()?;
        if self.name() == "array_position"
            && let Some(start) = args.args.get_mut(2)
        {
            // The engine subtracts 1 from the start position without an overflow check. It refuses 0.
            *start = not_negative(start)?;
        }
        let rows = args.number_rows;
        let result = self.inner.invoke_with_args(args)?;
        count_result(&result, rows)?;
        Ok(result)
    }
}
