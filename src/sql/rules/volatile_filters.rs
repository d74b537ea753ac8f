//! Prevents the optimizer from applying filters with volatile functions to the wrong rows.
//!
//! In `SELECT … FROM (SELECT k, count(*) FROM t GROUP BY k) AS q WHERE random() < 0.5`, the optimizer would apply the
//! condition, which refers to no column, to the rows of `t`. If a query groups by a volatile expression, the optimizer
//! would evaluate this expression again in a condition on the group. This rule inserts a LIMIT directly below such a
//! filter. No result reaches the LIMIT, and the optimizer does not move a condition below a LIMIT.

use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{Expr, Filter, Limit, LogicalPlan, lit};
use datafusion::optimizer::AnalyzerRule;

use crate::sql::ROWS_UNLIMITED;

/// The analyzer rule that keeps volatile conditions in place.
#[derive(Debug)]
pub(crate) struct VolatileFilterRule;

impl AnalyzerRule for VolatileFilterRule {
    fn name(&self) -> &'static str {
        "volatile_filters"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|plan| match plan {
            LogicalPlan::Filter(filter) => rewrite(filter),
            plan => Ok(Transformed::no(plan)),
        })
        .map(|plan| plan.data)
    }
}

fn rewrite(filter: Filter) -> Result<Transformed<LogicalPlan>> {
    let source = rows_of(&filter.input);
    let (fixed, mut movable): (Vec<_>, Vec<_>) = if has_volatile_keys(source) {
        (split_conjunction_owned(filter.predicate), Vec::new())
    } else if filter.predicate.is_volatile() && !is_table(source) {
        split_conjunction_owned(filter.predicate).into_iter().partition(Expr::is_volatile)
    } else {
        return Ok(Transformed::no(LogicalPlan::Filter(filter)));
    };
    let mut rows = filter.input;
    if let Some(predicate) = conjunction(movable.drain(..)) {
        rows = Arc::new(LogicalPlan::Filter(Filter::try_new(predicate, rows)?));
    }
    let limit = Limit { skip: None, fetch: Some(Box::new(lit(ROWS_UNLIMITED))), input: rows };
    let Some(predicate) = conjunction(fixed) else { return Ok(Transformed::yes(LogicalPlan::Limit(limit))) };
    let filter = Filter::try_new(predicate, Arc::new(LogicalPlan::Limit(limit)))?;
    Ok(Transformed::yes(LogicalPlan::Filter(filter)))
}

/// Returns the node that determines the rows of a plan: the first one that is not a projection, an alias, a filter or a
/// sort.
fn rows_of(plan: &LogicalPlan) -> &LogicalPlan {
    match plan {
        LogicalPlan::Projection(node) => rows_of(&node.input),
        LogicalPlan::SubqueryAlias(node) => rows_of(&node.input),
        LogicalPlan::Filter(node) => rows_of(&node.input),
        LogicalPlan::Sort(node) => rows_of(&node.input),
        other => other,
    }
}

fn is_table(plan: &LogicalPlan) -> bool {
    matches!(plan, LogicalPlan::TableScan(_) | LogicalPlan::Values(_) | LogicalPlan::EmptyRelation(_))
}

/// Returns true if the plan groups by a volatile expression.
fn has_volatile_keys(plan: &LogicalPlan) -> bool {
    matches!(plan, LogicalPlan::Aggregate(aggregate) if aggregate.group_expr.iter().any(Expr::is_volatile))
}
