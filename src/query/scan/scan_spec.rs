//! A scan as a value: everything that decides which rows and columns of a table are read, and nothing else.
//!
//! In: one snapshot of a table, what a query reads from it, and what its caller may see. Out: a [`ScanSpec`], which can
//! be compared, printed and copied. [`ScanPlan`](crate::query::scan::scan_plan::ScanPlan) turns it into a plan, for
//! queries of tenants and of the operator alike.
//!
//! **Invariant:** a spec holds plain data: names, files, typed literals, and comparisons of columns with literals. It
//! holds no closure, no open file and no function, so that another process can run the same scan.
//! **Invariant:** columns are named, not numbered. In a process whose table has other columns a name is not found; the
//! scan cannot read a hidden column instead.

use std::sync::Arc;

use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::{Expr, lit};

use crate::contract::{Contract, TenantId};
use crate::lake::DataFile;
use crate::query::scan::prune::ScanRange;

/// Describes one scan.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::query) struct ScanSpec {
    /// The name of the table in the lake.
    pub(in crate::query) table: Arc<str>,
    /// The name in SQL: the same, or the name of the companion table of all versions. For EXPLAIN.
    pub(in crate::query) name: Arc<str>,
    /// The version of the table that the files belong to.
    pub(in crate::query) version: u64,
    /// The files to open, by partition. The number of partitions is configured and does not depend on the number of
    /// files.
    pub(in crate::query) partitions: Vec<Vec<Arc<DataFile>>>,
    /// The columns to return, in order.
    pub(in crate::query) columns: Vec<String>,
    /// Whose rows the scan may return.
    pub(in crate::query) scope: RowScope,
    /// Row rules of the caller's policy. A row must match all of them.
    pub(in crate::query) rules: Vec<Expr>,
    /// Which of these rows the scan returns.
    pub(in crate::query) rows: ShownRows,
    /// Filters of the query that help to skip row groups and pages. All of them are leakproof, and all are applied
    /// again above the scan.
    pub(in crate::query) filters: Vec<Expr>,
    /// The scan may skip event times outside this range, in microseconds.
    pub(in crate::query) times: ScanRange,
    /// The number of rows after which each partition may stop.
    pub(in crate::query) limit: Option<usize>,
}

/// Whose rows a scan may return.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::query) enum RowScope {
    /// The rows of one tenant.
    Tenant(TenantId),
    /// The rows of all tenants; only for queries of the operator's configuration.
    AllTenants,
}

/// Which of the rows in scope a scan returns. Columns are named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::query) enum ShownRows {
    /// All rows.
    All,
    /// The newest version of each key, unless it marks the key as deleted.
    Newest {
        /// The columns of the key, which is unique within the tenant.
        key: Vec<String>,
        /// The column that orders versions; the greatest value is the newest.
        by: String,
        /// The column that is true in a version that deletes its key.
        deleted: Option<String>,
    },
    /// For a quarantine, the entries that no other row closes.
    OpenEntries {
        /// The column in which a closing row names its entry.
        resolves: String,
    },
}

impl ScanSpec {
    /// The conditions on every row that the scan returns, the tenant first. Empty only for all rows of all tenants.
    pub(in crate::query) fn barrier(&self, contract: &Contract) -> Vec<Expr> {
        let scope = self.scope.condition(contract).into_iter();
        scope.chain(self.rules.iter().cloned()).chain(self.rows.condition()).collect()
    }

    /// Those of `conditions` that may be applied before the newest versions or open entries are selected.
    pub(in crate::query) fn early<'a>(
        &self,
        contract: &Contract,
        conditions: &'a [Expr],
    ) -> impl Iterator<Item = &'a Expr> {
        conditions.iter().filter(|condition| self.rows.allows_early(condition, contract))
    }
}

impl RowScope {
    /// The tenant, if there is one.
    pub(in crate::query) fn tenant(&self) -> Option<&TenantId> {
        match self {
            Self::Tenant(tenant) => Some(tenant),
            Self::AllTenants => None,
        }
    }

    /// A condition on a row in scope. The value is a typed literal, never text of a statement.
    pub(in crate::query) fn condition(&self, contract: &Contract) -> Option<Expr> {
        let value = |tenant: &TenantId| lit(ScalarValue::Utf8(Some(tenant.as_str().to_owned())));
        self.tenant().map(|tenant| column(&contract.columns[contract.tenant].name).eq(value(tenant)))
    }
}

impl ShownRows {
    /// The rows that a table shows according to its declaration.
    pub(in crate::query) fn of(contract: &Contract) -> Self {
        let name = |place: usize| contract.columns[place].name.clone();
        match (&contract.latest, contract.resolves) {
            (Some(latest), _) => Self::Newest {
                key: latest.key.iter().copied().map(name).collect(),
                by: name(latest.by),
                deleted: latest.deleted.map(name),
            },
            (None, Some(resolves)) => Self::OpenEntries { resolves: name(resolves) },
            (None, None) => Self::All,
        }
    }

    /// The condition that this adds to each returned row.
    fn condition(&self) -> Option<Expr> {
        match self {
            Self::Newest { deleted: Some(deleted), .. } => Some(column(deleted).is_not_true()),
            Self::OpenEntries { resolves } => Some(column(resolves).is_null()),
            Self::Newest { deleted: None, .. } | Self::All => None,
        }
    }

    /// Whether `filter` may decide which rows are read. For a table of newest versions it must be the same for all
    /// versions of a key. Otherwise the scan could skip the newest version and return an older one.
    pub(in crate::query) fn allows_early(&self, filter: &Expr, contract: &Contract) -> bool {
        let Self::Newest { key, .. } = self else { return true };
        let tenant = &contract.columns[contract.tenant].name;
        filter.column_refs().into_iter().all(|column| column.name == *tenant || key.contains(&column.name))
    }
}

/// A column by its exact name: no case folding, no dots.
pub(in crate::query) fn column(name: &str) -> Expr {
    Expr::Column(Column::new_unqualified(name))
}
