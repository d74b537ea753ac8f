//! `array_sum`, `array_avg` and `array_product`, computed exactly, and other list functions that compute with doubles.
//!
//! The engine converts the elements of all lists to doubles, which rounds 64-bit integers and decimals. The functions
//! in this file follow the aggregates instead: `array_sum` and `array_avg` return what `sum` and `avg` return for the
//! elements, or fail in the same way.
//!
//! | elements | `array_sum` | `array_avg` | `array_product` | `array_add`, `inner_product`, … |
//! |---|---|---|---|---|
//! | integer | a 64-bit integer | a double, rounded once | a 64-bit integer | refused |
//! | decimal | a decimal | a decimal | refused | refused |
//! | double | rounded once | rounded once | the engine's | the engine's |

use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, ArrowPrimitiveType, AsArray as _, ListArray, PrimitiveArray};
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type, UInt64Type};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

use crate::sql::functions::delegate::delegate;
use crate::sql::functions::exact_aggregates::{Build, Kind, average_type, sum_of_decimals_type};
use crate::sql::functions::running_total::{Finish, Total};

/// The functions that compute with doubles, and whose result would be exact for integers and decimals.
const DOUBLES: [&str; 4] = ["array_add", "array_scale", "array_subtract", "inner_product"];

/// Replaces the functions that this file implements, and returns the others unchanged.
pub(crate) fn with_exact_lists(functions: Vec<Arc<ScalarUDF>>) -> Vec<Arc<ScalarUDF>> {
    let replaced = functions.into_iter().map(|inner| {
        let operation = match inner.name() {
            "array_sum" => Operation::Sum,
            "array_avg" => Operation::Average,
            "array_product" => Operation::Product,
            name if DOUBLES.contains(&name) => Operation::Doubles,
            _ => return inner,
        };
        Arc::new(ScalarUDF::new_from_impl(ListFunction { inner, operation }))
    });
    replaced.collect()
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Operation {
    Sum,
    Average,
    Product,
    /// The function accepts only doubles, and the engine computes it.
    Doubles,
}

/// A function of lists that does not round integers and decimals.
#[derive(Debug, PartialEq, Eq, Hash)]
struct ListFunction {
    inner: Arc<ScalarUDF>,
    operation: Operation,
}

impl ScalarUDFImpl for ListFunction {
    delegate! {
        fn name(&self) -> &str;
        fn aliases(&self) -> &[String];
        fn signature(&self) -> &Signature;
        fn schema_name(&self, args: &[Expr]) -> Result<String>;
        fn documentation(&self) -> Option<&Documentation>;
    }

    fn return_type(&self, kinds: &[DataType]) -> Result<DataType> {
        let element = kinds.first().and_then(element);
        match (self.operation, element) {
            (Operation::Sum, Some(DataType::Decimal128(precision, scale))) => {
                Ok(sum_of_decimals_type(*precision, *scale))
            }
            (Operation::Average, Some(DataType::Decimal128(precision, scale))) => Ok(average_type(*precision, *scale)),
            (Operation::Sum | Operation::Product, Some(kind @ (DataType::Int64 | DataType::UInt64))) => {
                Ok(kind.clone())
            }
            _ => self.inner.return_type(kinds),
        }
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        if self.operation == Operation::Doubles {
            return self.inner.return_field_from_args(args);
        }
        let kinds: Vec<_> = args.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        Ok(Arc::new(Field::new(self.name(), self.return_type(&kinds)?, true)))
    }

    fn coerce_types(&self, kinds: &[DataType]) -> Result<Vec<DataType>> {
        let name = self.name();
        if self.operation == Operation::Doubles {
            let is_exact = |kind: &DataType| element(kind).is_some_and(|item| item.is_decimal() || item.is_integer());
            if kinds.iter().any(is_exact) {
                return Err(DataFusionError::Plan(format!(
                    "{name} computes with doubles, which would round integers and decimals: cast the lists, as in \
                     CAST(x AS DOUBLE[])"
                )));
            }
            return self.inner.inner().coerce_types(kinds);
        }
        let [kind] = kinds else {
            return Err(DataFusionError::Plan(format!("{name} takes one list")));
        };
        let target = match (self.operation, element(kind)) {
            (_, Some(DataType::UInt64 | DataType::UInt32 | DataType::UInt16 | DataType::UInt8)) => DataType::UInt64,
            (_, Some(item)) if item.is_integer() => DataType::Int64,
            (Operation::Product, Some(item)) if item.is_decimal() => {
                return Err(DataFusionError::Plan(format!(
                    "{name} of decimals is not supported, because the product can have any number of digits: cast the \
                     list, as in {name}(CAST(x AS DOUBLE[]))"
                )));
            }
            (
                _,
                Some(
                    DataType::Decimal32(precision, scale)
                    | DataType::Decimal64(precision, scale)
                    | DataType::Decimal128(precision, scale),
                ),
            ) => DataType::Decimal128(*precision, *scale),
            (_, Some(item)) if item.is_decimal() || item.is_nested() => {
                return Err(DataFusionError::Plan(format!("{name} does not support lists of {item}")));
            }
            _ => return self.inner.inner().coerce_types(kinds),
        };
        Ok(vec![DataType::List(Arc::new(Field::new_list_field(target, true)))])
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let kind = match (self.operation, args.args.as_slice()) {
            (Operation::Sum, [_]) => Kind::Sum,
            (Operation::Average, [_]) => Kind::Average,
            (Operation::Product, [lists]) => match element(&lists.data_type()) {
                Some(DataType::Int64) => return per_list(lists, products::<Int64Type>),
                Some(DataType::UInt64) => return per_list(lists, products::<UInt64Type>),
                _ => return self.inner.invoke_with_args(args),
            },
            _ => return self.inner.invoke_with_args(args),
        };
        let output = args.return_field.data_type();
        let is_list = matches!(args.args[0].data_type(), DataType::List(_));
        let input = element(&args.args[0].data_type()).filter(|_| is_list).cloned().unwrap_or(DataType::Null);
        let name = format!("{}(…)", self.name());
        let total = |lists: &ListArray| kind.with_total(&input, output, &name, EachList(lists)).transpose();
        match kind.with_total(&input, output, &name, IsSupported) {
            Some(()) => per_list(&args.args[0], |lists| {
                total(lists)?.ok_or_else(|| DataFusionError::Internal(format!("{name} has no total")))
            }),
            None => self.inner.invoke_with_args(args),
        }
    }
}

/// Returns the type of the elements of a list, or `None` if the type is not a list.
fn element(kind: &DataType) -> Option<&DataType> {
    match kind {
        DataType::List(field) | DataType::LargeList(field) | DataType::FixedSizeList(field, _) => {
            Some(field.data_type())
        }
        _ => None,
    }
}

/// Computes one value for each list.
fn per_list(lists: &ColumnarValue, compute: impl Fn(&ListArray) -> Result<ArrayRef>) -> Result<ColumnarValue> {
    Ok(match lists {
        ColumnarValue::Array(lists) => ColumnarValue::Array(compute(lists.as_list())?),
        ColumnarValue::Scalar(list) => {
            let computed = compute(list.to_array()?.as_list())?;
            ColumnarValue::Scalar(ScalarValue::try_from_array(&computed, 0)?)
        }
    })
}

/// Returns the elements of each list that are not NULL. A list that is NULL has no elements.
fn elements<T: ArrowPrimitiveType>(lists: &ListArray) -> impl Iterator<Item = impl Iterator<Item = T::Native>> {
    let values: &PrimitiveArray<T> = lists.values().as_primitive();
    let offsets = lists.value_offsets();
    (0..lists.len()).map(move |row| {
        let (start, end) = if lists.is_valid(row) { (offsets[row], offsets[row + 1]) } else { (0, 0) };
        (start as usize..end as usize)
            .filter(move |index| values.is_valid(*index))
            .map(move |index| values.value(index))
    })
}

/// Computes the total of each list.
struct EachList<'a>(&'a ListArray);

impl Build for EachList<'_> {
    type Output = Result<ArrayRef>;

    fn build<T: Total>(self, finish: Finish<T>) -> Self::Output {
        let totals = elements::<T::Input>(self.0).map(|values| {
            let mut total = T::default();
            values.for_each(|value| _ = total.add(value));
            total
        });
        finish(&totals.collect::<Vec<_>>())
    }
}

/// Does nothing. It shows whether a type has a total.
struct IsSupported;

impl Build for IsSupported {
    type Output = ();

    fn build<T: Total>(self, _: Finish<T>) {}
}

/// Multiplies the elements of each list.
fn products<T>(lists: &ListArray) -> Result<ArrayRef>
where
    T: ArrowPrimitiveType,
    T::Native: Into<i128> + TryFrom<i128>,
{
    let products = elements::<T>(lists).map(|values| {
        let values: Vec<i128> = values.map(Into::into).collect();
        if values.is_empty() {
            return Ok(None);
        }
        // A product that contains a zero is zero, even if the other elements are large.
        let is_zero = values.contains(&0);
        let product =
            if is_zero { Some(0) } else { values.iter().try_fold(1_i128, |all, value| all.checked_mul(*value)) };
        product.and_then(|product| T::Native::try_from(product).ok()).map(Some).ok_or_else(|| {
            DataFusionError::Execution("bigint out of range in array_product(…): cast the list to DOUBLE[]".to_owned())
        })
    });
    Ok(Arc::new(products.collect::<Result<PrimitiveArray<T>>>()?))
}
