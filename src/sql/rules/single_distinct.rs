//! Prevents the engine from computing a sum by adding rounded sums of groups.
//!
//! For `sum(x), count(DISTINCT y)`, the engine's rule `single_distinct_aggregation_to_group_by` first groups by `y` and
//! then adds the sums of these groups. The sums of the groups are already rounded and range-checked. The result would
//! therefore differ from the result of `sum(x)` alone, and an integer sum could fail even if the total is in range. The
//! wrapper in this file therefore skips the engine's rule for queries with such a sum.

use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

const RULE: &str = "single_distinct_aggregation_to_group_by";

/// Wraps the engine's rule `single_distinct_aggregation_to_group_by`, and returns the other rules unchanged.
pub(crate) fn wrap(rules: Vec<Arc<dyn OptimizerRule + Send + Sync>>) -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    let wrap = |rule: Arc<dyn OptimizerRule + Send + Sync>| match rule.name() {
        RULE => Arc::new(SingleDistinct(rule)),
        _ => rule,
    };
    rules.into_iter().map(wrap).collect()
}

#[derive(Debug)]
struct SingleDistinct(Arc<dyn OptimizerRule + Send + Sync>);

impl OptimizerRule for SingleDistinct {
    fn name(&self) -> &'static str {
        RULE
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, config: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        match &plan {
            LogicalPlan::Aggregate(aggregate) if aggregate.aggr_expr.iter().any(is_sum) => Ok(Transformed::no(plan)),
            _ => self.0.rewrite(plan, config),
        }
    }
}

/// Returns true if the expression is a sum without DISTINCT.
fn is_sum(expr: &Expr) -> bool {
    match expr {
        Expr::AggregateFunction(call) => !call.params.distinct && call.func.name() == "sum",
        Expr::Alias(alias) => is_sum(&alias.expr),
        _ => false,
    }
}
