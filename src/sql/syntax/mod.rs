//! Checks and rewrites the syntax tree, after parsing and before planning.
//!
//! ```text
//!   statement::parse (table_command expands TABLE t, token_rewrites drops tokens that the parser does not know)
//!     ─► operator_precedence ─► named_windows ─► clauses (refuse what the planner would ignore) ─► volatile_queries and
//!        misplaced_aggregates (refuse)
//!     ─► shorthand, row_comparisons, expressions, session_values, current_time (rewrite what the planner does not
//!        support)
//!     ─► numbers (exact literals), ordered_aggregates
//!     ─► using_joins (USING and NATURAL as ON), order_columns
//!     ─► parameter_values (replace placeholders with typed literals)
//!     ─► engine's planner, which calls parameter_values and boolean_texts ─► engine_bugs
//! ```
//!
//! If the planner refuses a statement because two output names are equal, `output_names` rewrites the statement, which
//! is then planned again.
//!
//! After planning, `ambiguous_names` searches the plan and the syntax tree for ambiguous names in subqueries.
//!
//! The engine's parser accepts the SQL dialects of many databases, and its planner ignores some clauses without an
//! error.
//!
//! **Invariant:** every clause is either planned, or refused with an error that names the clause.

use datafusion::execution::session_state::SessionState;
use datafusion::sql::parser::Statement;

use crate::error::Result;

pub(crate) mod ambiguous_names;
mod array_comparisons;
pub(crate) mod boolean_texts;
mod clauses;
mod current_time;
mod expressions;
mod from_columns;
mod json_operators;
mod merged_columns;
mod misplaced_aggregates;
mod named_windows;
mod numbers;
mod operator_precedence;
mod order_columns;
mod ordered_aggregates;
pub(crate) mod output_names;
pub(crate) mod parameter_values;
mod row_comparisons;
pub(crate) mod session_values;
pub(crate) mod shorthand;
pub(crate) mod table_command;
pub(crate) mod token_rewrites;
mod tree;
mod type_names;
mod using_joins;
mod volatile_queries;
mod wildcards;

/// Checks the clauses of a parsed statement, and rewrites what the planner does not support or plans wrongly.
///
/// `user` is the value of `current_user`, or `None` if the statement has no caller. Returns true if the statement
/// contains `current_user`.
pub(crate) fn check_and_rewrite(statement: &mut Statement, state: &SessionState, user: Option<&str>) -> Result<bool> {
    let functions = state.scalar_functions();
    operator_precedence::rewrite(statement)?;
    named_windows::rewrite(statement)?;
    clauses::check(statement, &|name| functions.contains_key(name))?;
    volatile_queries::check(statement)?;
    misplaced_aggregates::check(statement, &|name| state.aggregate_functions().contains_key(name))?;
    shorthand::rewrite(statement)?;
    let names_user = expressions::rewrite(statement, user)?;
    numbers::rewrite(statement);
    ordered_aggregates::rewrite(statement);
    Ok(names_user)
}

/// Rewrites the names of columns that the planner would mistake for other columns. Unlike [`check_and_rewrite`], this
/// function needs the columns of the session's tables.
pub(crate) fn rewrite_columns(statement: &mut Statement, state: &SessionState) -> Result<()> {
    using_joins::rewrite(statement, state)?;
    order_columns::rewrite(statement, state)
}
