//! Binds a logical plan, which a caller sends instead of SQL text, to the tables and functions of the session.
//!
//! ```text
//!   in the plan                    after binding
//!   table scan                  ─► the session's table of the same name, or the error "unknown table"
//!   generate_series(…)          ─► unchanged
//!   freshness('table')          ─► the freshness of the session's table
//!   any other table function    ─► the error "unknown table"
//!   function                    ─► the session's function of the same name, or an error
//! ```
//!
//! **Invariant:** a plan reads only the session's tables and calls only the session's functions. The tables and
//! functions that a sent plan contains are never used, and no files are read. Even a plan that was built in another
//! tenant's session reads only the tables of this session.
//! **Invariant:** columns are resolved by name, not by their positions. If the session may not see a column, every
//! reference to it in the plan fails.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::catalog::cte_worktable::CteWorkTable;
use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::common::{Column, TableReference};
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::session_state::SessionState;
use datafusion::functions_table::generate_series::GenerateSeriesTable;
use datafusion::logical_expr::expr::{AggregateFunction, HigherOrderFunction, ScalarFunction, WindowFunction};
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{
    Explain, Expr, LogicalPlan, LogicalPlanBuilder, PlanType, TableScan, TableSource, ToStringifiedPlan as _,
    WindowFunctionDefinition,
};

use crate::error::{Error, did_you_mean};
use crate::query::catalog::unknown_table;
use crate::query::freshness::FreshnessRow;
use crate::query::planning::name_resolution::PlanningView;
use crate::sql::functions;
use crate::sql::plan_expressions::rewrite_expressions;

/// The names to which a plan refers.
pub(in crate::query) struct PlanNames {
    /// The names of tables and table functions.
    tables: BTreeSet<TableReference>,
    /// The names of recursive queries. The recursive term of a query uses the query's name to read the rows of the
    /// previous iteration.
    recursive: BTreeSet<String>,
}

/// The tables and functions of the session that replace those in a plan.
pub(in crate::query) struct Bindings<'a> {
    view: &'a PlanningView,
    tables: HashMap<TableReference, Arc<dyn TableSource>>,
    recursive: BTreeSet<String>,
}

impl PlanNames {
    /// Collects the names in `plan`.
    pub(in crate::query) fn of(plan: &LogicalPlan) -> Result<Self> {
        let mut names = Self { tables: BTreeSet::new(), recursive: BTreeSet::new() };
        plan.apply_with_subqueries(|node| {
            match node {
                LogicalPlan::TableScan(scan) => drop(names.tables.insert(scan.table_name.clone())),
                LogicalPlan::RecursiveQuery(query) => drop(names.recursive.insert(query.name.clone())),
                _ => {}
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(names)
    }

    /// Looks up the names in the session that `view` describes.
    pub(in crate::query) async fn resolve(self, view: &PlanningView) -> Result<Bindings<'_>> {
        let mut tables = HashMap::new();
        for name in self.tables {
            if let Ok(schema) = view.state.schema_for_ref(name.clone())
                && let Some(table) = schema.table(name.table()).await?
            {
                tables.insert(name, provider_as_source(table));
            }
        }
        Ok(Bindings { view, tables, recursive: self.recursive })
    }
}

impl Bindings<'_> {
    /// Replaces the tables and functions in the plan with the session's tables and functions.
    pub(in crate::query) fn rebind(&self, plan: &LogicalPlan) -> Result<LogicalPlan> {
        Ok(plan.clone().transform_up_with_subqueries(|node| self.rebind_node(node))?.data)
    }

    /// Rebinds a node whose inputs are already rebound.
    fn rebind_node(&self, node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        let node = rewrite_expressions(node, |expr| self.rebind_function(expr))?;
        let node = match node.data {
            LogicalPlan::TableScan(scan) => self.rebind_scan(scan)?,
            // EXPLAIN shows the rebound plan, not the plan that the caller sent.
            LogicalPlan::Explain(explain) => LogicalPlan::Explain(Explain {
                stringified_plans: vec![explain.plan.to_stringified(PlanType::InitialLogicalPlan)],
                logical_optimization_succeeded: false,
                ..explain
            }),
            // A column of the sent plan may have a different type in this session, or may not exist. In the latter
            // case, a node that uses the column fails.
            node => node.recompute_schema()?,
        };
        Ok(Transformed::yes(node))
    }

    fn rebind_scan(&self, scan: TableScan) -> Result<LogicalPlan> {
        let given = source_as_provider(&scan.source)?;
        let source = match self.non_catalog_source(&scan, &given)? {
            Some(source) => source,
            None => match self.tables.get(&scan.table_name) {
                Some(source) => Arc::clone(source),
                None => return Err(refused(unknown_table(&scan.table_name, &self.view.tables))),
            },
        };
        let columns = scan.projection.as_ref().map(|indexes| indexes.iter().map(|index| column_name(&scan, *index)));
        let columns = columns.map(Iterator::collect::<Result<Vec<_>>>).transpose()?;
        let (name, mut rows) =
            (scan.table_name.clone(), LogicalPlanBuilder::scan(scan.table_name.clone(), Arc::clone(&source), None)?);
        // A table may ignore the filters and the limit of a scan, so apply them in nodes above the scan.
        if let Some(filter) = conjunction(scan.filters) {
            rows = rows.filter(filter)?;
        }
        if let Some(columns) = columns {
            let visible = source.schema();
            let columns = columns.into_iter().map(|column| match visible.index_of(&column) {
                Ok(_) => Ok(Expr::Column(Column::new(Some(name.clone()), column))),
                Err(_) => {
                    let near = did_you_mean(&column, visible.fields().iter().map(|field| field.name().as_str()));
                    Err(refused(Error::invalid(format!("unknown column `{name}.{column}`{near}"))))
                }
            });
            rows = rows.project(columns.collect::<Result<Vec<_>>>()?)?;
        }
        if scan.fetch.is_some() {
            rows = rows.limit(0, scan.fetch)?;
        }
        rows.build()
    }

    /// If `given` provides the rows of a recursive query, a generated series, or the freshness of a table, returns the
    /// source to scan. Otherwise, returns `None`, for example for a table in a catalog.
    fn non_catalog_source(
        &self,
        scan: &TableScan,
        given: &Arc<dyn TableProvider>,
    ) -> Result<Option<Arc<dyn TableSource>>> {
        if let Some(rows) = given.downcast_ref::<CteWorkTable>() {
            // The table source that arrives with the plan is safe to use, because it contains only a name and a schema.
            // The rows exist only while the recursive query runs.
            return Ok(self.recursive.contains(rows.name()).then(|| Arc::clone(&scan.source)));
        }
        if given.is::<GenerateSeriesTable>() {
            // It is safe to use the sent source, which contains only the first value, the last value and the step.
            return Ok(Some(Arc::clone(&scan.source)));
        }
        if let Some(row) = given.downcast_ref::<FreshnessRow>() {
            let own = self.view.freshness.row(row.table_name()).map_err(refused)?;
            return Ok(Some(provider_as_source(Arc::new(own))));
        }
        Ok(None)
    }

    /// Replaces the function in a call with the session's function of the same name.
    fn rebind_function(&self, expr: Expr) -> Result<Transformed<Expr>> {
        let state: &SessionState = &self.view.state;
        Ok(Transformed::yes(match expr {
            Expr::ScalarFunction(call) if functions::is_operator(&call.func) => Expr::ScalarFunction(call),
            Expr::ScalarFunction(ScalarFunction { func, args }) => {
                let func = Arc::clone(known(state.scalar_functions(), func.name())?);
                Expr::ScalarFunction(ScalarFunction { func, args })
            }
            Expr::AggregateFunction(AggregateFunction { func, params }) => {
                let func = Arc::clone(known(state.aggregate_functions(), func.name())?);
                Expr::AggregateFunction(AggregateFunction { func, params })
            }
            Expr::HigherOrderFunction(HigherOrderFunction { func, args }) => {
                let func = Arc::clone(known(state.higher_order_functions(), func.name())?);
                Expr::HigherOrderFunction(HigherOrderFunction { func, args })
            }
            Expr::WindowFunction(call) => {
                let WindowFunction { fun, params } = *call;
                let fun = match fun {
                    WindowFunctionDefinition::AggregateUDF(func) => WindowFunctionDefinition::AggregateUDF(Arc::clone(
                        known(state.aggregate_functions(), func.name())?,
                    )),
                    WindowFunctionDefinition::WindowUDF(func) => {
                        WindowFunctionDefinition::WindowUDF(Arc::clone(known(state.window_functions(), func.name())?))
                    }
                };
                Expr::WindowFunction(Box::new(WindowFunction { fun, params }))
            }
            expr => return Ok(Transformed::no(expr)),
        }))
    }
}

/// Returns the name of the column at `index` in the sent plan.
fn column_name(scan: &TableScan, index: usize) -> Result<String> {
    let schema = scan.source.schema();
    let field = schema.fields().get(index);
    let field = field.ok_or_else(|| DataFusionError::Plan(format!("`{}` has no column {index}", scan.table_name)))?;
    Ok(field.name().clone())
}

/// Returns the session's function with the given name, or an error if there is no such function.
fn known<'a, F>(functions: &'a HashMap<String, F>, name: &str) -> Result<&'a F> {
    functions.get(name).ok_or_else(|| refused(Error::invalid(format!("unknown function `{name}`"))))
}

fn refused(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}
