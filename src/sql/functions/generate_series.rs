//! The table functions `generate_series` and `range`, for timestamps in microseconds.
//!
//! The engine's functions accept only constant timestamps in nanoseconds. The wrappers in this file convert constants
//! from microseconds to nanoseconds. The rule in `time_coercion.rs` converts the generated timestamps back.

use std::sync::Arc;

use datafusion::catalog::{TableFunction, TableFunctionArgs, TableFunctionImpl, TableProvider};
use datafusion::common::ScalarValue;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::Expr;

/// Wraps the table functions that return a series.
pub(crate) fn with_time_series(functions: Vec<Arc<TableFunction>>) -> Vec<Arc<TableFunction>> {
    let wrap = |function: Arc<TableFunction>| match function.name() {
        "generate_series" | "range" => {
            let name = function.name().to_owned();
            Arc::new(TableFunction::new(name, Arc::new(TimeSeries(function))))
        }
        _ => function,
    };
    functions.into_iter().map(wrap).collect()
}

/// Returns the error for a series of timestamps that do not fit into 64-bit nanoseconds.
pub(super) fn out_of_series() -> DataFusionError {
    DataFusionError::Plan(
        "a series of timestamps must be in the years 1678 to 2261: use a recursive query for other years".to_owned(),
    )
}

#[derive(Debug)]
struct TimeSeries(Arc<TableFunction>);

impl TableFunctionImpl for TimeSeries {
    fn call_with_args(&self, args: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        let exprs = args.exprs().iter().map(|expr| match expr {
            Expr::Literal(ScalarValue::TimestampMicrosecond(micros, zone), metadata) => {
                let nanos = micros.map(|micros| micros.checked_mul(1_000).ok_or_else(out_of_series)).transpose()?;
                Ok(Expr::Literal(ScalarValue::TimestampNanosecond(nanos, zone.clone()), metadata.clone()))
            }
            Expr::Literal(ScalarValue::IntervalMonthDayNano(Some(step)), _) if step.nanoseconds % 1_000 != 0 => {
                Err(DataFusionError::Plan("the step of a series must be a whole number of microseconds".to_owned()))
            }
            expr => Ok(expr.clone()),
        });
        let exprs = exprs.collect::<Result<Vec<_>>>()?;
        self.0.create_table_provider_with_args(TableFunctionArgs::new(&exprs, args.session()))
    }
}
