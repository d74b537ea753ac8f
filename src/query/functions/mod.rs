//! SQL functions of our own, and the bound on how large a result any function may return.
//!
//! ```text
//!   call ─► function_size (estimated from the arguments) ─► function_limits (refused, or called)
//!   freshness('table') ─► a table of one row
//! ```
//!
//! **Invariant:** a function allocates its result only after its size has been checked.

pub(super) mod freshness;
#[cfg(test)]
mod freshness_tests;
pub(super) mod function_limits;
pub(super) mod function_size;
