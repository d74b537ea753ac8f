//! Functions whose result can be far larger than what they are given, with a bound.
//!
//! In: the engine's functions and an analysed plan. Out: the same, where each call that can grow estimates its result
//! first and refuses one of more than [`FUNCTION_BYTES_MAX`]. The engine accounts for the memory of sorts, joins and
//! aggregates, and not for the values that functions make: `repeat('x', 2000000000)` would be allocated without a question.
//!
//! ```text
//!   call ─► estimate per row ─► all rows fit? ─► call
//!                                   └─ no ─► rows that fit, piece by piece, while the real size fits
//! ```
//!
//! **Invariant:** it bounds one call on one batch; what reaches the next call is bounded by then, so nesting cannot grow.

use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef};
use arrow::compute::concat;
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use arrow::record_batch::{RecordBatch, RecordBatchOptions};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode as _};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::type_coercion::binary::BinaryTypeCoercer;
use datafusion::logical_expr::{
    BinaryExpr, ColumnarValue, Documentation, Expr, LogicalPlan, Operator, ReturnFieldArgs, ScalarFunctionArgs,
    ScalarUDF, ScalarUDFImpl, Signature, Volatility,
};
use datafusion::optimizer::AnalyzerRule;
use datafusion::physical_expr::PhysicalExpr;
use datafusion::physical_expr::expressions::{BinaryExpr as PhysicalBinary, Column, Literal};

use crate::error::Error;
use crate::query::functions::function_size::{FunctionSize, estimate, growth};

/// Bytes that one call of a function may make of one batch.
const FUNCTION_BYTES_MAX: usize = 32 << 20;

/// The same functions, those that grow with a bound.
pub(in crate::query) fn bounded(functions: Vec<Arc<ScalarUDF>>) -> Vec<Arc<ScalarUDF>> {
    functions.into_iter().map(|function| bound(&function).unwrap_or(function)).collect()
}

fn bound(function: &Arc<ScalarUDF>) -> Option<Arc<ScalarUDF>> {
    let growth = growth(function.name())?;
    let is_bound = function.inner().is::<BoundedFunction>();
    (!is_bound).then(|| Arc::new(ScalarUDF::new_from_impl(BoundedFunction { inner: Arc::clone(function), growth })))
}

/// Whether `function` is `||` with a bound, which stands in analysed plans only and has no name to be called by.
pub(in crate::query) fn is_operator(function: &ScalarUDF) -> bool {
    function.inner().is::<BoundedConcat>()
}

/// The last rule of the analyzer: bounds what the planner made itself (array literals, `||`), without the registry.
#[derive(Debug)]
pub(in crate::query) struct ResultSizeRule;

impl AnalyzerRule for ResultSizeRule {
    fn name(&self) -> &'static str {
        "bound_growth"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|plan| {
            let names = NamePreserver::new(&plan);
            plan.map_expressions(|expr| {
                let name = names.save(&expr);
                Ok(expr.transform_up(bound_expr)?.update_data(|expr| name.restore(expr)))
            })
        })
        .map(|plan| plan.data)
    }
}

fn bound_expr(expr: Expr) -> Result<Transformed<Expr>> {
    Ok(match expr {
        Expr::ScalarFunction(call) => match bound(&call.func) {
            Some(func) => Transformed::yes(Expr::ScalarFunction(ScalarFunction { func, ..call })),
            None => Transformed::no(Expr::ScalarFunction(call)),
        },
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::StringConcat, right }) => {
            let func = Arc::new(ScalarUDF::new_from_impl(BoundedConcat::new()));
            Transformed::yes(Expr::ScalarFunction(ScalarFunction { func, args: vec![*left, *right] }))
        }
        other => Transformed::no(other),
    })
}

/// A function with a bound. It is never simplified into another one, which would have none.
#[derive(Debug, PartialEq, Eq, Hash)]
struct BoundedFunction {
    inner: Arc<ScalarUDF>,
    growth: FunctionSize,
}

impl ScalarUDFImpl for BoundedFunction {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn aliases(&self) -> &[String] {
        self.inner.aliases()
    }

    fn signature(&self) -> &Signature {
        self.inner.signature()
    }

    fn return_type(&self, kinds: &[DataType]) -> Result<DataType> {
        self.inner.return_type(kinds)
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef> {
        self.inner.return_field_from_args(args)
    }

    fn coerce_types(&self, kinds: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.inner().coerce_types(kinds)
    }

    fn schema_name(&self, args: &[Expr]) -> Result<String> {
        self.inner.schema_name(args)
    }

    fn documentation(&self) -> Option<&Documentation> {
        self.inner.documentation()
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let sizes = estimate(self.growth, &args)?;
        if sizes.iter().fold(0, |sum: usize, size| sum.saturating_add(*size)) <= FUNCTION_BYTES_MAX {
            return self.inner.invoke_with_args(args);
        }
        let is_estimate_exact = matches!(
            self.growth,
            FunctionSize::Sum
                | FunctionSize::Separated
                | FunctionSize::Product
                | FunctionSize::Range
                | FunctionSize::Pad
        );
        if is_estimate_exact || sizes.iter().any(|size| *size > FUNCTION_BYTES_MAX) {
            return Err(too_large(self.name()));
        }
        self.piece_by_piece(&args, &sizes)
    }
}

impl BoundedFunction {
    /// Calls the function on as many rows at once as surely fit, as long as what really came out fits.
    fn piece_by_piece(&self, args: &ScalarFunctionArgs, sizes: &[usize]) -> Result<ColumnarValue> {
        let (mut pieces, mut made, mut start) = (Vec::<ArrayRef>::new(), 0, 0);
        while start < sizes.len() {
            let (mut end, mut expected) = (start, 0);
            while end < sizes.len() && expected + sizes[end] <= FUNCTION_BYTES_MAX {
                expected += sizes[end];
                end += 1;
            }
            let piece = slice(args, start, end - start);
            let piece = self.inner.invoke_with_args(piece)?.into_array(end - start)?;
            made += piece.get_array_memory_size();
            if made > FUNCTION_BYTES_MAX {
                return Err(too_large(self.name()));
            }
            pieces.push(piece);
            start = end;
        }
        let pieces: Vec<_> = pieces.iter().map(AsRef::as_ref).collect();
        Ok(ColumnarValue::Array(concat(&pieces)?))
    }
}

fn slice(args: &ScalarFunctionArgs, start: usize, rows: usize) -> ScalarFunctionArgs {
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

fn too_large(function: &str) -> DataFusionError {
    DataFusionError::External(Box::new(Error::limited(format!(
        "`{function}` would make more than {FUNCTION_BYTES_MAX} bytes at once: ask for shorter values"
    ))))
}

/// `a || b` with a bound. It is the engine's own operator, after a look at the sizes.
#[derive(Debug, PartialEq, Eq, Hash)]
struct BoundedConcat {
    signature: Signature,
}

impl BoundedConcat {
    fn new() -> Self {
        Self { signature: Signature::user_defined(Volatility::Immutable) }
    }
}

impl ScalarUDFImpl for BoundedConcat {
    fn name(&self) -> &'static str {
        "||"
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, kinds: &[DataType]) -> Result<DataType> {
        match kinds {
            [left, right] => BinaryTypeCoercer::new(left, &Operator::StringConcat, right).get_result_type(),
            _ => Err(DataFusionError::Internal("|| has two sides".to_owned())),
        }
    }

    fn coerce_types(&self, kinds: &[DataType]) -> Result<Vec<DataType>> {
        Ok(kinds.to_vec())
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        let sizes = estimate(FunctionSize::Sum, &args)?;
        if sizes.iter().fold(0, |sum: usize, size| sum.saturating_add(*size)) > FUNCTION_BYTES_MAX {
            return Err(too_large("||"));
        }
        let (mut fields, mut columns, mut sides) = (Vec::new(), Vec::new(), Vec::<Arc<dyn PhysicalExpr>>::new());
        for value in args.args {
            match value {
                ColumnarValue::Scalar(scalar) => sides.push(Arc::new(Literal::new(scalar))),
                ColumnarValue::Array(array) => {
                    sides.push(Arc::new(Column::new("side", columns.len())));
                    fields.push(Field::new("side", array.data_type().clone(), true));
                    columns.push(array);
                }
            }
        }
        let [left, right] =
            <[_; 2]>::try_from(sides).map_err(|_| DataFusionError::Internal("|| has two sides".to_owned()))?;
        let options = RecordBatchOptions::new().with_row_count(Some(args.number_rows));
        let batch = RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &options)?;
        PhysicalBinary::new(left, Operator::StringConcat, right).evaluate(&batch)
    }
}
