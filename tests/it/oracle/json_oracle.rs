//! The oracle for the server's JSON decoder. The oracle parses JSON with `serde_json`.
//!
//! The oracle returns the expected outcome for each event in a body, given a [`TableSpec`]. `serde_json` determines
//! which JSON is valid, and the values of strings and numbers. The server differs from `serde_json` in the following
//! rules. Comments in the code refer to these rules by number:
//!
//! 1. A body contains a single object, an array of objects, or an object on each line. If a line has invalid syntax,
//!    the line is rejected. If an array has invalid syntax, the rest of the array is rejected.
//! 2. `NaN`, `Infinity` and `-Infinity` are valid syntax for numbers, but no column accepts them.
//! 3. Bytes that are not valid UTF-8, and escapes that do not encode a character, are errors in the value of a field,
//!    not syntax errors.
//! 4. A value may have at most 64 levels of nested objects and arrays, not counting objects whose fields are columns, and
//!    the array of a list column.
//! 5. A key that appears more than once is an error, even if it appears under another name for the same column. A key
//!    whose value is null counts too, unless it names a nested object.
//! 6. `serde_json` may return a double that is only close to the number in the text. The server returns the nearest
//!    double. For a single-precision column, the server rounds this double to the nearest single-precision number.
//! 7. An integer column accepts a number with a fraction or an exponent if its nearest double is a whole number with an
//!    absolute value below 2^63.

use glasshouse::contract::{ColumnKind, DecodeOptions, Reason};
use serde::de::Deserializer as _;

use super::json_tree::{DEPTH_MAX, Elements, SyntaxError, Tree, string, tree};
use super::outcome::{Cell, EventBuilder, Outcome};
use super::table_spec::{Column, Field, Object, Role, TableSpec};
use super::{MARK_BAD_BYTE, MARK_NOT_FINITE, kind_values, time};

/// The outcome of an event, and the event's byte range in the body.
pub(super) type Event = (Outcome, std::ops::Range<usize>);

/// Returns the events of a body, or `None` if the body is not JSON at all.
pub(super) fn body(spec: &TableSpec, options: &DecodeOptions, body: &[u8]) -> Option<Vec<Event>> {
    let text = with_markers(body);
    let start = if body.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
    let whole = trim(&text, start..text.len());
    match text.as_bytes().get(whole.start) {
        None => Some(Vec::new()),
        Some(b'[') => Some(array(spec, options, &text, whole)),
        Some(b'{') if tree(&text[whole.clone()]).is_ok_and(|tree| tree.depth() <= DEPTH_MAX) => {
            Some(vec![line(spec, options, &text, whole)])
        }
        _ => {
            let mut at = start;
            let lines = text[start..].split('\n').map(|line| {
                let range = at..at + line.len();
                at = range.end + 1;
                trim(&text, range)
            });
            let lines: Vec<_> = lines.filter(|range| !range.is_empty()).collect();
            let is_json = lines.iter().any(|range| text[range.clone()].starts_with('{'));
            is_json.then(|| lines.into_iter().map(|range| line(spec, options, &text, range)).collect())
        }
    }
}

/// Returns the events of messages. Each message is one event.
pub(super) fn messages(
    spec: &TableSpec,
    options: &DecodeOptions,
    body: &[u8],
    ranges: &[std::ops::Range<usize>],
) -> Vec<Event> {
    // A message may end in the middle of a character.
    let texts = ranges.iter().map(|range| (with_markers(&body[range.clone()]), range.start));
    let event = |(text, start): (String, usize)| {
        let (outcome, range) = line(spec, options, &text, trim(&text, 0..text.len()));
        (outcome, if range.is_empty() { start..start } else { start + range.start..start + range.end })
    };
    texts.map(event).collect()
}

/// Returns the body as valid UTF-8 text, without changing any byte position. Each byte that is not valid UTF-8 is
/// replaced by a marker. Each of the three words in rule 2 is replaced by a string of markers.
fn with_markers(body: &[u8]) -> String {
    let mut text = String::with_capacity(body.len());
    for chunk in body.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::from(MARK_BAD_BYTE)));
    }
    let (mut with_markers, mut rest, mut is_inside) = (String::with_capacity(text.len()), text.as_str(), false);
    while let Some(letter) = rest.chars().next() {
        let word = ["NaN", "Infinity", "-Infinity"].into_iter().find(|word| !is_inside && rest.starts_with(word));
        let length = match word {
            Some(word) => {
                with_markers.push('"');
                with_markers.extend((2..word.len()).map(|_| char::from(MARK_NOT_FINITE)));
                with_markers.push('"');
                word.len()
            }
            None => {
                let is_escape = is_inside && letter == '\\';
                let length = rest.chars().take(1 + usize::from(is_escape)).map(char::len_utf8).sum();
                // A JSON string cannot contain a line break, so a string without a closing quote ends at the line
                // break.
                is_inside = (is_inside ^ (letter == '"')) && !rest[..length].contains('\n');
                with_markers.push_str(&rest[..length]);
                length
            }
        };
        rest = &rest[length..];
    }
    with_markers
}

fn trim(text: &str, range: std::ops::Range<usize>) -> std::ops::Range<usize> {
    let spaces = [' ', '\n', '\r', '\t'];
    let start = range.end - text[range.clone()].trim_start_matches(spaces).len();
    start..start + text[start..range.end].trim_end_matches(spaces).len()
}

fn line(spec: &TableSpec, options: &DecodeOptions, text: &str, range: std::ops::Range<usize>) -> Event {
    let outcome = match tree(&text[range.clone()]) {
        Ok(tree) => event(spec, options, &tree, range.len()),
        Err(SyntaxError) => Outcome::Reject(Reason::Malformed),
    };
    (outcome, range)
}

fn array(spec: &TableSpec, options: &DecodeOptions, text: &str, whole: std::ops::Range<usize>) -> Vec<Event> {
    let mut values: Vec<&str> = Vec::new();
    let mut json = serde_json::Deserializer::from_str(&text[whole.clone()]);
    let is_valid = json.deserialize_seq(Elements(&mut values)).is_ok() && json.end().is_ok();
    let (mut events, mut end) = (Vec::new(), whole.start + 1);
    for value in values {
        let start = value.as_ptr() as usize - text.as_ptr() as usize;
        let outcome = tree(value).and_then(|tree| match event(spec, options, &tree, value.len()) {
            // An event that is nested too deeply counts as invalid syntax, which also rejects the rest of the array.
            Outcome::Reject(Reason::Malformed) if matches!(tree, Tree::Object(..)) => Err(SyntaxError),
            _ if !matches!(tree, Tree::Object(..)) && tree.depth() > DEPTH_MAX => Err(SyntaxError),
            outcome => Ok(outcome),
        });
        let Ok(outcome) = outcome else {
            events.push((Outcome::Reject(Reason::Malformed), start..whole.end));
            return events;
        };
        end = start + value.len();
        events.push((outcome, start..end));
    }
    if !is_valid {
        events.push((Outcome::Reject(Reason::Malformed), end..whole.end));
    }
    events
}

/// Returns the expected outcome for an event of `bytes` bytes.
fn event(spec: &TableSpec, options: &DecodeOptions, tree: &Tree<'_>, bytes: usize) -> Outcome {
    let Tree::Object(entries, _) = tree else {
        let is_too_large = bytes > options.event_bytes_max && tree.depth() <= DEPTH_MAX;
        return Outcome::Reject(if is_too_large { Reason::TooLarge } else { Reason::Malformed });
    };
    let mut reader = Reader { spec, builder: EventBuilder::new(&spec.contract, options), entered: Vec::new() };
    match reader.object(&spec.root, entries) {
        Ok(()) => {
            let mut builder = reader.builder;
            fill(&spec.root, &reader.entered, &mut builder);
            builder.finish(bytes)
        }
        Err(SyntaxError) => Outcome::Reject(Reason::Malformed),
    }
}

/// In each object that the event contains, sets a missing field to zero if the field does not track presence. A field
/// with the value null remains null.
fn fill(object: &Object, entered: &[*const Object], builder: &mut EventBuilder<'_>) {
    for field in &object.fields {
        match &field.role {
            // A field with the number 0 is another name for a column in a nested object.
            _ if field.number == 0 => {}
            Role::Column(column) if column.is_implicit && builder.cells[column.index].is_none() => {
                builder.cells[column.index] = Some(super::zero(*column));
            }
            Role::Object(inner) if entered.contains(&std::ptr::from_ref(inner)) => fill(inner, entered, builder),
            // If an object is absent, the objects nested in it are absent, too.
            _ => {}
        }
    }
}

struct Reader<'s, 'c> {
    spec: &'s TableSpec,
    builder: EventBuilder<'c>,
    /// The objects that are present in the event.
    entered: Vec<*const Object>,
}

impl Reader<'_, '_> {
    fn object(&mut self, object: &Object, entries: &[(&str, Tree<'_>)]) -> Result<(), SyntaxError> {
        for (raw_key, value) in entries {
            let key = string(raw_key);
            let field = key.as_deref().and_then(|key| find(object, key));
            match field {
                Some(field) => self.field(field, value)?,
                None if !self.spec.has_map => {
                    value.check_depth()?;
                    self.builder.fail(Reason::UnknownField);
                }
                None => self.entry(key.map(|key| format!("{}{key}", object.prefix)), value)?,
            }
        }
        Ok(())
    }

    fn field(&mut self, field: &Field, value: &Tree<'_>) -> Result<(), SyntaxError> {
        match (&field.role, value) {
            (Role::Column(column), value) => {
                // The depth limit applies to the value of a column, but not to an object whose fields are columns.
                match value {
                    Tree::Array(elements, _) if matches!(column.kind, ColumnKind::List(_)) => {
                        elements.iter().try_for_each(Tree::check_depth)?;
                    }
                    value => value.check_depth()?,
                }
                let read = read(*column, value, self.spec);
                if self.builder.cells[column.index].is_some() {
                    self.builder.fail(Reason::DuplicateKey);
                }
                self.builder.set(column.index, read);
            }
            (Role::Object(inner), Tree::Object(entries, _)) => {
                let inner_ref = std::ptr::from_ref(inner);
                if self.entered.contains(&inner_ref) {
                    self.builder.fail(Reason::DuplicateKey);
                }
                self.entered.push(inner_ref);
                self.object(inner, entries)?;
            }
            (Role::Map(..), Tree::Object(entries, _)) => {
                for (key, value) in entries {
                    self.entry(string(key), value)?;
                }
            }
            (Role::Object(_) | Role::Map(..), Tree::Scalar("null")) => {}
            (Role::Object(_) | Role::Map(..), value) => {
                value.check_depth()?;
                self.builder.fail(Reason::WrongType);
            }
            (Role::Ignored, value) => value.check_depth()?,
        }
        Ok(())
    }

    /// Adds an entry to the value of a map column. Strings and nulls are unchanged. All other values are stored as
    /// compact JSON.
    fn entry(&mut self, key: Option<String>, value: &Tree<'_>) -> Result<(), SyntaxError> {
        value.check_depth()?;
        if value.is_not_finite() {
            self.builder.fail(Reason::NotFinite);
        }
        let text = match value {
            Tree::Scalar("null") => Some(None),
            Tree::Scalar(text) if text.starts_with('"') => string(text).map(Some),
            value => {
                let mut text = String::new();
                value.write(&mut text);
                Some(Some(text)).filter(|_| !value.has_bad_bytes())
            }
        };
        match (key, text) {
            (Some(key), Some(text)) => {
                if !self.builder.add_entry(key, text, false) {
                    self.builder.fail(Reason::DuplicateKey);
                }
            }
            _ => self.builder.fail(Reason::InvalidUtf8),
        }
        Ok(())
    }
}

/// Finds a field by name. A field's own name takes precedence over another field's JSON name.
fn find<'o>(object: &'o Object, key: &str) -> Option<&'o Field> {
    let by_name = object.fields.iter().find(|field| field.name == key);
    by_name.or_else(|| object.fields.iter().find(|field| !field.json_name.is_empty() && field.json_name == key))
}

/// Converts a JSON value to the value of a column.
fn read(column: Column, value: &Tree<'_>, spec: &TableSpec) -> Result<Cell, Reason> {
    let scalar = match (value, column.kind) {
        (Tree::Scalar("null"), _) => return Ok(Cell::Null),
        (value, ColumnKind::Json) => return json_text(value),
        (Tree::Array(elements, _), ColumnKind::List(element)) => {
            let element = Column { kind: *element, ..column };
            return elements.iter().map(|value| read(element, value, spec)).collect::<Result<_, _>>().map(Cell::List);
        }
        (Tree::Scalar(scalar), _) => scalar,
        _ => return Err(Reason::WrongType),
    };
    match scalar.as_bytes()[0] {
        b'"' if value.is_not_finite() => Err(Reason::NotFinite),
        b'"' => from_string(column, &string(scalar).ok_or(Reason::InvalidUtf8)?, spec),
        b't' | b'f' if column.kind == ColumnKind::Bool => Ok(Cell::Bool(*scalar == "true")),
        b't' | b'f' => Err(Reason::WrongType),
        _ => from_number(column, scalar, spec),
    }
}

/// Returns the value of a JSON column, which is the text of the value as it was sent.
fn json_text(value: &Tree<'_>) -> Result<Cell, Reason> {
    if value.is_not_finite() {
        return Err(Reason::NotFinite);
    }
    if value.has_invalid_strings() { Err(Reason::InvalidUtf8) } else { Ok(Cell::Text(value.raw().to_owned())) }
}

fn from_string(column: Column, text: &str, spec: &TableSpec) -> Result<Cell, Reason> {
    let is_wide = ["int64", "uint64", "sint64", "fixed64", "sfixed64"].contains(&column.wire);
    match column.kind {
        // Names of enum values are not checked, because a newer producer may send names that the table does not know.
        ColumnKind::Text => Ok(Cell::Text(text.to_owned())),
        ColumnKind::Bytes => base64(text).map(Cell::Bytes).ok_or(Reason::WrongType),
        ColumnKind::Timestamp => time::from_text(text, spec.unit),
        ColumnKind::Date => time::day(text),
        // Protobuf's JSON encodes 64-bit integers and non-finite floats as strings.
        ColumnKind::Int64 if is_wide => text.parse().map(Cell::Int).map_err(|_| {
            let digits = text.strip_prefix('-').unwrap_or(text);
            let is_number = !digits.is_empty() && digits.bytes().all(|digit| digit.is_ascii_digit());
            if is_number { Reason::OutOfRange } else { Reason::WrongType }
        }),
        ColumnKind::Float32 | ColumnKind::Float64
            if !column.wire.is_empty() && ["NaN", "Infinity", "-Infinity"].contains(&text) =>
        {
            Err(Reason::NotFinite)
        }
        kind => kind_values::from_text(kind, text).unwrap_or(Err(Reason::WrongType)),
    }
}

fn from_number(column: Column, text: &str, spec: &TableSpec) -> Result<Cell, Reason> {
    let whole: Option<i64> = serde_json::from_str(text).ok();
    if column.wire == "Names" && column.kind == ColumnKind::Text {
        let number = i32::try_from(whole.ok_or(Reason::WrongType)?).map_err(|_| Reason::OutOfRange)?;
        return Ok(Cell::Text(super::enum_name(number)));
    }
    let double = double(text);
    match column.kind {
        ColumnKind::Decimal { precision, scale } => kind_values::decimal(text, precision.into(), scale.into()),
        ColumnKind::Float64 if double.is_finite() => Ok(Cell::Double(double.to_bits())),
        ColumnKind::Float32 if double.abs() <= f64::from(f32::MAX) => Ok(Cell::Single((double as f32).to_bits())),
        ColumnKind::Float64 | ColumnKind::Float32 => Err(Reason::OutOfRange),
        ColumnKind::Int64 | ColumnKind::Int32 => {
            let number = match whole {
                Some(whole) => whole,
                None if double.fract() != 0.0 => return Err(Reason::WrongType),
                None if double.abs() < 2_f64.powi(63) => double as i64,
                None => return Err(Reason::OutOfRange),
            };
            let fits = column.kind == ColumnKind::Int64 || i32::try_from(number).is_ok();
            if fits { Ok(Cell::Int(number)) } else { Err(Reason::OutOfRange) }
        }
        ColumnKind::Timestamp => match whole {
            Some(whole) => time::from_integer(whole, spec.unit),
            None => time::from_float(double, spec.unit),
        },
        _ => Err(Reason::WrongType),
    }
}

/// Returns the nearest double. `serde_json` must return this double or a double close to it.
fn double(text: &str) -> f64 {
    let nearest: f64 = text.parse().expect("the standard library parses every JSON number");
    match serde_json::from_str::<f64>(text) {
        Ok(read) => {
            let distance = (read.to_bits().cast_signed()).abs_diff(nearest.to_bits().cast_signed());
            assert!(distance <= 4, "{text} is {nearest:?}, but serde_json reads {read:?}");
        }
        Err(_) => assert!(nearest.is_infinite(), "{text} is {nearest:?}, but serde_json rejects it"),
    }
    nearest
}

/// Decodes base64. A string must not mix the standard and the URL-safe alphabet. All or some of the padding may be
/// missing, but the unused bits must be zero.
fn base64(text: &str) -> Option<Vec<u8>> {
    let letters = text.trim_end_matches('=');
    let (padding, last) = (text.len() - letters.len(), letters.len() % 4);
    let is_url = text.contains(['-', '_']);
    let (mut bits, mut count, mut bytes) = (0_u32, 0, Vec::new());
    for letter in letters.bytes() {
        let six = match letter {
            b'A'..=b'Z' => letter - b'A',
            b'a'..=b'z' => letter - b'a' + 26,
            b'0'..=b'9' => letter - b'0' + 52,
            b'-' if is_url => 62,
            b'_' if is_url => 63,
            b'+' if !is_url => 62,
            b'/' if !is_url => 63,
            _ => return None,
        };
        (bits, count) = (bits << 6 | u32::from(six), count + 6);
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
            bits &= (1 << count) - 1;
        }
    }
    let padding_max = if last < 2 { 0 } else { 4 - last };
    (last != 1 && bits == 0 && padding <= padding_max).then_some(bytes)
}
