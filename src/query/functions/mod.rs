//! The SQL function `freshness`, and limits on the result size of the engine's functions.
//!
//! ```text
//!   call ─► function_size (estimate from the arguments) ─► function_limits (refuse or call)
//!   freshness('table') ─► a table with one row
//! ```
//!
//! **Invariant:** a function allocates its result only after the size check.

pub(super) mod freshness;
pub(super) mod freshness_exec;
#[cfg(test)]
mod freshness_tests;
pub(super) mod function_limits;
pub(super) mod function_size;
