//! Rewrites the engine's error messages for users. The rewritten messages contain no parser trees, bug-report requests
//! or nested prefixes.
//!
//! The engine reports some mistakes in statements as internal errors, for example `nth_value(x, 0)`. Only the text of
//! the message distinguishes such errors from others, so this file searches the text.

use std::borrow::Cow;

use arrow::error::ArrowError;
use datafusion::error::DataFusionError;

use crate::error::{Error, Kind};
use crate::sql::functions::base64_text::NOT_A_NUMBER;
use crate::sql::type_display::sql_type_of_text;

/// The beginning of the bug-report request that the engine appends to internal errors.
const BUG_REPORT: &str = "This issue was likely caused by a bug";
/// The prefixes that the engine adds to nested error messages.
const NESTED_PREFIXES: [&str; 3] = ["Internal error: ", "Error during planning: ", "Execution error: "];
/// The beginning of the engine's message for an expression that has no physical plan.
const NO_PHYSICAL: &str = "Physical plan does not support logical expression ";

/// The beginnings of the engine's messages about operands of types that an operator does not accept. The types and the
/// operator follow.
const OPERAND_MISMATCHES: [&str; 7] = [
    "Cannot infer common argument type for comparison operation ",
    "Cannot infer common argument type for logical boolean operation ",
    "Cannot infer common argument type for regex operation ",
    "Cannot infer common argument type for operation ",
    "Cannot infer common type for bitwise operation ",
    "Cannot infer common string type for string concat operation ",
    "Cannot coerce arithmetic expression ",
];
/// The operators that consist of words.
const WORDS: [&str; 4] = ["IS NOT DISTINCT FROM", "IS DISTINCT FROM", "AND", "OR"];
/// The end of the engine's message for arguments that a function itself has checked. The function's message follows.
const USER_DEFINED: &str = "user-defined coercion failed with: ";
/// Texts in the engine's messages about the types of arguments. Other messages after [`USER_DEFINED`] come from the
/// function.
const NOT_OWN: [&str; 3] =
    ["Fail to find the coerced type", "Failed to coerce arguments to satisfy a call to ", " does not support type "];
/// The beginning of the engine's message for arguments of types that a function does not accept. The call follows.
const NO_MATCH: &str = "No function matches the given name and argument types '";
/// The beginning of the engine's message for two columns of the same name. The expression of the first one follows.
const NAMES_CLASH: &str = "Projections require unique expression names but the expression \"";
/// The description of an error that [`without_values`] cannot classify.
const EXPRESSION_FAILED: &str = "an expression cannot be computed from the values of a row";

/// The engine's names of operators that it can run only for lists, and the operators.
const CONTAINMENT: [(&str, &str); 2] = [("AtArrow", "@>"), ("ArrowAt", "<@")];

/// The message of the panic for a column whose values exceed 2 GiB.
pub(crate) const OFFSET_OVERFLOW: &str = "offset overflow";

/// The internal errors that a statement or its values can cause. Each entry consists of the beginning of the engine's
/// message, the error kind, and the message to return. If the message to return is empty, the engine's message is
/// returned.
const CAUSED_BY_STATEMENTS: [(&str, Kind, &str); 8] = [
    ("Assertion failed: n != 0: Nth value indices", Kind::Invalid, "nth_value counts from 1: 0 is not a position"),
    ("array_resize: failed to convert size", Kind::Invalid, "array_resize needs a size of 0 or more"),
    ("array_resize: output size overflow", Kind::Limited, "array_resize would create too many elements"),
    ("Min/Max accumulator not implemented for type", Kind::Unsupported, "min and max do not support this type"),
    ("GroupsAccumulator not supported for", Kind::Unsupported, ""),
    ("ScalarSubqueryExpr evaluated before", Kind::Unsupported, "a subquery is not supported here"),
    ("Offset seconds should be less", Kind::Invalid, "the time is out of range"),
    ("Failed to convert DateTime to timestamp", Kind::Invalid, "the time is out of range"),
];

/// Expressions that the engine can run only in certain clauses, although its planner accepts them everywhere. Each
/// entry consists of the name in the engine's message, and the message to return.
const MISPLACED: [(&str, &str); 8] = [
    (
        "AggregateFunction",
        "an aggregate function is not allowed here: compute it in a subquery in FROM, and use its column",
    ),
    ("WindowFunction", "a window function is not allowed here: compute it in a subquery in FROM, and use its column"),
    ("ScalarSubquery", "a subquery of this form is not supported here: join its table instead"),
    ("Exists", "EXISTS is not supported here: join the table of the subquery instead"),
    ("InSubquery", "IN with a subquery is not supported here: join the table of the subquery instead"),
    (
        "OuterReferenceColumn",
        "a subquery that refers to the outer query is not supported here: join the tables in the outer query",
    ),
    ("Wildcard", "`*` is not allowed here: name the columns"),
    ("GroupingSet", "GROUPING SETS, ROLLUP and CUBE are allowed only in GROUP BY"),
];

/// Returns the innermost error. Unwraps contexts, shared errors and collections of errors.
pub(crate) fn root(error: &DataFusionError) -> &DataFusionError {
    match error {
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => root(inner),
        DataFusionError::Shared(inner) => root(inner),
        DataFusionError::Collection(all) => all.first().map_or(error, root),
        _ => error,
    }
}

/// Sets the engine's error as the source of the translated error. If the engine reported a position in the statement,
/// adds the position to the message, unless the message already contains it.
pub(crate) fn located(error: Error, engine: DataFusionError) -> Error {
    let span = engine.diagnostic().and_then(|diagnostic| diagnostic.span);
    let error = match span {
        Some(span) if !error.message().contains("Line:") => {
            let message = format!("{} at line {}, column {}", error.message(), span.start.line, span.start.column);
            Error::new(error.kind(), message)
        }
        _ => error,
    };
    error.with_source(engine)
}

/// Formats an engine message in the style of this server's messages. Removes the backtrace, nested prefixes and the
/// full stop.
pub(crate) fn sentence(text: &str) -> String {
    let text = text.split("\n\nbacktrace").next().unwrap_or_default();
    if text.starts_with("Cannot generate date range where ") {
        return "a range of dates overflows with this step: use a shorter step".to_owned();
    }
    if text.starts_with("Inconsistent metadata across values list") {
        return "a column of VALUES contains UUIDs or JSON, and values of other types: cast all of them, as in CAST(x AS UUID)"
            .to_owned();
    }
    let text = text.split(BUG_REPORT).next().unwrap_or_default();
    let rewritten = mismatched_operands(text).or_else(|| mismatched_arguments(text)).or_else(|| duplicate_name(text));
    if let Some(rewritten) = rewritten {
        return rewritten;
    }
    // Keep only the message about the argument types, which is more helpful than the list of signatures before it.
    let text = match text.find("No function matches the given name") {
        Some(start) if text.starts_with("Internal error: ") => &text[start..],
        _ => text,
    };
    let text = NESTED_PREFIXES.iter().fold(Cow::Borrowed(text), |text, prefix| match text.contains(prefix) {
        true => text.replace(prefix, "").into(),
        false => text,
    });
    text.trim().trim_end_matches('.').to_owned()
}

/// Rewrites the engine's message about operands of types that an operator does not accept.
fn mismatched_operands(text: &str) -> Option<String> {
    let rest = OPERAND_MISMATCHES.iter().find_map(|start| text.split(start).nth(1))?;
    let rest = rest.trim_end_matches('.').trim_end_matches(" to valid types");
    // An operator is a word without letters, such as `<=`, or several words, such as `IS DISTINCT FROM`.
    let is_operator = |word: &&str| !word.chars().any(|c| c.is_alphanumeric() || "()[]{}\":,".contains(c));
    let operator =
        rest.split(' ').find(is_operator).or_else(|| WORDS.into_iter().find(|words| rest.contains(*words)))?;
    let (left, right) = rest.split_once(&format!(" {operator} "))?;
    let (left, right) = (sql_type_of_text(left), sql_type_of_text(right));
    Some(format!("the operator `{operator}` does not accept the types {left} and {right}: cast one of the operands"))
}

/// Rewrites the engine's message about arguments of types that a function does not accept.
fn mismatched_arguments(text: &str) -> Option<String> {
    let user_defined = text.split_once(USER_DEFINED).map(|(_, rest)| rest.split(NO_MATCH).next().unwrap_or(rest));
    if let Some(own) = user_defined.filter(|own| !NOT_OWN.iter().any(|text| own.contains(text))) {
        return Some(
            NESTED_PREFIXES
                .iter()
                .fold(own.to_owned(), |own, prefix| own.replace(prefix, ""))
                .trim_end_matches([' ', '.'])
                .to_owned(),
        );
    }
    let Some((_, call)) = text.split_once(NO_MATCH) else { return mismatched_signatures(text) };
    let (call, rest) = call.split_once("'. You might need")?;
    let (name, types) = call.split_once('(')?;
    let types: Vec<_> = arguments(types.strip_suffix(')')?).into_iter().map(sql_type_of_text).collect();
    let forms = rest.split("Candidate functions:").nth(1).unwrap_or_default().lines().map(str::trim);
    let forms: Vec<_> = forms.filter(|form| form.starts_with(name) && !form.contains("UserDefined")).collect();
    let fix = if forms.is_empty() { "cast the arguments".to_owned() } else { format!("use {}", forms.join(" or ")) };
    Some(format!("function `{name}` does not accept the arguments ({}): {fix}", types.join(", ")))
}

/// Rewrites the engine's list of the reasons why the arguments do not match the signatures of a function.
fn mismatched_signatures(text: &str) -> Option<String> {
    let (_, rest) = text.split_once("Function '")?;
    let (name, reasons) = rest.split_once("' failed to match any signature, errors: ")?;
    let reasons: Vec<_> = reasons.split(&format!("Function '{name}' ")).collect();
    let given = reasons.iter().find_map(|reason| reason.split_once(" (DataType: ")?.1.rsplit_once(')'));
    let given = given.map(|(given, _)| sql_type_of_text(given));
    let mut wanted: Vec<_> = reasons
        .iter()
        .filter_map(|reason| reason.strip_prefix("requires ")?.split_once(", but received "))
        .map(|(wanted, _)| wanted)
        .collect();
    wanted.dedup();
    let given = given.unwrap_or_else(|| "these arguments".to_owned());
    match wanted.is_empty() {
        true => Some(format!("function `{name}` does not accept this number of arguments")),
        false => Some(format!("function `{name}` does not accept {given}: cast the argument to {}", wanted.join(", "))),
    }
}

/// Rewrites the engine's message about two columns of the same name in a select list.
fn duplicate_name(text: &str) -> Option<String> {
    let (first, _) = text.split_once(NAMES_CLASH)?.1.split_once("\" at position")?;
    let name = first.rsplit(" AS ").next().unwrap_or(first);
    Some(format!("column `{name}` appears more than once in the SELECT: rename one of the columns with AS"))
}

/// Splits the list of types at the commas that are not inside parentheses.
fn arguments(types: &str) -> Vec<&str> {
    let (mut depth, mut start, mut parts) = (0_i32, 0, Vec::new());
    for (index, character) in types.char_indices() {
        match character {
            '(' => depth += 1,
            ')' => depth -= 1,
            ',' if depth == 0 => {
                parts.push(&types[start..index]);
                start = index + 1;
            }
            _ => {}
        }
    }
    parts.push(&types[start..]);
    parts.retain(|part| !part.trim().is_empty());
    parts
}

/// Describes an error that the engine returned while it evaluated expressions, without the values of the rows. The
/// engine's own text often contains a value.
pub(crate) fn without_values(error: &DataFusionError) -> String {
    let text = match root(error) {
        DataFusionError::Execution(text) if text.ends_with(NOT_A_NUMBER) => return format!("a string {NOT_A_NUMBER}"),
        DataFusionError::ArrowError(error, _) => match &**error {
            ArrowError::ExternalError(inner) => match inner.downcast_ref() {
                Some(error) => return without_values(error),
                None => EXPRESSION_FAILED,
            },
            ArrowError::CastError(_) | ArrowError::ParseError(_) => {
                "a value cannot be converted to another type: use TRY_CAST, which returns NULL instead"
            }
            ArrowError::DivideByZero => "division by zero: use nullif(x, 0) as the divisor",
            ArrowError::ArithmeticOverflow(_) => "arithmetic overflow: cast an operand to a type with more digits",
            _ => EXPRESSION_FAILED,
        },
        _ => EXPRESSION_FAILED,
    };
    text.to_owned()
}

/// Returns the error for an expression or clause that the engine does not support.
pub(crate) fn unsupported(text: &str) -> Error {
    let operator =
        CONTAINMENT.iter().find(|(name, _)| text.contains(&format!("Binary operator '{name}' is not supported")));
    if let Some((_, operator)) = operator {
        return Error::unsupported(format!(
            "the operator `{operator}` is supported only for lists: read JSON with `->>` or json_text_array(json, key…)"
        ));
    }
    if let Some(operator) = text.strip_prefix("Operator ").and_then(|rest| rest.split_once(" is not yet supported")) {
        return Error::unsupported(format!(
            "the operator `{}` is not supported: read JSON with the operators `->`, `->>`, `#>` and `#>>`",
            operator.0
        ));
    }
    let misplaced = text.strip_prefix(NO_PHYSICAL).and_then(|expr| {
        MISPLACED.iter().find(|(name, _)| expr.strip_prefix(name).is_some_and(|rest| rest.starts_with(['(', ' '])))
    });
    match misplaced {
        Some((_, text)) => Error::unsupported(*text),
        None => Error::unsupported(sentence(text)),
    }
}

/// Returns the error to report for an internal error that the statement or its values caused. Returns `None` for any
/// other internal error.
pub(crate) fn caused_by_statement(text: &str) -> Option<Error> {
    let (_, kind, own) = CAUSED_BY_STATEMENTS.iter().find(|(start, _, _)| text.starts_with(start))?;
    Some(match *own {
        "" => Error::new(*kind, sentence(text)),
        own => Error::new(*kind, own),
    })
}

/// Returns the error to report for an invalid regular expression. Returns `None` if `text` reports any other error.
pub(crate) fn invalid_regex(text: &str) -> Option<Error> {
    if text.starts_with("regex parse error") {
        let reason = text.rsplit("error: ").next().unwrap_or_default().trim();
        return Some(Error::invalid(format!("invalid regular expression: {reason}")));
    }
    let is_too_large = text.starts_with("Compiled regex exceeds size limit");
    is_too_large.then(|| Error::limited("the regular expression is too large: use a shorter one, or fewer repetitions"))
}

/// Returns the error for a panic in the engine. Arrow panics if the values of a column exceed 2 GiB.
pub(crate) fn panicked(panic: impl std::error::Error + Send + Sync + 'static) -> Error {
    let error = match panic.to_string().contains(OFFSET_OVERFLOW) {
        true => too_long(),
        false => Error::internal("the query panicked"),
    };
    error.with_source(panic)
}

/// Returns the error for a text, binary or list column that is too large for one batch.
pub(crate) fn too_long() -> Error {
    Error::limited("the values of a column exceed 2 GiB: select or aggregate fewer rows, or shorter values")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engine_texts_become_sentences() {
        let cases = [
            (
                "Expected a Map type, got Int64.\nThis issue was likely caused by a bug in X",
                "Expected a Map type, got Int64",
            ),
            (
                "Internal error: Function 'f' failed to match any signature, errors: Error during planning: a,b. No function \
                 matches the given name and argument types 'f(Int64)'. You might need to add explicit type casts.",
                "function `f` does not accept the arguments (BIGINT): cast the arguments",
            ),
            ("Function failed with: Internal error: odd value.", "Function failed with: odd value"),
            (
                "Cannot infer common argument type for comparison operation Time64(µs) > Int64",
                "the operator `>` does not accept the types TIME and BIGINT: cast one of the operands",
            ),
            (
                "Cannot infer common argument type for comparison operation Timestamp(µs, \"UTC\") IS DISTINCT FROM Int64",
                "the operator `IS DISTINCT FROM` does not accept the types TIMESTAMP WITH TIME ZONE and BIGINT: cast one of \
                 the operands",
            ),
            (
                "Error during planning: Cannot coerce arithmetic expression Utf8 + List(Int64) to valid types",
                "the operator `+` does not accept the types VARCHAR and BIGINT ARRAY: cast one of the operands",
            ),
            (
                "Failed to coerce arguments to satisfy a call to 'array_has' function: coercion from List(Decimal128(10, 2), \
                 field: 'element'), Utf8 to the signature ArraySignature(array, element) failed. No function matches the \
                 given name and argument types 'array_has(List(Decimal128(10, 2), field: 'element'), Utf8)'. You might need \
                 to add explicit type casts.\n\tCandidate functions:\n\tarray_has(array, element)",
                "function `array_has` does not accept the arguments (DECIMAL ARRAY, VARCHAR): use array_has(array, element)",
            ),
            (
                "Function 'round' failed to match any signature, errors: Function 'round' requires Decimal, but received \
                 String (DataType: Utf8).,Function 'round' expects 1 arguments but received 2,Function 'round' requires \
                 Float64, but received String (DataType: Utf8).",
                "function `round` does not accept VARCHAR: cast the argument to Decimal, Float64",
            ),
            (
                "Function 'json_int' user-defined coercion failed with: Error during planning: json_int takes a JSON string, \
                 got Int64. No function matches the given name and argument types 'json_int(Int64)'. You might need to",
                "json_int takes a JSON string, got Int64",
            ),
            (
                "Projections require unique expression names but the expression \"messages.a AS x\" at position 0 and \
                 \"messages.b AS x\" at position 1 have the same name. Consider aliasing (\"AS\") one of them.",
                "column `x` appears more than once in the SELECT: rename one of the columns with AS",
            ),
            ("plain text", "plain text"),
        ];
        for (text, expected) in cases {
            assert_eq!(sentence(text), expected);
        }
    }

    #[test]
    fn mistakes_are_not_internal_errors() {
        let kind = |text: &str| caused_by_statement(text).map(|error| error.kind());
        assert_eq!(kind("array_resize: failed to convert size to usize"), Some(Kind::Invalid));
        assert_eq!(kind("GroupsAccumulator not supported for max(Map)"), Some(Kind::Unsupported));
        assert_eq!(kind("something else"), None);
        let regex = invalid_regex("regex parse error:\n    (\n    ^\nerror: unclosed group").unwrap();
        assert_eq!(regex.message(), "invalid regular expression: unclosed group");
        let panic = |text: &str| panicked(std::io::Error::other(text.to_owned())).kind();
        assert_eq!((panic("byte array offset overflow"), panic("a bug")), (Kind::Limited, Kind::Internal));
        let misplaced =
            unsupported("Physical plan does not support logical expression WindowFunction(WindowFunction {})");
        assert!(misplaced.message().starts_with("a window function is not allowed here"), "{misplaced}");
    }
}
