//! Translates engine errors in a transform into error messages for the author of the statement and for readers of the
//! quarantine.
//!
//! An error in the statement or in a message's values becomes `Invalid`, an exceeded limit becomes `Limited`, and every
//! other error becomes `Internal`. The engine's error text can contain values of the transformed message and of lookup
//! tables. A reader of the quarantine may see the message, but not every row of the lookup tables.
//!
//! **Invariant:** an error of a run that reads lookup tables contains no value.

use arrow::error::ArrowError;
use datafusion::common::{Column, SchemaError};
use datafusion::error::DataFusionError;

use crate::error::{Error, Kind, did_you_mean};
use crate::sql::engine_error_text::{self, located, root, without_values};

/// Translates an engine error. If the engine reports where in the statement the error is, the message contains this
/// position.
pub(super) fn of_engine(engine_error: DataFusionError) -> Error {
    let error = match root(&engine_error) {
        DataFusionError::External(inner) => match inner.downcast_ref::<Error>() {
            Some(error) => Error::new(error.kind(), error.message().to_owned()),
            None => Error::internal(sentence(&inner.to_string())),
        },
        DataFusionError::SQL(error, _) => Error::invalid(format!("the statement cannot be parsed: {error}")),
        DataFusionError::SchemaError(error, _) => Error::invalid(schema_text(error)),
        DataFusionError::Plan(text) | DataFusionError::Execution(text) | DataFusionError::NotImplemented(text) => {
            Error::invalid(sentence(text))
        }
        DataFusionError::ResourcesExhausted(_) => out_of_memory(),
        DataFusionError::ArrowError(error, _) => of_arrow(error),
        other => Error::internal(sentence(&other.to_string())),
    };
    located(error, engine_error)
}

/// Translates an error of a run that reads lookup tables. The engine may evaluate an expression on rows of a lookup table
/// that belong to other tenants than the message.
pub(super) fn of_run_with_lookups(engine_error: DataFusionError) -> Error {
    let text = without_values(&engine_error);
    match of_engine(engine_error) {
        error if error.kind() == Kind::Limited => Error::limited(error.message().to_owned()),
        error => Error::new(
            error.kind(),
            format!("{text} (the value is not shown, because it may come from a lookup table)"),
        ),
    }
}

/// Returns the error for a run that exceeds its memory limit.
pub(super) fn out_of_memory() -> Error {
    Error::limited("the transform needs more memory than ingest.transform_memory_bytes_max; join fewer rows")
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

fn schema_text(error: &SchemaError) -> String {
    match error {
        SchemaError::FieldNotFound { field, valid_fields }
            if field.name() == "position" && valid_fields.iter().any(|field| field.name() == "change_order") =>
        {
            "unknown column `position`; order changes by `change_order`, and identify them by `change_id`".to_owned()
        }
        SchemaError::FieldNotFound { field, valid_fields } => {
            let known = valid_fields.iter().map(Column::name);
            format!("unknown column `{}`{}", field.flat_name(), did_you_mean(field.name(), known))
        }
        SchemaError::AmbiguousReference { field } => {
            format!("column `{}` is ambiguous; qualify it with the table's name", field.flat_name())
        }
        SchemaError::DuplicateQualifiedField { name, .. } | SchemaError::DuplicateUnqualifiedField { name } => {
            format!("column `{name}` appears more than once; rename one of the columns with AS")
        }
    }
}

/// Formats an engine message in the style of this server's messages. Keeps only the last part of a message about the types
/// of arguments.
fn sentence(text: &str) -> String {
    let text = engine_error_text::sentence(text);
    text.rsplit("user-defined coercion failed with: ").next().unwrap_or_default().to_owned()
}
