//! The aggregate functions of every session. Some of the engine's functions are replaced, and some functions are added.

use std::sync::Arc;

use datafusion::execution::SessionStateDefaults;
use datafusion::logical_expr::AggregateUDF;

use crate::sql::functions::{
    double_min_max, exact_aggregates, max_by, mode_and_percentile, percentile_cont, self_sorting_aggregates,
};

/// Returns all aggregate functions.
pub(crate) fn all() -> Vec<Arc<AggregateUDF>> {
    let known = SessionStateDefaults::default_aggregate_functions().into_iter().map(with_aliases).collect();
    let replaced = exact_aggregates::with_exact(known);
    let mut functions = self_sorting_aggregates::with_own_order(double_min_max::with_all_doubles(replaced));
    functions.retain(|function| !["percentile_cont", "median"].contains(&function.name()));
    functions.extend(percentile_cont::functions());
    functions.extend(mode_and_percentile::functions());
    functions.extend(max_by::functions());
    functions
}

/// Adds the names that a function has in PostgreSQL.
fn with_aliases(function: Arc<AggregateUDF>) -> Arc<AggregateUDF> {
    let aliases: &[&'static str] = match function.name() {
        "var" => &["variance"],
        "bool_and" => &["every"],
        _ => return function,
    };
    Arc::new(AggregateUDF::clone(&function).with_aliases(aliases.iter().copied()))
}
