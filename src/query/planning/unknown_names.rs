//! Explains errors about names that the planner cannot resolve. These are the names of unknown functions, and of
//! columns that are not visible where the statement uses them.
//!
//! The suggestions depend only on the names, so they are the same in every process. In contrast, the engine's
//! suggestions depend on the order of a hash map.

use std::ops::ControlFlow;

use datafusion::common::{Column, SchemaError};
use datafusion::error::DataFusionError;
use datafusion::execution::session_state::SessionState;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{TableFactor, Visit as _, Visitor};

use crate::error::{Error, did_you_mean};
use crate::sql::engine_error_text::root;

/// Returns the error to report for an unknown function, or for a column that exists but is not visible where the
/// statement uses it. Returns `None` if `error` is any other error. `parse` is called to get the syntax tree of the
/// statement.
pub(in crate::query) fn explain(
    error: &DataFusionError,
    state: &SessionState,
    parse: impl FnOnce() -> Option<Statement>,
) -> Option<Error> {
    match root(error) {
        DataFusionError::Plan(text) => {
            let name = text.strip_prefix("Invalid function '")?.split('\'').next()?;
            Some(unknown_function(name, state))
        }
        DataFusionError::SchemaError(schema, _) => {
            let SchemaError::FieldNotFound { field, valid_fields } = &**schema else { return None };
            let is_hidden = is_hidden(field, valid_fields, &parse()?);
            is_hidden.then(|| {
                Error::invalid(format!(
                    "column `{}` is not visible here: a subquery can use the columns of the directly enclosing query, \
                     but in FROM only with LATERAL; after GROUP BY, only the grouped columns can be used",
                    field.flat_name()
                ))
            })
        }
        _ => None,
    }
}

/// Returns the error for an unknown function, or for a window function that is called without OVER.
pub(in crate::query) fn unknown_function(name: &str, state: &SessionState) -> Error {
    if state.window_functions().contains_key(name) {
        return Error::invalid(format!("function `{name}` needs a window: add OVER (...) after its arguments"));
    }
    let scalar = state.scalar_functions().keys().chain(state.higher_order_functions().keys());
    let known = scalar.chain(state.aggregate_functions().keys()).chain(state.window_functions().keys());
    // Many function names have only three letters. A suggestion that differs in two of them would not be useful.
    let near = |known: &&str| strsim::damerau_levenshtein(name, known) <= (known.len() / 3).max(1);
    let near = did_you_mean(name, known.map(String::as_str).filter(near));
    Error::invalid(format!("unknown function `{name}`{near}"))
}

/// Returns true if a table that matches the qualifier of the column occurs in the statement, but is not visible where
/// the column is used.
fn is_hidden(field: &Column, visible: &[Column], statement: &Statement) -> bool {
    let Some(relation) = &field.relation else { return false };
    let name = relation.table();
    if visible.iter().any(|column| column.relation.as_ref().is_some_and(|relation| relation.table() == name)) {
        return false;
    }
    let statement = match statement {
        Statement::Explain(explain) => &explain.statement,
        other => other,
    };
    match statement {
        Statement::Statement(statement) => statement.visit(&mut TableNamed { name }).is_break(),
        _ => false,
    }
}

/// Finds a table with the given name or alias.
struct TableNamed<'a> {
    name: &'a str,
}

impl Visitor for TableNamed<'_> {
    type Break = ();

    fn pre_visit_table_factor(&mut self, relation: &TableFactor) -> ControlFlow<()> {
        let alias = match relation {
            TableFactor::Table { alias, .. } | TableFactor::Derived { alias, .. } => alias.as_ref(),
            _ => None,
        };
        let name = match (alias, relation) {
            (Some(alias), _) => Some(alias.name.value.clone()),
            (None, TableFactor::Table { name, .. }) => {
                name.0.last().and_then(|part| part.as_ident()).map(|name| name.value.clone())
            }
            _ => None,
        };
        if name.is_some_and(|name| name.eq_ignore_ascii_case(self.name)) {
            return ControlFlow::Break(());
        }
        ControlFlow::Continue(())
    }
}
