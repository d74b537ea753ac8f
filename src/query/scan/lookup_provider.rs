//! The table provider of a lookup table: one version of its contents, with the columns and rows that a caller may see.
//!
//! ```text
//!   Lookups ─► rows of the tenant (or all rows, if shared) ─► LookupScan: row rules, columns ─► the user's plan
//! ```
//!
//! **Invariant:** a provider holds one version of the contents. A refresh during a query does not change the rows that
//! the query reads.
//! **Invariant:** a provider holds only rows that the caller's tenant may see ([`LoadedLookup::rows_of`]).
//! **Invariant:** a provider reports no statistics. They would include the rows that a row rule hides.

use std::fmt;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::DFSchema;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, TableType};
use datafusion::physical_plan::ExecutionPlan;

use crate::config::{ColumnConfig, LookupConfig};
use crate::contract::TenantId;
use crate::error::Error;
use crate::query::scan::lookup_scan::{LookupRows, LookupScan};
use crate::query::scan::scan_spec::{engine_schema, rule_condition};
use crate::tenancy::TableRules;
use crate::transform::{LoadedLookup, Lookups, QueryableLookup};

/// A lookup table with the columns and rows that a caller may see.
pub(in crate::query) struct SessionLookup {
    lookups: Arc<Lookups>,
    name: Arc<str>,
    config: Arc<LookupConfig>,
    /// The version of the contents, or `None` if the lookup table has never been loaded.
    loaded: Option<Arc<LoadedLookup>>,
    /// The rows of the caller's tenant, or all rows if the lookup table is shared.
    batches: Arc<Vec<RecordBatch>>,
    /// The row rules of the caller's policy.
    rules: Vec<Expr>,
    /// All columns. Empty if they are not known yet.
    full: SchemaRef,
    /// The columns that the caller may see.
    schema: SchemaRef,
}

impl SessionLookup {
    /// Creates the lookup table that a tenant sees.
    pub(in crate::query) fn of_tenant(
        lookups: &Arc<Lookups>,
        lookup: &QueryableLookup<'_>,
        tenant: &TenantId,
        rules: &TableRules,
    ) -> Self {
        let full = lookup.schema.clone().unwrap_or_else(|| Arc::new(Schema::empty()));
        let is_listed = |name: &String| rules.columns.as_ref().is_none_or(|columns| columns.contains(name));
        let schema = engine_schema(full.fields().iter().filter(|field| is_listed(field.name())));
        Self {
            lookups: Arc::clone(lookups),
            name: lookup.name.into(),
            config: Arc::clone(lookup.config),
            batches: lookup.loaded.as_ref().map(|loaded| loaded.rows_of(tenant)).unwrap_or_default(),
            loaded: lookup.loaded.clone(),
            rules: rules.rows.iter().map(|rule| rule_condition(&full, rule)).collect(),
            full,
            schema,
        }
    }

    /// Returns the description from the configuration.
    pub(in crate::query) fn description(&self) -> &str {
        &self.config.description
    }

    /// Returns the declaration of a column, or `None` if the columns are not declared.
    pub(in crate::query) fn declared(&self, column: &str) -> Option<&ColumnConfig> {
        self.config.columns.iter().find(|declared| declared.name == column)
    }

    /// Returns true if the columns are declared or the lookup table has been loaded. Otherwise, its columns are unknown.
    pub(in crate::query) fn has_columns(&self) -> bool {
        self.loaded.is_some() || !self.config.columns.is_empty()
    }

    /// Returns true if the lookup table has not been loaded again since this version.
    pub(in crate::query) fn is_current(&self) -> bool {
        match (&self.loaded, self.lookups.current(&self.name)) {
            (Some(own), Some(current)) => Arc::ptr_eq(own, &current),
            (None, None) => true,
            _ => false,
        }
    }

    /// Returns the error for a query of a lookup table that has never been loaded.
    pub(in crate::query) fn not_loaded(&self) -> DataFusionError {
        let message = format!("the lookup table `{}` is not loaded yet: retry later", self.name);
        DataFusionError::External(Box::new(Error::unavailable(message)))
    }
}

#[async_trait]
impl TableProvider for SessionLookup {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _: &[Expr],
        _: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if self.loaded.is_none() {
            return Err(self.not_loaded());
        }
        let schema = match projection {
            Some(columns) => Arc::new(self.schema.project(columns)?),
            None => Arc::clone(&self.schema),
        };
        let columns = schema.fields().iter().map(|field| self.full.index_of(field.name()));
        let columns = columns.collect::<Result<Vec<_>, _>>()?;
        let predicate = conjunction(self.rules.clone())
            .map(|rules| state.create_physical_expr(rules, &DFSchema::try_from(Arc::clone(&self.full))?))
            .transpose()?;
        let rows = LookupRows { batches: Arc::clone(&self.batches), columns, predicate };
        Ok(Arc::new(LookupScan::new(&self.name, rows, schema)))
    }
}

impl fmt::Debug for SessionLookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionLookup").field("name", &self.name).finish_non_exhaustive()
    }
}
