//! `arrow_cast` and `arrow_try_cast`, which refuse casts to fixed-size types.
//!
//! Even a NULL of the type `FixedSizeBinary(1000000000)` or `FixedSizeList(1000000000, Int64)` occupies the full size
//! of its type, so a short statement could exhaust the memory of the server. In SQL types such as `BIGINT[3]`,
//! `syntax/type_names.rs` removes the size.

use std::sync::Arc;

use arrow::datatypes::{DataType, FieldRef};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    Cast, ColumnarValue, Documentation, Expr, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    TryCast,
};

use crate::error::Error;
use crate::sql::functions::delegate::delegate;

/// The maximum number of opening brackets in the text of a type.
const BRACKETS_MAX: usize = 64;

/// Wraps the functions that cast to any Arrow type, and returns the others unchanged.
pub(crate) fn without_fixed_sizes(functions: Vec<Arc<ScalarUDF>>) -> Vec<Arc<ScalarUDF>> {
    let wrapped = functions.into_iter().map(|inner| match inner.name() {
        "arrow_cast" | "arrow_try_cast" => Arc::new(ScalarUDF::new_from_impl(ArrowCast { inner })),
        _ => inner,
    });
    wrapped.collect()
}

/// A function that fails if its result has a fixed-size type.
#[derive(Debug, PartialEq, Eq, Hash)]
struct ArrowCast {
    inner: Arc<ScalarUDF>,
}

impl ScalarUDFImpl for ArrowCast {
    delegate! {
        fn name(&self) -> &str;
        fn signature(&self) -> &Signature;
        fn return_type(&self, kinds: &[DataType]) -> Result<DataType>;
        fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue>;
        fn documentation(&self) -> Option<&Documentation>;
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        if let Some(Some(kind)) = args.scalar_arguments.get(1) {
            check_depth(kind.try_as_str().flatten().unwrap_or_default())?;
        }
        let field = self.inner.return_field_from_args(args)?;
        check(field.data_type())?;
        Ok(field)
    }

    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        if let Some(Expr::Literal(kind, _)) = args.get(1) {
            check_depth(kind.try_as_str().flatten().unwrap_or_default())?;
        }
        let simplified = self.inner.simplify(args, info)?;
        if let ExprSimplifyResult::Simplified(Expr::Cast(Cast { field, .. }) | Expr::TryCast(TryCast { field, .. })) =
            &simplified
        {
            check(field.data_type())?;
        }
        Ok(simplified)
    }
}

/// Fails if the text of a type is nested too deeply. The engine parses it recursively, so it could overflow the stack.
fn check_depth(kind: &str) -> Result<()> {
    if kind.matches(['(', '<']).count() > BRACKETS_MAX {
        return Err(DataFusionError::External(Box::new(Error::limited(format!(
            "the type in arrow_cast has more than {BRACKETS_MAX} brackets: use a simpler type"
        )))));
    }
    Ok(())
}

fn check(kind: &DataType) -> Result<()> {
    if has_fixed_size(kind) {
        return Err(DataFusionError::External(Box::new(Error::unsupported(format!(
            "casts to fixed-size types are not supported ({kind}): use List or Binary"
        )))));
    }
    Ok(())
}

/// Returns true if a type, or a type inside it, is a fixed-size binary or list type.
fn has_fixed_size(kind: &DataType) -> bool {
    match kind {
        DataType::FixedSizeBinary(_) | DataType::FixedSizeList(..) => true,
        DataType::List(item) | DataType::LargeList(item) | DataType::ListView(item) | DataType::LargeListView(item) => {
            has_fixed_size(item.data_type())
        }
        DataType::Map(entries, _) => has_fixed_size(entries.data_type()),
        DataType::Struct(fields) => fields.iter().any(|field| has_fixed_size(field.data_type())),
        DataType::Union(fields, _) => fields.iter().any(|(_, field)| has_fixed_size(field.data_type())),
        DataType::Dictionary(_, values) => has_fixed_size(values),
        DataType::RunEndEncoded(_, values) => has_fixed_size(values.data_type()),
        _ => false,
    }
}
