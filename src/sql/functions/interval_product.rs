//! Multiplies and divides intervals by numbers.
//!
//! As in PostgreSQL, months, days and time are multiplied separately. A fraction of a month becomes days (30 per
//! month), and a fraction of a day becomes time (24 hours per day).

use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, AsArray as _, IntervalMonthDayNanoArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{
    DataType, FieldRef, Float64Type, Int64Type, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit,
};
use datafusion::common::DFSchema;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ExprSchemable as _, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};
use datafusion::sql::sqlparser::ast::BinaryOperator;

use crate::error::Error;
use crate::sql::functions::definition::operator_field;

const NANOS_PER_DAY: f64 = 86_400_000_000_000.0;

/// Plans `n * interval`, `interval * n` and `interval / n`, which the engine's planner refuses.
#[derive(Debug)]
pub(crate) struct IntervalProductPlanner;

impl ExprPlanner for IntervalProductPlanner {
    fn plan_binary_op(&self, expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        if !matches!(expr.op, BinaryOperator::Multiply | BinaryOperator::Divide) {
            return Ok(PlannerResult::Original(expr));
        }
        let is_quotient = expr.op == BinaryOperator::Divide;
        let (Ok(left), Ok(right)) = (expr.left.get_type(schema), expr.right.get_type(schema)) else {
            return Ok(PlannerResult::Original(expr));
        };
        let args = match (&left, &right) {
            (DataType::Interval(_), number) if number.is_numeric() => vec![expr.left, expr.right],
            (number, DataType::Interval(_)) if number.is_numeric() && !is_quotient => vec![expr.right, expr.left],
            _ => return Ok(PlannerResult::Original(expr)),
        };
        let signature = Signature::user_defined(Volatility::Immutable);
        let func = Arc::new(ScalarUDF::new_from_impl(IntervalProduct { is_quotient, signature }));
        Ok(PlannerResult::Planned(Expr::ScalarFunction(ScalarFunction { func, args })))
    }
}

/// Returns true if `function` multiplies or divides an interval.
pub(crate) fn is_interval_product(function: &ScalarUDF) -> bool {
    function.inner().is::<IntervalProduct>()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct IntervalProduct {
    is_quotient: bool,
    signature: Signature,
}

impl ScalarUDFImpl for IntervalProduct {
    fn name(&self) -> &'static str {
        if self.is_quotient { "interval_quotient" } else { "interval_product" }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Interval(IntervalUnit::MonthDayNano))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        operator_field(self, &args)
    }

    fn coerce_types(&self, kinds: &[DataType]) -> Result<Vec<DataType>> {
        let is_exact = !self.is_quotient && kinds.get(1).is_some_and(DataType::is_integer);
        let number = if is_exact { DataType::Int64 } else { DataType::Float64 };
        Ok(vec![DataType::Interval(IntervalUnit::MonthDayNano), number])
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_scalar = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows = if is_scalar { 1 } else { args.number_rows };
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [intervals, numbers] = arrays.as_slice() else {
            return Err(DataFusionError::Internal("an interval product needs exactly two arguments".to_owned()));
        };
        let (intervals, numbers) = (to_intervals(intervals)?, numbers);
        let intervals = intervals.as_primitive::<IntervalMonthDayNanoType>();
        let product = |row: usize| {
            if intervals.is_null(row) || numbers.is_null(row) {
                return Ok(None);
            }
            let interval = intervals.value(row);
            let product = match numbers.data_type() {
                DataType::Int64 => multiply(interval, numbers.as_primitive::<Int64Type>().value(row)),
                _ => self.scale(interval, numbers.as_primitive::<Float64Type>().value(row))?,
            };
            product.map(Some).ok_or_else(|| invalid("the interval is out of range"))
        };
        let products: IntervalMonthDayNanoArray = (0..rows.min(intervals.len())).map(product).collect::<Result<_>>()?;
        let products: ArrayRef = Arc::new(products);
        if is_scalar {
            return Ok(ColumnarValue::Scalar(datafusion::common::ScalarValue::try_from_array(&products, 0)?));
        }
        Ok(ColumnarValue::Array(products))
    }
}

impl IntervalProduct {
    /// Multiplies or divides the months, days and time of an interval by a double. Returns `None` if the result is out
    /// of range.
    fn scale(&self, interval: IntervalMonthDayNano, number: f64) -> Result<Option<IntervalMonthDayNano>> {
        if self.is_quotient && number == 0.0 {
            return Err(DataFusionError::ArrowError(Box::new(arrow::error::ArrowError::DivideByZero), None));
        }
        let times = |part: f64| if self.is_quotient { part / number } else { part * number };
        let months = times(f64::from(interval.months));
        let more_days = months.fract() * 30.0;
        let days = times(f64::from(interval.days));
        let whole_days = days.trunc() + more_days.trunc();
        let more_nanos = (days.fract() + more_days.fract()) * NANOS_PER_DAY;
        #[expect(clippy::cast_precision_loss, reason = "PostgreSQL also computes the time part as a double")]
        let nanos = times(interval.nanoseconds as f64) + more_nanos;
        // Round to microseconds, as PostgreSQL does.
        let nanos = (nanos / 1000.0).round_ties_even() * 1000.0;
        let fits = |value: f64, limit: f64| value.is_finite() && value.abs() < limit;
        if !fits(months, 2e9) || !fits(whole_days, 2e9) || !fits(nanos, 9.2e18) {
            return Ok(None);
        }
        #[expect(clippy::cast_possible_truncation, reason = "the ranges are checked above")]
        Ok(Some(IntervalMonthDayNano::new(months.trunc() as i32, whole_days as i32, nanos as i64)))
    }
}

/// Multiplies the months, days and time of an interval by an integer. Returns `None` on an overflow.
fn multiply(interval: IntervalMonthDayNano, factor: i64) -> Option<IntervalMonthDayNano> {
    let part = |value: i32| i32::try_from(i64::from(value).checked_mul(factor)?).ok();
    Some(IntervalMonthDayNano::new(
        part(interval.months)?,
        part(interval.days)?,
        interval.nanoseconds.checked_mul(factor)?,
    ))
}

fn to_intervals(array: &ArrayRef) -> Result<ArrayRef> {
    let options = CastOptions { safe: false, ..CastOptions::default() };
    Ok(cast_with_options(array, &DataType::Interval(IntervalUnit::MonthDayNano), &options)?)
}

fn invalid(text: &'static str) -> DataFusionError {
    DataFusionError::External(Box::new(Error::invalid(text)))
}
