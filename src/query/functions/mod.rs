//! Our SQL functions: `freshness`, aggregates, times and patterns. Also limits on the result size of functions.
//!
//! ```text
//!   call ─► function_size (estimate from the arguments) ─► function_limits (refuse or call)
//!   aggregate ─► exact_aggregates (sum, avg, var, stddev) ─► totals ─► double_sum, wide_sum, interval_total, variance_total
//!             └► value_counts, extreme_row, own_order
//!   freshness('table') ─► a table with one row
//! ```
//!
//! **Invariant:** a function allocates its result only after the size check.

pub(super) mod aggregate_functions;
pub(super) mod block_sum;
pub(super) mod count_distinct;
pub(super) mod distinct_values;
pub(super) mod double_sum;
pub(super) mod exact_aggregates;
pub(super) mod exact_number;
pub(super) mod extreme_row;
pub(super) mod calendar;
mod date_difference;
mod date_part;
mod date_trunc;
mod definition;
mod division;
pub(super) mod freshness;
pub(super) mod freshness_exec;
#[cfg(test)]
mod freshness_tests;
pub(super) mod function_limits;
pub(super) mod function_size;
pub(super) mod interval_total;
pub(super) mod own_order;
pub(super) mod totals;
pub(super) mod value_counts;
pub(super) mod variance_total;
pub(super) mod wide_sum;
mod text_patterns;
pub(super) mod time_functions;
pub(super) mod time_series;
mod to_char;
