//! Rewrites the engine's error messages for users. The rewritten messages contain no parser trees, bug-report requests
//! or nested prefixes.
//!
//! The engine reports some mistakes in statements as internal errors, for example `nth_value(x, 0)`. Only the text of
//! the message distinguishes such errors from others, so this file searches the text.

use std::borrow::Cow;

use datafusion::error::DataFusionError;

use crate::error::{Error, Kind};

/// The beginning of the bug-report request that the engine appends to internal errors.
const BUG_REPORT: &str = "This issue was likely caused by a bug";
/// The prefixes that the engine adds to nested error messages.
const NESTED_PREFIXES: [&str; 3] = ["Internal error: ", "Error during planning: ", "Execution error: "];
/// The beginning of the engine's message for an expression that has no physical plan.
const NO_PHYSICAL: &str = "Physical plan does not support logical expression ";

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
    let text = own_message(text).unwrap_or(text);
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

/// Returns the message of the function itself if a function refuses its arguments, and its message names the function.
fn own_message(text: &str) -> Option<&str> {
    let (before, message) = text.split_once("' user-defined coercion failed with: ")?;
    let (_, name) = before.rsplit_once("Function '")?;
    let message = message.split(" No function matches the given name").next()?;
    message.contains(name).then_some(message)
}

/// Returns the error for an expression or clause that the engine does not support.
pub(crate) fn unsupported(text: &str) -> Error {
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
                 matches the given name and argument types 'f(Int64)'.",
                "No function matches the given name and argument types 'f(Int64)'",
            ),
            ("Function failed with: Internal error: odd value.", "Function failed with: odd value"),
            (
                "Function 'f' user-defined coercion failed with: Error during planning: f takes a list. No function matches the \
                 given name and argument types 'f(Int64)'.",
                "f takes a list",
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
