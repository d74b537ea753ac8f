//! Prepares the operand of a cast to a number, so the engine's cast returns the same result as PostgreSQL.
//!
//! - Casts to an integer: the engine truncates, but PostgreSQL rounds doubles half to even and decimals half away from
//!   zero. The operand is rounded first, and the engine's cast then checks the range.
//! - Casts from text: `number_text.rs` rewrites the text.
//! - Casts from doubles to `REAL`: the engine returns infinity or 0 for a number that is out of range. In PostgreSQL,
//!   such a cast is an error.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::array::{
    Array as _, ArrayData, ArrayRef, AsArray as _, Float64Array, LargeStringArray, OffsetSizeTrait, StringArray,
    StringViewArray,
};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{
    DECIMAL128_MAX_PRECISION, DECIMAL256_MAX_PRECISION, DataType, FieldRef, Float32Type, Float64Type,
};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use crate::sql::functions::definition::operator_field;
use crate::sql::functions::number_text::{NUMBER_BYTES_MAX, Target, fits_real, number_text};

/// Prepares the operand for a cast of `value` from type `from` to type `to`. Returns `None` if the cast needs no
/// preparation. `is_try` is true for TRY_CAST.
pub(crate) fn cast_operand(value: &Expr, from: &DataType, to: &DataType, is_try: bool) -> Option<Expr> {
    if is_nested(from) || is_nested(to) {
        return checked_nested(value, from, to);
    }
    let target = match to {
        DataType::Float32 => Target::Real,
        kind if kind.is_floating() => Target::Double,
        kind if kind.is_decimal() => Target::Decimal,
        kind if kind.is_integer() => Target::Integer,
        _ => return None,
    };
    let is_affected = match from {
        DataType::Float64 => matches!(target, Target::Integer | Target::Real),
        DataType::Float32 => target == Target::Integer,
        DataType::Decimal32(_, scale)
        | DataType::Decimal64(_, scale)
        | DataType::Decimal128(_, scale)
        | DataType::Decimal256(_, scale) => target == Target::Integer && *scale > 0,
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::Dictionary(..) => true,
        _ => false,
    };
    is_affected.then(|| call(value, target, is_try))
}

/// Prepares the operand for a cast between types that contain other types. The prepared operand only checks the lengths
/// of texts that may become decimals.
fn checked_nested(value: &Expr, from: &DataType, to: &DataType) -> Option<Expr> {
    let is_affected = contains(from, &is_text) && contains(to, &DataType::is_decimal);
    is_affected.then(|| call(value, Target::Decimal, false))
}

fn call(value: &Expr, target: Target, is_try: bool) -> Expr {
    let signature = Signature::user_defined(Volatility::Immutable);
    let func = Arc::new(ScalarUDF::new_from_impl(CastOperand { target, is_try, signature }));
    Expr::ScalarFunction(ScalarFunction { func, args: vec![value.clone()] })
}

fn is_nested(kind: &DataType) -> bool {
    kind.is_nested() && !matches!(kind, DataType::Dictionary(..))
}

fn is_text(kind: &DataType) -> bool {
    use DataType::{Binary, BinaryView, LargeBinary, LargeUtf8, Utf8, Utf8View};
    matches!(kind, Utf8 | LargeUtf8 | Utf8View | Binary | LargeBinary | BinaryView)
}

/// Returns true if `test` returns true for a type or for one of the types that it contains.
fn contains(kind: &DataType, test: &impl Fn(&DataType) -> bool) -> bool {
    use DataType::{Dictionary, LargeList, LargeListView, List, ListView, Map, RunEndEncoded, Struct, Union};
    test(kind)
        || match kind {
            List(item) | LargeList(item) | ListView(item) | LargeListView(item) => contains(item.data_type(), test),
            Map(entries, _) => contains(entries.data_type(), test),
            Struct(fields) => fields.iter().any(|field| contains(field.data_type(), test)),
            Union(fields, _) => fields.iter().any(|(_, field)| contains(field.data_type(), test)),
            Dictionary(_, values) => contains(values, test),
            RunEndEncoded(_, values) => contains(values.data_type(), test),
            _ => false,
        }
}

/// Returns true if `function` prepares the operand of a cast.
pub(crate) fn is_cast_operand(function: &ScalarUDF) -> bool {
    function.inner().is::<CastOperand>()
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct CastOperand {
    target: Target,
    /// True for TRY_CAST, which returns NULL for a number that is out of range.
    is_try: bool,
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

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let field = operator_field(self, &args)?;
        Ok(if self.is_try { Arc::new(field.as_ref().clone().with_nullable(true)) } else { field })
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
            DataType::Float64 if self.target == Target::Real => {
                let doubles = array.as_primitive::<Float64Type>();
                if doubles.iter().flatten().all(fits_real) {
                    return Ok(Arc::clone(array));
                }
                let fitting = doubles.iter().map(|double| match double {
                    Some(double) if !fits_real(double) => self.out_of_range(),
                    double => Ok(double),
                });
                Arc::new(fitting.collect::<Result<Float64Array>>()?)
            }
            DataType::Float64 => {
                Arc::new(array.as_primitive::<Float64Type>().unary::<_, Float64Type>(f64::round_ties_even))
            }
            DataType::Utf8 => {
                let texts = array.as_string::<i32>();
                let is_ready = |text: &str| {
                    text.len() <= NUMBER_BYTES_MAX
                        && matches!(number_text(text, self.target), Some(Cow::Borrowed(same)) if same == text)
                };
                if texts.iter().flatten().all(is_ready) {
                    return Ok(Arc::clone(array));
                }
                Arc::new(texts.iter().map(|text| self.text(text)).collect::<Result<StringArray>>()?)
            }
            DataType::LargeUtf8 => {
                let texts = array.as_string::<i64>().iter();
                Arc::new(texts.map(|text| self.text(text)).collect::<Result<LargeStringArray>>()?)
            }
            DataType::Utf8View => {
                let texts = array.as_string_view().iter();
                Arc::new(texts.map(|text| self.text(text)).collect::<Result<StringViewArray>>()?)
            }
            kind if kind.is_nested() || is_text(kind) => {
                check_lengths(&array.to_data())?;
                Arc::clone(array)
            }
            // Reducing the scale of a decimal to 0 rounds half away from zero.
            kind => {
                let options = CastOptions { safe: false, ..CastOptions::default() };
                cast_with_options(array, &self.return_type(std::slice::from_ref(kind))?, &options)?
            }
        })
    }

    fn text<'a>(&self, text: Option<&'a str>) -> Result<Option<Cow<'a, str>>> {
        match text.map(|text| number_text(text, self.target)) {
            None => Ok(None),
            Some(Some(text)) if text.len() <= NUMBER_BYTES_MAX => Ok(Some(text)),
            Some(Some(_)) if self.is_try => Ok(None),
            Some(Some(_)) => Err(too_long()),
            Some(None) => self.out_of_range(),
        }
    }

    /// Returns the result for a number that is out of the range of the target type.
    fn out_of_range<T>(&self) -> Result<Option<T>> {
        let kind = if self.target == Target::Real { "real" } else { "double precision" };
        if self.is_try {
            Ok(None)
        } else {
            Err(DataFusionError::Execution(format!("a number is out of range for type {kind}")))
        }
    }
}

/// Fails if a text in the array or in one of its child arrays is too long for a number.
fn check_lengths(data: &ArrayData) -> Result<()> {
    let lengths: &mut dyn Iterator<Item = usize> = match data.data_type() {
        DataType::Utf8 | DataType::Binary => &mut lengths(data.buffer::<i32>(0)),
        DataType::LargeUtf8 | DataType::LargeBinary => &mut lengths(data.buffer::<i64>(0)),
        DataType::Utf8View | DataType::BinaryView => {
            &mut data.buffer::<u128>(0).iter().map(|view| *view as u32 as usize)
        }
        _ => &mut std::iter::empty(),
    };
    if lengths.take(data.len() + 1).any(|length| length > NUMBER_BYTES_MAX) {
        return Err(too_long());
    }
    data.child_data().iter().try_for_each(check_lengths)
}

fn lengths<O: OffsetSizeTrait>(offsets: &[O]) -> impl Iterator<Item = usize> {
    offsets.windows(2).map(|pair| pair[1].as_usize().saturating_sub(pair[0].as_usize()))
}

fn too_long() -> DataFusionError {
    DataFusionError::Execution(format!("the text of a number is longer than {NUMBER_BYTES_MAX} bytes"))
}
