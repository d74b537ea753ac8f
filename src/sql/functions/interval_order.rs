//! Converts intervals and durations to numbers that can be compared.
//!
//! As in PostgreSQL, a month counts as 30 days and a day as 24 hours. The engine would compare the months first, then the
//! days, and then the time, so 25 hours would be less than a day.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray as _, Decimal128Array};
use arrow::datatypes::{
    ArrowPrimitiveType, DECIMAL128_MAX_PRECISION, DataType, DurationMicrosecondType, DurationMillisecondType,
    DurationNanosecondType, DurationSecondType, FieldRef, IntervalDayTimeType, IntervalMonthDayNanoType, IntervalUnit,
    IntervalYearMonthType, TimeUnit,
};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use crate::sql::functions::definition::operator_field;

const NANOS_PER_DAY: i128 = 86_400_000_000_000;
const NANOS_PER_MONTH: i128 = 30 * NANOS_PER_DAY;

/// Returns the length of an interval or a duration in nanoseconds, as an expression.
pub(crate) fn interval_order(interval: Expr) -> Expr {
    let signature = Signature::user_defined(Volatility::Immutable);
    let func = Arc::new(ScalarUDF::new_from_impl(IntervalOrder { signature }));
    Expr::ScalarFunction(ScalarFunction { func, args: vec![interval] })
}

/// Returns true if `function` returns the length of an interval.
pub(crate) fn is_interval_order(function: &ScalarUDF) -> bool {
    function.inner().is::<IntervalOrder>()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct IntervalOrder {
    signature: Signature,
}

impl ScalarUDFImpl for IntervalOrder {
    fn name(&self) -> &'static str {
        "interval_order"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        operator_field(self, &args)
    }

    fn coerce_types(&self, kinds: &[DataType]) -> Result<Vec<DataType>> {
        Ok(kinds.to_vec())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match args.args.as_slice() {
            [ColumnarValue::Array(array)] => Ok(ColumnarValue::Array(Arc::new(nanoseconds(array)?))),
            [ColumnarValue::Scalar(scalar)] => {
                let lengths: ArrayRef = Arc::new(nanoseconds(&scalar.to_array()?)?);
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&lengths, 0)?))
            }
            _ => Err(DataFusionError::Internal("interval_order needs exactly one argument".to_owned())),
        }
    }
}

/// Returns the length of each interval or duration in nanoseconds.
fn nanoseconds(array: &ArrayRef) -> Result<Decimal128Array> {
    let lengths = match array.data_type() {
        DataType::Interval(IntervalUnit::YearMonth) => {
            each::<IntervalYearMonthType>(array, |months| i128::from(months) * NANOS_PER_MONTH)
        }
        DataType::Interval(IntervalUnit::DayTime) => each::<IntervalDayTimeType>(array, |interval| {
            i128::from(interval.days) * NANOS_PER_DAY + i128::from(interval.milliseconds) * 1_000_000
        }),
        DataType::Interval(IntervalUnit::MonthDayNano) => each::<IntervalMonthDayNanoType>(array, |interval| {
            i128::from(interval.months) * NANOS_PER_MONTH
                + i128::from(interval.days) * NANOS_PER_DAY
                + i128::from(interval.nanoseconds)
        }),
        DataType::Duration(TimeUnit::Second) => {
            each::<DurationSecondType>(array, |seconds| i128::from(seconds) * 1_000_000_000)
        }
        DataType::Duration(TimeUnit::Millisecond) => {
            each::<DurationMillisecondType>(array, |millis| i128::from(millis) * 1_000_000)
        }
        DataType::Duration(TimeUnit::Microsecond) => {
            each::<DurationMicrosecondType>(array, |micros| i128::from(micros) * 1_000)
        }
        DataType::Duration(TimeUnit::Nanosecond) => each::<DurationNanosecondType>(array, i128::from),
        kind => return Err(DataFusionError::Internal(format!("{kind} is not an interval"))),
    };
    Ok(lengths.with_data_type(DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0)))
}

fn each<T: ArrowPrimitiveType>(array: &ArrayRef, length: fn(T::Native) -> i128) -> Decimal128Array {
    array.as_primitive::<T>().unary(length)
}
