//! The casts to the types `uuid` and `json`. Their values are text in a checked form.
//!
//! | in the statement | function | a text that is not valid |
//! |---|---|---|
//! | `CAST(x AS UUID)`, `UUID 'x'` | `to_uuid(x)` | fails |
//! | `TRY_CAST(x AS UUID)` | `try_to_uuid(x)` | becomes NULL |
//! | `CAST(x AS JSON)`, `JSON 'x'` | `to_json(x)` | fails |
//! | `TRY_CAST(x AS JSON)` | `try_to_json(x)` | becomes NULL |
//!
//! A UUID is converted to its canonical form. JSON is kept as it is. The metadata of the result's field names the type.

use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, AsArray as _, StringBuilder};
use arrow::datatypes::{DataType, FieldRef};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

use crate::contract::{ColumnKind, is_json};
use crate::sql::functions::definition::wrong_arguments;

/// An error message shows at most this number of characters of a text.
const SHOWN_MAX: usize = 64;

/// Returns all functions of this file.
pub(crate) fn functions() -> Vec<Arc<ScalarUDF>> {
    let kinds =
        [(ColumnKind::Uuid, false), (ColumnKind::Uuid, true), (ColumnKind::Json, false), (ColumnKind::Json, true)];
    kinds.into_iter().map(|(kind, is_try)| TextCast::function(kind, is_try)).collect()
}

/// Returns the function that converts a text to a UUID, or fails.
pub(crate) fn to_uuid() -> Arc<ScalarUDF> {
    TextCast::function(ColumnKind::Uuid, false)
}

/// Returns the UUID in its canonical form: in lower case and with hyphens.
pub(crate) fn canonical_uuid(text: &str) -> Result<String> {
    match uuid::Uuid::try_parse(text) {
        Ok(uuid) => Ok(uuid.hyphenated().to_string()),
        Err(_) => {
            let shown: String = text.chars().take(SHOWN_MAX).collect();
            Err(DataFusionError::Execution(format!("\'{shown}\' is not a valid UUID")))
        }
    }
}

/// A cast of text to a type whose values are text in a checked form.
#[derive(Debug, PartialEq, Eq, Hash)]
struct TextCast {
    kind: ColumnKind,
    /// True if a text that is not valid becomes NULL.
    is_try: bool,
    signature: Signature,
}

impl TextCast {
    fn function(kind: ColumnKind, is_try: bool) -> Arc<ScalarUDF> {
        let signature = Signature::user_defined(Volatility::Immutable);
        Arc::new(ScalarUDF::new_from_impl(Self { kind, is_try, signature }))
    }

    fn cast(&self, text: &str, into: &mut StringBuilder) -> Result<()> {
        let valid = match self.kind {
            ColumnKind::Uuid => canonical_uuid(text).map(Some),
            _ if is_json(text) => Ok(None),
            _ => {
                let shown: String = text.chars().take(SHOWN_MAX).collect();
                Err(DataFusionError::Execution(format!("\'{shown}\' is not valid JSON")))
            }
        };
        match valid {
            Ok(Some(changed)) => into.append_value(changed),
            Ok(None) => into.append_value(text),
            Err(_) if self.is_try => into.append_null(),
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

impl ScalarUDFImpl for TextCast {
    fn name(&self) -> &str {
        match (self.kind, self.is_try) {
            (ColumnKind::Uuid, false) => "to_uuid",
            (ColumnKind::Uuid, true) => "try_to_uuid",
            (_, false) => "to_json",
            (_, true) => "try_to_json",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, kinds: &[DataType]) -> Result<Vec<DataType>> {
        match kinds {
            [kind] if kind.is_string() || *kind == DataType::Null => Ok(vec![DataType::Utf8]),
            _ => Err(DataFusionError::Plan(format!("only text can be cast to {}", self.kind))),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(DataType::Utf8)
    }

    fn return_field_from_args(&self, _: ReturnFieldArgs) -> Result<FieldRef> {
        Ok(Arc::new(self.kind.field(self.name())))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [value] = args.args.as_slice() else { return Err(wrong_arguments(self.name(), "one text")) };
        let array = value.to_array(1)?;
        let texts = array.as_string::<i32>();
        let mut cast = StringBuilder::with_capacity(texts.len(), texts.value_data().len());
        for row in 0..texts.len() {
            if texts.is_null(row) {
                cast.append_null();
            } else {
                self.cast(texts.value(row), &mut cast)?;
            }
        }
        let cast: ArrayRef = Arc::new(cast.finish());
        Ok(match value {
            ColumnarValue::Scalar(_) => ColumnarValue::Scalar(ScalarValue::try_from_array(&cast, 0)?),
            ColumnarValue::Array(_) => ColumnarValue::Array(cast),
        })
    }
}
