//! A JSON tokenizer over borrowed bytes (RFC 8259).
//!
//! In: the bytes of a body. Out: strings as ranges, numbers as values, and whole values skipped but validated. Strict:
//! no comments, no trailing commas. `NaN` and `Infinity` are recognized, so that their error differs from a syntax
//! error. Nothing is allocated except the messages of [`SyntaxError`], and recursion is bounded.

use crate::contract::schema::fields::Name;

/// The maximum nesting depth of objects and arrays in a value without a column.
const DEPTH_MAX: usize = 64;

/// A syntax error: what was expected, and where. Parsing cannot continue after it.
#[derive(Debug)]
pub(in crate::contract) struct SyntaxError(pub(in crate::contract) Box<str>);

/// A read position in a body.
#[derive(Debug, Clone)]
pub(in crate::contract) struct Cursor<'a> {
    bytes: &'a [u8],
    /// The same bytes as text, if all of them are UTF-8. Then strings need no validation of their own.
    text: Option<&'a str>,
    pub(in crate::contract) at: usize,
}

/// The range between the quotes of a string.
#[derive(Debug, Clone, Copy)]
pub(in crate::contract) struct QuotedString {
    pub(in crate::contract) start: usize,
    pub(in crate::contract) end: usize,
    pub(in crate::contract) escaped: bool,
}

/// A number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::contract) enum Number {
    Int(i64),
    /// A number with a fraction or an exponent, too large for an `i64`, or `-0`. Infinite if too large for an `f64`.
    Float(f64),
    /// `NaN`, `Infinity` or `-Infinity`, which are not valid JSON.
    NotFinite,
}

impl Number {
    /// The negated number. Zero becomes a float, because integers have no negative zero.
    fn negative(self) -> Self {
        match self {
            Self::Int(0) => Self::Float(-0.0),
            Self::Int(value) => Self::Int(-value),
            Self::Float(value) => Self::Float(-value),
            Self::NotFinite => Self::NotFinite,
        }
    }
}

/// A value that was skipped.
#[derive(Debug, Clone, Copy)]
pub(in crate::contract) struct RawValue {
    pub(in crate::contract) start: usize,
    pub(in crate::contract) end: usize,
    /// Whether it contains `NaN` or infinity.
    pub(in crate::contract) not_finite: bool,
}

impl<'a> Cursor<'a> {
    /// A cursor at offset `at` of `bytes`. If the bytes are valid UTF-8, `text` is the same bytes as a string, or a
    /// longer string that starts with them.
    pub(in crate::contract) fn new(bytes: &'a [u8], text: Option<&'a str>, at: usize) -> Self {
        Self { bytes, text, at }
    }

    /// Skips white space and returns the next byte without consuming it; 0 at the end.
    #[inline]
    pub(in crate::contract) fn peek(&mut self) -> u8 {
        loop {
            match self.bytes.get(self.at) {
                Some(b' ' | b'\n' | b'\r' | b'\t') => self.at += 1,
                Some(byte) => return *byte,
                None => return 0,
            }
        }
    }

    /// Whether only white space is left.
    pub(in crate::contract) fn at_end(&mut self) -> bool {
        self.peek() == 0 && self.at == self.bytes.len()
    }

    /// Consumes `byte`, or fails if another byte is next.
    #[inline]
    pub(in crate::contract) fn consume(&mut self, byte: u8) -> Result<(), SyntaxError> {
        if self.peek() != byte {
            return Err(self.syntax_error(format_args!("expected `{}`", char::from(byte))));
        }
        self.at += 1;
        Ok(())
    }

    /// Consumes a literal.
    pub(in crate::contract) fn literal(&mut self, literal: &str) -> Result<(), SyntaxError> {
        if !self.bytes[self.at..].starts_with(literal.as_bytes()) {
            return Err(self.syntax_error(format_args!("expected a value")));
        }
        self.at += literal.len();
        Ok(())
    }

    /// Consumes the key `name`, quotes included, if it comes next. Returns whether it did.
    #[inline]
    pub(in crate::contract) fn key_is(&mut self, name: &Name) -> bool {
        let hit = self.bytes.get(self.at + 1..).is_some_and(|rest| name.opens(rest));
        if hit {
            self.at += name.bytes().len() + 2;
        }
        hit
    }

    /// Consumes a string. The cursor must be at its opening quote.
    #[inline]
    pub(in crate::contract) fn string(&mut self) -> Result<QuotedString, SyntaxError> {
        let start = self.at + 1;
        let mut escaped = false;
        self.at = start;
        loop {
            self.at += plain_run(&self.bytes[self.at..]);
            match self.bytes.get(self.at) {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(QuotedString { start, end: self.at - 1, escaped });
                }
                Some(b'\\') => {
                    escaped = true;
                    self.escape()?;
                }
                Some(_) => return Err(self.syntax_error(format_args!("unescaped control character in a string"))),
                None => return Err(self.syntax_error(format_args!("unterminated string"))),
            }
        }
    }

    fn escape(&mut self) -> Result<(), SyntaxError> {
        let rest = &self.bytes[self.at + 1..];
        self.at += match rest {
            [b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't', ..] => 2,
            [b'u', hex @ ..] if hex.len() >= 4 && hex[..4].iter().all(u8::is_ascii_hexdigit) => 6,
            _ => return Err(self.syntax_error(format_args!("unknown escape sequence in a string"))),
        };
        Ok(())
    }

    /// A range as text; `None` if it is not UTF-8.
    #[inline]
    pub(in crate::contract) fn slice(&self, start: usize, end: usize) -> Option<&'a str> {
        match self.text {
            Some(text) => text.get(start..end),
            None => std::str::from_utf8(&self.bytes[start..end]).ok(),
        }
    }

    /// The bytes of a range.
    pub(in crate::contract) fn bytes(&self, start: usize, end: usize) -> &'a [u8] {
        &self.bytes[start..end]
    }

    /// Consumes a number. The cursor must be at its sign, its first digit, or the `N` or `I` of `NaN` or `Infinity`.
    pub(in crate::contract) fn number(&mut self) -> Result<Number, SyntaxError> {
        match self.bytes[self.at..] {
            [b'N', ..] => return self.literal("NaN").map(|()| Number::NotFinite),
            [b'I', ..] => return self.literal("Infinity").map(|()| Number::NotFinite),
            [b'-', b'I', ..] => return self.literal("-Infinity").map(|()| Number::NotFinite),
            _ => {}
        }
        let start = self.at;
        let negative = self.bytes.get(start) == Some(&b'-');
        self.at += usize::from(negative);
        if let Some(number) = self.plain_number() {
            return Ok(if negative { number.negative() } else { number });
        }
        let first = self.at;
        if self.digits()? > 1 && self.bytes[first] == b'0' {
            self.at = first;
            return Err(self.syntax_error(format_args!("a number must not have a leading zero")));
        }
        let mut integer = true;
        if self.bytes.get(self.at) == Some(&b'.') {
            integer = false;
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.bytes.get(self.at) {
            integer = false;
            self.at += 1;
            self.at += usize::from(matches!(self.bytes.get(self.at), Some(b'+' | b'-')));
            self.digits()?;
        }
        // The standard library parses all numbers that the fast path does not.
        let text = std::str::from_utf8(&self.bytes[start..self.at]).unwrap_or_default();
        Ok(match text.parse() {
            Ok(value) if integer => Number::Int(value),
            _ => Number::Float(text.parse().unwrap_or(f64::INFINITY)),
        })
    }

    /// The fast path for common numbers: a few digits, optionally with a point and more digits. `None` for other
    /// numbers; the cursor does not move then.
    #[inline]
    pub(in crate::contract) fn plain_number(&mut self) -> Option<Number> {
        let (whole, digits, rest) = few_digits(self.bytes.get(self.at..)?, 0);
        if digits == 0 || digits > 1 && self.bytes[self.at] == b'0' {
            return None;
        }
        let (value, fraction, rest) = match rest.split_first() {
            Some((b'.', rest)) => few_digits(rest, whole),
            _ => (whole, 0, rest),
        };
        let is_whole = rest.len() + digits == self.bytes.len() - self.at;
        if matches!(rest.first(), Some(b'e' | b'E' | b'.')) || !is_whole && fraction == 0 || digits + fraction > 15 {
            return None;
        }
        let number = match TENS.get(fraction) {
            Some(_) if fraction == 0 => Number::Int(value.cast_signed()),
            // Both operands are exact, so that one division rounds correctly (Clinger's fast path).
            Some(ten) => Number::Float(value as f64 / ten),
            None => return None,
        };
        self.at = self.bytes.len() - rest.len();
        Some(number)
    }

    /// Consumes one or more digits. Returns their number.
    fn digits(&mut self) -> Result<usize, SyntaxError> {
        let start = self.at;
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_digit) {
            self.at += 1;
        }
        if self.at == start { Err(self.syntax_error(format_args!("expected a digit"))) } else { Ok(self.at - start) }
    }

    /// Consumes a value and validates its syntax.
    pub(in crate::contract) fn raw(&mut self) -> Result<RawValue, SyntaxError> {
        self.peek();
        let mut raw = RawValue { start: self.at, end: self.at, not_finite: false };
        self.skip(DEPTH_MAX, &mut raw.not_finite)?;
        raw.end = self.at;
        Ok(raw)
    }

    fn skip(&mut self, depth: usize, not_finite: &mut bool) -> Result<(), SyntaxError> {
        match self.peek() {
            b'"' => self.string().map(drop),
            b't' => self.literal("true"),
            b'f' => self.literal("false"),
            b'n' => self.literal("null"),
            b'-' | b'0'..=b'9' | b'N' | b'I' => {
                *not_finite |= self.number()? == Number::NotFinite;
                Ok(())
            }
            b'{' | b'[' if depth == 0 => {
                Err(self.syntax_error(format_args!("objects and arrays are nested more than {DEPTH_MAX} levels deep")))
            }
            open @ (b'{' | b'[') => self.skip_inside(open, depth - 1, not_finite),
            _ => Err(self.syntax_error(format_args!("expected a value"))),
        }
    }

    fn skip_inside(&mut self, open: u8, depth: usize, not_finite: &mut bool) -> Result<(), SyntaxError> {
        let close = if open == b'{' { b'}' } else { b']' };
        self.at += 1;
        if self.peek() == close {
            self.at += 1;
            return Ok(());
        }
        loop {
            if open == b'{' {
                self.key()?;
                self.consume(b':')?;
            }
            self.skip(depth, not_finite)?;
            if !self.more(close)? {
                return Ok(());
            }
        }
    }

    /// Consumes a key.
    pub(in crate::contract) fn key(&mut self) -> Result<QuotedString, SyntaxError> {
        if self.peek() != b'"' {
            return Err(self.syntax_error(format_args!("expected a key in quotes")));
        }
        self.string()
    }

    /// Consumes a comma (`true`: another element follows) or the closing bracket.
    #[inline]
    pub(in crate::contract) fn more(&mut self, close: u8) -> Result<bool, SyntaxError> {
        let byte = self.peek();
        if byte != b',' && byte != close {
            return Err(self.syntax_error(format_args!("expected `,` or `{}`", char::from(close))));
        }
        self.at += 1;
        Ok(byte == b',')
    }

    /// A syntax error at the current position, which distinguishes the end of the body from an unexpected byte.
    #[cold]
    fn syntax_error(&self, expected: std::fmt::Arguments<'_>) -> SyntaxError {
        let ends = if self.at >= self.bytes.len() { ", which ends there" } else { "" };
        SyntaxError(format!("{expected} at byte {} of the body{ends}", self.at).into())
    }
}

/// Unescapes a string. Returns `false` for a lone surrogate, which is not a character.
pub(in crate::contract) fn unescape(text: &str, into: &mut String) -> bool {
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        into.push_str(&rest[..at]);
        let (taken, character) = match rest.as_bytes()[at + 1] {
            b'b' => (2, Some('\u{8}')),
            b'f' => (2, Some('\u{c}')),
            b'n' => (2, Some('\n')),
            b'r' => (2, Some('\r')),
            b't' => (2, Some('\t')),
            b'u' => unicode(&rest[at..]),
            other => (2, Some(char::from(other))),
        };
        let Some(character) = character else { return false };
        into.push(character);
        rest = &rest[at + taken..];
    }
    into.push_str(rest);
    true
}

/// Parses `\uXXXX`, or a surrogate pair: the bytes consumed, and the character.
fn unicode(text: &str) -> (usize, Option<char>) {
    let unit = |at: usize| text.get(at..at + 4).and_then(|hex| u32::from_str_radix(hex, 16).ok());
    match unit(2) {
        Some(high @ 0xd800..0xdc00) if text[6..].starts_with("\\u") => match unit(8) {
            Some(low @ 0xdc00..0xe000) => (12, char::from_u32(0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00))),
            _ => (6, None),
        },
        unit => (6, unit.and_then(char::from_u32)),
    }
}

/// Copies a value without the white space between its tokens.
pub(in crate::contract) fn compact(value: &str, into: &mut String) {
    let mut rest = value;
    while let Some(quote) = rest.find('"') {
        into.extend(rest[..quote].split_ascii_whitespace());
        let end = string_end(&rest[quote..]);
        into.push_str(&rest[quote..quote + end]);
        rest = &rest[quote + end..];
    }
    into.extend(rest.split_ascii_whitespace());
}

fn string_end(text: &str) -> usize {
    let mut at = 1;
    while let Some(step) = text[at..].find(['"', '\\']) {
        at += step + 1;
        if text.as_bytes()[at - 1] == b'"' {
            return at;
        }
        at += 1; // the escaped character is one byte, or begins with one
    }
    text.len()
}

/// The number of leading bytes without a quote, backslash or control character. Reads eight bytes at a time.
#[inline]
fn plain_run(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const TOPS: u64 = 0x8080_8080_8080_8080;
    // The lowest set top bit marks the first zero byte. Higher bits may be wrong because of borrows.
    let zero = |word: u64| word.wrapping_sub(ONES) & !word & TOPS;
    let mut at = 0;
    while let Some(chunk) = bytes[at..].first_chunk::<8>() {
        let word = u64::from_le_bytes(*chunk);
        let control = word.wrapping_sub(ONES * 0x20) & !word & TOPS;
        let stop = control | zero(word ^ (ONES * u64::from(b'"'))) | zero(word ^ (ONES * u64::from(b'\\')));
        if stop != 0 {
            return at + stop.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let tail = bytes[at..].iter().position(|byte| matches!(byte, 0..0x20 | b'"' | b'\\'));
    tail.map_or(bytes.len(), |tail| at + tail)
}

/// Appends the leading digits of `bytes` to `value`: returns the number, the count of digits, and the remaining bytes.
/// Reads at most sixteen digits.
#[inline]
fn few_digits(bytes: &[u8], mut value: u64) -> (u64, usize, &[u8]) {
    let mut count = 0;
    for byte in bytes.iter().take(16) {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            break;
        }
        value = value.wrapping_mul(10).wrapping_add(u64::from(digit));
        count += 1;
    }
    (value, count, &bytes[count..])
}

/// The powers of ten that are exact as `f64`.
const TENS: [f64; 16] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};

    use super::*;

    /// Parses a whole text by the fast path and by the full path; `None` where a path does not consume all of it.
    fn read(text: &str) -> (Option<Number>, Option<Number>) {
        // The bytes after a number must not matter.
        let body = format!("{text},1");
        let cursor = Cursor::new(body.as_bytes(), Some(&body), 0);
        let read = |plain: bool| {
            let mut cursor = cursor.clone();
            let number = if plain { cursor.plain_number() } else { cursor.number().ok() };
            number.filter(|_| cursor.at == text.len())
        };
        (read(true), read(false))
    }

    #[test]
    fn numbers_are_read_as_the_standard_library_reads_them() {
        let mut rng = StdRng::seed_from_u64(3);
        let digits = |count: usize, rng: &mut StdRng| -> String {
            (0..count).map(|_| char::from(b'0' + rng.random_range(0..10))).collect()
        };
        let mut plain_count = 0;
        for _ in 0..20_000 {
            let (whole, fraction) = (rng.random_range(1..20), rng.random_range(0..20));
            let mut text = digits(whole, &mut rng).trim_start_matches('0').to_owned();
            if text.is_empty() {
                text.push('0');
            }
            if fraction > 0 {
                text = format!("{text}.{}", digits(fraction, &mut rng));
            }
            if rng.random_range(0..4) == 0 {
                text.insert(0, '-');
            }
            let expected = match text.parse() {
                Ok(0) if text.starts_with('-') => Number::Float(-0.0),
                Ok(value) => Number::Int(value),
                Err(_) => Number::Float(text.parse().unwrap()),
            };
            let (plain, full) = read(&text);
            assert_eq!(full, Some(expected), "{text}");
            if let (Number::Float(read), Number::Float(expected)) = (full.unwrap(), expected) {
                assert_eq!(read.to_bits(), expected.to_bits(), "{text}");
            }
            if let Some(plain) = plain {
                assert_eq!(plain, expected, "{text}");
                plain_count += 1;
            }
        }
        assert!(plain_count > 4_000, "{plain_count}");
        for other in ["", "-1", "01", "1.", ".5", "1e3", "1.5E2", "1.2.3", "1234567890123456", "1.234567890123456"] {
            assert_eq!(read(other).0, None, "{other}");
        }
    }
}
