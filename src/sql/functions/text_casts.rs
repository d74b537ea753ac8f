//! The casts to the types `uuid` and `json`. Their values are text in a checked form.
//!
//! | in the statement | function | a text that is not valid |
//! |---|---|---|
//! | `CAST(x AS UUID)`, `UUID 'x'` | `to_uuid(x)` | fails |
//! | `TRY_CAST(x AS UUID)` | `try_to_uuid(x)` | becomes NULL |
//! | `CAST(x AS JSON)`, `JSON 'x'` | `to_json(x)` | fails |
//! | `TRY_CAST(x AS JSON)` | `try_to_json(x)` | becomes NULL |
//! | `CAST(x AS UUID[])`, `TRY_CAST(x AS UUID[])` | `to_uuids(x)`, `try_to_uuids(x)` | the same, for each element of a list |
//!
//! A UUID is converted to its canonical form. JSON is kept as it is. The metadata of the result's field names the type.

use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, AsArray as _, ListArray, StringArray, StringBuilder};
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
/// The kind of lists of UUIDs.
const UUIDS: ColumnKind = ColumnKind::List(&ColumnKind::Uuid);

/// Returns all functions of this file.
pub(crate) fn functions() -> Vec<Arc<ScalarUDF>> {
    let kinds = [ColumnKind::Uuid, UUIDS, ColumnKind::Json].into_iter().flat_map(|kind| [(kind, false), (kind, true)]);
    kinds.map(|(kind, is_try)| TextCast::function(kind, is_try)).collect()
}

/// Returns the function that converts a text to a UUID, or fails.
pub(crate) fn to_uuid() -> Arc<ScalarUDF> {
    TextCast::function(ColumnKind::Uuid, false)
}

/// Returns the function that converts a list of texts to a list of UUIDs, or fails.
pub(crate) fn to_uuids() -> Arc<ScalarUDF> {
    TextCast::function(UUIDS, false)
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

    fn cast_all(&self, texts: &StringArray) -> Result<StringArray> {
        let mut cast = StringBuilder::with_capacity(texts.len(), texts.value_data().len());
        for row in 0..texts.len() {
            if texts.is_null(row) {
                cast.append_null();
            } else {
                self.cast(texts.value(row), &mut cast)?;
            }
        }
        Ok(cast.finish())
    }

    fn cast(&self, text: &str, into: &mut StringBuilder) -> Result<()> {
        let valid = match self.kind {
            ColumnKind::Uuid | UUIDS => canonical_uuid(text).map(Some),
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
            (UUIDS, false) => "to_uuids",
            (UUIDS, true) => "try_to_uuids",
            (_, false) => "to_json",
            (_, true) => "try_to_json",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn coerce_types(&self, kinds: &[DataType]) -> Result<Vec<DataType>> {
        match kinds {
            [kind] if self.kind == UUIDS => match kind {
                DataType::Null => Ok(vec![UUIDS.data_type()]),
                DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _)
                    if item.data_type().is_string() || item.data_type().is_null() =>
                {
                    Ok(vec![UUIDS.data_type()])
                }
                _ => Err(DataFusionError::Plan(
                    "only a list of texts can be cast to uuid[]: write ARRAY['…', '…']::uuid[]".to_owned(),
                )),
            },
            [kind] if kind.is_string() || *kind == DataType::Null => Ok(vec![DataType::Utf8]),
            _ => Err(DataFusionError::Plan(format!("only text can be cast to {}", self.kind))),
        }
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(self.kind.data_type())
    }

    fn return_field_from_args(&self, _: ReturnFieldArgs) -> Result<FieldRef> {
        Ok(Arc::new(self.kind.field(self.name())))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let [value] = args.args.as_slice() else { return Err(wrong_arguments(self.name(), "one text")) };
        let array = value.to_array(1)?;
        let cast: ArrayRef = match array.as_list_opt::<i32>() {
            Some(lists) => {
                let DataType::List(item) = UUIDS.data_type() else { return Ok(value.clone()) };
                let elements = Arc::new(self.cast_all(lists.values().as_string())?);
                Arc::new(ListArray::try_new(item, lists.offsets().clone(), elements, lists.nulls().cloned())?)
            }
            None => Arc::new(self.cast_all(array.as_string())?),
        };
        Ok(match value {
            ColumnarValue::Scalar(_) => ColumnarValue::Scalar(ScalarValue::try_from_array(&cast, 0)?),
            ColumnarValue::Array(_) => ColumnarValue::Array(cast),
        })
    }
}
