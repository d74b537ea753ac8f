//! The function `to_char(time, format)`.
//!
//! The format uses PostgreSQL's patterns (`YYYY-MM-DD HH24:MI:SS`), or those of `strftime` if it contains a `%`.
//! Letters that are not part of a pattern are copied, as in PostgreSQL.

use std::fmt::Write as _;
use std::sync::Arc;

use arrow::array::{AsArray as _, StringBuilder};
use arrow::compute::cast;
use arrow::datatypes::DataType;
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::functions::datetime;
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs};

use crate::clock::{DAY, Micros, SECOND};
use crate::sql::functions::calendar::{Date, Zone, micros, timestamp_type};
use crate::sql::functions::definition::{FunctionDefinition, unordered, wrong_arguments};
use crate::sql::functions::time_patterns::{DAYS, MONTHS, ROMAN, Token, check_format, tokens};

pub(super) const TO_CHAR: FunctionDefinition = FunctionDefinition {
    name: "to_char",
    coerce: |kinds| match kinds {
        [time, _] => {
            let is_other = matches!(time, DataType::Time32(_) | DataType::Time64(_) | DataType::Duration(_));
            let time = if is_other || *time == DataType::Date32 { Some(time.clone()) } else { timestamp_type(time) };
            Ok(vec![time.ok_or_else(|| wrong_arguments("to_char", USAGE))?, DataType::Utf8])
        }
        _ => Err(wrong_arguments("to_char", USAGE)),
    },
    returns: |_, _| Ok(DataType::Utf8),
    call: to_char,
    ordering: unordered,
    keeps_name: false,
};

const USAGE: &str = "to_char(time, 'YYYY-MM-DD HH24:MI:SS')";

fn to_char(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let formats = args.args[1].clone().into_array(args.number_rows)?;
    let formats = formats.as_string::<i32>();
    formats.iter().flatten().try_for_each(|format| check_format("to_char", format))?;
    if formats.iter().flatten().any(|format| format.contains('%')) {
        return strftime(args);
    }
    let kind = args.args[0].data_type();
    if !matches!(kind, DataType::Timestamp(_, _) | DataType::Date32) {
        return Err(DataFusionError::Plan("`to_char` formats only timestamps and dates: cast the value".to_owned()));
    }
    let name = match &kind {
        DataType::Timestamp(_, Some(name)) => name.to_string(),
        _ => "UTC".to_owned(),
    };
    let zone = Zone::of(&kind)?;
    let times = micros(&args.args[0], args.number_rows)?;
    let mut texts = StringBuilder::new();
    let mut known: (&str, Vec<Token<'_>>) = ("", Vec::new());
    for (time, format) in times.iter().zip(formats.iter()) {
        let (Some(time), Some(format)) = (time, format) else {
            texts.append_null();
            continue;
        };
        if known.0 != format {
            known = (format, tokens(format));
        }
        let offset = zone.offset(time)?;
        let moment = Moment::new(zone.local(time)?, offset, &name);
        let mut text = String::new();
        known.1.iter().for_each(|token| token.write(&moment, &mut text));
        texts.append_value(text);
    }
    Ok(ColumnarValue::Array(Arc::new(texts.finish())))
}

/// Calls the engine's function, which uses the format syntax of `strftime`.
fn strftime(args: &ScalarFunctionArgs) -> Result<ColumnarValue> {
    let result = datetime::to_char().inner().invoke_with_args(args.clone())?;
    Ok(match result {
        ColumnarValue::Scalar(scalar) => ColumnarValue::Scalar(ScalarValue::cast_to(&scalar, &DataType::Utf8)?),
        ColumnarValue::Array(array) => ColumnarValue::Array(cast(&array, &DataType::Utf8)?),
    })
}

/// A local time that is split into fields.
struct Moment<'a> {
    date: Date,
    day: i64,
    time: Micros,
    offset: Micros,
    zone: &'a str,
}

impl<'a> Moment<'a> {
    fn new(local: Micros, offset: Micros, zone: &'a str) -> Self {
        let day = local.div_euclid(DAY);
        Self { date: Date::of_day(day), day, time: local.rem_euclid(DAY), offset, zone }
    }

    /// Returns the day of the week, from 0 (Monday) to 6 (Sunday).
    fn weekday(&self) -> i64 {
        (self.day + 3).rem_euclid(7)
    }

    fn day_of_year(&self) -> i64 {
        self.day - Date { month: 1, day: 1, ..self.date }.day_number() + 1
    }

    /// Returns the year and the week of the ISO calendar, in which week 1 contains the year's first Thursday.
    fn iso_week(&self) -> (i64, i64) {
        let thursday = self.day - self.weekday() + 3;
        let year = Date::of_day(thursday).year;
        let first = Date { year, month: 1, day: 1 }.day_number();
        (year, (thursday - first) / 7 + 1)
    }

    /// Returns the number that a numeric pattern represents, and the minimum number of digits.
    fn number(&self, name: &str) -> Option<(i64, usize)> {
        let hour = self.time / (3_600 * SECOND);
        let Date { year, month, day } = self.date;
        let year = before_christ(year);
        let (iso_year, iso_week) = self.iso_week();
        let iso_year = before_christ(iso_year);
        Some(match name {
            "YYYY" => (year, 4),
            "YYY" => (year.rem_euclid(1_000), 3),
            "YY" => (year.rem_euclid(100), 2),
            "Y" => (year.rem_euclid(10), 1),
            "IYYY" => (iso_year, 4),
            "IYY" => (iso_year.rem_euclid(1_000), 3),
            "IY" => (iso_year.rem_euclid(100), 2),
            "I" => (iso_year.rem_euclid(10), 1),
            "HH24" => (hour, 2),
            "HH12" | "HH" => ((hour + 11) % 12 + 1, 2),
            "MI" => (self.time / (60 * SECOND) % 60, 2),
            "SS" => (self.time / SECOND % 60, 2),
            "MS" => (self.time % SECOND / 1_000, 3),
            "US" | "FF6" => (self.time % SECOND, 6),
            "FF1" => (self.time % SECOND / 100_000, 1),
            "FF2" => (self.time % SECOND / 10_000, 2),
            "FF3" => (self.time % SECOND / 1_000, 3),
            "FF4" => (self.time % SECOND / 100, 4),
            "FF5" => (self.time % SECOND / 10, 5),
            "SSSS" | "SSSSS" => (self.time / SECOND, 1),
            "MM" => (month, 2),
            "DD" => (day, 2),
            "DDD" => (self.day_of_year(), 3),
            "IDDD" => ((iso_week - 1) * 7 + self.weekday() + 1, 3),
            "D" => ((self.weekday() + 1) % 7 + 1, 1),
            "ID" => (self.weekday() + 1, 1),
            "W" => ((day - 1) / 7 + 1, 1),
            "WW" => ((self.day_of_year() - 1) / 7 + 1, 2),
            "IW" => (iso_week, 2),
            "CC" => ((year - 1).div_euclid(100) + 1, 2),
            "Q" => ((month - 1) / 3 + 1, 1),
            "J" => (self.day + 2_440_588, 1),
            _ => return None,
        })
    }

    /// Returns the word that a pattern represents, and the width to which the word is padded.
    fn word(&self, name: &str) -> (String, usize) {
        let month = MONTHS[self.date.month.clamp(1, 12) as usize - 1];
        let day = DAYS[self.weekday() as usize];
        let is_morning = self.time < DAY / 2;
        let half = |morning: &str, evening: &str| if is_morning { morning.to_owned() } else { evening.to_owned() };
        match name {
            "MONTH" => (month.to_uppercase(), 9),
            "Month" => (month.to_owned(), 9),
            "month" => (month.to_lowercase(), 9),
            "MON" => (month[..3].to_uppercase(), 0),
            "Mon" => (month[..3].to_owned(), 0),
            "mon" => (month[..3].to_lowercase(), 0),
            "DAY" => (day.to_uppercase(), 9),
            "Day" => (day.to_owned(), 9),
            "day" => (day.to_lowercase(), 9),
            "DY" => (day[..3].to_uppercase(), 0),
            "Dy" => (day[..3].to_owned(), 0),
            "dy" => (day[..3].to_lowercase(), 0),
            "AM" | "PM" => (half("AM", "PM"), 0),
            "am" | "pm" => (half("am", "pm"), 0),
            "AD" | "BC" => ((if self.date.year > 0 { "AD" } else { "BC" }).to_owned(), 0),
            "ad" | "bc" => ((if self.date.year > 0 { "ad" } else { "bc" }).to_owned(), 0),
            "a.m." | "p.m." => (half("a.m.", "p.m."), 0),
            "A.M." | "P.M." => (half("A.M.", "P.M."), 0),
            "Y,YYY" => (format!("{},{:03}", self.date.year / 1_000, self.date.year.rem_euclid(1_000)), 0),
            "TZ" => (self.zone.to_owned(), 0),
            "TZH" => (format!("{}{:02}", self.sign(), self.offset.abs() / (3_600 * SECOND)), 0),
            "TZM" => (format!("{:02}", self.offset.abs() / (60 * SECOND) % 60), 0),
            "OF" => {
                let minutes = self.offset.abs() / (60 * SECOND);
                let rest = if minutes % 60 == 0 { String::new() } else { format!(":{:02}", minutes % 60) };
                (format!("{}{:02}{rest}", self.sign(), minutes / 60), 0)
            }
            // `FX` affects only conversions from text.
            "FX" => (String::new(), 0),
            _ => (ROMAN[self.date.month.clamp(1, 12) as usize - 1].to_owned(), 4),
        }
    }

    fn sign(&self) -> char {
        if self.offset < 0 { '-' } else { '+' }
    }
}

/// Returns the number of the year within its era (BC or AD). The year 0 is the year 1 BC.
fn before_christ(year: i64) -> i64 {
    if year > 0 { year } else { 1 - year }
}

impl Token<'_> {
    fn write(&self, moment: &Moment<'_>, text: &mut String) {
        let (name, fill, ordinal) = match self {
            Self::Text(copied) | Self::Quoted(copied) => return text.push_str(copied),
            Self::Field { name, fill, ordinal } => (*name, *fill, *ordinal),
        };
        let Some((number, digits)) = moment.number(name) else {
            let (word, width) = moment.word(name);
            let width = if fill { width } else { 0 };
            // Writing to a `String` cannot fail.
            let _ = write!(text, "{word:<width$}");
            return;
        };
        let digits = if fill || matches!(name, "MS" | "US") || name.starts_with("FF") { digits } else { 1 };
        let _ = write!(text, "{number:0digits$}");
        if let Some(is_upper) = ordinal {
            let suffix = match (number % 100, number % 10) {
                (11..=13, _) => "th",
                (_, 1) => "st",
                (_, 2) => "nd",
                (_, 3) => "rd",
                _ => "th",
            };
            text.push_str(&if is_upper { suffix.to_uppercase() } else { suffix.to_owned() });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_agree_with_postgres() {
        // 2026-03-09T05:04:03.000021Z, which is a Monday.
        let time = 1_773_032_643_000_021;
        for (format, expected) in [
            ("YYYY-MM-DD HH24:MI:SS", "2026-03-09 05:04:03"),
            ("yyyy-mm", "2026-03"),
            ("FMDD.FMMM.YY", "9.3.26"),
            ("Day, DDth Month YYYY", "Monday   , 09th March     2026"),
            ("FMDay, FMDDth FMMonth", "Monday, 9th March"),
            ("Mon MON mon Dy DY dy", "Mar MAR mar Mon MON mon"),
            ("HH12:MI am PM", "05:04 am AM"),
            ("MS US SSSS", "000 000021 18243"),
            ("FXFF1 FF3 FF5 ff6", "0 000 00002 000021"),
            ("TMMonth HH24hMI", "March 05h04"),
            ("Q IYYY-IW-ID DDD J", "1 2026-11-1 068 2461109"),
            ("\"Q\"Q \"at\"", "Q1 at"),
            ("Y,YYY CC WW W D", "2,026 21 10 2 2"),
            ("TZ OF", "UTC +00"),
        ] {
            let mut text = String::new();
            let moment = Moment::new(time, 0, "UTC");
            tokens(format).iter().for_each(|token| token.write(&moment, &mut text));
            assert_eq!(text, expected, "{format}");
        }
    }
}
