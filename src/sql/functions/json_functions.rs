//! The SQL functions for JSON, which take a JSON string and a path, and the operators `->` and `->>`.
//!
//! | function | also called | returns |
//! |---|---|---|
//! | `json_text(json, key…)` | `json_as_text`, `json_get_str`, `->>` | a string without quotes; any other value as JSON |
//! | `json_raw(json, key…)` | `json_get`, `json_get_json`, `->` | the value as JSON |
//! | `json_int(json, key…)` | `json_get_int` | an integer |
//! | `json_float(json, key…)` | `json_get_float` | a number |
//! | `json_bool(json, key…)` | `json_get_bool` | a boolean |
//! | `json_array(json, key…)` | `json_get_array` | the elements as a list of JSON, for `unnest` |
//! | `json_text_array(json, key…)` | | the elements as a list of texts, as `json_text` returns them |
//! | `json_array_length(json, key…)` | | the number of elements |
//! | `json_typeof(json, key…)` | | `object`, `array`, `string`, `number`, `boolean` or `null` |
//! | `json_extract_path(json, step…)` | `#>` | the value as JSON |
//! | `json_extract_path_text(json, step…)` | `#>>` | a string without quotes; any other value as JSON |
//!
//! A path consists of keys (strings) and array indexes (integers). In `json_text_array`, the step `'*'` matches each
//! element of an array: `json_text_array(json, 'items', '*', 'name')` returns the names of all items. In the last two functions, as in PostgreSQL, the steps
//! are strings, and a number selects an element if the value is an array.
//!
//! The result is NULL if the value is missing, null or of another type, or if the string is not valid JSON.
//!
//! **Invariant:** the functions never fail, except for the variants that `base64_guard.rs` puts into a plan.

use std::sync::Arc;

use arrow::array::{
    Array as _, ArrayRef, AsArray as _, BooleanBuilder, Float64Builder, Int64Array, Int64Builder, ListBuilder,
    StringArray, StringBuilder,
};
use arrow::datatypes::{DataType, Field, Int64Type};
use datafusion::common::{DFSchema, ScalarValue, internal_err, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility, lit,
};
use datafusion::sql::sqlparser::ast::BinaryOperator;

use super::base64_text::check_number;
use super::json_path::{Step, boolean, elements, find, float, int, text, type_name};

/// The kind of value that a JSON function returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum ValueKind {
    Text,
    Raw,
    Int,
    Float,
    Bool,
    Array,
    TextArray,
    Length,
    TypeName,
    PathRaw,
    PathText,
}

const ALL: [ValueKind; 11] = [
    ValueKind::Text,
    ValueKind::Raw,
    ValueKind::Int,
    ValueKind::Float,
    ValueKind::Bool,
    ValueKind::Array,
    ValueKind::TextArray,
    ValueKind::Length,
    ValueKind::TypeName,
    ValueKind::PathRaw,
    ValueKind::PathText,
];

/// Returns all JSON functions.
pub(crate) fn functions() -> Vec<Arc<ScalarUDF>> {
    ALL.into_iter().map(|kind| function(kind, false)).collect()
}

/// Returns the variant of a JSON function that fails if the value is a string that may be base64. Returns `None` if
/// `name` is not the name of a function that returns text, JSON or numbers.
pub(crate) fn guarded(name: &str) -> Option<Arc<ScalarUDF>> {
    let kinds = [
        ValueKind::Text,
        ValueKind::PathText,
        ValueKind::TextArray,
        ValueKind::Raw,
        ValueKind::PathRaw,
        ValueKind::Array,
        ValueKind::Int,
        ValueKind::Float,
    ];
    kinds.into_iter().find(|kind| kind.name() == name).map(|kind| function(kind, true))
}

fn function(kind: ValueKind, guards_base64: bool) -> Arc<ScalarUDF> {
    Arc::new(ScalarUDF::new_from_impl(JsonFunction::new(kind, guards_base64)))
}

/// A JSON function.
#[derive(Debug, PartialEq, Eq, Hash)]
struct JsonFunction {
    kind: ValueKind,
    guards_base64: bool,
    signature: Signature,
    aliases: Vec<String>,
}

impl JsonFunction {
    fn new(kind: ValueKind, guards_base64: bool) -> Self {
        let aliases: &[&str] = match kind {
            ValueKind::Text => &["json_as_text", "json_get_str"],
            ValueKind::Raw => &["json_get", "json_get_json"],
            ValueKind::Int => &["json_get_int"],
            ValueKind::Float => &["json_get_float"],
            ValueKind::Bool => &["json_get_bool"],
            ValueKind::Array => &["json_get_array"],
            ValueKind::TextArray
            | ValueKind::Length
            | ValueKind::TypeName
            | ValueKind::PathRaw
            | ValueKind::PathText => &[],
        };
        let aliases = aliases.iter().map(|alias| (*alias).to_owned()).collect();
        Self { kind, guards_base64, signature: Signature::user_defined(Volatility::Immutable), aliases }
    }
}

impl ScalarUDFImpl for JsonFunction {
    fn name(&self) -> &str {
        self.kind.name()
    }

    fn aliases(&self) -> &[String] {
        &self.aliases
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> Result<DataType> {
        Ok(match self.kind {
            ValueKind::Text | ValueKind::Raw | ValueKind::TypeName | ValueKind::PathRaw | ValueKind::PathText => {
                DataType::Utf8
            }
            ValueKind::Int | ValueKind::Length => DataType::Int64,
            ValueKind::Float => DataType::Float64,
            ValueKind::Bool => DataType::Boolean,
            ValueKind::Array | ValueKind::TextArray => {
                DataType::List(Arc::new(Field::new_list_field(DataType::Utf8, true)))
            }
        })
    }

    fn coerce_types(&self, kinds: &[DataType]) -> Result<Vec<DataType>> {
        let name = self.name();
        let mut coerced = Vec::with_capacity(kinds.len());
        for (index, kind) in kinds.iter().enumerate() {
            coerced.push(match kind {
                DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => DataType::Utf8,
                kind if index > 0 && kind.is_integer() => DataType::Int64,
                kind if index == 0 => return plan_err!("{name} takes a JSON string as its first argument, got {kind}"),
                kind => return plan_err!("a path step of {name} must be a string or an integer, got {kind}"),
            });
        }
        if coerced.is_empty() {
            return plan_err!("{name} takes a JSON string and the path to the value");
        }
        Ok(coerced)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let rows = args.number_rows;
        let Some((json, path)) = args.args.split_first() else {
            return plan_err!("{} takes a JSON string", self.name());
        };
        let json = json.to_array(rows)?;
        let is_text_path = matches!(self.kind, ValueKind::PathRaw | ValueKind::PathText);
        let steps = path.iter().map(|step| PathArgument::new(step, is_text_path)).collect::<Result<Vec<_>>>()?;
        self.kind.array(json.as_string(), &steps, self.guards_base64).map(ColumnarValue::Array)
    }
}

/// The values of one path argument for all rows of a batch.
enum PathArgument {
    /// The same key or index for every row.
    Constant(ScalarValue),
    /// The same step for every row, which is a key of an object or an index of an array.
    ConstantText(String),
    /// A key for each row.
    Keys(StringArray),
    /// A step for each row, which is a key of an object or an index of an array.
    Texts(StringArray),
    /// An array index for each row.
    Indexes(Int64Array),
}

impl PathArgument {
    fn new(value: &ColumnarValue, is_text_path: bool) -> Result<Self> {
        Ok(match value {
            ColumnarValue::Scalar(ScalarValue::Utf8(Some(step))) if is_text_path => Self::ConstantText(step.clone()),
            ColumnarValue::Scalar(scalar) => Self::Constant(scalar.clone()),
            ColumnarValue::Array(array) => match array.data_type() {
                DataType::Utf8 if is_text_path => Self::Texts(array.as_string::<i32>().clone()),
                DataType::Utf8 => Self::Keys(array.as_string::<i32>().clone()),
                DataType::Int64 => Self::Indexes(array.as_primitive::<Int64Type>().clone()),
                kind => return plan_err!("a JSON path step must be a string or an integer, got {kind}"),
            },
        })
    }

    /// Returns true if the step matches each element of an array.
    fn is_each_element(&self) -> bool {
        matches!(self, Self::Constant(ScalarValue::Utf8(Some(step))) if step == "*")
    }

    fn at(&self, row: usize) -> Option<Step<'_>> {
        match self {
            Self::Constant(ScalarValue::Utf8(Some(key))) => Some(Step::Key(key)),
            Self::Constant(ScalarValue::Int64(Some(index))) => Some(Step::Index(*index)),
            Self::Constant(_) => None,
            Self::ConstantText(step) => Some(Step::KeyOrIndex(step)),
            Self::Texts(steps) => steps.is_valid(row).then(|| Step::KeyOrIndex(steps.value(row))),
            Self::Keys(keys) => keys.is_valid(row).then(|| Step::Key(keys.value(row))),
            Self::Indexes(indexes) => indexes.is_valid(row).then(|| Step::Index(indexes.value(row))),
        }
    }
}

impl ValueKind {
    fn name(self) -> &'static str {
        match self {
            Self::Text => "json_text",
            Self::Raw => "json_raw",
            Self::Int => "json_int",
            Self::Float => "json_float",
            Self::Bool => "json_bool",
            Self::Array => "json_array",
            Self::TextArray => "json_text_array",
            Self::Length => "json_array_length",
            Self::TypeName => "json_typeof",
            Self::PathRaw => "json_extract_path",
            Self::PathText => "json_extract_path_text",
        }
    }

    fn array(self, json: &StringArray, steps: &[PathArgument], guards_base64: bool) -> Result<ArrayRef> {
        if self == Self::TextArray {
            return text_lists(json, steps, guards_base64);
        }
        let value = |row: usize| json.is_valid(row).then(|| find(json.value(row), &path(steps, row)?)).flatten();
        let values = (0..json.len()).map(value);
        if guards_base64 {
            let found = values.clone().flatten();
            match self {
                Self::Array => found.filter_map(elements).flatten().try_for_each(check_string)?,
                _ => found.into_iter().try_for_each(check_string)?,
            }
        }
        Ok(match self {
            Self::Text | Self::PathText => {
                let mut builder = StringBuilder::with_capacity(json.len(), 0);
                values.for_each(|value| builder.append_option(value.and_then(text)));
                Arc::new(builder.finish())
            }
            Self::Raw | Self::PathRaw => {
                let mut builder = StringBuilder::with_capacity(json.len(), 0);
                values.for_each(|value| builder.append_option(value.filter(|value| *value != "null")));
                Arc::new(builder.finish())
            }
            Self::TypeName => {
                let mut builder = StringBuilder::with_capacity(json.len(), 0);
                values.for_each(|value| builder.append_option(value.and_then(type_name)));
                Arc::new(builder.finish())
            }
            Self::Length => {
                let length = |value| elements(value).and_then(|elements| i64::try_from(elements.len()).ok());
                Arc::new(values.map(|value| value.and_then(length)).collect::<Int64Array>())
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
                values.for_each(|value| builder.append_option(value.and_then(boolean)));
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
            Self::TextArray => return internal_err!("lists of texts are built separately"),
        })
    }
}

/// Returns an error if a JSON value is a string that may be base64.
fn check_string(value: &str) -> Result<()> {
    match value.starts_with('"').then(|| text(value)).flatten() {
        Some(text) => check_number(&text),
        None => Ok(()),
    }
}

/// Returns the steps of the path for one row, or `None` if a step is NULL.
fn path(steps: &[PathArgument], row: usize) -> Option<Vec<Step<'_>>> {
    steps.iter().map(|step| step.at(row)).collect()
}

/// Returns the elements of arrays as texts. The steps after `'*'` lead from each element to the value that is returned.
fn text_lists(json: &StringArray, steps: &[PathArgument], guards_base64: bool) -> Result<ArrayRef> {
    let each = steps.iter().position(PathArgument::is_each_element);
    let (to_array, in_element) = match each {
        Some(each) => (&steps[..each], &steps[each + 1..]),
        None => (steps, &[][..]),
    };
    let mut lists = ListBuilder::new(StringBuilder::new());
    for row in 0..json.len() {
        let array = json.is_valid(row).then(|| find(json.value(row), &path(to_array, row)?)).flatten();
        let found = array.and_then(elements);
        let in_element = path(in_element, row);
        for element in found.iter().flatten() {
            let value = in_element.as_ref().and_then(|path| find(element, path));
            if guards_base64 {
                value.map_or(Ok(()), check_string)?;
            }
            lists.values().append_option(value.and_then(text));
        }
        lists.append(found.is_some());
    }
    Ok(Arc::new(lists.finish()))
}

/// Plans the operators `->`, `->>`, `#>` and `#>>`. A chain of the first two becomes one function call.
#[derive(Debug)]
pub(crate) struct JsonOperatorPlanner;

impl ExprPlanner for JsonOperatorPlanner {
    fn plan_binary_op(&self, expr: RawBinaryExpr, _: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        let kind = match expr.op {
            BinaryOperator::Arrow => ValueKind::Raw,
            BinaryOperator::LongArrow => ValueKind::Text,
            BinaryOperator::HashArrow => ValueKind::PathRaw,
            BinaryOperator::HashLongArrow => ValueKind::PathText,
            _ => return Ok(PlannerResult::Original(expr)),
        };
        let args = match kind {
            ValueKind::PathRaw | ValueKind::PathText => {
                let steps = path_steps(&expr.right)?.into_iter().map(lit);
                std::iter::once(expr.left).chain(steps).collect()
            }
            _ => {
                let mut args = match expr.left {
                    Expr::ScalarFunction(ScalarFunction { func, args }) if func.name() == "json_raw" => args,
                    left => vec![left],
                };
                args.push(expr.right);
                args
            }
        };
        Ok(PlannerResult::Planned(Expr::ScalarFunction(ScalarFunction { func: function(kind, false), args })))
    }
}

/// Returns the steps of a path such as `'{items,0,sku}'`.
fn path_steps(path: &Expr) -> Result<Vec<String>> {
    let steps = match path {
        Expr::Literal(ScalarValue::Utf8(Some(text)), _) => {
            text.trim().strip_prefix('{').and_then(|text| text.strip_suffix('}'))
        }
        _ => None,
    };
    match steps.map(str::trim) {
        Some("") => Ok(Vec::new()),
        Some(steps) if !steps.contains(['"', '\\', '{', '}']) => {
            Ok(steps.split(',').map(|step| step.trim().to_owned()).collect())
        }
        _ => plan_err!(
            "the path of #> and #>> must be a constant such as '{{items,0,sku}}': use json_extract_path(json, 'items', '0', 'sku') \
             for other paths"
        ),
    }
}
