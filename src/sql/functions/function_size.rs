//! Estimates the size of a function's result from its arguments, before the function is called.
//!
//! For each row, the estimate is an upper bound on the size of the result in bytes.

use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, AsArray as _};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int32Type, Int64Type, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs};

use crate::sql::functions::generate_series::out_of_series;

/// The assumed size of a number or a list slot, in bytes.
const WORD: usize = 16;
/// The maximum size of a UTF-8 character in bytes.
const CHAR_BYTES_MAX: usize = 4;
/// The length of a day in nanoseconds.
const DAY_NANOSECONDS: i64 = 86_400_000_000_000;
/// The number of character comparisons that count as one byte of result size.
const STEPS_PER_BYTE: usize = 16;

/// Describes how the size of a function's result depends on the arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum FunctionSize {
    /// The function repeats its first argument. The second argument is the number of repetitions.
    Repeat,
    /// The function pads its first argument. The second argument is the resulting length.
    Pad,
    /// The function replaces each occurrence of the second argument in the first argument with the third argument.
    Replace,
    /// The function replaces each match of its second argument, a pattern, with its third argument. It replaces all
    /// matches if the flag `g` is set, and otherwise the first match.
    ReplacePattern,
    /// For each element of the list in the first argument, the result can contain a copy of another argument. The
    /// estimate assumes the longest one.
    PerElement,
    /// The result lists the values from the first argument to the second, in steps of the third.
    Range,
    /// The result is the concatenation of all arguments.
    Sum,
    /// The result is the concatenation of the arguments after the first one, with the first argument as the separator.
    Separated,
    /// The result is small, but each character of the first argument is compared with each character of the second. The
    /// comparisons count towards the size limit, to bound the time of a call.
    Product,
}

/// Returns how the result size of `function` depends on its arguments, or `None` if the result is about as large as the
/// arguments.
pub(crate) fn growth(function: &str) -> Option<FunctionSize> {
    Some(match function {
        "repeat" | "array_repeat" => FunctionSize::Repeat,
        "lpad" | "rpad" | "array_resize" => FunctionSize::Pad,
        "replace" => FunctionSize::Replace,
        "regexp_replace" => FunctionSize::ReplacePattern,
        "array_to_string" | "array_replace" | "array_replace_n" | "array_replace_all" => FunctionSize::PerElement,
        "range" | "generate_series" => FunctionSize::Range,
        "concat_ws" => FunctionSize::Separated,
        "concat" | "make_array" | "array_concat" | "array_append" | "array_prepend" | "to_char" | "overlay"
        | "arrays_zip" | "map" => FunctionSize::Sum,
        "levenshtein" | "array_has_all" | "array_has_any" | "btrim" | "ltrim" | "rtrim" | "trim" => {
            FunctionSize::Product
        }
        _ => return None,
    })
}

/// Returns an upper bound on the size of each row's result, in bytes.
pub(crate) fn estimate(growth: FunctionSize, args: &ScalarFunctionArgs) -> Result<Vec<usize>> {
    let arg = |index: usize| args.args.get(index);
    let size = |index: usize| Measure::sizes(arg(index));
    let count = |index: usize| Measure::counts(arg(index));
    let is_list = args.return_field.data_type().is_nested();
    let slot = if is_list { WORD } else { 0 };
    let per_row = |size_of: &dyn Fn(usize) -> usize| (0..args.number_rows).map(size_of).collect();
    Ok(match growth {
        FunctionSize::Repeat => {
            let (value, times) = (size(0), count(1)?);
            per_row(&|row| times.at(row).saturating_mul(value.at(row) + slot))
        }
        FunctionSize::Pad => {
            let (length, fill) = (count(1)?, size(2));
            let each = |row| if is_list { slot + fill.at(row) } else { CHAR_BYTES_MAX };
            per_row(&|row| length.at(row).saturating_mul(each(row)))
        }
        FunctionSize::Replace => {
            let (text, from, to) = (size(0), size(1), size(2));
            let matches = |row| text.at(row) / from.at(row).max(1) + 1;
            per_row(&|row| text.at(row).saturating_add(matches(row).saturating_mul(to.at(row))))
        }
        FunctionSize::ReplacePattern => {
            let (text, to) = (size(0), size(2));
            let has_flags = args.args.len() > 3;
            let matches = |row| if has_flags { text.at(row).saturating_add(1) } else { 1 };
            // A replacement may refer to capture groups (`\1`), and each group can be as long as the text.
            let groups = |row: usize| to.at(row).saturating_mul(text.at(row)) / 2;
            per_row(&|row| {
                text.at(row).saturating_add(matches(row).saturating_mul(to.at(row))).saturating_add(groups(row))
            })
        }
        FunctionSize::PerElement => {
            let (elements, list) = (Measure::elements(arg(0)), size(0));
            let others: Vec<_> = (1..args.args.len()).map(size).collect();
            let longest = |row| others.iter().map(|other| other.at(row)).max().unwrap_or(0);
            per_row(&|row| {
                list.at(row).saturating_add(elements.at(row).saturating_mul(longest(row).saturating_add(WORD)))
            })
        }
        FunctionSize::Range => range(args)?,
        FunctionSize::Sum => {
            let sizes: Vec<_> = (0..args.args.len()).map(size).collect();
            per_row(&|row| sizes.iter().fold(0, |sum: usize, size| sum.saturating_add(size.at(row))))
        }
        FunctionSize::Separated => {
            let sizes: Vec<_> = (0..args.args.len()).map(size).collect();
            let between = |row| sizes.first().map_or(0, |separator| separator.at(row).saturating_mul(sizes.len()));
            per_row(&|row| sizes.iter().fold(between(row), |sum: usize, size| sum.saturating_add(size.at(row))))
        }
        FunctionSize::Product => {
            let (left, right) = (size(0), size(1));
            per_row(&|row| left.at(row).saturating_mul(right.at(row)) / STEPS_PER_BYTE)
        }
    })
}

/// Estimates the size of the list that a function such as `range` returns, from the arguments for its start, end and
/// step. Times are converted to nanoseconds first.
fn range(args: &ScalarFunctionArgs) -> Result<Vec<usize>> {
    let arg = |index: usize| args.args.get(index);
    let (start, stop) = match (arg(0), arg(1)) {
        (Some(stop), None) => (Measure::Same(0), Measure::signed(Some(stop))?),
        (start, stop) => (Measure::signed(start)?, Measure::signed(stop)?),
    };
    let step = arg(2).map_or(Ok(Measure::Same(1)), |step| Measure::signed(Some(step)))?;
    let rows = (0..args.number_rows).map(|row| {
        let distance = i128::from(stop.at(row)) - i128::from(start.at(row));
        let steps = distance.unsigned_abs() / i128::from(step.at(row)).unsigned_abs().max(1) + 1;
        usize::try_from(steps).unwrap_or(usize::MAX).saturating_mul(WORD)
    });
    Ok(rows.collect())
}

/// A number for each row, or a single number for all rows.
pub(crate) enum Measure<N> {
    Same(N),
    Each(Vec<N>),
}

impl<N: Copy> Measure<N> {
    pub(crate) fn at(&self, row: usize) -> N {
        match self {
            Self::Same(number) => *number,
            Self::Each(numbers) => numbers[row],
        }
    }
}

impl Measure<usize> {
    /// Returns the size of each value in bytes. The size of a null is 0.
    pub(crate) fn sizes(value: Option<&ColumnarValue>) -> Self {
        match value {
            None => Self::Same(0),
            Some(ColumnarValue::Scalar(scalar)) => Self::Same(scalar_size(scalar)),
            Some(ColumnarValue::Array(array)) => match array.data_type() {
                DataType::Utf8 => lengths(array.as_string::<i32>().offsets().lengths()),
                DataType::LargeUtf8 => lengths(array.as_string::<i64>().offsets().lengths()),
                DataType::Binary => lengths(array.as_binary::<i32>().offsets().lengths()),
                DataType::LargeBinary => lengths(array.as_binary::<i64>().offsets().lengths()),
                DataType::Utf8View => lengths(array.as_string_view().lengths().map(|length| length as usize)),
                DataType::BinaryView => lengths(array.as_binary_view().lengths().map(|length| length as usize)),
                kind if kind.is_nested() => Self::Same(average_size(array)),
                _ => Self::Same(WORD),
            },
        }
    }

    /// Converts each value to a number of elements or repetitions. Negative numbers and nulls become 0.
    fn counts(value: Option<&ColumnarValue>) -> Result<Self> {
        let count = |number: i64| usize::try_from(number).unwrap_or(0);
        Ok(match Measure::<i64>::signed(value)? {
            Measure::Same(number) => Self::Same(count(number)),
            Measure::Each(numbers) => Self::Each(numbers.into_iter().map(count).collect()),
        })
    }

    /// Returns the number of elements in each list.
    pub(crate) fn elements(value: Option<&ColumnarValue>) -> Self {
        let of = |array: &ArrayRef| match array.data_type() {
            DataType::List(_) => Self::Each(array.as_list::<i32>().offsets().lengths().collect()),
            DataType::LargeList(_) => Self::Each(array.as_list::<i64>().offsets().lengths().collect()),
            _ => Self::Same(average_size(array) / WORD),
        };
        match value {
            None => Self::Same(0),
            Some(ColumnarValue::Array(array)) => of(array),
            Some(ColumnarValue::Scalar(scalar)) => {
                scalar.to_array().map_or(Self::Same(0), |array| Self::Same(of(&array).at(0)))
            }
        }
    }
}

impl Measure<i64> {
    /// Converts each value to a signed integer. Dates, times and intervals are converted to nanoseconds, and other
    /// values are cast. Nulls become 0.
    fn signed(value: Option<&ColumnarValue>) -> Result<Self> {
        Ok(match value {
            None => Self::Same(0),
            Some(ColumnarValue::Scalar(scalar)) => Self::Same(integers(&scalar.to_array()?)?[0]),
            Some(ColumnarValue::Array(array)) => Self::Each(integers(array)?),
        })
    }
}

fn integers(array: &ArrayRef) -> Result<Vec<i64>> {
    let nanoseconds = match array.data_type() {
        DataType::Date32 | DataType::Date64 => {
            let days = cast(&cast(array, &DataType::Date32)?, &DataType::Int32)?;
            let days = days.as_primitive::<Int32Type>().iter();
            return Ok(days.map(|day| i64::from(day.unwrap_or_default()).saturating_mul(DAY_NANOSECONDS)).collect());
        }
        DataType::Timestamp(_, zone) => {
            let kind = DataType::Timestamp(TimeUnit::Nanosecond, zone.clone());
            // The engine's `range` does the same cast, but turns a time that is out of range into NULL.
            let nanoseconds = cast(array, &kind)?;
            if nanoseconds.null_count() > array.null_count() {
                return Err(out_of_series());
            }
            nanoseconds
        }
        DataType::Interval(_) => {
            return (0..array.len())
                .map(|row| interval_nanoseconds(&ScalarValue::try_from_array(array, row)?))
                .collect();
        }
        _ => Arc::clone(array),
    };
    let numbers = cast(&nanoseconds, &DataType::Int64)?;
    Ok(numbers.as_primitive::<Int64Type>().iter().map(Option::unwrap_or_default).collect())
}

/// Returns a lower bound on the length of an interval in nanoseconds. It assumes that a month has 28 days.
fn interval_nanoseconds(value: &ScalarValue) -> Result<i64> {
    Ok(match value {
        ScalarValue::IntervalMonthDayNano(Some(interval)) => {
            let days = i64::from(interval.months).saturating_mul(28).saturating_add(i64::from(interval.days));
            days.saturating_mul(DAY_NANOSECONDS).saturating_add(interval.nanoseconds)
        }
        ScalarValue::IntervalDayTime(Some(interval)) => i64::from(interval.days)
            .saturating_mul(DAY_NANOSECONDS)
            .saturating_add(i64::from(interval.milliseconds).saturating_mul(1_000_000)),
        ScalarValue::IntervalYearMonth(Some(months)) => {
            i64::from(*months).saturating_mul(28).saturating_mul(DAY_NANOSECONDS)
        }
        _ => 0,
    })
}

fn lengths(lengths: impl Iterator<Item = usize>) -> Measure<usize> {
    Measure::Each(lengths.collect())
}

fn scalar_size(scalar: &ScalarValue) -> usize {
    match scalar {
        ScalarValue::Utf8(text) | ScalarValue::LargeUtf8(text) | ScalarValue::Utf8View(text) => {
            text.as_ref().map_or(0, String::len)
        }
        ScalarValue::Binary(bytes) | ScalarValue::LargeBinary(bytes) | ScalarValue::BinaryView(bytes) => {
            bytes.as_ref().map_or(0, Vec::len)
        }
        other => other.size(),
    }
}

/// Returns the average size of a value in bytes. This average is the estimate for each value of a nested type, because
/// the sizes of the individual values are not known.
fn average_size(array: &ArrayRef) -> usize {
    array.to_data().get_slice_memory_size().unwrap_or_else(|_| array.get_array_memory_size()) / array.len().max(1)
        + WORD
}
