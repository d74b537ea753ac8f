//! How events are asked: a session per request, built from an [`Access`](crate::tenancy::Access) over shared, immutable
//! state.
//!
//! ```text
//!   Access ─► Engine::session ─► Session ─ sql ─► statement (read-only?) ─► plan ─► answer (limits, promised schema)
//!                                  │                                        │
//!                                  └─ catalog: SessionTables ─► ScanSpec ────┴─ TenantScan: prune files ► read ► barrier
//!                                                                              (► newest versions, where declared ►)
//! ```
//!
//! **Invariant:** a session comes only from an `Access` with a tenant; nobody can send unscoped SQL. What the operator's own
//! configuration asks ([`OperatorQuery`]) has no door.
//! **Invariant:** the row filter is part of the table that a session sees; SQL text is never edited for safety.
//! **Invariant:** no expression of a user is evaluated on a foreign row: `TenantScan` is a leaf that no optimizer enters.
//! Comparisons of plain columns with literals are read below it, but only to skip pages by their statistics.
//!
//! **Invariant:** a table that shows the newest version of each key finds it among all of the tenant's rows, before any rule
//! or filter that an older version could meet in its place.
//! **Invariant:** what is planned and run is planned and run on the engine's own threads (`query_runtime.rs`), which never delay
//! endpoints or ingest; limits of time hold whether or not a reader reads.
//!
//! What it does not promise: how long an answer takes may depend on foreign rows that lie in the same pages, as in every
//! shared store. Memory is accounted by sorts, joins and aggregates, and bounded for each call of a function; a plan that
//! multiplies long values (a cross join, `unnest`) can hold more for the length of one batch.
//!
//! The barrier is a plan node of our own around a standard Parquet scan, and a deliberate departure from plans made of
//! standard nodes only: a standard filter node can be seen through, by optimizers and by EXPLAIN. When plans travel to
//! other machines, this one node needs a codec.

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

pub use operator_query::OperatorQuery;
pub use request::engine::{Engine, QueryId};
pub use request::erased_plan::ErasedPlan;
pub use request::plan_cache::Ready;
pub use request::session::{CATALOG, Planned, ResultStream, SCHEMA, Session, VisibleTable};
pub use request::statement::STACK_BYTES_MIN;
pub use scan::newest_rows::Newest;
