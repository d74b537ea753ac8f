//! Corrected versions of some of the engine's functions.
//!
//! - `log` and `power` are not simplified. The engine replaces `power(b, log(b, x))` with `x` and `log(a, 1)` with 0, even
//!   for bases for which this is wrong: 1, 0 and negative numbers (apache/datafusion#25137).
//! - The directions of `array_sort` must be constant. The engine uses those of the first row for all rows
//!   (apache/datafusion#24132).

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::{
    ColumnarValue, Documentation, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
};

use crate::error::Error;
use crate::sql::functions::delegate::delegate;

/// Wraps the functions that need a correction, and returns the others unchanged.
pub(crate) fn with_corrections(functions: Vec<Arc<ScalarUDF>>) -> Vec<Arc<ScalarUDF>> {
    let wrapped = functions.into_iter().map(|inner| match inner.name() {
        "log" | "power" | "array_sort" => Arc::new(ScalarUDF::new_from_impl(CorrectedFunction { inner })),
        _ => inner,
    });
    wrapped.collect()
}

/// A function that is not simplified. If it is `array_sort`, its directions must be constant.
#[derive(Debug, PartialEq, Eq, Hash)]
struct CorrectedFunction {
    inner: Arc<ScalarUDF>,
}

impl ScalarUDFImpl for CorrectedFunction {
    delegate! {
        fn name(&self) -> &str;
        fn aliases(&self) -> &[String];
        fn signature(&self) -> &Signature;
        fn return_type(&self, kinds: &[DataType]) -> Result<DataType>;
        fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef>;
        fn schema_name(&self, args: &[Expr]) -> Result<String>;
        fn documentation(&self) -> Option<&Documentation>;
    }

    fn coerce_types(&self, kinds: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.inner().coerce_types(kinds)
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let is_array = |arg: &ColumnarValue| matches!(arg, ColumnarValue::Array(_));
        if self.name() == "array_sort" && args.args.iter().skip(1).any(is_array) {
            let error = Error::unsupported("the direction of array_sort must be constant: write 'ASC' or 'DESC'");
            return Err(DataFusionError::External(Box::new(error)));
        }
        self.inner.invoke_with_args(args)
    }
}
