//! The engine's faults in our words, for whoever wrote the statement and whoever looks into the quarantine.
//!
//! In: a fault of planning or running. Out: an [`Error`]: what the statement or a message's values did is `Invalid`, a met
//! limit `Limited`, all else `Internal` with its text, since the only data in a transform are the message's own.

use arrow::error::ArrowError;
use datafusion::common::{Column, SchemaError};
use datafusion::error::DataFusionError;

use crate::error::{Error, did_you_mean};

/// Says what went wrong.
pub(super) fn of_engine(fault: DataFusionError) -> Error {
    let place = fault.diagnostic().and_then(|diagnostic| diagnostic.span);
    let error = match root(&fault) {
        DataFusionError::External(inner) => match inner.downcast_ref::<Error>() {
            Some(error) => Error::new(error.kind(), error.message().to_owned()),
            None => Error::internal(sentence(&inner.to_string())),
        },
        DataFusionError::SQL(error, _) => Error::invalid(format!("the statement cannot be read: {error}")),
        DataFusionError::SchemaError(error, _) => Error::invalid(schema_text(error)),
        DataFusionError::Plan(text) | DataFusionError::Execution(text) | DataFusionError::NotImplemented(text) => {
            Error::invalid(sentence(text))
        }
        DataFusionError::ResourcesExhausted(_) => out_of_memory(),
        DataFusionError::ArrowError(error, _) => of_arrow(error),
        other => Error::internal(sentence(&other.to_string())),
    };
    let error = match place {
        Some(span) if !error.message().contains("Line:") => {
            let message = format!("{} at line {}, column {}", error.message(), span.start.line, span.start.column);
            Error::new(error.kind(), message)
        }
        _ => error,
    };
    error.with_source(fault)
}

/// The memory of one run is used up.
pub(super) fn out_of_memory() -> Error {
    Error::limited("the transform needs more memory than ingest.transform_memory_bytes_max: join with less")
}

fn of_arrow(error: &ArrowError) -> Error {
    match error {
        ArrowError::ExternalError(inner) => match inner.downcast_ref::<DataFusionError>().map(root) {
            Some(DataFusionError::ResourcesExhausted(_)) => out_of_memory(),
            Some(DataFusionError::ArrowError(error, _)) => of_arrow(error),
            _ => Error::invalid(sentence(&inner.to_string())),
        },
        other => Error::invalid(sentence(&other.to_string())),
    }
}

/// The fault inside contexts, shared handles and collections.
fn root(fault: &DataFusionError) -> &DataFusionError {
    match fault {
        DataFusionError::Context(_, inner) | DataFusionError::Diagnostic(_, inner) => root(inner),
        DataFusionError::Shared(inner) => root(inner),
        DataFusionError::Collection(all) => all.first().map_or(fault, root),
        _ => fault,
    }
}

fn schema_text(error: &SchemaError) -> String {
    match error {
        SchemaError::FieldNotFound { field, valid_fields } => {
            let known = valid_fields.iter().map(Column::name);
            format!("unknown column `{}`{}", field.flat_name(), did_you_mean(field.name(), known))
        }
        SchemaError::AmbiguousReference { field } => {
            format!("column `{}` is ambiguous: write the table's name in front of it", field.flat_name())
        }
        SchemaError::DuplicateQualifiedField { name, .. } | SchemaError::DuplicateUnqualifiedField { name } => {
            format!("column `{name}` stands twice: give one of them another name with AS")
        }
    }
}

/// The engine's text as a sentence of ours: without a trace, a list of signatures and a full stop.
fn sentence(text: &str) -> String {
    let text = text.split("\n\nbacktrace").next().unwrap_or_default();
    let text = text.split(" No function matches the given name").next().unwrap_or_default();
    let text = text.rsplit("user-defined coercion failed with: Error during planning: ").next().unwrap_or_default();
    text.trim().trim_end_matches('.').to_owned()
}
