//! Functions whose arguments have a common type. This file chooses it as for a comparison.
//!
//! The engine refuses `array_has(prices, 2)` for a list of decimals, `'10:00' = ANY (clocks)` for a list of times, and
//! `coalesce(clock, current_time)`, because it does not convert these types. In `nvl(price, 0)` and `nanvl(price, 0)`, it
//! converts decimals to doubles, which rounds them.
//!
//! `array_remove` and `array_replace` change all elements that are equal to the value, and `array_remove(list, NULL)` removes
//! the NULLs, as in PostgreSQL. The engine changes only the first element, and returns NULL for a NULL. `array_length(list,
//! 1)` of an empty list is NULL, as in PostgreSQL.
//!
//! **Invariant:** a decimal is combined with a double only as a double, as in comparisons.

use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, AsArray as _, ListArray, UInt64Array};
use arrow::buffer::OffsetBuffer;
use arrow::compute;
use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit, UInt64Type};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::type_coercion::functions::fields_with_udf;
use datafusion::logical_expr::{
    ColumnarValue, Documentation, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};

use crate::sql::functions::decimal_types::common_fraction;
use crate::sql::functions::delegate::delegate;

/// The functions whose lists and elements have a common type, each with the position of the argument that is an index or
/// a count, if it has one.
const LISTS: [(&str, Option<usize>); 18] = [
    ("array_append", None),
    ("array_concat", None),
    ("array_except", None),
    ("array_has", None),
    ("array_has_all", None),
    ("array_has_any", None),
    ("array_intersect", None),
    ("array_position", Some(2)),
    ("array_positions", None),
    ("array_prepend", None),
    ("array_remove", None),
    ("array_remove_all", None),
    ("array_remove_n", Some(2)),
    ("array_replace", None),
    ("array_resize", Some(1)),
    ("array_replace_all", None),
    ("array_replace_n", Some(3)),
    ("array_union", None),
];

/// Wraps the functions of this file, and returns the others unchanged.
pub(crate) fn with_common_types(functions: Vec<Arc<ScalarUDF>>) -> Vec<Arc<ScalarUDF>> {
    let find = |name: &str| functions.iter().find(|function| function.name() == name).cloned();
    let (remove_all, replace_all, coalesce) = (find("array_remove_all"), find("array_replace_all"), find("coalesce"));
    let wrapped = functions.iter().map(|inner| {
        let index = LISTS.into_iter().find(|(name, _)| *name == inner.name()).map(|(_, index)| index);
        let (rule, called, typed) = match (inner.name(), index) {
            ("array_length", _) => return Arc::new(ScalarUDF::new_from_impl(ListLength { inner: Arc::clone(inner) })),
            ("array_remove", Some(index)) => (Rule::Elements { index }, remove_all.clone(), None),
            ("array_replace", Some(index)) => (Rule::Elements { index }, replace_all.clone(), None),
            (_, Some(index)) => (Rule::Elements { index }, None, None),
            ("nvl", _) => (Rule::Two, None, coalesce.clone()),
            ("nanvl", _) => (Rule::NoDecimals, None, None),
            ("coalesce" | "greatest" | "least" | "nullif", _) => (Rule::Values, None, None),
            _ => return Arc::clone(inner),
        };
        let (called, typed) = (called.unwrap_or_else(|| Arc::clone(inner)), typed.unwrap_or_else(|| Arc::clone(inner)));
        let signature = Signature::user_defined(Volatility::Immutable);
        Arc::new(ScalarUDF::new_from_impl(Coerced { inner: Arc::clone(inner), called, typed, rule, signature }))
    });
    wrapped.collect()
}

/// Determines which arguments have a common type.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Rule {
    /// The elements of lists, and all other arguments except the one at `index`.
    Elements { index: Option<usize> },
    /// All arguments.
    Values,
    /// The only two arguments.
    Two,
    /// All arguments. Decimals are refused, unless they are combined with a double.
    NoDecimals,
}

/// A function whose arguments are cast to a common type.
#[derive(Debug, PartialEq, Eq, Hash)]
struct Coerced {
    inner: Arc<ScalarUDF>,
    /// The function that computes the result.
    called: Arc<ScalarUDF>,
    /// The function that determines the types of arguments for which this file has no rule.
    typed: Arc<ScalarUDF>,
    rule: Rule,
    signature: Signature,
}

impl ScalarUDFImpl for Coerced {
    delegate! {
        fn name(&self) -> &str;
        fn aliases(&self) -> &[String];
        fn return_type(&self, kinds: &[DataType]) -> Result<DataType>;
        fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef>;
        fn schema_name(&self, args: &[Expr]) -> Result<String>;
        fn documentation(&self) -> Option<&Documentation>;
        fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult>;
        fn short_circuits(&self) -> bool;
        fn is_strict(&self) -> bool;
    }

    fn conditional_arguments<'a>(&self, args: &'a [Expr]) -> Option<(Vec<&'a Expr>, Vec<&'a Expr>)> {
        self.inner.conditional_arguments(args)
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let removes_nulls = ["array_remove", "array_remove_all"].contains(&self.name());
        let (lists, needles) = match args.args.as_slice() {
            [lists, needles] if removes_nulls => (lists.to_array(args.number_rows)?, needles.clone()),
            _ => return self.called.invoke_with_args(args),
        };
        let Some(lists) = lists.as_list_opt::<i32>() else { return self.called.invoke_with_args(args) };
        match needles {
            ColumnarValue::Scalar(needle) if needle.is_null() => Ok(ColumnarValue::Array(without_nulls(lists)?)),
            ColumnarValue::Array(needles) if needles.null_count() > 0 => {
                let rows = args.number_rows;
                let removed = self.called.invoke_with_args(args)?.into_array(rows)?;
                let is_null = compute::is_null(&needles)?;
                Ok(ColumnarValue::Array(compute::kernels::zip::zip(&is_null, &without_nulls(lists)?, &removed)?))
            }
            _ => self.called.invoke_with_args(args),
        }
    }

    fn coerce_types(&self, kinds: &[DataType]) -> Result<Vec<DataType>> {
        let index = match self.rule {
            Rule::Elements { index } => index,
            Rule::Two if kinds.len() != 2 => {
                return Err(DataFusionError::Plan(format!("{} takes two arguments: use coalesce", self.name())));
            }
            Rule::NoDecimals if kinds.iter().any(DataType::is_decimal) && !kinds.iter().any(DataType::is_floating) => {
                return Err(DataFusionError::Plan(format!(
                    "{} takes doubles, and a decimal is never NaN: use coalesce, or cast to DOUBLE",
                    self.name()
                )));
            }
            Rule::Values | Rule::Two | Rule::NoDecimals => None,
        };
        let is_list = matches!(self.rule, Rule::Elements { .. });
        let is_element = |position: usize| Some(position) != index;
        let elements = kinds.iter().enumerate().filter(|(position, _)| is_element(*position));
        let elements = elements.map(|(_, kind)| element(kind));
        let common = elements.reduce(|left, right| common(left?, right?)).flatten();
        // The engine chooses the types of other values correctly.
        let common = common.filter(|kind| is_list || unit(kind).is_some());
        let with_common = |(position, kind): (usize, &DataType)| match &common {
            Some(common) if is_element(position) => with_element(kind, common),
            _ => kind.clone(),
        };
        let fields = kinds.iter().enumerate().map(with_common).map(|kind| Arc::new(Field::new("", kind, true)));
        let fields = fields_with_udf(&fields.collect::<Vec<_>>(), self.typed.as_ref())?;
        Ok(fields.into_iter().map(|field| field.data_type().clone()).collect())
    }
}

/// Removes the NULLs from each list.
fn without_nulls(lists: &ListArray) -> Result<ArrayRef> {
    let values = lists.values();
    let DataType::List(field) = lists.data_type() else { return Ok(Arc::new(lists.clone())) };
    let (mut kept, mut lengths) = (Vec::new(), Vec::with_capacity(lists.len()));
    for row in 0..lists.len() {
        let (start, end) = (lists.value_offsets()[row] as usize, lists.value_offsets()[row + 1] as usize);
        let before = kept.len();
        if lists.is_valid(row) {
            kept.extend((start..end).filter(|index| values.is_valid(*index)).map(|index| index as u64));
        }
        lengths.push(kept.len() - before);
    }
    let values = compute::take(values, &UInt64Array::from(kept), None)?;
    let offsets = OffsetBuffer::from_lengths(lengths);
    Ok(Arc::new(ListArray::try_new(Arc::clone(field), offsets, values, lists.nulls().cloned())?))
}

/// `array_length`, which is NULL instead of 0 if it is called with a dimension.
#[derive(Debug, PartialEq, Eq, Hash)]
struct ListLength {
    inner: Arc<ScalarUDF>,
}

impl ScalarUDFImpl for ListLength {
    delegate! {
        fn name(&self) -> &str;
        fn aliases(&self) -> &[String];
        fn signature(&self) -> &Signature;
        fn return_type(&self, kinds: &[DataType]) -> Result<DataType>;
        fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef>;
        fn schema_name(&self, args: &[Expr]) -> Result<String>;
        fn documentation(&self) -> Option<&Documentation>;
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let (has_dimension, rows) = (args.args.len() > 1, args.number_rows);
        let lengths = self.inner.invoke_with_args(args)?;
        if !has_dimension {
            return Ok(lengths);
        }
        let is_scalar = matches!(lengths, ColumnarValue::Scalar(_));
        let lengths = lengths.into_array(rows)?;
        let lengths = lengths.as_primitive::<UInt64Type>();
        let lengths: UInt64Array = lengths.iter().map(|length| length.filter(|length| *length > 0)).collect();
        Ok(match is_scalar {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&lengths, 0)?),
            false => ColumnarValue::Array(Arc::new(lengths)),
        })
    }
}

/// Returns the type of the elements of a list, or a type that is not a list. Returns `None` for lists of lists.
fn element(kind: &DataType) -> Option<DataType> {
    let element = match kind {
        DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _) => field.data_type(),
        kind => kind,
    };
    (!element.is_nested()).then(|| element.clone())
}

/// Replaces the type of the elements of a list, or a type that is not a list.
fn with_element(kind: &DataType, element: &DataType) -> DataType {
    let changed = |field: &FieldRef| Arc::new(field.as_ref().clone().with_data_type(element.clone()));
    match kind {
        DataType::List(field) => DataType::List(changed(field)),
        DataType::LargeList(field) => DataType::LargeList(changed(field)),
        DataType::FixedSizeList(field, size) => DataType::FixedSizeList(changed(field), *size),
        DataType::Null => DataType::Null,
        _ => element.clone(),
    }
}

/// Returns the type in which two values are compared, or `None` if the engine chooses it.
fn common(left: DataType, right: DataType) -> Option<DataType> {
    use DataType::{Time32, Time64};
    if left == right || right.is_null() {
        return Some(left);
    }
    if left.is_null() {
        return Some(right);
    }
    match (&left, &right) {
        (Time32(_) | Time64(_), Time32(_) | Time64(_)) => Some(if unit(&left) < unit(&right) { right } else { left }),
        (text, other) if text.is_string() && !other.is_string() => Some(right),
        (other, text) if text.is_string() && !other.is_string() => Some(left),
        (left, right) if left.is_decimal() || right.is_decimal() => common_fraction(&[left.clone(), right.clone()]),
        _ => None,
    }
}

/// Returns the unit of a time of day.
fn unit(kind: &DataType) -> Option<TimeUnit> {
    match kind {
        DataType::Time32(unit) | DataType::Time64(unit) => Some(*unit),
        _ => None,
    }
}
