//! Limits the number of tables that a statement reads. The limit is checked before planning.
//!
//! Otherwise, planning a small statement could keep a thread busy for hours: if each WITH query reads the previous one
//! twice, the size of the plan doubles with every WITH query.

use std::collections::HashMap;

use datafusion::sql::sqlparser::ast::{Query, TableFactor};

use crate::error::{Error, Result};

/// The maximum number of tables that a statement may read after its WITH queries are expanded.
const READS_MAX: usize = 1_000;

/// Counts the tables that a statement reads after its WITH queries are expanded. The visitor of the syntax tree calls
/// [`enter`](Self::enter) and [`leave`](Self::leave) for each query, and [`read`](Self::read) for each table, in the
/// order of the statement's text.
#[derive(Debug, Default)]
pub(in crate::query) struct TableReads {
    /// The number of tables that have been counted so far, for each query that encloses the current node.
    open: Vec<usize>,
    /// The names of the WITH queries that the visitor has not left yet. The key is the address of the query.
    defined: HashMap<usize, String>,
    /// The number of tables that each WITH query reads, keyed by the query's name. If two WITH queries have the same
    /// name, this is the larger of the two numbers.
    known: HashMap<String, usize>,
}

impl TableReads {
    /// Called when the visitor enters a query.
    pub(in crate::query) fn enter(&mut self, query: &Query) {
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            self.defined.insert(address(&cte.query), cte.alias.name.value.to_lowercase());
        }
        self.open.push(0);
    }

    /// Called when the visitor leaves a query. The number of tables in a WITH query is added for each reference to the
    /// WITH query. The number of tables in any other query is added to that of the enclosing query.
    pub(in crate::query) fn leave(&mut self, query: &Query) -> Result<()> {
        let reads = self.open.pop().unwrap_or(0);
        match self.defined.remove(&address(query)) {
            Some(name) => {
                let known = self.known.entry(name).or_insert(1);
                *known = reads.max(*known);
                Ok(())
            }
            None => self.add(reads),
        }
    }

    /// Adds one for a reference to a table. For a reference to a WITH query, adds the number of tables that the WITH
    /// query reads.
    pub(in crate::query) fn read(&mut self, relation: &TableFactor) -> Result<()> {
        let with_query = match relation {
            TableFactor::Table { name, .. } => self.known.get(&name.to_string().replace('"', "").to_lowercase()),
            _ => None,
        };
        self.add(with_query.copied().unwrap_or(1))
    }

    fn add(&mut self, reads: usize) -> Result<()> {
        let Some(open) = self.open.last_mut() else { return Ok(()) };
        *open = open.saturating_add(reads);
        if *open <= READS_MAX {
            return Ok(());
        }
        Err(Error::limited(format!(
            "the statement reads more than {READS_MAX} tables once its WITH queries are expanded: reference the \
             WITH queries less often"
        )))
    }
}

/// Returns the address of a query, which identifies the query within its statement.
fn address(query: &Query) -> usize {
    std::ptr::from_ref(query).addr()
}
