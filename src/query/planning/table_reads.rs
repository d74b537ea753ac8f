//! Limits the number of tables that a statement reads, before it is planned.
//!
//! Without this limit, planning a small statement could keep a thread busy for hours. For example, if each WITH query
//! reads the previous one twice, the size of the plan doubles with every WITH query.

use std::collections::HashMap;

use datafusion::sql::sqlparser::ast::{Query, TableFactor};

use crate::error::{Error, Result};

/// The maximum number of tables that a statement may read after its WITH queries are expanded.
const READS_MAX: usize = 1_000;

/// Counts the tables that a statement reads after its WITH queries are expanded. A visitor of the syntax tree reports
/// each query and table, in the order of the text.
#[derive(Debug, Default)]
pub(in crate::query) struct TableReads {
    /// For each query that encloses the current node, the number of tables read so far.
    open: Vec<usize>,
    /// The names of the WITH queries that have not ended yet, keyed by the address of the query.
    defined: HashMap<usize, String>,
    /// The number of tables that each WITH query reads, by name. If two WITH queries share a name, the larger number is
    /// used.
    known: HashMap<String, usize>,
}

impl TableReads {
    /// Starts a query.
    pub(in crate::query) fn enter(&mut self, query: &Query) {
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            self.defined.insert(address(&cte.query), cte.alias.name.value.to_lowercase());
        }
        self.open.push(0);
    }

    /// Ends a query. The tables of a WITH query count for each reference to it. The tables of any other query count for
    /// the enclosing query.
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

    /// Counts a table reference. A reference to a WITH query counts as many tables as that query reads.
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
            "the statement reads more than {READS_MAX} tables once its WITH queries are expanded: reference them less \
             often"
        )))
    }
}

/// Returns the address of a query, which identifies it within its statement.
fn address(query: &Query) -> usize {
    std::ptr::from_ref(query).addr()
}
