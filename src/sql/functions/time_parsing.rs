//! The functions `to_timestamp(text, format)` and `to_date(text, format)` with PostgreSQL's patterns.
//!
//! ```text
//!   format ─ time_patterns ─► tokens ─ Reader ─► Fields (as in the text) ─ Fields::time ─► microseconds since 1970
//! ```
//!
//! The rules are those of PostgreSQL: a separator in the format matches any separator or nothing, whitespace before a
//! field is skipped, and the text can be shorter or longer than the format. A field that the text does not contain has
//! its lowest value. A format that contains a `%` uses the patterns of `strftime` and is left to the engine.

use arrow::array::{Array, AsArray as _, StringArray};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::ScalarFunctionArgs;

use crate::clock::{DAY, Micros, SECOND};
use crate::sql::functions::calendar::Date;
use crate::sql::functions::time_patterns::{DAYS, MONTHS, ROMAN, Token, check_format, strip, tokens};

/// The years that a timestamp can have.
const YEARS: std::ops::RangeInclusive<i64> = 1..=9_999;
/// The maximum offset from UTC in hours, as in PostgreSQL.
const OFFSET_HOURS_MAX: i64 = 15;

/// Parses each string of the first argument with the format in the second argument. Returns `None` unless both
/// arguments are strings and every format uses PostgreSQL's patterns.
pub(super) fn parse_texts(function: &str, args: &ScalarFunctionArgs) -> Result<Option<Vec<Option<Micros>>>> {
    let [texts, formats] = args.args.as_slice() else { return Ok(None) };
    let arrays = (texts.clone().into_array(args.number_rows)?, formats.clone().into_array(args.number_rows)?);
    let (Some(texts), Some(formats)) = (as_texts(&arrays.0), as_texts(&arrays.1)) else { return Ok(None) };
    if formats.iter().flatten().any(|format| format.contains('%')) {
        return Ok(None);
    }
    let mut times = Vec::with_capacity(texts.len());
    let mut known: (&str, Vec<Token<'_>>) = ("", Vec::new());
    for (text, format) in texts.iter().zip(formats.iter()) {
        let (Some(text), Some(format)) = (text, format) else {
            times.push(None);
            continue;
        };
        if known.0 != format {
            check_format(function, format)?;
            known = (format, tokens(format));
        }
        times.push(Some(parse(text, &known.1)?));
    }
    Ok(Some(times))
}

fn as_texts(array: &dyn Array) -> Option<&StringArray> {
    array.as_string_opt::<i32>()
}

/// Parses a string into a timestamp. A string without an offset is in UTC.
pub(super) fn parse(text: &str, format: &[Token<'_>]) -> Result<Micros> {
    let mut reader = Reader { text, rest: text, is_fixed: false, skipped: 0, fields: Fields::default() };
    for (index, token) in format.iter().enumerate() {
        if reader.rest.is_empty() {
            break;
        }
        reader.token(*token, index == 0, format.get(index + 1))?;
    }
    reader.fields.time(text)
}

fn invalid(text: &str, reason: &str) -> DataFusionError {
    DataFusionError::Execution(format!("cannot read the time `{text}`: {reason}"))
}

/// The calendar to which a pattern belongs.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Calendar {
    Gregorian,
    IsoWeek,
}

/// The values of the fields in the parsed string. As in PostgreSQL, 0 is the same as a missing value.
#[derive(Debug, Default)]
struct Fields {
    calendar: Option<Calendar>,
    year: i64,
    /// The number of digits in the pattern of the year.
    year_digits: usize,
    century: i64,
    is_before_christ: bool,
    month: i64,
    day: i64,
    day_of_year: i64,
    /// The day of the week, from 1 for Monday.
    weekday: i64,
    week: i64,
    week_of_month: i64,
    julian_day: i64,
    hour: i64,
    is_half_day: bool,
    is_afternoon: bool,
    minute: i64,
    second: i64,
    second_of_day: i64,
    millis: i64,
    micros: i64,
    /// The number of digits to which `FF1` to `FF6` round the fraction of a second, or 0 if there is no such pattern.
    fraction_digits: usize,
    /// The sign of the offset from UTC, or 0 if the string has no offset.
    offset_sign: i64,
    offset_hours: i64,
    offset_minutes: i64,
}

/// Parses a string, one token of the format at a time.
struct Reader<'a> {
    text: &'a str,
    rest: &'a str,
    /// True after `FX`, which disables skipping.
    is_fixed: bool,
    /// The number of skipped characters that the format does not contain.
    skipped: i64,
    fields: Fields,
}

impl Reader<'_> {
    fn token(&mut self, token: Token<'_>, is_first: bool, next: Option<&Token<'_>>) -> Result<()> {
        let is_field = matches!(token, Token::Field { .. });
        let is_fx = matches!(token, Token::Field { name: "FX", .. });
        if !self.is_fixed && !is_fx && (is_field || is_first) {
            self.skip_spaces();
        }
        match token {
            Token::Text(char) if char.starts_with(is_separator_or_space) => self.separator(),
            Token::Text(text) | Token::Quoted(text) => text.chars().for_each(|_| self.character()),
            Token::Field { name: "FX", .. } => self.is_fixed = true,
            Token::Field { name, fill, ordinal } => {
                let takes_all = !fill || ordinal.is_some() || next.is_none_or(|next| !starts_with_digit(next));
                self.field(name, takes_all)?;
                if ordinal.is_some() {
                    self.skip(2);
                }
                if !self.is_fixed {
                    self.skipped = 0;
                    self.skip_spaces();
                }
            }
        }
        Ok(())
    }

    fn skip(&mut self, chars: usize) {
        let mut rest = self.rest.chars();
        rest.by_ref().take(chars).for_each(drop);
        self.rest = rest.as_str();
    }

    fn skip_spaces(&mut self) {
        while self.rest.starts_with(is_space) {
            self.skip(1);
            self.skipped += 1;
        }
    }

    /// Handles a separator or a space in the format, which matches one separator, one space or nothing.
    fn separator(&mut self) {
        if self.is_fixed {
            return self.skip(1);
        }
        self.skipped -= 1;
        if self.rest.starts_with(is_separator_or_space) {
            self.skip(1);
            self.skipped += 1;
        }
    }

    /// Handles any other character in the format, which matches any character.
    fn character(&mut self) {
        if !self.is_fixed && self.skipped > 0 {
            self.skipped -= 1;
        } else {
            self.skip(1);
        }
    }

    fn field(&mut self, name: &'static str, takes_all: bool) -> Result<()> {
        self.set_calendar(name)?;
        match name {
            "MONTH" | "Month" | "month" => {
                let month = self.word(name, &MONTHS)? + 1;
                set(&mut self.fields.month, month, name, self.text)?;
            }
            "MON" | "Mon" | "mon" => {
                let month = self.word(name, &MONTHS.map(|month| &month[..3]))? + 1;
                set(&mut self.fields.month, month, name, self.text)?;
            }
            "RM" => {
                // A longer numeral comes before its prefixes.
                let longest = ["VIII", "III", "VII", "XII", "II", "IV", "VI", "IX", "XI", "I", "V", "X"];
                let found = self.word(name, &longest)?;
                let month = usize::try_from(found).ok().and_then(|found| longest.get(found));
                let index = ROMAN.iter().position(|roman| Some(roman) == month).unwrap_or_default();
                let month = i64::try_from(index).unwrap_or_default() + 1;
                set(&mut self.fields.month, month, name, self.text)?;
            }
            "DAY" | "Day" | "day" => self.fields.weekday = self.word(name, &DAYS)? + 1,
            "DY" | "Dy" | "dy" => self.fields.weekday = self.word(name, &DAYS.map(|day| &day[..3]))? + 1,
            "AM" | "PM" | "am" | "pm" => self.half_day(name, &["AM", "PM"])?,
            "A.M." | "P.M." | "a.m." | "p.m." => self.half_day(name, &["A.M.", "P.M."])?,
            "AD" | "BC" | "ad" | "bc" => self.fields.is_before_christ = self.word(name, &["AD", "BC"])? == 1,
            "TZ" | "OF" => {
                let reason = format!("`{name}` is supported only in to_char. Use `TZH:TZM` for an offset");
                return Err(invalid(self.text, &reason));
            }
            "TZH" => {
                let is_sign = self.rest.starts_with(['+', '-', ' ']);
                // The minus sign may already have been read as a separator.
                let before = &self.text[..self.text.len() - self.rest.len()];
                let is_minus = self.rest.starts_with('-') || !is_sign && self.skipped > 0 && before.ends_with('-');
                self.fields.offset_sign = if is_minus { -1 } else { 1 };
                self.skip(usize::from(is_sign));
                self.fields.offset_hours = self.number(name, 2, takes_all)?.0;
            }
            "TZM" => {
                self.fields.offset_sign = if self.fields.offset_sign == 0 { 1 } else { self.fields.offset_sign };
                self.fields.offset_minutes = self.number(name, 2, takes_all)?.0;
            }
            "Y,YYY" => {
                let thousands = self.number(name, 1, true)?.0;
                self.skip(usize::from(self.rest.starts_with(',')));
                let year = thousands.saturating_mul(1_000).saturating_add(self.number(name, 3, false)?.0);
                self.fields.year_digits = 4;
                set(&mut self.fields.year, year, name, self.text)?;
            }
            _ => self.number_field(name, takes_all)?,
        }
        Ok(())
    }

    fn number_field(&mut self, name: &'static str, takes_all: bool) -> Result<()> {
        let digits = match name {
            "HH24" | "HH12" => 2,
            "MS" | "IDDD" => 3,
            "US" => 6,
            _ => match name.strip_prefix("FF").and_then(|digits| digits.parse().ok()) {
                Some(digits) => digits,
                None => name.len(),
            },
        };
        let (value, length) = self.number(name, digits, takes_all)?;
        let fields = &mut self.fields;
        // The first digits of a fraction are the most significant: 25 is 0.25.
        let fraction = |places: usize| (length..places).fold(value, |value, _| value.saturating_mul(10));
        let field = match name {
            "YYYY" | "IYYY" | "YYY" | "IYY" | "YY" | "IY" | "Y" | "I" => {
                fields.year_digits = name.len();
                let year = if name.len() < 4 && length < 4 { near_2020(value) } else { value };
                return set(&mut fields.year, year, name, self.text);
            }
            "HH12" | "HH" => {
                fields.is_half_day = true;
                &mut fields.hour
            }
            "HH24" => &mut fields.hour,
            "MI" => &mut fields.minute,
            "SS" => &mut fields.second,
            "SSSS" | "SSSSS" => &mut fields.second_of_day,
            "MS" => return set(&mut fields.millis, fraction(3), name, self.text),
            "US" | "FF1" | "FF2" | "FF3" | "FF4" | "FF5" | "FF6" => {
                fields.fraction_digits = if name == "US" { fields.fraction_digits } else { digits };
                return set(&mut fields.micros, fraction(6), name, self.text);
            }
            "CC" => &mut fields.century,
            "MM" => &mut fields.month,
            "DD" => &mut fields.day,
            "DDD" | "IDDD" => &mut fields.day_of_year,
            "D" => return set(&mut fields.weekday, (value + 5).rem_euclid(7) + 1, name, self.text),
            "ID" => &mut fields.weekday,
            "W" => &mut fields.week_of_month,
            "WW" | "IW" => &mut fields.week,
            "J" => &mut fields.julian_day,
            // The quarter (`Q`) is ignored, as in PostgreSQL.
            _ => return Ok(()),
        };
        set(field, value, name, self.text)
    }

    /// Refuses a format that combines a pattern of the Gregorian calendar with a pattern of ISO weeks.
    fn set_calendar(&mut self, name: &str) -> Result<()> {
        let calendar = match name {
            "IYYY" | "IYY" | "IY" | "I" | "IW" | "ID" | "IDDD" => Calendar::IsoWeek,
            "YYYY" | "Y,YYY" | "YYY" | "YY" | "Y" | "MONTH" | "Month" | "month" | "MON" | "Mon" | "mon" | "MM"
            | "RM" | "DD" | "DDD" | "D" | "W" | "WW" => Calendar::Gregorian,
            _ => return Ok(()),
        };
        if self.fields.calendar.is_some_and(|other| other != calendar) {
            let reason = "the format combines a pattern of the Gregorian calendar with a pattern of ISO weeks";
            return Err(invalid(self.text, reason));
        }
        self.fields.calendar = Some(calendar);
        Ok(())
    }

    fn half_day(&mut self, name: &str, names: &[&str]) -> Result<()> {
        self.fields.is_afternoon = self.word(name, names)? == 1;
        self.fields.is_half_day = true;
        Ok(())
    }

    /// Reads the first of `words` that matches, ignoring case, and returns its index.
    fn word(&mut self, name: &str, words: &[&str]) -> Result<i64> {
        let found = words.iter().zip(0..).find_map(|(word, index)| Some((index, strip(self.rest, word)?)));
        let (index, rest) = found.ok_or_else(|| self.mismatch(name))?;
        self.rest = rest;
        Ok(index)
    }

    /// Reads a number of at most `digits` digits, or of any length if `takes_all` is true. Returns the number and its
    /// length.
    fn number(&mut self, name: &str, digits: usize, takes_all: bool) -> Result<(i64, usize)> {
        self.rest = self.rest.trim_start_matches(is_space);
        let limit = if takes_all { usize::MAX } else { digits };
        let has_sign = self.rest.starts_with(['+', '-']);
        let is_part =
            |(index, char): &(usize, char)| *index < limit && (char.is_ascii_digit() || *index == 0 && has_sign);
        let length = self.rest.char_indices().take_while(is_part).count();
        let (number, rest) = self.rest.split_at(length);
        if !takes_all && length < digits {
            return Err(self.mismatch(name));
        }
        let value: i64 = number.parse::<i32>().map_err(|_| self.mismatch(name))?.into();
        self.rest = rest;
        Ok((value, length))
    }

    fn mismatch(&self, name: &str) -> DataFusionError {
        let at = self.text.len() - self.rest.len();
        let found: String = self.rest.chars().take(20).collect();
        invalid(self.text, &format!("`{found}` at byte {} does not match `{name}`", at + 1))
    }
}

/// Sets a field. Fails if another pattern has already set the field to a different value.
fn set(field: &mut i64, value: i64, name: &str, text: &str) -> Result<()> {
    if *field != 0 && *field != value {
        return Err(invalid(text, &format!("the text has two different values for `{name}`")));
    }
    *field = value;
    Ok(())
}

/// Returns the year nearest to 2020 that ends with the digits of `year`, which was given with fewer than four digits.
fn near_2020(year: i64) -> i64 {
    match year {
        ..70 => year + 2_000,
        70..100 => year + 1_900,
        100..520 => year + 2_000,
        520..1_000 => year + 1_000,
        _ => year,
    }
}

fn is_space(char: char) -> bool {
    matches!(char, ' ' | '\t' | '\n' | '\r' | '\x0b' | '\x0c')
}

fn is_separator_or_space(char: char) -> bool {
    char.is_ascii_punctuation() || is_space(char)
}

/// Returns true if a token matches text that begins with a digit. A number before such a token has a fixed length.
fn starts_with_digit(token: &Token<'_>) -> bool {
    match token {
        Token::Text(text) | Token::Quoted(text) => text.starts_with(|char: char| char.is_ascii_digit()),
        Token::Field { name, .. } => {
            let is_number = name.starts_with(['Y', 'I', 'H', 'S', 'U', 'C', 'Q', 'J', 'W', 'F']) && *name != "FX";
            is_number || matches!(*name, "MI" | "MM" | "MS" | "D" | "DD" | "DDD" | "TZM")
        }
    }
}

impl Fields {
    /// Returns the timestamp that the fields represent.
    fn time(mut self, text: &str) -> Result<Micros> {
        let out_of_range = || invalid(text, "a date or time field is out of range");
        let day = self.day_number(text)?.ok_or_else(out_of_range)?;
        let hour = self.hour(text)?;
        let from_day = |seconds: i64, own: i64| if own == 0 { seconds } else { own };
        let minute = from_day(self.second_of_day / 60 % 60, self.minute);
        let second = from_day(self.second_of_day % 60, self.second);
        let micros = self.millis.saturating_mul(1_000).saturating_add(self.micros);
        let is_valid = (0..24).contains(&hour)
            && (0..60).contains(&minute)
            && (0..60).contains(&second)
            && (0..SECOND).contains(&micros)
            && (0..=OFFSET_HOURS_MAX).contains(&self.offset_hours)
            && (0..60).contains(&self.offset_minutes);
        if !is_valid {
            return Err(out_of_range());
        }
        let unit = (self.fraction_digits..6).fold(1, |unit, _| unit * 10);
        let micros = if self.fraction_digits == 0 { micros } else { (micros + unit / 2) / unit * unit };
        let offset = self.offset_sign * (self.offset_hours * 60 + self.offset_minutes) * 60 * SECOND;
        let time_of_day = ((hour * 60 + minute) * 60 + second) * SECOND + micros;
        let time = day.checked_mul(DAY).and_then(|start| start.checked_add(time_of_day - offset));
        let time = time.ok_or_else(out_of_range)?;
        if !YEARS.contains(&Date::at(time).year) {
            return Err(invalid(text, "the year is not in the range from 1 to 9999"));
        }
        Ok(time)
    }

    fn hour(&self, text: &str) -> Result<i64> {
        let hour = if self.hour == 0 { self.second_of_day / 3_600 } else { self.hour };
        if !self.is_half_day {
            return Ok(hour);
        }
        if !(1..=12).contains(&hour) {
            let reason = format!("the hour {hour} is not in the range from 1 to 12. Use `HH24` for the 24-hour clock");
            return Err(invalid(text, &reason));
        }
        Ok(hour % 12 + if self.is_afternoon { 12 } else { 0 })
    }

    /// Returns the number of days since 1970, or `None` if a field is out of range.
    fn day_number(&mut self, text: &str) -> Result<Option<i64>> {
        let is_iso = self.calendar == Some(Calendar::IsoWeek);
        let mut date = Date { year: self.full_year(), month: 1, day: 1 };
        if self.julian_day != 0 {
            date = Date::of_day(self.julian_day - 2_440_588);
        }
        if self.week != 0 && is_iso {
            // If no day of the week is given, the date is the Monday of the week.
            date = Date::of_day(first_monday(date.year) + (self.week - 1) * 7 + (self.weekday.max(1) - 1));
        } else if self.week != 0 {
            self.day_of_year = (self.week - 1) * 7 + 1;
        }
        if self.week_of_month != 0 {
            self.day = (self.week_of_month - 1) * 7 + 1;
        }
        date.day = if self.day == 0 { date.day } else { self.day };
        date.month = if self.month == 0 { date.month } else { self.month };
        if self.day_of_year != 0 && (date.month <= 1 || date.day <= 1) {
            if date.year == 0 && !self.is_before_christ {
                return Err(invalid(text, "a day of the year needs a year"));
            }
            let first = if is_iso { first_monday(date.year) } else { Date { month: 1, day: 1, ..date }.day_number() };
            let found = Date::of_day(first + self.day_of_year - 1);
            if is_iso {
                return Ok(Some(found.day_number()));
            }
            if found.year != date.year {
                return Ok(None);
            }
            date.month = if date.month <= 1 { found.month } else { date.month };
            date.day = if date.day <= 1 { found.day } else { date.day };
        }
        let is_valid = (1..=12).contains(&date.month) && (1..=date.days_in_month()).contains(&date.day);
        Ok(is_valid.then(|| date.day_number()))
    }

    /// Returns the year in astronomical numbering, in which the year 0 is 1 BC.
    fn full_year(&self) -> i64 {
        let century = if self.is_before_christ { -self.century } else { self.century };
        if self.year == 0 {
            return match century {
                0 => 0,
                1.. => (century - 1) * 100 + 1,
                _ => century * 100 + 1,
            };
        }
        if century != 0 && self.year_digits <= 2 {
            let year = self.year % 100;
            return match (year, century) {
                (0, 1..) => century * 100,
                (0, _) => century * 100 + 1,
                (_, 1..) => year + (century - 1) * 100,
                _ => (century + 1) * 100 - year + 1,
            };
        }
        let year = if self.is_before_christ { -self.year } else { self.year };
        if year < 0 { year + 1 } else { year }
    }
}

/// Returns the day on which the first ISO week of a year begins.
fn first_monday(year: i64) -> i64 {
    // 4 January is always in the first week.
    let day = Date { year, month: 1, day: 4 }.day_number();
    day - (day + 3).rem_euclid(7)
}
