//! Parses, checks and plans a statement.
//!
//! ```text
//!   SQL ─► plan_cache ─ if not cached ─► token_limits, statement (parse, read-only?) ─► planner ─► plan_size, engine bugs ─► Planned
//!   logical plan ─► plan_size, read-only? ─► logical_plan (tables and functions of the session) ─► planner ──────┘
//! ```
//!
//! **Invariant:** tenant isolation does not depend on rewriting SQL text. Every statement that is not a query is
//! refused.

pub(super) mod erased_plan;
mod join_limits;
pub(super) mod logical_plan;
#[cfg(test)]
mod logical_plan_tests;
pub(super) mod name_resolution;
pub(super) mod parameters;
#[cfg(test)]
mod parameters_tests;
pub(super) mod plan_cache;
pub(super) mod plan_size;
pub(super) mod planned_statement;
pub(super) mod planner;
pub(super) mod reusable_plan;
pub(super) mod statement;
pub(super) mod substituted_size;
pub(super) mod table_reads;
mod token_limits;
pub(super) mod unknown_names;
pub(super) mod values_subqueries;
