//! Checks and rewrites the syntax tree, after the parser and before the engine's planner.
//!
//! ```text
//!   statement::parse (table_command expands TABLE t)
//!     ─► clauses (refuse what the planner would ignore)
//!     ─► shorthand, row_comparisons, expressions (write in other words what the planner does not know)
//!     ─► numbers (exact literals), ordered_aggregates
//!     ─► using_joins (USING and NATURAL as ON)
//!     ─► bound_values (replace placeholders by typed literals) ─► engine's planner ─► engine_bugs
//! ```
//!
//! If the planner refuses a statement because two output names are equal, `output_names` rewrites it and it is planned
//! again.
//!
//! After planning, `ambiguous_names` compares the plan with the text.
//!
//! The engine's parser accepts the grammar of many databases, and its planner drops some clauses without an error.
//!
//! **Invariant:** every clause is either planned, or refused with an error that names it. No clause is ignored.

pub(super) mod ambiguous_names;
pub(super) mod bound_values;
pub(super) mod clauses;
pub(super) mod expressions;
mod from_columns;
mod merged_columns;
pub(super) mod numbers;
pub(super) mod ordered_aggregates;
pub(super) mod output_names;
mod row_comparisons;
pub(super) mod shorthand;
mod syntax;
pub(super) mod table_command;
pub(super) mod using_joins;
mod wildcards;
