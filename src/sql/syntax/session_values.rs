//! Replaces keywords and functions that describe the session with constants.
//!
//! | in the statement | replaced with |
//! |---|---|
//! | `current_user`, `session_user`, `user` | the caller's name |
//! | `current_catalog`, `current_database()` | the name of the catalog |
//! | `current_schema`, `current_schema()` | the name of the schema |
//! | `version()` | `Glasshouse` and the version of the server |

use datafusion::sql::sqlparser::ast::{Expr, Function, FunctionArguments, Ident, ObjectName};

/// The name of the only catalog.
pub(crate) const CATALOG: &str = "glasshouse";
/// The name of the schema that holds all tables.
pub(crate) const SCHEMA: &str = "public";

/// A value that describes the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SessionValue {
    /// The name of the caller.
    User,
    /// A string that is the same for all sessions.
    Text(&'static str),
}

/// The version of the server, as `version()` returns it.
const VERSION: &str = concat!("Glasshouse ", env!("CARGO_PKG_VERSION"));

/// The names that are used without parentheses.
const KEYWORDS: [(&str, SessionValue); 5] = [
    ("current_user", SessionValue::User),
    ("session_user", SessionValue::User),
    ("user", SessionValue::User),
    ("current_catalog", SessionValue::Text(CATALOG)),
    ("current_schema", SessionValue::Text(SCHEMA)),
];
/// The names that are called like functions, such as `current_schema()`.
const FUNCTIONS: [(&str, SessionValue); 3] = [
    ("current_database", SessionValue::Text(CATALOG)),
    ("current_schema", SessionValue::Text(SCHEMA)),
    ("version", SessionValue::Text(VERSION)),
];

/// Returns the name and the value if the expression describes the session.
pub(super) fn session_value(expr: &Expr) -> Option<(&'static str, SessionValue)> {
    match expr {
        // The parser reads `current_schema` as the name of a column. As in PostgreSQL, a column with this name must be
        // quoted.
        Expr::Identifier(ident @ Ident { quote_style: None, .. }) if is(ident, "current_schema") => {
            Some(("current_schema", SessionValue::Text(SCHEMA)))
        }
        Expr::Function(Function { name, args: FunctionArguments::None, .. }) => find(name, &KEYWORDS),
        Expr::Function(Function { name, args: FunctionArguments::List(list), filter: None, over: None, .. })
            if list.args.is_empty() && list.clauses.is_empty() && list.duplicate_treatment.is_none() =>
        {
            find(name, &FUNCTIONS)
        }
        _ => None,
    }
}

fn find(name: &ObjectName, values: &[(&'static str, SessionValue)]) -> Option<(&'static str, SessionValue)> {
    let [part] = name.0.as_slice() else { return None };
    let ident = part.as_ident()?;
    values.iter().copied().find(|(name, _)| is(ident, name))
}

fn is(ident: &Ident, name: &str) -> bool {
    ident.value.eq_ignore_ascii_case(name)
}
