//! Prepares the operand of a cast to a number, so the engine's cast returns the same result as PostgreSQL.
//!
//! - Casts to an integer: the engine truncates, but PostgreSQL rounds doubles half to even and decimals half away from
//!   zero. The operand is rounded first, and the engine's cast then checks the range.
//! - Casts from text: PostgreSQL ignores the whitespace around a number, so it is removed first.

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray as _, LargeStringArray, StringArray, StringViewArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType, Float32Type, Float64Type};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

/// Prepares the operand for a cast of `value` from type `from` to type `to`. Returns `None` if the cast needs no
/// preparation.
pub(crate) fn cast_operand(value: &Expr, from: &DataType, to: &DataType) -> Option<Expr> {
    let is_affected = match from {
        DataType::Float32 | DataType::Float64 => to.is_integer(),
        DataType::Decimal32(_, scale)
        | DataType::Decimal64(_, scale)
        | DataType::Decimal128(_, scale)
        | DataType::Decimal256(_, scale) => to.is_integer() && *scale > 0,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => to.is_numeric(),
        _ => false,
    };
    is_affected.then(|| {
        let signature = Signature::user_defined(Volatility::Immutable);
        let func = Arc::new(ScalarUDF::new_from_impl(CastOperand { signature }));
        Expr::ScalarFunction(ScalarFunction { func, args: vec![value.clone()] })
    })
}

/// Returns true if `function` prepares the operand of a cast.
pub(crate) fn is_cast_operand(function: &ScalarUDF) -> bool {
    function.inner().is::<CastOperand>()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct CastOperand {
    signature: Signature,
}

impl ScalarUDFImpl for CastOperand {
    fn name(&self) -> &'static str {
        "cast_operand"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, kinds: &[DataType]) -> Result<DataType> {
        Ok(match kinds {
            [DataType::Decimal32(..) | DataType::Decimal64(..) | DataType::Decimal128(..)] => {
                DataType::Decimal128(DECIMAL128_MAX_PRECISION, 0)
            }
            [DataType::Decimal256(..)] => DataType::Decimal256(DECIMAL256_MAX_PRECISION, 0),
            [kind] => kind.clone(),
            _ => return Err(DataFusionError::Internal("a cast has exactly one operand".to_owned())),
        })
    }

    fn coerce_types(&self, kinds: &[DataType]) -> Result<Vec<DataType>> {
        Ok(kinds.to_vec())
    }

    /// Returns the name of the argument, so the preparation does not change the name of the cast expression.
    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        Ok(args.iter().map(|arg| arg.schema_name().to_string()).collect())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        match args.args.as_slice() {
            [ColumnarValue::Array(array)] => Ok(ColumnarValue::Array(self.prepare(array)?)),
            [ColumnarValue::Scalar(scalar)] => {
                let array = self.prepare(&scalar.to_array()?)?;
                Ok(ColumnarValue::Scalar(ScalarValue::try_from_array(&array, 0)?))
            }
            _ => Err(DataFusionError::Internal("a cast has exactly one operand".to_owned())),
        }
    }
}

impl CastOperand {
    fn prepare(&self, array: &ArrayRef) -> Result<ArrayRef> {
        Ok(match array.data_type() {
            DataType::Float32 => {
                Arc::new(array.as_primitive::<Float32Type>().unary::<_, Float32Type>(f32::round_ties_even))
            }
            DataType::Float64 => {
                Arc::new(array.as_primitive::<Float64Type>().unary::<_, Float64Type>(f64::round_ties_even))
            }
            DataType::Utf8 => match array.as_string::<i32>() {
                texts if texts.iter().flatten().all(is_trimmed) => Arc::clone(array),
                texts => Arc::new(texts.iter().map(|text| text.map(trim)).collect::<StringArray>()),
            },
            DataType::LargeUtf8 => {
                let texts = array.as_string::<i64>().iter();
                Arc::new(texts.map(|text| text.map(trim)).collect::<LargeStringArray>())
            }
            DataType::Utf8View => {
                let texts = array.as_string_view().iter();
                Arc::new(texts.map(|text| text.map(trim)).collect::<StringViewArray>())
            }
            // Reducing the scale of a decimal to 0 rounds half away from zero.
            kind => {
                let options = CastOptions { safe: false, ..CastOptions::default() };
                cast_with_options(array, &self.return_type(std::slice::from_ref(kind))?, &options)?
            }
        })
    }
}

/// Removes leading and trailing whitespace, as defined by C's `isspace`.
fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t', '\n', '\r', '\x0b', '\x0c'])
}

fn is_trimmed(text: &str) -> bool {
    trim(text).len() == text.len()
}
