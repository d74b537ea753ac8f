//! Plans `count(DISTINCT a, b)`, which counts the distinct pairs of values. As in MySQL and Spark, it ignores pairs
//! that contain NULL. In contrast, `count(DISTINCT (a, b))` counts these pairs, as in PostgreSQL.

use datafusion::error::Result;
use datafusion::functions::core::expr_fn::r#struct;
use datafusion::logical_expr::expr::AggregateFunction;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawAggregateExpr};
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, when};

/// Replaces the arguments with one row value. If any argument is NULL, the row value is NULL, so it is not counted.
#[derive(Debug)]
pub(crate) struct CountDistinctPlanner;

impl ExprPlanner for CountDistinctPlanner {
    fn plan_aggregate(&self, expr: RawAggregateExpr) -> Result<PlannerResult<RawAggregateExpr>> {
        if !expr.distinct || expr.args.len() < 2 || expr.func.name() != "count" {
            return Ok(PlannerResult::Original(expr));
        }
        let RawAggregateExpr { func, args, distinct, filter, order_by, null_treatment } = expr;
        let count = |args| AggregateFunction::new_udf(func, args, distinct, filter, order_by, null_treatment);
        let name = Expr::AggregateFunction(count.clone()(args.clone())).schema_name().to_string();
        let row = match conjunction(args.iter().map(|arg| arg.clone().is_not_null())) {
            Some(is_complete) => when(is_complete, r#struct(args)).end()?,
            None => r#struct(args),
        };
        Ok(PlannerResult::Planned(Expr::AggregateFunction(count(vec![row])).alias(name)))
    }
}
