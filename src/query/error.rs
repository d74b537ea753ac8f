//! Translates DataFusion errors into [`Error`]s, with the messages from `engine_error_text.rs`. The only other file that
//! interprets DataFusion errors is `planning/unknown_names.rs`, which handles unknown names.
//!
//! The kind of the translated error shows who caused the error: the caller or the server. If the caller's statement or
//! rows caused the error, the translated error keeps the full text and the position in the statement. A server error
//! gets a general message, because the original text may contain file names. The original error is kept as the source
//! of the translated error, and appears only in the log.

use arrow::error::ArrowError;
use datafusion::common::{Column, SchemaError};
use datafusion::error::DataFusionError;

use crate::config::QueryConfig;
use crate::error::{Error, did_you_mean};
use crate::sql::engine_error_text::{
    OFFSET_OVERFLOW, caused_by_statement, invalid_regex, located, root, sentence, too_long, unsupported,
};

/// The beginning of the parser's message for a placeholder that follows a complete expression.
const UNEXPECTED_PLACEHOLDER: &str = "Expected: end of statement, found: $";

/// Translates an error that the engine returned when it planned or ran a caller's statement.
pub(super) fn from_engine(error: DataFusionError, config: &QueryConfig) -> Error {
    located(translate(root(&error), config), error)
}

/// Translates an error that the engine returned when it planned a caller's statement. Planning reads no rows. If the
/// engine reports an internal error, the statement must therefore be the cause.
pub(super) fn from_planner(error: DataFusionError, config: &QueryConfig) -> Error {
    let translated = match root(&error) {
        DataFusionError::Internal(text) => caused_by_statement(text)
            .unwrap_or_else(|| Error::unsupported(format!("cannot plan the statement: {}", sentence(text)))),
        error => translate(error, config),
    };
    located(translated, error)
}

/// Translates an error from which all context has been removed.
fn translate(error: &DataFusionError, config: &QueryConfig) -> Error {
    match error {
        // This crate returned the error, for example because a limit was exceeded or a table could not be read.
        DataFusionError::External(inner) => match inner.downcast_ref::<Error>() {
            Some(error) => Error::new(error.kind(), error.message().to_owned()),
            None => match inner.downcast_ref::<DataFusionError>() {
                Some(error) => translate(root(error), config),
                None => from_other(&inner.to_string()),
            },
        },
        // The SQL parser does not support EXCLUDE in window frames.
        DataFusionError::SQL(error, _) if parse_text(error).contains("found: EXCLUDE") => Error::unsupported(
            "EXCLUDE in a window frame is not supported: subtract the excluded rows, as in sum(x) OVER (ORDER BY y) - x",
        ),
        // A `?` is a placeholder, and a statement that uses it as an operator of PostgreSQL for JSON cannot be parsed.
        DataFusionError::SQL(error, _) if parse_text(error).starts_with(UNEXPECTED_PLACEHOLDER) => {
            Error::invalid(format!(
                "cannot parse the statement: {}: `?` is a placeholder and not an operator; to test for a key in JSON, \
                 write json_typeof(json, key) IS NOT NULL",
                parse_text(error)
            ))
        }
        DataFusionError::SQL(error, _) => Error::invalid(format!("cannot parse the statement: {}", parse_text(error))),
        DataFusionError::SchemaError(error, _) => Error::invalid(schema_text(error)),
        DataFusionError::Plan(text) | DataFusionError::Execution(text) | DataFusionError::Configuration(text) => {
            Error::invalid(sentence(text))
        }
        DataFusionError::NotImplemented(text) => unsupported(text),
        DataFusionError::ResourcesExhausted(_) => out_of_memory(config),
        DataFusionError::ArrowError(error, _) => from_arrow(error, config),
        DataFusionError::ObjectStore(_) | DataFusionError::ParquetError(_) | DataFusionError::IoError(_) => {
            Error::unavailable("a table is temporarily unavailable: retry")
        }
        DataFusionError::Internal(text) => {
            caused_by_statement(text).unwrap_or_else(|| Error::internal("the query failed"))
        }
        DataFusionError::ExecutionJoin(error) if error.is_panic() => from_other(&error.to_string()),
        _ => Error::internal("the query failed"),
    }
}

/// Translates an error of unknown type, based on its text. A panic can be nested in several errors of other types.
fn from_other(text: &str) -> Error {
    if text.contains("panicked") && text.contains(OFFSET_OVERFLOW) {
        return too_long();
    }
    invalid_regex(text).unwrap_or_else(|| Error::internal("the query failed"))
}

/// Returns the error for a query that exceeds its memory limit.
fn out_of_memory(config: &QueryConfig) -> Error {
    Error::limited(format!(
        "the query needs more than {} bytes of memory (limit query.memory_bytes_max): query a shorter time range, fewer \
         groups or fewer columns",
        config.memory_bytes_max
    ))
}

/// Translates an Arrow error that the engine returned while it evaluated the caller's expressions.
fn from_arrow(error: &ArrowError, config: &QueryConfig) -> Error {
    match error {
        ArrowError::ExternalError(inner) => match inner.downcast_ref::<DataFusionError>() {
            Some(error) => translate(root(error), config),
            None => from_other(&inner.to_string()),
        },
        ArrowError::OffsetOverflowError(_) => too_long(),
        ArrowError::DictionaryKeyOverflowError => {
            Error::invalid("a dictionary has more values than its key type can represent: use a larger key type")
        }
        ArrowError::DivideByZero
        | ArrowError::CastError(_)
        | ArrowError::ParseError(_)
        | ArrowError::ComputeError(_)
        | ArrowError::ArithmeticOverflow(_)
        | ArrowError::InvalidArgumentError(_)
        | ArrowError::JsonError(_)
        | ArrowError::NotYetImplemented(_) => Error::invalid(sentence(&error.to_string())),
        _ => Error::internal("the query failed"),
    }
}

fn parse_text(error: &datafusion::sql::sqlparser::parser::ParserError) -> String {
    use datafusion::sql::sqlparser::parser::ParserError::{ParserError, RecursionLimitExceeded, TokenizerError};
    match error {
        ParserError(text) | TokenizerError(text) => text.clone(),
        RecursionLimitExceeded => "it is nested too deeply".to_owned(),
    }
}

fn schema_text(error: &SchemaError) -> String {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let known = valid_fields.iter().map(Column::name);
            format!("unknown column `{}`{}", field.flat_name(), did_you_mean(field.name(), known))
        }
        SchemaError::AmbiguousReference { field } => {
            format!("column `{}` is ambiguous: qualify it with the table name", field.flat_name())
        }
        // The engine's name for an aggregate omits casts in the arguments, so two aggregates that differ only in a cast
        // have the same name.
        SchemaError::DuplicateUnqualifiedField { name } if name.contains('(') => format!(
            "two expressions are called `{name}`, because they differ only in a cast: compute the cast in a subquery in \
             FROM, and use its column"
        ),
        SchemaError::DuplicateQualifiedField { name, .. } | SchemaError::DuplicateUnqualifiedField { name } => {
            format!("column name `{name}` appears more than once: rename one of the columns with AS")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    #[tokio::test]
    async fn a_nested_panic_keeps_its_kind() {
        for (text, expected) in [("offset overflow", Kind::Limited), ("a bug", Kind::Internal)] {
            let mut tasks = tokio::task::JoinSet::<()>::new();
            tasks.spawn(async move {
                std::panic::resume_unwind(Box::new(text.to_owned()));
            });
            let panic = tasks.join_next().await.unwrap().unwrap_err();
            let inner = DataFusionError::External(Box::new(panic));
            let nested = DataFusionError::External(Box::new(inner));
            let error = from_engine(nested.context("Join Error"), &QueryConfig::default());
            assert_eq!(error.kind(), expected);
        }
    }
}
