//! The table provider of a session: a snapshot of a lake table, with the columns and rows that the caller may see.
//!
//! In a query plan, a [`SessionTable`] becomes a [`TenantScan`]. Its [`ScanSpec`] lists the files that may contain
//! matching rows. If a table is declared with `latest`, a session contains two tables: one with the latest versions,
//! under the table's own name, and a second one with all versions. The queries that the operator configures read the
//! same tables, but with the rows of all tenants and without row rules.
//!
//! ```text
//!   all versions      prune files by all filters ─► read ─► tenant, row rules
//!   latest versions   prune files by key filters ─► read ─► tenant ─► key filters ─► latest version ─► row rules, not deleted
//! ```
//!
//! **Invariant:** a column that the policy does not list does not exist for the caller. No schema, error or suggestion
//! contains its name.
//! **Invariant:** row rules apply to the latest version of a row. If the latest version and an older version belong to
//! different sub-accounts, the sub-account of the older version sees neither of them.
//! **Invariant:** a session does not see rows that were expired when the session began. A cached plan is not used after
//! more rows have expired.
//! **Invariant:** a quarantine contains only open entries. Closed entries and closing rows are hidden.
//! **Invariant:** an invalid row rule matches no row. A rule is invalid if the table has no such column, or if none of
//! the rule's values can be converted to the type of the column.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use arrow::datatypes::{Field, SchemaRef};
use async_trait::async_trait;
use datafusion::catalog::{Session, TableProvider};
use datafusion::error::Result;
use datafusion::logical_expr::{Expr, TableProviderFilterPushDown, TableType};
use datafusion::physical_plan::ExecutionPlan;

use crate::clock::Clock;
use crate::contract::{Contract, ExpiryBounds, TenantId};
use crate::lake::{DataFile, Snapshot, Table};
use crate::query::scan::file_pruning::{ScanBounds, ScanRange, is_leakproof, prune};
use crate::query::scan::scan_spec::{RowScope, ScanSpec, ShownRows, engine_schema, rule_condition};
use crate::query::scan::table_source::TableSource;
use crate::query::scan::tenant_scan::TenantScan;
use crate::tenancy::TableRules;

/// A table with the columns and rows that a caller may see.
pub(in crate::query) struct SessionTable {
    table: Arc<Table>,
    contract: Arc<Contract>,
    snapshot: Arc<Snapshot>,
    source: TableSource,
    /// The table's SQL name.
    name: Arc<str>,
    scope: RowScope,
    clock: Clock,
    /// The times before which rows are expired, when the session began.
    expiry: ExpiryBounds,
    /// The row rules of the caller's policy.
    rules: Vec<Expr>,
    rows: ShownRows,
    /// The columns that the caller may see.
    schema: SchemaRef,
}

impl SessionTable {
    /// Creates the table that a tenant sees. Depending on the contract, it contains all rows, the latest version of
    /// each key, or the open entries of a quarantine.
    pub(in crate::query) fn of_tenant(
        table: &Arc<Table>,
        snapshot: Arc<Snapshot>,
        source: TableSource,
        tenant: &TenantId,
        rules: &TableRules,
        clock: &Clock,
    ) -> Self {
        let (table, contract) = (Arc::clone(table), Arc::clone(table.contract()));
        let is_listed = |name: &String| rules.columns.as_ref().is_none_or(|columns| columns.contains(name));
        let visible = |field: &&Arc<Field>| contract.is_shown(field.name()) && is_listed(field.name());
        let schema = engine_schema(contract.table_schema().fields().iter().filter(visible));
        Self {
            name: contract.name.as_str().into(),
            scope: RowScope::Tenant(tenant.clone()),
            clock: clock.clone(),
            expiry: contract.retention.bounds(clock.now()),
            rules: rules.rows.iter().map(|rule| rule_condition(contract.table_schema(), rule)).collect(),
            rows: ShownRows::of(&contract),
            table,
            contract,
            snapshot,
            source,
            schema,
        }
    }

    /// Creates the table that the operator's queries see, with all columns and the rows of all tenants. For a
    /// quarantine, it contains every stored row.
    pub(in crate::query) fn of_operator(
        table: &Arc<Table>,
        snapshot: Arc<Snapshot>,
        source: TableSource,
        clock: &Clock,
    ) -> Self {
        let (table, contract) = (Arc::clone(table), Arc::clone(table.contract()));
        let rows = match ShownRows::of(&contract) {
            ShownRows::OpenEntries { .. } => ShownRows::All,
            rows => rows,
        };
        Self {
            name: contract.name.as_str().into(),
            scope: RowScope::AllTenants,
            clock: clock.clone(),
            expiry: contract.retention.bounds(clock.now()),
            rules: Vec::new(),
            rows,
            schema: engine_schema(contract.table_schema().fields().iter()),
            table,
            contract,
            snapshot,
            source,
        }
    }

    /// Returns the second table of a `latest` table, which contains all versions, or `None` if this table is not
    /// declared with `latest`.
    pub(in crate::query) fn all_versions(&self) -> Option<Self> {
        Some(Self {
            table: Arc::clone(&self.table),
            contract: Arc::clone(&self.contract),
            snapshot: Arc::clone(&self.snapshot),
            source: self.source.clone(),
            name: self.contract.changes_name()?.into(),
            scope: self.scope.clone(),
            clock: self.clock.clone(),
            expiry: self.expiry.clone(),
            rules: self.rules.clone(),
            rows: ShownRows::All,
            schema: Arc::clone(&self.schema),
        })
    }

    /// Returns the table's SQL name.
    pub(in crate::query) fn name(&self) -> &str {
        &self.name
    }

    /// Returns the description from the table's declaration.
    pub(in crate::query) fn description(&self) -> Cow<'_, str> {
        if *self.name == *self.contract.name {
            return (&self.contract.description).into();
        }
        self.contract.changes_description().into()
    }

    /// Returns the contract of the table.
    pub(in crate::query) fn contract(&self) -> &Contract {
        &self.contract
    }

    /// Returns true if the lake has no newer snapshot of the table, and no more of its rows have expired.
    pub(in crate::query) fn is_current(&self) -> bool {
        self.table.snapshot().version == self.snapshot.version
            && self.contract.retention.bounds(self.clock.now()) == self.expiry
    }

    /// Describes a scan of the visible columns whose indexes are in `projection`, or of all visible columns if
    /// `projection` is `None`.
    pub(in crate::query) fn spec(
        &self,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        limit: Option<usize>,
    ) -> ScanSpec {
        let name = |index: &usize| self.schema.field(*index).name().clone();
        let columns = match projection {
            Some(indexes) => indexes.iter().map(name).collect(),
            None => self.schema.fields().iter().map(|field| field.name().clone()).collect(),
        };
        let early = filters.iter().filter(|filter| self.rows.allows_early(filter, &self.contract));
        let mut bounds = ScanBounds::of(early.clone(), self.time_column());
        if matches!(self.rows, ShownRows::OpenEntries { .. }) {
            // A closing row is received later than the entry that it closes. It can be in any file whose range of event
            // times includes the time of the entry.
            bounds.received = ScanRange::ALL;
        }
        // The barrier tests each row. Files with only expired rows need not be opened.
        let kept_since = match self.scope.tenant() {
            Some(tenant) => self.expiry.of_tenant(tenant.as_str()),
            None => self.expiry.all,
        };
        bounds.times.min = bounds.times.min.max(kept_since.unwrap_or(i64::MIN));
        let files = prune(&self.snapshot, self.scope.tenant(), &bounds);
        ScanSpec {
            table: self.contract.name.as_str().into(),
            name: Arc::clone(&self.name),
            version: self.snapshot.version,
            partitions: balanced_partitions(files, self.source.partitions),
            columns,
            scope: self.scope.clone(),
            expiry: self.expiry.clone(),
            rules: self.rules.clone(),
            rows: self.rows.clone(),
            filters: early.filter(|filter| is_leakproof(filter, self.contract.table_schema())).cloned().collect(),
            times: bounds.times,
            limit,
        }
    }

    fn time_column(&self) -> &str {
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

    /// Accepts the filters that can be used to skip files, row groups or pages. The engine applies all filters again to
    /// the rows that the scan returns.
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        let time = self.time_column();
        Ok(filters
            .iter()
            .map(|filter| {
                let is_useful =
                    is_leakproof(filter, &self.schema) || ScanBounds::of([*filter], time) != ScanBounds::ALL;
                if self.rows.allows_early(filter, &self.contract) && is_useful {
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

/// Distributes files over exactly `count` partitions of about the same size in bytes.
fn balanced_partitions(mut files: Vec<Arc<DataFile>>, count: usize) -> Vec<Vec<Arc<DataFile>>> {
    let mut partitions: Vec<(u64, Vec<Arc<DataFile>>)> = vec![(0, Vec::new()); count.max(1)];
    files.sort_by_key(|file| std::cmp::Reverse(file.size));
    for file in files {
        if let Some((bytes, files)) = partitions.iter_mut().min_by_key(|(bytes, _)| *bytes) {
            *bytes += file.size;
            files.push(file);
        }
    }
    partitions.into_iter().map(|(_, files)| files).collect()
}
