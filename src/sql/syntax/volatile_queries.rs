//! Refuses a WITH query that calls `random()` or a similar function and is used more than once.
//!
//! The engine replaces each use of a WITH query by the query itself, so that each use would see different values. In
//! PostgreSQL, such a query is evaluated once.

use std::collections::HashSet;
use std::ops::ControlFlow;

use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{Expr, Function, Query, TableFactor, Visit as _, Visitor};

use crate::error::{Error, Result};
use crate::sql::syntax::tree::{last_name_of, name_of, query_of};

/// The functions that return another value on each call.
const VOLATILE: [&str; 4] = ["random", "rand", "uuid", "gen_random_uuid"];

/// Returns true if the function returns another value on each call.
pub(super) fn is_volatile_call(call: &Function) -> bool {
    last_name_of(&call.name).is_some_and(|name| VOLATILE.contains(&name.as_str()))
}

/// Refuses a statement in which a WITH query with a volatile function is used more than once.
pub(super) fn check(statement: &mut Statement) -> Result<()> {
    let Some(query) = query_of(statement) else { return Ok(()) };
    let query = &*query;
    if !Relations::of(query).has_volatile_call {
        return Ok(());
    }
    match query.visit(&mut Check) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(name) => Err(Error::unsupported(format!(
            "the WITH query `{name}` calls a function such as random() and is used more than once: use it once, or \
             store its rows in a table"
        ))),
    }
}

/// A visitor that checks the WITH queries of each query. It stops at the name of a query that is refused.
struct Check;

impl Visitor for Check {
    type Break = String;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<String> {
        let Some(with) = &query.with else { return ControlFlow::Continue(()) };
        // The WITH queries that call a volatile function, or use such a query.
        let mut volatile = HashSet::new();
        for cte in &with.cte_tables {
            let relations = Relations::of(&cte.query);
            if relations.has_volatile_call || relations.names.iter().any(|name| volatile.contains(name)) {
                volatile.insert(name_of(&cte.alias.name));
            }
        }
        if volatile.is_empty() {
            return ControlFlow::Continue(());
        }
        let relations = Relations::of(query);
        let refused = with.cte_tables.iter().find(|cte| {
            let name = name_of(&cte.alias.name);
            // The uses of a recursive query inside itself do not count.
            volatile.contains(&name) && relations.count(&name) > 1 + Relations::of(&cte.query).count(&name)
        });
        refused.map_or(ControlFlow::Continue(()), |cte| ControlFlow::Break(name_of(&cte.alias.name)))
    }
}

/// The names of the tables in the FROM clauses of a query, with duplicates.
#[derive(Default)]
struct Relations {
    names: Vec<String>,
    has_volatile_call: bool,
}

impl Relations {
    fn of(query: &Query) -> Self {
        let mut relations = Self::default();
        let _ = query.visit(&mut relations);
        relations
    }

    fn count(&self, name: &str) -> usize {
        self.names.iter().filter(|used| *used == name).count()
    }
}

impl Visitor for Relations {
    type Break = ();

    fn pre_visit_table_factor(&mut self, factor: &TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table { name, args: None, .. } = factor
            && name.0.len() == 1
        {
            self.names.extend(last_name_of(name));
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        self.has_volatile_call |= matches!(expr, Expr::Function(call) if is_volatile_call(call));
        ControlFlow::Continue(())
    }
}
