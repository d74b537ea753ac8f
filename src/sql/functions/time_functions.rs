//! Replaces the engine's time functions that convert their arguments to nanoseconds, and adds functions that the engine
//! does not have.
//!
//! | function | difference from the engine |
//! |---|---|
//! | `now`, `to_timestamp` | return microseconds |
//! | `to_timestamp`, `to_date` with a format | accept PostgreSQL's patterns |
//! | `date_trunc`, `date_bin`, `date_part`, `to_char` | work in all years that ingest accepts |
//! | `at_time_zone` | is used for `AT TIME ZONE`, which the engine plans as a cast to nanoseconds |
//! | `age`, `date_diff`, `last_day`, `time_bucket`, `div` | are new |
//! | `like_pattern`, `similar_to_pattern` | are new; `LIKE … ESCAPE` and `SIMILAR TO` are rewritten to use them |

use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray as _, Date32Array, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Field, FieldRef, Float64Type, TimeUnit};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::functions::datetime;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::prelude::SessionConfig;

use crate::clock::{DAY, Micros};
use crate::sql::functions::calendar::{Zone, micros, out_of_range, timestamp_type};
use crate::sql::functions::date_part::DatePart;
use crate::sql::functions::definition::{FunctionDefinition, unordered, wrong_arguments};
use crate::sql::functions::{date_difference, date_trunc, division, text_patterns, time_parsing, to_char};

/// Replaces some of `functions` with our own versions, and adds functions that the engine does not have.
pub(crate) fn with_time_functions(functions: Vec<Arc<ScalarUDF>>) -> Vec<Arc<ScalarUDF>> {
    let own = [
        date_trunc::DATE_TRUNC,
        date_trunc::DATE_BIN,
        date_trunc::TIME_BUCKET,
        date_difference::DATE_DIFF,
        date_difference::AGE,
        date_difference::LAST_DAY,
        to_char::TO_CHAR,
        text_patterns::LIKE_PATTERN,
        text_patterns::SIMILAR_TO_PATTERN,
        division::DIV,
        AT_TIME_ZONE,
        TO_TIMESTAMP,
        TO_DATE,
    ];
    let own = own.into_iter().map(FunctionDefinition::function).chain([DatePart::function(), Now::function()]);
    let own: Vec<_> = own.map(with_aliases).collect();
    let is_replaced = |function: &Arc<ScalarUDF>| own.iter().any(|own| own.name() == function.name());
    let mut all: Vec<_> = functions.into_iter().filter(|function| !is_replaced(function)).map(with_aliases).collect();
    all.extend(own);
    all
}

/// Adds aliases to a function: the names that it has in other databases.
fn with_aliases(function: Arc<ScalarUDF>) -> Arc<ScalarUDF> {
    let aliases: &[&str] = match function.name() {
        "ceil" => &["ceiling"],
        "signum" => &["sign"],
        "character_length" => &["len"],
        "date_diff" => &["datediff"],
        "date_trunc" => &["datetrunc"],
        _ => return function,
    };
    Arc::new(ScalarUDF::clone(&function).with_aliases(aliases.iter().copied()))
}

/// The function `now()`, which returns the time at which the query started.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Now {
    signature: Signature,
    aliases: Vec<String>,
}

impl Now {
    fn function() -> Arc<ScalarUDF> {
        let signature = Signature::nullary(Volatility::Stable);
        Arc::new(ScalarUDF::new_from_impl(Self { signature, aliases: vec!["current_timestamp".to_owned()] }))
    }
}

/// The type of timestamps with a time zone.
fn instant_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

impl ScalarUDFImpl for Now {
    fn name(&self) -> &'static str {
        "now"
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(instant_type())
    }

    fn return_field_from_args(&self, _: ReturnFieldArgs) -> Result<FieldRef> {
        Ok(Arc::new(Field::new(self.name(), instant_type(), false)))
    }

    fn invoke_with_args(&self, _: ScalarFunctionArgs) -> Result<ColumnarValue> {
        Err(DataFusionError::Internal("planning replaces now() with a constant".to_owned()))
    }

    fn simplify(&self, args: Vec<Expr>, context: &SimplifyContext) -> Result<ExprSimplifyResult> {
        let Some(now) = context.query_execution_start_time() else { return Ok(ExprSimplifyResult::Original(args)) };
        let now = ScalarValue::TimestampMicrosecond(Some(now.timestamp_micros()), Some("UTC".into()));
        Ok(ExprSimplifyResult::Simplified(Expr::Literal(now, None)))
    }
}

/// The function `at_time_zone(time, 'zone')`, to which `time AT TIME ZONE 'zone'` is rewritten. The result is a
/// timestamp in the given zone. If the argument has a time zone, the result is the same instant. Otherwise, the
/// argument is interpreted as local time in the given zone.
const AT_TIME_ZONE: FunctionDefinition = FunctionDefinition {
    name: "at_time_zone",
    coerce: |kinds| match kinds {
        [time, _] => match timestamp_type(time) {
            Some(time) => Ok(vec![time, DataType::Utf8]),
            None => Err(wrong_arguments("at_time_zone", "time AT TIME ZONE 'zone'")),
        },
        _ => Err(wrong_arguments("at_time_zone", "time AT TIME ZONE 'zone'")),
    },
    returns: |_, constants| {
        let name = constants.get(1).copied().flatten().and_then(|name| name.try_as_str().flatten());
        let name = name.ok_or_else(|| DataFusionError::Plan("AT TIME ZONE needs a constant time zone".to_owned()))?;
        Zone::parse(name)?;
        Ok(DataType::Timestamp(TimeUnit::Microsecond, Some(name.into())))
    },
    call: |args| {
        let kind = args.return_field.data_type();
        let (times, zone) = (micros(&args.args[0], args.number_rows)?, Zone::of(kind)?);
        let is_instant = matches!(args.args[0].data_type(), DataType::Timestamp(_, Some(_)));
        let times: TimestampMicrosecondArray =
            if is_instant { times } else { times.try_unary(|local| zone.instant(local))? };
        let DataType::Timestamp(_, name) = kind else { return Err(out_of_range()) };
        Ok(ColumnarValue::Array(Arc::new(times.with_timezone_opt(name.clone()))))
    },
    ordering: unordered,
    keeps_name: false,
};

/// The function `to_timestamp(value [, format …])`. A number is interpreted as seconds since 1970. A format uses
/// PostgreSQL's patterns, or those of `strftime` if it contains a `%`.
const TO_TIMESTAMP: FunctionDefinition = FunctionDefinition {
    name: "to_timestamp",
    coerce: |kinds| {
        let [value, formats @ ..] = kinds else {
            return Err(wrong_arguments("to_timestamp", "to_timestamp(text) or to_timestamp(seconds)"));
        };
        let value = match value {
            kind if kind.is_integer() => DataType::Int64,
            kind if kind.is_floating() => DataType::Float64,
            kind if kind.is_decimal() => DataType::Decimal128(38, 6),
            kind if kind.is_string() => DataType::Utf8,
            kind => timestamp_type(kind)
                .ok_or_else(|| wrong_arguments("to_timestamp", "to_timestamp(text) or to_timestamp(seconds)"))?,
        };
        Ok([value].into_iter().chain(formats.iter().map(|_| DataType::Utf8)).collect())
    },
    returns: |_, _| Ok(instant_type()),
    call: to_timestamp,
    ordering: unordered,
    keeps_name: false,
};

/// The function `to_date(value [, format …])`, with the same formats as `to_timestamp`.
const TO_DATE: FunctionDefinition = FunctionDefinition {
    name: "to_date",
    coerce: |kinds| match kinds {
        [] => Err(wrong_arguments("to_date", "to_date(text) or to_date(text, 'YYYY-MM-DD')")),
        [value] => Ok(vec![value.clone()]),
        [value, formats @ ..] => {
            let value = if value.is_string() { DataType::Utf8 } else { value.clone() };
            Ok([value].into_iter().chain(formats.iter().map(|_| DataType::Utf8)).collect())
        }
    },
    returns: |_, _| Ok(DataType::Date32),
    call: |args| match time_parsing::parse_texts("to_date", args)? {
        Some(times) => {
            let day = |time: Micros| i32::try_from(time.div_euclid(DAY)).map_err(|_| out_of_range());
            let days = times.into_iter().map(|time| time.map(day).transpose()).collect::<Result<Date32Array>>()?;
            Ok(ColumnarValue::Array(Arc::new(days)))
        }
        None => datetime::to_date().inner().invoke_with_args(args.clone()),
    },
    ordering: unordered,
    keeps_name: false,
};

fn to_timestamp(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    if let Some(times) = time_parsing::parse_texts("to_timestamp", args)? {
        let times = TimestampMicrosecondArray::from(times).with_timezone("UTC");
        return Ok(ColumnarValue::Array(Arc::new(times)));
    }
    if args.args.len() > 1 {
        let mut config = SessionConfig::new().options().as_ref().clone();
        config.execution.time_zone = Some("UTC".to_owned());
        let inner = datetime::to_timestamp_micros(&config);
        let result = inner.inner().invoke_with_args(args.clone())?.into_array(args.number_rows)?;
        return Ok(ColumnarValue::Array(cast(&result, &instant_type())?));
    }
    let value = args.args[0].clone().into_array(args.number_rows)?;
    let times: ArrayRef = match value.data_type() {
        DataType::Int64 => {
            let seconds = cast(&value, &DataType::Timestamp(TimeUnit::Second, Some("UTC".into())))?;
            cast(&seconds, &instant_type())?
        }
        DataType::Float64 => {
            let times: TimestampMicrosecondArray = value.as_primitive::<Float64Type>().try_unary(|seconds| {
                let micros = (seconds * 1e6).round();
                // Values of 2^63 or more are out of range. NaN fails the comparison, so it is refused too.
                if micros.abs() < 9_223_372_036_854_775_808.0 { Ok(micros as i64) } else { Err(out_of_range()) }
            })?;
            Arc::new(times.with_timezone("UTC"))
        }
        DataType::Decimal128(_, _) => {
            let times: TimestampMicrosecondArray = value
                .as_primitive::<Decimal128Type>()
                .try_unary(|micros| i64::try_from(micros).map_err(|_| out_of_range()))?;
            Arc::new(times.with_timezone("UTC"))
        }
        _ => cast(&value, &instant_type())?,
    };
    Ok(ColumnarValue::Array(times))
}
