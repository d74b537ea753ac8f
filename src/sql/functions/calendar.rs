//! Converts microseconds since 1970 to years, months and days in a time zone, and back. Uses the proleptic Gregorian
//! calendar.
//!
//! Times are in microseconds, which cover all years that ingest accepts. In contrast, many of the engine's own
//! functions convert to nanoseconds, which cover only the years 1678 to 2261. The time zones come from `chrono-tz`.

use arrow::array::timezone::Tz;
use arrow::array::{ArrayRef, AsArray as _, PrimitiveArray, TimestampMicrosecondArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, TimeUnit, TimestampMicrosecondType};
use chrono::{DateTime, Datelike as _, MappedLocalTime, NaiveDate, NaiveDateTime, Offset as _, TimeZone as _};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::ColumnarValue;

use crate::clock::{DAY, Micros, SECOND};

/// The number of bytes in a date such as `2026-03-02`.
const DATE_BYTES: usize = "0000-00-00".len();

/// A calendar date.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Date {
    pub(super) year: i64,
    /// The month, from 1 to 12.
    pub(super) month: i64,
    /// The day of the month, from 1 to 31.
    pub(super) day: i64,
}

impl Date {
    /// Returns the date that is `day` days after 1970-01-01. The algorithm is from the paper "chrono-compatible
    /// low-level date algorithms" by Howard Hinnant.
    pub(super) fn of_day(day: i64) -> Self {
        let shifted = day + 719_468;
        let era = shifted.div_euclid(146_097);
        let day_of_era = shifted.rem_euclid(146_097);
        let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
        let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
        let from_march = (5 * day_of_year + 2) / 153;
        let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
        let year = year_of_era + era * 400 + i64::from(month <= 2);
        Self { year, month, day: day_of_year - (153 * from_march + 2) / 5 + 1 }
    }

    /// Returns the date of a local time.
    pub(super) fn at(local: Micros) -> Self {
        Self::of_day(local.div_euclid(DAY))
    }

    /// Returns the number of days since 1970-01-01.
    pub(super) fn day_number(self) -> i64 {
        let year = if self.month <= 2 { self.year - 1 } else { self.year };
        let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
        let day_of_year = (153 * ((self.month + 9) % 12) + 2) / 5 + self.day - 1;
        era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
    }

    /// Returns the number of months since the start of year 0.
    pub(super) fn month_number(self) -> i64 {
        self.year * 12 + self.month - 1
    }

    /// Returns the first day of the month with this [`Self::month_number`].
    pub(super) fn of_month(number: i64) -> Self {
        Self { year: number.div_euclid(12), month: number.rem_euclid(12) + 1, day: 1 }
    }

    /// Returns the number of days in the month.
    pub(super) fn days_in_month(self) -> i64 {
        Self::of_month(self.month_number() + 1).day_number() - Self { day: 1, ..self }.day_number()
    }

    /// Returns the local time at which the day starts.
    pub(super) fn start(self) -> Result<Micros> {
        self.day_number().checked_mul(DAY).ok_or_else(out_of_range)
    }
}

/// A time zone. `None` means UTC.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Zone(Option<Tz>);

impl Zone {
    /// Returns the time zone of a data type. Returns UTC for dates, and for timestamps without a time zone.
    pub(super) fn of(kind: &DataType) -> Result<Self> {
        match kind {
            DataType::Timestamp(_, Some(name)) => Self::parse(name),
            _ => Ok(Self(None)),
        }
    }

    /// Finds a time zone by its name, or parses an offset such as `+02:00`.
    pub(crate) fn parse(name: &str) -> Result<Self> {
        if is_utc(name) {
            return Ok(Self(None));
        }
        match name.parse() {
            Ok(zone) => Ok(Self(Some(zone))),
            Err(_) => Err(DataFusionError::Plan(format!(
                "unknown time zone `{name}`: write a name such as 'Europe/Berlin' or an offset such as '+02:00'"
            ))),
        }
    }

    pub(super) fn is_utc(self) -> bool {
        self.0.is_none()
    }

    /// Returns the offset from UTC at an instant.
    pub(super) fn offset(self, instant: Micros) -> Result<Micros> {
        let Some(zone) = self.0 else { return Ok(0) };
        let utc = naive(instant)?;
        Ok(i64::from(zone.offset_from_utc_datetime(&utc).fix().local_minus_utc()) * SECOND)
    }

    /// Converts an instant to local time.
    pub(super) fn local(self, instant: Micros) -> Result<Micros> {
        instant.checked_add(self.offset(instant)?).ok_or_else(out_of_range)
    }

    /// Converts a local time to an instant. If a local time occurs twice, returns the first occurrence. If a clock
    /// change skips a local time, moves it forward by the length of the gap.
    pub(super) fn instant(self, local: Micros) -> Result<Micros> {
        let Some(zone) = self.0 else { return Ok(local) };
        let offset = match zone.offset_from_local_datetime(&naive(local)?) {
            MappedLocalTime::Single(offset) | MappedLocalTime::Ambiguous(offset, _) => {
                i64::from(offset.fix().local_minus_utc()) * SECOND
            }
            // The local time is in a gap. Use the offset of the previous day, which is the offset before the gap.
            MappedLocalTime::None => self.offset(local.checked_sub(DAY).ok_or_else(out_of_range)?)?,
        };
        local.checked_sub(offset).ok_or_else(out_of_range)
    }
}

/// Returns true if `name` is one of the names of the time zone UTC.
pub(super) fn is_utc(name: &str) -> bool {
    matches!(name, "UTC" | "+00:00" | "Z")
}

fn naive(micros: Micros) -> Result<NaiveDateTime> {
    DateTime::from_timestamp_micros(micros).map(|time| time.naive_utc()).ok_or_else(out_of_range)
}

/// Returns the error for a time that is out of range.
pub(super) fn out_of_range() -> DataFusionError {
    DataFusionError::Execution("a timestamp is out of range".to_owned())
}

/// Returns the type to which an argument of the type `kind` is cast, if it is a timestamp, a date or text. The result
/// is a timestamp type with microseconds. Returns `None` for any other type.
pub(super) fn timestamp_type(kind: &DataType) -> Option<DataType> {
    match kind {
        DataType::Timestamp(_, zone) => Some(DataType::Timestamp(TimeUnit::Microsecond, zone.clone())),
        DataType::Date32 | DataType::Date64 | DataType::Null => Some(naive_timestamp()),
        kind if kind.is_string() => Some(naive_timestamp()),
        _ => None,
    }
}

/// The type of timestamps without a time zone.
pub(crate) fn naive_timestamp() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, None)
}

/// Casts an argument to an array of timestamps in microseconds.
pub(super) fn micros(value: &ColumnarValue, rows: usize) -> Result<TimestampMicrosecondArray> {
    let array = value.clone().into_array(rows)?;
    let kind = timestamp_type(array.data_type()).unwrap_or_else(naive_timestamp);
    let array: ArrayRef = if *array.data_type() == kind { array } else { cast(&array, &kind)? };
    let array: &PrimitiveArray<TimestampMicrosecondType> = array.as_primitive();
    Ok(array.clone())
}

/// Rewrites a timestamp that the engine cannot parse: appends `:00` to a time without seconds, such as `2026-03-02
/// 10:00`, and replaces `24:00:00` with the start of the next day. Returns true if the text was changed.
pub(crate) fn complete_time(text: &mut String) -> bool {
    let is_completed = complete_seconds(text);
    start_next_day(text) || is_completed
}

fn complete_seconds(text: &mut String) -> bool {
    const SHAPE: &[u8; 16] = b"0000-00-00 00:00";
    let bytes = text.as_bytes();
    let fits = |(byte, shape): (&u8, &u8)| match shape {
        b'0' => byte.is_ascii_digit(),
        b' ' => matches!(byte, b' ' | b'T' | b't'),
        shape => byte == shape,
    };
    let is_short = bytes.len() >= SHAPE.len()
        && bytes.iter().zip(SHAPE).all(fits)
        && matches!(bytes.get(SHAPE.len()), None | Some(b'+' | b'-' | b'Z' | b'z' | b' '));
    if is_short {
        text.insert_str(SHAPE.len(), ":00");
    }
    is_short
}

/// Replaces the time `24:00:00` with the start of the next day.
fn start_next_day(text: &mut String) -> bool {
    let Some((date, time)) = text.split_at_checked(DATE_BYTES) else { return false };
    let Some(rest) = time.get(1..).and_then(|time| time.strip_prefix("24:00:00")) else { return false };
    let zone = rest.strip_prefix('.').map_or(rest, |fraction| fraction.trim_start_matches('0'));
    if !time.starts_with([' ', 'T', 't']) || !(zone.is_empty() || zone.starts_with(['+', '-', 'Z', 'z', ' '])) {
        return false;
    }
    let Ok(date) = date.parse::<NaiveDate>() else { return false };
    let Some(next) = date.succ_opt().filter(|next| next.year() <= 9_999) else { return false };
    *text = format!("{next} 00:00:00{zone}");
    true
}

/// Removes the time from a timestamp such as `2026-03-02 10:00:30.5+02:00`, and leaves any other text unchanged.
pub(crate) fn drop_time(text: &mut String) {
    let trimmed = text.trim();
    let Some((date, time)) = trimmed.split_at_checked(DATE_BYTES) else { return };
    if time.strip_prefix([' ', 'T', 't']).is_some_and(|time| is_time(time.trim_start())) {
        *text = date.to_owned();
    }
}

/// Returns true for a time of day such as `10:00`, `10:00:30.5`, `10:00+02:00` or `24:00`.
fn is_time(text: &str) -> bool {
    let (time, zone) = text.split_at(text.find(['+', '-', 'Z', 'z']).unwrap_or(text.len()));
    let number = |text: &str, limit: u32| {
        text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse().is_ok_and(|n: u32| n < limit)
    };
    let parts: Vec<&str> = time.trim_end().split(':').collect();
    let is_clock = match parts.as_slice() {
        ["24", "00"] => true,
        ["24", "00", second] => {
            let (second, fraction) = second.split_once('.').unwrap_or((second, "0"));
            second == "00" && !fraction.is_empty() && fraction.bytes().all(|digit| digit == b'0')
        }
        [hour, minute] => number(hour, 24) && number(minute, 60),
        [hour, minute, second] => {
            let (second, fraction) = second.split_once('.').unwrap_or((second, "0"));
            let is_fraction = !fraction.is_empty() && fraction.bytes().all(|byte| byte.is_ascii_digit());
            number(hour, 24) && number(minute, 60) && number(second, 60) && is_fraction
        }
        _ => false,
    };
    let is_zone = match zone.trim_end() {
        "" | "Z" | "z" => true,
        zone => {
            let offset = zone.get(1..).unwrap_or_default();
            let (hours, minutes) = offset.split_once(':').unwrap_or((offset, "00"));
            number(hours, 16) && number(minutes, 60)
        }
    };
    is_clock && is_zone
}

/// Rounds a time of day with more than six digits after the point to microseconds, half to even, as in PostgreSQL. Leaves
/// other texts unchanged. Midnight at the end of the day becomes `24:00:00`, which no cast accepts. Returns true if the text
/// changed.
pub(crate) fn round_time(text: &mut String) -> bool {
    let rounded = text.trim().split_once('.').and_then(|(clock, fraction)| {
        if fraction.len() <= 6 || !fraction.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let parts: Option<Vec<i64>> = clock.split(':').map(|part| part.parse().ok()).collect();
        let [hours @ 0..24, minutes @ 0..60, seconds @ 0..60] = parts?[..] else { return None };
        let micros = (format!("0.{fraction}").parse::<f64>().ok()? * 1e6).round_ties_even() as i64;
        let micros = ((hours * 60 + minutes) * 60 + seconds) * 1_000_000 + micros;
        let (seconds, rest) = (micros / 1_000_000, micros % 1_000_000);
        let (hours, minutes, seconds) = (seconds / 3_600, seconds / 60 % 60, seconds % 60);
        Some(match hours {
            24 => "24:00:00".to_owned(),
            _ => format!("{hours:02}:{minutes:02}:{seconds:02}.{rest:06}"),
        })
    });
    let is_changed = rounded.is_some();
    rounded.into_iter().for_each(|rounded| *text = rounded);
    is_changed
}

#[cfg(test)]
mod tests {
    use chrono::{TimeDelta, Timelike as _};

    use super::*;

    #[test]
    fn dates_of_all_years_agree_with_chrono() {
        let first = NaiveDate::from_ymd_opt(1, 1, 1).unwrap();
        let epoch = NaiveDate::from_ymd_opt(1970, 1, 1).unwrap();
        for day in (0..3_652_059).step_by(17) {
            let expected = first + TimeDelta::days(day);
            let number = (expected - epoch).num_days();
            let date = Date::of_day(number);
            assert_eq!(
                (date.year, date.month, date.day),
                (expected.year().into(), expected.month().into(), expected.day().into())
            );
            assert_eq!(date.day_number(), number);
            assert_eq!(date.days_in_month(), i64::from(expected.num_days_in_month()));
        }
    }

    #[test]
    fn local_times_of_all_years_agree_with_chrono_tz() {
        for name in ["America/New_York", "Australia/Lord_Howe", "America/St_Johns", "Asia/Kathmandu", "+05:30"] {
            let (zone, oracle): (_, Tz) = (Zone::parse(name).unwrap(), name.parse().unwrap());
            for step in 0..2_000 {
                let instant = -62_135_596_800_000_000 + step * 157_788_000_000_000 + step * 977_777;
                let expected = oracle.from_utc_datetime(&naive(instant).unwrap());
                let local = zone.local(instant).unwrap();
                assert_eq!(naive(local).unwrap(), expected.naive_local(), "{name} {instant}");
                assert_eq!(local.rem_euclid(DAY) / SECOND, i64::from(expected.num_seconds_from_midnight()));
                let back = zone.instant(local).unwrap();
                assert_eq!(zone.local(back).unwrap(), local, "{name} {instant}");
            }
        }
    }

    #[test]
    fn times_are_completed() {
        for (text, expected) in [
            ("1998-03-02 10:00", "1998-03-02 10:00:00"),
            ("1998-03-02T10:00Z", "1998-03-02T10:00:00Z"),
            ("1998-03-02 10:00+02:00", "1998-03-02 10:00:00+02:00"),
            ("1998-03-02 10:00:30", "1998-03-02 10:00:30"),
            ("1998-03-02", "1998-03-02"),
            ("1998-02-28 24:00", "1998-03-01 00:00:00"),
            ("1996-02-28T24:00:00.000Z", "1996-02-29 00:00:00Z"),
            ("1998-12-31 24:00:00+02:00", "1999-01-01 00:00:00+02:00"),
            ("1998-12-31 24:00:01", "1998-12-31 24:00:01"),
            ("1998-12-31 24:00:00.5", "1998-12-31 24:00:00.5"),
            ("1998-02-30 24:00:00", "1998-02-30 24:00:00"),
            ("9999-12-31 24:00:00", "9999-12-31 24:00:00"),
            ("1998-03-02 10:0x", "1998-03-02 10:0x"),
            ("ää98-03-02 10:00", "ää98-03-02 10:00"),
        ] {
            let mut completed = text.to_owned();
            assert_eq!(complete_time(&mut completed), text != expected);
            assert_eq!(completed, expected);
        }
    }

    #[test]
    fn the_time_is_removed_from_timestamps() {
        for (text, expected) in [
            ("1998-03-02 10:00", "1998-03-02"),
            (" 1998-03-02T10:00:30.25Z ", "1998-03-02"),
            ("1998-03-02 10:00:30+02:00", "1998-03-02"),
            ("1998-03-02 10:00:30 -05", "1998-03-02"),
            ("1998-03-02", "1998-03-02"),
            ("1998-03-02 24:00:00.00Z", "1998-03-02"),
            ("1998-03-02 24:01", "1998-03-02 24:01"),
            ("1998-03-02 24:00:01", "1998-03-02 24:00:01"),
            ("1998-03-02 x", "1998-03-02 x"),
            ("1998-03-02 10:00+é", "1998-03-02 10:00+é"),
            ("ä998-03-02é10:00", "ä998-03-02é10:00"),
        ] {
            let mut date = text.to_owned();
            drop_time(&mut date);
            assert_eq!(date, expected);
        }
    }
}
