//! A scan spec describes a scan as plain data. It determines which rows and columns of a table are read.
//!
//! A [`ScanSpec`] can be compared, printed and copied. `ScanPlan` (`physical_plan.rs`) converts a spec to a physical
//! plan, both for tenants' queries and for the operator's queries.
//!
//! **Invariant:** a spec contains only plain data: names, files, typed literals, and comparisons of columns with
//! literals. Another process could therefore run the same scan: the spec contains no closures, open files or functions.
//! **Invariant:** a spec refers to columns by name, not by index. If another process ran it on a table with other
//! columns, a name might not be found, but the scan could not read a hidden column by mistake.

use std::sync::Arc;

use arrow::datatypes::{Field, Schema, SchemaRef};
use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::{Expr, lit};

use crate::clock::Micros;
use crate::contract::{ColumnKind, Contract, ExpiryBounds, TenantId};
use crate::lake::DataFile;
use crate::query::scan::file_pruning::ScanRange;
use crate::tenancy::RowRule;

/// The description of a scan of a table.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::query) struct ScanSpec {
    /// The name of the table in the lake.
    pub(in crate::query) table: Arc<str>,
    /// The SQL name, which EXPLAIN shows. It differs from `table` only for the second table of a `latest` table, which
    /// contains all versions.
    pub(in crate::query) name: Arc<str>,
    /// The version of the table that contains the files.
    pub(in crate::query) version: u64,
    /// The files to open in each partition. The number of partitions is a setting, and does not depend on the number of
    /// files.
    pub(in crate::query) partitions: Vec<Vec<Arc<DataFile>>>,
    /// The names of the columns to return, in order.
    pub(in crate::query) columns: Vec<String>,
    /// The scope of the scan: one tenant or all tenants.
    pub(in crate::query) scope: RowScope,
    /// The times before which rows are expired.
    pub(in crate::query) expiry: ExpiryBounds,
    /// The row rules of the caller's policy. A row must match all of them.
    pub(in crate::query) rules: Vec<Expr>,
    /// The selection of rows: all rows, the latest versions, or the open quarantine entries.
    pub(in crate::query) rows: ShownRows,
    /// The filters of the query that can be used to skip row groups and pages. All of them are leakproof, and the
    /// engine applies them again to the rows that the scan returns.
    pub(in crate::query) filters: Vec<Expr>,
    /// The range of event times in microseconds. The scan may skip rows outside of this range.
    pub(in crate::query) times: ScanRange,
    /// The scan of a partition may stop after this number of rows. `None` if it must read all rows.
    pub(in crate::query) limit: Option<usize>,
}

/// The tenants whose rows a scan may return.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::query) enum RowScope {
    /// The rows of one tenant.
    Tenant(TenantId),
    /// The rows of all tenants. Only queries that the operator configures have this scope.
    AllTenants,
}

/// Which rows of the scope a scan returns. The variants refer to columns by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::query) enum ShownRows {
    /// All rows.
    All,
    /// The latest version of each key, unless that version deletes the key.
    LatestVersions {
        /// The columns of the key, which identifies a row within its tenant.
        key: Vec<String>,
        /// The column that determines which version is the latest: the one with the greatest value.
        by: String,
        /// The boolean column that is true if a version deletes its key.
        deleted: Option<String>,
    },
    /// The quarantine entries that no other row has closed.
    OpenEntries {
        /// In a closing row, this column contains the id of the entry that the row closes.
        resolves: String,
    },
}

impl ScanSpec {
    /// Returns the conditions that every returned row must match. The tenant condition is the first one, and the
    /// conditions that exclude expired rows follow. The list can be empty only if the scan returns the rows of all
    /// tenants.
    pub(in crate::query) fn barrier(&self, contract: &Contract) -> Vec<Expr> {
        let scope = self.scope.condition(contract).into_iter();
        scope.chain(self.not_expired(contract)).chain(self.rules.iter().cloned()).chain(self.rows.condition()).collect()
    }

    /// Returns the conditions that exclude expired rows. If the scan returns the rows of all tenants, there is one more
    /// condition for each tenant with a retention of its own.
    fn not_expired(&self, contract: &Contract) -> Vec<Expr> {
        let name = |index: usize| column(&contract.columns[index].name);
        let since = |time: Micros| name(contract.time).gt_eq(time_literal(time));
        match self.scope.tenant() {
            Some(tenant) => self.expiry.of_tenant(tenant.as_str()).map(since).into_iter().collect(),
            None => {
                let others = |tenant: &String| name(contract.tenant).not_eq(lit(tenant.as_str()));
                let tenants = self.expiry.tenants.iter();
                let tenants = tenants.map(|(tenant, time)| others(tenant).or(since(*time)));
                self.expiry.all.map(since).into_iter().chain(tenants).collect()
            }
        }
    }

    /// Returns those `conditions` that may be applied before the latest versions or open entries are selected.
    pub(in crate::query) fn early<'a>(
        &self,
        contract: &Contract,
        conditions: &'a [Expr],
    ) -> impl Iterator<Item = &'a Expr> {
        conditions.iter().filter(|condition| self.rows.allows_early(condition, contract))
    }
}

impl RowScope {
    /// Returns the tenant, or `None` for all tenants.
    pub(in crate::query) fn tenant(&self) -> Option<&TenantId> {
        match self {
            Self::Tenant(tenant) => Some(tenant),
            Self::AllTenants => None,
        }
    }

    /// Returns the condition that the scope imposes on rows, or `None` if the scope is all tenants. The tenant is a
    /// typed literal and never part of SQL text.
    pub(in crate::query) fn condition(&self, contract: &Contract) -> Option<Expr> {
        let value = |tenant: &TenantId| lit(ScalarValue::Utf8(Some(tenant.as_str().to_owned())));
        self.tenant().map(|tenant| column(&contract.columns[contract.tenant].name).eq(value(tenant)))
    }
}

impl ShownRows {
    /// Returns the selection of rows for a table with this contract.
    pub(in crate::query) fn of(contract: &Contract) -> Self {
        let name = |index: usize| contract.columns[index].name.clone();
        match (&contract.latest, contract.resolves) {
            (Some(latest), _) => Self::LatestVersions {
                key: latest.key.iter().copied().map(name).collect(),
                by: name(latest.by),
                deleted: latest.deleted.map(name),
            },
            (None, Some(resolves)) => Self::OpenEntries { resolves: name(resolves) },
            (None, None) => Self::All,
        }
    }

    /// Returns the additional condition that the selected rows must match, if there is one.
    fn condition(&self) -> Option<Expr> {
        match self {
            Self::LatestVersions { deleted: Some(deleted), .. } => Some(column(deleted).is_not_true()),
            Self::OpenEntries { resolves } => Some(column(resolves).is_null()),
            Self::LatestVersions { deleted: None, .. } | Self::All => None,
        }
    }

    /// Returns true if a scan may apply `filter` before it selects rows. If the latest versions are selected, the
    /// filter must have the same result for all versions of a key. Otherwise, the scan could skip the latest version
    /// and return an older version.
    pub(in crate::query) fn allows_early(&self, filter: &Expr, contract: &Contract) -> bool {
        let Self::LatestVersions { key, .. } = self else { return true };
        let tenant = &contract.columns[contract.tenant].name;
        filter.column_refs().into_iter().all(|column| column.name == *tenant || key.contains(&column.name))
    }
}

/// Returns a literal of the type of time columns.
pub(in crate::query) fn time_literal(time: Micros) -> Expr {
    lit(ScalarValue::TimestampMicrosecond(Some(time), Some("UTC".into())))
}

/// Returns a reference to the column with exactly the name `name`. Case is significant, and a dot is part of the name.
pub(in crate::query) fn column(name: &str) -> Expr {
    Expr::Column(Column::new_unqualified(name))
}

/// Returns the condition for a row rule of a table with the columns `schema`. The rule's values become typed literals,
/// and never become part of SQL text. An invalid rule matches no row, and neither does a value that the column cannot
/// contain. A value is never rounded to one that the column contains.
pub(in crate::query) fn rule_condition(schema: &Schema, rule: &RowRule) -> Expr {
    let Ok(field) = schema.field_with_name(&rule.column) else { return lit(false) };
    let kind = ColumnKind::of_metadata(field).or_else(|| ColumnKind::of_data_type(field.data_type()));
    let literal = |value: &String| {
        let text = kind.map_or_else(|| Some(value.clone()), |kind| kind.canonical_text(value))?;
        ScalarValue::try_from_string(text, field.data_type()).ok().map(lit)
    };
    let values: Vec<Expr> = rule.values.iter().filter_map(literal).collect();
    if values.is_empty() { lit(false) } else { column(&rule.column).in_list(values, false) }
}

/// Creates a schema that contains the fields without their descriptions and units, which are needed only in catalogs. In
/// a result, they could differ between the schema of the plan and the schema of its stream. The kinds of columns remain,
/// because the dialect needs them.
pub(in crate::query) fn engine_schema<'a>(fields: impl Iterator<Item = &'a Arc<Field>>) -> SchemaRef {
    let fields = fields.map(|field| match ColumnKind::of_metadata(field) {
        Some(kind) => kind.field(field.name()).with_nullable(field.is_nullable()),
        None => Field::new(field.name(), field.data_type().clone(), field.is_nullable()),
    });
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}
