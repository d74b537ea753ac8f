//! Parses event times. RFC 3339 strings and epoch numbers are converted to microseconds in UTC.
//!
//! The functions do not read a clock. Ambiguous or invalid input, such as a time without an offset or a date that does
//! not exist, is refused.

use std::ops::Range;

use crate::clock::{DAY, Micros, SECOND};
use crate::config::TimeUnit;

/// With the unit `auto`, numbers below this value are read as seconds (up to the year 5138).
const AUTO_SECONDS: u64 = 100_000_000_000;
/// With the unit `auto`, numbers from [`AUTO_SECONDS`] up to this value (exclusive) are read as milliseconds.
const AUTO_MILLIS: u64 = 100_000_000_000_000;
/// With the unit `auto`, numbers from [`AUTO_MILLIS`] up to this value (exclusive) are read as microseconds. Larger
/// numbers are read as nanoseconds.
const AUTO_MICROS: u64 = 100_000_000_000_000_000;

/// The range of times that the unit `auto` accepts: the years 2001 to 2100. A number outside this range is probably in
/// another unit, or is a date such as 20260302.
const AUTO_TIMES: Range<Micros> = 978_307_200 * SECOND..4_133_980_800 * SECOND;

/// Converts an epoch number to microseconds. Returns `None` if the result is out of range for an `i64`. With the unit
/// `auto`, also returns `None` if the result is outside [`AUTO_TIMES`].
pub(in crate::contract) fn from_epoch(value: i64, unit: TimeUnit) -> Option<Micros> {
    match unit {
        TimeUnit::Auto => {
            from_epoch(value, unit_by_size(value.unsigned_abs())).filter(|micros| AUTO_TIMES.contains(micros))
        }
        TimeUnit::Seconds => value.checked_mul(SECOND),
        TimeUnit::Millis => value.checked_mul(1_000),
        TimeUnit::Micros => Some(value),
        TimeUnit::Nanos => Some(value.div_euclid(1_000)),
    }
}

/// Converts a fractional epoch number to microseconds, and rounds the result. Returns `None` in the same cases as
/// [`from_epoch`].
pub(in crate::contract) fn from_epoch_float(value: f64, unit: TimeUnit) -> Option<Micros> {
    let micros = match unit {
        TimeUnit::Auto => {
            let micros = from_epoch_float(value, unit_by_size(value.abs() as u64));
            return micros.filter(|micros| AUTO_TIMES.contains(micros));
        }
        TimeUnit::Seconds => value * 1e6,
        TimeUnit::Millis => value * 1e3,
        TimeUnit::Micros => value,
        TimeUnit::Nanos => value / 1e3,
    };
    // 2^63 is the smallest positive float that is too large for an `i64`. The comparison is false for NaN.
    (micros.abs() < 9_223_372_036_854_775_808.0).then_some(micros.round() as i64)
}

fn unit_by_size(size: u64) -> TimeUnit {
    match size {
        0..AUTO_SECONDS => TimeUnit::Seconds,
        AUTO_SECONDS..AUTO_MILLIS => TimeUnit::Millis,
        AUTO_MILLIS..AUTO_MICROS => TimeUnit::Micros,
        _ => TimeUnit::Nanos,
    }
}

/// Parses an RFC 3339 time or an epoch integer. The time must have an offset, may have any number of fraction digits,
/// and may have a space in place of the `T`.
pub(in crate::contract) fn from_text(text: &str, unit: TimeUnit) -> Option<Micros> {
    let text = text.as_bytes();
    match text.get(4) {
        Some(b'-') => from_rfc3339(text),
        _ => from_epoch(integer(text)?, unit),
    }
}

/// Parses a date in the form `YYYY-MM-DD` and returns the number of days since 1970-01-01.
pub(in crate::contract) fn day_from_text(text: &str) -> Option<i32> {
    let text: &[u8; 10] = text.as_bytes().try_into().ok()?;
    day(text)
}

/// Parses a time of day in the form `HH:MM` or `HH:MM:SS`, with any number of fraction digits. Returns the number of
/// microseconds since midnight. The time must not have a time zone.
pub(in crate::contract) fn of_day_from_text(text: &str) -> Option<Micros> {
    let (&[h1, h2, b':', m1, m2], rest) = text.as_bytes().split_first_chunk::<5>()? else { return None };
    let (hour, minute) = (pair(h1, h2)?, pair(m1, m2)?);
    let (second, fraction) = match rest.split_first_chunk::<3>() {
        None if rest.is_empty() => (0, 0),
        Some((&[b':', s1, s2], rest)) => match fraction(rest)? {
            (fraction, []) => (pair(s1, s2)?, fraction),
            _ => return None,
        },
        _ => return None,
    };
    // A leap second has no place in a day of 86,400 seconds.
    let is_valid = hour < 24 && minute < 60 && second < 60;
    is_valid.then_some((hour * 3_600 + minute * 60 + second) * SECOND + fraction)
}

fn integer(text: &[u8]) -> Option<i64> {
    // `str::parse` accepts a leading plus, but an epoch number must not have one.
    if text.first() == Some(&b'+') {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

fn from_rfc3339(text: &[u8]) -> Option<Micros> {
    let (date, rest) = text.split_first_chunk::<10>()?;
    let (clock, rest) = rest.split_first_chunk::<9>()?;
    let &[b'T' | b't' | b' ', h1, h2, b':', m1, m2, b':', s1, s2] = clock else { return None };
    let (hour, minute, second) = (pair(h1, h2)?, pair(m1, m2)?, pair(s1, s2)?);
    // RFC 3339 allows second 60. On a clock without leap seconds, this is the first instant of the next minute.
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let (fraction, rest) = fraction(rest)?;
    let local = i64::from(day(date)?) * DAY + (hour * 3_600 + minute * 60 + second) * SECOND + fraction;
    Some(local - offset(rest)?)
}

/// Converts a proleptic Gregorian date to the number of days since 1970-01-01. The algorithm is from H. Hinnant,
/// "chrono-compatible low-level date algorithms".
fn day(text: &[u8; 10]) -> Option<i32> {
    let &[y1, y2, y3, y4, b'-', m1, m2, b'-', d1, d2] = text else { return None };
    let (year, month, day) = (pair(y1, y2)? * 100 + pair(y3, y4)?, pair(m1, m2)?, pair(d1, d2)?);
    if !(1..=12).contains(&month) || !(1..=days_of(year, month)).contains(&day) {
        return None;
    }
    let shifted = if month <= 2 { year - 1 } else { year };
    let era = shifted.div_euclid(400);
    let year_of_era = shifted - era * 400;
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    i32::try_from(era * 146_097 + day_of_era - 719_468).ok()
}

fn days_of(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Parses an optional fraction such as `.123456789`. Returns the number of microseconds, and the remaining bytes.
/// Digits after the sixth are ignored.
fn fraction(text: &[u8]) -> Option<(i64, &[u8])> {
    let Some((b'.', digits)) = text.split_first() else { return Some((0, text)) };
    let count = digits.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let six = digits[..count].iter().chain(std::iter::repeat(&b'0')).take(6);
    let micros = six.fold(0, |micros, digit| micros * 10 + i64::from(digit - b'0'));
    (count > 0).then(|| (micros, &digits[count..]))
}

/// Parses an offset in the form `Z`, `±HH:MM`, `±HHMM` or `±HH`. The result is in microseconds, and is positive east of
/// UTC.
fn offset(text: &[u8]) -> Option<Micros> {
    let (sign, hours, minutes) = match *text {
        [b'Z' | b'z'] => return Some(0),
        [sign, h1, h2, b':', m1, m2] | [sign, h1, h2, m1, m2] => (sign, pair(h1, h2)?, pair(m1, m2)?),
        [sign, h1, h2] => (sign, pair(h1, h2)?, 0),
        _ => return None,
    };
    if hours > 23 || minutes > 59 {
        return None;
    }
    let east = (hours * 3_600 + minutes * 60) * SECOND;
    match sign {
        b'+' => Some(east),
        b'-' => Some(-east),
        _ => None,
    }
}

fn pair(tens: u8, ones: u8) -> Option<i64> {
    (tens.is_ascii_digit() && ones.is_ascii_digit()).then(|| i64::from(tens - b'0') * 10 + i64::from(ones - b'0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rfc3339_text_becomes_microseconds() {
        for (text, micros) in [
            ("1970-01-01T00:00:00Z", Some(0)),
            ("1970-01-01 00:00:00Z", Some(0)),
            ("1970-01-01t00:00:00.5z", Some(500_000)),
            ("2024-02-29T12:34:56.789Z", Some(1_709_210_096_789_000)),
            ("2024-02-29T14:34:56.789+02:00", Some(1_709_210_096_789_000)),
            ("2024-02-29T07:04:56.789-0530", Some(1_709_210_096_789_000)),
            ("2024-02-29T12:34:56.123456999Z", Some(1_709_210_096_123_456)),
            ("2016-12-31T23:59:60Z", Some(1_483_228_800_000_000)),
            ("1969-12-31T23:59:59Z", Some(-1_000_000)),
            ("0000-03-01T00:00:00Z", Some(-62_162_035_200_000_000)),
            ("2023-02-29T00:00:00Z", None),
            ("2024-13-01T00:00:00Z", None),
            ("2024-01-01T24:00:00Z", None),
            ("2024-01-01T00:00:00", None),
            ("2024-01-01", None),
            ("2024-01-01T00:00:00.Z", None),
            ("2024-01-01T00:00:00+25:00", None),
            ("2024-01-01T00:00:00Z ", None),
            ("20000-01-01T00:00:00Z", None),
            ("yesterday", None),
            ("", None),
        ] {
            assert_eq!(from_text(text, TimeUnit::Auto), micros, "{text:?}");
        }
    }

    #[test]
    fn every_day_of_eight_centuries_counts_up_by_one() {
        let mut expected = -135_140; // 1600-01-01
        for year in 1600..2400 {
            for month in 1..=12 {
                for day in 1..=days_of(year, month) {
                    assert_eq!(day_from_text(&format!("{year:04}-{month:02}-{day:02}")), Some(expected));
                    expected += 1;
                }
            }
        }
    }

    #[test]
    fn epoch_numbers_follow_their_unit() {
        use TimeUnit::*;
        for (value, unit, micros) in [
            (1_700_000_000, Auto, Some(1_700_000_000_000_000)),
            (1_700_000_000_123, Auto, Some(1_700_000_000_123_000)),
            (1_700_000_000_123_456, Auto, Some(1_700_000_000_123_456)),
            (1_700_000_000_123_456_789, Auto, Some(1_700_000_000_123_456)),
            (-1, Millis, Some(-1_000)),
            (i64::MAX, Seconds, None),
            (i64::MIN, Millis, None),
            (i64::MAX, Micros, Some(i64::MAX)),
            (i64::MIN, Nanos, Some(i64::MIN.div_euclid(1_000))),
            (i64::MIN, Auto, None),
            (0, Auto, None),
            (20_260_302, Auto, None),
            (253_402_300_799, Auto, None),
            (978_307_199, Auto, None),
            (978_307_200, Auto, Some(978_307_200_000_000)),
            (4_133_980_799_999, Auto, Some(4_133_980_799_999_000)),
            (4_133_980_800, Auto, None),
        ] {
            assert_eq!(from_epoch(value, unit), micros, "{value} {unit:?}");
            assert_eq!(from_text(&value.to_string(), unit), micros, "{value} {unit:?} as text");
        }
        assert_eq!(from_epoch_float(1_700_000_000.25, Auto), Some(1_700_000_000_250_000));
        assert_eq!(from_epoch_float(20_260_302.5, Auto), None);
        assert_eq!(from_epoch_float(1e300, Seconds), None);
        assert_eq!(from_epoch_float(f64::NAN, Micros), None);
        assert_eq!(from_text("+1700000000", Seconds), None);
    }

    #[test]
    fn times_of_day_have_microseconds_and_no_zone() {
        for (text, micros) in [
            ("00:00", Some(0)),
            ("00:00:00", Some(0)),
            ("12:34:56.789", Some(45_296_789_000)),
            ("23:59:59.9999999", Some(86_399_999_999)),
            ("24:00:00", None),
            ("23:60", None),
            ("23:59:60", None),
            ("1:02:03", None),
            ("12:34:", None),
            ("12:34:5", None),
            ("12:34:56.", None),
            ("12:34:56Z", None),
            ("12:34:56+02:00", None),
            ("", None),
            ("noon", None),
        ] {
            assert_eq!(of_day_from_text(text), micros, "{text}");
        }
    }
}
