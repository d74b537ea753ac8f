//! Prepares the operand of a cast to a number, so the engine's cast returns the same result as PostgreSQL.
//!
//! - Casts to an integer: the engine truncates, but PostgreSQL rounds doubles half to even and decimals half away from
//!   zero. The operand is rounded first, and the engine's cast then checks the range.
//! - Casts from text: PostgreSQL ignores the whitespace around a number, so it is removed first. For a decimal, an
//!   exponent is resolved (`1.5e3` becomes `1500`), because the engine does not know it.
//! - Casts from doubles to `REAL`: the engine returns infinity or 0 for a number that is out of range. In PostgreSQL, such
//!   a cast is an error.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray as _, Float64Array, LargeStringArray, StringArray, StringViewArray};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType, Float32Type, Float64Type};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

/// Prepares the operand for a cast of `value` from type `from` to type `to`. Returns `None` if the cast needs no
/// preparation. `is_try` is true for TRY_CAST.
pub(crate) fn cast_operand(value: &Expr, from: &DataType, to: &DataType, is_try: bool) -> Option<Expr> {
    let real = (*to == DataType::Float32).then_some(if is_try { OutOfRange::Null } else { OutOfRange::Error });
    let is_affected = match from {
        DataType::Float64 => to.is_integer() || real.is_some(),
        DataType::Float32 => to.is_integer(),
        DataType::Decimal32(_, scale)
        | DataType::Decimal64(_, scale)
        | DataType::Decimal128(_, scale)
        | DataType::Decimal256(_, scale) => to.is_integer() && *scale > 0,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => to.is_numeric(),
        _ => false,
    };
    is_affected.then(|| {
        let signature = Signature::user_defined(Volatility::Immutable);
        let is_decimal = to.is_decimal();
        let func = Arc::new(ScalarUDF::new_from_impl(CastOperand { real, is_decimal, signature }));
        Expr::ScalarFunction(ScalarFunction { func, args: vec![value.clone()] })
    })
}

/// Returns true if `function` prepares the operand of a cast.
pub(crate) fn is_cast_operand(function: &ScalarUDF) -> bool {
    function.inner().is::<CastOperand>()
}

/// The result of a cast to `REAL` for a number that is out of range.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum OutOfRange {
    Error,
    Null,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct CastOperand {
    /// `None` unless the cast is to `REAL`.
    real: Option<OutOfRange>,
    /// True if the cast is to a decimal.
    is_decimal: bool,
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
    /// Returns the text of a number as the engine's cast expects it.
    fn number<'a>(&self, text: &'a str) -> Cow<'a, str> {
        let text = trim(text);
        let plain = if self.is_decimal { without_exponent(text) } else { None };
        plain.map_or(Cow::Borrowed(text), Cow::Owned)
    }

    fn prepare(&self, array: &ArrayRef) -> Result<ArrayRef> {
        Ok(match array.data_type() {
            DataType::Float32 => {
                Arc::new(array.as_primitive::<Float32Type>().unary::<_, Float32Type>(f32::round_ties_even))
            }
            DataType::Float64 if self.real.is_some() => {
                let doubles = array.as_primitive::<Float64Type>();
                if doubles.iter().flatten().all(fits_real) {
                    return Ok(Arc::clone(array));
                }
                if self.real == Some(OutOfRange::Error) {
                    return Err(DataFusionError::Execution("a number is out of range for type real".to_owned()));
                }
                let fitting = doubles.iter().map(|double| double.filter(|double| fits_real(*double)));
                Arc::new(fitting.collect::<Float64Array>())
            }
            DataType::Float64 => {
                Arc::new(array.as_primitive::<Float64Type>().unary::<_, Float64Type>(f64::round_ties_even))
            }
            DataType::Utf8 => match array.as_string::<i32>() {
                texts
                    if texts
                        .iter()
                        .flatten()
                        .all(|text| matches!(self.number(text), Cow::Borrowed(same) if same == text)) =>
                {
                    Arc::clone(array)
                }
                texts => Arc::new(texts.iter().map(|text| text.map(|text| self.number(text))).collect::<StringArray>()),
            },
            DataType::LargeUtf8 => {
                let texts = array.as_string::<i64>().iter();
                Arc::new(texts.map(|text| text.map(|text| self.number(text))).collect::<LargeStringArray>())
            }
            DataType::Utf8View => {
                let texts = array.as_string_view().iter();
                Arc::new(texts.map(|text| text.map(|text| self.number(text))).collect::<StringViewArray>())
            }
            // Reducing the scale of a decimal to 0 rounds half away from zero.
            kind => {
                let options = CastOptions { safe: false, ..CastOptions::default() };
                cast_with_options(array, &self.return_type(std::slice::from_ref(kind))?, &options)?
            }
        })
    }
}

/// Returns false if a cast to `REAL` would turn the number into infinity or 0.
#[expect(clippy::cast_possible_truncation, reason = "the cast is the one that is checked")]
fn fits_real(double: f64) -> bool {
    let real = double as f32;
    (real.is_finite() || !double.is_finite()) && (real != 0.0 || double == 0.0)
}

/// Removes leading and trailing whitespace, as defined by C's `isspace`.
fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t', '\n', '\r', '\x0b', '\x0c'])
}

/// Resolves the exponent of a decimal number, and drops digits that are too far behind the point to have an effect.
/// Returns `None` if the text has neither, or is not a number.
fn without_exponent(text: &str) -> Option<String> {
    // A decimal has at most 38 digits behind the point. The first dropped digit determines how it is rounded.
    const FRACTION_MAX: usize = 40;
    // A decimal has at most 38 digits before the point.
    const EXPONENT_MAX: i64 = 1_000;
    let (sign, number) = text.split_at(usize::from(text.starts_with(['+', '-'])));
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let is_number = |digits: &str| digits.bytes().all(|digit| digit.is_ascii_digit());
    if mantissa.len() == number.len() && fraction.len() <= FRACTION_MAX
        || whole.is_empty() && fraction.is_empty()
        || !is_number(whole)
        || !is_number(fraction)
    {
        return None;
    }
    let exponent: i64 = exponent.parse().ok()?;
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_start_matches('0');
    if significant.is_empty() {
        return Some("0".to_owned());
    }
    let point = i64::try_from(significant.len()).ok()? - i64::try_from(fraction.len()).ok()? + exponent;
    if point > EXPONENT_MAX {
        return None;
    }
    let (whole, fraction) = match usize::try_from(point) {
        Ok(point) if point >= significant.len() => (format!("{significant:0<point$}"), String::new()),
        Ok(point) => (significant[..point].to_owned(), significant[point..].to_owned()),
        Err(_) => {
            let zeros = usize::try_from(-point).map_or(FRACTION_MAX, |zeros| zeros.min(FRACTION_MAX));
            (String::new(), format!("{}{significant}", "0".repeat(zeros)))
        }
    };
    let fraction = fraction.get(..FRACTION_MAX).unwrap_or(&fraction);
    Some(format!("{sign}{}.{fraction}", if whole.is_empty() { "0" } else { &whole }).trim_end_matches('.').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponents_are_resolved() {
        let long = format!("0.{}", "3".repeat(90));
        let cut = format!("0.{}", "3".repeat(40));
        for (text, expected) in [
            ("1e3", Some("1000")),
            ("-1.25E+1", Some("-12.5")),
            ("+125e-1", Some("+12.5")),
            (".5e1", Some("5")),
            ("5.e-3", Some("0.005")),
            ("0.0012e2", Some("0.12")),
            ("0e999999999", Some("0")),
            ("1e-999999999", Some("0.0000000000000000000000000000000000000000")),
            (long.as_str(), Some(cut.as_str())),
            ("1e1001", None),
            ("1e99999999999999999999", None),
            ("12.5", None),
            ("e3", None),
            (".e3", None),
            ("1e", None),
            ("1e3.5", None),
            ("1x5e3", None),
            ("--1e3", None),
            ("1.2.3e4", None),
            ("é1e3", None),
        ] {
            assert_eq!(without_exponent(text).as_deref(), expected, "{text}");
        }
    }
}
