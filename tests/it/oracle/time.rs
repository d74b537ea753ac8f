//! Parses times with `chrono`, without the server's code.
//!
//! The following documented rules extend RFC 3339. An offset may omit its colon or its minutes. Digits after the
//! microseconds are truncated. Second 60 is the first second of the next minute. A number or a string of digits is a
//! time since 1970 in the table's `time_unit`. With the unit `auto`, the time must be in the years 2001 to 2100.

use chrono::{DateTime, Datelike as _, NaiveDate};
use glasshouse::config::TimeUnit;
use glasshouse::contract::Reason;

use super::outcome::Cell;

/// Parses a time in a string.
pub(super) fn from_text(text: &str, unit: TimeUnit) -> Result<Cell, Reason> {
    if text.as_bytes().get(4) != Some(&b'-') {
        let is_number = !text.starts_with('+');
        let number: Option<i64> = text.parse().ok().filter(|_| is_number);
        let time = number.and_then(|number| from_integer(number, unit).ok());
        return time.ok_or(Reason::WrongType);
    }
    // Expand a short offset: `+0530` and `+05` become `+05:30` and `+05:00`.
    let mut text = text.to_owned();
    let zone = text.get(19..).and_then(|rest| rest.find(['+', '-'])).map(|at| text.len() - (19 + at));
    match zone {
        Some(5) => text.insert(text.len() - 2, ':'),
        Some(3) => text.push_str(":00"),
        _ => {}
    }
    let time = DateTime::parse_from_rfc3339(&text).map_err(|_| Reason::WrongType)?;
    Ok(Cell::Int(time.timestamp_micros()))
}

/// Converts an integer to a time since 1970.
pub(super) fn from_integer(number: i64, unit: TimeUnit) -> Result<Cell, Reason> {
    let wide = i128::from(number);
    let micros = match unit_of(number.unsigned_abs(), unit) {
        TimeUnit::Seconds => wide * 1_000_000,
        TimeUnit::Millis => wide * 1_000,
        TimeUnit::Micros => wide,
        TimeUnit::Nanos => wide.div_euclid(1_000),
        TimeUnit::Auto => unreachable!("the unit was determined"),
    };
    let micros = i64::try_from(micros).map_err(|_| Reason::OutOfRange)?;
    checked(micros, unit)
}

/// Converts a number with a fraction or an exponent to a time since 1970. The number is parsed as the nearest double,
/// and the time is rounded to the nearest microsecond.
pub(super) fn from_float(number: f64, unit: TimeUnit) -> Result<Cell, Reason> {
    let micros = match unit_of(number.abs() as u64, unit) {
        TimeUnit::Seconds => number * 1e6,
        TimeUnit::Millis => number * 1e3,
        TimeUnit::Micros => number,
        TimeUnit::Nanos => number / 1e3,
        TimeUnit::Auto => unreachable!("the unit was determined"),
    };
    if micros.abs() < 2_f64.powi(63) { checked(micros.round() as i64, unit) } else { Err(Reason::OutOfRange) }
}

/// Refuses a time outside the years 2001 to 2100 if the unit is `auto`.
fn checked(micros: i64, unit: TimeUnit) -> Result<Cell, Reason> {
    let year = DateTime::from_timestamp_micros(micros).map(|time| time.year());
    let is_plausible = year.is_some_and(|year| (2001..=2100).contains(&year));
    if is_plausible || !matches!(unit, TimeUnit::Auto) { Ok(Cell::Int(micros)) } else { Err(Reason::OutOfRange) }
}

/// Returns the unit of a number whose absolute value is `size`.
fn unit_of(size: u64, unit: TimeUnit) -> TimeUnit {
    match unit {
        TimeUnit::Auto if size < 10_u64.pow(11) => TimeUnit::Seconds,
        TimeUnit::Auto if size < 10_u64.pow(14) => TimeUnit::Millis,
        TimeUnit::Auto if size < 10_u64.pow(17) => TimeUnit::Micros,
        TimeUnit::Auto => TimeUnit::Nanos,
        known => known,
    }
}

/// Parses a date, which must have exactly the form `YYYY-MM-DD`.
pub(super) fn day(text: &str) -> Result<Cell, Reason> {
    let is_plain = text.len() == 10 && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    let day = NaiveDate::parse_from_str(text, "%Y-%m-%d").ok().filter(|_| is_plain).ok_or(Reason::WrongType)?;
    let first = NaiveDate::from_ymd_opt(1970, 1, 1).expect("1970-01-01 is a valid day");
    Ok(Cell::Int(day.signed_duration_since(first).num_days()))
}
