//! Queries. Each request gets a session, built from an [`Access`](crate::tenancy::Access) on top of shared, immutable
//! state.
//!
//! ```text
//!   Access ─► Engine::session ─► Session ─ sql ─► statement (read-only?) ─► plan ─► result (limits, declared schema)
//!                                  │                                        │
//!                                  └─ catalog: SessionTables ─► ScanSpec ────┴─ TenantScan: prune files ► read ► barrier
//!                                                                              (► newest versions, where declared ►)
//! ```
//!
//! **Invariant:** a session is only created from an `Access` with a tenant, so no client can run SQL without a tenant.
//! The SQL of the operator's own configuration ([`OperatorQuery`]) is not reachable through any endpoint.
//! **Invariant:** the row filter is part of the table that a session sees. Security never depends on editing SQL text.
//! **Invariant:** no user expression is evaluated on a row of another tenant: `TenantScan` is a leaf that no optimizer
//! enters. Below it, comparisons of plain columns with literals are used, but only to skip pages by their statistics.
//!
//! **Invariant:** a table that shows the newest version of each key selects it among all rows of the tenant, before it
//! applies any rule or filter that could match an older version.
//! **Invariant:** queries are planned and run only on the engine's own threads (`query_runtime.rs`), which never delay
//! endpoints or ingest. Time limits apply whether or not the client reads.
//!
//! Timing is not isolated: the duration of a query may depend on other tenants' rows in the same pages, as in any
//! shared store. The engine accounts for the memory of sorts, joins and aggregates, and the result of each function
//! call is
//! limited. A plan that multiplies long values (a cross join, `unnest`) can exceed its memory for one batch.
//!
//! The barrier is our own plan node around a standard Parquet scan. Plans otherwise use standard nodes; this exception
//! is deliberate, because optimizers and EXPLAIN can see through a standard filter node. Sending plans to other
//! machines would require a codec for this one node.

mod engine_bugs;
mod error;
mod functions;
mod operator_query;
mod request;
mod scan;
#[cfg(test)]
mod schedule_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use functions::freshness_exec::Newest;
pub use operator_query::OperatorQuery;
pub use request::engine::{Engine, QueryId};
pub use request::erased_plan::ErasedPlan;
pub use request::plan_cache::Ready;
pub use request::session::{CATALOG, Planned, ResultStream, SCHEMA, Session, VisibleTable};
pub use request::statement::STACK_BYTES_MIN;
