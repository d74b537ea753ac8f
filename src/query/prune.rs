//! Which files a scan has to open, told from statistics in memory alone.
//!
//! In: a [`Snapshot`] (files sorted by day), a tenant, and the user's filters. Out: the files that may hold rows.
//! Ten thousand files cost well under a millisecond: no IO, no expression is evaluated.
//!
//! **Invariant:** pruning only narrows: the tenant barrier and the user's filters are applied again to every row.
//! **Invariant:** a filter counts only when it is leakproof ([`is_leakproof`]): a comparison of a plain column with a
//! literal of its own type, which can neither fail nor have effects. Nothing else ever gets below the barrier.

use std::sync::Arc;

use arrow::datatypes::{DataType, Schema, TimeUnit};
use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{Between, BinaryExpr, Expr, Operator};

use crate::clock::DAY;
use crate::contract::{EVENT_DATE, RECEIVED_TIME, TenantId};
use crate::lake::{DataFile, Snapshot};

/// Nanoseconds in a microsecond: the unit of times.
const MICRO: i128 = 1_000;
/// Nanoseconds in a day: the unit of dates.
const DAY_NANOS: i128 = DAY as i128 * MICRO;

/// An inclusive range of days or microseconds; empty when `min > max`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) min: i64,
    pub(super) max: i64,
}

/// What the user's filters say about the columns that files have statistics of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    /// UTC days since 1970.
    pub(super) days: Range,
    /// Event time, microseconds.
    pub(super) times: Range,
    /// Receive time, microseconds.
    pub(super) received: Range,
}

/// The files that may hold rows of `tenant` within `bounds`, in the snapshot's order.
pub(super) fn prune(snapshot: &Snapshot, tenant: &TenantId, bounds: &Bounds) -> Vec<Arc<DataFile>> {
    let days = bounds.days_of_times();
    let start = snapshot.files.partition_point(|file| i64::from(file.day) < days.min);
    let tenant = tenant.as_str();
    snapshot.files[start..]
        .iter()
        .take_while(|file| i64::from(file.day) <= days.max)
        .filter(|file| match &file.tenants {
            Some((least, greatest)) => **least <= *tenant && *tenant <= **greatest,
            None => true,
        })
        .filter(|file| bounds.times.meets(file.times) && bounds.received.meets(file.received))
        .cloned()
        .collect()
}

impl Range {
    pub(super) const ALL: Self = Self { min: i64::MIN, max: i64::MAX };
    const NONE: Self = Self { min: 1, max: 0 };

    fn intersect(self, other: Self) -> Self {
        Self { min: self.min.max(other.min), max: self.max.min(other.max) }
    }

    /// Whether a file with these statistics may hold a value of the range; one without statistics may.
    fn meets(self, statistics: Option<(i64, i64)>) -> bool {
        statistics.is_none_or(|(least, greatest)| self.min <= greatest && least <= self.max && self.min <= self.max)
    }
}

impl Bounds {
    /// No bounds at all.
    pub(super) const ALL: Self = Self { days: Range::ALL, times: Range::ALL, received: Range::ALL };

    /// What `filters` (all of which must hold) say; `time` is the name of the table's time column.
    pub(super) fn of(filters: &[Expr], time: &str) -> Self {
        let mut bounds = Self::ALL;
        for filter in filters.iter().flat_map(split_conjunction) {
            bounds.narrow(filter, time);
        }
        bounds
    }

    fn narrow(&mut self, filter: &Expr, time: &str) {
        match filter {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
                self.compare(left, *op, right, time);
                if let Some(op) = op.swap() {
                    self.compare(right, op, left, time);
                }
            }
            Expr::Between(Between { expr, negated: false, low, high }) => {
                self.compare(expr, Operator::GtEq, low, time);
                self.compare(expr, Operator::LtEq, high, time);
            }
            Expr::InList(list) if !list.negated => {
                let values = list.list.iter().map(|value| {
                    let mut only = Self::ALL;
                    only.compare(&list.expr, Operator::Eq, value, time);
                    only
                });
                if let Some(any) = values.reduce(Self::hull) {
                    *self = self.intersect(any);
                }
            }
            _ => {}
        }
    }

    /// Takes `left op right` into account, when `left` is a column with statistics and `right` an instant or a day.
    fn compare(&mut self, left: &Expr, op: Operator, right: &Expr, time: &str) {
        let (Some((column, cast)), Expr::Literal(value, _)) = (column_of(left), right) else { return };
        let Some(value) = nanoseconds(value) else { return };
        let whole_days = cast.is_some_and(|kind| *kind == DataType::Date32);
        let range = |unit: i128| span(op, value, unit);
        match column.name.as_str() {
            EVENT_DATE => self.days = self.days.intersect(range(DAY_NANOS)),
            // CAST(event_time AS DATE) = '2026-01-31': the day, from its first to its last microsecond.
            name if name == time && whole_days => self.times = self.times.intersect(range(DAY_NANOS).days_as_times()),
            name if name == time => self.times = self.times.intersect(range(MICRO)),
            RECEIVED_TIME if whole_days => self.received = self.received.intersect(range(DAY_NANOS).days_as_times()),
            RECEIVED_TIME => self.received = self.received.intersect(range(MICRO)),
            _ => {}
        }
    }

    fn intersect(self, other: Self) -> Self {
        Self {
            days: self.days.intersect(other.days),
            times: self.times.intersect(other.times),
            received: self.received.intersect(other.received),
        }
    }

    /// The smallest bounds that hold both.
    fn hull(self, other: Self) -> Self {
        let hull = |a: Range, b: Range| Range { min: a.min.min(b.min), max: a.max.max(b.max) };
        Self {
            days: hull(self.days, other.days),
            times: hull(self.times, other.times),
            received: hull(self.received, other.received),
        }
    }

    /// Days that hold the times as well: a row lies in the file of its own day.
    fn days_of_times(&self) -> Range {
        self.days.intersect(Range { min: self.times.min.div_euclid(DAY), max: self.times.max.div_euclid(DAY) })
    }
}

impl Range {
    fn days_as_times(self) -> Self {
        Self { min: self.min.saturating_mul(DAY), max: self.max.saturating_mul(DAY).saturating_add(DAY - 1) }
    }
}

/// A column, plain or below a cast that keeps the order of times: to a finer or equal unit, or to a day.
fn column_of(expr: &Expr) -> Option<(&Column, Option<&DataType>)> {
    match expr {
        Expr::Column(column) => Some((column, None)),
        Expr::Cast(cast) => match (&*cast.expr, cast.field.data_type()) {
            (
                Expr::Column(column),
                kind @ (DataType::Timestamp(TimeUnit::Microsecond | TimeUnit::Nanosecond, _) | DataType::Date32),
            ) => Some((column, Some(kind))),
            _ => None,
        },
        _ => None,
    }
}

/// A day or an instant as nanoseconds since 1970, UTC. A timestamp without a zone is compared as UTC, as our columns are.
fn nanoseconds(value: &ScalarValue) -> Option<i128> {
    match value {
        ScalarValue::Date32(Some(day)) => Some(i128::from(*day) * DAY_NANOS),
        ScalarValue::TimestampSecond(Some(at), _) => Some(i128::from(*at) * 1_000_000_000),
        ScalarValue::TimestampMillisecond(Some(at), _) => Some(i128::from(*at) * 1_000_000),
        ScalarValue::TimestampMicrosecond(Some(at), _) => Some(i128::from(*at) * MICRO),
        ScalarValue::TimestampNanosecond(Some(at), _) => Some(i128::from(*at)),
        _ => None,
    }
}

/// The values `x` (counted in `unit` nanoseconds) for which `x op value` can hold.
fn span(op: Operator, value: i128, unit: i128) -> Range {
    let floor = value.div_euclid(unit);
    let ceil = floor + i128::from(value.rem_euclid(unit) != 0);
    let clamp = |at: i128| i64::try_from(at).unwrap_or(if at < 0 { i64::MIN } else { i64::MAX });
    match op {
        Operator::Eq | Operator::IsNotDistinctFrom if floor == ceil => Range { min: clamp(floor), max: clamp(floor) },
        Operator::Eq | Operator::IsNotDistinctFrom => Range::NONE,
        Operator::Lt => Range { min: i64::MIN, max: clamp(ceil - 1) },
        Operator::LtEq => Range { min: i64::MIN, max: clamp(floor) },
        Operator::Gt => Range { min: clamp(floor + 1), max: i64::MAX },
        Operator::GtEq => Range { min: clamp(ceil), max: i64::MAX },
        _ => Range::ALL,
    }
}

/// Whether `filter` may be used below the barrier, to skip row groups and pages by their statistics: comparisons, ranges,
/// lists and null tests of plain columns of `schema` with literals of the same type, and AND, OR, NOT of such.
pub(super) fn is_leakproof(filter: &Expr, schema: &Schema) -> bool {
    let column = |expr: &Expr| match expr {
        Expr::Column(column) => schema.field_with_name(&column.name).ok().map(arrow::datatypes::Field::data_type),
        _ => None,
    };
    let literal = |expr: &Expr, kind: &DataType| matches!(expr, Expr::Literal(value, _) if value.data_type() == *kind);
    let compares =
        |left: &Expr, right: &Expr| column(left).is_some_and(|kind| !kind.is_nested() && literal(right, kind));
    match filter {
        Expr::BinaryExpr(BinaryExpr { left, op: Operator::And | Operator::Or, right }) => {
            is_leakproof(left, schema) && is_leakproof(right, schema)
        }
        Expr::BinaryExpr(BinaryExpr { left, op, right }) => {
            is_comparison(*op) && (compares(left, right) || compares(right, left))
        }
        Expr::Between(between) => compares(&between.expr, &between.low) && compares(&between.expr, &between.high),
        Expr::InList(list) => list.list.iter().all(|value| compares(&list.expr, value)),
        Expr::IsNull(inner) | Expr::IsNotNull(inner) => column(inner).is_some(),
        Expr::Not(inner) | Expr::IsTrue(inner) | Expr::IsFalse(inner) => is_leakproof(inner, schema),
        Expr::Column(_) => column(filter) == Some(&DataType::Boolean),
        _ => false,
    }
}

fn is_comparison(op: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}
