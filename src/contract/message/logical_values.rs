//! Formats decimals, dates and times, which Avro and Kafka Connect encode as bytes and integers.
//!
//! The functions whose names begin with `long_` format every integer. A year of more than four digits has a sign, as in
//! ISO 8601.

use std::fmt::Write as _;

use chrono::{DateTime, Days, NaiveDate, NaiveTime, SecondsFormat};

/// The maximum scale of a decimal, which is the number of digits after the decimal point.
pub(in crate::contract) const SCALE_MAX: usize = 1_000;
/// The maximum size of a decimal in bytes, which is enough for more than 600 digits.
const DECIMAL_BYTES_MAX: usize = 256;
/// The number of seconds per day.
const DAY_SECONDS: i64 = 86_400;

/// The unit of a time that is encoded as an integer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogicalTimeUnit {
    /// Milliseconds.
    Millis,
    /// Microseconds.
    Micros,
    /// Nanoseconds.
    Nanos,
}

impl LogicalTimeUnit {
    /// Returns the number of units per second, and the number of digits of a fraction of a second.
    fn fraction(self) -> (i64, usize) {
        match self {
            Self::Millis => (1_000, 3),
            Self::Micros => (1_000_000, 6),
            Self::Nanos => (1_000_000_000, 9),
        }
    }
}

/// Returns the day that is a number of days after 1970-01-01, such as `2026-03-01`. `None` if it is out of range.
pub(in crate::contract) fn date_text(days: i64) -> Option<String> {
    let first = NaiveDate::from_ymd_opt(1970, 1, 1)?;
    let count = Days::new(days.unsigned_abs());
    let day = if days < 0 { first.checked_sub_days(count) } else { first.checked_add_days(count) };
    Some(day?.to_string())
}

/// Returns a time of day such as `12:34:56.789`. `None` if it is out of range.
pub(in crate::contract) fn time_text(value: i64, unit: LogicalTimeUnit) -> Option<String> {
    let (per_second, digits) = unit.fraction();
    let seconds = u32::try_from(value.div_euclid(per_second)).ok()?;
    let fraction = value.rem_euclid(per_second);
    Some(format!("{}.{fraction:0digits$}", NaiveTime::from_num_seconds_from_midnight_opt(seconds, 0)?))
}

/// Returns a time in UTC such as `2026-03-01T12:00:00.123Z`. `None` if it is out of range.
pub(in crate::contract) fn timestamp_text(value: i64, unit: LogicalTimeUnit) -> Option<String> {
    let (time, digits) = match unit {
        LogicalTimeUnit::Millis => (DateTime::from_timestamp_millis(value)?, SecondsFormat::Millis),
        LogicalTimeUnit::Micros => (DateTime::from_timestamp_micros(value)?, SecondsFormat::Micros),
        LogicalTimeUnit::Nanos => (DateTime::from_timestamp_nanos(value), SecondsFormat::Nanos),
    };
    Some(time.to_rfc3339_opts(digits, true))
}

/// Returns the day that is a number of days after 1970-01-01, such as `2026-03-01`.
pub fn long_date_text(days: i64) -> String {
    date_text(days).unwrap_or_else(|| {
        let (year, month, day) = civil_date(days);
        format!("{year:+}-{month:02}-{day:02}")
    })
}

/// Returns a time such as `12:34:56.789`. The number of hours may be negative, or greater than 23.
pub fn long_time_text(value: i64, unit: LogicalTimeUnit) -> String {
    let (per_second, digits) = unit.fraction();
    let (seconds, fraction) =
        (value.unsigned_abs() / per_second.unsigned_abs(), value.unsigned_abs() % per_second.unsigned_abs());
    let (sign, hours, minutes) = (if value < 0 { "-" } else { "" }, seconds / 3_600, seconds / 60 % 60);
    format!("{sign}{hours:02}:{minutes:02}:{:02}.{fraction:0digits$}", seconds % 60)
}

/// Returns a time without a time zone, such as `2026-03-01T12:00:00.123`.
pub fn long_timestamp_text(value: i64, unit: LogicalTimeUnit) -> String {
    let (per_second, digits) = unit.fraction();
    let (seconds, fraction) = (value.div_euclid(per_second), value.rem_euclid(per_second));
    let (days, second) = (seconds.div_euclid(DAY_SECONDS), seconds.rem_euclid(DAY_SECONDS));
    let (hours, minutes) = (second / 3_600, second / 60 % 60);
    format!("{}T{hours:02}:{minutes:02}:{:02}.{fraction:0digits$}", long_date_text(days), second % 60)
}

/// Returns the year, month and day of the proleptic Gregorian calendar.
///
/// Source: `civil_from_days` in Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms".
fn civil_date(days: i64) -> (i128, i128, i128) {
    let days = i128::from(days) + 719_468;
    let (era, day_of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    let year = year_of_era + era * 400 + i128::from(month <= 2);
    (year, month, day_of_year - (153 * shifted_month + 2) / 5 + 1)
}

/// Formats a decimal with `scale` digits after the point. `bytes` is the unscaled value, in big-endian two's
/// complement. A decimal with a negative or very large scale is written with an exponent.
pub fn decimal_text(bytes: &[u8], scale: i64) -> Result<String, String> {
    if bytes.len() > DECIMAL_BYTES_MAX {
        return Err(format!("a decimal has {} bytes; at most {DECIMAL_BYTES_MAX} are allowed", bytes.len()));
    }
    let is_negative = bytes.first().is_some_and(|byte| *byte >= 0x80);
    let digits = digits(bytes, is_negative);
    let mut shown = if is_negative { "-".to_owned() } else { String::new() };
    match usize::try_from(scale) {
        Ok(0) => shown.push_str(&digits),
        Ok(scale) if scale <= SCALE_MAX => {
            let padded = format!("{digits:0>width$}", width = scale + 1);
            let (whole, fraction) = padded.split_at(padded.len() - scale);
            let _ = write!(shown, "{whole}.{fraction}");
        }
        _ => {
            let _ = write!(shown, "{digits}E{}", scale.saturating_neg());
        }
    }
    Ok(shown)
}

/// Returns the decimal digits of the number's absolute value.
fn digits(bytes: &[u8], is_negative: bool) -> String {
    let mut size = bytes.to_vec();
    if is_negative {
        // The absolute value of a negative number in two's complement is the inverted bits plus one.
        let mut carry = true;
        for byte in size.iter_mut().rev() {
            (*byte, carry) = (!*byte).overflowing_add(u8::from(carry));
        }
    }
    let mut groups = Vec::new();
    while size.iter().any(|byte| *byte != 0) {
        let mut rest = 0_u64;
        for byte in &mut size {
            let value = rest << 8 | u64::from(*byte);
            (*byte, rest) = ((value / 1_000_000_000) as u8, value % 1_000_000_000);
        }
        groups.push(rest);
    }
    let mut digits = groups.pop().unwrap_or(0).to_string();
    for group in groups.iter().rev() {
        let _ = write!(digits, "{group:09}");
    }
    digits
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_have_the_same_text_with_and_without_the_calendar_library() {
        for days in (-750_000..=750_000).step_by(97).chain([-1, 0, 1, 11_016, 11_017, 20_513]) {
            let (year, month, day) = civil_date(days);
            let expected = NaiveDate::from_ymd_opt(i32::try_from(year).unwrap(), month as u32, day as u32).unwrap();
            assert_eq!(date_text(days), Some(expected.to_string()), "{days}");
        }
        // The times that PostgreSQL's driver returns for `infinity` and `-infinity`.
        let infinity = long_timestamp_text(9_223_372_036_825_200_000, LogicalTimeUnit::Micros);
        assert_eq!(infinity, "+294247-01-10T04:00:25.200000");
        assert!(long_date_text(i64::MIN).starts_with('-') && long_date_text(i64::MAX).starts_with('+'));
        assert_eq!(long_timestamp_text(-1, LogicalTimeUnit::Nanos), "1969-12-31T23:59:59.999999999");
        assert_eq!(long_timestamp_text(i64::MIN, LogicalTimeUnit::Nanos), "1677-09-21T00:12:43.145224192");
    }

    #[test]
    fn times_may_be_negative_or_longer_than_a_day() {
        let cases = [
            (45_296_789, LogicalTimeUnit::Millis, "12:34:56.789"),
            (-1, LogicalTimeUnit::Micros, "-00:00:00.000001"),
            (3_020_399_000_000, LogicalTimeUnit::Micros, "838:59:59.000000"),
            (0, LogicalTimeUnit::Nanos, "00:00:00.000000000"),
        ];
        for (value, unit, expected) in cases {
            assert_eq!(long_time_text(value, unit), expected);
        }
    }
}
