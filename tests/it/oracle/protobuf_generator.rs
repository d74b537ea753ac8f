//! Generates random protobuf for a table. Most of the messages match the table, and some are invalid. The generator
//! uses every feature of the wire format.

use super::choices::Choices;
use super::table_spec::{Column, ENUM, Field, Object, Role, TIME, TableSpec};
use super::{NOW_MICROS, NUMBER_PLACEHOLDER, kind_values};
use glasshouse::contract::ColumnKind;

const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const LENGTH: u8 = 2;
const GROUP: u8 = 3;
const GROUP_END: u8 = 4;
const FIXED32: u8 = 5;

const STRINGS: [&[u8]; 11] = [
    b"a",
    NUMBER_PLACEHOLDER,
    b"a longer text that is counted: @@@@",
    b"",
    b"acme",
    "é".as_bytes(),
    "😀".as_bytes(),
    b"b",
    b"a text that is longer than most, and longer than sixteen bytes",
    b"\xff",
    b"\xc3",
];

/// Generates one message.
pub(super) fn event(choices: &mut Choices<'_>, spec: &TableSpec) -> Vec<u8> {
    let mut generator = Generator { choices, spec };
    let mut wire = generator.message(&spec.root);
    if generator.choices.chance(24) {
        generator.choices.damage(&mut wire);
    }
    wire
}

/// Encodes a varint with `padding` unnecessary bytes.
pub(super) fn varint(mut value: u64, padding: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    for _ in 0..padding {
        *bytes.last_mut().expect("a varint has at least one byte") |= 0x80;
        bytes.push(0);
    }
    bytes
}

pub(super) fn delimited(bytes: Vec<u8>) -> Vec<u8> {
    [varint(bytes.len() as u64, 0), bytes].concat()
}

struct Generator<'d, 'b, 's> {
    choices: &'d mut Choices<'b>,
    spec: &'s TableSpec,
}

impl Generator<'_, '_, '_> {
    fn message(&mut self, object: &Object) -> Vec<u8> {
        let mut records = Vec::new();
        let known: Vec<&Field> = object.fields.iter().filter(|field| field.number > 0).collect();
        for field in &known {
            let is_key = ["at", "key"].contains(&field.name.as_str());
            while self.choices.below(256) < if is_key { 250 } else { 180 } {
                records.push(self.record(field));
                if !self.choices.chance(40) {
                    break;
                }
            }
        }
        while self.choices.chance(50) {
            let number = [100, 5_000, 536_870_911, 2, 31][self.choices.below(5)];
            if known.iter().all(|field| field.number != number) {
                let wire_type = self.any_type();
                records.push(self.raw(number, wire_type));
            }
        }
        // The fields of a message may be in any order, so two of them are sometimes swapped.
        if self.choices.chance(80) && records.len() > 1 {
            let (one, other) = (self.choices.below(records.len()), self.choices.below(records.len()));
            records.swap(one, other);
        }
        records.concat()
    }

    /// Returns a random wire type. Groups are rare, because they make the whole message invalid.
    fn any_type(&mut self) -> u8 {
        if self.choices.chance(6) { GROUP } else { [VARINT, LENGTH, FIXED64, FIXED32][self.choices.below(4)] }
    }

    fn key(&mut self, number: u32, wire_type: u8) -> Vec<u8> {
        let padding = if self.choices.chance(4) { self.choices.below(5) } else { 0 };
        let number = if self.choices.chance(1) { 0 } else { u64::from(number) };
        let number = if self.choices.chance(1) { number | 1 << 30 } else { number };
        varint(number << 3 | u64::from(wire_type), padding)
    }

    /// Generates a value with the given wire type, regardless of the field's declared type.
    fn raw(&mut self, number: u32, wire_type: u8) -> Vec<u8> {
        let value = match wire_type {
            VARINT => self.any_varint(),
            FIXED64 => self.choices.u64().to_le_bytes().to_vec(),
            FIXED32 => self.choices.u64().to_le_bytes()[..4].to_vec(),
            LENGTH => self.bytes(),
            GROUP => {
                let end = if self.choices.chance(40) { number + 1 } else { number };
                [self.raw(1, VARINT), self.key(end, GROUP_END)].concat()
            }
            _ => Vec::new(),
        };
        [self.key(number, wire_type), value].concat()
    }

    fn any_varint(&mut self) -> Vec<u8> {
        let value = self.choices.integer();
        self.varint(value)
    }

    fn varint(&mut self, value: u64) -> Vec<u8> {
        if self.choices.chance(2) {
            // Generate an invalid varint: eleven bytes, or ten bytes where the tenth has more than its lowest bit set.
            return if self.choices.chance(128) { vec![0xff; 11] } else { [[0xff; 9].as_slice(), &[0x03]].concat() };
        }
        let short = varint(value, 0);
        let padding = if self.choices.chance(10) { self.choices.below(11 - short.len().min(10)) } else { 0 };
        varint(value, padding)
    }

    fn bytes(&mut self) -> Vec<u8> {
        let count = if self.choices.chance(6) { STRINGS.len() } else { STRINGS.len() - 2 };
        delimited(STRINGS[self.choices.below(count)].to_vec())
    }

    fn record(&mut self, field: &Field) -> Vec<u8> {
        if self.choices.chance(1) {
            let wire_type = [VARINT, FIXED64, LENGTH, FIXED32, GROUP, GROUP_END, 6, 7][self.choices.below(8)];
            return self.raw(field.number, wire_type);
        }
        let spec = self.spec;
        let (wire_type, value) = match &field.role {
            Role::Object(inner) => (LENGTH, delimited(self.message(inner))),
            Role::Map(key, value) => (LENGTH, delimited(self.entry(key, value))),
            Role::Ignored => {
                let wire_type = self.any_type();
                return self.raw(field.number, wire_type);
            }
            Role::Column(column) if column.index == spec.contract.tenant && !self.choices.chance(10) => {
                (LENGTH, delimited(self.choices.pick(&["acme", "acme", "acme", "acme", "", "globex"]).into()))
            }
            Role::Column(column) if column.index == spec.contract.time && !self.choices.chance(10) => {
                self.event_time(column.wire)
            }
            Role::Column(column) => self.column(*column),
        };
        [self.key(field.number, wire_type), value].concat()
    }

    /// Generates the value of a column, or one occurrence of a list: a single element, or several packed ones.
    fn column(&mut self, column: Column) -> (u8, Vec<u8>) {
        let ColumnKind::List(element) = column.kind else { return self.typed(column.kind, column.wire) };
        let (wire_type, mut value) = self.typed(*element, column.wire);
        if wire_type == LENGTH || self.choices.chance(128) {
            return (wire_type, value);
        }
        while self.choices.chance(128) {
            value.extend(self.typed(*element, column.wire).1);
        }
        if self.choices.chance(16) {
            value.clear();
        }
        (LENGTH, delimited(value))
    }

    /// Generates a value of the given protobuf type that a column of this kind may accept.
    fn typed(&mut self, kind: ColumnKind, wire: &str) -> (u8, Vec<u8>) {
        match (kind, wire) {
            (ColumnKind::Uuid, "bytes") if !self.choices.chance(16) => {
                let bytes = [self.choices.u64(), self.choices.u64()].map(u64::to_be_bytes);
                (LENGTH, delimited(bytes.concat()))
            }
            (_, "string" | "bytes") if !self.choices.chance(10) => match kind_values::text(self.choices, kind) {
                Some(text) => (LENGTH, delimited(text.into_bytes())),
                None if matches!(kind, ColumnKind::Date | ColumnKind::Timestamp) => {
                    let texts =
                        ["2025-01-31", "2025-12-31T23:59:59Z", "1700000000", "2024-02-29t01:02:03.5+02:00", "x"];
                    (LENGTH, delimited(self.choices.pick(&texts).into()))
                }
                None => self.scalar(wire),
            },
            (ColumnKind::Decimal { .. }, "int64" | "sint64" | "uint64" | "int32" | "uint32") => {
                let value = if self.choices.chance(60) { self.choices.integer() } else { self.choices.byte().into() };
                (VARINT, varint(value, 0))
            }
            _ => self.scalar(wire),
        }
    }

    fn entry(&mut self, key: &'static str, value: &'static str) -> Vec<u8> {
        let mut records = Vec::new();
        for (number, wire) in [(1, key), (2, value)] {
            while self.choices.below(256) < 230 {
                let (wire_type, value) = self.scalar(wire);
                records.push([self.key(number, wire_type), value].concat());
                if !self.choices.chance(20) {
                    break;
                }
            }
        }
        if self.choices.chance(10) {
            let wire_type = self.any_type();
            let number = 1 + self.choices.below(4) as u32;
            records.push(self.raw(number, wire_type));
        }
        if self.choices.chance(30) {
            records.reverse();
        }
        records.concat()
    }

    fn event_time(&mut self, wire: &str) -> (u8, Vec<u8>) {
        let micros = (NOW_MICROS - (self.choices.u64() >> 20) as i64).cast_unsigned();
        if wire == TIME {
            let seconds = [varint(1 << 3, 0), varint(micros / 1_000_000, 0)].concat();
            let nanos = [varint(2 << 3, 0), varint(micros % 1_000_000 * 1_000 + 7, 0)].concat();
            return (LENGTH, delimited([seconds, nanos].concat()));
        }
        use glasshouse::config::TimeUnit::{Auto, Micros, Millis, Nanos, Seconds};
        let number = match self.spec.unit {
            Auto | Micros => micros,
            Seconds => micros / 1_000_000,
            Millis => micros / 1_000,
            Nanos => micros * 1_000,
        };
        (VARINT, varint(number, 0))
    }

    /// Generates a value of the given type.
    fn scalar(&mut self, wire: &str) -> (u8, Vec<u8>) {
        match wire {
            "string" | "bytes" => (LENGTH, self.bytes()),
            "double" => {
                let number =
                    [1.5, 0.0, -0.0, f64::MAX, f64::NAN, f64::INFINITY, f64::MIN_POSITIVE][self.choices.below(7)];
                let number = if number.is_finite() || self.choices.chance(40) { number } else { 0.1 };
                (FIXED64, number.to_le_bytes().to_vec())
            }
            "float" => {
                let number = [1.5, 0.0, -0.0, f32::MAX, f32::NAN, f32::INFINITY, 0.1][self.choices.below(7)];
                let number = if number.is_finite() || self.choices.chance(40) { number } else { 0.1 };
                (FIXED32, number.to_le_bytes().to_vec())
            }
            "fixed64" | "sfixed64" => (FIXED64, self.choices.integer().to_le_bytes().to_vec()),
            "fixed32" | "sfixed32" => (FIXED32, self.choices.integer().to_le_bytes()[..4].to_vec()),
            "Names" => {
                let number =
                    if self.choices.chance(40) { self.choices.integer() as i32 } else { ENUM[self.choices.below(4)].0 };
                (VARINT, self.varint(i64::from(number).cast_unsigned()))
            }
            "bool" if !self.choices.chance(20) => {
                let value = self.choices.below(2) as u64;
                (VARINT, self.varint(value))
            }
            TIME => (LENGTH, delimited(self.timestamp())),
            _ => (VARINT, self.any_varint()),
        }
    }

    fn timestamp(&mut self) -> Vec<u8> {
        let mut records = Vec::new();
        for number in [1, 2] {
            while self.choices.below(256) < 200 {
                let value = match self.choices.below(4) {
                    0 => self.any_varint(),
                    1 => varint(999_999_999 + self.choices.below(2) as u64, 0),
                    _ => varint(1_700_000_000 % (1 + self.choices.u64() % 2_000_000_000), 0),
                };
                records.push([self.key(number, VARINT), value].concat());
                if !self.choices.chance(20) {
                    break;
                }
            }
        }
        if self.choices.chance(10) {
            let wire_type = self.any_type();
            let number = 1 + self.choices.below(4) as u32;
            records.push(self.raw(number, wire_type));
        }
        records.concat()
    }
}
