//! Analyzer and optimizer rules, which correct what the engine's own rules do to a plan.
//!
//! ```text
//!   logical plan ─► time_coercion ─► engine's type coercion ─► function_limits
//!     ─► engine's optimizer, with single_distinct ─► physical plan ─► grouping_sets ─► engine's physical optimizer
//! ```
//!
//! **Invariant:** a rule adds no table and no function that the session does not have.
//! **Invariant:** a rule never changes which rows a plan returns. It only keeps the engine from changing them.

pub(super) mod grouping_sets;
pub(super) mod single_distinct;
pub(super) mod time_coercion;
