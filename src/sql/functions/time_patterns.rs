//! The format strings of `to_char`, `to_timestamp` and `to_date`, with PostgreSQL's patterns (`YYYY-MM-DD HH24:MI:SS`).
//!
//! [`tokens`] splits a format string into patterns and text. `to_char.rs` uses the tokens to format a time, and
//! `time_parsing.rs` uses them to parse one.

use datafusion::error::{DataFusionError, Result};

/// The maximum size of a format string. This limit also bounds the size of the result of `to_char`.
const FORMAT_BYTES_MAX: usize = 256;

/// The English names of the months.
pub(super) const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
/// The English names of the days of the week.
pub(super) const DAYS: [&str; 7] = ["Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday"];
/// The months as Roman numerals.
pub(super) const ROMAN: [&str; 12] = ["I", "II", "III", "IV", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII"];

/// The patterns, in the order in which they are tried. A longer pattern comes before its prefixes. A pattern can also
/// be written in lower case, which matters only for patterns of names, such as `Month`.
const PATTERNS: [&str; 60] = [
    "YYYY", "Y,YYY", "IYYY", "YYY", "YY", "IYY", "IY", "HH24", "HH12", "HH", "MONTH", "Month", "month", "MON", "Mon",
    "mon", "MM", "MI", "MS", "DAY", "Day", "day", "DDD", "DD", "DY", "Dy", "dy", "IDDD", "ID", "IW", "SSSSS", "SSSS",
    "SS", "US", "FF1", "FF2", "FF3", "FF4", "FF5", "FF6", "FX", "WW", "CC", "AM", "PM", "am", "pm", "A.M.", "P.M.",
    "a.m.", "p.m.", "OF", "TZH", "TZM", "TZ", "RM", "AD", "BC", "ad", "bc",
];
/// The patterns that consist of a single letter.
const LETTERS: [&str; 6] = ["Y", "I", "D", "W", "Q", "J"];

/// A token of a format string.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Token<'a> {
    /// A character that is not part of a pattern. `to_char` copies it to the result.
    Text(&'a str),
    /// Text in double quotes, which can contain the letters of patterns.
    Quoted(&'a str),
    /// A pattern. `fill` is false after `FM` and `TM`, which disable leading zeros and padding. `ordinal` requests an
    /// ordinal suffix such as `th`.
    Field { name: &'static str, fill: bool, ordinal: Option<bool> },
}

/// Returns an error if the format string of `function` is too long.
pub(super) fn check_format(function: &str, format: &str) -> Result<()> {
    if format.len() <= FORMAT_BYTES_MAX {
        return Ok(());
    }
    Err(DataFusionError::Plan(format!(
        "a format of `{function}` has more than {FORMAT_BYTES_MAX} bytes: split it into several calls"
    )))
}

/// Splits a format string into patterns and text.
pub(super) fn tokens(format: &str) -> Vec<Token<'_>> {
    let (mut tokens, mut rest) = (Vec::new(), format);
    let mut fill = true;
    while let Some(first) = rest.chars().next() {
        if let Some(quoted) = rest.strip_prefix('"') {
            let end = quoted.find('"').unwrap_or(quoted.len());
            tokens.push(Token::Quoted(&quoted[..end]));
            rest = quoted.get(end + 1..).unwrap_or_default();
        } else if let Some(after) = ["FM", "fm", "TM", "tm"].iter().find_map(|prefix| rest.strip_prefix(prefix)) {
            (fill, rest) = (false, after);
        } else if let Some((name, after)) = pattern(rest) {
            let (ordinal, after) = match () {
                () if after.starts_with("TH") => (Some(true), &after[2..]),
                () if after.starts_with("th") => (Some(false), &after[2..]),
                () => (None, after),
            };
            tokens.push(Token::Field { name, fill, ordinal });
            (fill, rest) = (true, after);
        } else {
            let (text, after) = rest.split_at(first.len_utf8());
            tokens.push(Token::Text(text));
            rest = after;
        }
    }
    tokens
}

/// Finds the pattern at the start of a format string.
fn pattern(format: &str) -> Option<(&'static str, &str)> {
    let find = |is_exact: bool| {
        PATTERNS.iter().chain(&LETTERS).find_map(|name| {
            let after = if is_exact { format.strip_prefix(*name) } else { strip_lower(format, name) };
            after.map(|after| (*name, after))
        })
    };
    let exact = find(true);
    let other = find(false);
    // `month` and `MONTH` are different patterns, but `yyyy` and `YYYY` are the same pattern.
    match (exact, other) {
        (Some(exact), Some(other)) if exact.0.len() >= other.0.len() => Some(exact),
        (Some(exact), None) => Some(exact),
        (_, other) => other,
    }
}

/// Removes a prefix that is written in lower case.
fn strip_lower<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let rest = strip(text, prefix)?;
    let is_lower = text.bytes().take(prefix.len()).all(|byte| !byte.is_ascii_uppercase());
    is_lower.then_some(rest)
}

/// Removes a prefix, ignoring the case of ASCII letters.
pub(super) fn strip<'a>(text: &'a str, prefix: &str) -> Option<&'a str> {
    let start = text.get(..prefix.len())?;
    start.eq_ignore_ascii_case(prefix).then(|| &text[prefix.len()..])
}
