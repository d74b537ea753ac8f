//! The functions `date_trunc`, `date_bin` and `time_bucket`. All computations are in microseconds.
//!
//! In a time zone other than UTC, the result of truncation to a unit shorter than a day has the same UTC offset as the
//! input. A day or a longer unit begins at local midnight. If a clock change skips midnight, the unit begins at the
//! first instant after the gap.

use std::sync::Arc;

use arrow::array::TimestampMicrosecondArray;
use arrow::datatypes::{DataType, IntervalMonthDayNano, IntervalUnit, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::functions::datetime;
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs};

use crate::clock::{DAY, Micros, SECOND};
use crate::sql::functions::calendar::{Date, Zone, is_utc, micros, out_of_range, timestamp_type};
use crate::sql::functions::definition::{FunctionDefinition, wrong_arguments};

/// The function `date_trunc(unit, time)`.
pub(super) const DATE_TRUNC: FunctionDefinition = FunctionDefinition {
    name: "date_trunc",
    coerce: |kinds| match kinds {
        [_, time] if is_time_of_day(time) => Ok(vec![DataType::Utf8, time.clone()]),
        [_, time] => {
            let time = timestamp_type(time).ok_or_else(|| wrong_arguments("date_trunc", TRUNC))?;
            Ok(vec![DataType::Utf8, time])
        }
        _ => Err(wrong_arguments("date_trunc", TRUNC)),
    },
    returns: |kinds, _| kinds.get(1).cloned().ok_or_else(|| wrong_arguments("date_trunc", TRUNC)),
    call: date_trunc,
    ordering: trunc_ordering,
    keeps_name: false,
};

/// The function `date_bin(stride, time [, origin])`. The origin defaults to 1970-01-01.
pub(super) const DATE_BIN: FunctionDefinition = FunctionDefinition {
    name: "date_bin",
    coerce: coerce_bin,
    returns: |kinds, _| kinds.get(1).cloned().ok_or_else(|| wrong_arguments("date_bin", BIN)),
    call: |args| date_bin(args, |_| 0),
    ordering: bin_ordering,
    keeps_name: false,
};

/// The function `time_bucket(stride, time [, origin])`. It differs from `date_bin` only in the default origin, which is
/// 2000-01-01 if the stride is in months, and otherwise 2000-01-03, a Monday.
pub(super) const TIME_BUCKET: FunctionDefinition = FunctionDefinition {
    name: "time_bucket",
    coerce: coerce_bin,
    call: |args| date_bin(args, |stride| if matches!(stride, Stride::Months(_)) { Y2000 } else { Y2000 + 2 * DAY }),
    ..DATE_BIN
};

const TRUNC: &str = "date_trunc('day', time)";
const BIN: &str = "date_bin(INTERVAL '15 minutes', time) or date_bin(INTERVAL '15 minutes', time, origin)";
/// The time 2000-01-01T00:00:00Z, a Saturday.
const Y2000: Micros = 946_684_800 * SECOND;

/// A unit of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unit {
    /// A unit of at most one day. The value is its length in microseconds.
    Fixed(Micros),
    Week,
    /// A unit of one or more months, such as a quarter. The first unit of a year begins in January.
    Months(i64),
    /// A unit of several years, counted from the year 1: a century or a millennium.
    YearsFromOne(i64),
}

impl Unit {
    /// Parses a name such as `day`, `days` or `DAY`.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let name = name.trim().to_ascii_lowercase();
        Some(match name.strip_suffix('s').unwrap_or(&name) {
            "microsecond" | "u" | "usec" => Self::Fixed(1),
            "millisecond" | "m" | "msec" => Self::Fixed(1_000),
            "second" | "sec" => Self::Fixed(SECOND),
            "minute" | "min" => Self::Fixed(60 * SECOND),
            "hour" => Self::Fixed(3_600 * SECOND),
            "day" => Self::Fixed(DAY),
            "week" => Self::Week,
            "month" | "mon" => Self::Months(1),
            "quarter" => Self::Months(3),
            "year" => Self::Months(12),
            "decade" => Self::Months(120),
            "century" | "centurie" => Self::YearsFromOne(100),
            "millennium" | "millennia" => Self::YearsFromOne(1_000),
            _ => return None,
        })
    }

    /// Returns the unit with the given name, or an error that lists the known units.
    pub(super) fn require(name: &str, function: &str) -> Result<Self> {
        Self::parse(name).ok_or_else(|| {
            DataFusionError::Plan(format!(
                "unknown unit `{name}` in `{function}`: use microsecond, millisecond, second, minute, hour, day, week, \
                 month, quarter, year, decade, century or millennium"
            ))
        })
    }

    /// Returns the index of the unit that contains a local time. Consecutive units have consecutive indexes.
    pub(super) fn number(self, local: Micros) -> i64 {
        match self {
            Self::Fixed(length) => local.div_euclid(length),
            // Add 3, because weeks begin on Monday, and 1970-01-01 was a Thursday.
            Self::Week => (local.div_euclid(DAY) + 3).div_euclid(7),
            Self::Months(months) => Date::at(local).month_number().div_euclid(months),
            Self::YearsFromOne(years) => (Date::at(local).year - 1).div_euclid(years),
        }
    }

    /// Returns the start of the unit that contains a local time.
    fn start(self, local: Micros) -> Result<Micros> {
        let number = self.number(local);
        match self {
            Self::Fixed(length) => number.checked_mul(length).ok_or_else(out_of_range),
            Self::Week => (number * 7 - 3).checked_mul(DAY).ok_or_else(out_of_range),
            Self::Months(months) => Date::of_month(number * months).start(),
            Self::YearsFromOne(years) => Date { year: number * years + 1, month: 1, day: 1 }.start(),
        }
    }

    fn truncate(self, instant: Micros, zone: Zone) -> Result<Micros> {
        if zone.is_utc() {
            return self.start(instant);
        }
        let offset = zone.offset(instant)?;
        let start = self.start(instant.checked_add(offset).ok_or_else(out_of_range)?)?;
        match self {
            Self::Fixed(length) if length < DAY => start.checked_sub(offset).ok_or_else(out_of_range),
            _ => zone.instant(start),
        }
    }
}

fn is_time_of_day(kind: &DataType) -> bool {
    matches!(kind, DataType::Time32(_) | DataType::Time64(_))
}

/// Returns the value of a constant text argument, or `None` if the argument is not constant or is NULL.
pub(super) fn constant_text(value: Option<&ColumnarValue>) -> Option<&str> {
    match value {
        Some(ColumnarValue::Scalar(scalar)) => scalar.try_as_str().flatten(),
        _ => None,
    }
}

fn date_trunc(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    if is_time_of_day(&args.args[1].data_type()) {
        return datetime::date_trunc().inner().invoke_with_args(args.clone());
    }
    let name = constant_text(args.args.first())
        .ok_or_else(|| DataFusionError::Plan("the unit of `date_trunc` must be a constant string".to_owned()))?;
    let unit = Unit::require(name, "date_trunc")?;
    map_times(args, |instant, zone| unit.truncate(instant, zone))
}

/// Applies `each` to the timestamps in the second argument, and returns timestamps of the same type.
fn map_times(args: &ScalarFunctionArgs, each: impl Fn(Micros, Zone) -> Result<Micros>) -> Result<ColumnarValue> {
    let kind = args.args[1].data_type();
    let zone = Zone::of(&kind)?;
    let times = micros(&args.args[1], args.number_rows)?;
    let starts: TimestampMicrosecondArray = times.try_unary(|instant| each(instant, zone))?;
    let name = match kind {
        DataType::Timestamp(_, name) => name,
        _ => None,
    };
    Ok(ColumnarValue::Array(Arc::new(starts.with_timezone_opt(name))))
}

/// Truncation keeps the order of instants in UTC. In any other time zone, it can reverse the order of two instants.
fn trunc_ordering(input: &[ExprProperties]) -> SortProperties {
    let [unit, time] = input else { return SortProperties::Unordered };
    let is_utc = match time.range.data_type() {
        DataType::Timestamp(_, zone) => zone.is_none_or(|zone| is_utc(&zone)),
        _ => true,
    };
    if is_utc && unit.sort_properties == SortProperties::Singleton {
        time.sort_properties
    } else {
        SortProperties::Unordered
    }
}

fn bin_ordering(input: &[ExprProperties]) -> SortProperties {
    let is_constant = |part: &ExprProperties| part.sort_properties == SortProperties::Singleton;
    match input {
        [stride, time] if is_constant(stride) => time.sort_properties,
        [stride, time, origin] if is_constant(stride) && is_constant(origin) => time.sort_properties,
        _ => SortProperties::Unordered,
    }
}

fn coerce_bin(kinds: &[DataType]) -> Result<Vec<DataType>> {
    let [_, time, origin @ ..] = kinds else { return Err(wrong_arguments("date_bin", BIN)) };
    let stride = DataType::Interval(IntervalUnit::MonthDayNano);
    let time = match time {
        time if is_time_of_day(time) => DataType::Time64(TimeUnit::Nanosecond),
        time => timestamp_type(time).ok_or_else(|| wrong_arguments("date_bin", BIN))?,
    };
    match origin {
        [] => Ok(vec![stride, time]),
        [_] => Ok(vec![stride, time.clone(), time]),
        _ => Err(wrong_arguments("date_bin", BIN)),
    }
}

/// The length of a bin of `date_bin` or `time_bucket`.
#[derive(Clone, Copy)]
enum Stride {
    Micros(Micros),
    Months(i64),
}

impl Stride {
    fn new(interval: IntervalMonthDayNano) -> Result<Self> {
        let invalid = |text: &str| DataFusionError::Plan(format!("the stride of `date_bin` must {text}"));
        let IntervalMonthDayNano { months, days, nanoseconds } = interval;
        if months != 0 && (days != 0 || nanoseconds != 0) {
            return Err(invalid("not mix months with days or times"));
        }
        if nanoseconds % 1_000 != 0 {
            return Err(invalid("be a whole number of microseconds"));
        }
        let micros = i64::from(days).checked_mul(DAY).and_then(|days| days.checked_add(nanoseconds / 1_000));
        match micros.ok_or_else(out_of_range)? {
            0 if months > 0 => Ok(Self::Months(months.into())),
            micros if micros > 0 => Ok(Self::Micros(micros)),
            _ => Err(invalid("be greater than zero")),
        }
    }

    /// Returns the start of the bin that contains a time.
    fn start(self, time: Micros, origin: Micros) -> Result<Micros> {
        match self {
            Self::Micros(stride) => {
                let start = (i128::from(time) - i128::from(origin)).div_euclid(stride.into()) * i128::from(stride)
                    + i128::from(origin);
                i64::try_from(start).map_err(|_| out_of_range())
            }
            Self::Months(stride) => {
                let first = Date::at(origin);
                let distance = Date::at(time).month_number() - first.month_number();
                let at = |bin: i64| -> Result<Micros> {
                    let month = Date::of_month(first.month_number() + bin * stride);
                    let date = Date { day: first.day.min(month.days_in_month()), ..month };
                    date.start()?.checked_add(origin.rem_euclid(DAY)).ok_or_else(out_of_range)
                };
                let bin = distance.div_euclid(stride);
                let start = at(bin)?;
                if start > time { at(bin - 1) } else { Ok(start) }
            }
        }
    }
}

fn date_bin(args: &ScalarFunctionArgs, default_origin: fn(Stride) -> Micros) -> Result<ColumnarValue> {
    let time = &args.args[1];
    if is_time_of_day(&time.data_type()) {
        return datetime::date_bin().inner().invoke_with_args(args.clone());
    }
    let stride = match &args.args[0] {
        ColumnarValue::Scalar(ScalarValue::IntervalMonthDayNano(Some(interval))) => Stride::new(*interval)?,
        ColumnarValue::Scalar(scalar) if scalar.is_null() => {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from(&time.data_type())?));
        }
        _ => return Err(DataFusionError::Plan("the stride of `date_bin` must be a constant interval".to_owned())),
    };
    let origin = match args.args.get(2) {
        None => default_origin(stride),
        Some(ColumnarValue::Scalar(ScalarValue::TimestampMicrosecond(Some(origin), _))) => *origin,
        Some(ColumnarValue::Scalar(scalar)) if scalar.is_null() => {
            return Ok(ColumnarValue::Scalar(ScalarValue::try_from(&time.data_type())?));
        }
        Some(_) => return Err(DataFusionError::Plan("the origin of `date_bin` must be a constant".to_owned())),
    };
    map_times(args, |time, _| stride.start(time, origin))
}
