//! The function `div(a, b)`, which returns the quotient `a / b` truncated towards zero.

use std::sync::Arc;

use arrow::array::{AsArray as _, Int64Array};
use arrow::compute::kernels::arity::try_binary;
use arrow::compute::kernels::numeric;
use arrow::datatypes::{DataType, Float64Type, Int64Type};
use arrow::error::ArrowError;
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs};

use crate::sql::functions::definition::{FunctionDefinition, unordered, wrong_arguments};

pub(super) const DIV: FunctionDefinition = FunctionDefinition {
    name: "div",
    coerce: |kinds| match kinds {
        [a, b] if is_integer(a) && is_integer(b) => Ok(vec![DataType::Int64; 2]),
        [a, b] if is_exact(a) && is_exact(b) => Ok(vec![DataType::Decimal128(38, 10); 2]),
        [a, b] if (is_exact(a) || a.is_floating()) && (is_exact(b) || b.is_floating()) => {
            Ok(vec![DataType::Float64; 2])
        }
        _ => Err(wrong_arguments("div", "div(dividend, divisor)")),
    },
    returns: |kinds, _| match kinds.first() {
        Some(DataType::Decimal128(_, _)) => Ok(DataType::Decimal128(38, 0)),
        Some(kind) => Ok(kind.clone()),
        None => Err(wrong_arguments("div", "div(dividend, divisor)")),
    },
    call: div,
    ordering: unordered,
    keeps_name: false,
};

fn is_integer(kind: &DataType) -> bool {
    kind.is_integer() || kind.is_null()
}

fn is_exact(kind: &DataType) -> bool {
    is_integer(kind) || kind.is_decimal()
}

fn div(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let a = args.args[0].clone().into_array(args.number_rows)?;
    let b = args.args[1].clone().into_array(args.number_rows)?;
    let overflow = || ArrowError::ArithmeticOverflow("integer overflow in `div`".to_owned());
    Ok(ColumnarValue::Array(match a.data_type() {
        DataType::Int64 => {
            let (a, b) = (a.as_primitive::<Int64Type>(), b.as_primitive::<Int64Type>());
            let quotient: Int64Array = try_binary(a, b, |a, b| match b {
                0 => Err(ArrowError::DivideByZero),
                b => a.checked_div(b).ok_or_else(overflow),
            })?;
            Arc::new(quotient)
        }
        DataType::Float64 => {
            let quotient = numeric::div(&a, &b)?;
            Arc::new(quotient.as_primitive::<Float64Type>().unary::<_, Float64Type>(f64::trunc))
        }
        _ => {
            // Both arguments have the same scale, so dividing the unscaled integers gives the correct quotient.
            let (a, b) = (
                a.as_primitive::<arrow::datatypes::Decimal128Type>(),
                b.as_primitive::<arrow::datatypes::Decimal128Type>(),
            );
            let quotient: arrow::array::Decimal128Array = try_binary(a, b, |a, b| match b {
                0 => Err(ArrowError::DivideByZero),
                b => a.checked_div(b).ok_or_else(overflow),
            })?;
            Arc::new(quotient.with_precision_and_scale(38, 0)?)
        }
    }))
}
