//! Parses decimal numbers exactly, digit by digit.
//!
//! The input is a number as JSON writes it, such as `-12.50` or `1.25e3`. The result is the unscaled value of a decimal:
//! with the scale 2, `12.5` becomes 1250. The value is never rounded.

use super::reject_reason::Reason;
use crate::config::DECIMAL_DIGITS_MAX;

/// The maximum absolute value of an exponent. A number with a larger one is either 0 or does not fit any decimal.
const EXPONENT_MAX: i64 = 1 << 40;

/// Parses a number and returns its unscaled value. Returns `WrongType` if the text is not a number, or if the number has
/// more than `scale` significant digits after the decimal point. Returns `OutOfRange` if it has too many digits before
/// the point.
pub(in crate::contract) fn parse(text: &[u8], precision: u8, scale: u8) -> Result<i128, Reason> {
    let (is_negative, unsigned) = match text.split_first() {
        Some((b'-', rest)) => (true, rest),
        _ => (false, text),
    };
    let (whole, rest) = digits(unsigned);
    let (fraction, rest) = match rest.split_first() {
        Some((b'.', rest)) => match digits(rest) {
            ([], _) => return Err(Reason::WrongType),
            found => found,
        },
        _ => (&[][..], rest),
    };
    if whole.is_empty() {
        return Err(Reason::WrongType);
    }
    let exponent = exponent(rest).ok_or(Reason::WrongType)?;
    // The number is the digits of `whole` and `fraction`, as an integer, times ten to the power of `shift - scale`.
    let shift = i64::from(scale) + exponent - fraction.len() as i64;
    let all = || whole.iter().chain(fraction);
    let Some(first) = all().position(|digit| *digit != b'0') else { return Ok(0) };
    let end = whole.len() + fraction.len();
    let cut = usize::try_from(shift.saturating_neg()).unwrap_or(0);
    let kept = end.saturating_sub(cut);
    if all().skip(kept.max(first)).any(|digit| *digit != b'0') {
        return Err(Reason::WrongType);
    }
    let zeros = usize::try_from(shift).unwrap_or(0);
    if kept.saturating_sub(first).saturating_add(zeros) > usize::from(precision) {
        return Err(Reason::OutOfRange);
    }
    let value = all().take(kept).skip(first).fold(0, |value, digit| value * 10 + i128::from(digit - b'0'));
    let value = value * power_of_ten(zeros);
    Ok(if is_negative { -value } else { value })
}

/// Returns the unscaled value of an integer, or `None` if it does not fit a decimal with these parameters.
pub(in crate::contract) fn of_integer(value: i128, precision: u8, scale: u8) -> Option<i128> {
    let unscaled = value.checked_mul(power_of_ten(usize::from(scale)))?;
    (unscaled.unsigned_abs() < power_of_ten(usize::from(precision)).unsigned_abs()).then_some(unscaled)
}

fn power_of_ten(exponent: usize) -> i128 {
    debug_assert!(exponent <= usize::from(DECIMAL_DIGITS_MAX), "an i128 has at most 38 digits");
    10_i128.pow(exponent as u32)
}

fn digits(text: &[u8]) -> (&[u8], &[u8]) {
    text.split_at(text.iter().take_while(|byte| byte.is_ascii_digit()).count())
}

/// Parses what follows the digits: nothing, or an exponent.
fn exponent(text: &[u8]) -> Option<i64> {
    let Some((b'e' | b'E', rest)) = text.split_first() else { return text.is_empty().then_some(0) };
    let (is_negative, rest) = match rest.split_first() {
        Some((b'-', rest)) => (true, rest),
        Some((b'+', rest)) => (false, rest),
        _ => (false, rest),
    };
    let (digits, []) = digits(rest) else { return None };
    if digits.is_empty() {
        return None;
    }
    let size = digits.iter().fold(0, |size: i64, digit| (size * 10 + i64::from(digit - b'0')).min(EXPONENT_MAX));
    Some(if is_negative { -size } else { size })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_exactly() {
        const MAX: i128 = 10_i128.pow(38) - 1;
        let long_zeros = format!("1.{}", "0".repeat(5_000));
        for (text, precision, scale, expected) in [
            ("0", 1, 0, Ok(0)),
            ("-0.00", 1, 0, Ok(0)),
            ("0e999999999999999999999", 1, 1, Ok(0)),
            ("12.5", 4, 2, Ok(1_250)),
            ("-12.50", 4, 2, Ok(-1_250)),
            ("99.99", 4, 2, Ok(9_999)),
            ("100", 4, 2, Err(Reason::OutOfRange)),
            ("0.001", 4, 2, Err(Reason::WrongType)),
            ("1.230000", 4, 2, Ok(123)),
            ("1.2300001", 4, 2, Err(Reason::WrongType)),
            (&long_zeros, 4, 2, Ok(100)),
            ("1.25e1", 4, 2, Ok(1_250)),
            ("125E-2", 4, 2, Ok(125)),
            ("1e+1", 4, 2, Ok(1_000)),
            ("1e2", 4, 2, Err(Reason::OutOfRange)),
            ("1e-3", 4, 2, Err(Reason::WrongType)),
            ("1e-99999999999999999999", 4, 2, Err(Reason::WrongType)),
            ("1e99999999999999999999", 38, 0, Err(Reason::OutOfRange)),
            ("10e-1", 1, 0, Ok(1)),
            ("99999999999999999999999999999999999999", 38, 0, Ok(MAX)),
            ("-0.99999999999999999999999999999999999999", 38, 38, Ok(-MAX)),
            ("100000000000000000000000000000000000000", 38, 0, Err(Reason::OutOfRange)),
            ("1.0", 38, 38, Err(Reason::OutOfRange)),
            ("0.1", 38, 38, Ok(10_i128.pow(37))),
            ("90071992547409.93", 38, 2, Ok(9_007_199_254_740_993)),
            ("", 4, 2, Err(Reason::WrongType)),
            ("-", 4, 2, Err(Reason::WrongType)),
            (".5", 4, 2, Err(Reason::WrongType)),
            ("5.", 4, 2, Err(Reason::WrongType)),
            ("+5", 4, 2, Err(Reason::WrongType)),
            ("1,5", 4, 2, Err(Reason::WrongType)),
            ("1e", 4, 2, Err(Reason::WrongType)),
            ("1 ", 4, 2, Err(Reason::WrongType)),
            ("NaN", 4, 2, Err(Reason::WrongType)),
        ] {
            assert_eq!(parse(text.as_bytes(), precision, scale), expected, "{text} as decimal({precision}, {scale})");
        }
    }

    #[test]
    fn integers_fit_up_to_the_precision() {
        assert_eq!(of_integer(99, 4, 2), Some(9_900));
        assert_eq!(of_integer(-100, 4, 2), None);
        assert_eq!(of_integer(i128::from(i64::MIN), 38, 0), Some(i128::from(i64::MIN)));
        assert_eq!(of_integer(i128::from(u64::MAX), 38, 38), None);
    }
}
