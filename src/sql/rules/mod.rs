//! Analyzer and optimizer rules that prevent the wrong results and unnecessary errors of the engine's own rules.
//!
//! ```text
//!   logical plan ─► exact_numbers (decimals) ─► time_coercion ─► interval_comparisons ─► engine's type coercion
//!     ─► checked_arithmetic ─► function_limits ─► engine's optimizer, with single_distinct and forget_dependencies
//!     ─► guards ─► constant_lists
//!     ─► physical plan ─► grouping_sets ─► engine's physical optimizer
//! ```
//!
//! **Invariant:** a rule never adds tables or functions that the session is not allowed to use.
//! **Invariant:** a rule keeps the names of columns, and never changes which rows a plan returns. A rule overrides the
//! engine's choice of a type only if values would lose digits in that type.

pub(super) mod checked_arithmetic;
pub(super) mod constant_lists;
pub(super) mod exact_numbers;
pub(super) mod forget_dependencies;
pub(super) mod grouping_sets;
pub(super) mod guards;
pub(super) mod interval_comparisons;
pub(super) mod single_distinct;
pub(super) mod time_coercion;
