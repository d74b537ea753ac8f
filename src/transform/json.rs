//! JSON inside SQL: functions that take a JSON text and a path, and the operators `->` and `->>`.
//!
//! | function | also called | gives |
//! |---|---|---|
//! | `json_text(json, key…)` | `json_as_text`, `json_get_str`, `->>` | a text without quotes, any other value as its JSON text |
//! | `json_raw(json, key…)` | `json_get`, `json_get_json`, `->` | the value as JSON |
//! | `json_int(json, key…)` | `json_get_int` | an integer |
//! | `json_float(json, key…)` | `json_get_float` | a number |
//! | `json_bool(json, key…)` | `json_get_bool` | a boolean |
//! | `json_array(json, key…)` | `json_get_array` | the elements as a list of JSON, for `unnest` |
//!
//! A key is a text, an index an integer. **Invariant:** the functions never fail: a missing value, a JSON null, a value of another
//! type and a text that is not valid JSON all give NULL.

use std::sync::Arc;

use arrow::array::{
    Array as _, ArrayRef, AsArray as _, BooleanBuilder, Float64Builder, Int64Array, Int64Builder, ListBuilder,
    StringArray, StringBuilder,
};
use arrow::datatypes::{DataType, Field, Int64Type};
use datafusion::common::{DFSchema, ScalarValue, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::sql::sqlparser::ast::BinaryOperator;

use super::json_path::{Step, elements, find, float, int, text, truth};

/// The result type of a function.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Get {
    Text,
    Raw,
    Int,
    Float,
    Bool,
    Array,
}

const ALL: [Get; 6] = [Get::Text, Get::Raw, Get::Int, Get::Float, Get::Bool, Get::Array];

/// All functions.
pub(super) fn functions() -> Vec<Arc<ScalarUDF>> {
    ALL.into_iter().map(function).collect()
}

fn function(get: Get) -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::new_from_impl(JsonGet::new(get)))
}

/// One function.
#[derive(Debug, PartialEq, Eq, Hash)]
struct JsonGet {
    get: Get,
    signature: Signature,
    aliases: Vec<String>,
}

impl JsonGet {
    fn new(get: Get) -> Self {
        let aliases: &[&str] = match get {
            Get::Text => &["json_as_text", "json_get_str"],
            Get::Raw => &["json_get", "json_get_json"],
            Get::Int => &["json_get_int"],
            Get::Float => &["json_get_float"],
            Get::Bool => &["json_get_bool"],
            Get::Array => &["json_get_array"],
        };
        let aliases = aliases.iter().map(|alias| (*alias).to_owned()).collect();
        Self { get, signature: Signature::user_defined(Volatility::Immutable), aliases }
    }
}

impl ScalarUDFImpl for JsonGet {
    fn name(&self) -> &str {
        match self.get {
            Get::Text => "json_text",
            Get::Raw => "json_raw",
            Get::Int => "json_int",
            Get::Float => "json_float",
            Get::Bool => "json_bool",
            Get::Array => "json_array",
        }
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match self.get {
            Get::Text | Get::Raw => DataType::Utf8,
            Get::Int => DataType::Int64,
            Get::Float => DataType::Float64,
            Get::Bool => DataType::Boolean,
            Get::Array => DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true))),
        })
    }

    fn coerce_types(&self, kinds: &[DataType]) -> Result<Vec<DataType>> {
        let name = self.name();
        let mut coerced = Vec::with_capacity(kinds.len());
        for (place, kind) in kinds.iter().enumerate() {
            coerced.push(match kind {
                DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => DataType::Utf8,
                kind if place > 0 && kind.is_integer() => DataType::Int64,
                kind if place == 0 => return plan_err!("{name} takes a JSON text as its first argument, got {kind}"),
                kind => return plan_err!("a path step of {name} must be a text or an integer, got {kind}"),
            });
        }
        if coerced.is_empty() {
            return plan_err!("{name} takes a JSON text and the path of keys to the value");
        }
        Ok(coerced)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let Some((json, path)) = args.args.split_first() else {
            return plan_err!("{} takes a JSON text", self.name());
        };
        let json = json.to_array(rows)?;
        let steps = path.iter().map(Steps::new).collect::<Result<Vec<_>>>()?;
        Ok(ColumnarValue::Array(self.get.array(json.as_string(), &steps)))
    }
}

/// One argument of a path.
enum Steps {
    Same(ScalarValue),
    Keys(StringArray),
    Indexes(Int64Array),
}

impl Steps {
    fn new(value: &ColumnarValue) -> Result<Self> {
        Ok(match value {
            ColumnarValue::Scalar(scalar) => Self::Same(scalar.clone()),
            ColumnarValue::Array(array) => match array.data_type() {
                DataType::Utf8 => Self::Keys(array.as_string::<i32>().clone()),
                DataType::Int64 => Self::Indexes(array.as_primitive::<Int64Type>().clone()),
                kind => return plan_err!("a JSON path step must be a text or an integer, got {kind}"),
            },
        })
    }

    fn at(&self, row: usize) -> Option<Step<'_>> {
        match self {
            Self::Same(ScalarValue::Utf8(Some(key))) => Some(Step::Key(key)),
            Self::Same(ScalarValue::Int64(Some(index))) => Some(Step::Index(*index)),
            Self::Same(_) => None,
            Self::Keys(keys) => keys.is_valid(row).then(|| Step::Key(keys.value(row))),
            Self::Indexes(indexes) => indexes.is_valid(row).then(|| Step::Index(indexes.value(row))),
        }
    }
}

impl Get {
    fn array(self, json: &StringArray, steps: &[Steps]) -> ArrayRef {
        let value = |row: usize| {
            let path: Option<Vec<Step<'_>>> = steps.iter().map(|step| step.at(row)).collect();
            json.is_valid(row).then(|| find(json.value(row), &path?)).flatten()
        };
        let values = (0..json.len()).map(value);
        match self {
            Self::Text => {
                let mut builder = StringBuilder::with_capacity(json.len(), 0);
                values.for_each(|value| builder.append_option(value.and_then(text)));
                Arc::new(builder.finish())
            }
            Self::Raw => {
                let mut builder = StringBuilder::with_capacity(json.len(), 0);
                values.for_each(|value| builder.append_option(value.filter(|value| *value != "null")));
                Arc::new(builder.finish())
            }
            Self::Int => {
                let mut builder = Int64Builder::with_capacity(json.len());
                values.for_each(|value| builder.append_option(value.and_then(int)));
                Arc::new(builder.finish())
            }
            Self::Float => {
                let mut builder = Float64Builder::with_capacity(json.len());
                values.for_each(|value| builder.append_option(value.and_then(float)));
                Arc::new(builder.finish())
            }
            Self::Bool => {
                let mut builder = BooleanBuilder::with_capacity(json.len());
                values.for_each(|value| builder.append_option(value.and_then(truth)));
                Arc::new(builder.finish())
            }
            Self::Array => {
                let mut builder = ListBuilder::new(StringBuilder::new());
                for value in values {
                    let found = value.and_then(elements);
                    let is_list = found.is_some();
                    found.into_iter().flatten().for_each(|element| builder.values().append_value(element));
                    builder.append(is_list);
                }
                Arc::new(builder.finish())
            }
        }
    }
}

/// Plans the operators `->` and `->>`. A chain of them is one call.
#[derive(Debug)]
pub(super) struct Operators;

impl ExprPlanner for Operators {
    fn plan_binary_op(&self, expr: RawBinaryExpr, _: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let get = match expr.op {
            BinaryOperator::Arrow => Get::Raw,
            BinaryOperator::LongArrow => Get::Text,
            _ => return Ok(PlannerResult::Original(expr)),
        };
        let mut args = match expr.left {
            Expr::ScalarFunction(ScalarFunction { func, args }) if func.name() == "json_raw" => args,
            left => vec![left],
        };
        args.push(expr.right);
        Ok(PlannerResult::Planned(Expr::ScalarFunction(ScalarFunction { func: function(get), args })))
    }
}
