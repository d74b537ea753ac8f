//! A scan as a value: everything that decides which rows and columns of a table are read, and nothing else.
//!
//! In: one snapshot of a table, what a query asks of it, and what its caller may see. Out: a [`ScanSpec`] that can be
//! compared, printed and copied. [`ScanPlan`](crate::query::scan::scan_plan::ScanPlan) turns it into a plan, for queries of tenants
//! and of the operator alike.
//!
//! **Invariant:** a spec holds plain data: names, files, typed literals and comparisons of columns with them. It holds no
//! closure, no open file and no function, so that another process can run the same scan.
//! **Invariant:** columns are named, not numbered. A process whose table has other columns fails to find a name; it cannot
//! read a hidden column in its place.

use std::sync::Arc;

use datafusion::common::{Column, ScalarValue};
use datafusion::logical_expr::{Expr, lit};

use crate::contract::{Contract, TenantId};
use crate::lake::DataFile;
use crate::query::scan::prune::ScanRange;

/// What one scan reads.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::query) struct ScanSpec {
    /// The table in the lake.
    pub(in crate::query) table: Arc<str>,
    /// Its name in SQL: the same, or that of the table of all versions beside it. For EXPLAIN.
    pub(in crate::query) name: Arc<str>,
    /// The version of the table that the files belong to.
    pub(in crate::query) version: u64,
    /// The files to open, by partition. There are as many partitions as configured, however few files.
    pub(in crate::query) partitions: Vec<Vec<Arc<DataFile>>>,
    /// The columns that go on, in order.
    pub(in crate::query) columns: Vec<String>,
    /// Whose rows may pass.
    pub(in crate::query) scope: RowScope,
    /// Row rules of the caller's policy. A row must meet all of them.
    pub(in crate::query) rules: Vec<Expr>,
    /// Which of these rows are shown.
    pub(in crate::query) rows: ShownRows,
    /// Filters of the query that help to skip row groups and pages. All of them are leakproof, and all are applied again
    /// above the scan.
    pub(in crate::query) filters: Vec<Expr>,
    /// Event times outside this range may be skipped, in microseconds.
    pub(in crate::query) times: ScanRange,
    /// Rows after which each partition may stop.
    pub(in crate::query) limit: Option<usize>,
}

/// Whose rows a scan may show.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::query) enum RowScope {
    /// One tenant's.
    Tenant(TenantId),
    /// Everybody's: for queries of the operator's configuration only.
    AllTenants,
}

/// Which of the rows in scope a scan shows. Columns are named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::query) enum ShownRows {
    /// All of them.
    All,
    /// The newest version of each key, unless it says that the key was deleted.
    Newest {
        /// The columns that name a thing, together with the tenant.
        key: Vec<String>,
        /// The greatest value is the newest version.
        by: String,
        /// True in a version that deletes its key.
        deleted: Option<String>,
    },
    /// Of a quarantine, the entries that no other row closes.
    OpenEntries {
        /// The column in which a closing row names its entry.
        resolves: String,
    },
}

impl ScanSpec {
    /// What a row must meet to leave the scan, the tenant's condition first. Empty only for all rows of all tenants.
    pub(in crate::query) fn barrier(&self, contract: &Contract) -> Vec<Expr> {
        let scope = self.scope.condition(contract).into_iter();
        scope.chain(self.rules.iter().cloned()).chain(self.rows.condition()).collect()
    }

    /// Those of `conditions` that may be applied before it is known which rows are shown.
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

    /// What a row in scope meets. The value is a typed literal, never text of a statement.
    pub(in crate::query) fn condition(&self, contract: &Contract) -> Option<Expr> {
        let value = |tenant: &TenantId| lit(ScalarValue::Utf8(Some(tenant.as_str().to_owned())));
        self.tenant().map(|tenant| column(&contract.columns[contract.tenant].name).eq(value(tenant)))
    }
}

impl ShownRows {
    /// How a table shows its rows by its declaration.
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

    /// What a row that is shown meets by itself.
    fn condition(&self) -> Option<Expr> {
        match self {
            Self::Newest { deleted: Some(deleted), .. } => Some(column(deleted).is_not_true()),
            Self::OpenEntries { resolves } => Some(column(resolves).is_null()),
            Self::Newest { deleted: None, .. } | Self::All => None,
        }
    }

    /// Whether `filter` may decide what is read at all. Where the newest versions are to be found it must be the same for
    /// all versions of a key. Otherwise the newest one could stay unread, and an older one be taken for it.
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
