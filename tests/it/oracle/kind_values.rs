//! The documented rules for decimals, UUIDs, times of day and JSON, and random texts for these kinds.
//!
//! Both oracles read the texts of these columns with [`from_text`], which works on digits and characters and does not
//! use the server's code. Both generators produce the texts with [`text`].

use glasshouse::contract::{ColumnKind, Reason};

use super::choices::Choices;
use super::json_tree::{DEPTH_MAX, tree};
use super::outcome::Cell;

/// An exponent that is too large for any decimal.
const EXPONENT_MAX: i128 = 1 << 80;

/// Numbers in the form of JSON at the limits of decimals. The last entries are not decimals.
const DECIMALS: [&str; 26] = [
    "0",
    "12.50",
    "-0.001",
    "1.0000000000",
    "99.99",
    "100",
    "-999.995",
    "1.5e3",
    "125E-2",
    "1e-10",
    "0.0e-7",
    "0e99999999999999999999",
    "1e99999999999999999999",
    "-1e-99999999999999999999",
    "9007199254740993",
    "9007199254740993.0000000001",
    "99999999999999999999999999999999999999",
    "-99999999999999999999999999999999999999",
    "100000000000000000000000000000000000000",
    "9999999999999999999999999999.9999999999",
    "-0.99999999999999999999999999999999999999",
    "0.000000000000000000000000000000000000001",
    "12345678901234567890123456789012345678901234567890",
    "1,5",
    "+1",
    "1.",
];
const UUIDS: [&str; 9] = [
    "00000000-0000-0000-0000-000000000000",
    "ffffffff-ffff-ffff-ffff-ffffffffffff",
    "550E8400-E29B-41D4-A716-446655440000",
    "550e8400e29b41d4a716446655440000",
    "550e8400e29B41d4A716446655440000",
    "550e8400-e29b-41d4-a716-446655440000",
    "{550e8400-e29b-41d4-a716-446655440000}",
    "urn:uuid:550e8400-e29b-41d4-a716-446655440000",
    "550e8400-e29b-41d4-a716-44665544000",
];
const TIMES: [&str; 13] = [
    "00:00",
    "23:59:59.999999",
    "12:34:56",
    "23:59:59.9999999",
    "01:02:03.4",
    "12:34:56.0000001",
    "24:00",
    "12:34:60",
    "12:34:56Z",
    "12:34:56+02:00",
    "1:02:03",
    "12:34:56.",
    "12:34:",
];
const JSON: [&str; 14] = [
    "{}",
    " [1, 2.50 ]\\n",
    "null",
    "\"a\"",
    "-0",
    "{\"b\": 1e400, \"a\": [null, true], \"b\": \"\u{e9}\"}",
    "123456789012345678901234567890.10",
    "\"\\ud83d\\ude00\"",
    "\"\\ud800\"",
    "{\"a\": NaN}",
    "[1,]",
    "{} {}",
    "",
    "text",
];

/// Generates a text that a column of this kind may accept, or returns `None` for a kind that this module does not read.
pub(super) fn text(choices: &mut Choices<'_>, kind: ColumnKind) -> Option<String> {
    // The last entries are refused, and are chosen rarely.
    let mut pick = |texts: &[&str], valid: usize| {
        let count = if choices.chance(24) { texts.len() } else { valid };
        texts[choices.below(count)].to_owned()
    };
    Some(match kind {
        ColumnKind::Decimal { .. } => match pick(&["known", "small", "exact", "small"], 4).as_str() {
            "known" => pick(&DECIMALS, DECIMALS.len() - 3),
            "exact" => exact(choices, kind),
            _ => format!("{}.{}", choices.byte().cast_signed(), choices.byte() % 100),
        },
        ColumnKind::Uuid => pick(&UUIDS, 6),
        ColumnKind::Time => pick(&TIMES, 6),
        ColumnKind::Json => pick(&JSON, 8).replace("\\n", "\n"),
        _ => return None,
    })
}

/// Generates a decimal with all digits that its column has.
fn exact(choices: &mut Choices<'_>, kind: ColumnKind) -> String {
    let ColumnKind::Decimal { precision, scale } = kind else { return String::new() };
    let digits: String = (0..precision).map(|_| char::from(b'0' + choices.byte() % 10)).collect();
    let (whole, fraction) = digits.split_at(usize::from(precision - scale));
    let point = if fraction.is_empty() { "" } else { "." };
    format!(
        "{}{}{point}{fraction}",
        if choices.chance(128) { "-" } else { "" },
        if whole.is_empty() { "0" } else { whole }
    )
    .replace("-00", "-0")
}

/// Reads the text of a column of this kind. Returns `None` for a kind that this module does not read.
pub(super) fn from_text(kind: ColumnKind, text: &str) -> Option<Result<Cell, Reason>> {
    Some(match kind {
        ColumnKind::Decimal { precision, scale } => decimal(text, precision.into(), scale.into()),
        ColumnKind::Uuid => uuid(text).map(Cell::Text).ok_or(Reason::WrongType),
        ColumnKind::Time => time_of_day(text).map(Cell::Int).ok_or(Reason::WrongType),
        ColumnKind::Json if is_json(text) => Ok(Cell::Text(text.to_owned())),
        ColumnKind::Json => Err(Reason::WrongType),
        _ => return None,
    })
}

/// Reads a number as its significant digits times a power of ten. A digit that the scale cuts off is `WrongType`. A
/// digit too many before the point is `OutOfRange`.
pub(super) fn decimal(text: &str, precision: i128, scale: i128) -> Result<Cell, Reason> {
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        None => (text, Some(0)),
        Some((mantissa, exponent)) => (mantissa, power(exponent)),
    };
    let unsigned = mantissa.strip_prefix('-').unwrap_or(mantissa);
    let (whole, fraction) = match unsigned.split_once('.') {
        None => (unsigned, ""),
        Some((_, "")) => return Err(Reason::WrongType),
        Some(parts) => parts,
    };
    let is_number = !whole.is_empty() && whole.chars().chain(fraction.chars()).all(|digit| digit.is_ascii_digit());
    let Some(exponent) = exponent.filter(|_| is_number) else { return Err(Reason::WrongType) };
    let all = format!("{whole}{fraction}");
    let significant = all.trim_end_matches('0');
    let power = exponent - fraction.len() as i128 + (all.len() - significant.len()) as i128;
    let significant = significant.trim_start_matches('0');
    if significant.is_empty() {
        return Ok(Cell::Decimal(0));
    }
    if -power > scale {
        return Err(Reason::WrongType);
    }
    if significant.len() as i128 + power > precision - scale {
        return Err(Reason::OutOfRange);
    }
    let zeros = "0".repeat(usize::try_from(power + scale).expect("the number has at most `scale` fraction digits"));
    let sign = if mantissa.starts_with('-') { "-" } else { "" };
    let unscaled = format!("{sign}{significant}{zeros}").parse().expect("at most 38 digits fit an i128");
    Ok(Cell::Decimal(unscaled))
}

/// Reads an exponent, limited to ±[`EXPONENT_MAX`].
fn power(text: &str) -> Option<i128> {
    let digits = text.strip_prefix(['+', '-']).unwrap_or(text);
    if digits.is_empty() || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let size = digits.parse().unwrap_or(EXPONENT_MAX).min(EXPONENT_MAX);
    Some(if text.starts_with('-') { -size } else { size })
}

/// Returns a UUID in lower case with hyphens. The text has all hyphens or none.
pub(super) fn uuid(text: &str) -> Option<String> {
    const HYPHENS: [usize; 4] = [8, 13, 18, 23];
    let mut digits = text.to_ascii_lowercase();
    if digits.len() == 36 && HYPHENS.iter().all(|at| digits.as_bytes()[*at] == b'-') {
        digits.retain(|letter| letter != '-');
    }
    if digits.len() != 32 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return None;
    }
    HYPHENS.iter().for_each(|at| digits.insert(*at, '-'));
    Some(digits)
}

/// Reads a time of day: `HH:MM`, `HH:MM:SS`, or `HH:MM:SS` with a fraction, of which six digits count.
fn time_of_day(text: &str) -> Option<i64> {
    let (clock, fraction) = match text.split_once('.') {
        Some((clock, fraction)) if clock.len() == 8 && !fraction.is_empty() => (clock, fraction),
        Some(_) => return None,
        None => (text, ""),
    };
    let parts: Vec<&str> = clock.split(':').collect();
    let is_plain = matches!(parts.len(), 2 | 3) && parts.iter().all(|part| part.len() == 2);
    let is_digits = parts.iter().chain(&[fraction]).all(|part| part.bytes().all(|digit| digit.is_ascii_digit()));
    if !is_plain || !is_digits {
        return None;
    }
    let number = |at: usize| parts.get(at).map_or(0, |part| part.parse::<i64>().expect("two digits are a number"));
    let (hour, minute, second) = (number(0), number(1), number(2));
    let micros: i64 = format!("{:0<6.6}", fraction).parse().expect("six digits are a number");
    (hour < 24 && minute < 60 && second < 60).then_some(((hour * 60 + minute) * 60 + second) * 1_000_000 + micros)
}

/// Returns true if the text is one JSON value whose strings contain only characters.
fn is_json(text: &str) -> bool {
    // These characters mark errors in the bodies of JSON events only.
    let text = text.replace(['~', '\u{7f}'], "_");
    tree(&text).is_ok_and(|tree| tree.depth() <= DEPTH_MAX && !tree.has_invalid_strings())
}
