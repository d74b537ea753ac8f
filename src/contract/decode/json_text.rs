//! Functions on the text of JSON values whose syntax has been checked.

use super::cursor::Cursor;

/// Unescapes a string. Returns `false` if the string contains a lone surrogate, which is not a character.
pub(in crate::contract) fn unescape(text: &str, into: &mut String) -> bool {
    let mut rest = text;
    while let Some(at) = rest.find('\\') {
        into.push_str(&rest[..at]);
        let (taken, character) = match rest.as_bytes()[at + 1] {
            b'b' => (2, Some('\u{8}')),
            b'f' => (2, Some('\u{c}')),
            b'n' => (2, Some('\n')),
            b'r' => (2, Some('\r')),
            b't' => (2, Some('\t')),
            b'u' => unicode(&rest[at..]),
            other => (2, Some(char::from(other))),
        };
        let Some(character) = character else { return false };
        into.push(character);
        rest = &rest[at + taken..];
    }
    into.push_str(rest);
    true
}

/// Parses `\uXXXX` or a surrogate pair. Returns the number of bytes consumed, and the character. The character is
/// `None` for a lone surrogate.
fn unicode(text: &str) -> (usize, Option<char>) {
    let unit = |at: usize| text.get(at..at + 4).and_then(|hex| u32::from_str_radix(hex, 16).ok());
    match unit(2) {
        Some(high @ 0xd800..0xdc00) if text[6..].starts_with("\\u") => match unit(8) {
            Some(low @ 0xdc00..0xe000) => (12, char::from_u32(0x1_0000 + ((high - 0xd800) << 10) + (low - 0xdc00))),
            _ => (6, None),
        },
        unit => (6, unit.and_then(char::from_u32)),
    }
}

/// Copies a JSON value without the white space between its tokens.
pub(in crate::contract) fn compact(value: &str, into: &mut String) {
    let mut rest = value;
    while let Some(quote) = rest.find('"') {
        into.extend(rest[..quote].split_ascii_whitespace());
        let end = string_end(&rest[quote..]);
        into.push_str(&rest[quote..quote + end]);
        rest = &rest[quote + end..];
    }
    into.extend(rest.split_ascii_whitespace());
}

fn string_end(text: &str) -> usize {
    let mut at = 1;
    while let Some(step) = text[at..].find(['"', '\\']) {
        at += step + 1;
        if text.as_bytes()[at - 1] == b'"' {
            return at;
        }
        at += 1; // Skips the escaped character. The other bytes of a longer escape need no special treatment.
    }
    text.len()
}

/// Returns true if every escape in a JSON value encodes a character. A lone surrogate such as `\ud800` does not.
pub(in crate::contract) fn escapes_are_valid(value: &str) -> bool {
    let mut rest = value;
    while let Some(at) = rest.find('\\') {
        rest = &rest[at..];
        let taken = match rest.as_bytes().get(1) {
            Some(b'u') => match unicode(rest) {
                (_, None) => return false,
                (taken, _) => taken,
            },
            _ => 2,
        };
        rest = rest.get(taken..).unwrap_or_default();
    }
    true
}

/// Returns true if the text is one JSON value that a JSON column can store: its syntax is valid, and its strings contain
/// only characters.
pub fn is_json(text: &str) -> bool {
    let mut cursor = Cursor::new(text.as_bytes(), Some(text), 0);
    let is_value = cursor.raw().is_ok_and(|raw| !raw.not_finite);
    is_value && cursor.at_end() && escapes_are_valid(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_texts_are_checked() {
        for text in ["{}", " [1, 2.50, \"a\\\\\"] ", "null", "\"\\ud83d\\ude00\"", "\"\\\\ud800\"", "-0", "true"] {
            assert!(is_json(text), "{text}");
        }
        for text in
            ["", " ", "{", "{}{}", "NaN", "[Infinity]", "{\"a\":1,}", "\"\\ud800\"", "\"\\ude00\\ud83d\"", "'a'", "01"]
        {
            assert!(!is_json(text), "{text}");
        }
        assert!(is_json(&"[".repeat(64).chars().chain("]".repeat(64).chars()).collect::<String>()));
        assert!(!is_json(&"[".repeat(65).chars().chain("]".repeat(65).chars()).collect::<String>()));
    }
}
