//! Generates random JSON for a table: mostly events that fit it, with every feature that JSON allows, and some invalid input.
//!
//! In: choices and a [`Spec`]. Out: the bytes of one event. Never generates `~` or the delete character: the oracle uses
//! them as markers.

use super::dice::Dice;
use super::spec::{Column, ENUM, Field, Object, Role, Spec};
use super::{COUNTED, MARK_BAD_BYTE, MARK_NOT_FINITE, NOW_MICROS};
use glasshouse::contract::ColumnKind;

/// Words for keys and texts, as written between quotes. Only a few contain bytes that are not UTF-8.
const TEXTS: [&[u8]; 22] = [
    b"a",
    COUNTED,
    b"a longer text that is counted: @@@@",
    b"",
    b"acme",
    b"globex",
    b"ONE",
    b"12",
    b"a text that is longer than most, to leave the first sixteen bytes",
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
/// Broken words.
const BROKEN_TEXTS: [&[u8]; 6] = [br"\x", br"\u12", b"\n", b"\t", b"\0", br"\ud83d\u12"];
/// Numbers at the edges of every known pitfall.
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
const BROKEN_NUMBERS: [&str; 9] = ["01", "1.", ".5", "+1", "-", "1e", "--1", "0x1", "1_000"];
const NOT_FINITE: [&str; 3] = ["NaN", "Infinity", "-Infinity"];
const INTEGERS: [&str; 8] = ["0", "1", "-1", "12", "2147483647", "-2147483648", "3.0", "1e3"];
const BLOBS: [&str; 10] = ["", "AA==", "AP8", "_-8=", "+/8=", "AAECAwQF", "AAECAwQFBg", "AAE", "A", "_+8="];
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

/// Generates one event. `lines` allows line breaks between its tokens.
pub(super) fn event(dice: &mut Dice<'_>, spec: &Spec, lines: bool) -> Vec<u8> {
    let mut maker = Maker { dice, spec, lines, text: Vec::new() };
    if maker.dice.once_in_a_while(6) {
        maker.any(0);
    } else {
        maker.object(&spec.root, true);
    }
    let Maker { dice, mut text, .. } = maker;
    if dice.once_in_a_while(24) {
        dice.damage(&mut text);
    }
    text.iter_mut().filter(|byte| [MARK_BAD_BYTE, MARK_NOT_FINITE].contains(byte)).for_each(|byte| *byte = b'_');
    text
}

struct Maker<'d, 'b, 's> {
    dice: &'d mut Dice<'b>,
    spec: &'s Spec,
    lines: bool,
    text: Vec<u8>,
}

impl Maker<'_, '_, '_> {
    fn put(&mut self, text: impl AsRef<[u8]>) {
        self.text.extend_from_slice(text.as_ref());
    }

    fn space(&mut self) {
        if self.dice.once_in_a_while(50) {
            let space = if self.lines && self.dice.once_in_a_while(60) { "\n" } else { self.dice.pick(&SPACES) };
            self.put(space);
        }
    }

    fn object(&mut self, object: &Object, is_root: bool) {
        self.put("{");
        self.space();
        let mut is_first = true;
        for field in &object.fields {
            let is_key = is_root && ["who", "at", "key"].contains(&field.name.as_str());
            // The columns of nested messages, which the event may name directly, come last and are rarely named.
            let is_alias = is_root && self.spec.message.is_some() && field.number == 0;
            let chance = if is_alias {
                12
            } else if is_key && field.name != "who" {
                248
            } else {
                180
            };
            while self.dice.below(256) < chance {
                self.comma(&mut is_first);
                self.key(field);
                self.colon();
                self.value(field);
                if !self.dice.once_in_a_while(3) {
                    break;
                }
            }
        }
        while self.dice.once_in_a_while(70) {
            self.comma(&mut is_first);
            self.word();
            self.colon();
            self.any(0);
        }
        self.space();
        let text = if self.dice.once_in_a_while(2) { ",}" } else { "}" };
        self.put(text);
    }

    fn comma(&mut self, is_first: &mut bool) {
        if !std::mem::replace(is_first, false) {
            self.space();
            let text = if self.dice.once_in_a_while(1) { " " } else { "," };
            self.put(text);
            self.space();
        }
    }

    fn colon(&mut self) {
        self.space();
        let text = if self.dice.once_in_a_while(1) { "," } else { ":" };
        self.put(text);
        self.space();
    }

    /// The name of a field, in one of its spellings.
    fn key(&mut self, field: &Field) {
        let name = match self.dice.below(8) {
            0..3 if !field.json_name.is_empty() => &field.json_name,
            _ => &field.name,
        };
        let name = name.clone();
        if self.dice.once_in_a_while(16) {
            let first = u32::from(name.as_bytes()[0]);
            self.put(format!("\"\\u{first:04x}{}\"", &name[1..]));
        } else {
            self.put(format!("\"{name}\""));
        }
    }

    fn value(&mut self, field: &Field) {
        if self.dice.once_in_a_while(6) {
            return self.any(0);
        }
        if self.dice.once_in_a_while(10) {
            return self.put("null");
        }
        let spec = self.spec;
        match &field.role {
            Role::Object(inner) => self.object(inner, false),
            Role::Map(..) => {
                self.put("{");
                let mut is_first = true;
                while self.dice.once_in_a_while(120) {
                    self.comma(&mut is_first);
                    self.word();
                    self.colon();
                    self.any(0);
                }
                self.put("}");
            }
            Role::Ignored => self.any(0),
            Role::Column(column) if column.index == spec.contract.tenant => {
                let who = self.dice.pick(&["acme", "acme", "acme", "acme", "acme", "acme", "", "globex", "a\\nb"]);
                self.put(format!("\"{who}\""));
            }
            Role::Column(column) if column.index == spec.contract.time => self.event_time(*column),
            Role::Column(column) => self.fitting(*column),
        }
    }

    /// A time, mostly a plausible one, in the unit of the table.
    fn event_time(&mut self, column: Column) {
        if self.dice.once_in_a_while(16) {
            return self.fitting(column);
        }
        let micros = NOW_MICROS - (self.dice.word() >> 20) as i64;
        use glasshouse::config::TimeUnit::{Auto, Micros, Millis, Nanos, Seconds};
        let number = match self.spec.unit {
            Auto => micros,
            Seconds => micros / 1_000_000,
            Millis => micros / 1_000,
            Micros => micros,
            Nanos => micros * 1_000,
        };
        match self.dice.below(8) {
            0 => self.put(format!("\"{number}\"")),
            1 => self.put(format!("{number}.25")),
            2 => self.mostly(&TIMES),
            _ => self.put(number.to_string()),
        }
    }

    /// A value that the column may accept.
    fn fitting(&mut self, column: Column) {
        match column.kind {
            ColumnKind::Text if column.wire == "Names" => match self.dice.below(3) {
                0 => {
                    let (number, name) = ENUM[self.dice.below(ENUM.len())];
                    if self.dice.once_in_a_while(128) {
                        self.put(number.to_string())
                    } else {
                        self.put(format!("\"{name}\""))
                    }
                }
                1 => self.number(),
                _ => self.word(),
            },
            ColumnKind::Text => self.word(),
            ColumnKind::Bool => {
                let word = self.dice.pick(&["true", "false"]);
                self.put(word);
            }
            ColumnKind::Timestamp if self.dice.once_in_a_while(40) => self.number(),
            ColumnKind::Timestamp => self.mostly(&TIMES),
            ColumnKind::Date => self.mostly(&DAYS),
            ColumnKind::Bytes if self.dice.once_in_a_while(20) => self.base64(),
            ColumnKind::Bytes => self.mostly(&BLOBS),
            ColumnKind::Int64 if self.dice.once_in_a_while(60) => {
                self.put("\"");
                self.number();
                self.put("\"");
            }
            ColumnKind::Float64 | ColumnKind::Float32 if self.dice.once_in_a_while(20) => {
                let word = self.dice.pick(&NOT_FINITE);
                self.put(format!("\"{word}\""));
            }
            ColumnKind::Int64 | ColumnKind::Int32 if !self.dice.once_in_a_while(20) => {
                let number = self.dice.pick(&INTEGERS);
                self.put(number);
            }
            _ => self.number(),
        }
    }

    /// One of these texts: rarely one of the last three, which do not fit.
    fn mostly(&mut self, texts: &[&str]) {
        let count = if self.dice.once_in_a_while(16) { texts.len() } else { texts.len() - 3 };
        let text = texts[self.dice.below(count)];
        self.put(format!("\"{text}\""));
    }

    fn base64(&mut self) {
        self.put("\"");
        let letters = if self.dice.once_in_a_while(128) { b"AQgw/+9A" } else { b"AQgw-_9A" };
        for _ in 0..self.dice.below(10) {
            let letter = letters[self.dice.below(letters.len())];
            self.put([letter]);
        }
        for _ in 0..self.dice.below(3) {
            self.put("=");
        }
        self.put("\"");
    }

    /// A text.
    fn word(&mut self) {
        self.put("\"");
        for _ in 0..=self.dice.below(3) / 2 {
            // The last ones are not UTF-8, or are escapes that do not encode a character.
            let count = if self.dice.once_in_a_while(10) { TEXTS.len() } else { TEXTS.len() - 4 };
            let text = TEXTS[self.dice.below(count)];
            self.put(text);
        }
        if self.dice.once_in_a_while(1) {
            let text = BROKEN_TEXTS[self.dice.below(BROKEN_TEXTS.len())];
            self.put(text);
        }
        self.put("\"");
    }

    fn number(&mut self) {
        if self.dice.once_in_a_while(1) {
            let broken = self.dice.pick(&BROKEN_NUMBERS);
            return self.put(broken);
        }
        if self.dice.once_in_a_while(3) {
            let word = self.dice.pick(&NOT_FINITE);
            return self.put(word);
        }
        match self.dice.below(4) {
            0 => {
                let number = self.dice.integer().cast_signed();
                self.put(number.to_string());
            }
            1 => {
                let number = f64::from_bits(self.dice.word());
                let number = if number.is_finite() { number } else { 0.5 };
                let text = if self.dice.once_in_a_while(128) { format!("{number:e}") } else { format!("{number:?}") };
                self.put(text);
            }
            _ => {
                let number = self.dice.pick(&NUMBERS);
                self.put(number);
            }
        }
    }

    /// Any value.
    fn any(&mut self, depth: usize) {
        match self.dice.below(9) {
            0 | 1 => self.word(),
            2 | 3 => self.number(),
            4 => {
                let word = self.dice.pick(&["null", "true", "false", "nul"]);
                let word = if word == "nul" && !self.dice.once_in_a_while(20) { "null" } else { word };
                self.put(word);
            }
            // Near the allowed depth.
            5 if self.dice.once_in_a_while(10) => {
                let depth = 60 + self.dice.below(10);
                self.put("[".repeat(depth));
                self.put("]".repeat(depth));
            }
            5 | 6 if depth < 4 => {
                self.put("[");
                let mut is_first = true;
                while self.dice.once_in_a_while(120) {
                    self.comma(&mut is_first);
                    self.any(depth + 1);
                }
                self.put("]");
            }
            7 | 8 if depth < 4 => {
                self.put("{");
                let mut is_first = true;
                while self.dice.once_in_a_while(120) {
                    self.comma(&mut is_first);
                    self.word();
                    self.colon();
                    self.any(depth + 1);
                }
                self.put("}");
            }
            _ => self.number(),
        }
    }
}
