//! How large the result of a function will be, told from its arguments before it is called.
//!
//! In: a call's arguments. Out: bytes per row, or a little more: never less than what the function will make.

use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, AsArray as _};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::error::Result;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs};

/// What a number, or the place of a value in a list, is counted as.
const WORD: usize = 16;
/// The bytes of a letter, at most.
const LETTER: usize = 4;
/// Steps of an edit distance that are counted as one byte.
const STEPS_PER_BYTE: usize = 16;

/// How the size of a result follows from the arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(in crate::query) enum FunctionSize {
    /// The first argument, as often as the second says.
    Repeat,
    /// As long as the second argument says.
    Pad,
    /// Each find of the second argument in the first becomes the third.
    Replace,
    /// The same for a pattern, at every place with the flag `g`.
    ReplacePattern,
    /// Each element of the first argument, and the longest other argument beside it.
    PerElement,
    /// From the first argument to the second by steps of the third.
    Range,
    /// All arguments together.
    Sum,
    /// All arguments together, and the first between any two of them.
    Separated,
    /// Work, not bytes: each letter of the first with each of the second.
    Product,
}

/// How the result of `function` grows; `None` when it is about as large as its arguments.
pub(in crate::query) fn growth(function: &str) -> Option<FunctionSize> {
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
        "levenshtein" => FunctionSize::Product,
        _ => return None,
    })
}

/// The size of each row's result in bytes, or a little more.
pub(in crate::query) fn estimate(growth: FunctionSize, args: &ScalarFunctionArgs) -> Result<Vec<usize>> {
    let arg = |place: usize| args.args.get(place);
    let size = |place: usize| Measure::sizes(arg(place));
    let count = |place: usize| Measure::numbers(arg(place));
    let is_list = args.return_field.data_type().is_nested();
    let place = if is_list { WORD } else { 0 };
    let per_row = |size_of: &dyn Fn(usize) -> usize| (0..args.number_rows).map(size_of).collect();
    Ok(match growth {
        FunctionSize::Repeat => {
            let (value, times) = (size(0), count(1)?);
            per_row(&|row| times.at(row).saturating_mul(value.at(row) + place))
        }
        FunctionSize::Pad => {
            let (length, fill) = (count(1)?, size(2));
            let each = |row| if is_list { place + fill.at(row) } else { LETTER };
            per_row(&|row| length.at(row).saturating_mul(each(row)))
        }
        FunctionSize::Replace => {
            let (text, from, to) = (size(0), size(1), size(2));
            let finds = |row| text.at(row) / from.at(row).max(1) + 1;
            per_row(&|row| text.at(row).saturating_add(finds(row).saturating_mul(to.at(row))))
        }
        FunctionSize::ReplacePattern => {
            let (text, to) = (size(0), size(2));
            let everywhere = args.args.len() > 3;
            let finds = |row| if everywhere { text.at(row).saturating_add(1) } else { 1 };
            // A replacement may name groups (`\1`), each of which can be as long as the text.
            let groups = |row: usize| to.at(row).saturating_mul(text.at(row)) / 2;
            per_row(&|row| {
                text.at(row).saturating_add(finds(row).saturating_mul(to.at(row))).saturating_add(groups(row))
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

/// From, to and step as numbers; of times as nanoseconds.
fn range(args: &ScalarFunctionArgs) -> Result<Vec<usize>> {
    let nth = |place: usize| args.args.get(place);
    let (start, stop) = match (nth(0), nth(1)) {
        (Some(stop), None) => (Measure::Same(0), Measure::signed(Some(stop))?),
        (start, stop) => (Measure::signed(start)?, Measure::signed(stop)?),
    };
    let step = nth(2).map_or(Ok(Measure::Same(1)), |step| Measure::signed(Some(step)))?;
    let rows = (0..args.number_rows).map(|row| {
        let span = i128::from(stop.at(row)) - i128::from(start.at(row));
        let steps = span.unsigned_abs() / i128::from(step.at(row)).unsigned_abs().max(1) + 1;
        usize::try_from(steps).unwrap_or(usize::MAX).saturating_mul(WORD)
    });
    Ok(rows.collect())
}

/// One number per row, or the same for all.
enum Measure<N> {
    Same(N),
    Each(Vec<N>),
}

impl<N: Copy> Measure<N> {
    fn at(&self, row: usize) -> N {
        match self {
            Self::Same(number) => *number,
            Self::Each(numbers) => numbers[row],
        }
    }
}

impl Measure<usize> {
    /// The bytes of each value; nothing is nothing.
    fn sizes(value: Option<&ColumnarValue>) -> Self {
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
                kind if kind.is_nested() => Self::Same(average(array)),
                _ => Self::Same(WORD),
            },
        }
    }

    /// How many times; negative and null are none.
    fn numbers(value: Option<&ColumnarValue>) -> Result<Self> {
        let times = |number: i64| usize::try_from(number).unwrap_or(0);
        Ok(match Measure::<i64>::signed(value)? {
            Measure::Same(number) => Self::Same(times(number)),
            Measure::Each(numbers) => Self::Each(numbers.into_iter().map(times).collect()),
        })
    }

    /// The elements of each list.
    fn elements(value: Option<&ColumnarValue>) -> Self {
        let of = |array: &ArrayRef| match array.data_type() {
            DataType::List(_) => Self::Each(array.as_list::<i32>().offsets().lengths().collect()),
            DataType::LargeList(_) => Self::Each(array.as_list::<i64>().offsets().lengths().collect()),
            _ => Self::Same(average(array) / WORD),
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
    /// Whole numbers; days, times and intervals as nanoseconds; null and everything else as 0.
    fn signed(value: Option<&ColumnarValue>) -> Result<Self> {
        Ok(match value {
            None => Self::Same(0),
            Some(ColumnarValue::Scalar(scalar)) => Self::Same(whole(&scalar.to_array()?)?[0]),
            Some(ColumnarValue::Array(array)) => Self::Each(whole(array)?),
        })
    }
}

fn whole(array: &ArrayRef) -> Result<Vec<i64>> {
    let nanoseconds = match array.data_type() {
        DataType::Date32 | DataType::Date64 | DataType::Timestamp(_, _) => {
            cast(array, &DataType::Timestamp(TimeUnit::Nanosecond, None))?
        }
        DataType::Interval(_) => {
            return (0..array.len()).map(|row| interval(&ScalarValue::try_from_array(array, row)?)).collect();
        }
        _ => Arc::clone(array),
    };
    let numbers = cast(&nanoseconds, &DataType::Int64)?;
    Ok(numbers.as_primitive::<Int64Type>().iter().map(Option::unwrap_or_default).collect())
}

/// The least nanoseconds of an interval: a month has 28 days.
fn interval(value: &ScalarValue) -> Result<i64> {
    const DAY: i64 = 86_400_000_000_000;
    Ok(match value {
        ScalarValue::IntervalMonthDayNano(Some(interval)) => {
            let days = i64::from(interval.months).saturating_mul(28).saturating_add(i64::from(interval.days));
            days.saturating_mul(DAY).saturating_add(interval.nanoseconds)
        }
        ScalarValue::IntervalDayTime(Some(interval)) => i64::from(interval.days)
            .saturating_mul(DAY)
            .saturating_add(i64::from(interval.milliseconds).saturating_mul(1_000_000)),
        ScalarValue::IntervalYearMonth(Some(months)) => i64::from(*months).saturating_mul(28).saturating_mul(DAY),
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

/// The bytes of a row, on average, where they cannot be told one by one.
fn average(array: &ArrayRef) -> usize {
    array.to_data().get_slice_memory_size().unwrap_or_else(|_| array.get_array_memory_size()) / array.len().max(1)
        + WORD
}
