//! Chooses common types for dates and timestamps. The rule runs before the engine's type coercion.
//!
//! To compare a timestamp with a date, the engine converts both to nanoseconds. Timestamps in nanoseconds cover only
//! the years 1678 to 2261, so a single row with the date 9999-12-31 would make the query fail. This rule instead casts
//! the date to the type of the timestamp. It also adds intervals to dates as PostgreSQL does. The engine would drop the
//! hours in `DATE '2026-01-01' + INTERVAL '36 hours'`.
//!
//! The rule also calls `boolean_predicates.rs` for each expression, which saves another traversal of the plan.
//!
//! **Invariant:** the rule coerces only values that the engine would otherwise coerce.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::datatypes::{DataType, Field, TimeUnit};
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::Transformed;
use datafusion::common::{Column, DFSchema, ScalarValue};
use datafusion::datasource::source_as_provider;
use datafusion::error::{DataFusionError, Result};
use datafusion::functions_table::generate_series::GenerateSeriesTable;
use datafusion::logical_expr::expr::InSubquery;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    BinaryExpr, Cast, Expr, ExprSchemable as _, LogicalPlan, Operator, Projection, TableScan, TryCast, Union,
};
use datafusion::optimizer::AnalyzerRule;

use crate::sql::functions::calendar::{Zone, complete_time, naive_timestamp};
use crate::sql::plan_expressions::rewrite_expressions;
use crate::sql::rules::{boolean_predicates, time_units};

/// The analyzer rule that chooses common types for dates and timestamps.
#[derive(Debug)]
pub(crate) struct TimeCoercionRule;

impl AnalyzerRule for TimeCoercionRule {
    fn name(&self) -> &'static str {
        "coerce_times"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(rewrite_node).map(|plan| plan.data)
    }
}

/// Rewrites a node whose inputs are already rewritten.
fn rewrite_node(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let plan = match plan {
        LogicalPlan::Union(union) => return rewrite_union(union),
        LogicalPlan::TableScan(scan) if is_time_series(&scan)? => return rewrite_series(LogicalPlan::TableScan(scan)),
        plan => plan,
    };
    let mut schema: Cow<'_, DFSchema> = match plan.inputs().as_slice() {
        [input] => Cow::Owned(input.schema().as_ref().clone()),
        inputs => Cow::Owned(merge_schema(inputs)),
    };
    if let LogicalPlan::TableScan(scan) = &plan {
        let source = DFSchema::try_from_qualified_schema(scan.table_name.clone(), &scan.source.schema())?;
        schema.to_mut().merge(&source);
    }
    let plan = rewrite_expressions(plan, |expr| {
        rewrite_expr(expr, &schema)?.transform_data(|expr| Ok(boolean_predicates::rewrite(expr)))
    })?;
    let plan = plan.transform_data(rewrite_join)?;
    if plan.transformed { plan.map_data(LogicalPlan::recompute_schema) } else { Ok(plan) }
}

/// Returns true if the scan reads timestamps in nanoseconds from `generate_series`.
fn is_time_series(scan: &TableScan) -> Result<bool> {
    let is_nanos = |field: &Arc<Field>| matches!(field.data_type(), DataType::Timestamp(TimeUnit::Nanosecond, _));
    Ok(scan.projected_schema.fields().iter().any(is_nanos)
        && source_as_provider(&scan.source)?.is::<GenerateSeriesTable>())
}

/// Converts the timestamps of a series to microseconds.
fn rewrite_series(scan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let columns = scan.schema().iter().map(|(qualifier, field)| {
        let column = Expr::Column(Column::from((qualifier, field)));
        match field.data_type() {
            DataType::Timestamp(TimeUnit::Nanosecond, zone) => {
                let kind = DataType::Timestamp(TimeUnit::Microsecond, zone.clone());
                cast(column, kind).alias_qualified(qualifier.cloned(), field.name())
            }
            _ => column,
        }
    });
    let columns = columns.collect();
    Ok(Transformed::yes(LogicalPlan::Projection(Projection::try_new(columns, Arc::new(scan))?)))
}

/// Casts the keys of JOIN … USING, which a plan stores as pairs of expressions instead of comparisons.
fn rewrite_join(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    let LogicalPlan::Join(mut join) = plan else { return Ok(Transformed::no(plan)) };
    let mut changed = false;
    for (left, right) in &mut join.on {
        let kinds = [left.get_type(join.left.schema()).ok(), right.get_type(join.right.schema()).ok()];
        changed |= unify(&mut [left, right], &kinds);
    }
    Ok(Transformed::new_transformed(LogicalPlan::Join(join), changed))
}

/// Casts the dates in the columns of a UNION that contain both dates and timestamps, and times of day to a common unit.
fn rewrite_union(union: Union) -> Result<Transformed<LogicalPlan>> {
    let targets: Vec<Option<DataType>> = (0..union.schema.fields().len())
        .map(|index| {
            let kind =
                |input: &Arc<LogicalPlan>| input.schema().fields().get(index).map(|field| field.data_type().clone());
            let kinds: Vec<_> = union.inputs.iter().map(kind).collect();
            common_type(&kinds).or_else(|| time_units::common_unit(&kinds))
        })
        .collect();
    if targets.iter().all(Option::is_none) {
        return Ok(Transformed::no(LogicalPlan::Union(union)));
    }
    let inputs = union.inputs.into_iter().map(|input| {
        let columns = input.schema().iter().zip(&targets).map(|((qualifier, field), target)| {
            let column = Expr::Column(Column::from((qualifier, field)));
            match target {
                Some(kind) if is_date(field.data_type()) || time_units::unit(field.data_type()).is_some() => {
                    cast(column, kind.clone()).alias_qualified(qualifier.cloned(), field.name())
                }
                _ => column,
            }
        });
        let columns = columns.collect();
        Ok(Arc::new(LogicalPlan::Projection(Projection::try_new(columns, input)?)))
    });
    let union = Union::try_new_with_loose_types(inputs.collect::<Result<_>>()?)?;
    Ok(Transformed::yes(LogicalPlan::Union(union)))
}

fn rewrite_expr(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let kind_of = |expr: &Expr| expr.get_type(schema).ok();
    let mut expr = expr;
    let changed = match &mut expr {
        Expr::Cast(Cast { expr: inner, field }) | Expr::TryCast(TryCast { expr: inner, field }) => {
            rewrite_cast(inner, field.data_type(), schema)?
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            let kinds = [kind_of(left), kind_of(right)];
            match op {
                Operator::Plus | Operator::Minus => {
                    let is_difference =
                        *op == Operator::Minus && unify_with(&mut [&mut **left, &mut **right], &kinds, false);
                    is_difference || widen_date(left, right, &kinds)
                }
                op if is_comparison(*op) => unify(&mut [&mut **left, &mut **right], &kinds),
                _ => false,
            }
        }
        Expr::Between(between) => {
            let kinds = [kind_of(&between.expr), kind_of(&between.low), kind_of(&between.high)];
            unify(&mut [&mut *between.expr, &mut *between.low, &mut *between.high], &kinds)
        }
        Expr::InList(list) => {
            let mut all: Vec<&mut Expr> = std::iter::once(&mut *list.expr).chain(&mut list.list).collect();
            unify_all(&mut all, schema)
        }
        Expr::InSubquery(test) => rewrite_in_subquery(test, schema)?,
        Expr::Case(case) => {
            let results = case.when_then_expr.iter_mut().map(|(_, then)| &mut **then);
            let mut results: Vec<&mut Expr> =
                results.chain(case.else_expr.iter_mut().map(|expr| &mut **expr)).collect();
            let is_changed = unify_all(&mut results, schema);
            let tests = case.when_then_expr.iter_mut().map(|(when, _)| &mut **when);
            let is_simple = case.expr.is_some();
            let mut tests: Vec<&mut Expr> = case.expr.iter_mut().map(|expr| &mut **expr).chain(tests).collect();
            is_simple && unify_all(&mut tests, schema) || is_changed
        }
        Expr::WindowFunction(call) if ["lag", "lead"].contains(&call.fun.name()) => {
            match call.params.args.as_mut_slice() {
                [value, _, default] => unify_all(&mut [value, default], schema),
                _ => false,
            }
        }
        Expr::ScalarFunction(call) => match call.func.name() {
            "coalesce" | "nvl" | "greatest" | "least" | "nullif" | "make_array" => {
                unify_all(&mut call.args.iter_mut().collect::<Vec<_>>(), schema)
            }
            "nvl2" => unify_all(&mut call.args.iter_mut().skip(1).collect::<Vec<_>>(), schema),
            "generate_series" | "range" => {
                if let Ok(DataType::List(element)) = expr.get_type(schema)
                    && let DataType::Timestamp(TimeUnit::Nanosecond, zone) = element.data_type()
                {
                    let kind = DataType::Timestamp(TimeUnit::Microsecond, zone.clone());
                    let kind = DataType::List(Arc::new(element.as_ref().clone().with_data_type(kind)));
                    return Ok(Transformed::yes(cast(expr, kind)));
                }
                false
            }
            "arrow_cast" | "arrow_try_cast" => {
                if let Ok(DataType::Timestamp(_, Some(zone))) = expr.get_type(schema) {
                    Zone::parse(&zone)?;
                }
                false
            }
            _ => false,
        },
        _ => false,
    };
    Ok(Transformed::new_transformed(expr, changed))
}

/// Casts the dates in `timestamp IN (SELECT date …)` and `date IN (SELECT timestamp …)`. Returns true if `test` was
/// changed.
fn rewrite_in_subquery(test: &mut InSubquery, schema: &DFSchema) -> Result<bool> {
    let columns = Arc::clone(test.subquery.subquery.schema());
    let Some((qualifier, field)) = columns.iter().next() else { return Ok(false) };
    let kinds = [test.expr.get_type(schema).ok(), Some(field.data_type().clone())];
    let Some(target) = common_type(&kinds) else { return Ok(false) };
    if is_date(field.data_type()) {
        let column = cast(Expr::Column(Column::from((qualifier, field))), target).alias(field.name());
        let rows = Projection::try_new(vec![column], Arc::clone(&test.subquery.subquery))?;
        test.subquery = test.subquery.with_plan(Arc::new(LogicalPlan::Projection(rows)));
    } else {
        *test.expr = cast(std::mem::take(&mut *test.expr), target);
    }
    Ok(true)
}

/// Prepares the operand of a cast to a timestamp. An integer is interpreted as seconds, as in the engine's casts to
/// nanoseconds, and a string constant is rewritten with [`complete_time`]. Returns true if `inner` was changed, and an
/// error if the time zone of the timestamp is unknown.
fn rewrite_cast(inner: &mut Expr, target: &DataType, schema: &DFSchema) -> Result<bool> {
    let DataType::Timestamp(unit, zone) = target else { return Ok(false) };
    if let Some(zone) = zone {
        Zone::parse(zone)?;
    }
    if let Some(text) = constant_text(inner) {
        return Ok(complete_time(text));
    }
    if !matches!(unit, TimeUnit::Microsecond | TimeUnit::Nanosecond) {
        return Ok(false);
    }
    match inner.get_type(schema) {
        Ok(kind) if kind.is_integer() => {
            let seconds = DataType::Timestamp(TimeUnit::Second, zone.clone());
            *inner = cast(std::mem::take(inner), seconds);
            Ok(true)
        }
        Ok(kind) if kind.is_floating() || kind.is_decimal() => {
            Err(DataFusionError::Plan(format!("cannot cast {kind} to a timestamp: use to_timestamp(seconds)")))
        }
        _ => Ok(false),
    }
}

fn constant_text(expr: &mut Expr) -> Option<&mut String> {
    match expr {
        Expr::Literal(ScalarValue::Utf8(text) | ScalarValue::LargeUtf8(text) | ScalarValue::Utf8View(text), _) => {
            text.as_mut()
        }
        _ => None,
    }
}

fn is_comparison(op: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

fn is_date(kind: &DataType) -> bool {
    matches!(kind, DataType::Date32 | DataType::Date64)
}

fn cast(expr: Expr, kind: DataType) -> Expr {
    Expr::Cast(Cast::new(Box::new(expr), kind))
}

/// Returns the type to which dates are cast: a timestamp with the time zone, if any, of the first timestamp in `kinds`.
/// Returns `None` unless `kinds` contains both dates and timestamps.
fn common_type(kinds: &[Option<DataType>]) -> Option<DataType> {
    let mut kinds_known = kinds.iter().flatten();
    let zone = kinds_known.find_map(|kind| match kind {
        DataType::Timestamp(_, zone) => Some(zone.clone()),
        _ => None,
    })?;
    let has_date = kinds.iter().flatten().any(is_date);
    has_date.then_some(DataType::Timestamp(TimeUnit::Microsecond, zone))
}

fn unify_all(exprs: &mut [&mut Expr], schema: &DFSchema) -> bool {
    let kinds: Vec<_> = exprs.iter().map(|expr| expr.get_type(schema).ok()).collect();
    unify(exprs, &kinds)
}

/// Casts dates that are combined with timestamps, and rewrites string constants with [`complete_time`]. Converts
/// constants in nanoseconds to microseconds if they are combined with other units and no digits would be lost. Casts times
/// of day to a common unit. Returns true if an expression was changed.
fn unify(exprs: &mut [&mut Expr], kinds: &[Option<DataType>]) -> bool {
    unify_with(exprs, kinds, true)
}

/// Like [`unify`], but keeps constants in nanoseconds if `converts_nanos` is false. A difference of times needs this,
/// because the engine computes it in the finer of the two units.
fn unify_with(exprs: &mut [&mut Expr], kinds: &[Option<DataType>], converts_nanos: bool) -> bool {
    if !kinds.iter().flatten().any(|kind| matches!(kind, DataType::Timestamp(_, _))) {
        return time_units::unify(exprs, kinds);
    }
    let target = common_type(kinds);
    let is_other = |kind: &DataType| matches!(kind, DataType::Timestamp(unit, _) if *unit != TimeUnit::Nanosecond);
    let is_mixed = converts_nanos && (target.is_some() || kinds.iter().flatten().any(is_other));
    let mut changed = false;
    for (expr, kind) in exprs.iter_mut().zip(kinds) {
        let is_date = kind.as_ref().is_some_and(is_date);
        match (&target, &mut **expr) {
            (Some(target), expr) if is_date => {
                *expr = cast(std::mem::take(expr), target.clone());
                changed = true;
            }
            (_, Expr::Literal(value @ ScalarValue::TimestampNanosecond(Some(_), _), _)) if is_mixed => {
                if let ScalarValue::TimestampNanosecond(Some(nanos), zone) = value
                    && *nanos % 1_000 == 0
                {
                    *value = ScalarValue::TimestampMicrosecond(Some(*nanos / 1_000), zone.clone());
                    changed = true;
                }
            }
            (_, expr) => changed |= constant_text(expr).is_some_and(complete_time),
        }
    }
    changed
}

/// Casts a date to a timestamp if the added interval has a time of day or is not constant.
fn widen_date(left: &mut Expr, right: &mut Expr, kinds: &[Option<DataType>; 2]) -> bool {
    let (date, interval) = match kinds {
        [Some(date), Some(DataType::Interval(_) | DataType::Duration(_))] if is_date(date) => (left, right),
        [Some(DataType::Interval(_) | DataType::Duration(_)), Some(date)] if is_date(date) => (right, left),
        _ => return false,
    };
    let is_whole = match interval {
        Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(interval)), _) => interval.nanoseconds == 0,
        Expr::Literal(ScalarValue::IntervalDayTime(Some(interval)), _) => interval.milliseconds == 0,
        Expr::Literal(ScalarValue::IntervalYearMonth(_), _) => true,
        _ => false,
    };
    if !is_whole {
        *date = cast(std::mem::take(date), naive_timestamp());
    }
    !is_whole
}
