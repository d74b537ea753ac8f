//! A JSON tokenizer over borrowed bytes (RFC 8259).
//!
//! The tokenizer reads the bytes of a body. It returns a string as a range of bytes, and a number as a value. It can
//! skip a whole value while validating its syntax. Comments and trailing commas are syntax errors. `NaN` and `Infinity`
//! are not valid JSON either, but the tokenizer recognizes them so that the error can name the actual problem. The
//! tokenizer allocates memory only for error messages, and its recursion depth is limited.

use crate::contract::schema::fields::Name;

/// The maximum nesting depth of objects and arrays in a value that is skipped or stored as JSON text.
const DEPTH_MAX: usize = 64;

/// A syntax error. The message contains the position, and says what was expected there. Parsing cannot continue after a
/// syntax error.
#[derive(Debug)]
pub(in crate::contract) struct SyntaxError(pub(in crate::contract) Box<str>);

/// The tokenizer, which holds the current position in a body.
#[derive(Debug, Clone)]
pub(in crate::contract) struct Cursor<'a> {
    bytes: &'a [u8],
    /// The body as a string, if all of it is valid UTF-8. In this case, the strings in the body need no further
    /// validation.
    text: Option<&'a str>,
    pub(in crate::contract) at: usize,
    /// The start of the message, if the body consists of messages. The positions in error messages are then relative to
    /// the message, because its sender does not know the other messages of the body.
    message_start: Option<usize>,
}

/// The range between the quotes of a string.
#[derive(Debug, Clone, Copy)]
pub(in crate::contract) struct QuotedString {
    pub(in crate::contract) start: usize,
    pub(in crate::contract) end: usize,
    pub(in crate::contract) escaped: bool,
}

/// A JSON number.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(in crate::contract) enum Number {
    Int(i64),
    /// A number that has a fraction or an exponent, a number that does not fit in an `i64`, or `-0`. The value is
    /// infinite if the number is too large for an `f64`.
    Float(f64),
    /// `NaN`, `Infinity` or `-Infinity`. The decoders reject them, because JSON does not allow them.
    NotFinite,
}

impl Number {
    /// Returns the negated number. The integer 0 becomes the float -0.0, because integers have no negative zero.
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
    /// True if the value contains `NaN`, `Infinity` or `-Infinity`.
    pub(in crate::contract) not_finite: bool,
}

impl<'a> Cursor<'a> {
    /// Creates a cursor at offset `at` of `bytes`. If the bytes are valid UTF-8, `text` should be a string that starts
    /// with them.
    pub(in crate::contract) fn new(bytes: &'a [u8], text: Option<&'a str>, at: usize) -> Self {
        Self { bytes, text, at, message_start: None }
    }

    /// Makes the positions in error messages relative to the message that starts at offset `start` of the body.
    pub(in crate::contract) fn in_message(self, start: usize) -> Self {
        Self { message_start: Some(start), ..self }
    }

    /// Skips white space and returns the next byte without consuming it. Returns 0 at the end.
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

    /// Returns true if only white space is left.
    pub(in crate::contract) fn at_end(&mut self) -> bool {
        self.peek() == 0 && self.at == self.bytes.len()
    }

    /// Skips white space and consumes `byte`. Fails if another byte follows.
    #[inline]
    pub(in crate::contract) fn consume(&mut self, byte: u8) -> Result<(), SyntaxError> {
        if self.peek() != byte {
            return Err(self.syntax_error(format_args!("expected `{}`", char::from(byte))));
        }
        self.at += 1;
        Ok(())
    }

    /// Consumes a literal such as `null`. Fails if something else follows.
    pub(in crate::contract) fn literal(&mut self, literal: &str) -> Result<(), SyntaxError> {
        if !self.bytes[self.at..].starts_with(literal.as_bytes()) {
            return Err(self.syntax_error(format_args!("expected a value")));
        }
        self.at += literal.len();
        Ok(())
    }

    /// If the key `name` comes next, consumes it together with its quotes. Returns true if the key was consumed.
    #[inline]
    pub(in crate::contract) fn key_is(&mut self, name: &Name) -> bool {
        let hit = self.bytes.get(self.at + 1..).is_some_and(|rest| name.opens(rest));
        if hit {
            self.at += name.bytes().len() + 2;
        }
        hit
    }

    /// Consumes a string. The next byte must be the opening quote.
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

    /// Returns a range as a string, or `None` if it is not valid UTF-8.
    #[inline]
    pub(in crate::contract) fn slice(&self, start: usize, end: usize) -> Option<&'a str> {
        match self.text {
            Some(text) => text.get(start..end),
            None => std::str::from_utf8(&self.bytes[start..end]).ok(),
        }
    }

    /// Returns the bytes of a range.
    pub(in crate::contract) fn bytes(&self, start: usize, end: usize) -> &'a [u8] {
        &self.bytes[start..end]
    }

    /// Consumes a number. The next byte must be a digit, `-`, `N` or `I`.
    #[inline]
    pub(in crate::contract) fn number(&mut self) -> Result<Number, SyntaxError> {
        match self.short_number() {
            Some(number) => Ok(number),
            None => self.other_number(),
        }
    }

    /// Consumes a number that [`Self::short_number`] cannot parse.
    fn other_number(&mut self) -> Result<Number, SyntaxError> {
        match self.bytes[self.at..] {
            [b'N', ..] => return self.literal("NaN").map(|()| Number::NotFinite),
            [b'I', ..] => return self.literal("Infinity").map(|()| Number::NotFinite),
            [b'-', b'I', ..] => return self.literal("-Infinity").map(|()| Number::NotFinite),
            _ => {}
        }
        let start = self.at;
        if self.bytes.get(start) == Some(&b'-') {
            self.at += 1;
            if let Some(number) = self.short_number() {
                return Ok(number.negative());
            }
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
        // The fast path cannot parse this number, but the standard library can.
        let text = std::str::from_utf8(&self.bytes[start..self.at]).unwrap_or_default();
        Ok(match text.parse() {
            Ok(value) if integer => Number::Int(value),
            _ => Number::Float(text.parse().unwrap_or(f64::INFINITY)),
        })
    }

    /// Consumes a number without sign and exponent that has at most 15 digits. Most numbers are of this form. For any
    /// other number, returns `None` and does not move the cursor.
    #[inline]
    fn short_number(&mut self) -> Option<Number> {
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
            // Both `value` and `ten` are exact floats, so a single division gives the correctly rounded result
            // (Clinger's fast path).
            Some(ten) => Number::Float(value as f64 / ten),
            None => return None,
        };
        self.at = self.bytes.len() - rest.len();
        Some(number)
    }

    /// Consumes one or more digits and returns how many there were.
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

    /// Consumes an object key. Fails if something else follows.
    pub(in crate::contract) fn key(&mut self) -> Result<QuotedString, SyntaxError> {
        if self.peek() != b'"' {
            return Err(self.syntax_error(format_args!("expected a key in quotes")));
        }
        self.string()
    }

    /// Consumes a comma or the closing bracket. Returns true if it was a comma, which means that another element must
    /// follow.
    #[inline]
    pub(in crate::contract) fn more(&mut self, close: u8) -> Result<bool, SyntaxError> {
        let byte = self.peek();
        if byte != b',' && byte != close {
            return Err(self.syntax_error(format_args!("expected `,` or `{}`", char::from(close))));
        }
        self.at += 1;
        Ok(byte == b',')
    }

    /// Returns a syntax error for the current position. If the body, line or message ends there, the error says so.
    #[cold]
    fn syntax_error(&self, expected: std::fmt::Arguments<'_>) -> SyntaxError {
        let ends = if self.at >= self.bytes.len() { ", which ends there" } else { "" };
        let (at, whole) = match self.message_start {
            Some(start) => (self.at.saturating_sub(start), "message"),
            None => (self.at, "body"),
        };
        SyntaxError(format!("{expected} at byte {at} of the {whole}{ends}").into())
    }
}

/// Returns the number of bytes before the first quote, backslash or control character. Reads eight bytes at a time.
#[inline]
fn plain_run(bytes: &[u8]) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    const TOPS: u64 = 0x8080_8080_8080_8080;
    // The lowest set bit of the result is in the first byte that ends the search. Higher bits may be wrong, because the
    // subtraction borrows across bytes.
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

/// Reads up to sixteen digits from the start of `bytes`, and appends them to the decimal number `value`. Returns the
/// new number, the number of digits, and the remaining bytes.
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

/// Powers of ten, all of which are exact as `f64`.
const TENS: [f64; 16] = [1e0, 1e1, 1e2, 1e3, 1e4, 1e5, 1e6, 1e7, 1e8, 1e9, 1e10, 1e11, 1e12, 1e13, 1e14, 1e15];

#[cfg(test)]
mod tests {
    use rand::rngs::StdRng;
    use rand::{RngExt as _, SeedableRng as _};

    use super::*;

    /// Parses a string with [`Cursor::short_number`] and with [`Cursor::other_number`]. If one of these functions does
    /// not consume the whole string, its result is `None`.
    fn read(text: &str) -> (Option<Number>, Option<Number>) {
        // Bytes that follow a number must not change the result.
        let body = format!("{text},1");
        let cursor = Cursor::new(body.as_bytes(), Some(&body), 0);
        let read = |short: bool| {
            let mut cursor = cursor.clone();
            let number = if short { cursor.short_number() } else { cursor.other_number().ok() };
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
        let mut short_count = 0;
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
            let (short, full) = read(&text);
            assert_eq!(full, Some(expected), "{text}");
            if let (Number::Float(read), Number::Float(expected)) = (full.unwrap(), expected) {
                assert_eq!(read.to_bits(), expected.to_bits(), "{text}");
            }
            if let Some(short) = short {
                assert_eq!(short, expected, "{text}");
                short_count += 1;
            }
        }
        assert!(short_count > 4_000, "{short_count}");
        for other in ["", "-1", "01", "1.", ".5", "1e3", "1.5E2", "1.2.3", "1234567890123456", "1.234567890123456"] {
            assert_eq!(read(other).0, None, "{other}");
        }
    }
}
