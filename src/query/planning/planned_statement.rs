//! The result of planning: a statement that is ready to run.

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
    /// The logical plan, whose placeholders have no values yet.
    pub plan: ErasedPlan<LogicalPlan>,
    /// The declared schema of the result, which FlightInfo, GetSchema and the stream report.
    pub schema: SchemaRef,
    /// One field per placeholder, in order, with the inferred type, or `Null` if the type cannot be inferred.
    pub parameters: Schema,
    /// True if the statement specifies the order of its rows.
    pub ordered: bool,
    /// The statement itself, which is used to plan it again with bound values. `None` if it has no placeholders or is a
    /// logical plan.
    pub(in crate::query) template: Option<Arc<ParameterizedStatement>>,
    /// Further rows of parameters. The plan is for the first row, and the statement runs for these rows afterwards.
    pub(in crate::query) more_rows: Option<Arc<MoreRows>>,
    /// The cached physical plan. `None` if each run of the statement needs a new one.
    pub reusable: Option<Arc<ReusablePlan>>,
}

/// The rows of parameters for which a statement still has to be planned.
#[derive(Debug)]
pub(in crate::query) struct MoreRows {
    /// The statement with its placeholders.
    pub(in crate::query) unbound: Planned,
    pub(in crate::query) rows: RecordBatch,
}

impl Planned {
    /// Returns true if the statement calls a table function. The plan is inspected instead of the text, in which a WITH
    /// query can hide the function's name.
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
