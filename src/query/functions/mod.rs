//! The SQL function `freshness`, functions of times and patterns, and limits on the result size of functions.
//!
//! ```text
//!   call ─► function_size (estimate from the arguments) ─► function_limits (refuse or call)
//!   freshness('table') ─► a table with one row
//! ```
//!
//! **Invariant:** a function allocates its result only after the size check.

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
mod text_patterns;
pub(super) mod time_functions;
pub(super) mod time_series;
mod to_char;
