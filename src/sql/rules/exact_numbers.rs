//! Chooses the types of expressions that contain decimals. The rule runs before the engine's type coercion.
//!
//! A literal with a decimal point is a decimal, which is exact. If a decimal is combined with a double, the result is a
//! double, as in PostgreSQL. The engine would cast the double to a decimal with 15 digits after the point, and would
//! lose digits or fail. `functions/checked_arithmetic.rs` determines the number of digits in a quotient of decimals.
//!
//! Decimals are compared with other decimals and with integers in a type that contains all digits of both, which can be a
//! decimal with up to 76 digits. The engine would use 38 digits, and fail for values that have more in the common type.
//!
//! This rule also replaces comparisons between 64-bit integers and doubles with exact comparisons. A plan without
//! decimals or doubles is returned unchanged after one traversal.

use std::cell::Cell;
use std::sync::Arc;

use arrow::datatypes::{DECIMAL128_MAX_PRECISION, DataType};
use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::logical_expr::expr::{Between, Case, InList, InSubquery, ScalarFunction};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{
    BinaryExpr, Cast, Expr, ExprSchemable as _, LogicalPlan, LogicalPlanBuilder, Operator, Union, Values,
};
use datafusion::optimizer::AnalyzerRule;

use crate::sql::functions::checked_arithmetic::CheckedOperator;
use crate::sql::functions::decimal_types::{common_fraction, decimal128, wide_decimal};
use crate::sql::functions::exact_comparison::exact_comparison;
use crate::sql::functions::rounding_cast::cast_operand;
use crate::sql::plan_expressions::{has_type, rewrite_expressions};

/// Casts decimals to doubles in expressions that contain both, and replaces divisions of decimals.
#[derive(Debug)]
pub(crate) struct ExactNumbersRule;

impl AnalyzerRule for ExactNumbersRule {
    fn name(&self) -> &'static str {
        "exact_numbers"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        if !has_fractions(&plan)? {
            return Ok(plan);
        }
        // If a type changes, the schemas of the parent nodes also change.
        let is_changed = Cell::new(false);
        plan.transform_up_with_subqueries(|plan| rewrite_node(plan, &is_changed)).map(|plan| plan.data)
    }
}

/// Returns true if the type of a column, literal or cast in the plan is a decimal or a double.
fn has_fractions(plan: &LogicalPlan) -> Result<bool> {
    has_type(plan, |kind| kind.is_decimal() || kind.is_floating(), |_| false)
}

fn rewrite_node(plan: LogicalPlan, is_changed: &Cell<bool>) -> Result<Transformed<LogicalPlan>> {
    let schema = match &plan {
        LogicalPlan::TableScan(scan) => DFSchema::clone(&scan.projected_schema),
        plan => merge_schema(&plan.inputs()),
    };
    let rewritten = rewrite_expressions(plan, |expr| rewrite_expr(expr, &schema))?;
    is_changed.set(is_changed.get() || rewritten.transformed);
    let plan = match rewritten.data {
        LogicalPlan::Union(union) => rewrite_union(union, is_changed)?,
        LogicalPlan::Join(mut join) => {
            for (left, right) in &mut join.on {
                let kinds = (left.get_type(join.left.schema()), right.get_type(join.right.schema()));
                if let (Ok(left_kind), Ok(right_kind)) = kinds {
                    if left_kind.is_floating() && right_kind.is_decimal() {
                        *right = to_double(std::mem::take(right));
                    } else if left_kind.is_decimal() && right_kind.is_floating() {
                        *left = to_double(std::mem::take(left));
                    } else if let Some(target) = wide_decimal(&[left_kind.clone(), right_kind.clone()]) {
                        *left = cast_to(std::mem::take(left), &left_kind, target.clone());
                        *right = cast_to(std::mem::take(right), &right_kind, target);
                    }
                }
            }
            LogicalPlan::Join(join)
        }
        LogicalPlan::Values(values) => rewrite_values(values, is_changed)?,
        plan => plan,
    };
    let plan = if is_changed.get() { plan.recompute_schema()? } else { plan };
    Ok(Transformed::yes(plan))
}

/// Casts the numbers in the columns of a UNION to their common type, if an input has a decimal or a double. At this
/// point, the schema of the UNION still contains the types of the first input.
fn rewrite_union(union: Union, is_changed: &Cell<bool>) -> Result<LogicalPlan> {
    let columns = union.schema.fields().len();
    let kind =
        |input: &LogicalPlan, column: usize| input.schema().fields().get(column).map(|at| at.data_type().clone());
    let targets: Vec<Option<DataType>> = (0..columns)
        .map(|column| {
            let kinds: Vec<_> = union.inputs.iter().filter_map(|input| kind(input, column)).collect();
            common_fraction(&kinds)
        })
        .collect();
    if targets.iter().all(Option::is_none) {
        return Ok(LogicalPlan::Union(union));
    }
    is_changed.set(true);
    let inputs = union.inputs.into_iter().map(|input| {
        let exprs = input.schema().iter().zip(&targets).map(|((qualifier, field), target)| {
            let column = Expr::from((qualifier, field));
            match target {
                Some(target) if field.data_type().is_numeric() && field.data_type() != target => {
                    Expr::Cast(Cast::new(Box::new(column), target.clone()))
                        .alias_qualified(qualifier.cloned(), field.name())
                }
                _ => column,
            }
        });
        let exprs: Vec<_> = exprs.collect();
        LogicalPlanBuilder::from(Arc::clone(&input)).project(exprs)?.build().map(Arc::new)
    });
    let inputs = inputs.collect::<Result<Vec<_>>>()?;
    Union::try_new_with_loose_types(inputs).map(LogicalPlan::Union)
}

/// Converts a column of a VALUES list to doubles if the column contains both decimals and doubles. The planner has
/// already cast the doubles to decimals, so these casts are removed.
fn rewrite_values(list: Values, is_changed: &Cell<bool>) -> Result<LogicalPlan> {
    let empty = DFSchema::empty();
    let is_mixed: Vec<bool> = (list.schema.fields().iter().enumerate())
        .map(|(column, field)| {
            field.data_type().is_decimal()
                && list
                    .values
                    .iter()
                    .filter_map(|row| row.get(column))
                    .any(|value| double_in_cast(value, &empty).is_some())
        })
        .collect();
    if !is_mixed.contains(&true) {
        return Ok(LogicalPlan::Values(list));
    }
    is_changed.set(true);
    let rows = list.values.into_iter().map(|row| {
        let values =
            row.into_iter().zip(&is_mixed).map(|(value, is_mixed)| match (is_mixed, double_in_cast(&value, &empty)) {
                (true, Some(double)) => double.clone(),
                (true, None) => to_double(value),
                (false, _) => value,
            });
        values.collect()
    });
    LogicalPlanBuilder::values(rows.collect())?.build()
}

/// Returns the operand of a cast from a double to a decimal, or `None` for any other expression.
fn double_in_cast<'a>(value: &'a Expr, schema: &DFSchema) -> Option<&'a Expr> {
    match value {
        Expr::Cast(Cast { expr, field }) if field.data_type().is_decimal() => {
            expr.get_type(schema).is_ok_and(|kind| kind.is_floating()).then_some(expr)
        }
        _ => None,
    }
}

/// Casts the decimals in `expr IN (SELECT …)` to doubles if the other side is a double, and both sides to the type in which
/// they can be compared if 38 digits are not enough.
fn rewrite_in_subquery(mut tested: InSubquery, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let plan = &tested.subquery.subquery;
    let Some((qualifier, field)) = plan.schema().iter().next() else {
        return Ok(Transformed::no(Expr::InSubquery(tested)));
    };
    let kind = tested.expr.get_type(schema).unwrap_or(DataType::Null);
    if kind.is_decimal() && field.data_type().is_floating() {
        tested.expr = Box::new(to_double(*tested.expr));
    } else if kind.is_floating() && field.data_type().is_decimal() {
        let column = to_double(Expr::from((qualifier, field))).alias(field.name());
        tested.subquery.subquery =
            LogicalPlanBuilder::from(Arc::clone(plan)).project([column])?.build().map(Arc::new)?;
    } else if let Some(target) = wide_decimal(&[kind.clone(), field.data_type().clone()]) {
        let column =
            Expr::Cast(Cast::new(Box::new(Expr::from((qualifier, field))), target.clone())).alias(field.name());
        tested.subquery.subquery =
            LogicalPlanBuilder::from(Arc::clone(plan)).project([column])?.build().map(Arc::new)?;
        tested.expr = Box::new(cast_to(*tested.expr, &kind, target));
    } else {
        return Ok(Transformed::no(Expr::InSubquery(tested)));
    }
    Ok(Transformed::yes(Expr::InSubquery(tested)))
}

fn rewrite_expr(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    Ok(match expr {
        Expr::BinaryExpr(binary) => return Ok(rewrite_binary(binary, schema)),
        Expr::InSubquery(tested) => return rewrite_in_subquery(tested, schema),
        Expr::Between(mut between) => {
            let Between { expr, low, high, .. } = &mut between;
            let changed = unify_compared([&mut **expr, &mut **low, &mut **high], schema);
            transformed(Expr::Between(between), changed)
        }
        Expr::InList(mut list) => {
            let InList { expr, list: values, .. } = &mut list;
            let changed = unify_compared(std::iter::once(&mut **expr).chain(values.iter_mut()), schema);
            transformed(Expr::InList(list), changed)
        }
        Expr::Case(mut case) => {
            let Case { expr, when_then_expr, else_expr } = &mut case;
            let mut changed = false;
            if let Some(expr) = expr {
                let whens = when_then_expr.iter_mut().map(|(when, _)| &mut **when);
                changed |= unify_compared(std::iter::once(&mut **expr).chain(whens), schema);
            }
            let results = when_then_expr.iter_mut().map(|(_, then)| &mut **then);
            changed |= unify_integers(results.chain(else_expr.as_deref_mut()), schema);
            transformed(Expr::Case(case), changed)
        }
        Expr::WindowFunction(mut call) if ["lag", "lead"].contains(&call.fun.name()) => {
            // The engine would cast the default to the type of the value, and round it.
            let changed = match call.params.args.as_mut_slice() {
                [value, _, default] => unify_integers([value, default], schema),
                _ => false,
            };
            transformed(Expr::WindowFunction(call), changed)
        }
        Expr::ScalarFunction(ScalarFunction { func, mut args }) => {
            if let ("round", [value]) = (func.name(), args.as_slice())
                && let Ok(kind) = value.get_type(schema)
                && kind.is_floating()
                && let Some(rounded) = cast_operand(value, &kind, &DataType::Int64, false)
            {
                return Ok(Transformed::yes(rounded));
            }
            let is_independent = ["concat", "concat_ws", "named_struct", "struct"].contains(&func.name());
            let mut changed = args.len() > 1 && !is_independent && unify(args.iter_mut(), schema);
            match (func.name(), args.as_mut_slice()) {
                ("round", args) => changed |= shorten_places(args),
                ("ceil" | "floor", [value]) => changed |= add_digit(value, schema),
                _ => {}
            }
            transformed(Expr::ScalarFunction(ScalarFunction { func, args }), changed)
        }
        other => Transformed::no(other),
    })
}

/// Casts a decimal to a type with one more digit before the point. Returns false if `value` is not a decimal, or
/// already has such a cast.
fn add_digit(value: &mut Expr, schema: &DFSchema) -> bool {
    let wider = |expr: &Expr| match expr.get_type(schema) {
        Ok(
            DataType::Decimal32(precision, scale)
            | DataType::Decimal64(precision, scale)
            | DataType::Decimal128(precision, scale),
        ) if scale > 0 && precision < DECIMAL128_MAX_PRECISION => Some(DataType::Decimal128(precision + 1, scale)),
        _ => None,
    };
    if let Expr::Cast(Cast { expr, field }) = value
        && wider(expr).as_ref() == Some(field.data_type())
    {
        return false;
    }
    match wider(value) {
        Some(kind) => {
            *value = Expr::Cast(Cast::new(Box::new(std::mem::take(value)), kind));
            true
        }
        None => false,
    }
}

/// Casts the literal `places` in `round(decimal, places)` to the type that the function needs. The result type depends
/// on this literal, and the function accepts only a literal of that type, not a cast to it.
fn shorten_places(args: &mut [Expr]) -> bool {
    let [_, Expr::Literal(places, _)] = args else { return false };
    match places {
        ScalarValue::Int64(Some(value)) => match i32::try_from(*value) {
            Ok(value) => {
                *places = ScalarValue::Int32(Some(value));
                true
            }
            Err(_) => false,
        },
        _ => false,
    }
}

fn transformed(expr: Expr, changed: bool) -> Transformed<Expr> {
    if changed { Transformed::yes(expr) } else { Transformed::no(expr) }
}

fn rewrite_binary(mut binary: BinaryExpr, schema: &DFSchema) -> Transformed<Expr> {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    let is_comparison = matches!(binary.op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom);
    if !is_comparison && !binary.op.is_numerical_operators() {
        return Transformed::no(Expr::BinaryExpr(binary));
    }
    let BinaryExpr { left, op, right } = &mut binary;
    let (Ok(left_kind), Ok(right_kind)) = (left.get_type(schema), right.get_type(schema)) else {
        return Transformed::no(Expr::BinaryExpr(binary));
    };
    if left_kind.is_floating() && right_kind.is_decimal() {
        **right = to_double(std::mem::take(right));
    } else if left_kind.is_decimal() && right_kind.is_floating() {
        **left = to_double(std::mem::take(left));
    } else if *op == Operator::Divide && (left_kind.is_decimal() || right_kind.is_decimal()) {
        let (Some(left_cast), Some(right_cast)) = (decimal128(&left_kind), decimal128(&right_kind)) else {
            return Transformed::no(Expr::BinaryExpr(binary));
        };
        let args = vec![cast_to(*binary.left, &left_kind, left_cast), cast_to(*binary.right, &right_kind, right_cast)];
        return Transformed::yes(CheckedOperator::Divide.call(args));
    } else if is_comparison && unify_compared([&mut **left, &mut **right], schema) {
        return Transformed::yes(Expr::BinaryExpr(binary));
    } else {
        return match exact_comparison(&binary, &left_kind, &right_kind) {
            Some(comparison) => Transformed::yes(comparison),
            None => Transformed::no(Expr::BinaryExpr(binary)),
        };
    }
    Transformed::yes(Expr::BinaryExpr(binary))
}

fn cast_to(expr: Expr, from: &DataType, to: DataType) -> Expr {
    if *from == to { expr } else { Expr::Cast(Cast::new(Box::new(expr), to)) }
}

/// Casts decimals to doubles if `exprs` contains both. Returns true if an expression was changed.
fn unify<'a>(exprs: impl IntoIterator<Item = &'a mut Expr>, schema: &DFSchema) -> bool {
    let exprs: Vec<_> = exprs.into_iter().map(|expr| (expr.get_type(schema).unwrap_or(DataType::Null), expr)).collect();
    let is_mixed = exprs.iter().any(|(kind, _)| kind.is_floating()) && exprs.iter().any(|(kind, _)| kind.is_decimal());
    if is_mixed {
        for (kind, expr) in exprs {
            if kind.is_decimal() {
                *expr = to_double(std::mem::take(expr));
            }
        }
    }
    is_mixed
}

/// Like [`unify`], but also casts decimals and integers to a type in which they can be compared.
fn unify_compared<'a>(exprs: impl IntoIterator<Item = &'a mut Expr>, schema: &DFSchema) -> bool {
    let mut exprs: Vec<_> = exprs.into_iter().collect();
    if unify(exprs.iter_mut().map(|expr| &mut **expr), schema) {
        return true;
    }
    let kinds: Vec<_> = exprs.iter().map(|expr| expr.get_type(schema).unwrap_or(DataType::Null)).collect();
    let Some(target) = wide_decimal(&kinds) else { return false };
    let mut is_changed = false;
    for (expr, kind) in exprs.into_iter().zip(kinds) {
        if kind.is_numeric() && kind != target {
            *expr = Expr::Cast(Cast::new(Box::new(std::mem::take(expr)), target.clone()));
            is_changed = true;
        }
    }
    is_changed
}

/// Like [`unify`], but also casts integers. The results of CASE need this, because the type of a CASE is that of its
/// first result until the engine has coerced all results.
fn unify_integers<'a>(exprs: impl IntoIterator<Item = &'a mut Expr>, schema: &DFSchema) -> bool {
    let exprs: Vec<_> = exprs.into_iter().collect();
    let kinds: Vec<_> = exprs.iter().map(|expr| expr.get_type(schema).unwrap_or(DataType::Null)).collect();
    let Some(target) = common_fraction(&kinds) else { return false };
    for (expr, kind) in exprs.into_iter().zip(kinds) {
        if kind.is_numeric() && kind != target {
            *expr = if target == DataType::Float64 {
                to_double(std::mem::take(expr))
            } else {
                Expr::Cast(Cast::new(Box::new(std::mem::take(expr)), target.clone()))
            };
        }
    }
    true
}

/// Casts an expression to a double. A literal becomes the nearest double.
fn to_double(expr: Expr) -> Expr {
    if let Expr::Literal(value, metadata) = &expr
        && let Ok(ScalarValue::Utf8(Some(text))) = value.cast_to(&DataType::Utf8)
        && let Ok(number) = text.parse::<f64>()
    {
        return Expr::Literal(ScalarValue::Float64(Some(number)), metadata.clone());
    }
    Expr::Cast(Cast::new(Box::new(expr), DataType::Float64))
}
