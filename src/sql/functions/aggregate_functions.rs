//! The aggregate functions of every session. Some of the engine's functions are replaced, and our own are added.

use std::sync::Arc;

use datafusion::execution::SessionStateDefaults;
use datafusion::logical_expr::AggregateUDF;

use crate::sql::functions::{exact_aggregates, extreme_row, own_order, value_counts};

/// Returns all aggregate functions.
pub(crate) fn all() -> Vec<Arc<AggregateUDF>> {
    let replaced = exact_aggregates::with_exact(SessionStateDefaults::default_aggregate_functions());
    let mut functions = own_order::with_own_order(replaced);
    functions.extend(value_counts::functions());
    functions.extend(extreme_row::functions());
    functions
}
