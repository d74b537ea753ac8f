//! Runs queries. This module contains sessions, planning, scans behind the tenant barrier, and limits on results. Each
//! request gets its own session, which is built from an [`Access`](crate::tenancy::Access) and the state that all
//! requests share.
//!
//! ```text
//!   Access ─► Engine::session ─► Session ─ SQL ─► statement (read-only?) ─► plan ─► result (limits, declared schema)
//!                                  │                                         │
//!                                  └─ catalog: SessionTables ─► ScanSpec ────┴─► TenantScan: read files ─► barrier
//! ```
//!
//! **Invariant:** a session is only created from an `Access` with a tenant, so no client can run SQL without a tenant.
//! No endpoint can run the queries in the operator's configuration ([`OperatorQuery`]).
//! **Invariant:** the row filter is part of the table that a session sees. Security never depends on rewriting SQL
//! text.
//! **Invariant:** no user expression is evaluated on a row of another tenant. `TenantScan` is a leaf of the plan, so
//! optimizers cannot move an expression below it. The scan itself only compares plain columns with literals, and only
//! to skip row groups and pages by their statistics.
//! **Invariant:** if a table shows the latest version of each key, this version is selected from all rows of the
//! tenant. Rules and filters that could match an older version are applied only afterwards.
//! **Invariant:** queries are planned and run only on the engine's own threads (`query_runtime.rs`), which have a lower
//! priority than the threads of endpoints and ingest. A query's time limit applies even if its client stops reading.
//!
//! Query durations are not isolated between tenants. As in any shared store, the duration of a query may depend on
//! other tenants' rows in the same pages. The engine accounts for the memory of sorts, joins and aggregates, and limits
//! the result size of each function call. A plan that multiplies long values (a cross join, `unnest`) can still exceed
//! its memory limit while it processes a batch.
//!
//! The barrier is our own plan node around a standard Parquet scan. It is deliberately not a standard filter node,
//! because optimizers move expressions below a filter, and EXPLAIN shows its condition. To send plans to other hosts,
//! we would have to write a codec for our own nodes and functions.

mod catalog;
#[cfg(test)]
mod crash_schedule_tests;
mod engine;
mod error;
mod freshness;
mod freshness_exec;
#[cfg(test)]
mod freshness_tests;
mod operator_query;
mod planning;
mod query_runtime;
#[cfg(test)]
mod query_runtime_tests;
mod result_stream;
mod running_queries;
mod scan;
mod session;
#[cfg(test)]
mod session_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use catalog::{CATALOG, SCHEMA};
pub use engine::Engine;
pub use freshness_exec::NewestTimes;
pub use operator_query::OperatorQuery;
pub use planning::erased_plan::ErasedPlan;
pub use planning::planned_statement::Planned;
pub use planning::reusable_plan::ReusablePlan;
pub use planning::statement::STACK_BYTES_MIN;
pub use result_stream::ResultStream;
pub use running_queries::QueryId;
pub use session::{Session, VisibleTable};
