//! The function `div(a, b)`, which returns the quotient `a / b` truncated towards zero.

use std::sync::Arc;

use arrow::array::{AsArray as _, Decimal128Array, Int64Array};
use arrow::compute::kernels::arity::try_binary;
use arrow::compute::kernels::numeric;
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType, Decimal128Type, Float64Type, Int64Type, i256};
use arrow::error::ArrowError;
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs};

use crate::sql::functions::definition::{FunctionDefinition, unordered, wrong_arguments};

pub(super) const DIV: FunctionDefinition = FunctionDefinition {
    name: "div",
    coerce: |kinds| match kinds {
        [a, b] if is_integer(a) && is_integer(b) => Ok(vec![DataType::Int64; 2]),
        [a, b] if is_exact(a) && is_exact(b) => Ok(vec![decimal(a)?, decimal(b)?]),
        [a, b] if (is_exact(a) || a.is_floating()) && (is_exact(b) || b.is_floating()) => {
            Ok(vec![DataType::Float64; 2])
        }
        _ => Err(wrong_arguments("div", "div(dividend, divisor)")),
    },
    returns: |kinds, _| match kinds.first() {
        Some(DataType::Decimal128(_, _)) => Ok(DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0)),
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

/// Returns the 128-bit decimal type that contains all values of an exact type.
fn decimal(kind: &DataType) -> Result<DataType> {
    match kind {
        DataType::Decimal32(precision, scale)
        | DataType::Decimal64(precision, scale)
        | DataType::Decimal128(precision, scale)
            if *scale >= 0 =>
        {
            Ok(DataType::Decimal128(*precision, *scale))
        }
        kind if is_integer(kind) => Ok(DataType::Decimal128(20, 0)),
        kind => Err(wrong_arguments("div", &format!("arguments of the type DECIMAL(38, 10) instead of {kind}"))),
    }
}

/// Returns `dividend · 10^-scale / (divisor · 10^-divisor_scale)`, truncated towards zero.
fn quotient(dividend: i128, scale: i8, divisor: i128, divisor_scale: i8) -> Result<i128, ArrowError> {
    if divisor == 0 {
        return Err(ArrowError::DivideByZero);
    }
    // A decimal has at most 38 digits, so each product has at most 76 digits, which fit into 256 bits.
    let shifted = |value: i128, shift: i8| {
        let factor = i256::from_i128(10).checked_pow(u32::from(shift.unsigned_abs()))?;
        i256::from_i128(value).checked_mul(factor)
    };
    let shift = scale.min(divisor_scale);
    let quotient = shifted(dividend, divisor_scale - shift)
        .zip(shifted(divisor, scale - shift))
        .and_then(|(dividend, divisor)| dividend.checked_div(divisor))
        .and_then(i256::to_i128)
        .filter(|quotient| quotient.unsigned_abs() < 10_u128.pow(u32::from(DECIMAL128_MAX_PRECISION)));
    quotient.ok_or_else(|| ArrowError::ArithmeticOverflow("the quotient of `div` has too many digits".to_owned()))
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
            let (a, b) = (a.as_primitive::<Decimal128Type>(), b.as_primitive::<Decimal128Type>());
            let (scale, divisor_scale) = (a.scale(), b.scale());
            let quotient: Decimal128Array = try_binary(a, b, |a, b| quotient(a, scale, b, divisor_scale))?;
            Arc::new(quotient.with_precision_and_scale(DECIMAL128_MAX_PRECISION, 0)?)
        }
    }))
}
