//! Compares intervals as PostgreSQL does: a month counts as 30 days and a day as 24 hours.
//!
//! The engine compares the months of intervals first, then the days, and then the time. For the engine, 25 hours are
//! less than a day, and 30 days are not equal to a month. The rule runs before the engine's type coercion.
//!
//! - Comparisons, ORDER BY, PARTITION BY and join conditions compare the lengths of the intervals
//!   (`functions/interval_order.rs`).
//! - GROUP BY, DISTINCT, `min`, `max` and other functions that compare intervals are refused. Their results are
//!   intervals and not lengths, so they cannot be computed from the lengths.
//!
//! A plan without intervals is returned unchanged after one traversal.

use arrow::datatypes::{DataType, IntervalUnit};
use datafusion::common::DFSchema;
use datafusion::common::tree_node::Transformed;
use datafusion::config::ConfigOptions;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::expr::{AggregateFunction, InList, Sort, WindowFunction};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    BinaryExpr, Cast, Distinct, Expr, ExprSchemable as _, LogicalPlan, Operator, WindowFunctionDefinition,
};
use datafusion::optimizer::AnalyzerRule;

use crate::error::Error;
use crate::sql::functions::interval_order::interval_order;
use crate::sql::plan_expressions::{has_type, rewrite_expressions};

/// The aggregates that compare their arguments.
const AGGREGATES: [&str; 9] =
    ["min", "max", "min_by", "max_by", "arg_min", "arg_max", "mode", "percentile_disc", "median"];
/// The scalar functions that compare their arguments or the elements of a list.
const FUNCTIONS: [&str; 15] = [
    "array_distinct",
    "array_except",
    "array_has",
    "array_has_all",
    "array_has_any",
    "array_intersect",
    "array_max",
    "array_min",
    "array_position",
    "array_remove",
    "array_sort",
    "array_union",
    "greatest",
    "least",
    "nullif",
];
/// The scalar functions that return intervals although none of their arguments is an interval.
const SOURCES: [&str; 4] = ["age", "arrow_cast", "arrow_try_cast", "make_interval"];

/// Replaces intervals with their lengths where they are compared.
#[derive(Debug)]
pub(crate) struct IntervalComparisonRule;

impl AnalyzerRule for IntervalComparisonRule {
    fn name(&self) -> &'static str {
        "compare_intervals"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        if !has_intervals(&plan)? {
            return Ok(plan);
        }
        plan.transform_up_with_subqueries(rewrite_node).map(|plan| plan.data)
    }
}

/// Returns true if a column, literal, cast or function of the plan can be an interval.
fn has_intervals(plan: &LogicalPlan) -> Result<bool> {
    let is_source = |expr: &Expr| matches!(expr, Expr::ScalarFunction(call) if SOURCES.contains(&call.func.name()));
    has_type(plan, has_interval, is_source)
}

/// Returns true if the type is an interval, or contains intervals.
fn has_interval(kind: &DataType) -> bool {
    match kind {
        DataType::Interval(_) => true,
        DataType::List(item) | DataType::LargeList(item) | DataType::FixedSizeList(item, _) => {
            has_interval(item.data_type())
        }
        DataType::Struct(fields) => fields.iter().any(|field| has_interval(field.data_type())),
        DataType::Map(entries, _) => has_interval(entries.data_type()),
        DataType::Dictionary(_, values) => has_interval(values),
        _ => false,
    }
}

fn rewrite_node(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    check_node(&plan)?;
    let schema = match &plan {
        LogicalPlan::TableScan(scan) => DFSchema::clone(&scan.projected_schema),
        plan => merge_schema(&plan.inputs()),
    };
    let plan = rewrite_expressions(plan, |expr| rewrite_expr(expr, &schema))?;
    plan.transform_data(|plan| match plan {
        LogicalPlan::Sort(mut sort) => {
            let is_changed = order_by_length(&mut sort.expr, &schema)?;
            Ok(transformed(LogicalPlan::Sort(sort), is_changed))
        }
        LogicalPlan::Join(mut join) => {
            let mut is_changed = false;
            for (left, right) in &mut join.on {
                let kinds = [kind_of(left, join.left.schema()), kind_of(right, join.right.schema())];
                is_changed |= compare_lengths(&mut [left, right], &kinds)?;
            }
            Ok(transformed(LogicalPlan::Join(join), is_changed))
        }
        plan => Ok(Transformed::no(plan)),
    })
}

/// Refuses a node that finds equal intervals and returns one of them.
fn check_node(plan: &LogicalPlan) -> Result<()> {
    let has_column = |schema: &DFSchema| schema.fields().iter().any(|field| has_interval(field.data_type()));
    match plan {
        LogicalPlan::Aggregate(aggregate) => {
            let mut groups = aggregate.group_expr.iter();
            refuse(groups.any(|group| is_interval(group, aggregate.input.schema())), "GROUP BY")
        }
        LogicalPlan::Distinct(Distinct::All(input)) => refuse(has_column(input.schema()), "DISTINCT"),
        LogicalPlan::Distinct(Distinct::On(distinct)) => {
            let mut keys = distinct.on_expr.iter();
            refuse(keys.any(|key| is_interval(key, distinct.input.schema())), "DISTINCT ON")
        }
        LogicalPlan::RecursiveQuery(query) => refuse(query.is_distinct && has_column(&query.schema), "UNION"),
        _ => Ok(()),
    }
}

fn is_interval(expr: &Expr, schema: &DFSchema) -> bool {
    match expr {
        Expr::GroupingSet(sets) => sets.distinct_expr().into_iter().any(|expr| is_interval(expr, schema)),
        expr => kind_of(expr, schema).is_some_and(|kind| has_interval(&kind)),
    }
}

fn refuse(is_interval: bool, clause: &str) -> Result<()> {
    if !is_interval {
        return Ok(());
    }
    Err(DataFusionError::External(Box::new(Error::unsupported(format!(
        "{clause} of intervals is not supported: use the seconds of the interval, as in extract(epoch FROM x)"
    )))))
}

fn kind_of(expr: &Expr, schema: &DFSchema) -> Option<DataType> {
    expr.get_type(schema).ok()
}

fn rewrite_expr(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let mut expr = expr;
    let is_changed = match &mut expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_comparison(*op) => {
            compare_all(&mut [&mut **left, &mut **right], schema)?
        }
        Expr::Between(between) => {
            compare_all(&mut [&mut *between.expr, &mut *between.low, &mut *between.high], schema)?
        }
        Expr::InList(InList { expr, list, .. }) => {
            compare_all(&mut std::iter::once(&mut **expr).chain(list).collect::<Vec<_>>(), schema)?
        }
        Expr::Case(case) => match &mut case.expr {
            Some(operand) => {
                let tests = case.when_then_expr.iter_mut().map(|(when, _)| &mut **when);
                compare_all(&mut std::iter::once(&mut **operand).chain(tests).collect::<Vec<_>>(), schema)?
            }
            None => false,
        },
        Expr::InSubquery(tested) => {
            refuse(is_interval(&tested.expr, schema), "IN with a subquery")?;
            false
        }
        Expr::SetComparison(tested) => {
            refuse(is_interval(&tested.expr, schema), "ANY or ALL with a subquery")?;
            false
        }
        Expr::ScalarFunction(call) if FUNCTIONS.contains(&call.func.name()) => {
            refuse(call.args.iter().any(|arg| is_interval(arg, schema)), call.func.name())?;
            false
        }
        Expr::AggregateFunction(AggregateFunction { func, params }) => {
            check_aggregate(func.name(), params.distinct, &params.args, schema)?;
            order_by_length(&mut params.order_by, schema)?
        }
        Expr::WindowFunction(function) => {
            let WindowFunction { fun, params } = &mut **function;
            if let WindowFunctionDefinition::AggregateUDF(func) = fun {
                check_aggregate(func.name(), params.distinct, &params.args, schema)?;
            }
            let mut is_changed = order_by_length(&mut params.order_by, schema)?;
            for key in &mut params.partition_by {
                is_changed |= to_length(key, schema)?;
            }
            is_changed
        }
        _ => false,
    };
    Ok(transformed(expr, is_changed))
}

fn transformed<T>(value: T, is_changed: bool) -> Transformed<T> {
    Transformed::new_transformed(value, is_changed)
}

fn check_aggregate(name: &str, is_distinct: bool, args: &[Expr], schema: &DFSchema) -> Result<()> {
    if !is_distinct && !AGGREGATES.contains(&name) {
        return Ok(());
    }
    let clause = if is_distinct { format!("{name}(DISTINCT …)") } else { name.to_owned() };
    refuse(args.iter().any(|arg| is_interval(arg, schema)), &clause)
}

fn is_comparison(op: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

/// Replaces intervals in ORDER BY with their lengths. Returns true if an expression was changed.
fn order_by_length(order_by: &mut [Sort], schema: &DFSchema) -> Result<bool> {
    let mut is_changed = false;
    for sort in order_by {
        is_changed |= to_length(&mut sort.expr, schema)?;
    }
    Ok(is_changed)
}

fn to_length(expr: &mut Expr, schema: &DFSchema) -> Result<bool> {
    match kind_of(expr, schema) {
        Some(DataType::Interval(_)) => {
            *expr = interval_order(std::mem::take(expr));
            Ok(true)
        }
        kind => refuse(kind.as_ref().is_some_and(has_interval), "ORDER BY").map(|()| false),
    }
}

fn compare_all(exprs: &mut [&mut Expr], schema: &DFSchema) -> Result<bool> {
    let kinds: Vec<_> = exprs.iter().map(|expr| kind_of(expr, schema)).collect();
    compare_lengths(exprs, &kinds)
}

/// If one of several expressions that are compared with each other is an interval, replaces all of them with their
/// lengths, and returns true.
fn compare_lengths(exprs: &mut [&mut Expr], kinds: &[Option<DataType>]) -> Result<bool> {
    let is_scalar = |kind: &DataType| matches!(kind, DataType::Interval(_));
    if !kinds.iter().flatten().any(is_scalar) {
        let is_nested = kinds.iter().flatten().any(has_interval);
        return refuse(is_nested, "a comparison of rows or lists").map(|()| false);
    }
    for (expr, kind) in exprs.iter_mut().zip(kinds) {
        let value = match kind {
            Some(DataType::Interval(_) | DataType::Duration(_)) => std::mem::take(*expr),
            Some(kind) if kind.is_string() => {
                let interval = DataType::Interval(IntervalUnit::MonthDayNano);
                Expr::Cast(Cast::new(Box::new(std::mem::take(*expr)), interval))
            }
            // The type of a placeholder can be unknown.
            None | Some(DataType::Null) => continue,
            Some(kind) => {
                return Err(DataFusionError::Plan(format!("cannot compare an interval with a value of type {kind}")));
            }
        };
        **expr = interval_order(value);
    }
    Ok(true)
}
