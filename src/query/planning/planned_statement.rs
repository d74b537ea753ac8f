//! A statement that has been planned and is ready to run.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::datasource::source_as_provider;
use datafusion::functions_table::generate_series::GenerateSeriesTable;
use datafusion::logical_expr::LogicalPlan;

use crate::query::freshness::FreshnessRow;
use crate::query::planning::erased_plan::ErasedPlan;
use crate::query::planning::parameters::ParameterizedStatement;
use crate::query::planning::reusable_plan::ReusablePlan;
use crate::query::scan::lookup_provider::SessionLookup;

/// A read-only statement that has been checked and planned.
#[derive(Debug, Clone)]
pub struct Planned {
    /// The logical plan, which may still contain placeholders.
    pub plan: ErasedPlan<LogicalPlan>,
    /// The plan after the analyzer rules, from which physical plans are built. `None` if the statement has placeholders,
    /// and for EXPLAIN and DESCRIBE.
    pub(in crate::query) analyzed: Option<ErasedPlan<LogicalPlan>>,
    /// The declared schema of the result. Clients receive it in responses to GetFlightInfo and GetSchema, and together
    /// with the result.
    pub schema: SchemaRef,
    /// One field for each placeholder, ordered by number. The type of a field is the inferred type, or `Null` if the
    /// type cannot be inferred.
    pub parameters: Schema,
    /// True if the statement specifies the order of its rows.
    pub ordered: bool,
    /// The SQL statement, which is planned again with bound values. `None` if the statement has no placeholders or was
    /// sent as a logical plan.
    pub(in crate::query) template: Option<Arc<ParameterizedStatement>>,
    /// The second and all later rows of parameters. The values of the first row are part of `plan`. After `plan` has
    /// run, the statement runs once for each of these rows.
    pub(in crate::query) more_rows: Option<Arc<MoreRows>>,
    /// The cached physical plan, or `None` if each run of the statement needs a new physical plan.
    pub reusable: Option<Arc<ReusablePlan>>,
}

/// Rows of parameters that have not yet been bound to the statement.
#[derive(Debug)]
pub(in crate::query) struct MoreRows {
    /// The statement before values are bound to its placeholders.
    pub(in crate::query) unbound: Planned,
    pub(in crate::query) rows: RecordBatch,
}

impl Planned {
    /// Returns true if the statement calls a table function. This method inspects the plan, because the SQL text alone
    /// does not show whether a name in FROM refers to a table function or to a WITH query of the same name.
    pub(in crate::query) fn calls_table_function(&self) -> bool {
        let mut calls = false;
        let walked = self.plan.apply_with_subqueries(|node| {
            if let LogicalPlan::TableScan(scan) = node {
                let table = source_as_provider(&scan.source)?;
                calls |= table.is::<GenerateSeriesTable>() || table.is::<FreshnessRow>();
            }
            Ok(if calls { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        });
        calls || walked.is_err()
    }

    /// Returns the distinct names of the tables and table functions that the statement reads, without the names of
    /// lookup tables.
    pub fn sources(&self) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        let walked = self.plan.apply_with_subqueries(|node| {
            if let LogicalPlan::TableScan(scan) = node
                && !source_as_provider(&scan.source)?.is::<SessionLookup>()
            {
                names.insert(scan.table_name.table().to_owned());
            }
            Ok(TreeNodeRecursion::Continue)
        });
        walked.map_or_else(|_| BTreeSet::new(), |_| names)
    }
}
