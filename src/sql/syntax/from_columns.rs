//! Determines the output columns of the items in a FROM clause.
//!
//! If the query spells out the names of an item's columns, they are read from the syntax tree. For a table, a function
//! or a `SELECT *`, the engine plans `SELECT * FROM item`, and the names are read from the plan.

use datafusion::execution::session_state::SessionState;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    self, Cte, Query, SelectItem, SetExpr, TableAlias, TableFactor, With, helpers::attached_token::AttachedToken,
};
use futures::FutureExt as _;

use crate::error::{Error, Result};
use crate::sql::syntax::tree::{column_name, last_name_of, name_of, query, select, table, wildcard};

/// The tables and WITH queries to which a FROM clause can refer.
pub(in crate::sql::syntax) struct FromColumns<'a> {
    state: &'a SessionState,
    /// The WITH queries that are in scope.
    with_queries: Vec<Cte>,
    recursive: bool,
}

impl<'a> FromColumns<'a> {
    pub(in crate::sql::syntax) fn new(state: &'a SessionState) -> Self {
        Self { state, with_queries: Vec::new(), recursive: false }
    }

    /// Returns the number of WITH queries that are in scope.
    pub(in crate::sql::syntax) fn len(&self) -> usize {
        self.with_queries.len()
    }

    /// Adds a WITH query to the scope.
    pub(in crate::sql::syntax) fn push(&mut self, with_query: &Cte, recursive: bool) {
        self.with_queries.push(with_query.clone());
        self.recursive |= recursive;
    }

    /// Removes the most recently added WITH queries until only `len` WITH queries are left.
    pub(in crate::sql::syntax) fn truncate(&mut self, len: usize) {
        self.with_queries.truncate(len);
    }

    /// Returns the column names of a FROM item, in the order of `SELECT *`.
    pub(in crate::sql::syntax) fn of(&self, relation: &TableFactor) -> Result<Vec<String>> {
        let alias = match relation {
            TableFactor::Table { alias, .. }
            | TableFactor::Derived { alias, .. }
            | TableFactor::Function { alias, .. }
            | TableFactor::UNNEST { alias, .. }
            | TableFactor::NestedJoin { alias, .. } => alias.as_ref(),
            _ => None,
        };
        if let Some(names) = alias.and_then(alias_columns) {
            return Ok(names);
        }
        let written = match relation {
            TableFactor::Table { name, args: None, .. } => self.find(name).and_then(with_columns),
            TableFactor::Derived { subquery, .. } => query_columns(subquery),
            _ => None,
        };
        written.map_or_else(|| self.planned(relation), Ok)
    }

    fn find(&self, name: &ast::ObjectName) -> Option<&Cte> {
        let last = last_name_of(name).filter(|_| name.0.len() == 1)?;
        self.with_queries.iter().rev().find(|cte| name_of(&cte.alias.name) == last)
    }

    /// Returns the column names in the plan for `SELECT * FROM relation`.
    fn planned(&self, relation: &TableFactor) -> Result<Vec<String>> {
        let is_table = matches!(relation, TableFactor::Table { name, .. } if self.find(name).is_none());
        let mut probe = query(SetExpr::Select(Box::new(select(vec![wildcard()], vec![table(relation.clone())], None))));
        if !is_table && !self.with_queries.is_empty() {
            probe.with = Some(With {
                with_token: AttachedToken::empty(),
                recursive: self.recursive,
                cte_tables: self.with_queries.clone(),
            });
        }
        let probe = Statement::Statement(Box::new(ast::Statement::Query(Box::new(probe))));
        // The session's table definitions are in memory, so planning never waits.
        match self.state.statement_to_plan(probe).now_or_never() {
            Some(Ok(plan)) => Ok(plan.schema().fields().iter().map(|field| field.name().clone()).collect()),
            Some(Err(error)) => Err(unknown_columns(relation).with_source(error)),
            None => Err(unknown_columns(relation)),
        }
    }
}

fn unknown_columns(relation: &TableFactor) -> Error {
    let name = match relation {
        TableFactor::Table { name, .. } | TableFactor::Function { name, .. } => format!("`{name}`"),
        _ => "a subquery".to_owned(),
    };
    Error::unsupported(format!(
        "USING and NATURAL are not supported here, because the columns of {name} cannot be determined: use ON, as in \
         a JOIN b ON a.x = b.x"
    ))
}

/// Returns the column names in an alias, or `None` if the alias lists no columns.
fn alias_columns(alias: &TableAlias) -> Option<Vec<String>> {
    (!alias.columns.is_empty()).then(|| alias.columns.iter().map(|column| name_of(&column.name)).collect())
}

fn with_columns(with_query: &Cte) -> Option<Vec<String>> {
    alias_columns(&with_query.alias).or_else(|| query_columns(&with_query.query))
}

/// Returns the column names of a query, or `None` if the select list does not determine all names.
fn query_columns(query: &Query) -> Option<Vec<String>> {
    if query.pipe_operators.is_empty() { body_columns(&query.body) } else { None }
}

fn body_columns(body: &SetExpr) -> Option<Vec<String>> {
    match body {
        SetExpr::Select(select) => select
            .projection
            .iter()
            .map(|item| match item {
                SelectItem::UnnamedExpr(expr) => column_name(expr),
                SelectItem::ExprWithAlias { alias, .. } => Some(name_of(alias)),
                _ => None,
            })
            .collect(),
        SetExpr::Query(query) => query_columns(query),
        SetExpr::SetOperation { set_quantifier, left, .. } => {
            use ast::SetQuantifier::{AllByName, ByName, DistinctByName};
            let is_by_name = matches!(set_quantifier, AllByName | ByName | DistinctByName);
            if is_by_name { None } else { body_columns(left) }
        }
        _ => None,
    }
}
