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

/// A checked, planned, read-only statement.
#[derive(Debug, Clone)]
pub struct Planned {
    /// The logical plan, which may still contain placeholders.
    pub plan: ErasedPlan<LogicalPlan>,
    /// The declared schema of the result, which FlightInfo, GetSchema and the result stream contain.
    pub schema: SchemaRef,
    /// A field for each placeholder, in order. Its type is the inferred type, or `Null` if the type cannot be inferred.
    pub parameters: Schema,
    /// True if the statement specifies the order of its rows.
    pub ordered: bool,
    /// The SQL statement, which is planned again with bound values. `None` if the statement has no placeholders or was
    /// sent as a logical plan.
    pub(in crate::query) template: Option<Arc<ParameterizedStatement>>,
    /// The rows of parameters after the first row. `plan` is for the first row, and the statement runs for the other
    /// rows afterwards.
    pub(in crate::query) more_rows: Option<Arc<MoreRows>>,
    /// The cached physical plan, or `None` if each run of the statement needs a new physical plan.
    pub reusable: Option<Arc<ReusablePlan>>,
}

/// Rows of parameters for which a statement still has to be planned.
#[derive(Debug)]
pub(in crate::query) struct MoreRows {
    /// The statement with unbound placeholders.
    pub(in crate::query) unbound: Planned,
    pub(in crate::query) rows: RecordBatch,
}

impl Planned {
    /// Returns true if the statement calls a table function. This function inspects the plan and not the SQL text,
    /// where a WITH query can hide the name of a table function.
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

    /// Returns the distinct names of the tables and table functions that the statement reads.
    pub fn sources(&self) -> BTreeSet<String> {
        let mut names = BTreeSet::new();
        let walked = self.plan.apply_with_subqueries(|node| {
            if let LogicalPlan::TableScan(scan) = node {
                names.insert(scan.table_name.table().to_owned());
            }
            Ok(TreeNodeRecursion::Continue)
        });
        walked.map_or_else(|_| BTreeSet::new(), |_| names)
    }
}
