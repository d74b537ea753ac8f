//! `subquery_value(value, rows)` returns the value of a subquery that returned `rows` rows. Statements cannot call this
//! function.

use std::sync::Arc;

use arrow::array::{Array as _, AsArray as _};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef, Int64Type};
use datafusion::common::{exec_err, not_impl_err};
use datafusion::error::Result;
use datafusion::logical_expr::{
    ColumnarValue, Expr, LogicalPlan, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};

/// Returns `value` if `rows` is 0 or 1. Fails with an error for the user if `rows` is greater than 1 or NULL. NULL
/// means that the subquery was not evaluated for the key of the outer row. This happens only if the plan of the outer
/// rows returns different rows when it runs again.
pub(super) fn subquery_value(value: Expr, rows: Expr) -> Expr {
    ScalarUDF::new_from_impl(SubqueryValue { signature: Signature::any(2, Volatility::Immutable) })
        .call(vec![value, rows])
}

/// Returns true if the plan always returns exactly one row, or if its column can be NULL anyway. The engine assumes
/// that a scalar subquery is never NULL if its column is not nullable, so `(SELECT 9 FROM t WHERE false) IS NULL` would
/// be false.
pub(super) fn is_value_nullable_or_single(plan: &LogicalPlan) -> bool {
    if plan.schema().fields().first().is_some_and(|field| field.is_nullable()) {
        return true;
    }
    has_one_row(plan)
}

fn has_one_row(plan: &LogicalPlan) -> bool {
    match plan {
        LogicalPlan::Projection(projection) => has_one_row(&projection.input),
        LogicalPlan::SubqueryAlias(alias) => has_one_row(&alias.input),
        LogicalPlan::Sort(sort) => has_one_row(&sort.input),
        LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.is_empty(),
        LogicalPlan::EmptyRelation(empty) => empty.produce_one_row,
        _ => false,
    }
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct SubqueryValue {
    signature: Signature,
}

impl ScalarUDFImpl for SubqueryValue {
    fn name(&self) -> &'static str {
        "subquery_value"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, kinds: &[DataType]) -> Result<DataType> {
        Ok(kinds.first().cloned().unwrap_or(DataType::Null))
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        Ok(Arc::new(args.arg_fields[0].as_ref().clone().with_nullable(true)))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let mut given = args.args.into_iter();
        let (Some(value), Some(rows)) = (given.next(), given.next()) else {
            return exec_err!("subquery_value expects two arguments");
        };
        let rows = cast(&rows.into_array(args.number_rows)?, &DataType::Int64)?;
        if rows.null_count() > 0 {
            return not_impl_err!(
                "the rows of the outer query differ each time they are read (LIMIT without a unique order, random()): \
                 give them a unique ORDER BY, or use a join instead of the subquery"
            );
        }
        if rows.as_primitive::<Int64Type>().values().iter().any(|rows| *rows > 1) {
            return exec_err!("more than one row returned by a subquery used as an expression");
        }
        Ok(value)
    }
}
