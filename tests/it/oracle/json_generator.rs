//! Generates random JSON for a table. Most of the events match the table, and some are invalid. The generator uses
//! every feature of JSON.
//!
//! The bytes of an event are generated from choices and a [`TableSpec`]. Generated events never contain `~` or the
//! delete character, because the oracle uses these characters as markers.

use super::choices::Choices;
use super::table_spec::{Column, ENUM, Field, Object, Role, TableSpec};
use super::{MARK_BAD_BYTE, MARK_NOT_FINITE, NOW_MICROS, NUMBER_PLACEHOLDER, kind_values};
use glasshouse::contract::ColumnKind;

/// The contents of keys and strings, without the quotes. The last entries contain invalid bytes, or escapes that do not
/// encode a character.
const STRINGS: [&[u8]; 22] = [
    b"a",
    NUMBER_PLACEHOLDER,
    b"a longer text that is counted: @@@@",
    b"",
    b"acme",
    b"globex",
    b"ONE",
    b"12",
    b"a text that is longer than most, and longer than sixteen bytes",
    "é".as_bytes(),
    "😀".as_bytes(),
    br"\u00e9",
    br"\ud83d\ude00",
    br#"\"\\\/\b\f\n\r\t"#,
    b"NaN",
    b"-5",
    br"\u0000",
    b" x ",
    br"\ud800",
    br"\udc00\ud83d",
    b"\xff",
    b"\xc3",
];
/// Strings with invalid syntax.
const INVALID_STRINGS: [&[u8]; 6] = [br"\x", br"\u12", b"\n", b"\t", b"\0", br"\ud83d\u12"];
/// Numbers at the limits of types and formats.
const NUMBERS: [&str; 48] = [
    "0",
    "1",
    "-1",
    "3",
    "-0",
    "-0.0",
    "0.1",
    "1.0",
    "1.5",
    "-2.50",
    "1e3",
    "1E+3",
    "1e-3",
    "12.5e1",
    "1e19",
    "1e308",
    "1e309",
    "-1e400",
    "1e-400",
    "5e-324",
    "2.2250738585072011e-308",
    "0.30000000000000004",
    "123456789012345",
    "1234567890123456",
    "9007199254740993",
    "9007199254740993.0",
    "2147483647",
    "2147483648",
    "-2147483648",
    "-2147483649",
    "2147483648.0",
    "9223372036854775807",
    "9223372036854775808",
    "-9223372036854775808",
    "-9223372036854775809",
    "18446744073709551615",
    "18446744073709551616",
    "123456789012345678901234567890",
    "3.4028235e38",
    "3.4028236e38",
    "-3.5e38",
    "16777217",
    "0.000001",
    "1234567.123456789",
    "0e0",
    "4294967295",
    "7",
    "0.1234567890123456789",
];
const INVALID_NUMBERS: [&str; 9] = ["01", "1.", ".5", "+1", "-", "1e", "--1", "0x1", "1_000"];
const NOT_FINITE: [&str; 3] = ["NaN", "Infinity", "-Infinity"];
const INTEGERS: [&str; 8] = ["0", "1", "-1", "12", "2147483647", "-2147483648", "3.0", "1e3"];
const BASE64_STRINGS: [&str; 10] = ["", "AA==", "AP8", "_-8=", "+/8=", "AAECAwQF", "AAECAwQFBg", "AAE", "A", "_+8="];
const SPACES: [&str; 5] = ["", " ", "\t", "  ", "\r"];
const TIMES: [&str; 14] = [
    "2025-12-31T23:59:59Z",
    "1700000000",
    "-5",
    "2025-06-01 12:00:00.5z",
    "2024-02-29t01:02:03.123456789+02:00",
    "2024-02-29T07:04:56.789-0530",
    "1999-12-31T23:59:60Z",
    "2020-01-01T00:00:00+01",
    "1969-12-31T23:59:59.999999Z",
    "0001-01-01T00:00:00-12:00",
    "9999-12-31T23:59:59Z",
    "2025-02-29T00:00:00Z",
    "2025-01-01T00:00:00",
    "2025-13-01T00:00:00Z",
];
const DAYS: [&str; 7] =
    ["2025-01-31", "1970-01-01", "0000-03-01", "9999-12-31", "2025-02-29", "2025-1-1", "+025-01-01"];

/// Generates one event. If `lines` is true, line breaks may separate the tokens of the event.
pub(super) fn event(choices: &mut Choices<'_>, spec: &TableSpec, lines: bool) -> Vec<u8> {
    let mut generator = Generator { choices, spec, lines, text: Vec::new() };
    if generator.choices.chance(6) {
        generator.any(0);
    } else {
        generator.object(&spec.root, true);
    }
    let Generator { choices, mut text, .. } = generator;
    if choices.chance(24) {
        choices.damage(&mut text);
    }
    text.iter_mut().filter(|byte| [MARK_BAD_BYTE, MARK_NOT_FINITE].contains(byte)).for_each(|byte| *byte = b'_');
    text
}

struct Generator<'d, 'b, 's> {
    choices: &'d mut Choices<'b>,
    spec: &'s TableSpec,
    lines: bool,
    text: Vec<u8>,
}

impl Generator<'_, '_, '_> {
    fn put(&mut self, text: impl AsRef<[u8]>) {
        self.text.extend_from_slice(text.as_ref());
    }

    fn space(&mut self) {
        if self.choices.chance(50) {
            let space = if self.lines && self.choices.chance(60) { "\n" } else { self.choices.pick(&SPACES) };
            self.put(space);
        }
    }

    fn object(&mut self, object: &Object, is_root: bool) {
        self.put("{");
        self.space();
        let mut is_first = true;
        for field in &object.fields {
            let is_key = is_root && ["who", "at", "key"].contains(&field.name.as_str());
            // The last fields of the root are columns of nested messages. An event can also contain such a column in
            // the root object, but this is generated rarely.
            let is_alias = is_root && self.spec.message.is_some() && field.number == 0;
            let chance = if is_alias {
                12
            } else if is_key && field.name != "who" {
                248
            } else {
                180
            };
            while self.choices.below(256) < chance {
                self.comma(&mut is_first);
                self.key(field);
                self.colon();
                self.value(field);
                if !self.choices.chance(3) {
                    break;
                }
            }
        }
        while self.choices.chance(70) {
            self.comma(&mut is_first);
            self.string();
            self.colon();
            self.any(0);
        }
        self.space();
        let text = if self.choices.chance(2) { ",}" } else { "}" };
        self.put(text);
    }

    fn comma(&mut self, is_first: &mut bool) {
        if !std::mem::replace(is_first, false) {
            self.space();
            let text = if self.choices.chance(1) { " " } else { "," };
            self.put(text);
            self.space();
        }
    }

    fn colon(&mut self) {
        self.space();
        let text = if self.choices.chance(1) { "," } else { ":" };
        self.put(text);
        self.space();
    }

    /// Generates the name or the JSON name of a field, sometimes with an escaped character.
    fn key(&mut self, field: &Field) {
        let name = match self.choices.below(8) {
            0..3 if !field.json_name.is_empty() => &field.json_name,
            _ => &field.name,
        };
        let name = name.clone();
        if self.choices.chance(16) {
            let first = u32::from(name.as_bytes()[0]);
            self.put(format!("\"\\u{first:04x}{}\"", &name[1..]));
        } else {
            self.put(format!("\"{name}\""));
        }
    }

    fn value(&mut self, field: &Field) {
        if self.choices.chance(6) {
            return self.any(0);
        }
        if self.choices.chance(10) {
            return self.put("null");
        }
        let spec = self.spec;
        match &field.role {
            Role::Object(inner) => self.object(inner, false),
            Role::Map(..) => {
                self.put("{");
                let mut is_first = true;
                while self.choices.chance(120) {
                    self.comma(&mut is_first);
                    self.string();
                    self.colon();
                    self.any(0);
                }
                self.put("}");
            }
            Role::Ignored => self.any(0),
            Role::Column(column) if column.index == spec.contract.tenant => {
                let who = self.choices.pick(&["acme", "acme", "acme", "acme", "acme", "acme", "", "globex", "a\\nb"]);
                self.put(format!("\"{who}\""));
            }
            Role::Column(column) if column.index == spec.contract.time => self.event_time(*column),
            Role::Column(column) => self.column_value(*column),
        }
    }

    /// Generates a time in the unit of the table. Most times are plausible.
    fn event_time(&mut self, column: Column) {
        if self.choices.chance(16) {
            return self.column_value(column);
        }
        let micros = NOW_MICROS - (self.choices.u64() >> 20) as i64;
        use glasshouse::config::TimeUnit::{Auto, Micros, Millis, Nanos, Seconds};
        let number = match self.spec.unit {
            Auto => micros,
            Seconds => micros / 1_000_000,
            Millis => micros / 1_000,
            Micros => micros,
            Nanos => micros * 1_000,
        };
        match self.choices.below(8) {
            0 => self.put(format!("\"{number}\"")),
            1 => self.put(format!("{number}.25")),
            2 => self.mostly_valid(&TIMES),
            _ => self.put(number.to_string()),
        }
    }

    /// Generates a value that the column may accept.
    fn column_value(&mut self, column: Column) {
        match column.kind {
            ColumnKind::Text if column.wire == "Names" => match self.choices.below(3) {
                0 => {
                    let (number, name) = ENUM[self.choices.below(ENUM.len())];
                    if self.choices.chance(128) {
                        self.put(number.to_string())
                    } else {
                        self.put(format!("\"{name}\""))
                    }
                }
                1 => self.number(),
                _ => self.string(),
            },
            ColumnKind::Text => self.string(),
            ColumnKind::Bool => {
                let word = self.choices.pick(&["true", "false"]);
                self.put(word);
            }
            ColumnKind::Timestamp if self.choices.chance(40) => self.number(),
            ColumnKind::Timestamp => self.mostly_valid(&TIMES),
            ColumnKind::Date => self.mostly_valid(&DAYS),
            ColumnKind::Decimal { .. } => {
                let text = kind_values::text(self.choices, column.kind).unwrap_or_default();
                let quote = if self.choices.chance(60) { "\"" } else { "" };
                self.put(format!("{quote}{text}{quote}"));
            }
            ColumnKind::Uuid | ColumnKind::Time => {
                let text = kind_values::text(self.choices, column.kind).unwrap_or_default();
                self.put(format!("\"{text}\""));
            }
            ColumnKind::Json => self.any(0),
            ColumnKind::List(element) => self.list(Column { kind: *element, ..column }),
            ColumnKind::Bytes if self.choices.chance(20) => self.base64(),
            ColumnKind::Bytes => self.mostly_valid(&BASE64_STRINGS),
            ColumnKind::Int64 if self.choices.chance(60) => {
                self.put("\"");
                self.number();
                self.put("\"");
            }
            ColumnKind::Float64 | ColumnKind::Float32 if self.choices.chance(20) => {
                let word = self.choices.pick(&NOT_FINITE);
                self.put(format!("\"{word}\""));
            }
            ColumnKind::Int64 | ColumnKind::Int32 if !self.choices.chance(20) => {
                let number = self.choices.pick(&INTEGERS);
                self.put(number);
            }
            _ => self.number(),
        }
    }

    fn list(&mut self, element: Column) {
        self.put("[");
        let mut is_first = true;
        while self.choices.chance(180) {
            self.comma(&mut is_first);
            match self.choices.below(32) {
                1 => self.any(0),
                2..5 => self.put("null"),
                _ => self.column_value(element),
            }
        }
        self.space();
        self.put("]");
    }

    /// Generates one of the given strings. The last three strings are invalid, and are chosen rarely.
    fn mostly_valid(&mut self, texts: &[&str]) {
        let count = if self.choices.chance(16) { texts.len() } else { texts.len() - 3 };
        let text = texts[self.choices.below(count)];
        self.put(format!("\"{text}\""));
    }

    fn base64(&mut self) {
        self.put("\"");
        let letters = if self.choices.chance(128) { b"AQgw/+9A" } else { b"AQgw-_9A" };
        for _ in 0..self.choices.below(10) {
            let letter = letters[self.choices.below(letters.len())];
            self.put([letter]);
        }
        for _ in 0..self.choices.below(3) {
            self.put("=");
        }
        self.put("\"");
    }

    /// Generates a string.
    fn string(&mut self) {
        self.put("\"");
        for _ in 0..=self.choices.below(3) / 2 {
            // The last four strings are not valid UTF-8, or have escapes that do not encode a character.
            let count = if self.choices.chance(10) { STRINGS.len() } else { STRINGS.len() - 4 };
            let text = STRINGS[self.choices.below(count)];
            self.put(text);
        }
        if self.choices.chance(1) {
            let text = INVALID_STRINGS[self.choices.below(INVALID_STRINGS.len())];
            self.put(text);
        }
        self.put("\"");
    }

    fn number(&mut self) {
        if self.choices.chance(1) {
            let broken = self.choices.pick(&INVALID_NUMBERS);
            return self.put(broken);
        }
        if self.choices.chance(3) {
            let word = self.choices.pick(&NOT_FINITE);
            return self.put(word);
        }
        match self.choices.below(4) {
            0 => {
                let number = self.choices.integer().cast_signed();
                self.put(number.to_string());
            }
            1 => {
                let number = f64::from_bits(self.choices.u64());
                let number = if number.is_finite() { number } else { 0.5 };
                let text = if self.choices.chance(128) { format!("{number:e}") } else { format!("{number:?}") };
                self.put(text);
            }
            _ => {
                let number = self.choices.pick(&NUMBERS);
                self.put(number);
            }
        }
    }

    /// Generates any value.
    fn any(&mut self, depth: usize) {
        match self.choices.below(9) {
            0 | 1 => self.string(),
            2 | 3 => self.number(),
            4 => {
                let word = self.choices.pick(&["null", "true", "false", "nul"]);
                let word = if word == "nul" && !self.choices.chance(20) { "null" } else { word };
                self.put(word);
            }
            // Generate arrays with a nesting depth near the maximum.
            5 if self.choices.chance(10) => {
                let depth = 60 + self.choices.below(10);
                self.put("[".repeat(depth));
                self.put("]".repeat(depth));
            }
            5 | 6 if depth < 4 => {
                self.put("[");
                let mut is_first = true;
                while self.choices.chance(120) {
                    self.comma(&mut is_first);
                    self.any(depth + 1);
                }
                self.put("]");
            }
            7 | 8 if depth < 4 => {
                self.put("{");
                let mut is_first = true;
                while self.choices.chance(120) {
                    self.comma(&mut is_first);
                    self.string();
                    self.colon();
                    self.any(depth + 1);
                }
                self.put("}");
            }
            _ => self.number(),
        }
    }
}
