//! Chooses a common unit for times of day that are compared or combined. The engine refuses different units.
//!
//! A column and `TIME '12:00'` have microseconds, and clients also bind seconds, milliseconds and nanoseconds. All operands
//! are cast to the finest unit, so no digits are lost. A constant without digits after the microseconds does not count as
//! finer than microseconds. A column is then compared without a cast, so the scan can use its statistics. A text constant
//! is rounded to microseconds.
//!
//! The planner runs first, because the engine refuses a comparison in a select list before any analyzer rule sees it.
//! `time_coercion.rs` calls [`unify`] for all other expressions, such as BETWEEN, IN lists and joins.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef, TimeUnit};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr, TypePlanner};
use datafusion::logical_expr::{Cast, Expr, ExprSchemable as _};
use datafusion::sql::sqlparser::ast::{BinaryOperator, DataType as SqlType, TimezoneInfo};

use crate::sql::functions::calendar::round_time;

/// The number of digits of a second in microseconds.
const MICROS_DIGITS: usize = 6;

/// Casts the operands of a comparison to a common unit.
#[derive(Debug)]
pub(crate) struct TimeUnitPlanner;

impl ExprPlanner for TimeUnitPlanner {
    fn plan_binary_op(&self, mut expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        use BinaryOperator::{Eq, Gt, GtEq, Lt, LtEq, NotEq};
        if matches!(expr.op, Eq | NotEq | Lt | LtEq | Gt | GtEq) {
            let kinds = [expr.left.get_type(schema).ok(), expr.right.get_type(schema).ok()];
            unify(&mut [&mut expr.left, &mut expr.right], &kinds);
        }
        Ok(PlannerResult::Original(expr))
    }
}

/// Plans the type `TIME` with microseconds, like the type of a column. The engine would use nanoseconds.
#[derive(Debug)]
pub(crate) struct TimeTypePlanner;

impl TypePlanner for TimeTypePlanner {
    fn plan_type_field(&self, kind: &SqlType) -> Result<Option<FieldRef>> {
        Ok(match kind {
            SqlType::Time(None | Some(6), TimezoneInfo::None | TimezoneInfo::WithoutTimeZone) => {
                Some(Arc::new(Field::new("", DataType::Time64(TimeUnit::Microsecond), true)))
            }
            _ => None,
        })
    }
}

/// Returns the unit to which times of day are cast in the columns of a UNION, or `None` if they have the same unit or there
/// are none.
pub(super) fn common_unit(kinds: &[Option<DataType>]) -> Option<DataType> {
    let mut times = kinds.iter().flatten().filter(|kind| unit(kind).is_some());
    let first = times.next()?;
    let finest = times.clone().fold(first, |finest, kind| if unit(kind) > unit(finest) { kind } else { finest });
    times.any(|kind| kind != first).then(|| finest.clone())
}

/// Casts times of day to a common unit. `kinds` contains the type of each expression, if it is known. Returns true if an
/// expression was changed.
pub(super) fn unify(exprs: &mut [&mut Expr], kinds: &[Option<DataType>]) -> bool {
    let needed = exprs.iter().zip(kinds).filter_map(|(expr, kind)| match unit(kind.as_ref()?)? {
        TimeUnit::Nanosecond if has_only_micros(expr) => Some(TimeUnit::Microsecond),
        unit => Some(unit),
    });
    let target = match needed.max() {
        None => return false,
        Some(unit @ (TimeUnit::Second | TimeUnit::Millisecond)) => DataType::Time32(unit),
        Some(unit) => DataType::Time64(unit),
    };
    let times = || kinds.iter().flatten().filter(|kind| unit(kind).is_some());
    let mut is_changed = false;
    for expr in exprs.iter_mut() {
        if let Expr::Literal(ScalarValue::Utf8(Some(text)), _) = &mut **expr {
            is_changed |= round_time(text);
        }
    }
    // Operands that all have the same unit need no cast.
    if times().all(|kind| Some(kind) == times().next()) {
        return is_changed;
    }
    for (expr, kind) in exprs.iter_mut().zip(kinds) {
        if kind.as_ref().is_some_and(|kind| unit(kind).is_some() && *kind != target) {
            let inner = std::mem::take(&mut **expr);
            **expr = Expr::Cast(Cast::new(Box::new(inner), target.clone()));
        }
    }
    true
}

/// Returns the unit of a time of day, or `None` for other types.
pub(super) fn unit(kind: &DataType) -> Option<TimeUnit> {
    match kind {
        DataType::Time32(unit) | DataType::Time64(unit) => Some(*unit),
        _ => None,
    }
}

/// Returns true for a constant without digits after the microseconds.
fn has_only_micros(expr: &Expr) -> bool {
    match expr {
        Expr::Literal(ScalarValue::Time64Nanosecond(nanos), _) => nanos.is_none_or(|nanos| nanos % 1_000 == 0),
        Expr::Cast(Cast { expr, .. }) => match &**expr {
            Expr::Literal(value, _) => value.try_as_str().flatten().is_some_and(|text| {
                let fraction = text.split_once('.').map_or("", |(_, fraction)| fraction);
                fraction.get(MICROS_DIGITS..).is_none_or(|rest| rest.trim_end_matches('0').is_empty())
            }),
            _ => false,
        },
        _ => false,
    }
}
