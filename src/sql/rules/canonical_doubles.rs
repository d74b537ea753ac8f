//! Makes equal doubles equal wherever the engine compares their bits: 0.0 and -0.0, and all NaNs.
//!
//! The comparison operators, GROUP BY, DISTINCT and joins already treat 0.0 and -0.0 as equal. For the other cases,
//! this rule replaces `x` with `canonical_double(x)`:
//!
//! ```text
//!   ORDER BY x, OVER (PARTITION BY x ORDER BY x), count(DISTINCT x), array_agg(y ORDER BY x), DISTINCT ON (x)
//!   x IN (0.0, 1.0, …) and CASE x WHEN 0.0 …, unless all values are constants other than 0.0 and -0.0
//! ```
//!
//! The engine treats NaNs with different signs as different values, and NaNs with a negative sign as the smallest
//! values. The processor sets the sign of the NaNs that it computes, for example for `inf - inf`. The rule therefore
//! also adds `positive_nan` to arithmetic, to some functions, and to casts from text. Columns of tables contain no NaN,
//! because ingestion rejects it.

use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    BinaryExpr, Cast, Distinct, Expr, ExprSchemable as _, LogicalPlan, Operator, SortExpr, TryCast, Window,
};
use datafusion::optimizer::AnalyzerRule;

use crate::sql::functions::pass_through::{self, PassThrough};
use crate::sql::plan_expressions::{any_expression, rewrite_expressions};

/// The functions that can return NaN even if none of their arguments is NaN.
const NAN_FUNCTIONS: [&str; 18] = [
    "acos", "acosh", "asin", "atanh", "cos", "cot", "exp", "ln", "log", "log10", "log2", "mod", "power", "sin", "sqrt",
    "tan", "tanh", "div",
];

/// The analyzer rule that makes equal doubles equal. It runs after the engine's type coercion.
#[derive(Debug)]
pub(crate) struct CanonicalDoubleRule;

impl AnalyzerRule for CanonicalDoubleRule {
    fn name(&self) -> &'static str {
        "canonical_doubles"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|plan| match plan {
            LogicalPlan::Sort(mut sort) => {
                let is_changed = order(&mut sort.expr, sort.input.schema());
                Ok(Transformed::new_transformed(LogicalPlan::Sort(sort), is_changed))
            }
            LogicalPlan::Distinct(Distinct::On(mut distinct)) => {
                let schema = Arc::clone(distinct.input.schema());
                let keys = distinct.on_expr.iter_mut().map(|key| normalize(key, &schema)).fold(false, |a, b| a | b);
                let sort = distinct.sort_expr.as_mut().is_some_and(|keys| order(keys, &schema));
                Ok(Transformed::new_transformed(LogicalPlan::Distinct(Distinct::On(distinct)), keys | sort))
            }
            plan => rewrite_node(plan)?.transform_data(|plan| match plan {
                LogicalPlan::Window(window) => rewrite_window(window),
                plan => Ok(Transformed::no(plan)),
            }),
        })
        .map(|plan| plan.data)
    }
}

fn rewrite_node(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    if !any_expression(&plan, is_candidate)? {
        return Ok(Transformed::no(plan));
    }
    let schema = merge_schema(&plan.inputs());
    rewrite_expressions(plan, |expr| Ok(rewrite(expr, &schema)))
}

/// Returns true if the expression must be rewritten for some types of its operands.
fn is_candidate(expr: &Expr) -> bool {
    match expr {
        Expr::InList(list) => list.list.iter().any(may_be_zero),
        Expr::Case(case) => case.expr.is_some() && case.when_then_expr.iter().any(|(when, _)| may_be_zero(when)),
        Expr::AggregateFunction(call) => call.params.distinct || !call.params.order_by.is_empty(),
        Expr::ScalarFunction(call) => NAN_FUNCTIONS.contains(&call.func.name()),
        Expr::Cast(Cast { field, .. }) | Expr::TryCast(TryCast { field, .. }) => field.data_type().is_floating(),
        expr => is_arithmetic(expr),
    }
}

fn is_arithmetic(expr: &Expr) -> bool {
    use Operator::{Divide, Minus, Modulo, Multiply, Plus};
    match expr {
        Expr::BinaryExpr(BinaryExpr { op, .. }) => matches!(op, Plus | Minus | Multiply | Divide | Modulo),
        Expr::Negative(_) => true,
        _ => false,
    }
}

/// Makes the NaNs in the result of an operation canonical. The operands do not have to be canonical: every operation with
/// a NaN returns a NaN.
fn make_canonical(expr: &mut Expr, schema: &DFSchema) -> bool {
    let is_double = |operand: &Expr| {
        matches!(pass_through::called(operand), Some((PassThrough::PositiveNan, _)))
            || operand.get_type(schema).is_ok_and(|kind| kind.is_floating())
    };
    let is_computed = match &mut *expr {
        Expr::BinaryExpr(BinaryExpr { left, right, .. }) if is_double(left) => {
            without_call(left);
            without_call(right);
            true
        }
        Expr::Negative(operand) if is_double(operand) => {
            without_call(operand);
            true
        }
        Expr::Cast(Cast { expr: operand, .. }) | Expr::TryCast(TryCast { expr: operand, .. }) => {
            operand.get_type(schema).is_ok_and(|kind| kind.is_string())
        }
        Expr::ScalarFunction(_) => is_double(expr),
        _ => false,
    };
    if is_computed {
        *expr = PassThrough::PositiveNan.call(std::mem::take(expr));
    }
    is_computed
}

/// Removes a call that makes an operand canonical.
fn without_call(operand: &mut Expr) {
    if let Some((PassThrough::PositiveNan, inner)) = pass_through::called(operand) {
        *operand = inner.clone();
    }
}

fn rewrite(expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    let mut expr = expr;
    let is_changed = match &mut expr {
        Expr::InList(list) => {
            let may_be_zero = list.list.iter().any(may_be_zero);
            let is_changed = may_be_zero && normalize(&mut list.expr, schema);
            if is_changed {
                list.list.iter_mut().for_each(to_positive);
            }
            is_changed
        }
        Expr::Case(case) => {
            let may_be_zero = case.when_then_expr.iter().any(|(when, _)| may_be_zero(when));
            let is_changed = may_be_zero && case.expr.as_mut().is_some_and(|tested| normalize(tested, schema));
            if is_changed {
                case.when_then_expr.iter_mut().for_each(|(when, _)| to_positive(when));
            }
            is_changed
        }
        Expr::AggregateFunction(call) => {
            let is_distinct = call.params.distinct;
            let args = call.params.args.iter_mut().take(usize::from(is_distinct));
            let is_changed = args.map(|arg| normalize(arg, schema)).fold(false, |a, b| a | b);
            order(&mut call.params.order_by, schema) | is_changed
        }
        computed if is_candidate(computed) => make_canonical(computed, schema),
        _ => false,
    };
    Transformed::new_transformed(expr, is_changed)
}

/// Makes the keys of windows canonical. `computed_keys` then computes the keys in a projection below the window node.
fn rewrite_window(window: Window) -> Result<Transformed<LogicalPlan>> {
    let schema = Arc::clone(window.input.schema());
    rewrite_expressions(LogicalPlan::Window(window), |mut expr| {
        let Expr::WindowFunction(call) = &mut expr else { return Ok(Transformed::no(expr)) };
        let partitions =
            call.params.partition_by.iter_mut().map(|key| normalize(key, &schema)).fold(false, |a, b| a | b);
        let is_changed = order(&mut call.params.order_by, &schema) | partitions;
        Ok(Transformed::new_transformed(expr, is_changed))
    })
}

fn order(keys: &mut [SortExpr], schema: &DFSchema) -> bool {
    keys.iter_mut().map(|key| normalize(&mut key.expr, schema)).fold(false, |a, b| a | b)
}

/// Makes the values of a key canonical. Returns false if the key is not a double, or is constant.
fn normalize(key: &mut Expr, schema: &DFSchema) -> bool {
    let is_double = !matches!(key, Expr::Literal(..)) && key.get_type(schema).is_ok_and(|kind| kind.is_floating());
    let is_canonical = matches!(pass_through::called(key), Some((PassThrough::CanonicalDouble, _)));
    if is_double && !is_canonical {
        *key = PassThrough::CanonicalDouble.call(std::mem::take(key));
    }
    is_double
}

/// Makes a value canonical if it may be 0.0 or -0.0. The value is compared with a canonical key.
fn to_positive(value: &mut Expr) {
    if may_be_zero(value) {
        *value = PassThrough::CanonicalDouble.call(std::mem::take(value));
    }
}

/// Returns false if the expression is a constant other than 0.0 and -0.0.
fn may_be_zero(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(ScalarValue::Float64(Some(double)), _) => *double == 0.0,
        Expr::Literal(ScalarValue::Float32(Some(real)), _) => *real == 0.0,
        Expr::Literal(..) => false,
        _ => true,
    }
}
