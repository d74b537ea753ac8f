//! Independent oracles for the hand-written decoders: `serde_json` for JSON, and `prost-reflect` for protobuf.
//!
//! ```text
//!   bytes ─► choices ─► table_spec ─┬─► a generator (bodies) ─┬─► the server's decoder ─┐
//!                                   │                         └─► an oracle ────────────┴─► equal outcomes?
//!                                   └─► the contract
//! ```
//!
//! The same input bytes produce the same table and the same bodies. A test derives the bytes from many seeds, and a
//! fuzzer searches for bytes that cause a difference. The decoder and the oracle must accept the same events with the
//! same values, and must reject the other events for the same reason. The server deliberately differs from `serde_json`
//! and `prost-reflect` in some respects. `json_oracle.rs` and `protobuf_oracle.rs` list these differences as rules.
//!
//! **Invariant:** an oracle does not use the code of the server's decoders.

mod choices;
#[cfg(test)]
mod driver;
mod json_generator;
mod json_oracle;
mod json_tree;
mod kind_values;
mod outcome;
mod protobuf_generator;
mod protobuf_oracle;
mod table_spec;
mod time;

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use glasshouse::contract::{
    ColumnKind, DecodeOptions, Decoded, Format, Owner, Reason, TenantId, decode, decode_messages,
};
use glasshouse::error::{Kind, Result};

use self::choices::Choices;
use self::json_oracle::Event;
use self::outcome::{Cell, Outcome, outcomes};
use self::table_spec::{Column, ENUM, TableSpec};

/// The server's receive time: 2026-01-01T00:00:00Z.
const NOW_MICROS: i64 = 1_767_225_600_000_000;
/// The character that replaces a byte that is not valid UTF-8. Generated JSON never contains this character.
const MARK_BAD_BYTE: u8 = b'~';
/// `NaN` and the infinities are replaced by a string that repeats this character. Generated JSON never contains this
/// character.
const MARK_NOT_FINITE: u8 = 0x7f;

/// A placeholder that generated strings may contain. When events are repeated, it is replaced with the number of the
/// repetition, which has the same length.
const NUMBER_PLACEHOLDER: &[u8] = b"@@@@";

/// The number of events that became rows (key `None`), and the number of rejected events by reason.
pub(crate) type Tally = BTreeMap<Option<Reason>, usize>;

/// Generates a table and JSON bodies from these bytes, and compares the results of the oracle and the server's decoder.
/// The error describes the first difference.
pub(crate) fn json(bytes: &[u8]) -> std::result::Result<Tally, String> {
    let mut choices = Choices::new(bytes);
    let spec = if choices.chance(90) { table_spec::message(&mut choices) } else { table_spec::columns(&mut choices) };
    let mut tally = Tally::new();
    for _ in 0..4 {
        let options = decode_options(&mut choices);
        let shape = choices.below(4);
        let events = if shape == 0 { 1 } else { 1 + choices.below(4) };
        let events = (0..events).map(|_| json_generator::event(&mut choices, &spec, matches!(shape, 0 | 2))).collect();
        let events: Vec<Vec<u8>> = if shape == 0 { events } else { repeated(events, &mut choices) };
        let (body, ranges) = match shape {
            0 => ([if choices.chance(20) { "\u{feff}" } else { "" }.as_bytes(), &events[0]].concat(), None),
            1 => (events.join(b"\n".as_slice()), None),
            2 => {
                let end = if choices.chance(8) { " ] x" } else { "]" };
                ([b"[", events.join(b" ,".as_slice()).as_slice(), end.as_bytes()].concat(), None)
            }
            _ => {
                let (body, ranges) = separated(&events);
                (body, Some(ranges))
            }
        };
        let expected = match &ranges {
            None => json_oracle::body(&spec, &options, &body),
            Some(ranges) => Some(json_oracle::messages(&spec, &options, &body, ranges)),
        };
        let body_text = String::from_utf8_lossy(&body).into_owned();
        let body = Bytes::from(body);
        let decoded = match &ranges {
            None => decode(&spec.contract, Format::Json, &body, &options),
            Some(ranges) => decode_messages(&spec.contract, Format::Json, &body, ranges, &options),
        };
        compare(&spec, decoded, expected, &body, &mut tally)
            .map_err(|what| format!("{what}\nbody: {body_text}\n{}", describe(&spec, &options)))?;
        if choices.is_empty() {
            break;
        }
    }
    Ok(tally)
}

/// Runs the same check for protobuf.
pub(crate) fn protobuf(bytes: &[u8]) -> std::result::Result<Tally, String> {
    let mut choices = Choices::new(bytes);
    let spec = table_spec::message(&mut choices);
    let mut tally = Tally::new();
    for _ in 0..8 {
        let options = decode_options(&mut choices);
        let events = (0..1 + choices.below(4)).map(|_| protobuf_generator::event(&mut choices, &spec)).collect();
        let events = repeated(events, &mut choices);
        let is_stream = !choices.chance(128);
        let (body, ranges) = if is_stream { stream(&events, &mut choices) } else { separated(&events) };
        let mut expected: Vec<Event> = ranges
            .iter()
            .map(|range| (protobuf_oracle::message(&spec, &options, &body[range.clone()]), range.clone()))
            .collect();
        let end = ranges.last().map_or(0, |range| range.end);
        if is_stream && end < body.len() {
            // The last message of a generated stream may be truncated, and is then rejected. The stream has no other
            // errors.
            expected.push((Outcome::Reject(Reason::Malformed), end..body.len()));
        }
        let body_text: String = body.iter().map(|byte| format!("{byte:02x}")).collect();
        let body = Bytes::from(body);
        let decoded = if is_stream {
            decode(&spec.contract, Format::Protobuf, &body, &options)
        } else {
            decode_messages(&spec.contract, Format::Protobuf, &body, &ranges, &options)
        };
        compare(&spec, decoded, Some(expected), &body, &mut tally)
            .map_err(|what| format!("{what}\nbody: {body_text}\n{}", describe(&spec, &options)))?;
        if choices.is_empty() {
            break;
        }
    }
    Ok(tally)
}

/// Returns the events. For some seeds, the whole list is repeated many times. The strings of each repetition contain a
/// different number, because a column with many distinct strings is encoded differently from a column with few.
fn repeated(events: Vec<Vec<u8>>, choices: &mut Choices<'_>) -> Vec<Vec<u8>> {
    if !choices.chance(6) {
        return events;
    }
    let count = |copy: usize, event: &Vec<u8>| {
        let (mut event, number) = (event.clone(), format!("{copy:04}"));
        while let Some(at) = event.windows(NUMBER_PLACEHOLDER.len()).position(|bytes| bytes == NUMBER_PLACEHOLDER) {
            event[at..at + NUMBER_PLACEHOLDER.len()].copy_from_slice(number.as_bytes());
        }
        event
    };
    let copies = [3, 160, 700][choices.below(3)];
    (0..copies).flat_map(|copy| events.iter().map(move |event| count(copy, event))).collect()
}

/// Returns messages separated by line breaks, and the byte range of each.
fn separated(events: &[Vec<u8>]) -> (Vec<u8>, Vec<Range<usize>>) {
    let (mut body, mut ranges) = (Vec::new(), Vec::new());
    for event in events {
        ranges.push(body.len()..body.len() + event.len());
        body.extend_from_slice(event);
        body.push(b'\n');
    }
    (body, ranges)
}

/// Returns length-prefixed messages, and the byte range of each. Sometimes the last message is truncated and has no
/// range.
fn stream(events: &[Vec<u8>], choices: &mut Choices<'_>) -> (Vec<u8>, Vec<Range<usize>>) {
    let (mut body, mut ranges) = (Vec::new(), Vec::new());
    for event in events {
        body.extend(protobuf_generator::varint(
            event.len() as u64,
            if choices.chance(6) { choices.below(3) } else { 0 },
        ));
        ranges.push(body.len()..body.len() + event.len());
        body.extend_from_slice(event);
    }
    if choices.chance(16) && ranges.last().is_some_and(|last| !last.is_empty()) {
        // The length prefix is never truncated, because the rest of it could be read as a different length.
        let last = ranges.pop().expect("ranges is not empty");
        body.truncate(last.end - 1 - choices.below(last.len().min(256)));
    }
    (body, ranges)
}

fn decode_options(choices: &mut Choices<'_>) -> DecodeOptions {
    let acme = || Owner::Tenant(TenantId::parse("acme").expect("acme is a valid tenant id"));
    DecodeOptions {
        received: NOW_MICROS,
        owner: if choices.chance(60) { Owner::PerEvent } else { acme() },
        time_max: NOW_MICROS + 3_600_000_000,
        event_bytes_max: if choices.chance(12) { 60 + choices.below(200) } else { 1 << 20 },
        dimensions_max: if choices.chance(30) { choices.below(3) } else { 64 },
    }
}

/// Compares the server's outcome for a body with the expected outcome. The expected outcome is `None` if the body must
/// be refused as a whole.
fn compare(
    spec: &TableSpec,
    decoded: Result<Decoded>,
    expected: Option<Vec<Event>>,
    body: &Bytes,
    tally: &mut Tally,
) -> std::result::Result<(), String> {
    let (decoded, expected) = match (decoded, expected) {
        (Ok(decoded), Some(expected)) => (decoded, expected),
        (Err(error), None) if error.kind() == Kind::Invalid => return Ok(()),
        (Err(error), expected) => return Err(format!("got: {error}\nexpected: {expected:?}")),
        (Ok(decoded), None) => {
            return Err(format!("got: {:?}\nexpected: an error", outcomes(&spec.contract, &decoded)));
        }
    };
    let ours = outcomes(&spec.contract, &decoded);
    if ours.len() != expected.len() {
        return Err(format!("got: {} events: {ours:?}\nexpected: {}: {expected:?}", ours.len(), expected.len()));
    }
    for (index, ((outcome, bytes), (expected, range))) in ours.iter().zip(&expected).enumerate() {
        let is_same = match (outcome, expected) {
            (Outcome::Reject(reason), Outcome::OneOf(reasons)) => reasons.contains(reason),
            (outcome, expected) => outcome == expected,
        };
        if !is_same {
            let details: Vec<_> = decoded.rejects.iter().map(|reject| reject.detail.as_str()).collect();
            return Err(format!("event {index}\ngot:      {outcome:?}\nexpected: {expected:?}\ndetails: {details:?}"));
        }
        // For an invalid array, the range of bytes that the decoder rejects may begin later than the oracle's range,
        // but both must have the same end.
        let is_part = bytes.as_ref().is_none_or(|bytes| body[range.clone()].ends_with(bytes));
        if !is_part {
            return Err(format!("event {index}: expected the rejected bytes {range:?}, got {bytes:?}"));
        }
        let reason = if let Outcome::Reject(reason) = outcome { Some(*reason) } else { None };
        *tally.entry(reason).or_default() += 1;
    }
    Ok(())
}

fn describe(spec: &TableSpec, options: &DecodeOptions) -> String {
    let columns: Vec<_> = spec.contract.columns.iter().map(|column| (&*column.name, column.kind.to_string())).collect();
    let message = spec.message.as_ref().map(|message| {
        let fields = message.fields().map(|field| format!("{} = {} {:?}", field.name(), field.number(), field.kind()));
        fields.collect::<Vec<_>>()
    });
    format!("columns: {columns:?}\nmessage: {message:?}\nunit: {:?}\noptions: {options:?}", spec.unit)
}

/// Returns the value of an absent field without presence.
fn zero(column: Column) -> Cell {
    match column.kind {
        ColumnKind::Bool => Cell::Bool(false),
        ColumnKind::Float32 => Cell::Single(0),
        ColumnKind::Float64 => Cell::Double(0),
        ColumnKind::Text if column.wire == "Names" => Cell::Text(enum_name(0)),
        ColumnKind::Text => Cell::Text(String::new()),
        ColumnKind::Bytes => Cell::Bytes(Vec::new()),
        ColumnKind::Decimal { .. } => Cell::Decimal(0),
        ColumnKind::List(_) => Cell::List(Vec::new()),
        _ => Cell::Int(0),
    }
}

/// Returns the name of the enum value with this number, or the number itself if the enum has no such value.
fn enum_name(number: i32) -> String {
    let known = ENUM.iter().find(|(known, _)| *known == number);
    known.map_or_else(|| number.to_string(), |(_, name)| (*name).to_owned())
}
