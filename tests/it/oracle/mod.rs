//! Independent oracles for the hand-written decoders: JSON against `serde_json`, protobuf against `prost-reflect`.
//!
//! ```text
//!   bytes ─► dice ─► spec (a table) ─┬─► json_make | wire_make (bodies) ─┬─► the server's decoder ─► row ─┐
//!                                    │                                   └─► json_read | wire_read ───────┴─► the same?
//!                                    └─► the contract                        (the oracles)
//! ```
//!
//! The same bytes give the same table and the same bodies: a test runs the bytes of many seeds, a fuzzer searches for bytes.
//! Decoder and oracle must accept the same events with the same values, and reject the others for the same reason. Where a
//! table differs from `serde_json` and `prost-reflect` on purpose, the oracle has a rule: `json_read.rs` and `wire_read.rs`
//! list these rules.
//!
//! **Invariant:** an oracle calls no code of the server's decoders.

mod dice;
#[cfg(test)]
mod driver;
mod json_make;
mod json_read;
mod row;
mod spec;
mod time;
mod wire_make;
mod wire_read;

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use glasshouse::contract::{ColumnKind, Decoded, Format, Owner, Reason, Stamp, TenantId, decode, decode_messages};
use glasshouse::error::{Kind, Result};

use self::dice::Dice;
use self::json_read::Event;
use self::row::{Cell, Outcome, outcomes};
use self::spec::{Column, ENUM, Spec};

/// 2026-01-01T00:00:00Z, the server's receive time.
const NOW_MICROS: i64 = 1_767_225_600_000_000;
/// The marker for a byte that is not UTF-8. Generated JSON never contains it.
const MARK_BAD_BYTE: u8 = b'~';
/// Fills the string that replaces `NaN` or an infinity. Generated JSON never contains it.
const MARK_NOT_FINITE: u8 = 0x7f;

/// The placeholder in a text for a number of as many digits.
const COUNTED: &[u8] = b"@@@@";

/// The number of events that became rows (key `None`), and of rejected events by reason.
pub(crate) type Tally = BTreeMap<Option<Reason>, usize>;

/// Generates a table and JSON bodies from these bytes, and compares both readers. The error describes the first difference.
pub(crate) fn json(bytes: &[u8]) -> std::result::Result<Tally, String> {
    let mut dice = Dice::new(bytes);
    let spec = if dice.once_in_a_while(90) { spec::message(&mut dice) } else { spec::columns(&mut dice) };
    let mut tally = Tally::new();
    for _ in 0..4 {
        let stamp = stamp(&mut dice);
        let shape = dice.below(4);
        let events = if shape == 0 { 1 } else { 1 + dice.below(4) };
        let events = (0..events).map(|_| json_make::event(&mut dice, &spec, matches!(shape, 0 | 2))).collect();
        let events: Vec<Vec<u8>> = if shape == 0 { events } else { counted(events, &mut dice) };
        let (body, places) = match shape {
            0 => ([if dice.once_in_a_while(20) { "\u{feff}" } else { "" }.as_bytes(), &events[0]].concat(), None),
            1 => (events.join(b"\n".as_slice()), None),
            2 => {
                let end = if dice.once_in_a_while(8) { " ] x" } else { "]" };
                ([b"[", events.join(b" ,".as_slice()).as_slice(), end.as_bytes()].concat(), None)
            }
            _ => {
                let (body, places) = apart(&events);
                (body, Some(places))
            }
        };
        let expected = match &places {
            None => json_read::body(&spec, &stamp, &body),
            Some(places) => Some(json_read::messages(&spec, &stamp, &body, places)),
        };
        let shown = String::from_utf8_lossy(&body).into_owned();
        let body = Bytes::from(body);
        let decoded = match &places {
            None => decode(&spec.contract, Format::Json, &body, &stamp),
            Some(places) => decode_messages(&spec.contract, Format::Json, &body, places, &stamp),
        };
        compare(&spec, decoded, expected, &body, &mut tally)
            .map_err(|what| format!("{what}\nbody: {shown}\n{}", described(&spec, &stamp)))?;
        if dice.is_empty() {
            break;
        }
    }
    Ok(tally)
}

/// The same check for protobuf.
pub(crate) fn protobuf(bytes: &[u8]) -> std::result::Result<Tally, String> {
    let mut dice = Dice::new(bytes);
    let spec = spec::message(&mut dice);
    let mut tally = Tally::new();
    for _ in 0..8 {
        let stamp = stamp(&mut dice);
        let events = (0..1 + dice.below(4)).map(|_| wire_make::event(&mut dice, &spec)).collect();
        let events = counted(events, &mut dice);
        let is_stream = !dice.once_in_a_while(128);
        let (body, places) = if is_stream { stream(&events, &mut dice) } else { apart(&events) };
        let mut expected: Vec<Event> = places
            .iter()
            .map(|place| (wire_read::message(&spec, &stamp, &body[place.clone()]), place.clone()))
            .collect();
        let end = places.last().map_or(0, |place| place.end);
        if is_stream && end < body.len() {
            // The only fault of a stream itself is truncation: its tail is one reject.
            expected.push((Outcome::Reject(Reason::Malformed), end..body.len()));
        }
        let shown: String = body.iter().map(|byte| format!("{byte:02x}")).collect();
        let body = Bytes::from(body);
        let decoded = if is_stream {
            decode(&spec.contract, Format::Protobuf, &body, &stamp)
        } else {
            decode_messages(&spec.contract, Format::Protobuf, &body, &places, &stamp)
        };
        compare(&spec, decoded, Some(expected), &body, &mut tally)
            .map_err(|what| format!("{what}\nbody: {shown}\n{}", described(&spec, &stamp)))?;
        if dice.is_empty() {
            break;
        }
    }
    Ok(tally)
}

/// The events, sometimes repeated many times with a different number in their texts: a column stores few distinct texts in a
/// different way than many.
fn counted(events: Vec<Vec<u8>>, dice: &mut Dice<'_>) -> Vec<Vec<u8>> {
    if !dice.once_in_a_while(6) {
        return events;
    }
    let count = |copy: usize, event: &Vec<u8>| {
        let (mut event, number) = (event.clone(), format!("{copy:04}"));
        while let Some(at) = event.windows(COUNTED.len()).position(|bytes| bytes == COUNTED) {
            event[at..at + COUNTED.len()].copy_from_slice(number.as_bytes());
        }
        event
    };
    let copies = [3, 160, 700][dice.below(3)];
    (0..copies).flat_map(|copy| events.iter().map(move |event| count(copy, event))).collect()
}

/// Messages separated by line breaks, and the byte range of each.
fn apart(events: &[Vec<u8>]) -> (Vec<u8>, Vec<Range<usize>>) {
    let (mut body, mut places) = (Vec::new(), Vec::new());
    for event in events {
        places.push(body.len()..body.len() + event.len());
        body.extend_from_slice(event);
        body.push(b'\n');
    }
    (body, places)
}

/// Length-prefixed messages and the byte range of each; sometimes the last one is truncated, and has no range then.
fn stream(events: &[Vec<u8>], dice: &mut Dice<'_>) -> (Vec<u8>, Vec<Range<usize>>) {
    let (mut body, mut places) = (Vec::new(), Vec::new());
    for event in events {
        body.extend(wire_make::varint(event.len() as u64, if dice.once_in_a_while(6) { dice.below(3) } else { 0 }));
        places.push(body.len()..body.len() + event.len());
        body.extend_from_slice(event);
    }
    if dice.once_in_a_while(16) && places.last().is_some_and(|last| !last.is_empty()) {
        // The first byte alone of a longer length prefix would be another length.
        let last = places.pop().expect("places is not empty");
        body.truncate(last.end - 1 - dice.below(last.len().min(256)));
    }
    (body, places)
}

fn stamp(dice: &mut Dice<'_>) -> Stamp {
    let acme = || Owner::Tenant(TenantId::parse("acme").expect("acme is a valid tenant id"));
    Stamp {
        received: NOW_MICROS,
        owner: if dice.once_in_a_while(60) { Owner::PerEvent } else { acme() },
        time_max: NOW_MICROS + 3_600_000_000,
        event_bytes_max: if dice.once_in_a_while(12) { 60 + dice.below(200) } else { 1 << 20 },
        dimensions_max: if dice.once_in_a_while(30) { dice.below(3) } else { 64 },
    }
}

/// Compares the server's outcome of a body with the expected one; `None` for a body that is refused as a whole.
fn compare(
    spec: &Spec,
    decoded: Result<Decoded>,
    expected: Option<Vec<Event>>,
    body: &Bytes,
    tally: &mut Tally,
) -> std::result::Result<(), String> {
    let (decoded, expected) = match (decoded, expected) {
        (Ok(decoded), Some(expected)) => (decoded, expected),
        (Err(fault), None) if fault.kind() == Kind::Invalid => return Ok(()),
        (Err(fault), expected) => return Err(format!("got: {fault}\nexpected: {expected:?}")),
        (Ok(decoded), None) => {
            return Err(format!("got: {:?}\nexpected: an error", outcomes(&spec.contract, &decoded)));
        }
    };
    let ours = outcomes(&spec.contract, &decoded);
    if ours.len() != expected.len() {
        return Err(format!("got: {} events: {ours:?}\nexpected: {}: {expected:?}", ours.len(), expected.len()));
    }
    for (index, ((outcome, bytes), (expected, place))) in ours.iter().zip(&expected).enumerate() {
        let is_same = match (outcome, expected) {
            (Outcome::Reject(reason), Outcome::OneOf(reasons)) => reasons.contains(reason),
            (outcome, expected) => outcome == expected,
        };
        if !is_same {
            let details: Vec<_> = decoded.rejects.iter().map(|reject| reject.detail.as_str()).collect();
            return Err(format!("event {index}\ngot:      {outcome:?}\nexpected: {expected:?}\ndetails: {details:?}"));
        }
        // The rest of a broken array begins somewhere after the last good event.
        let is_part = bytes.as_ref().is_none_or(|bytes| body[place.clone()].ends_with(bytes));
        if !is_part {
            return Err(format!("event {index}: expected the rejected bytes {place:?}, got {bytes:?}"));
        }
        let reason = if let Outcome::Reject(reason) = outcome { Some(*reason) } else { None };
        *tally.entry(reason).or_default() += 1;
    }
    Ok(())
}

fn described(spec: &Spec, stamp: &Stamp) -> String {
    let columns: Vec<_> = spec.contract.columns.iter().map(|column| (&*column.name, column.kind.as_str())).collect();
    let message = spec.message.as_ref().map(|message| {
        let fields = message.fields().map(|field| format!("{} = {} {:?}", field.name(), field.number(), field.kind()));
        fields.collect::<Vec<_>>()
    });
    format!("columns: {columns:?}\nmessage: {message:?}\nunit: {:?}\nstamp: {stamp:?}", spec.unit)
}

/// The zero of a field without presence.
fn zero(column: Column) -> Cell {
    match column.kind {
        ColumnKind::Bool => Cell::Bool(false),
        ColumnKind::Float32 => Cell::Single(0),
        ColumnKind::Float64 => Cell::Double(0),
        ColumnKind::Text if column.wire == "Names" => Cell::Text(enum_name(0)),
        ColumnKind::Text => Cell::Text(String::new()),
        ColumnKind::Bytes => Cell::Bytes(Vec::new()),
        _ => Cell::Int(0),
    }
}

/// The name of an enum's number, or the number when no name is known.
fn enum_name(number: i32) -> String {
    let known = ENUM.iter().find(|(known, _)| *known == number);
    known.map_or_else(|| number.to_string(), |(_, name)| (*name).to_owned())
}
