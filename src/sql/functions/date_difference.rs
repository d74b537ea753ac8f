//! The functions `date_diff`, `age` and `last_day`.

use std::sync::Arc;

use arrow::array::{Date32Array, Int64Array, IntervalMonthDayNanoArray};
use arrow::datatypes::{DataType, IntervalMonthDayNano, IntervalUnit};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs};

use crate::clock::{DAY, Micros};
use crate::sql::functions::calendar::{Date, Zone, micros, out_of_range, timestamp_type};
use crate::sql::functions::date_trunc::{Unit, constant_text};
use crate::sql::functions::definition::{FunctionDefinition, unordered, wrong_arguments};

/// The function `date_diff(unit, from, to)`, which counts the unit boundaries between two times.
pub(super) const DATE_DIFF: FunctionDefinition = FunctionDefinition {
    name: "date_diff",
    coerce: |kinds| match kinds {
        [_, from, to] => match (timestamp_type(from), timestamp_type(to)) {
            (Some(from), Some(to)) => Ok(vec![DataType::Utf8, from, to]),
            _ => Err(wrong_arguments("date_diff", "date_diff('day', from, to)")),
        },
        _ => Err(wrong_arguments("date_diff", "date_diff('day', from, to)")),
    },
    returns: |_, _| Ok(DataType::Int64),
    call: date_diff,
    ordering: unordered,
    keeps_name: false,
};

/// The function `age(to, from)`: the difference in years, months, days and time of day.
pub(super) const AGE: FunctionDefinition = FunctionDefinition {
    name: "age",
    coerce: |kinds| match kinds {
        [to, from] => match (timestamp_type(to), timestamp_type(from)) {
            (Some(to), Some(from)) => Ok(vec![to, from]),
            _ => Err(wrong_arguments("age", "age(to, from)")),
        },
        _ => Err(wrong_arguments("age", "age(to, from)")),
    },
    returns: |_, _| Ok(DataType::Interval(IntervalUnit::MonthDayNano)),
    call: age,
    ordering: unordered,
    keeps_name: false,
};

/// The function `last_day(time)`: the last day of the month.
pub(super) const LAST_DAY: FunctionDefinition = FunctionDefinition {
    name: "last_day",
    coerce: |kinds| match kinds {
        [time] => Ok(vec![timestamp_type(time).ok_or_else(|| wrong_arguments("last_day", "last_day(date)"))?]),
        _ => Err(wrong_arguments("last_day", "last_day(date)")),
    },
    returns: |_, _| Ok(DataType::Date32),
    call: last_day,
    ordering: unordered,
    keeps_name: false,
};

/// Converts the two times of each row to local time, calls `each` with them, and returns the results.
fn pairs<T>(
    args: &ScalarFunctionArgs,
    first: usize,
    each: impl Fn(Micros, Micros) -> Result<T>,
) -> Result<Vec<Option<T>>> {
    let (left, right) = (&args.args[first], &args.args[first + 1]);
    let (left_zone, right_zone) = (Zone::of(&left.data_type())?, Zone::of(&right.data_type())?);
    let (left, right) = (micros(left, args.number_rows)?, micros(right, args.number_rows)?);
    let pairs = left.iter().zip(right.iter()).map(|(left, right)| match (left, right) {
        (Some(left), Some(right)) => each(left_zone.local(left)?, right_zone.local(right)?).map(Some),
        _ => Ok(None),
    });
    pairs.collect()
}

fn date_diff(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let name = constant_text(args.args.first())
        .ok_or_else(|| DataFusionError::Plan("the unit of `date_diff` must be a constant string".to_owned()))?;
    let unit = Unit::require(name, "date_diff")?;
    let numbers = pairs(args, 1, |from, to| unit.number(to).checked_sub(unit.number(from)).ok_or_else(out_of_range))?;
    Ok(ColumnarValue::Array(Arc::new(Int64Array::from(numbers))))
}

fn age(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let ages = pairs(args, 0, age_of)?;
    Ok(ColumnarValue::Array(Arc::new(IntervalMonthDayNanoArray::from(ages))))
}

/// Subtracts two times field by field. Like PostgreSQL, borrows days from the month of the earlier time.
fn age_of(to: Micros, from: Micros) -> Result<IntervalMonthDayNano> {
    let (sign, earlier, later) = if to < from { (-1, to, from) } else { (1, from, to) };
    let (start, end) = (Date::at(earlier), Date::at(later));
    let mut months = end.month_number() - start.month_number();
    let mut days = end.day - start.day;
    let mut time = later.rem_euclid(DAY) - earlier.rem_euclid(DAY);
    if time < 0 {
        time += DAY;
        days -= 1;
    }
    if days < 0 {
        days += start.days_in_month();
        months -= 1;
    }
    let months = i32::try_from(sign * months).map_err(|_| out_of_range())?;
    let days = i32::try_from(sign * days).map_err(|_| out_of_range())?;
    Ok(IntervalMonthDayNano::new(months, days, sign * time * 1_000))
}

fn last_day(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let zone = Zone::of(&args.args[0].data_type())?;
    let times = micros(&args.args[0], args.number_rows)?;
    let days = times.iter().map(|time| {
        let last = |time| {
            let date = Date::at(zone.local(time)?);
            let last = Date { day: date.days_in_month(), ..date };
            i32::try_from(last.day_number()).map_err(|_| out_of_range())
        };
        time.map(last).transpose()
    });
    Ok(ColumnarValue::Array(Arc::new(days.collect::<Result<Date32Array>>()?)))
}
