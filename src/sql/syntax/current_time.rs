//! Rewrites the keywords for the current time that the engine does not know.
//!
//! | in the statement | planned as |
//! |---|---|
//! | `CURRENT_TIMESTAMP(0)` | `date_trunc('second', now())` |
//! | `CURRENT_TIMESTAMP(1)` | `date_bin(INTERVAL '100000 microseconds', now())` |
//! | `LOCALTIMESTAMP`, `LOCALTIMESTAMP(0)` | the same, as a timestamp without a zone |
//! | `LOCALTIME` | `CAST(current_time AS TIME)` |
//!
//! PostgreSQL rounds the current time to the precision. This server truncates it, so the time is never in the future.

use datafusion::sql::sqlparser::ast::{
    DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Interval, TimezoneInfo,
};

use crate::sql::syntax::tree::{call_expr, cast, ordinal, text};

/// The number of fractional digits in the seconds of a timestamp.
const PRECISION_MAX: usize = 6;

/// Returns the output name of a select item without an alias if the item is one of these keywords.
pub(super) fn keyword(expr: &Expr) -> Option<&'static str> {
    let Expr::Function(function) = expr else { return None };
    let name = name_of(function)?;
    (name != "current_timestamp" || precision(function).is_some()).then_some(name)
}

/// Returns the replacement for one of these keywords.
pub(super) fn rewrite(function: &Function) -> Option<Expr> {
    let precision = precision(function);
    let is_plain = matches!(&function.args, FunctionArguments::None);
    match (name_of(function)?, precision) {
        ("localtime", None) if is_plain => {
            Some(cast(call_expr("current_time", Vec::new()), DataType::Time(None, TimezoneInfo::None)))
        }
        ("localtimestamp", precision) if is_plain || precision.is_some() => {
            let now = now(precision.unwrap_or(PRECISION_MAX));
            Some(cast(now, DataType::Timestamp(Some(6), TimezoneInfo::None)))
        }
        ("current_timestamp", Some(precision)) => Some(now(precision)),
        _ => None,
    }
}

fn name_of(function: &Function) -> Option<&'static str> {
    let [part] = function.name.0.as_slice() else { return None };
    let ident = part.as_ident().filter(|ident| ident.quote_style.is_none())?;
    let names = ["current_timestamp", "localtimestamp", "localtime"];
    names.into_iter().find(|name| ident.value.eq_ignore_ascii_case(name))
}

/// Returns the number in parentheses after a keyword.
fn precision(function: &Function) -> Option<usize> {
    let FunctionArguments::List(list) = &function.args else { return None };
    match list.args.as_slice() {
        [FunctionArg::Unnamed(FunctionArgExpr::Expr(expr))] => ordinal(expr),
        _ => None,
    }
}

/// Returns the current time, truncated to the given number of fractional digits in the seconds.
fn now(precision: usize) -> Expr {
    let now = call_expr("now", Vec::new());
    match precision {
        0 => call_expr("date_trunc", vec![text("second"), now]),
        1..PRECISION_MAX => {
            let zeros = "0".repeat(PRECISION_MAX - precision);
            let width = Expr::Interval(Interval {
                value: Box::new(text(format!("1{zeros} microseconds"))),
                leading_field: None,
                leading_precision: None,
                last_field: None,
                fractional_seconds_precision: None,
            });
            call_expr("date_bin", vec![width, now])
        }
        _ => now,
    }
}
