//! A table as one caller sees it: visible columns, own rows, one snapshot.
//!
//! In: a lake table at one snapshot, and the caller's rules. Out: a table provider for the engine, whose scans are
//! [`TenantScan`]s of a [`ScanSpec`] over pruned files. A table declared with `latest` appears as two tables: its
//! newest versions under its own name, and a companion table with all versions. Queries of the operator's configuration
//! see the same tables without rules, with the rows of all tenants.
//!
//! ```text
//! all versions      prune by all filters ─► read ─► tenant, row rules newest versions   prune by filters on the key ─►
//! read ─► tenant ─► filters on the key ─► newest ─► row rules, not deleted
//! ```
//!
//! **Invariant:** a column outside the allow-list does not exist here: no schema, error or suggestion names it.
//! **Invariant:** row rules apply to the newest version: a row that has moved to another sub-account is no longer
//! visible to the first one, and no older version replaces it.
//! **Invariant:** a quarantine shows its open entries: neither rows that close entries nor closed entries.
//! **Invariant:** it fails closed: a rule with an unknown column, or with values that do not fit the column, matches no
//! row.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::common::ScalarValue;
use datafusion::datasource::physical_plan::ParquetFileReaderFactory;
use datafusion::error::Result;
use datafusion::execution::object_store::ObjectStoreUrl;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType, lit};
use datafusion::physical_plan::ExecutionPlan;

use crate::contract::{Contract, TenantId};
use crate::lake::{DataFile, Snapshot, Table};
use crate::query::scan::prune::{ScanBounds, is_leakproof, prune};
use crate::query::scan::scan_spec::{RowScope, ScanSpec, ShownRows, column};
use crate::query::scan::tenant_scan::TenantScan;
use crate::tenancy::{RowRule, TableRules};

/// Where the files of a table are, and how to read them.
#[derive(Clone)]
pub(in crate::query) struct TableSource {
    /// The URL under which the store is registered.
    pub(in crate::query) store: ObjectStoreUrl,
    /// Reads files of the store, with cached metadata.
    pub(in crate::query) reader: Arc<dyn ParquetFileReaderFactory>,
    /// The number of partitions of a scan.
    pub(in crate::query) partitions: usize,
}

/// One table for one caller.
pub(in crate::query) struct SessionTable {
    table: Arc<Table>,
    contract: Arc<Contract>,
    snapshot: Arc<Snapshot>,
    source: TableSource,
    /// Its name in SQL.
    name: Arc<str>,
    scope: RowScope,
    /// The row rules of the caller's policy.
    rules: Vec<Expr>,
    rows: ShownRows,
    /// The visible columns.
    schema: SchemaRef,
}

impl SessionTable {
    /// A tenant's view of a table, by its declaration: all rows, or the newest version of each key.
    pub(in crate::query) fn of_tenant(
        table: &Arc<Table>,
        snapshot: Arc<Snapshot>,
        source: TableSource,
        tenant: &TenantId,
        rules: &TableRules,
    ) -> Self {
        let (table, contract) = (Arc::clone(table), Arc::clone(table.contract()));
        let listed = |name: &String| rules.columns.as_ref().is_none_or(|columns| columns.contains(name));
        let visible = |field: &&Arc<Field>| contract.is_shown(field.name()) && listed(field.name());
        let schema = plain(contract.table_schema().fields().iter().filter(visible));
        Self {
            name: contract.name.as_str().into(),
            scope: RowScope::Tenant(tenant.clone()),
            rules: rules.rows.iter().map(|rule| condition(&contract, rule)).collect(),
            rows: ShownRows::of(&contract),
            table,
            contract,
            snapshot,
            source,
            schema,
        }
    }

    /// The operator's view: all columns and the rows of all tenants. A quarantine shows every stored row.
    pub(in crate::query) fn of_operator(table: &Arc<Table>, snapshot: Arc<Snapshot>, source: TableSource) -> Self {
        let (table, contract) = (Arc::clone(table), Arc::clone(table.contract()));
        let rows = match ShownRows::of(&contract) {
            ShownRows::OpenEntries { .. } => ShownRows::All,
            rows => rows,
        };
        Self {
            name: contract.name.as_str().into(),
            scope: RowScope::AllTenants,
            rules: Vec::new(),
            rows,
            schema: plain(contract.table_schema().fields().iter()),
            table,
            contract,
            snapshot,
            source,
        }
    }

    /// The companion table of all versions, for a table that shows the newest ones; `None` for any other table.
    pub(in crate::query) fn changes(&self) -> Option<Self> {
        Some(Self {
            table: Arc::clone(&self.table),
            contract: Arc::clone(&self.contract),
            snapshot: Arc::clone(&self.snapshot),
            source: self.source.clone(),
            name: self.contract.changes_name()?.into(),
            scope: self.scope.clone(),
            rules: self.rules.clone(),
            rows: ShownRows::All,
            schema: Arc::clone(&self.schema),
        })
    }

    /// Its name in SQL.
    pub(in crate::query) fn name(&self) -> &str {
        &self.name
    }

    /// The declared description.
    pub(in crate::query) fn description(&self) -> Cow<'_, str> {
        if *self.name == *self.contract.name {
            return (&self.contract.description).into();
        }
        self.contract.changes_description().into()
    }

    /// What the table is.
    pub(in crate::query) fn contract(&self) -> &Contract {
        &self.contract
    }

    /// Whether this is the newest known version of the table.
    pub(in crate::query) fn is_current(&self) -> bool {
        self.table.snapshot().version == self.snapshot.version
    }

    /// The scan of the visible columns at `projection`; of all visible columns for `None`.
    pub(in crate::query) fn spec(
        &self,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> ScanSpec {
        let name = |column: &usize| self.schema.field(*column).name().clone();
        let columns = match projection {
            Some(asked) => asked.iter().map(name).collect(),
            None => self.schema.fields().iter().map(|field| field.name().clone()).collect(),
        };
        let early = filters.iter().filter(|filter| self.rows.allows_early(filter, &self.contract));
        let bounds = ScanBounds::of(early.clone(), self.time());
        let files = prune(&self.snapshot, self.scope.tenant(), &bounds);
        ScanSpec {
            table: self.contract.name.as_str().into(),
            name: Arc::clone(&self.name),
            version: self.snapshot.version,
            partitions: balanced(files, self.source.partitions),
            columns,
            scope: self.scope.clone(),
            rules: self.rules.clone(),
            rows: self.rows.clone(),
            filters: early.filter(|filter| is_leakproof(filter, self.contract.table_schema())).cloned().collect(),
            times: bounds.times,
            limit,
        }
    }

    fn time(&self) -> &str {
        &self.contract.columns[self.contract.time].name
    }
}

#[async_trait]
impl TableProvider for SessionTable {
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
        filters: &[Expr],
        limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let spec = self.spec(projection, filters, limit);
        Ok(Arc::new(TenantScan::new(spec, &self.table, &self.source, state)?))
    }

    /// Leakproof filters help to skip pages; all filters are applied again, above the barrier.
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let time = self.time();
        Ok(filters
            .iter()
            .map(|filter| {
                let is_of_use =
                    is_leakproof(filter, &self.schema) || ScanBounds::of([*filter], time) != ScanBounds::ALL;
                if self.rows.allows_early(filter, &self.contract) && is_of_use {
                    TableProviderFilterPushDown::Inexact
                } else {
                    TableProviderFilterPushDown::Unsupported
                }
            })
            .collect())
    }
}

impl fmt::Debug for SessionTable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionTable").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Fields without metadata: descriptions and units are for catalogs, and could differ between plan and stream.
pub(in crate::query) fn plain<'a>(fields: impl Iterator<Item = &'a Arc<Field>>) -> SchemaRef {
    let plain = fields.map(|field| Field::new(field.name(), field.data_type().clone(), field.is_nullable()));
    Arc::new(Schema::new(plain.collect::<Vec<_>>()))
}

/// The rows that a row rule matches. Values are typed literals, never text of a statement.
fn condition(contract: &Contract, rule: &RowRule) -> Expr {
    let Ok(field) = contract.table_schema().field_with_name(&rule.column) else { return lit(false) };
    let values: Vec<Expr> = rule
        .values
        .iter()
        .filter_map(|value| ScalarValue::try_from_string(value.clone(), field.data_type()).ok())
        .map(lit)
        .collect();
    if values.is_empty() { lit(false) } else { column(&rule.column).in_list(values, false) }
}

/// Distributes files over exactly `groups` groups of about equal size in bytes.
fn balanced(mut files: Vec<Arc<DataFile>>, groups: usize) -> Vec<Vec<Arc<DataFile>>> {
    let mut groups: Vec<(u64, Vec<Arc<DataFile>>)> = vec![(0, Vec::new()); groups.max(1)];
    files.sort_by_key(|file| std::cmp::Reverse(file.size));
    for file in files {
        if let Some((bytes, group)) = groups.iter_mut().min_by_key(|(bytes, _)| *bytes) {
            *bytes += file.size;
            group.push(file);
        }
    }
    groups.into_iter().map(|(_, group)| group).collect()
}
