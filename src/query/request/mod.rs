//! One request: a session for its caller, a checked statement, a plan, and a result stream.
//!
//! ```text
//!   Access ─► engine ─► session (catalog) ─ SQL ─► statement (read-only?) ─► plan_cache ─► result_stream (deadline, slot)
//! ```
//!
//! **Invariant:** a session is only created from an `Access` that names a tenant.
//! **Invariant:** security never depends on editing SQL text; every statement that is not a query is refused.

pub(super) mod catalog;
pub(super) mod engine;
pub(super) mod erased_plan;
pub(super) mod logical_plan;
#[cfg(test)]
mod logical_plan_tests;
pub(super) mod parameters;
pub(super) mod plan_cache;
pub(super) mod plan_size;
pub(super) mod planner;
pub(super) mod query_runtime;
#[cfg(test)]
mod query_runtime_tests;
pub(super) mod result_stream;
pub(super) mod session;
#[cfg(test)]
mod session_tests;
pub(super) mod statement;
