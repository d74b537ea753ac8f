//! Translates the errors of the query engine into ours. No other file reads engine errors.
//!
//! In: an error of planning or running. Out: an [`Error`] whose kind says who caused it. Errors in the caller's
//! statement, or in evaluating it on the caller's own rows, are reported in full, with their position in the statement.
//! Errors of the server are reported as a kind and a general message; their text may name files, so only the log gets
//! it, as the source.

use std::borrow::Cow;

use arrow::error::ArrowError;
use datafusion::common::SchemaError;
use datafusion::common::{Column, Span};
use datafusion::error::DataFusionError;

use crate::config::QueryConfig;
use crate::error::{Error, did_you_mean};

/// Translates the error of a caller's statement.
pub(super) fn of_engine(fault: DataFusionError, config: &QueryConfig) -> Error {
    let place = fault.diagnostic().and_then(|diagnostic| diagnostic.span);
    let error = match root(&fault) {
        // Already an error of ours: a named limit, or an error from below the barrier.
        DataFusionError::External(inner) => match inner.downcast_ref::<Error>() {
            Some(error) => Error::new(error.kind(), error.message().to_owned()),
            None => Error::internal("the query failed"),
        },
        DataFusionError::SQL(error, _) => Error::invalid(format!("cannot parse the statement: {}", parse_text(error))),
        DataFusionError::SchemaError(error, _) => Error::invalid(schema_text(error)),
        DataFusionError::Plan(text) | DataFusionError::Execution(text) | DataFusionError::Configuration(text) => {
            Error::invalid(sentence(text))
        }
        DataFusionError::NotImplemented(text) => Error::unsupported(sentence(text)),
        DataFusionError::ResourcesExhausted(_) => out_of_memory(config),
        DataFusionError::ArrowError(error, _) => of_arrow(error, config),
        DataFusionError::ObjectStore(_) | DataFusionError::ParquetError(_) | DataFusionError::IoError(_) => {
            Error::unavailable("a table cannot be read now: retry")
        }
        _ => Error::internal("the query failed"),
    };
    placed(error, place).with_source(fault)
}

/// The query has used up its memory.
fn out_of_memory(config: &QueryConfig) -> Error {
    Error::limited(format!(
        "the query needs more than {} bytes of memory (limit query.memory_bytes_max): query a shorter time range, fewer \
         groups or fewer columns",
        config.memory_bytes_max
    ))
}

/// An error in evaluating the caller's expressions on the caller's values.
fn of_arrow(error: &ArrowError, config: &QueryConfig) -> Error {
    match error {
        ArrowError::ExternalError(inner) => match inner.downcast_ref::<DataFusionError>().map(root) {
            Some(DataFusionError::ArrowError(error, _)) => of_arrow(error, config),
            Some(DataFusionError::ResourcesExhausted(_)) => out_of_memory(config),
            Some(DataFusionError::Plan(text) | DataFusionError::Execution(text)) => Error::invalid(sentence(text)),
            _ => Error::internal("the query failed"),
        },
        ArrowError::DivideByZero
        | ArrowError::CastError(_)
        | ArrowError::ParseError(_)
        | ArrowError::ComputeError(_)
        | ArrowError::ArithmeticOverflow(_)
        | ArrowError::InvalidArgumentError(_)
        | ArrowError::JsonError(_)
        | ArrowError::NotYetImplemented(_)
        | ArrowError::OffsetOverflowError(_) => Error::invalid(sentence(&error.to_string())),
        _ => Error::internal("the query failed"),
    }
}

/// The innermost error, without contexts, shared handles and collections.
pub(super) fn root(fault: &DataFusionError) -> &DataFusionError {
    match fault {
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => root(inner),
        DataFusionError::Shared(inner) => root(inner),
        DataFusionError::Collection(all) => all.first().map_or(fault, root),
        _ => fault,
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
        SchemaError::DuplicateQualifiedField { name, .. } | SchemaError::DuplicateUnqualifiedField { name } => {
            format!("column name `{name}` appears more than once: rename one of the columns with AS")
        }
    }
}

/// The engine's message as one of ours: one line, without a full stop.
fn sentence(text: &str) -> String {
    text.split("\n\nbacktrace").next().unwrap_or_default().trim().trim_end_matches('.').to_owned()
}

/// Adds the position in the statement if the engine knows it and the message does not have it yet.
fn placed(error: Error, place: Option<Span>) -> Error {
    match place {
        Some(span) if !error.message().contains("Line:") => {
            let message: Cow<'static, str> =
                format!("{} at line {}, column {}", error.message(), span.start.line, span.start.column).into();
            Error::new(error.kind(), message)
        }
        _ => error,
    }
}
