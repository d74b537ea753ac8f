//! [`SessionRelation`]: a table or a lookup table that a session can read.

use std::borrow::Cow;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::error::Result;

use crate::query::scan::lookup_provider::SessionLookup;
use crate::query::scan::table_provider::SessionTable;

/// A table or a lookup table, with the columns and rows that a caller may see.
#[derive(Debug, Clone)]
pub(in crate::query) enum SessionRelation {
    /// A table of the lake.
    Table(Arc<SessionTable>),
    /// A lookup table.
    Lookup(Arc<SessionLookup>),
}

impl SessionRelation {
    /// Returns the table provider.
    pub(in crate::query) fn provider(&self) -> Arc<dyn TableProvider> {
        match self {
            Self::Table(table) => Arc::clone(table) as Arc<dyn TableProvider>,
            Self::Lookup(lookup) => Arc::clone(lookup) as Arc<dyn TableProvider>,
        }
    }

    /// Returns the columns that the caller may see.
    pub(in crate::query) fn schema(&self) -> SchemaRef {
        match self {
            Self::Table(table) => TableProvider::schema(&**table),
            Self::Lookup(lookup) => TableProvider::schema(&**lookup),
        }
    }

    /// Returns the description from the declaration.
    pub(in crate::query) fn description(&self) -> Cow<'_, str> {
        match self {
            Self::Table(table) => table.description(),
            Self::Lookup(lookup) => lookup.description().into(),
        }
    }

    /// Returns the declared description and unit of a column, or `None` if the column is not declared.
    pub(in crate::query) fn column_description(&self, column: &str) -> Option<(&str, &str)> {
        match self {
            Self::Table(table) => {
                let columns = &table.contract().columns;
                let column = columns.iter().find(|declared| declared.name == column)?;
                Some((&column.description, &column.unit))
            }
            Self::Lookup(lookup) => {
                lookup.declared(column).map(|column| (column.description.as_str(), column.unit.as_str()))
            }
        }
    }

    /// Fails with `Unavailable` if the columns are not known yet. This is possible only for a lookup table that declares
    /// no columns and has never been loaded.
    pub(in crate::query) fn check_columns(&self) -> Result<()> {
        match self {
            Self::Lookup(lookup) if !lookup.has_columns() => Err(lookup.not_loaded()),
            Self::Table(_) | Self::Lookup(_) => Ok(()),
        }
    }

    /// Returns true if there is no newer version of the table or lookup table.
    pub(in crate::query) fn is_current(&self) -> bool {
        match self {
            Self::Table(table) => table.is_current(),
            Self::Lookup(lookup) => lookup.is_current(),
        }
    }
}
