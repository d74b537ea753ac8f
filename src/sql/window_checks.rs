//! Refuses calls to window functions for which the engine returns wrong results or panics.

use arrow::datatypes::{DataType, IntervalUnit};
use datafusion::common::ScalarValue;
use datafusion::logical_expr::expr::{NullTreatment, WindowFunction};
use datafusion::logical_expr::{
    Cast, Expr, ExprSchemable as _, LogicalPlan, WindowFrame, WindowFrameBound, WindowFrameUnits,
};

use crate::error::{Error, Result};

const NANOS_PER_DAY: i128 = 86_400_000_000_000;

/// Refuses `call` if the engine would evaluate it incorrectly in the plan node `plan`.
pub(super) fn check(call: &WindowFunction, plan: &LogicalPlan) -> Result<()> {
    check_null_treatment(call)?;
    check_position(call)?;
    if call.params.window_frame.units != WindowFrameUnits::Range {
        return check_row_frame(&call.params.window_frame);
    }
    let inputs = plan.inputs();
    let key = call.params.order_by.first().zip(inputs.first());
    match key.and_then(|(key, input)| key.expr.get_type(input.schema()).ok()) {
        Some(kind) => check_frame(&call.params.window_frame, &kind),
        None => Ok(()),
    }
}

/// Refuses IGNORE NULLS in `lead`, and in `lag` with a negative offset, because the engine miscounts the nulls between
/// two values (apache/datafusion#25471).
fn check_null_treatment(call: &WindowFunction) -> Result<()> {
    let is_forward = match call.fun.name() {
        "lead" => true,
        "lag" => !matches!(call.params.args.get(1), None | Some(Expr::Literal(ScalarValue::Int64(Some(0..)), _))),
        _ => false,
    };
    if is_forward && call.params.null_treatment == Some(NullTreatment::IgnoreNulls) {
        let form = if call.fun.name() == "lead" { "lead with" } else { "lag with a negative offset and" };
        return Err(Error::unsupported(format!(
            "{form} IGNORE NULLS is not supported: use nth_value(…) IGNORE NULLS with a frame that begins at 1 FOLLOWING"
        )));
    }
    Ok(())
}

/// Refuses the positions for which the engine returns a different row from PostgreSQL: NULL in `lag`, `lead` and
/// `nth_value`, and numbers less than 1 in `nth_value`.
fn check_position(call: &WindowFunction) -> Result<()> {
    let name = call.fun.name();
    let position = call.params.args.get(1).map(|arg| match arg {
        Expr::Cast(Cast { expr, .. }) => expr.as_ref(),
        arg => arg,
    });
    match (name, position) {
        ("lag" | "lead" | "nth_value", Some(Expr::Literal(value, _))) if value.is_null() => {
            Err(Error::invalid(format!("the second argument of {name} must not be NULL: use a number")))
        }
        ("nth_value", Some(Expr::Negative(_) | Expr::Literal(ScalarValue::Int64(Some(..=0)), _))) => Err(
            Error::invalid("the second argument of nth_value must be greater than 0: the first row has the number 1"),
        ),
        _ => Ok(()),
    }
}

/// Checks the offsets of a ROWS or GROUPS frame. The engine adds them to positions, and panics if the sum overflows.
fn check_row_frame(frame: &WindowFrame) -> Result<()> {
    const OFFSET_MAX: u64 = 1 << 62;
    for bound in [&frame.start_bound, &frame.end_bound] {
        if let WindowFrameBound::Preceding(ScalarValue::UInt64(Some(offset)))
        | WindowFrameBound::Following(ScalarValue::UInt64(Some(offset))) = bound
            && *offset > OFFSET_MAX
        {
            return Err(Error::invalid(format!(
                "the offset of a window frame is at most {OFFSET_MAX}, but it is {offset}: use UNBOUNDED"
            )));
        }
    }
    Ok(())
}

/// Checks the offsets of a RANGE frame. At this point, the engine stores them as text. Later, it converts them to the
/// type of the ORDER BY expression, or to an interval if that type is a date or a timestamp. For a negative interval,
/// the engine panics in a debug build, and otherwise returns an empty frame (apache/datafusion#24902).
fn check_frame(frame: &WindowFrame, kind: &DataType) -> Result<()> {
    for bound in [&frame.start_bound, &frame.end_bound] {
        let (WindowFrameBound::Preceding(offset) | WindowFrameBound::Following(offset)) = bound else { continue };
        let ScalarValue::Utf8(Some(offset)) = offset else { continue };
        let number = offset.trim().parse::<f64>().ok();
        let is_negative = match kind {
            DataType::Date32 | DataType::Date64 | DataType::Timestamp(..) if number.is_some() => {
                return Err(Error::invalid(format!(
                    "a RANGE frame over dates or timestamps needs an interval, but its offset is the number {offset}: \
                     write INTERVAL '{offset}' DAY"
                )));
            }
            DataType::Date32 | DataType::Date64 | DataType::Timestamp(..) => is_negative(offset),
            kind if kind.is_numeric() && number.is_none() => {
                return Err(Error::invalid(format!(
                    "the offset of a RANGE frame over numbers must be a number, but is `{offset}`"
                )));
            }
            kind if kind.is_numeric() => number.is_some_and(|number| number < 0.0),
            _ => {
                return Err(Error::invalid(
                    "a RANGE frame with an offset must be sorted by a number, a date or a timestamp: use ROWS or GROUPS",
                ));
            }
        };
        if is_negative {
            return Err(Error::invalid(format!(
                "the offset of a window frame must not be negative, but it is `{offset}`: swap PRECEDING and FOLLOWING"
            )));
        }
    }
    Ok(())
}

/// Returns true if an interval is negative. As in PostgreSQL, a month has 30 days. Returns false for text that is not
/// an interval, which the engine refuses.
fn is_negative(interval: &str) -> bool {
    let kind = DataType::Interval(IntervalUnit::MonthDayNano);
    match ScalarValue::try_from_string(interval.to_owned(), &kind) {
        Ok(ScalarValue::IntervalMonthDayNano(Some(interval))) => {
            let days = i128::from(interval.months) * 30 + i128::from(interval.days);
            days * NANOS_PER_DAY + i128::from(interval.nanoseconds) < 0
        }
        _ => false,
    }
}
