//! Limits the result size of functions that can return much more data than their arguments contain.
//!
//! A wrapper around each of these functions estimates the size of the result before the call, and refuses a result of
//! more than [`FUNCTION_BYTES_MAX`] bytes. The engine accounts for the memory of sorts, joins and aggregates, but not
//! for the values that functions return. Without this limit, `repeat('x', 2000000000)` would allocate 2 GB outside of
//! the query's memory limit.
//!
//! ```text
//!   call ─► estimate per row ─► do all rows fit? ─ yes ─► call
//!                                                └─ no ─► call on groups of rows that fit, within the limit in total
//! ```
//!
//! **Invariant:** each call on a batch is checked against the limit. This includes the inner calls of a nested
//! expression, so nesting cannot circumvent the limit.

use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef};
use arrow::compute::concat;
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::common::ScalarValue;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::type_coercion::binary::BinaryTypeCoercer;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Documentation, Expr, LogicalPlan, Operator, ReturnFieldArgs, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr as PhysicalBinary, Column, Literal};

use crate::error::Error;
use crate::sql::batch_memory;
use crate::sql::functions::counted_functions::{count_result, counted};
use crate::sql::functions::definition::{not_negative, operator_field, slice};
use crate::sql::functions::delegate::delegate;
use crate::sql::functions::function_size::{FunctionSize, estimate, growth};
use crate::sql::functions::is_operator;
use crate::sql::functions::pattern_limits::{is_pattern_operator, limit_operator};
use crate::sql::interrupt;
use crate::sql::plan_expressions::{any_expression, rewrite_expressions};

/// The maximum size in bytes of the result of one call on one batch.
const FUNCTION_BYTES_MAX: usize = 32 << 20;
/// The maximum size in bytes of a list that the planner computes. The engine copies a constant for each row, and
/// rewrites `array_has` with a constant list as an IN list.
pub(crate) const CONSTANT_LIST_BYTES_MAX: usize = 64 << 10;

/// Wraps the functions whose results can be larger than their arguments, and returns the others unchanged.
pub(crate) fn with_limits(functions: Vec<Arc<ScalarUDF>>) -> Vec<Arc<ScalarUDF>> {
    functions.into_iter().map(|function| limited(&function).unwrap_or(function)).collect()
}

/// Wraps a function, or returns `None` if it needs no limit or already has one.
fn limited(function: &Arc<ScalarUDF>) -> Option<Arc<ScalarUDF>> {
    let growth = growth(function.name())?;
    let is_limited = function.inner().is::<LimitedFunction>();
    (!is_limited).then(|| Arc::new(ScalarUDF::new_from_impl(LimitedFunction { inner: Arc::clone(function), growth })))
}

/// Wraps a function, or returns `None` if it is already wrapped or cannot be wrapped.
fn wrapped(function: &Arc<ScalarUDF>) -> Option<Arc<ScalarUDF>> {
    if is_operator(function) {
        return None;
    }
    match growth(function.name()) {
        Some(_) => limited(function),
        None => counted(function),
    }
}

/// Returns true if `function` is the size-limited `||`. The function exists only in analyzed plans, and statements
/// cannot call it by name.
pub(crate) fn is_concat_operator(function: &ScalarUDF) -> bool {
    function.inner().is::<LimitedConcat>()
}

/// An analyzer rule that wraps the functions that are not wrapped in the registry. These are array literals and the
/// operator `||`, which the planner does not look up there, and the functions that need no limit
/// (`counted_functions.rs`). The rule runs last.
#[derive(Debug)]
pub(crate) struct ResultSizeRule;

impl AnalyzerRule for ResultSizeRule {
    fn name(&self) -> &'static str {
        "limit_function_results"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|plan| match any_expression(&plan, needs_limit)? {
            true => rewrite_expressions(plan, limit_expr),
            false => Ok(Transformed::no(plan)),
        })
        .map(|plan| plan.data)
    }
}

fn needs_limit(expr: &Expr) -> bool {
    match expr {
        Expr::ScalarFunction(_) => true,
        Expr::BinaryExpr(BinaryExpr { op, .. }) => *op == Operator::StringConcat || is_pattern_operator(*op),
        _ => false,
    }
}

fn limit_expr(expr: Expr) -> Result<Transformed<Expr>> {
    interrupt::check()?;
    Ok(match expr {
        Expr::ScalarFunction(call) => match wrapped(&call.func) {
            Some(func) => Transformed::yes(Expr::ScalarFunction(ScalarFunction { func, ..call })),
            None => Transformed::no(Expr::ScalarFunction(call)),
        },
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::StringConcat, right }) => {
            let func = Arc::new(ScalarUDF::new_from_impl(LimitedConcat::new()));
            Transformed::yes(Expr::ScalarFunction(ScalarFunction { func, args: vec![*left, *right] }))
        }
        Expr::BinaryExpr(binary) => match limit_operator(&binary)? {
            Some(call) => Transformed::yes(call),
            None => Transformed::no(Expr::BinaryExpr(binary)),
        },
        other => Transformed::no(other),
    })
}

/// A function with a size limit. It does not implement `simplify`, because the wrapped function's `simplify` could
/// return a different function, without the limit.
#[derive(Debug, PartialEq, Eq, Hash)]
struct LimitedFunction {
    inner: Arc<ScalarUDF>,
    growth: FunctionSize,
}

impl ScalarUDFImpl for LimitedFunction {
    delegate! {
        fn name(&self) -> &str;
        fn aliases(&self) -> &[String];
        fn signature(&self) -> &Signature;
        fn return_type(&self, kinds: &[DataType]) -> Result<DataType>;
        fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef>;
        fn schema_name(&self, args: &[Expr]) -> Result<String>;
        fn documentation(&self) -> Option<&Documentation>;
    }

    fn coerce_types(&self, kinds: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.inner().coerce_types(kinds)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        interrupt::check()?;
        let rows = args.number_rows;
        let result = self.invoke_within_limit(args)?;
        if let ColumnarValue::Scalar(scalar) = &result
            && scalar.data_type().is_nested()
            && scalar.size() > CONSTANT_LIST_BYTES_MAX
            && batch_memory::is_planning()
        {
            // After this error, the planner keeps the call instead of replacing it with the list.
            return Err(too_large(self.name()));
        }
        count_result(&result, rows)?;
        Ok(result)
    }
}

impl LimitedFunction {
    /// Calls the function, unless its result could be too large.
    fn invoke_within_limit(&self, mut args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        if self.growth == FunctionSize::Pad && !args.return_field.data_type().is_nested() {
            // The engine panics if the length is negative. In PostgreSQL, the result is then empty.
            if let Some(length) = args.args.get_mut(1) {
                *length = not_negative(length)?;
            }
        }
        let sizes = estimate(self.growth, &args)?;
        if sizes.iter().fold(0, |sum: usize, size| sum.saturating_add(*size)) <= FUNCTION_BYTES_MAX {
            let is_untyped = args.arg_fields.iter().all(|field| field.data_type().is_null());
            if self.name() == "make_array" && is_untyped && args.number_rows > 1 {
                // For columns without a type, the engine returns one row with the values of all rows
                // (apache/datafusion#21841). All rows are equal, so compute the first one.
                let first = self.inner.invoke_with_args(slice(&args, 0, 1))?.into_array(1)?;
                return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&first, 0)?));
            }
            return self.inner.invoke_with_args(args);
        }
        let is_estimate_exact = matches!(
            self.growth,
            FunctionSize::Sum
                | FunctionSize::Separated
                | FunctionSize::Product
                | FunctionSize::Range
                | FunctionSize::Pad
        );
        if is_estimate_exact || sizes.iter().any(|size| *size > FUNCTION_BYTES_MAX) {
            return Err(too_large(self.name()));
        }
        self.invoke_in_groups(&args, &sizes)
    }

    /// Splits the rows into groups whose estimated result size is within the limit, and calls the function on each
    /// group. Fails as soon as the total size of the results exceeds the limit.
    fn invoke_in_groups(&self, args: &ScalarFunctionArgs, sizes: &[usize]) -> Result<ColumnarValue> {
        let (mut results, mut bytes, mut start) = (Vec::<ArrayRef>::new(), 0, 0);
        while start < sizes.len() {
            let (mut end, mut expected) = (start, 0);
            while end < sizes.len() && expected + sizes[end] <= FUNCTION_BYTES_MAX {
                expected += sizes[end];
                end += 1;
            }
            let group = slice(args, start, end - start);
            let result = self.inner.invoke_with_args(group)?.into_array(end - start)?;
            bytes += result.get_array_memory_size();
            if bytes > FUNCTION_BYTES_MAX {
                return Err(too_large(self.name()));
            }
            results.push(result);
            start = end;
        }
        let results: Vec<_> = results.iter().map(AsRef::as_ref).collect();
        Ok(ColumnarValue::Array(concat(&results)?))
    }
}

fn too_large(function: &str) -> DataFusionError {
    let fix = match growth(function) {
        Some(FunctionSize::Range) => "use shorter lists, or unnest(…) or generate_series(…) in FROM",
        _ => "use shorter values",
    };
    DataFusionError::External(Box::new(Error::limited(format!(
        "`{function}` would return more than {FUNCTION_BYTES_MAX} bytes for one batch of rows: {fix}"
    ))))
}

/// The operator `a || b` with a size limit. It calls the engine's operator after the size check.
#[derive(Debug, PartialEq, Eq, Hash)]
struct LimitedConcat {
    signature: Signature,
}

impl LimitedConcat {
    fn new() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for LimitedConcat {
    fn name(&self) -> &'static str {
        "||"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, kinds: &[DataType]) -> Result<DataType> {
        match kinds {
            [left, right] => BinaryTypeCoercer::new(left, &Operator::StringConcat, right).get_result_type(),
            _ => Err(DataFusionError::Internal("|| needs exactly two arguments".to_owned())),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        operator_field(self, &args)
    }

    fn coerce_types(&self, kinds: &[DataType]) -> Result<Vec<DataType>> {
        Ok(kinds.to_vec())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let sizes = estimate(FunctionSize::Sum, &args)?;
        if sizes.iter().fold(0, |sum: usize, size| sum.saturating_add(*size)) > FUNCTION_BYTES_MAX {
            return Err(too_large("||"));
        }
        let rows = args.number_rows;
        let (mut fields, mut columns, mut sides) = (Vec::new(), Vec::new(), Vec::<Arc<dyn PhysicalExpr>>::new());
        for value in args.args {
            match value {
                ColumnarValue::Scalar(scalar) => sides.push(Arc::new(Literal::new(scalar))),
                ColumnarValue::Array(array) => {
                    sides.push(Arc::new(Column::new("side", columns.len())));
                    fields.push(Field::new("side", array.data_type().clone(), true));
                    columns.push(array);
                }
            }
        }
        let [left, right] = <[_; 2]>::try_from(sides)
            .map_err(|_| DataFusionError::Internal("|| needs exactly two arguments".to_owned()))?;
        let options = RecordBatchOptions::new().with_row_count(Some(rows));
        let batch = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?;
        let result = PhysicalBinary::new(left, Operator::StringConcat, right).evaluate(&batch)?;
        count_result(&result, rows)?;
        Ok(result)
    }
}
