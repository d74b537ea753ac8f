//! How events are asked: a session per request, built from an [`Access`] over shared, immutable state.
//!
//! ```text
//!   Access ─► Engine::session ─► Session ─ sql ─► statement (read-only?) ─► plan ─► stream
//!                                  │                                        │
//!                                  └─ catalog of visible tables             └─ TenantScan: prune files ► read ► barrier
//! ```
//!
//! **Invariant:** a session comes only from an [`Access`] with a tenant; there is no unscoped SQL.
//! **Invariant:** the row filter is part of the table that a session sees; SQL text is never edited for safety.
//! **Invariant:** no expression of a user is evaluated on a foreign row: [`TenantScan`] is a leaf that no optimizer enters.

mod catalog;
mod engine;
mod limits;
mod prune;
mod scan;
mod session;
mod statement;

pub use engine::{Engine, QueryId};
pub use session::{Answer, CATALOG, Planned, SCHEMA, Session, VisibleTable};
