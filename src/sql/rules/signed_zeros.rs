//! Makes the doubles 0.0 and -0.0 equal wherever the engine compares the bits of doubles.
//!
//! The two are equal for the comparison operators, GROUP BY, DISTINCT and joins. For the other cases, this rule replaces
//! -0.0 with 0.0, or adds the other zero to the constants:
//!
//! ```text
//!   ORDER BY x, OVER (PARTITION BY x ORDER BY x), count(DISTINCT x)  ─►  positive_zero(x)
//!   x IN (0.0, 1.0, …)                  ─►  x IN (0.0, -0.0, 1.0, …)
//!   CASE x WHEN 0.0 THEN a WHEN 1.0 …   ─►  CASE x WHEN 0.0 THEN a WHEN -0.0 THEN a WHEN 1.0 …
//! ```

use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Expr, ExprSchemable as _, LogicalPlan, SortExpr};
use datafusion::optimizer::AnalyzerRule;

use crate::sql::functions::pass_through::PassThrough;
use crate::sql::plan_expressions::{any_expression, rewrite_expressions};

/// The analyzer rule that makes 0.0 and -0.0 equal. It runs after the engine's type coercion.
#[derive(Debug)]
pub(crate) struct SignedZeroRule;

impl AnalyzerRule for SignedZeroRule {
    fn name(&self) -> &'static str {
        "signed_zeros"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|plan| match plan {
            LogicalPlan::Sort(mut sort) => {
                let is_changed = order(&mut sort.expr, sort.input.schema());
                Ok(Transformed::new_transformed(LogicalPlan::Sort(sort), is_changed))
            }
            plan if any_expression(&plan, is_candidate)? => {
                let schema = merge_schema(&plan.inputs());
                rewrite_expressions(plan, |expr| Ok(rewrite(expr, &schema)))
            }
            plan => Ok(Transformed::no(plan)),
        })
        .map(|plan| plan.data)
    }
}

/// Returns true if the expression must be rewritten for some types of its operands.
fn is_candidate(expr: &Expr) -> bool {
    match expr {
        Expr::InList(list) => list.list.iter().any(|value| other_zero(value).is_some()),
        Expr::Case(case) => {
            case.expr.is_some() && case.when_then_expr.iter().any(|(when, _)| other_zero(when).is_some())
        }
        Expr::WindowFunction(_) => true,
        Expr::AggregateFunction(call) => call.params.distinct || !call.params.order_by.is_empty(),
        _ => false,
    }
}

fn rewrite(expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    let mut expr = expr;
    let is_changed = match &mut expr {
        Expr::InList(list) => {
            let zeros: Vec<_> =
                list.list.iter().filter_map(other_zero).filter(|zero| !list.list.contains(zero)).collect();
            let is_changed = !zeros.is_empty();
            list.list.extend(zeros);
            is_changed
        }
        Expr::Case(case) if case.expr.is_some() => {
            let branches = case.when_then_expr.len();
            let mut all = Vec::with_capacity(branches + 1);
            for (when, then) in std::mem::take(&mut case.when_then_expr) {
                let other = other_zero(&when).map(|zero| (Box::new(zero), then.clone()));
                all.push((when, then));
                all.extend(other);
            }
            case.when_then_expr = all;
            case.when_then_expr.len() > branches
        }
        Expr::WindowFunction(call) => {
            let is_changed =
                call.params.partition_by.iter_mut().map(|key| normalize(key, schema)).fold(false, |a, b| a | b);
            order(&mut call.params.order_by, schema) | is_changed
        }
        Expr::AggregateFunction(call) => {
            let is_distinct = call.params.distinct;
            let args = call.params.args.iter_mut().take(usize::from(is_distinct));
            let is_changed = args.map(|arg| normalize(arg, schema)).fold(false, |a, b| a | b);
            order(&mut call.params.order_by, schema) | is_changed
        }
        _ => false,
    };
    Transformed::new_transformed(expr, is_changed)
}

fn order(keys: &mut [SortExpr], schema: &DFSchema) -> bool {
    keys.iter_mut().map(|key| normalize(&mut key.expr, schema)).fold(false, |a, b| a | b)
}

/// Replaces -0.0 in the values of a key. Returns false if the key is not a double, or is constant.
fn normalize(key: &mut Expr, schema: &DFSchema) -> bool {
    let is_double = !matches!(key, Expr::Literal(..)) && key.get_type(schema).is_ok_and(|kind| kind.is_floating());
    if is_double {
        *key = PassThrough::PositiveZero.call(std::mem::take(key));
    }
    is_double
}

/// Returns the zero with the opposite sign, or `None` if the expression is not a zero literal.
fn other_zero(expr: &Expr) -> Option<Expr> {
    let Expr::Literal(value, metadata) = expr else { return None };
    let zero = match value {
        ScalarValue::Float64(Some(double)) if *double == 0.0 => ScalarValue::Float64(Some(-double)),
        ScalarValue::Float32(Some(real)) if *real == 0.0 => ScalarValue::Float32(Some(-real)),
        _ => return None,
    };
    Some(Expr::Literal(zero, metadata.clone()))
}
