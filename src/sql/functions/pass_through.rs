//! Functions that return their argument, and that analyzer rules add to plans. Statements cannot call them by name.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray as _};
use arrow::datatypes::{DataType, FieldRef, Float32Type, Float64Type};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

/// A function that returns its argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum PassThrough {
    /// Hides an expression from the optimizer.
    Opaque,
    /// Replaces every NaN with the positive one.
    PositiveNan,
    /// Replaces the double -0.0 with 0.0, and every NaN with the positive one.
    CanonicalDouble,
}

impl PassThrough {
    /// Returns an expression that calls the function.
    pub(crate) fn call(self, arg: Expr) -> Expr {
        let signature = Signature::any(1, Volatility::Immutable);
        let func = Arc::new(ScalarUDF::new_from_impl(PassThroughFunction { function: self, signature }));
        Expr::ScalarFunction(ScalarFunction { func, args: vec![arg] })
    }
}

/// If an expression calls one of these functions, returns the function and its argument. Otherwise, returns `None`.
pub(crate) fn called(expr: &Expr) -> Option<(PassThrough, &Expr)> {
    let Expr::ScalarFunction(call) = expr else { return None };
    let function = call.func.inner().downcast_ref::<PassThroughFunction>()?;
    Some((function.function, call.args.first()?))
}

/// Returns true if `function` is one of the functions in this file.
pub(crate) fn is_pass_through(function: &ScalarUDF) -> bool {
    function.inner().is::<PassThroughFunction>()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct PassThroughFunction {
    function: PassThrough,
    signature: Signature,
}

impl ScalarUDFImpl for PassThroughFunction {
    fn name(&self) -> &'static str {
        match self.function {
            PassThrough::Opaque => "opaque",
            PassThrough::PositiveNan => "positive_nan",
            PassThrough::CanonicalDouble => "canonical_double",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, kinds: &[DataType]) -> Result<DataType> {
        kinds.first().cloned().ok_or_else(wrong_count)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        args.arg_fields.first().cloned().ok_or_else(wrong_count)
    }

    /// Returns the name of the argument, so that column names do not change.
    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        Ok(args.iter().map(|arg| arg.schema_name().to_string()).collect())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let arg = args.args.into_iter().next().ok_or_else(wrong_count)?;
        let convert = match self.function {
            PassThrough::Opaque => return Ok(arg),
            PassThrough::PositiveNan => positive_nans,
            PassThrough::CanonicalDouble => canonical_doubles,
        };
        match arg {
            ColumnarValue::Array(array) => Ok(ColumnarValue::Array(convert(array))),
            ColumnarValue::Scalar(scalar) => {
                let array = convert(scalar.to_array()?);
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?))
            }
        }
    }
}

fn wrong_count() -> DataFusionError {
    DataFusionError::Internal("a function that passes a value through has exactly one argument".to_owned())
}

fn positive_nans(array: ArrayRef) -> ArrayRef {
    each_double(
        array,
        |double| if double.is_nan() { f64::NAN } else { double },
        |real| if real.is_nan() { f32::NAN } else { real },
    )
}

fn canonical_doubles(array: ArrayRef) -> ArrayRef {
    // -0.0 + 0.0 is 0.0, and the addition does not change any other number.
    each_double(
        array,
        |double| if double.is_nan() { f64::NAN } else { double + 0.0 },
        |real| if real.is_nan() { f32::NAN } else { real + 0.0 },
    )
}

fn each_double(array: ArrayRef, double: impl Fn(f64) -> f64, real: impl Fn(f32) -> f32) -> ArrayRef {
    match array.data_type() {
        DataType::Float64 => Arc::new(array.as_primitive::<Float64Type>().unary::<_, Float64Type>(double)),
        DataType::Float32 => Arc::new(array.as_primitive::<Float32Type>().unary::<_, Float32Type>(real)),
        _ => array,
    }
}
