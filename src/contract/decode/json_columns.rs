//! Reads the values of columns from JSON events.
//!
//! Takes a cursor at a value and the [`Leaf`] of its column. Writes the converted value to the current row, or marks the
//! row as rejected. Decimals are read from the digits of a number, and the text of a JSON column is copied unchanged.

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};

use super::column_value::{ColumnValue, Text};
use super::cursor::{Cursor, Number, QuotedString, SyntaxError};
use super::json::{JsonDecoder, KEY_SHOWN_MAX, type_of};
use super::json_text::{escapes_are_valid, unescape};
use super::reject_reason::{Reason, RejectCause};
use crate::contract::ColumnKind;
use crate::contract::schema::fields::{FieldEncoding, Leaf};

const BASE64: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const BASE64_STANDARD: GeneralPurpose = GeneralPurpose::new(&STANDARD, BASE64);
const BASE64_URL: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, BASE64);

impl<'a> JsonDecoder<'a> {
    /// Reads the value of a column. In the most common cases (strings in text columns, and numbers in columns of 64-bit
    /// numbers), the value needs no conversion and is written directly.
    pub(super) fn column(&mut self, cursor: &mut Cursor<'a>, leaf: Leaf) -> Result<(), SyntaxError> {
        let first = cursor.peek();
        let start = cursor.at;
        let is_seen = self.builder.is_seen(leaf.column);
        let read = match first {
            b'"' => {
                let quoted = cursor.string()?;
                match self.text(cursor, quoted) {
                    Some(text) if leaf.kind == ColumnKind::Text && !is_seen => {
                        self.builder.put_text(leaf.column, text);
                        return Ok(());
                    }
                    text => self.string(cursor, leaf, start, text),
                }
            }
            b'-' | b'0'..=b'9' | b'N' | b'I' => {
                let number = cursor.number()?;
                if let Some(bits) = bits(number, leaf.kind)
                    && !is_seen
                {
                    self.builder.put(leaf.column, bits);
                    return Ok(());
                }
                self.number(cursor, leaf, start, number)
            }
            b'[' if matches!(leaf.kind, ColumnKind::List(_)) => return self.list(cursor, leaf),
            _ => self.other_value(cursor, leaf)?,
        };
        let contract = self.contract;
        if is_seen {
            self.builder.mark_rejected(|| RejectCause::duplicate(&contract.columns[leaf.column].name));
        }
        match read {
            Ok(value) => self.builder.set(leaf.column, value),
            Err(reason) => {
                let reason = if leaf.column == contract.time { reason.of_time() } else { reason };
                let got = self.displayed(cursor, first, start);
                self.builder.mark_rejected(|| RejectCause::value(reason, &contract.columns[leaf.column], got));
            }
        }
        Ok(())
    }

    /// Reads a value of any kind except a list. The cursor must be at its first byte.
    fn value(&mut self, cursor: &mut Cursor<'a>, leaf: Leaf) -> Result<Result<ColumnValue<'a>, Reason>, SyntaxError> {
        let first = cursor.peek();
        let start = cursor.at;
        Ok(match first {
            b'"' => {
                let quoted = cursor.string()?;
                let text = self.text(cursor, quoted);
                self.string(cursor, leaf, start, text)
            }
            b'-' | b'0'..=b'9' | b'N' | b'I' => {
                let number = cursor.number()?;
                self.number(cursor, leaf, start, number)
            }
            _ => self.other_value(cursor, leaf)?,
        })
    }

    /// Converts a string that begins at `start` and ends at the cursor. `text` is its contents, or `None` if they are
    /// not valid.
    fn string(
        &mut self,
        cursor: &Cursor<'a>,
        leaf: Leaf,
        start: usize,
        text: Option<Text<'a>>,
    ) -> Result<ColumnValue<'a>, Reason> {
        match text {
            None => Err(Reason::InvalidUtf8),
            Some(_) if leaf.kind == ColumnKind::Json => json_text(cursor, start),
            Some(text) => self.column_text(leaf, text),
        }
    }

    /// Converts a number that begins at `start` and ends at the cursor.
    fn number(
        &mut self,
        cursor: &Cursor<'a>,
        leaf: Leaf,
        start: usize,
        number: Number,
    ) -> Result<ColumnValue<'a>, Reason> {
        match (number, leaf.kind) {
            (Number::NotFinite, _) => Err(Reason::NotFinite),
            (_, ColumnKind::Json) => json_text(cursor, start),
            (_, ColumnKind::Decimal { .. }) => leaf.digits(cursor.bytes(start, cursor.at)),
            (Number::Int(value), _) => self.column_int(leaf, value),
            (Number::Float(value), _) => leaf.float(value),
        }
    }

    /// Reads a literal, an object or an array, which only a JSON column stores.
    fn other_value(
        &mut self,
        cursor: &mut Cursor<'a>,
        leaf: Leaf,
    ) -> Result<Result<ColumnValue<'a>, Reason>, SyntaxError> {
        Ok(match cursor.peek() {
            b'n' => cursor.literal("null").map(|()| Ok(ColumnValue::Null))?,
            b't' => cursor.literal("true").map(|()| leaf.bool(true))?,
            b'f' => cursor.literal("false").map(|()| leaf.bool(false))?,
            _ => {
                let raw = cursor.raw()?;
                match leaf.kind {
                    ColumnKind::Json if raw.not_finite => Err(Reason::NotFinite),
                    ColumnKind::Json => json_text(cursor, raw.start),
                    _ => Err(Reason::WrongType),
                }
            }
        })
    }

    /// Reads a list. The cursor must be at its opening bracket.
    fn list(&mut self, cursor: &mut Cursor<'a>, leaf: Leaf) -> Result<(), SyntaxError> {
        let contract = self.contract;
        if self.builder.is_seen(leaf.column) {
            self.builder.mark_rejected(|| RejectCause::duplicate(&contract.columns[leaf.column].name));
        }
        self.builder.start_list(leaf.column);
        cursor.at += 1;
        if cursor.peek() == b']' {
            cursor.at += 1;
            return Ok(());
        }
        let element = leaf.element().unwrap_or(leaf);
        loop {
            let first = cursor.peek();
            let start = cursor.at;
            match self.value(cursor, element)? {
                Ok(value) => self.builder.push(leaf.column, value),
                Err(reason) => {
                    let got = self.displayed(cursor, first, start);
                    let detail = || RejectCause::element(reason, &contract.columns[leaf.column], got);
                    self.builder.mark_rejected(detail);
                }
            }
            if !cursor.more(b']')? {
                return Ok(());
            }
        }
    }

    /// Formats a value for an error message. Short numbers and literals are shown verbatim. For all other values, only
    /// the type is shown.
    #[cold]
    fn displayed(&self, cursor: &Cursor<'a>, first: u8, start: usize) -> &'a str {
        let word = !matches!(first, b'"' | b'{' | b'[') && cursor.at - start <= KEY_SHOWN_MAX;
        if word { cursor.slice(start, cursor.at).unwrap_or_default() } else { type_of(first) }
    }

    fn column_text(&mut self, leaf: Leaf, text: Text<'a>) -> Result<ColumnValue<'a>, Reason> {
        if leaf.kind != ColumnKind::Bytes {
            return leaf.text(self.builder.text(text), text);
        }
        let start = self.builder.derived_bytes.len();
        let mut blob = std::mem::take(&mut self.builder.derived_bytes);
        let encoded = self.builder.text(text);
        let engine = if encoded.contains(['-', '_']) { BASE64_URL } else { BASE64_STANDARD };
        let read = engine.decode_vec(encoded, &mut blob);
        self.builder.derived_bytes = blob;
        read.map(|()| ColumnValue::DerivedBytes(start, self.builder.derived_bytes.len())).map_err(|_| Reason::WrongType)
    }

    /// Converts an integer. In an enum column, the integer is replaced by the name of the enum value.
    fn column_int(&mut self, leaf: Leaf, value: i64) -> Result<ColumnValue<'a>, Reason> {
        let (ColumnKind::Text, FieldEncoding::Enum(names)) = (leaf.kind, leaf.encoding) else {
            return leaf.int(value);
        };
        let number = i32::try_from(value).map_err(|_| Reason::OutOfRange)?;
        Ok(ColumnValue::Text(match self.contract.tree.enums[names].name(number) {
            Some(name) => Text::Borrowed(name),
            None => self.builder.number(number),
        }))
    }

    /// Returns the unescaped contents of a string. Returns `None` if the contents are not valid UTF-8 or contain a lone
    /// surrogate.
    #[inline]
    pub(super) fn text(&mut self, cursor: &Cursor<'a>, quoted: QuotedString) -> Option<Text<'a>> {
        let text = cursor.slice(quoted.start, quoted.end)?;
        if !quoted.escaped {
            return Some(Text::Borrowed(text));
        }
        let start = self.builder.derived.len();
        unescape(text, &mut self.builder.derived).then(|| self.builder.derived_since(start))
    }
}

/// Returns the JSON value that begins at `start` and ends at the cursor, exactly as it was sent.
fn json_text<'a>(cursor: &Cursor<'a>, start: usize) -> Result<ColumnValue<'a>, Reason> {
    let text = cursor.slice(start, cursor.at).filter(|text| escapes_are_valid(text));
    text.map(|text| ColumnValue::Text(Text::Borrowed(text))).ok_or(Reason::InvalidUtf8)
}

/// Returns the bit pattern of a number if a column of this kind can store it without a conversion.
#[inline]
fn bits(number: Number, kind: ColumnKind) -> Option<u64> {
    match (number, kind) {
        (Number::Int(value), ColumnKind::Int64) => Some(value.cast_unsigned()),
        (Number::Int(value), ColumnKind::Float64) => Some((value as f64).to_bits()),
        (Number::Float(value), ColumnKind::Float64) if value.is_finite() => Some(value.to_bits()),
        _ => None,
    }
}
