//! Translates engine errors in a transform into error messages for the author of the statement and for readers of the
//! quarantine.
//!
//! An error in the statement or in a message's values becomes `Invalid`, an exceeded limit becomes `Limited`, and every
//! other error becomes `Internal`. An error message may include the engine's error text, because this text can reveal
//! no data other than the transformed message and the lookup tables.

use arrow::error::ArrowError;
use datafusion::common::{Column, SchemaError};
use datafusion::error::DataFusionError;

use crate::error::{Error, did_you_mean};
use crate::sql::engine_error_text::{located, root};

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

/// Returns the engine's error text without the backtrace, the list of function signatures and the final full stop.
fn sentence(text: &str) -> String {
    let text = text.split("\n\nbacktrace").next().unwrap_or_default();
    let text = text.split(" No function matches the given name").next().unwrap_or_default();
    let text = text.rsplit("user-defined coercion failed with: Error during planning: ").next().unwrap_or_default();
    text.trim().trim_end_matches('.').to_owned()
}
