//! The SQL dialect of queries and transforms: DataFusion's dialect, with corrections where it differs from PostgreSQL
//! or returns wrong results.
//!
//! ```text
//!   text ─► parser ─► syntax/ (check and rewrite the syntax tree) ─► planner ─► decorrelate/ ─► engine_bugs (refuse)
//!     ─► rules/ (analyzer and optimizer) ─► physical plan, which calls functions/
//! ```
//!
//! `dialect.rs` is the only place that lists the functions, operators and rules. `engine_error_text.rs` rewrites the engine's
//! error texts. Our plan nodes share `plan_node.rs`, and the rules share `plan_expressions.rs`. `interrupt.rs` ends a
//! query inside an operation that does not yield. `batch_memory.rs` accounts for the memory of function results, and
//! `adaptive_batches.rs` and `batch_rows.rs` contain plan nodes that make batches smaller if their rows are large.
//!
//! **Invariant:** this module does not depend on tables, tenants or sessions. It works only on statements and plans.

mod adaptive_batches;
mod batch_memory;
mod batch_rows;
pub(crate) mod decorrelate;
pub(crate) mod dialect;
pub(crate) mod engine_bugs;
pub(crate) mod engine_error_text;
pub(crate) mod functions;
pub(crate) mod interrupt;
pub(crate) mod plan_expressions;
pub(crate) mod plan_node;
mod rules;
mod subquery_name_clash;
pub(crate) mod syntax;
pub(crate) mod type_display;
mod window_checks;

/// A limit that is greater than the number of rows in any result. It acts as a barrier: the optimizer does not move
/// filters and sorts below a limit.
const ROWS_UNLIMITED: i64 = 1_000_000_000_000;
