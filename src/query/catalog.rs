//! The catalog of a session: one schema with the caller's tables and lookup tables, and an `information_schema`.
//!
//! The catalog is read-only: a statement cannot register or drop a table.
//!
//! **Invariant:** a table that the caller may not see is not in the catalog. The caller cannot distinguish such a table
//! from a table that does not exist.
//! **Invariant:** `information_schema.df_settings` is empty, because its rows would reveal the server's options.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::information_schema::{INFORMATION_SCHEMA, InformationSchemaProvider};
use datafusion::catalog::{
    CatalogProvider, CatalogProviderList, MemoryCatalogProviderList, SchemaProvider, TableFunction, TableProvider,
};
use datafusion::common::TableReference;
use datafusion::datasource::empty::EmptyTable;
use datafusion::error::Result;

use crate::error::{Error, did_you_mean};
use crate::query::column_types::TypedColumns;
use crate::query::scan::session_relation::SessionRelation;
use crate::sql::syntax::session_values;

/// The name of the only catalog.
pub const CATALOG: &str = session_values::CATALOG;
/// The name of the schema that holds all tables.
pub const SCHEMA: &str = session_values::SCHEMA;

/// The table of `information_schema` that lists the server's options. Sessions see an empty table instead.
const SETTINGS: &str = "df_settings";
/// The table of `information_schema` that lists columns with their types.
const COLUMNS: &str = "columns";

/// The tables and lookup tables of one session, keyed by their SQL names.
pub(in crate::query) type SessionTables = BTreeMap<String, SessionRelation>;

/// Creates the catalog list of a session. It contains only the catalog [`CATALOG`].
pub(in crate::query) fn catalogs(
    tables: Arc<SessionTables>,
    functions: Arc<[Arc<TableFunction>]>,
) -> Arc<dyn CatalogProviderList> {
    list_of(Arc::new(Catalog { tables, functions: Some(functions) }))
}

/// Returns the error for a table that is not in the session. The error is the same whether or not the table exists for
/// other callers.
pub(in crate::query) fn unknown_table(name: &TableReference, tables: &SessionTables) -> Error {
    let near = match name {
        TableReference::Bare { .. } => did_you_mean(name.table(), tables.keys().map(String::as_str)),
        _ => String::new(),
    };
    Error::not_found(format!("unknown table `{name}`{near}"))
}

fn list_of(catalog: Arc<Catalog>) -> Arc<dyn CatalogProviderList> {
    let list = MemoryCatalogProviderList::new();
    list.register_catalog(CATALOG.to_owned(), catalog);
    Arc::new(list)
}

#[derive(Debug)]
struct Catalog {
    tables: Arc<SessionTables>,
    /// The table functions that `information_schema` lists. `None` in the inner catalog from which the engine builds
    /// `information_schema`, because that catalog does not contain `information_schema` itself.
    functions: Option<Arc<[Arc<TableFunction>]>>,
}

impl CatalogProvider for Catalog {
    fn schema_names(&self) -> Vec<String> {
        let information_schema = self.functions.is_some().then(|| INFORMATION_SCHEMA.to_owned());
        std::iter::once(SCHEMA.to_owned()).chain(information_schema).collect()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        match (name, &self.functions) {
            (SCHEMA, _) => Some(Arc::new(PublicSchema(Arc::clone(&self.tables)))),
            (INFORMATION_SCHEMA, Some(functions)) => {
                let listed = list_of(Arc::new(Self { tables: Arc::clone(&self.tables), functions: None }));
                let functions = functions.iter().map(|function| (function.name().to_owned(), Arc::clone(function)));
                let provider = InformationSchemaProvider::new(listed).with_table_functions(functions.collect());
                Some(Arc::new(InformationSchema { provider, tables: Arc::clone(&self.tables) }))
            }
            _ => None,
        }
    }
}

/// The schema that holds the caller's tables.
#[derive(Debug)]
struct PublicSchema(Arc<SessionTables>);

#[async_trait]
impl SchemaProvider for PublicSchema {
    /// Returns the names of the tables whose columns are known.
    fn table_names(&self) -> Vec<String> {
        self.0.iter().filter(|(_, table)| table.check_columns().is_ok()).map(|(name, _)| name.clone()).collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let Some(table) = self.0.get(name) else { return Ok(None) };
        table.check_columns()?;
        Ok(Some(table.provider()))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

/// The engine's `information_schema`, with an empty table of settings and with the names of SQL types.
#[derive(Debug)]
struct InformationSchema {
    provider: InformationSchemaProvider,
    tables: Arc<SessionTables>,
}

#[async_trait]
impl SchemaProvider for InformationSchema {
    fn table_names(&self) -> Vec<String> {
        self.provider.table_names()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let table = self.provider.table(name).await?;
        if name.eq_ignore_ascii_case(SETTINGS) {
            return Ok(table.map(|settings| Arc::new(EmptyTable::new(settings.schema())) as Arc<dyn TableProvider>));
        }
        if name.eq_ignore_ascii_case(COLUMNS) {
            return Ok(
                table.map(|columns| Arc::new(TypedColumns::new(columns, &self.tables)) as Arc<dyn TableProvider>)
            );
        }
        Ok(table)
    }

    fn table_exist(&self, name: &str) -> bool {
        self.provider.table_exist(name)
    }
}
