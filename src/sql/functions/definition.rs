//! Allows the scalar functions of this crate to be defined as constants.
//!
//! For each function, DataFusion requires a type that implements a dozen methods. In this file, one type implements
//! them for every [`FunctionDefinition`].

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use arrow::array::AsArray as _;
use arrow::datatypes::{DataType, Field, FieldRef, Int64Type};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::sort_properties::{ExprProperties, SortProperties};
use datafusion::logical_expr::{
    ColumnarValue, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};

/// The definition of a scalar function.
#[derive(Clone, Copy)]
pub(super) struct FunctionDefinition {
    pub(super) name: &'static str,
    /// Returns the types to which the arguments are cast.
    pub(super) coerce: fn(&[DataType]) -> Result<Vec<DataType>>,
    /// Returns the type of the result, given the types of all arguments and the values of constant arguments.
    pub(super) returns: fn(&[DataType], &[Option<&ScalarValue>]) -> Result<DataType>,
    /// Computes the result. The arguments have the types that `coerce` returned.
    pub(super) call: fn(&ScalarFunctionArgs) -> Result<ColumnarValue>,
    /// Returns the ordering of the result, given the orderings of the arguments.
    pub(super) ordering: fn(&[ExprProperties]) -> SortProperties,
    /// True if the result column is named after the first argument, as with a cast.
    pub(super) keeps_name: bool,
}

impl FunctionDefinition {
    /// Converts the definition to a function for the engine's registry.
    pub(super) fn function(self) -> Arc<ScalarUDF> {
        Arc::new(ScalarUDF::new_from_impl(Defined {
            definition: self,
            signature: Signature::user_defined(Volatility::Immutable),
        }))
    }
}

/// The ordering of functions whose results are not sorted.
pub(super) fn unordered(_: &[ExprProperties]) -> SortProperties {
    SortProperties::Unordered
}

/// Returns the error for a call with the wrong number or types of arguments.
pub(super) fn wrong_arguments(function: &str, expected: &str) -> DataFusionError {
    DataFusionError::Plan(format!("wrong arguments for `{function}`: write {expected}"))
}

struct Defined {
    definition: FunctionDefinition,
    signature: Signature,
}

impl ScalarUDFImpl for Defined {
    fn name(&self) -> &str {
        self.definition.name
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        let names = args.iter().map(|arg| arg.schema_name().to_string());
        if self.definition.keeps_name {
            return names.take(1).next().ok_or_else(|| wrong_arguments(self.name(), "at least one argument"));
        }
        Ok(format!("{}({})", self.name(), names.collect::<Vec<_>>().join(",")))
    }

    fn coerce_types(&self, kinds: &[DataType]) -> Result<Vec<DataType>> {
        (self.definition.coerce)(kinds)
    }

    fn return_type(&self, kinds: &[DataType]) -> Result<DataType> {
        (self.definition.returns)(kinds, &vec![None; kinds.len()])
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        let kinds: Vec<_> = args.arg_fields.iter().map(|field| field.data_type().clone()).collect();
        let kind = (self.definition.returns)(&kinds, args.scalar_arguments)?;
        Ok(Arc::new(Field::new(self.name(), kind, true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        (self.definition.call)(&args)
    }

    fn output_ordering(&self, input: &[ExprProperties]) -> Result<SortProperties> {
        Ok((self.definition.ordering)(input))
    }
}

impl fmt::Debug for Defined {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Defined").field(&self.definition.name).finish()
    }
}

// Each definition has a unique name, so it is enough to compare the names.
impl PartialEq for Defined {
    fn eq(&self, other: &Self) -> bool {
        self.definition.name == other.definition.name
    }
}

impl Eq for Defined {}

impl Hash for Defined {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.definition.name.hash(state);
    }
}

/// Returns the field of an operator's result, which is NULL only if an operand is NULL.
pub(super) fn operator_field(operator: &impl ScalarUDFImpl, args: &ReturnFieldArgs) -> Result<FieldRef> {
    let kinds: Vec<_> = args.arg_fields.iter().map(|field| field.data_type().clone()).collect();
    let is_nullable = args.arg_fields.iter().any(|field| field.is_nullable());
    Ok(Arc::new(Field::new(operator.name(), operator.return_type(&kinds)?, is_nullable)))
}

/// Returns the arguments of `rows` rows, beginning with the row `start`.
pub(super) fn slice(args: &ScalarFunctionArgs, start: usize, rows: usize) -> ScalarFunctionArgs {
    let values = args.args.iter().map(|value| match value {
        ColumnarValue::Array(array) => ColumnarValue::Array(array.slice(start, rows)),
        scalar @ ColumnarValue::Scalar(_) => scalar.clone(),
    });
    ScalarFunctionArgs {
        args: values.collect(),
        arg_fields: args.arg_fields.clone(),
        number_rows: rows,
        return_field: Arc::clone(&args.return_field),
        config_options: Arc::clone(&args.config_options),
    }
}

/// Replaces negative integers by 0.
pub(super) fn not_negative(value: &ColumnarValue) -> Result<ColumnarValue> {
    Ok(match value.cast_to(&DataType::Int64, None)? {
        ColumnarValue::Scalar(ScalarValue::Int64(Some(number))) => ColumnarValue::Scalar(number.max(0).into()),
        ColumnarValue::Array(numbers) => {
            let numbers = numbers.as_primitive::<Int64Type>();
            ColumnarValue::Array(Arc::new(numbers.unary::<_, Int64Type>(|number| number.max(0))))
        }
        null => null,
    })
}
