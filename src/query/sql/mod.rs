//! Checks and rewrites of the syntax tree, between the parser and the engine's planner.
//!
//! ```text
//!   statement::parse ─► clauses (refuse what the planner would ignore) ─► numbers (exact literals)
//!     ─► ordered_aggregates ─► expressions (rewrite what the planner does not know)
//!     ─► bound_values (replace placeholders by typed literals) ─► engine's planner ─► engine_bugs
//! ```
//!
//! The engine's parser accepts the grammar of many databases, and its planner drops some clauses without an error.
//!
//! **Invariant:** a clause is planned or refused by name; it is never ignored.

pub(super) mod bound_values;
pub(super) mod clauses;
pub(super) mod expressions;
pub(super) mod ordered_aggregates;
pub(super) mod numbers;
