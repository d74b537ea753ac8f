//! Compares 64-bit integers with doubles exactly.
//!
//! The engine itself first casts the integer to a double. Beyond 2^53, this cast is not exact, so different numbers can
//! compare as equal.

use std::cmp::Ordering;
use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, AsArray as _, BooleanArray};
use arrow::datatypes::{DataType, FieldRef, Float64Type, Int64Type, UInt64Type};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    BinaryExpr, Cast, ColumnarValue, Expr, Operator, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl,
    Signature, Volatility,
};

use crate::sql::functions::definition::operator_field;

/// An exact comparison of an integer (the first argument) with a double (the second argument).
#[derive(Debug, PartialEq, Eq, Hash)]
struct ExactComparison {
    operator: Operator,
    /// True if the double is the left operand in the statement.
    is_swapped: bool,
    signature: Signature,
}

/// If one operand is a 64-bit integer and the other is a double, returns the exact form of the comparison. Otherwise,
/// returns `None`. This function must be called before type coercion, which casts the integer to a double.
pub(crate) fn exact_comparison(binary: &BinaryExpr, left_kind: &DataType, right_kind: &DataType) -> Option<Expr> {
    use DataType::{Float32, Float64, Int64, UInt64};
    let is_swapped = match (left_kind, right_kind) {
        (Int64 | UInt64, Float64 | Float32) => false,
        (Float64 | Float32, Int64 | UInt64) => true,
        _ => return None,
    };
    let (left, right) = (&binary.left, &binary.right);
    let (integer, double) = if is_swapped { (right, left) } else { (left, right) };
    if !is_supported(binary.op) || is_small(integer) {
        return None;
    }
    let operator = if is_swapped { binary.op.swap()? } else { binary.op };
    let double = Expr::Cast(Cast::new(double.clone(), Float64));
    let signature = Signature::user_defined(Volatility::Immutable);
    let func = Arc::new(ScalarUDF::new_from_impl(ExactComparison { operator, is_swapped, signature }));
    Some(Expr::ScalarFunction(ScalarFunction { func, args: vec![(**integer).clone(), double] }))
}

/// Returns true if `integer` is a literal that a double represents exactly.
fn is_small(integer: &Expr) -> bool {
    const LIMIT: i64 = 1 << 53;
    matches!(integer, Expr::Literal(ScalarValue::Int64(Some(value)), _) if (-LIMIT..=LIMIT).contains(value))
}

/// Returns true if `function` is an exact comparison.
pub(crate) fn is_exact_comparison(function: &ScalarUDF) -> bool {
    function.inner().is::<ExactComparison>()
}

fn is_supported(operator: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, Lt, LtEq, NotEq};
    matches!(operator, Eq | NotEq | Lt | LtEq | Gt | GtEq)
}

impl ScalarUDFImpl for ExactComparison {
    fn name(&self) -> &'static str {
        "exact_comparison"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Boolean)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        operator_field(self, &args)
    }

    fn coerce_types(&self, kinds: &[DataType]) -> Result<Vec<DataType>> {
        Ok(kinds.to_vec())
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        let [integer, double] = args else { return Err(wrong_count()) };
        let operator = if self.is_swapped { self.operator.swap().unwrap_or(self.operator) } else { self.operator };
        let (left, right) = if self.is_swapped { (double, integer) } else { (integer, double) };
        Ok(format!("{} {operator} {}", left.schema_name(), right.schema_name()))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_scalar = args.args.iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let arrays = ColumnarValue::values_to_arrays(&args.args)?;
        let [integers, doubles] = arrays.as_slice() else {
            return Err(wrong_count());
        };
        let doubles = doubles.as_primitive::<Float64Type>();
        let found: BooleanArray = match integers.data_type() {
            DataType::UInt64 => {
                let pairs = integers.as_primitive::<UInt64Type>().iter().zip(doubles);
                pairs.map(|pair| self.holds(pair.0.map(i128::from), pair.1)).collect()
            }
            DataType::Int64 => {
                let pairs = integers.as_primitive::<Int64Type>().iter().zip(doubles);
                pairs.map(|pair| self.holds(pair.0.map(i128::from), pair.1)).collect()
            }
            kind => return Err(DataFusionError::Internal(format!("cannot compare {kind} as an integer"))),
        };
        let found: ArrayRef = Arc::new(found);
        if is_scalar {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&found, 0)?));
        }
        Ok(ColumnarValue::Array(found))
    }
}

fn wrong_count() -> DataFusionError {
    DataFusionError::Internal("a comparison needs exactly two arguments".to_owned())
}

impl ExactComparison {
    fn holds(&self, integer: Option<i128>, double: Option<f64>) -> Option<bool> {
        let order = compare(integer?, double?);
        Some(match self.operator {
            Operator::NotEq => order.is_ne(),
            Operator::Lt => order.is_lt(),
            Operator::LtEq => order.is_le(),
            Operator::Gt => order.is_gt(),
            Operator::GtEq => order.is_ge(),
            _ => order.is_eq(),
        })
    }
}

/// Compares a 64-bit integer with a double. NaN is greater than all numbers, as in the engine and in PostgreSQL.
fn compare(integer: i128, double: f64) -> Ordering {
    const LIMIT: f64 = 18_446_744_073_709_551_616.0;
    if double.is_nan() || double >= LIMIT {
        return Ordering::Less;
    }
    if double < -LIMIT {
        return Ordering::Greater;
    }
    let floor = double.floor();
    #[expect(clippy::cast_possible_truncation, reason = "an integral value below 2^64 fits")]
    let order = integer.cmp(&(floor as i128));
    if order.is_eq() && double > floor { Ordering::Less } else { order }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_and_doubles_compare_exactly() {
        let cases = [
            (9_007_199_254_740_993, 9_007_199_254_740_992.0, Ordering::Greater),
            (9_007_199_254_740_992, 9_007_199_254_740_992.0, Ordering::Equal),
            (i128::from(i64::MAX), 9_223_372_036_854_775_808.0, Ordering::Less),
            (i128::from(i64::MIN), -9_223_372_036_854_775_808.0, Ordering::Equal),
            (i128::from(u64::MAX), 18_446_744_073_709_551_616.0, Ordering::Less),
            (0, -0.0, Ordering::Equal),
            (-1, -1.5, Ordering::Greater),
            (1, 1.5, Ordering::Less),
            (0, f64::NAN, Ordering::Less),
            (0, f64::INFINITY, Ordering::Less),
            (0, f64::NEG_INFINITY, Ordering::Greater),
        ];
        for (integer, double, expected) in cases {
            assert_eq!(compare(integer, double), expected, "{integer} {double}");
        }
    }
}
