//! Converts Avro messages to JSON text. The conversion uses the schema with which the messages were written.
//!
//! | Avro | JSON |
//! |---|---|
//! | union | the value, without the name of its type |
//! | `bytes`, `fixed` | string in base64 |
//! | `enum`, `uuid` | string |
//! | `decimal`, `big-decimal` | string with all digits |
//! | `timestamp-*` | RFC 3339 string |
//! | `local-timestamp-*` | RFC 3339 string without an offset |
//! | `date`, `time-*`, `duration` | ISO 8601 string |
//! | NaN and infinities | `"NaN"`, `"Infinity"`, `"-Infinity"` |
//!
//! A date or time outside the range of the calendar library is written as the number that was sent.
//!
//! **Invariant:** for each item of a list, at least one byte of JSON is written. A message with a list of a billion
//! nulls therefore exceeds the size limit of the JSON text before it can exhaust memory.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;

use super::avro::{AvroNode, AvroSchema};
use super::logical_values::{LogicalTimeUnit, date_text, decimal_text, time_text, timestamp_text};
use crate::contract::decode::reject_reason::Reason;

/// The maximum nesting depth of values.
const DEPTH_MAX: usize = 64;

/// The reason and the error message of a rejected message.
type AvroRejection = (Reason, String);

impl AvroSchema {
    /// Converts a message to JSON text and appends it to `out`. The text must not be longer than `bytes_max` bytes.
    pub fn write_json(&self, message: &[u8], out: &mut Vec<u8>, bytes_max: usize) -> Result<(), AvroRejection> {
        let mut reader =
            AvroReader { schema: self, rest: message, depth: 0, end: out.len().saturating_add(bytes_max), bytes_max };
        reader.value(0, out)?;
        match reader.rest.len() {
            0 => Ok(()),
            rest => Err(malformed(format!("{rest} bytes follow the message: it was written with a different schema"))),
        }
    }
}

struct AvroReader<'a> {
    schema: &'a AvroSchema,
    rest: &'a [u8],
    depth: usize,
    /// The maximum length of the output.
    end: usize,
    bytes_max: usize,
}

impl<'a> AvroReader<'a> {
    fn value(&mut self, node: usize, out: &mut Vec<u8>) -> Result<(), AvroRejection> {
        self.depth += 1;
        if self.depth > DEPTH_MAX {
            return Err(malformed(format!("values are nested more than {DEPTH_MAX} levels deep")));
        }
        match &self.schema.nodes[node] {
            AvroNode::Union(branches) => {
                let branch = self.read_index(branches.len(), "union")?;
                self.value(branches[branch], out)?;
            }
            AvroNode::Record(fields) => self.record(fields, out)?,
            AvroNode::Array(items) => self.blocks(*items, (b'[', b']'), false, out)?,
            AvroNode::Map(values) => self.blocks(*values, (b'{', b'}'), true, out)?,
            plain => self.plain(plain, out)?,
        }
        self.depth -= 1;
        if out.len() > self.end {
            let bytes_max = self.bytes_max;
            return Err((
                Reason::TooLarge,
                format!("converted to JSON, the message exceeds the limit of {bytes_max} bytes"),
            ));
        }
        Ok(())
    }

    fn record(&mut self, fields: &[(String, usize)], out: &mut Vec<u8>) -> Result<(), AvroRejection> {
        out.push(b'{');
        for (index, (key, node)) in fields.iter().enumerate() {
            if index > 0 {
                out.push(b',');
            }
            out.extend_from_slice(key.as_bytes());
            self.value(*node, out)?;
        }
        out.push(b'}');
        Ok(())
    }

    /// Reads a list or a map. Avro encodes both as a sequence of blocks. Each block begins with its number of items. If
    /// this number is negative, its absolute value is the number of items, and the size of the block in bytes follows.
    /// A block without items ends the list or map.
    fn blocks(
        &mut self,
        node: usize,
        (open, close): (u8, u8),
        is_map: bool,
        out: &mut Vec<u8>,
    ) -> Result<(), AvroRejection> {
        out.push(open);
        let mut is_first = true;
        loop {
            let count = self.long()?;
            if count == 0 {
                out.push(close);
                return Ok(());
            }
            if count < 0 {
                self.long()?;
            }
            for _ in 0..count.unsigned_abs() {
                if !std::mem::take(&mut is_first) {
                    out.push(b',');
                }
                if is_map {
                    self.text(out)?;
                    out.push(b':');
                }
                self.value(node, out)?;
            }
        }
    }

    fn plain(&mut self, node: &AvroNode, out: &mut Vec<u8>) -> Result<(), AvroRejection> {
        match node {
            AvroNode::Null => out.extend_from_slice(b"null"),
            AvroNode::Boolean => match self.take(1)? {
                [0] => out.extend_from_slice(b"false"),
                [1] => out.extend_from_slice(b"true"),
                _ => return Err(malformed("a boolean is neither 0 nor 1")),
            },
            AvroNode::Int => number(out, self.int()?.into()),
            AvroNode::Long => number(out, self.long()?),
            AvroNode::Float => {
                let value = f32::from_le_bytes(self.array()?);
                // The value is written as an `f32`. As an `f64`, it would be written with more digits than the sender's
                // value has.
                if value.is_finite() { json(out, &value) } else { not_finite(out, value.into()) }
            }
            AvroNode::Double => {
                let value = f64::from_le_bytes(self.array()?);
                if value.is_finite() { json(out, &value) } else { not_finite(out, value) }
            }
            AvroNode::Bytes => {
                let bytes = self.length_prefixed()?;
                base64(out, bytes);
            }
            AvroNode::Fixed(size) => base64(out, self.take(*size)?),
            AvroNode::Text => self.text(out)?,
            AvroNode::Enum(symbols) => {
                let symbol = self.read_index(symbols.len(), "enum")?;
                out.extend_from_slice(symbols[symbol].as_bytes());
            }
            AvroNode::Decimal(size, scale) => {
                let bytes = self.sized(*size)?;
                text(out, &decimal_text(bytes, *scale as i64).map_err(malformed)?);
            }
            AvroNode::BigDecimal => text(out, &big_decimal(self.length_prefixed()?)?),
            AvroNode::VariableScaleDecimal => {
                let scale = self.int()?;
                text(out, &decimal_text(self.length_prefixed()?, scale.into()).map_err(malformed)?);
            }
            AvroNode::Uuid(size) => text(out, &uuid(self.sized(*size)?)?),
            AvroNode::Date | AvroNode::Time(_) | AvroNode::Timestamp(_) | AvroNode::LocalTimestamp(_) => {
                self.time(node, out)?
            }
            AvroNode::Duration => {
                let [months, days, millis] = [self.array()?, self.array()?, self.array()?].map(u32::from_le_bytes);
                text(out, &format!("P{months}M{days}DT{}.{:03}S", millis / 1_000, millis % 1_000));
            }
            AvroNode::Union(_) | AvroNode::Record(_) | AvroNode::Array(_) | AvroNode::Map(_) | AvroNode::Pending => {
                return Err(malformed("the decoder read a nested type as a plain type"));
            }
        }
        Ok(())
    }

    fn time(&mut self, node: &AvroNode, out: &mut Vec<u8>) -> Result<(), AvroRejection> {
        let value = match node {
            AvroNode::Date | AvroNode::Time(LogicalTimeUnit::Millis) => self.int()?.into(),
            _ => self.long()?,
        };
        let shown = match node {
            AvroNode::Date => date_text(value),
            AvroNode::Time(unit) => time_text(value, *unit),
            AvroNode::LocalTimestamp(unit) => {
                timestamp_text(value, *unit).map(|time| time.trim_end_matches('Z').to_owned())
            }
            AvroNode::Timestamp(unit) => timestamp_text(value, *unit),
            _ => None,
        };
        match shown {
            Some(shown) => text(out, &shown),
            None => number(out, value),
        }
        Ok(())
    }

    fn text(&mut self, out: &mut Vec<u8>) -> Result<(), AvroRejection> {
        let bytes = self.length_prefixed()?;
        let text =
            std::str::from_utf8(bytes).map_err(|_| (Reason::InvalidUtf8, "a string is not valid UTF-8".to_owned()))?;
        json(out, text);
        Ok(())
    }

    /// Reads bytes with a length prefix.
    fn length_prefixed(&mut self) -> Result<&'a [u8], AvroRejection> {
        let count = self.long()?;
        let count =
            usize::try_from(count).map_err(|_| malformed(format!("a length is {count}, which is out of range")))?;
        self.take(count)
    }

    fn sized(&mut self, size: Option<usize>) -> Result<&'a [u8], AvroRejection> {
        match size {
            Some(size) => self.take(size),
            None => self.length_prefixed(),
        }
    }

    /// Reads an index, which must be less than `count`.
    fn read_index(&mut self, count: usize, of: &str) -> Result<usize, AvroRejection> {
        let index = self.long()?;
        let known = usize::try_from(index).ok().filter(|index| *index < count);
        known.ok_or_else(|| malformed(format!("the {of} has {count} values, but the message refers to index {index}")))
    }

    fn int(&mut self) -> Result<i32, AvroRejection> {
        let value = self.long()?;
        i32::try_from(value).map_err(|_| malformed(format!("an int is {value}, which is out of range")))
    }

    /// Reads a zigzag varint of at most ten bytes.
    fn long(&mut self) -> Result<i64, AvroRejection> {
        let end = self.rest.iter().take(10).position(|byte| *byte < 0x80);
        let bytes = match end {
            Some(end) => self.take(end + 1)?,
            None if self.rest.len() < 10 => return Err(truncated()),
            None => return Err(malformed("an integer has more than ten bytes")),
        };
        let value = bytes.iter().rev().fold(0_u128, |value, byte| value << 7 | u128::from(byte & 0x7f));
        let value = u64::try_from(value).map_err(|_| malformed("an integer has more than 64 bits"))?;
        Ok((value >> 1) as i64 ^ -((value & 1) as i64))
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], AvroRejection> {
        let (array, rest) = self.rest.split_first_chunk().ok_or_else(truncated)?;
        self.rest = rest;
        Ok(*array)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], AvroRejection> {
        let (bytes, rest) = self.rest.split_at_checked(count).ok_or_else(truncated)?;
        self.rest = rest;
        Ok(bytes)
    }
}

fn malformed(what: impl Into<String>) -> AvroRejection {
    (Reason::Malformed, what.into())
}

fn truncated() -> AvroRejection {
    malformed("the message is truncated")
}

fn json(out: &mut Vec<u8>, value: &(impl serde::Serialize + ?Sized)) {
    serde_json::to_writer(out, value)
        .expect("numbers and strings serialize to JSON, and writing to a vector cannot fail");
}

fn number(out: &mut Vec<u8>, value: i64) {
    json(out, &value);
}

/// Writes a string that needs no escaping.
fn text(out: &mut Vec<u8>, text: &str) {
    out.push(b'"');
    out.extend_from_slice(text.as_bytes());
    out.push(b'"');
}

fn base64(out: &mut Vec<u8>, bytes: &[u8]) {
    text(out, &BASE64.encode(bytes));
}

fn not_finite(out: &mut Vec<u8>, value: f64) {
    text(
        out,
        if value.is_nan() {
            "NaN"
        } else if value > 0.0 {
            "Infinity"
        } else {
            "-Infinity"
        },
    );
}

fn uuid(bytes: &[u8]) -> Result<String, AvroRejection> {
    let bytes = bytes.try_into().map_err(|_| malformed(format!("a uuid has {} bytes, not 16", bytes.len())))?;
    Ok(uuid::Uuid::from_bytes(bytes).to_string())
}

fn big_decimal(bytes: &[u8]) -> Result<String, AvroRejection> {
    let schema = AvroSchema { nodes: Vec::new() };
    let mut inner = AvroReader { schema: &schema, rest: bytes, depth: 0, end: 0, bytes_max: 0 };
    let (unscaled, scale) = (inner.length_prefixed()?, inner.long()?);
    decimal_text(unscaled, scale).map_err(malformed)
}
