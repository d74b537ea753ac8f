//! Name resolution of a session: one catalog with one schema that holds the caller's tables, and an
//! `information_schema`.
//!
//! In: the visible tables. Out: a catalog list for the engine. It is read-only: nothing can be registered or dropped.
//!
//! **Invariant:** a table that the caller may not see is not in the catalog, so it looks like one that does not exist.
//! **Invariant:** `information_schema.df_settings` is empty: it would reveal the options of the server.

use std::collections::BTreeMap;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::catalog::information_schema::{INFORMATION_SCHEMA, InformationSchemaProvider};
use datafusion::catalog::{
    CatalogProvider, CatalogProviderList, MemoryCatalogProviderList, SchemaProvider, TableFunction, TableProvider,
};
use datafusion::datasource::empty::EmptyTable;
use datafusion::error::Result;

use crate::query::request::session::{CATALOG, SCHEMA};
use crate::query::scan::tenant_table::SessionTable;

/// The table of `information_schema` that would reveal the options of the server.
const SETTINGS: &str = "df_settings";

/// The tables of one session by name.
pub(in crate::query) type SessionTables = BTreeMap<String, Arc<SessionTable>>;

/// The catalog list of a session, with exactly one catalog.
pub(in crate::query) fn catalogs(
    tables: Arc<SessionTables>,
    functions: Arc<[Arc<TableFunction>]>,
) -> Arc<dyn CatalogProviderList> {
    only(Arc::new(Catalog { tables, information: Some(functions) }))
}

fn only(catalog: Arc<Catalog>) -> Arc<dyn CatalogProviderList> {
    let list = MemoryCatalogProviderList::new();
    list.register_catalog(CATALOG.to_owned(), catalog);
    Arc::new(list)
}

#[derive(Debug)]
struct Catalog {
    tables: Arc<SessionTables>,
    /// The table functions that `information_schema` lists; empty while the `information_schema` itself is built.
    information: Option<Arc<[Arc<TableFunction>]>>,
}

impl CatalogProvider for Catalog {
    fn schema_names(&self) -> Vec<String> {
        let information = self.information.is_some().then(|| INFORMATION_SCHEMA.to_owned());
        std::iter::once(SCHEMA.to_owned()).chain(information).collect()
    }

    fn schema(&self, name: &str) -> Option<Arc<dyn SchemaProvider>> {
        match (name, &self.information) {
            (SCHEMA, _) => Some(Arc::new(Public(Arc::clone(&self.tables)))),
            (INFORMATION_SCHEMA, Some(functions)) => {
                let listed = only(Arc::new(Self { tables: Arc::clone(&self.tables), information: None }));
                let functions = functions.iter().map(|function| (function.name().to_owned(), Arc::clone(function)));
                let provider = InformationSchemaProvider::new(listed).with_table_functions(functions.collect());
                Some(Arc::new(Information(provider)))
            }
            _ => None,
        }
    }
}

#[derive(Debug)]
struct Public(Arc<SessionTables>);

#[async_trait]
impl SchemaProvider for Public {
    fn table_names(&self) -> Vec<String> {
        self.0.keys().cloned().collect()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        Ok(self.0.get(name).map(|table| Arc::clone(table) as Arc<dyn TableProvider>))
    }

    fn table_exist(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }
}

/// The engine's `information_schema` without its settings.
#[derive(Debug)]
struct Information(InformationSchemaProvider);

#[async_trait]
impl SchemaProvider for Information {
    fn table_names(&self) -> Vec<String> {
        self.0.table_names()
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>> {
        let table = self.0.table(name).await?;
        if name.eq_ignore_ascii_case(SETTINGS) {
            return Ok(table.map(|settings| Arc::new(EmptyTable::new(settings.schema())) as Arc<dyn TableProvider>));
        }
        Ok(table)
    }

    fn table_exist(&self, name: &str) -> bool {
        self.0.table_exist(name)
    }
}
