//! The SQL function `date_part`. Calls to `extract`, `year`, `second` and similar functions are rewritten to
//! `date_part`.
//!
//! Unlike the engine's `date_part`, this function keeps the fraction of seconds. It splits intervals and timestamp
//! differences as PostgreSQL does. For example, it splits a difference of 53 hours into two days and five hours.

use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, AsArray as _, Float64Array, Int32Array};
use arrow::compute::cast;
use arrow::datatypes::{
    DataType, DurationMicrosecondType, Field, FieldRef, IntervalMonthDayNano, IntervalMonthDayNanoType, IntervalUnit,
    TimeUnit,
};
use datafusion::error::{DataFusionError, Result};
use datafusion::functions::datetime;
use datafusion::logical_expr::preimage::PreimageResult;
use datafusion::logical_expr::simplify::SimplifyContext;
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use crate::clock::{DAY, Micros, SECOND};
use crate::sql::functions::calendar::{Date, Zone, micros, timestamp_type};
use crate::sql::functions::date_trunc::constant_text;
use crate::sql::functions::definition::wrong_arguments;

const USAGE: &str = "date_part('hour', time)";

/// Implements `date_part`.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct DatePart {
    signature: Signature,
    aliases: Vec<String>,
}

impl DatePart {
    pub(super) fn function() -> Arc<ScalarUDF> {
        let signature = Signature::user_defined(Volatility::Immutable);
        Arc::new(ScalarUDF::new_from_impl(Self { signature, aliases: vec!["datepart".to_owned()] }))
    }
}

impl ScalarUDFImpl for DatePart {
    fn name(&self) -> &'static str {
        "date_part"
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, kinds: &[DataType]) -> Result<Vec<DataType>> {
        let [_, from] = kinds else { return Err(wrong_arguments(self.name(), USAGE)) };
        let from = match from {
            DataType::Date32 | DataType::Date64 => DataType::Date32,
            DataType::Time32(_) | DataType::Time64(_) => from.clone(),
            DataType::Interval(_) => DataType::Interval(IntervalUnit::MonthDayNano),
            DataType::Duration(_) => DataType::Duration(TimeUnit::Microsecond),
            from => timestamp_type(from).ok_or_else(|| wrong_arguments(self.name(), USAGE))?,
        };
        Ok(vec![DataType::Utf8, from])
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Err(DataFusionError::Internal("the type depends on the part".to_owned()))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let part = args.scalar_arguments.first().copied().flatten().and_then(|part| part.try_as_str().flatten());
        Ok(Arc::new(Field::new(self.name(), Part::parse(part)?.data_type(), true)))
    }

    fn preimage(&self, args: &[Expr], value: &Expr, info: &SimplifyContext) -> Result<PreimageResult> {
        datetime::date_part().inner().preimage(args, value, info)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let part = Part::parse(constant_text(args.args.first()))?;
        let (from, rows) = (&args.args[1], args.number_rows);
        let array: ArrayRef = match from.data_type() {
            DataType::Interval(_) | DataType::Duration(_) => part.of_intervals(&from.clone().into_array(rows)?)?,
            kind @ (DataType::Timestamp(_, _) | DataType::Date32) if part.is_own() => {
                let zone = Zone::of(&kind)?;
                let times = micros(from, rows)?;
                match part.data_type() {
                    DataType::Float64 => {
                        Arc::new(times.try_unary::<_, arrow::datatypes::Float64Type, DataFusionError>(|time| {
                            Ok(part.fraction(time, if part == Part::Epoch { time } else { zone.local(time)? }))
                        })?)
                    }
                    _ => Arc::new(times.try_unary::<_, arrow::datatypes::Int32Type, DataFusionError>(|time| {
                        Ok(part.years(Date::at(zone.local(time)?).year) as i32)
                    })?),
                }
            }
            DataType::Time32(_) | DataType::Time64(_)
                if matches!(part, Part::Second | Part::Millisecond | Part::Epoch) =>
            {
                let time = cast(&from.clone().into_array(rows)?, &DataType::Time64(TimeUnit::Microsecond))?;
                let time = time.as_primitive::<arrow::datatypes::Time64MicrosecondType>();
                Arc::new(time.unary::<_, arrow::datatypes::Float64Type>(|time| part.fraction(time, time)))
            }
            _ => return datetime::date_part().inner().invoke_with_args(args),
        };
        Ok(ColumnarValue::Array(array))
    }
}

/// The field to extract from a time or an interval.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Part {
    Epoch,
    Second,
    Millisecond,
    Microsecond,
    Nanosecond,
    Minute,
    Hour,
    Day,
    Month,
    Quarter,
    Year,
    Decade,
    Century,
    Millennium,
    /// A field that dates and timestamps have but intervals do not, such as the day of the week.
    OfDate(String),
}

impl Part {
    fn parse(name: Option<&str>) -> Result<Self> {
        let name =
            name.ok_or_else(|| DataFusionError::Plan("the part of `date_part` must be a constant".to_owned()))?;
        let name = name.trim_matches(['\'', '"']).to_ascii_lowercase();
        Ok(match name.strip_suffix('s').unwrap_or(&name) {
            "epoch" => Self::Epoch,
            "second" | "sec" => Self::Second,
            "millisecond" | "m" | "msec" => Self::Millisecond,
            "microsecond" | "u" | "usec" => Self::Microsecond,
            "nanosecond" | "n" | "nsec" => Self::Nanosecond,
            "minute" | "min" => Self::Minute,
            "hour" | "hr" => Self::Hour,
            "day" => Self::Day,
            "month" | "mon" => Self::Month,
            "quarter" | "qtr" => Self::Quarter,
            "year" | "yr" => Self::Year,
            "decade" => Self::Decade,
            "century" | "centurie" => Self::Century,
            "millennium" => Self::Millennium,
            _ => Self::OfDate(name),
        })
    }

    fn data_type(&self) -> DataType {
        match self {
            Self::Epoch | Self::Second | Self::Millisecond => DataType::Float64,
            Self::Nanosecond => DataType::Int64,
            _ => DataType::Int32,
        }
    }

    /// Returns true if this file computes the field of a timestamp, and false if the engine's function computes it.
    fn is_own(&self) -> bool {
        use Part::{Century, Decade, Epoch, Millennium, Millisecond, Second};
        matches!(self, Epoch | Second | Millisecond | Decade | Century | Millennium)
    }

    /// Returns the value of a field whose values can have a fraction.
    fn fraction(&self, time: Micros, local: Micros) -> f64 {
        match self {
            Self::Epoch => seconds(time),
            Self::Millisecond => local.rem_euclid(60 * SECOND) as f64 / 1e3,
            _ => local.rem_euclid(60 * SECOND) as f64 / 1e6,
        }
    }

    /// Returns the decade, century or millennium of a year. The first century begins in the year 1.
    fn years(&self, year: i64) -> i64 {
        match self {
            Self::Decade => year.div_euclid(10),
            Self::Century => (year - 1).div_euclid(100) + 1,
            _ => (year - 1).div_euclid(1_000) + 1,
        }
    }

    fn of_intervals(&self, array: &ArrayRef) -> Result<ArrayRef> {
        if let Self::OfDate(name) = self {
            return Err(DataFusionError::Plan(format!("an interval has no part `{name}`: use a timestamp or a date")));
        }
        let parts: Vec<Option<Fields>> = match array.data_type() {
            DataType::Duration(_) => array
                .as_primitive::<DurationMicrosecondType>()
                .iter()
                .map(|time| time.map(Fields::of_duration))
                .collect(),
            _ => array
                .as_primitive::<IntervalMonthDayNanoType>()
                .iter()
                .map(|time| time.map(Fields::of_interval))
                .collect(),
        };
        Ok(match self.data_type() {
            DataType::Float64 => Arc::new(Float64Array::from_iter(
                parts.into_iter().map(|parts| parts.map(|parts| parts.fraction(self))),
            )),
            DataType::Int64 => Arc::new(arrow::array::Int64Array::from_iter(
                parts.into_iter().map(|parts| parts.map(|parts| parts.micros % (60 * SECOND) * 1_000)),
            )),
            _ => {
                let parts = parts.into_iter().map(|parts| {
                    parts
                        .map(|parts| i32::try_from(parts.whole(self)))
                        .transpose()
                        .map_err(|_| DataFusionError::Execution("a part of an interval is out of range".to_owned()))
                });
                Arc::new(parts.collect::<Result<Int32Array>>()?)
            }
        })
    }
}

/// Converts microseconds to seconds.
fn seconds(micros: Micros) -> f64 {
    micros as f64 / 1e6
}

/// An interval in months, days and microseconds.
struct Fields {
    months: i64,
    days: i64,
    micros: Micros,
}

impl Fields {
    fn of_interval(interval: IntervalMonthDayNano) -> Self {
        let IntervalMonthDayNano { months, days, nanoseconds } = interval;
        Self { months: months.into(), days: days.into(), micros: nanoseconds / 1_000 }
    }

    /// Splits the difference between two timestamps into days and a time of day, as PostgreSQL does.
    fn of_duration(micros: Micros) -> Self {
        Self { months: 0, days: micros / DAY, micros: micros % DAY }
    }

    fn fraction(&self, part: &Part) -> f64 {
        match part {
            Part::Epoch => {
                // Like PostgreSQL, counts a year as 365.25 days and a month as 30 days.
                let days = self.months / 12 * 1_461 * 6 + (self.months % 12 * 30 + self.days) * 24;
                days as f64 * 3_600.0 + seconds(self.micros)
            }
            Part::Millisecond => (self.micros % (60 * SECOND)) as f64 / 1e3,
            _ => (self.micros % (60 * SECOND)) as f64 / 1e6,
        }
    }

    fn whole(&self, part: &Part) -> i64 {
        let years = self.months / 12;
        match part {
            Part::Microsecond => self.micros % (60 * SECOND),
            Part::Minute => self.micros / (60 * SECOND) % 60,
            Part::Hour => self.micros / (3_600 * SECOND),
            Part::Day => self.days,
            Part::Month => self.months % 12,
            Part::Quarter => self.months % 12 / 3 + 1,
            Part::Year => years,
            Part::Decade => years / 10,
            Part::Century => years / 100,
            _ => years / 1_000,
        }
    }
}
