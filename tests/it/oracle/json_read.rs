//! Reads JSON with `serde_json`: the oracle for the server's JSON decoder.
//!
//! In: a body and a [`Spec`]. Out: the expected outcome of each event in it. `serde_json` decides what is valid JSON and the values of
//! strings and numbers. The rest of this file are the rules by which a table differs from it; the code cites each where it applies:
//!
//! 1. A body is one object, an array, or lines. Broken syntax rejects its line, or the rest of its array.
//! 2. `NaN`, `Infinity` and `-Infinity` are numbers that no column accepts, not broken syntax.
//! 3. Bytes that are not UTF-8, and escapes that do not encode a character, are a fault of their field, not of the syntax.
//! 4. A value without a column of its own has at most 64 levels of nested objects and arrays.
//! 5. A key that appears more than once is a fault, also under another name of its column. A null counts, a null object does not.
//! 6. `serde_json` may miss the nearest double by a few; the server's is the nearest one, and a single is the nearest to that.
//! 7. An integer column accepts a number with a fraction or an exponent if it is integral as a double, and above -2^63.

use glasshouse::contract::{ColumnKind, Reason, Stamp};
use serde::de::{DeserializeSeed, Deserializer as _, MapAccess, SeqAccess, Visitor};
use serde_json::value::RawValue;

use super::row::{Cell, Draft, Outcome};
use super::spec::{Column, Field, Object, Role, Spec};
use super::{MARK_BAD_BYTE, MARK_NOT_FINITE, time};

/// The maximum nesting of objects and arrays (rule 4).
const DEPTH_MAX: usize = 64;

/// The outcome of an event, and its byte range in the body.
pub(super) type Event = (Outcome, std::ops::Range<usize>);

/// A value, parsed as far as it is valid JSON.
enum Tree<'a> {
    Object(Vec<(&'a str, Tree<'a>)>),
    Array(Vec<Tree<'a>>),
    /// The raw text of a string, a number, or a word.
    Scalar(&'a str),
}

/// Broken syntax, or a fault that counts as such.
struct Broken;

/// The events of a body. `None` for a body that is not JSON at all.
pub(super) fn body(spec: &Spec, stamp: &Stamp, body: &[u8]) -> Option<Vec<Event>> {
    let text = marked(body);
    let start = if body.starts_with(b"\xef\xbb\xbf") { 3 } else { 0 };
    let whole = trim(&text, start..text.len());
    match text.as_bytes().get(whole.start) {
        None => Some(Vec::new()),
        Some(b'[') => Some(array(spec, stamp, &text, whole)),
        Some(b'{') if tree(&text[whole.clone()]).is_ok_and(|tree| tree.depth() <= DEPTH_MAX) => {
            Some(vec![line(spec, stamp, &text, whole)])
        }
        _ => {
            let mut at = start;
            let lines = text[start..].split('\n').map(|line| {
                let place = at..at + line.len();
                at = place.end + 1;
                trim(&text, place)
            });
            let lines: Vec<_> = lines.filter(|place| !place.is_empty()).collect();
            let is_json = lines.iter().any(|place| text[place.clone()].starts_with('{'));
            is_json.then(|| lines.into_iter().map(|place| line(spec, stamp, &text, place)).collect())
        }
    }
}

/// Messages, each of which is one event.
pub(super) fn messages(spec: &Spec, stamp: &Stamp, body: &[u8], places: &[std::ops::Range<usize>]) -> Vec<Event> {
    // A message may end inside a character.
    let texts = places.iter().map(|place| (marked(&body[place.clone()]), place.start));
    let event = |(text, start): (String, usize)| {
        let (outcome, place) = line(spec, stamp, &text, trim(&text, 0..text.len()));
        (outcome, if place.is_empty() { start..start } else { start + place.start..start + place.end })
    };
    texts.map(event).collect()
}

/// The text, byte for byte: with a marker for each byte that is not UTF-8, and strings of markers for the words of rule 2.
fn marked(body: &[u8]) -> String {
    let mut text = String::with_capacity(body.len());
    for chunk in body.utf8_chunks() {
        text.push_str(chunk.valid());
        text.extend(chunk.invalid().iter().map(|_| char::from(MARK_BAD_BYTE)));
    }
    let (mut marked, mut rest, mut is_inside) = (String::with_capacity(text.len()), text.as_str(), false);
    while let Some(letter) = rest.chars().next() {
        let word = ["NaN", "Infinity", "-Infinity"].into_iter().find(|word| !is_inside && rest.starts_with(word));
        let length = match word {
            Some(word) => {
                marked.push('"');
                marked.extend((2..word.len()).map(|_| char::from(MARK_NOT_FINITE)));
                marked.push('"');
                word.len()
            }
            None => {
                let is_escape = is_inside && letter == '\\';
                let length = rest.chars().take(1 + usize::from(is_escape)).map(char::len_utf8).sum();
                // No string continues past the end of its line.
                is_inside = (is_inside ^ (letter == '"')) && !rest[..length].contains('\n');
                marked.push_str(&rest[..length]);
                length
            }
        };
        rest = &rest[length..];
    }
    marked
}

fn trim(text: &str, place: std::ops::Range<usize>) -> std::ops::Range<usize> {
    let spaces = [' ', '\n', '\r', '\t'];
    let start = place.end - text[place.clone()].trim_start_matches(spaces).len();
    start..start + text[start..place.end].trim_end_matches(spaces).len()
}

fn line(spec: &Spec, stamp: &Stamp, text: &str, place: std::ops::Range<usize>) -> Event {
    let outcome = match tree(&text[place.clone()]) {
        Ok(tree) => event(spec, stamp, &tree, place.len()),
        Err(Broken) => Outcome::Reject(Reason::Malformed),
    };
    (outcome, place)
}

fn array(spec: &Spec, stamp: &Stamp, text: &str, whole: std::ops::Range<usize>) -> Vec<Event> {
    let mut values: Vec<&str> = Vec::new();
    let mut json = serde_json::Deserializer::from_str(&text[whole.clone()]);
    let is_sound = json.deserialize_seq(Elements(&mut values)).is_ok() && json.end().is_ok();
    let (mut events, mut end) = (Vec::new(), whole.start + 1);
    for value in values {
        let start = value.as_ptr() as usize - text.as_ptr() as usize;
        let outcome = tree(value).and_then(|tree| match event(spec, stamp, &tree, value.len()) {
            // An event that is nested too deeply is broken, and so is the rest.
            Outcome::Reject(Reason::Malformed) if matches!(tree, Tree::Object(_)) => Err(Broken),
            _ if !matches!(tree, Tree::Object(_)) && tree.depth() > DEPTH_MAX => Err(Broken),
            outcome => Ok(outcome),
        });
        let Ok(outcome) = outcome else {
            events.push((Outcome::Reject(Reason::Malformed), start..whole.end));
            return events;
        };
        end = start + value.len();
        events.push((outcome, start..end));
    }
    if !is_sound {
        events.push((Outcome::Reject(Reason::Malformed), end..whole.end));
    }
    events
}

/// The outcome of an event of this size.
fn event(spec: &Spec, stamp: &Stamp, tree: &Tree<'_>, bytes: usize) -> Outcome {
    let Tree::Object(entries) = tree else {
        let is_too_large = bytes > stamp.event_bytes_max && tree.depth() <= DEPTH_MAX;
        return Outcome::Reject(if is_too_large { Reason::TooLarge } else { Reason::Malformed });
    };
    let mut reader = Reader { spec, draft: Draft::new(&spec.contract, stamp), entered: Vec::new() };
    match reader.object(&spec.root, entries) {
        Ok(()) => {
            let mut draft = reader.draft;
            fill(&spec.root, &reader.entered, &mut draft);
            draft.finish(bytes)
        }
        Err(Broken) => Outcome::Reject(Reason::Malformed),
    }
}

/// A field without presence that is absent from a present object holds zero. A null field stays null.
fn fill(object: &Object, entered: &[*const Object], draft: &mut Draft<'_>) {
    for field in &object.fields {
        match &field.role {
            // Another name of a column in a nested object.
            _ if field.number == 0 => {}
            Role::Column(column) if column.is_implicit && draft.cells[column.index].is_none() => {
                draft.cells[column.index] = Some(super::zero(*column));
            }
            Role::Object(inner) if entered.contains(&std::ptr::from_ref(inner)) => fill(inner, entered, draft),
            // An object nested in an absent one is absent.
            _ => {}
        }
    }
}

struct Reader<'s, 'c> {
    spec: &'s Spec,
    draft: Draft<'c>,
    /// The objects that are present in the event.
    entered: Vec<*const Object>,
}

impl Reader<'_, '_> {
    fn object(&mut self, object: &Object, entries: &[(&str, Tree<'_>)]) -> Result<(), Broken> {
        for (raw_key, value) in entries {
            let key = string(raw_key);
            let field = key.as_deref().and_then(|key| find(object, key));
            match field {
                Some(field) => self.field(field, value)?,
                None if !self.spec.has_map => {
                    value.check_depth()?;
                    self.draft.fail(Reason::UnknownField);
                }
                None => self.entry(key.map(|key| format!("{}{key}", object.prefix)), value)?,
            }
        }
        Ok(())
    }

    fn field(&mut self, field: &Field, value: &Tree<'_>) -> Result<(), Broken> {
        match (&field.role, value) {
            (Role::Column(column), value) => {
                // Only a value that is stored as a whole can be nested too deeply.
                value.check_depth()?;
                let read = read(*column, value, self.spec);
                if self.draft.cells[column.index].is_some() {
                    self.draft.fail(Reason::DuplicateKey);
                }
                self.draft.set(column.index, read);
            }
            (Role::Object(inner), Tree::Object(entries)) => {
                let inner_ref = std::ptr::from_ref(inner);
                if self.entered.contains(&inner_ref) {
                    self.draft.fail(Reason::DuplicateKey);
                }
                self.entered.push(inner_ref);
                self.object(inner, entries)?;
            }
            (Role::Map(..), Tree::Object(entries)) => {
                for (key, value) in entries {
                    self.entry(string(key), value)?;
                }
            }
            (Role::Object(_) | Role::Map(..), Tree::Scalar("null")) => {}
            (Role::Object(_) | Role::Map(..), value) => {
                value.check_depth()?;
                self.draft.fail(Reason::WrongType);
            }
            (Role::Ignored, value) => value.check_depth()?,
        }
        Ok(())
    }

    /// An entry of the map: text unchanged, null as null, everything else as compact JSON.
    fn entry(&mut self, key: Option<String>, value: &Tree<'_>) -> Result<(), Broken> {
        value.check_depth()?;
        if value.is_not_finite() {
            self.draft.fail(Reason::NotFinite);
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
                if !self.draft.add_entry(key, text, false) {
                    self.draft.fail(Reason::DuplicateKey);
                }
            }
            _ => self.draft.fail(Reason::InvalidUtf8),
        }
        Ok(())
    }
}

/// Finds a field by name: all names take precedence over all JSON names.
fn find<'o>(object: &'o Object, key: &str) -> Option<&'o Field> {
    let by_name = object.fields.iter().find(|field| field.name == key);
    by_name.or_else(|| object.fields.iter().find(|field| !field.json_name.is_empty() && field.json_name == key))
}

/// A value for a column.
fn read(column: Column, value: &Tree<'_>, spec: &Spec) -> Result<Cell, Reason> {
    let Tree::Scalar(scalar) = value else { return Err(Reason::WrongType) };
    match scalar.as_bytes()[0] {
        b'"' if value.is_not_finite() => Err(Reason::NotFinite),
        b'"' => from_string(column, &string(scalar).ok_or(Reason::InvalidUtf8)?, spec),
        b'n' => Ok(Cell::Null),
        b't' | b'f' if column.kind == ColumnKind::Bool => Ok(Cell::Bool(*scalar == "true")),
        b't' | b'f' => Err(Reason::WrongType),
        _ => from_number(column, scalar, spec),
    }
}

fn from_string(column: Column, text: &str, spec: &Spec) -> Result<Cell, Reason> {
    let is_wide = ["int64", "uint64", "sint64", "fixed64", "sfixed64"].contains(&column.wire);
    match column.kind {
        // The names of an enum are not checked: a producer may be newer than the table.
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
        _ => Err(Reason::WrongType),
    }
}

fn from_number(column: Column, text: &str, spec: &Spec) -> Result<Cell, Reason> {
    let whole: Option<i64> = serde_json::from_str(text).ok();
    if column.wire == "Names" {
        let number = i32::try_from(whole.ok_or(Reason::WrongType)?).map_err(|_| Reason::OutOfRange)?;
        return Ok(Cell::Text(super::enum_name(number)));
    }
    let double = double(text);
    match column.kind {
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

/// The nearest double; `serde_json` must read it too, or one next to it.
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

/// Decodes base64. A text uses one of both alphabets; padding may be partly missing, and leftover bits are zero.
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

/// A string without its quotes and escapes; `None` if a byte is not UTF-8, or an escape does not encode a character (rule 3).
fn string(raw: &str) -> Option<String> {
    serde_json::from_str(raw).ok().filter(|_| !raw.contains(char::from(MARK_BAD_BYTE)))
}

/// Parses a value.
fn tree<'a>(text: &'a str) -> Result<Tree<'a>, Broken> {
    let raw: &'a RawValue = serde_json::from_str(text).map_err(|_| Broken)?;
    let text = raw.get();
    match text.as_bytes()[0] {
        b'{' => {
            let mut entries = Vec::new();
            serde_json::Deserializer::from_str(text).deserialize_map(Elements(&mut entries)).map_err(|_| Broken)?;
            let entry = |(key, value): (&'a str, &'a str)| {
                // A word of rule 2 is not a valid key.
                if key.contains(char::from(MARK_NOT_FINITE)) { Err(Broken) } else { Ok((key, tree(value)?)) }
            };
            entries.into_iter().map(entry).collect::<Result<_, _>>().map(Tree::Object)
        }
        b'[' => {
            let mut values = Vec::new();
            serde_json::Deserializer::from_str(text).deserialize_seq(Elements(&mut values)).map_err(|_| Broken)?;
            values.into_iter().map(tree).collect::<Result<_, _>>().map(Tree::Array)
        }
        _ => Ok(Tree::Scalar(text)),
    }
}

impl Tree<'_> {
    fn depth(&self) -> usize {
        match self {
            Self::Object(entries) => 1 + entries.iter().map(|(_, value)| value.depth()).max().unwrap_or(0),
            Self::Array(values) => 1 + values.iter().map(Self::depth).max().unwrap_or(0),
            Self::Scalar(_) => 0,
        }
    }

    fn check_depth(&self) -> Result<(), Broken> {
        if self.depth() <= DEPTH_MAX { Ok(()) } else { Err(Broken) }
    }

    fn any(&self, is_it: &impl Fn(&str) -> bool) -> bool {
        match self {
            Self::Object(entries) => entries.iter().any(|(key, value)| is_it(key) || value.any(is_it)),
            Self::Array(values) => values.iter().any(|value| value.any(is_it)),
            Self::Scalar(text) => is_it(text),
        }
    }

    fn is_not_finite(&self) -> bool {
        self.any(&|text| text.contains(char::from(MARK_NOT_FINITE)))
    }

    fn has_bad_bytes(&self) -> bool {
        self.any(&|text| text.contains(char::from(MARK_BAD_BYTE)))
    }

    fn write(&self, into: &mut String) {
        match self {
            Self::Object(entries) => {
                for (index, (key, value)) in entries.iter().enumerate() {
                    *into += if index == 0 { "{" } else { "," };
                    *into += key;
                    *into += ":";
                    value.write(into);
                }
                *into += if entries.is_empty() { "{}" } else { "}" };
            }
            Self::Array(values) => {
                for (index, value) in values.iter().enumerate() {
                    *into += if index == 0 { "[" } else { "," };
                    value.write(into);
                }
                *into += if values.is_empty() { "[]" } else { "]" };
            }
            Self::Scalar(text) => *into += text,
        }
    }
}

/// Keeps the raw parts of an object or an array up to the first fault.
struct Elements<'v, T>(&'v mut Vec<T>);

impl<'de> Visitor<'de> for Elements<'_, (&'de str, &'de str)> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some((key, value)) = map.next_entry_seed(Raw, Raw)? {
            self.0.push((key, value));
        }
        Ok(())
    }
}

impl<'de> Visitor<'de> for Elements<'_, &'de str> {
    type Value = ();

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        while let Some(value) = seq.next_element_seed(Raw)? {
            self.0.push(value);
        }
        Ok(())
    }
}

/// Reads the raw text of a value.
struct Raw;

impl<'de> DeserializeSeed<'de> for Raw {
    type Value = &'de str;

    fn deserialize<D: serde::Deserializer<'de>>(self, json: D) -> Result<&'de str, D::Error> {
        <&RawValue as serde::Deserialize>::deserialize(json).map(RawValue::get)
    }
}
