//! Arithmetic operators that fail where the engine's operators would return a wrong value.
//!
//! With the engine's operators, integers wrap around, the division of a double by zero returns infinity or NaN, and a
//! decimal quotient has only four more digits than the dividend. The operators in this file fail on an overflow and on
//! a division by zero. Their decimal quotients have at least [`QUOTIENT_SCALE`] digits after the point. The analyzer
//! rules (`rules/`) replace the engine's operators in plans with these. Statements cannot call these operators by name.

use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, ArrowPrimitiveType, AsArray as _, Datum, Decimal128Array};
use arrow::compute::kernels::numeric::{add, div, mul, neg, sub};
use arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, DataType, Decimal128Type, DecimalType as _, FieldRef, Float16Type, Float32Type,
    Float64Type, i256,
};
use arrow::error::ArrowError;
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::type_coercion::binary::BinaryTypeCoercer;
use datafusion::logical_expr::{
    ColumnarValue, Expr, Operator, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use crate::sql::functions::definition::operator_field;

/// The minimum number of digits after the decimal point of a decimal quotient.
pub(super) const QUOTIENT_SCALE: i8 = 16;

/// An operator that fails on an overflow or a division by zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum CheckedOperator {
    Add,
    Subtract,
    Multiply,
    Divide,
    Negate,
}

impl CheckedOperator {
    /// Returns the checked form of one of the engine's operators, or `None` if the operator has no checked form.
    pub(crate) fn of(operator: Operator) -> Option<Self> {
        match operator {
            Operator::Plus => Some(Self::Add),
            Operator::Minus => Some(Self::Subtract),
            Operator::Multiply => Some(Self::Multiply),
            Operator::Divide => Some(Self::Divide),
            _ => None,
        }
    }

    /// Returns an expression that calls this operator. The arguments must already have the types that the operator
    /// requires.
    pub(crate) fn call(self, args: Vec<Expr>) -> Expr {
        let signature = Signature::user_defined(Volatility::Immutable);
        let func = Arc::new(ScalarUDF::new_from_impl(CheckedArithmetic { operator: self, signature }));
        Expr::ScalarFunction(ScalarFunction { func, args })
    }

    fn symbol(self) -> &'static str {
        match self {
            Self::Add => "+",
            Self::Subtract | Self::Negate => "-",
            Self::Multiply => "*",
            Self::Divide => "/",
        }
    }
}

/// Returns true if `function` is a checked operator.
pub(crate) fn is_checked_operator(function: &ScalarUDF) -> bool {
    function.inner().is::<CheckedArithmetic>()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct CheckedArithmetic {
    operator: CheckedOperator,
    signature: Signature,
}

impl ScalarUDFImpl for CheckedArithmetic {
    fn name(&self) -> &str {
        self.operator.symbol()
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, kinds: &[DataType]) -> Result<DataType> {
        match (self.operator, kinds) {
            (CheckedOperator::Negate, [kind]) => Ok(kind.clone()),
            (CheckedOperator::Divide, [left, right]) => Ok(quotient_type(left, right)),
            (CheckedOperator::Add, [left, right]) => sum_type(left, Operator::Plus, right),
            (CheckedOperator::Subtract, [left, right]) => sum_type(left, Operator::Minus, right),
            (CheckedOperator::Multiply, [left, right]) => sum_type(left, Operator::Multiply, right),
            _ => Err(wrong_count(self.operator)),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        operator_field(self, &args)
    }

    fn coerce_types(&self, kinds: &[DataType]) -> Result<Vec<DataType>> {
        Ok(kinds.to_vec())
    }

    /// Returns the name that the engine's operator would have, so that column names do not change.
    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        match args {
            [value] => Ok(format!("(- {})", value.schema_name())),
            [left, right] => Ok(format!("{} {} {}", left.schema_name(), self.operator.symbol(), right.schema_name())),
            _ => Err(wrong_count(self.operator)),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match (self.operator, args.args.as_slice()) {
            (CheckedOperator::Negate, [ColumnarValue::Array(array)]) => Ok(ColumnarValue::Array(neg(array)?)),
            (CheckedOperator::Negate, [ColumnarValue::Scalar(scalar)]) => {
                let negated = neg(&scalar.to_array()?)?;
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&negated, 0)?))
            }
            (CheckedOperator::Add, [left, right]) => apply(left, right, add),
            (CheckedOperator::Subtract, [left, right]) => apply(left, right, sub),
            (CheckedOperator::Multiply, [left, right]) => apply(left, right, mul),
            (CheckedOperator::Divide, [left, right]) => apply(left, right, divide),
            _ => Err(wrong_count(self.operator)),
        }
    }
}

fn wrong_count(operator: CheckedOperator) -> DataFusionError {
    DataFusionError::Internal(format!("wrong number of arguments for {operator:?}"))
}

fn sum_type(left: &DataType, operator: Operator, right: &DataType) -> Result<DataType> {
    BinaryTypeCoercer::new(left, &operator, right).get_result_type()
}

/// Returns the type of `left / right`. The type of a decimal quotient has at least eight digits before the decimal
/// point.
fn quotient_type(left: &DataType, right: &DataType) -> DataType {
    match (left, right) {
        (DataType::Decimal128(_, left), DataType::Decimal128(_, right)) => {
            DataType::Decimal128(DECIMAL128_MAX_PRECISION, (*left).max(*right).clamp(QUOTIENT_SCALE, 30))
        }
        _ => left.clone(),
    }
}

/// Evaluates `kernel` on two values, which may be arrays or scalars.
pub(crate) fn apply(
    left: &ColumnarValue,
    right: &ColumnarValue,
    kernel: impl Fn(&dyn Datum, &dyn Datum) -> Result<ArrayRef, ArrowError>,
) -> Result<ColumnarValue> {
    use ColumnarValue::{Array, Scalar};
    Ok(match (left, right) {
        (Array(left), Array(right)) => Array(kernel(left, right)?),
        (Array(left), Scalar(right)) => Array(kernel(left, &right.to_scalar()?)?),
        (Scalar(left), Array(right)) => Array(kernel(&left.to_scalar()?, right)?),
        (Scalar(left), Scalar(right)) => {
            let result = kernel(&left.to_scalar()?, &right.to_scalar()?)?;
            Scalar(ScalarValue::try_from_array(&result, 0)?)
        }
    })
}

fn divide(left: &dyn Datum, right: &dyn Datum) -> Result<ArrayRef, ArrowError> {
    match left.get().0.data_type() {
        DataType::Float16 => check_divisor::<Float16Type>(left, right, |value| value.is_nan())?,
        DataType::Float32 => check_divisor::<Float32Type>(left, right, f32::is_nan)?,
        DataType::Float64 => check_divisor::<Float64Type>(left, right, f64::is_nan)?,
        DataType::Decimal128(..) => return divide_decimals(left, right),
        _ => {}
    }
    div(left, right)
}

/// Fails if a divisor is zero, unless the dividend is NaN. NaN divided by zero is NaN, as in PostgreSQL.
fn check_divisor<T: ArrowPrimitiveType>(
    left: &dyn Datum,
    right: &dyn Datum,
    is_nan: impl Fn(T::Native) -> bool,
) -> Result<(), ArrowError> {
    let ((dividends, one_dividend), (divisors, one_divisor)) = (left.get(), right.get());
    let (dividends, divisors) = (dividends.as_primitive::<T>(), divisors.as_primitive::<T>());
    let zero = T::default_value();
    if !divisors.values().contains(&zero) {
        return Ok(());
    }
    let rows = if one_divisor { dividends.len() } else { divisors.len() };
    for row in 0..rows {
        let (dividend, divisor) = (if one_dividend { 0 } else { row }, if one_divisor { 0 } else { row });
        let is_zero = divisors.is_valid(divisor) && divisors.value(divisor) == zero;
        if is_zero && dividends.is_valid(dividend) && !is_nan(dividends.value(dividend)) {
            return Err(ArrowError::DivideByZero);
        }
    }
    Ok(())
}

/// Divides decimals. The quotient is rounded half away from zero to the scale of [`quotient_type`].
fn divide_decimals(left: &dyn Datum, right: &dyn Datum) -> Result<ArrayRef, ArrowError> {
    let ((dividends, one_dividend), (divisors, one_divisor)) = (left.get(), right.get());
    let kind = quotient_type(dividends.data_type(), divisors.data_type());
    let (dividends, divisors) = (dividends.as_primitive::<Decimal128Type>(), divisors.as_primitive::<Decimal128Type>());
    let DataType::Decimal128(precision, scale) = kind else {
        return Err(ArrowError::InvalidArgumentError("a decimal is expected".to_owned()));
    };
    // dividend × 10^-left ÷ (divisor × 10^-right) = dividend × 10^(scale - left + right) ÷ divisor × 10^-scale
    let shift = i32::from(scale) - i32::from(dividends.scale()) + i32::from(divisors.scale());
    let shift = u32::try_from(shift).map_err(|_| overflow())?;
    let rows = if one_divisor { dividends.len() } else { divisors.len() };
    let quotient = |row: usize| {
        let (dividend, divisor) = (if one_dividend { 0 } else { row }, if one_divisor { 0 } else { row });
        if dividends.is_null(dividend) || divisors.is_null(divisor) {
            return Ok(None);
        }
        let quotient = rounded_quotient(dividends.value(dividend), shift, divisors.value(divisor))?;
        Decimal128Type::validate_decimal_precision(quotient, precision, scale).map_err(|_| overflow())?;
        Ok(Some(quotient))
    };
    let quotients = (0..rows).map(quotient).collect::<Result<Decimal128Array, ArrowError>>()?;
    Ok(Arc::new(quotients.with_precision_and_scale(precision, scale)?))
}

/// Returns `dividend * 10^shift / divisor`, rounded half away from zero.
fn rounded_quotient(dividend: i128, shift: u32, divisor: i128) -> Result<i128, ArrowError> {
    if divisor == 0 {
        return Err(ArrowError::DivideByZero);
    }
    let scaled = 10_i128.checked_pow(shift).and_then(|factor| dividend.checked_mul(factor));
    if let Some(scaled) = scaled {
        let (quotient, rest) = (scaled / divisor, scaled % divisor);
        let is_half = rest.unsigned_abs() >= divisor.unsigned_abs().div_ceil(2);
        let away = if (scaled < 0) == (divisor < 0) { 1 } else { -1 };
        return Ok(if is_half { quotient + away } else { quotient });
    }
    let factor = i256::from_i128(10).checked_pow(shift).ok_or_else(overflow)?;
    let (scaled, divisor) = (i256::from_i128(dividend).checked_mul(factor), i256::from_i128(divisor));
    let scaled = scaled.ok_or_else(overflow)?;
    let quotient = scaled.checked_div(divisor).ok_or_else(overflow)?;
    let rest = scaled.checked_rem(divisor).ok_or_else(overflow)?;
    let twice = rest.wrapping_abs().checked_mul(i256::from_i128(2)).ok_or_else(overflow)?;
    let away = if scaled.is_negative() == divisor.is_negative() { i256::ONE } else { i256::MINUS_ONE };
    let quotient = if twice >= divisor.wrapping_abs() { quotient.wrapping_add(away) } else { quotient };
    quotient.to_i128().ok_or_else(overflow)
}

fn overflow() -> ArrowError {
    ArrowError::ArithmeticOverflow("a decimal quotient has too many digits".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quotient_is_rounded_half_away_from_zero() {
        let cases = [
            (1, 0, 2, 1),
            (-1, 0, 2, -1),
            (1, 0, -2, -1),
            (1, 0, 3, 0),
            (2, 0, 3, 1),
            (-2, 0, -3, 1),
            (5, 2, 2, 250),
            (10_i128.pow(37), 20, 10_i128.pow(30), 10_i128.pow(27)),
            (2 * 10_i128.pow(37), 2, 3 * 10_i128.pow(37), 67),
            (-2 * 10_i128.pow(37), 2, 3 * 10_i128.pow(37), -67),
        ];
        for (dividend, shift, divisor, expected) in cases {
            assert_eq!(rounded_quotient(dividend, shift, divisor).unwrap(), expected, "{dividend} {shift} {divisor}");
        }
        assert!(matches!(rounded_quotient(1, 0, 0), Err(ArrowError::DivideByZero)));
        assert!(rounded_quotient(10_i128.pow(37), 30, 1).is_err());
    }
}
