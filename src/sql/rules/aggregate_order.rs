//! Removes the ORDER BY in the parentheses of an aggregate whose result does not depend on it, such as
//! `sum(x ORDER BY y)`.
//!
//! The engine would sort the rows for such a call. In a query with GROUP BY, it would also pass the values of ORDER BY
//! to functions that do not expect them: `min` and `max` fail, and `count` and `bit_and` panic
//! (apache/datafusion#25401).

use datafusion::common::tree_node::Transformed;
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::optimizer::AnalyzerRule;

use crate::sql::plan_expressions::{any_expression, rewrite_expressions};

/// The functions whose result does not depend on the order of the rows, and that have no argument in WITHIN GROUP. Sums
/// are exact, so they do not depend on the order either.
const INSENSITIVE: [&str; 29] = [
    "approx_distinct",
    "approx_median",
    "avg",
    "bit_and",
    "bit_or",
    "bit_xor",
    "bool_and",
    "bool_or",
    "corr",
    "count",
    "covar_pop",
    "covar_samp",
    "max",
    "median",
    "min",
    "regr_avgx",
    "regr_avgy",
    "regr_count",
    "regr_intercept",
    "regr_r2",
    "regr_slope",
    "regr_sxx",
    "regr_sxy",
    "regr_syy",
    "stddev",
    "stddev_pop",
    "sum",
    "var",
    "var_pop",
];

/// The analyzer rule that removes the ORDER BY. It runs after the planner has resolved the columns in it.
#[derive(Debug)]
pub(crate) struct AggregateOrderRule;

impl AnalyzerRule for AggregateOrderRule {
    fn name(&self) -> &'static str {
        "aggregate_order"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|plan| {
            if !any_expression(&plan, has_useless_order)? {
                return Ok(Transformed::no(plan));
            }
            rewrite_expressions(plan, |mut expr| {
                let is_changed = has_useless_order(&expr);
                if let Expr::AggregateFunction(call) = &mut expr
                    && is_changed
                {
                    call.params.order_by.clear();
                }
                Ok(Transformed::new_transformed(expr, is_changed))
            })
        })
        .map(|plan| plan.data)
    }
}

fn has_useless_order(expr: &Expr) -> bool {
    matches!(expr, Expr::AggregateFunction(call)
        if !call.params.order_by.is_empty() && INSENSITIVE.contains(&call.func.name()))
}
