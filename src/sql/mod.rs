//! The SQL dialect of queries and transforms: DataFusion's, corrected where it differs from PostgreSQL or returns
//! wrong results.
//!
//! ```text
//!   text ─► parser ─► syntax/ (check and rewrite the syntax tree) ─► planner ─► decorrelate/ ─► engine_bugs (refuse)
//!     ─► rules/ (analyzer and optimizer) ─► physical plan, which calls functions/
//! ```
//!
//! `dialect.rs` is the only place that lists the functions, operators and rules. `engine_text.rs` rewrites the engine's
//! error texts.
//!
//! **Invariant:** no file of this module knows tables, tenants or sessions. It only sees statements and plans.

pub(crate) mod decorrelate;
pub(crate) mod dialect;
pub(crate) mod engine_bugs;
pub(crate) mod engine_text;
pub(crate) mod functions;
mod rules;
mod subquery_name_clash;
pub(crate) mod syntax;
