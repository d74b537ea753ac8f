//! Analyzer rules, which correct what the engine's own rules do to a logical plan.
//!
//! ```text
//!   logical plan ─► time_coercion ─► engine's type coercion ─► function_limits ─► optimizer
//! ```
//!
//! **Invariant:** a rule adds no table and no function that the session does not have.

pub(super) mod time_coercion;
