//! Our SQL functions (aggregates, time functions, text patterns and exact arithmetic), and limits on the size of
//! results.
//!
//! ```text
//!   call ─► function_size (estimate from the arguments) ─► function_limits (refuse or call)
//!        └─► counted_functions (other functions: count the result)
//!   aggregate ─► exact_aggregates (sum, avg, var, stddev) ─► running_total ─► double_sum, wide_sum, interval_total, variance_total
//!             └► mode_and_percentile, percentile_cont ─► decimal_median, max_by, self_sorting_aggregates
//!             └► window_aggregates ─► recomputed_window, counted_windows
//!             └► double_min_max (min, max)
//!   sums of list elements ─► exact_lists ─► exact_aggregates
//!   functions of lists, coalesce and similar functions ─► common_types ─► decimal_types
//!   JSON ─► json_functions ─► json_path;   casts to uuid and json ─► text_casts
//!   rules/ ─► checked_arithmetic, exact_comparison, interval_order, pass_through, rounding_cast (operators that cannot be
//!             called by name)
//! ```
//!
//! **Invariant:** a function with a size limit allocates its result only after the size check.

use datafusion::logical_expr::ScalarUDF;

pub(super) mod aggregate_functions;
pub(super) mod arrow_casts;
pub(super) mod base64_text;
pub(super) mod calendar;
pub(super) mod checked_arithmetic;
pub(super) mod common_types;
pub(super) mod corrected_functions;
pub(super) mod count_distinct;
pub(super) mod counted_functions;
pub(super) mod counted_windows;
mod date_difference;
mod date_part;
mod date_trunc;
mod decimal_median;
pub(super) mod decimal_types;
mod definition;
mod delegate;
pub(super) mod distinct_values;
mod division;
pub(super) mod double_block_sum;
mod double_min_max;
pub(super) mod double_sum;
pub(super) mod exact_aggregates;
pub(super) mod exact_comparison;
pub(super) mod exact_lists;
pub(super) mod exact_number;
pub(super) mod function_limits;
pub(super) mod function_size;
pub(super) mod generate_series;
pub(super) mod interval_order;
pub(super) mod interval_product;
pub(super) mod interval_total;
pub(crate) mod json_functions;
pub(crate) mod json_path;
pub(super) mod max_by;
pub(super) mod mode_and_percentile;
mod number_text;
pub(super) mod pass_through;
pub(super) mod pattern_limits;
mod percentile_cont;
mod recomputed_window;
pub(super) mod rounding_cast;
pub(super) mod running_total;
pub(super) mod self_sorting_aggregates;
pub(super) mod text_casts;
mod text_patterns;
pub(super) mod time_functions;
mod time_parsing;
#[cfg(test)]
mod time_parsing_tests;
mod time_patterns;
mod to_char;
pub(super) mod variance_total;
pub(super) mod wide_sum;
pub(super) mod window_aggregates;

/// The functions that can fail for some argument values even if the argument types are correct.
const FALLIBLE: [&str; 40] = [
    "abs",
    "age",
    "arrow_cast",
    "array_avg",
    "array_product",
    "array_resize",
    "array_sum",
    "chr",
    "date_bin",
    "date_diff",
    "decode",
    "div",
    "factorial",
    "gcd",
    "lcm",
    "like_pattern",
    "lpad",
    "make_date",
    "make_time",
    "power",
    "regexp_count",
    "regexp_instr",
    "regexp_like",
    "regexp_match",
    "regexp_replace",
    "repeat",
    "rpad",
    "similar_to_pattern",
    "time_bucket",
    "to_date",
    "to_json",
    "to_time",
    "to_timestamp",
    "to_timestamp_micros",
    "to_timestamp_millis",
    "to_timestamp_nanos",
    "to_timestamp_seconds",
    "to_unixtime",
    "to_uuid",
    "to_uuids",
];

/// Returns true if `function` is an operator that the analyzer rules add to plans. Statements cannot call these
/// operators by name.
pub(crate) fn is_operator(function: &ScalarUDF) -> bool {
    function_limits::is_concat_operator(function)
        || rounding_cast::is_cast_operand(function)
        || checked_arithmetic::is_checked_operator(function)
        || exact_comparison::is_exact_comparison(function)
        || interval_order::is_interval_order(function)
        || interval_product::is_interval_product(function)
        || pass_through::is_pass_through(function)
}

/// Returns true if `function` can fail for some argument values even if the argument types are correct.
pub(super) fn is_fallible(function: &ScalarUDF) -> bool {
    checked_arithmetic::is_checked_operator(function)
        || interval_product::is_interval_product(function)
        || FALLIBLE.contains(&function.name())
}
