//! Runs queries. This module contains sessions, planning, scans that return only the caller's rows (the tenant
//! barrier), and limits on results. Each request gets its own session, which is built from an
//! [`Access`](crate::tenancy::Access) and the state that all requests share.
//!
//! ```text
//!   Access ─► Engine::session ─► Session ─ SQL ─► statement (read-only?) ─► plan ─► result (limits, declared schema)
//!                                  │                                         │
//!                                  └─ catalog: SessionTables ─┬─ ScanSpec ───┼─► TenantScan: read files ─► barrier
//!                                                             └─ lookups ────┴─► LookupScan: rows of the tenant
//! ```
//!
//! **Invariant:** a session is created only from an `Access` that has a tenant, so every SQL statement that a client
//! sends runs on behalf of a tenant. No endpoint can run the queries that the operator configures ([`OperatorQuery`]).
//! **Invariant:** the row filter is part of the table that a session sees. Tenant isolation does not depend on
//! rewriting SQL text.
//! **Invariant:** no user expression is evaluated on a row of another tenant. `TenantScan` is a leaf of the plan, so
//! optimizers cannot move an expression below it. Inside the scan, columns are compared only with literals, and only to
//! skip row groups and pages by their statistics. `LookupScan` is also a leaf, and its input contains no rows of other
//! tenants.
//! **Invariant:** if a table shows only the latest version of each key, that version is selected from all rows of the
//! tenant. Rules and filters that could match an older version are applied only afterwards.
//! **Invariant:** queries are planned and run only on the query threads (`query_runtime.rs`), which have a lower
//! priority than the threads of endpoints and ingest. A query's time limit applies even if its client stops reading.
//!
//! The duration of a query may depend on other tenants' rows, because the same pages can contain rows of several
//! tenants. The engine accounts for the memory of sorts, joins and aggregates, and limits the result size of each
//! function call. A plan that makes many copies of long values, such as a cross join or `unnest`, can still exceed its
//! memory limit while it processes a batch.
//!
//! The tenant barrier is a plan node of this crate that contains a standard Parquet scan. It is deliberately not a
//! standard filter node: optimizers would move other expressions below it, and EXPLAIN would show its condition. To
//! send plans to other hosts, the server would need a codec for the nodes and functions of this crate.

mod catalog;
mod column_types;
#[cfg(test)]
mod crash_schedule_tests;
mod engine;
mod error;
mod freshness;
mod freshness_exec;
#[cfg(test)]
mod freshness_tests;
#[cfg(test)]
mod lookup_tests;
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
mod tenant_runtimes;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use catalog::{CATALOG, SCHEMA};
pub use engine::Engine;
pub use freshness::lookup_has_no_freshness;
pub use freshness_exec::NewestTimes;
pub use operator_query::OperatorQuery;
pub use planning::erased_plan::ErasedPlan;
pub use planning::planned_statement::Planned;
pub use planning::reusable_plan::ReusablePlan;
pub use planning::statement::STACK_BYTES_MIN;
pub use result_stream::{QueryDeadline, ResultStream};
pub use running_queries::QueryId;
pub use session::{Session, VisibleTable};
