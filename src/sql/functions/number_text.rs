//! Prepares the text of a number for the engine's cast, so the cast accepts the same input as PostgreSQL.
//!
//! - Whitespace around the number is removed.
//! - For a decimal, an exponent is expanded (`1.5e3` becomes `1500`), because the engine does not support exponents.
//! - A number that is out of the range of a floating-point type is refused. The engine would return infinity or 0.

use std::borrow::Cow;

/// The type to which a number is cast.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Target {
    /// An integer of any width.
    Integer,
    Real,
    Double,
    Decimal,
}

/// The maximum length of the text of a number in bytes. The engine's cast to a decimal calls itself for every
/// 38 digits, so a long text could overflow the stack.
pub(super) const NUMBER_BYTES_MAX: usize = 1_000;

/// Returns the text that the engine's cast expects, or `None` if the number is out of the range of `target`. Text that
/// is not a number is only trimmed.
pub(super) fn number_text(text: &str, target: Target) -> Option<Cow<'_, str>> {
    let text = trim(text);
    let fits = match target {
        Target::Integer | Target::Decimal => true,
        Target::Real => text.parse().map_or(true, |double| fits_double(double, text) && fits_real(double)),
        Target::Double => text.parse().map_or(true, |double| fits_double(double, text)),
    };
    let plain = if target == Target::Decimal { without_exponent(text) } else { None };
    fits.then(|| plain.map_or(Cow::Borrowed(text), Cow::Owned))
}

/// Returns false if parsing has turned a finite number into infinity, or a number other than 0 into 0.
fn fits_double(double: f64, text: &str) -> bool {
    let mantissa = text.split(['e', 'E']).next().unwrap_or_default();
    let is_named = text.contains(['n', 'N']);
    (double.is_finite() || is_named) && (double != 0.0 || !mantissa.bytes().any(|byte| (b'1'..=b'9').contains(&byte)))
}

/// Returns false if a cast to `REAL` would turn the number into infinity or 0.
#[expect(clippy::cast_possible_truncation, reason = "the cast is the one that is checked")]
pub(super) fn fits_real(double: f64) -> bool {
    let real = double as f32;
    (real.is_finite() || !double.is_finite()) && (real != 0.0 || double == 0.0)
}

/// Removes leading and trailing whitespace, as defined by C's `isspace`.
fn trim(text: &str) -> &str {
    text.trim_matches([' ', '\t', '\n', '\r', '\x0b', '\x0c'])
}

/// Expands the exponent of a decimal number, and drops digits that are too far after the point to affect the result.
/// Returns `None` if there is nothing to change, or if the text is not a number.
fn without_exponent(text: &str) -> Option<String> {
    // A decimal has at most 38 digits after the point, and the next digit determines how the number is rounded.
    const FRACTION_MAX: usize = 40;
    // A decimal has at most 38 digits before the point, so a number above this limit is always out of range.
    const EXPONENT_MAX: i64 = 1_000;
    let (sign, number) = text.split_at(usize::from(text.starts_with(['+', '-'])));
    let (mantissa, exponent) = number.split_once(['e', 'E']).unwrap_or((number, "0"));
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let is_number = |digits: &str| digits.bytes().all(|digit| digit.is_ascii_digit());
    if mantissa.len() == number.len() && fraction.len() <= FRACTION_MAX
        || whole.is_empty() && fraction.is_empty()
        || !is_number(whole)
        || !is_number(fraction)
    {
        return None;
    }
    let exponent: i64 = exponent.parse().ok()?;
    let digits = format!("{whole}{fraction}");
    let significant = digits.trim_start_matches('0');
    if significant.is_empty() {
        return Some("0".to_owned());
    }
    let point = i64::try_from(significant.len()).ok()? - i64::try_from(fraction.len()).ok()? + exponent;
    if point > EXPONENT_MAX {
        return None;
    }
    let (whole, fraction) = match usize::try_from(point) {
        Ok(point) if point >= significant.len() => (format!("{significant:0<point$}"), String::new()),
        Ok(point) => (significant[..point].to_owned(), significant[point..].to_owned()),
        Err(_) => {
            let zeros = usize::try_from(-point).map_or(FRACTION_MAX, |zeros| zeros.min(FRACTION_MAX));
            (String::new(), format!("{}{significant}", "0".repeat(zeros)))
        }
    };
    let fraction = fraction.get(..FRACTION_MAX).unwrap_or(&fraction);
    Some(format!("{sign}{}.{fraction}", if whole.is_empty() { "0" } else { &whole }).trim_end_matches('.').to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exponents_are_resolved() {
        let long = format!("0.{}", "3".repeat(90));
        let cut = format!("0.{}", "3".repeat(40));
        for (text, expected) in [
            ("1e3", Some("1000")),
            ("-1.25E+1", Some("-12.5")),
            ("+125e-1", Some("+12.5")),
            (".5e1", Some("5")),
            ("5.e-3", Some("0.005")),
            ("0.0012e2", Some("0.12")),
            ("0e999999999", Some("0")),
            ("1e-999999999", Some("0.0000000000000000000000000000000000000000")),
            (long.as_str(), Some(cut.as_str())),
            ("1e1001", None),
            ("1e99999999999999999999", None),
            ("12.5", None),
            ("e3", None),
            (".e3", None),
            ("1e", None),
            ("1e3.5", None),
            ("1x5e3", None),
            ("--1e3", None),
            ("1.2.3e4", None),
            ("é1e3", None),
        ] {
            assert_eq!(without_exponent(text).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn numbers_out_of_range_are_refused() {
        for (text, real, double) in [
            ("1e300", false, true),
            (" -1e39\t", false, true),
            ("1e400", false, false),
            ("1e-400", false, false),
            ("1e-50", false, true),
            ("0e-400", true, true),
            ("0.0", true, true),
            ("1e-42", true, true),
            ("inf", true, true),
            ("-Infinity", true, true),
            ("NaN", true, true),
            ("x", true, true),
        ] {
            let fits = |target| number_text(text, target).is_some();
            assert_eq!((fits(Target::Real), fits(Target::Double)), (real, double), "{text}");
        }
    }
}
