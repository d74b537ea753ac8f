//! The decoder of JSON events: one object, an array of objects, or one object per line.
//!
//! A line with a syntax error is rejected, and the other lines are not affected. After a syntax error in an array, the
//! events before the error are kept, and the remaining bytes are recorded as a single reject. If a value is invalid for
//! its column, only its event is rejected.
//!
//! In each event, the decoder expects the fields in the same order as in the previous event. The check costs one
//! comparison per field and nearly always succeeds, because producers write their fields in a fixed order. A field that
//! is out of order is looked up in a hash table. `json_columns` reads the values of columns.

use std::ops::Range;

use bytes::Bytes;

use super::accept_or_reject::EventCollector;
use super::column_value::Text;
use super::cursor::{Cursor, QuotedString, SyntaxError};
use super::json_text::{compact, unescape, without_byte_order_mark};
use super::reject_reason::{Reason, RejectCause};
use crate::contract::columns::batch_builder::BatchBuilder;
use crate::contract::schema::fields::{Field, Target};
use crate::contract::{Contract, DecodeOptions, Decoded};
use crate::error::{Error, Result, did_you_mean};

/// The maximum initial capacity of the columns, in rows.
const ROWS_GUESSED_MAX: usize = 1 << 16;
/// An error message shows at most this number of characters of an unknown key or an invalid literal.
pub(super) const KEY_SHOWN_MAX: usize = 64;

/// Decodes a whole body.
pub(in crate::contract) fn decode(contract: &Contract, body: &Bytes, options: &DecodeOptions) -> Result<Decoded> {
    let text = std::str::from_utf8(body).ok();
    let start = body.len() - without_byte_order_mark(body).len();
    let mut json = JsonDecoder::new(contract, body, text, options, rows_of(body));
    let mut whole = Cursor::new(body, text, start);
    match whole.peek() {
        0 if whole.at_end() => {}
        b'[' => json.array(whole)?,
        b'{' if is_one_value(whole.clone()) => json.line(trimmed(body, whole.at..body.len()), None)?,
        first => json.lines(whole.at, first == b'{')?,
    }
    json.collector.finish(json.builder)
}

/// Decodes messages, each of which must be one object. A byte order mark at the start of a message is skipped.
pub(in crate::contract) fn decode_messages(
    contract: &Contract,
    body: &Bytes,
    ranges: &[Range<usize>],
    options: &DecodeOptions,
) -> Result<Decoded> {
    let text = std::str::from_utf8(body).ok();
    let mut json = JsonDecoder::new(contract, body, text, options, ranges.len());
    for range in ranges {
        let text_start = range.end - without_byte_order_mark(&body[range.clone()]).len();
        json.line(trimmed(body, text_start..range.end), Some(range.start))?;
    }
    json.collector.finish(json.builder)
}

/// Estimates the number of events in the body from the length of its first line.
fn rows_of(body: &[u8]) -> usize {
    let line = memchr::memchr(b'\n', body).map_or(body.len(), |end| end + 1);
    (body.len() / line.max(1)).min(ROWS_GUESSED_MAX)
}

/// Returns true if the body consists of a single JSON value. If the body has one event per line, only the first line is
/// read.
fn is_one_value(mut whole: Cursor<'_>) -> bool {
    whole.raw().is_ok() && whole.at_end()
}

/// The decoder of one body.
pub(super) struct JsonDecoder<'a> {
    pub(super) contract: &'a Contract,
    body: &'a [u8],
    text: Option<&'a str>,
    collector: EventCollector<'a>,
    pub(super) builder: BatchBuilder<'a>,
    /// For each object of the field tree, the index in `next` at which its entries start.
    bases: Vec<usize>,
    /// For each name of each object, the index of the name that most recently followed it. The first entry of an object
    /// is the index of the name that most recently came first.
    next: Vec<u16>,
}

impl<'a> JsonDecoder<'a> {
    fn new(
        contract: &'a Contract,
        body: &'a Bytes,
        text: Option<&'a str>,
        options: &'a DecodeOptions,
        rows: usize,
    ) -> Self {
        let (mut bases, mut next) = (Vec::new(), Vec::new());
        for node in &contract.tree.nodes {
            bases.push(next.len());
            next.extend((0..=node.names()).map(|index| index as u16));
        }
        let (collector, builder) =
            (EventCollector::new(contract, body, options), BatchBuilder::new(contract, body, options, rows));
        Self { contract, body, text, collector, builder, bases, next }
    }

    fn lines(&mut self, start: usize, mut is_json: bool) -> Result<()> {
        let mut start = start;
        while start < self.body.len() {
            let end = self.line_end(start);
            let line = trimmed(self.body, start..end);
            is_json |= self.body[line.clone()].starts_with(b"{");
            if !line.is_empty() {
                self.line(line, None)?;
            }
            start = end + 1;
        }
        if is_json { Ok(()) } else { Err(not_json()) }
    }

    fn line_end(&self, start: usize) -> usize {
        memchr::memchr(b'\n', &self.body[start..]).map_or(self.body.len(), |length| start + length)
    }

    /// Decodes a line or a message, which must contain exactly one event. `message_start` is the offset of the message
    /// in the body, or `None` for a line.
    fn line(&mut self, range: Range<usize>, message_start: Option<usize>) -> Result<()> {
        self.builder.open();
        let cursor = Cursor::new(&self.body[..range.end], self.text, range.start);
        let mut cursor = match message_start {
            Some(start) => cursor.in_message(start),
            None => cursor,
        };
        let read = self.event(&mut cursor).and_then(|()| {
            if cursor.at_end() {
                Ok(())
            } else {
                Err(SyntaxError("the line or message has more than one value".into()))
            }
        });
        self.finish_event(read, range)
    }

    fn array(&mut self, mut cursor: Cursor<'a>) -> Result<()> {
        let end = trimmed(self.body, 0..self.body.len()).end;
        cursor.at += 1;
        let mut more = cursor.peek() != b']';
        cursor.at += usize::from(!more);
        while more {
            self.builder.open();
            cursor.peek();
            let start = cursor.at;
            let read = self.event(&mut cursor);
            let broken = read.is_err();
            self.finish_event(read, start..if broken { end } else { cursor.at })?;
            if broken {
                return Ok(());
            }
            let rest = cursor.at;
            more = match cursor.more(b']') {
                Ok(more) => more,
                Err(broken) => return self.rest(rest..end, broken),
            };
        }
        if cursor.at_end() {
            return Ok(());
        }
        self.rest(cursor.at..end, SyntaxError("there are bytes after the end of the array".into()))
    }

    /// Rejects the remaining elements of an array, which take up `range` of the body.
    fn rest(&mut self, range: Range<usize>, broken: SyntaxError) -> Result<()> {
        self.builder.open();
        self.finish_event(Err(broken), range)
    }

    fn finish_event(&mut self, read: Result<(), SyntaxError>, range: Range<usize>) -> Result<()> {
        match read {
            Ok(()) => self.collector.accept_or_reject(&mut self.builder, range),
            Err(SyntaxError(what)) => {
                self.collector.reject(&mut self.builder, range, RejectCause::new(Reason::Malformed, what))
            }
        }
    }

    fn event(&mut self, cursor: &mut Cursor<'a>) -> Result<(), SyntaxError> {
        if cursor.peek() == b'{' {
            return self.object(cursor, 0);
        }
        cursor.raw()?;
        self.builder.mark_rejected(|| RejectCause::new(Reason::Malformed, "an event must be a JSON object"));
        Ok(())
    }

    /// Reads the fields of an object. The cursor must be at its opening brace.
    fn object(&mut self, cursor: &mut Cursor<'a>, node: usize) -> Result<(), SyntaxError> {
        cursor.at += 1;
        if cursor.peek() == b'}' {
            cursor.at += 1;
            return Ok(());
        }
        let contract = self.contract;
        let fields = &contract.tree.nodes[node];
        let base = self.bases[node];
        let mut last = base;
        loop {
            if cursor.peek() != b'"' {
                cursor.key()?;
            }
            let guess = usize::from(self.next[last]);
            if let Some((_, field)) = fields.name(guess).filter(|(name, _)| cursor.key_is(name)) {
                cursor.consume(b':')?;
                last = base + guess + 1;
                self.field(cursor, node, field)?;
            } else {
                let key = cursor.key()?;
                cursor.consume(b':')?;
                match self.find(cursor, node, key) {
                    Some(index) => {
                        self.next[last] = index as u16;
                        last = base + index + 1;
                        let (_, field) = fields.name(index).expect("`find` returns indexes of existing names");
                        self.field(cursor, node, field)?;
                    }
                    None => self.unknown(cursor, node, key)?,
                }
            }
            if !cursor.more(b'}')? {
                return Ok(());
            }
        }
    }

    fn find(&self, cursor: &Cursor<'a>, node: usize, key: QuotedString) -> Option<usize> {
        let fields = &self.contract.tree.nodes[node];
        if !key.escaped {
            return fields.find_name(cursor.bytes(key.start, key.end));
        }
        let mut name = String::new();
        let text = cursor.slice(key.start, key.end)?;
        unescape(text, &mut name).then(|| fields.find_name(name.as_bytes()))?
    }

    fn field(&mut self, cursor: &mut Cursor<'a>, node: usize, field: &Field) -> Result<(), SyntaxError> {
        match field.target {
            Target::Column(leaf) => self.column(cursor, leaf),
            Target::Ignored => cursor.raw().map(drop),
            Target::Map(..) => match cursor.peek() {
                b'{' => self.map(cursor),
                b'n' => cursor.literal("null"),
                _ => self.not_an_object(cursor, node, field),
            },
            Target::Node(inner) => match cursor.peek() {
                b'{' => {
                    if self.builder.enter(inner) {
                        let prefix = &self.contract.tree.nodes[node].prefix;
                        self.builder.mark_rejected(|| RejectCause::duplicate(&format!("{prefix}{}", field.name)));
                    }
                    self.object(cursor, inner)
                }
                b'n' => cursor.literal("null"),
                _ => self.not_an_object(cursor, node, field),
            },
        }
    }

    #[cold]
    fn not_an_object(&mut self, cursor: &mut Cursor<'a>, node: usize, field: &Field) -> Result<(), SyntaxError> {
        let got = type_of(cursor.peek());
        let prefix = &self.contract.tree.nodes[node].prefix;
        let detail = || format!("field `{prefix}{}` expects an object, got {got}", field.name);
        self.builder.mark_rejected(|| RejectCause::new(Reason::WrongType, detail()));
        cursor.raw().map(drop)
    }

    /// Reads the map column's object. The cursor must be at its opening brace.
    fn map(&mut self, cursor: &mut Cursor<'a>) -> Result<(), SyntaxError> {
        cursor.at += 1;
        if cursor.peek() == b'}' {
            cursor.at += 1;
            return Ok(());
        }
        loop {
            let key = cursor.key()?;
            cursor.consume(b':')?;
            let key = self.text(cursor, key);
            self.entry(cursor, key)?;
            if !cursor.more(b'}')? {
                return Ok(());
            }
        }
    }

    /// Reads an undeclared field.
    fn unknown(&mut self, cursor: &mut Cursor<'a>, node: usize, key: QuotedString) -> Result<(), SyntaxError> {
        let contract = self.contract;
        let prefix = contract.tree.nodes[node].prefix.as_str();
        let key = self.text(cursor, key);
        if !contract.unknown_to_map {
            let displayed: String = key.map_or("?", |key| self.builder.text(key)).chars().take(KEY_SHOWN_MAX).collect();
            let hint = did_you_mean(&displayed, contract.columns.iter().map(|column| column.name.as_str()));
            let detail =
                format!("unknown field `{prefix}{displayed}`{hint}; the table has no map column for undeclared fields");
            self.builder.mark_rejected(|| RejectCause::new(Reason::UnknownField, detail));
            return cursor.raw().map(drop);
        }
        let key = key.map(|key| if prefix.is_empty() { key } else { self.builder.join(prefix, key) });
        self.entry(cursor, key)
    }

    /// Reads a value and adds it to the map column. Strings are unescaped, other scalars are copied verbatim, and
    /// objects and arrays are stored as compact JSON.
    fn entry(&mut self, cursor: &mut Cursor<'a>, key: Option<Text<'a>>) -> Result<(), SyntaxError> {
        let value = match cursor.peek() {
            b'"' => {
                let quoted = cursor.string()?;
                self.text(cursor, quoted).map(Some)
            }
            b'n' => cursor.literal("null").map(|()| Some(None))?,
            _ => {
                let raw = cursor.raw()?;
                if raw.not_finite {
                    self.builder.mark_rejected(|| {
                        RejectCause::new(Reason::NotFinite, "an undeclared field contains NaN or infinity")
                    });
                }
                cursor.slice(raw.start, raw.end).map(|text| Some(self.compacted(text)))
            }
        };
        let (Some(key), Some(value)) = (key, value) else {
            self.builder
                .mark_rejected(|| RejectCause::new(Reason::InvalidUtf8, "an undeclared field is not valid UTF-8"));
            return Ok(());
        };
        if !self.builder.add_entry(key, value, false) {
            let key: String = self.builder.text(key).chars().take(KEY_SHOWN_MAX).collect();
            self.builder.mark_rejected(|| RejectCause::duplicate(&key));
        }
        Ok(())
    }

    fn compacted(&mut self, value: &'a str) -> Text<'a> {
        if !value.contains(|byte: char| byte.is_ascii_whitespace()) {
            return Text::Borrowed(value);
        }
        let start = self.builder.derived.len();
        compact(value, &mut self.builder.derived);
        self.builder.derived_since(start)
    }
}

/// Returns the range without leading and trailing white space.
fn trimmed(body: &[u8], range: Range<usize>) -> Range<usize> {
    let is_text = |byte: &u8| !matches!(byte, b' ' | b'\n' | b'\r' | b'\t');
    let bytes = &body[range.clone()];
    match (bytes.iter().position(is_text), bytes.iter().rposition(is_text)) {
        (Some(first), Some(last)) => range.start + first..range.start + last + 1,
        _ => range.start..range.start,
    }
}

pub(super) fn type_of(first: u8) -> &'static str {
    match first {
        b'"' => "text",
        b'{' => "an object",
        b'[' => "an array",
        b't' | b'f' => "a boolean",
        b'n' => "null",
        _ => "a number",
    }
}

fn not_json() -> Error {
    Error::invalid("the body is not valid JSON: send one object, an array of objects, or one object per line")
}
