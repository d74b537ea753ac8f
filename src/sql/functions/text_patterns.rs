//! The functions `like_pattern` and `similar_to_pattern`, which convert SQL patterns to the engine's patterns.
//!
//! The engine's `LIKE` supports only the escape character `\`, and its `SIMILAR TO` matches a regular expression
//! anywhere in the text. The two functions accept a constant pattern or a pattern that is computed for each row.

use std::sync::Arc;

use arrow::array::{AsArray as _, StringArray};
use arrow::datatypes::DataType;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{ColumnarValue, ScalarFunctionArgs};

use crate::sql::functions::definition::{FunctionDefinition, unordered, wrong_arguments};

/// The function `like_pattern(pattern, escape)`, which returns an equivalent `LIKE` pattern whose escape character is
/// `\`.
pub(super) const LIKE_PATTERN: FunctionDefinition = FunctionDefinition {
    name: "like_pattern",
    coerce: |kinds| match kinds {
        [_, _] => Ok(vec![DataType::Utf8; 2]),
        _ => Err(wrong_arguments("like_pattern", "x LIKE pattern ESCAPE '!'")),
    },
    returns: |_, _| Ok(DataType::Utf8),
    call: |args| convert(args, like_pattern),
    ordering: unordered,
    keeps_name: true,
};

/// The function `similar_to_pattern(pattern, escape)`, which returns an equivalent regular expression that is anchored
/// at both ends.
pub(super) const SIMILAR_TO_PATTERN: FunctionDefinition =
    FunctionDefinition { name: "similar_to_pattern", call: |args| convert(args, similar_to_pattern), ..LIKE_PATTERN };

fn convert(args: &ScalarFunctionArgs, each: fn(&str, Option<char>) -> Result<String>) -> Result<ColumnarValue> {
    let patterns = args.args[0].clone().into_array(args.number_rows)?;
    let escapes = args.args[1].clone().into_array(args.number_rows)?;
    let pairs = patterns.as_string::<i32>().iter().zip(escapes.as_string::<i32>().iter());
    let converted = pairs.map(|(pattern, escape)| match (pattern, escape) {
        (Some(pattern), Some(escape)) => each(pattern, escape_char(escape)?).map(Some),
        _ => Ok(None),
    });
    Ok(ColumnarValue::Array(Arc::new(converted.collect::<Result<StringArray>>()?)))
}

/// Returns the escape character, or `None` if the text is empty. Without an escape character, nothing is escaped.
fn escape_char(text: &str) -> Result<Option<char>> {
    let mut chars = text.chars();
    match (chars.next(), chars.next()) {
        (first, None) => Ok(first),
        _ => Err(invalid(&format!("ESCAPE '{text}' must be one character"))),
    }
}

fn invalid(text: &str) -> DataFusionError {
    DataFusionError::Execution(text.to_owned())
}

fn like_pattern(pattern: &str, escape: Option<char>) -> Result<String> {
    let mut converted = String::with_capacity(pattern.len());
    let mut chars = pattern.chars();
    while let Some(char) = chars.next() {
        let is_escaped = Some(char) == escape;
        let char = if is_escaped {
            chars.next().ok_or_else(|| invalid("the pattern of LIKE must not end with its escape character"))?
        } else {
            char
        };
        if char == '\\' || is_escaped && matches!(char, '%' | '_') {
            converted.push('\\');
        }
        converted.push(char);
    }
    Ok(converted)
}

fn similar_to_pattern(pattern: &str, escape: Option<char>) -> Result<String> {
    let mut converted = String::with_capacity(pattern.len() + 8);
    converted.push_str("^(?s:");
    let mut chars = pattern.chars().peekable();
    let mut in_class = false;
    while let Some(char) = chars.next() {
        if Some(char) == escape {
            let next = chars.next();
            let next =
                next.ok_or_else(|| invalid("the pattern of SIMILAR TO must not end with its escape character"))?;
            push_literal(&mut converted, next);
            continue;
        }
        match char {
            // A character class inside brackets, such as `[:alpha:]`.
            '[' if in_class && chars.peek() == Some(&':') => {
                converted.push('[');
                for char in chars.by_ref() {
                    converted.push(char);
                    if char == ']' {
                        break;
                    }
                }
            }
            ']' if in_class => {
                in_class = false;
                converted.push(']');
            }
            '-' | '^' if in_class => converted.push(char),
            char if in_class => push_literal(&mut converted, char),
            '[' => {
                in_class = true;
                converted.push('[');
                converted.extend(chars.next_if_eq(&'^'));
                // A bracket at the beginning of a character class does not end the class.
                if chars.next_if_eq(&']').is_some() {
                    push_literal(&mut converted, ']');
                }
            }
            '%' => converted.push_str(".*"),
            '_' => converted.push('.'),
            '(' => converted.push_str("(?:"),
            ')' | '|' | '*' | '+' | '?' | '{' | '}' | ',' => converted.push(char),
            char => push_literal(&mut converted, char),
        }
    }
    converted.push_str(")$");
    Ok(converted)
}

/// Appends a character that matches only itself, and escapes it if necessary.
fn push_literal(pattern: &mut String, char: char) {
    if char.is_ascii_punctuation() {
        pattern.push('\\');
    }
    pattern.push(char);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_converted() {
        for (pattern, escape, like, similar) in [
            ("a%", Some('\\'), "a%", "^(?s:a.*)$"),
            ("50!%_", Some('!'), r"50\%_", r"^(?s:50\%.)$"),
            (r"a\b", Some('!'), r"a\\b", r"^(?s:a\\b)$"),
            (r"a\b", None, r"a\\b", r"^(?s:a\\b)$"),
            ("!!!a", Some('!'), "!a", r"^(?s:\!a)$"),
            ("(a|b)+.x", Some('\\'), "(a|b)+.x", r"^(?s:(?:a|b)+\.x)$"),
            ("a[]]c", Some('\\'), "a[]]c", r"^(?s:a[\]]c)$"),
            ("[^]b][x]", Some('\\'), "[^]b][x]", r"^(?s:[^\]b][x])$"),
            ("[^a-c&[:digit:]]{2}", Some('\\'), "[^a-c&[:digit:]]{2}", r"^(?s:[^a-c\&[:digit:]]{2})$"),
        ] {
            assert_eq!(like_pattern(pattern, escape).unwrap(), like, "{pattern}");
            assert_eq!(similar_to_pattern(pattern, escape).unwrap(), similar, "{pattern}");
        }
        assert!(like_pattern("a!", Some('!')).is_err());
        assert!(similar_to_pattern("a!", Some('!')).is_err());
        assert!(escape_char("ab").is_err());
    }
}
