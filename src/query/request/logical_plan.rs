//! Binds a logical plan that a caller passes instead of SQL text.
//!
//! In: a checked plan, and the session's view. Out: the same plan over the tables and functions of this session.
//!
//! ```text
//!   table scan      ─► the session's table of that name; if missing: unknown table
//!   table function  ─► value series are kept; freshness of the session's own table; all others: unknown table
//!   function        ─► the session's function of that name; if missing: refused
//! ```
//!
//! **Invariant:** a plan runs only the tables and functions of the session, never those that it carries, and no files.
//! A plan that was built in the session of another tenant reads this session's tables, and never the other tenant's.
//! **Invariant:** columns are resolved by name. A column that this session does not see is unknown everywhere in the
//! plan.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use datafusion::catalog::TableProvider;
use datafusion::catalog::cte_worktable::CteWorkTable;
use datafusion::common::tree_node::{Transformed, TreeNode as _, TreeNodeRecursion};
use datafusion::common::{Column, TableReference};
use datafusion::datasource::{provider_as_source, source_as_provider};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::session_state::SessionState;
use datafusion::functions_table::generate_series::GenerateSeriesTable;
use datafusion::logical_expr::expr::{AggregateFunction, HigherOrderFunction, ScalarFunction, WindowFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{
    Explain, Expr, LogicalPlan, LogicalPlanBuilder, PlanType, TableScan, TableSource, ToStringifiedPlan as _,
    WindowFunctionDefinition,
};

use crate::error::{Error, did_you_mean};
use crate::query::functions::freshness::FreshnessRow;
use crate::query::functions::function_limits;
use crate::query::request::planner::{PlanningView, unknown_table};

/// The names that a plan uses.
pub(in crate::query) struct Names {
    tables: BTreeSet<TableReference>,
    /// Recursive queries, whose inner part reads the rows of the previous iteration.
    recursive: BTreeSet<String>,
}

/// The meaning of a plan's names in a session.
pub(in crate::query) struct Bindings<'a> {
    view: &'a PlanningView,
    tables: HashMap<TableReference, Arc<dyn TableSource>>,
    recursive: BTreeSet<String>,
}

impl Names {
    /// Names of tables and table functions.
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

    /// Resolves the names in the session of `view`.
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
    /// The plan over the tables and functions of the session.
    pub(in crate::query) fn rebind(&self, plan: &LogicalPlan) -> Result<LogicalPlan> {
        Ok(plan.clone().transform_up_with_subqueries(|node| self.node(node))?.data)
    }

    /// Binds one node to this session's tables and functions. Its inputs are bound already.
    fn node(&self, node: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
        let names = NamePreserver::new(&node);
        let node = node.map_expressions(|expr| {
            let name = names.save(&expr);
            Ok(expr.transform_up(|expr| self.function(expr))?.update_data(|expr| name.restore(expr)))
        })?;
        let node = match node.data {
            LogicalPlan::TableScan(scan) => self.scan(scan)?,
            // EXPLAIN shows the plan as bound here, not as the session that built it saw it.
            LogicalPlan::Explain(explain) => LogicalPlan::Explain(Explain {
                stringified_plans: vec![explain.plan.to_stringified(PlanType::InitialLogicalPlan)],
                logical_optimization_succeeded: false,
                ..explain
            }),
            // Columns may have other types here or be missing; a node that uses a missing column fails.
            node => node.recompute_schema()?,
        };
        Ok(Transformed::yes(node))
    }

    fn scan(&self, scan: TableScan) -> Result<LogicalPlan> {
        let given = source_as_provider(&scan.source)?;
        let source = match self.computed(&scan, &given)? {
            Some(source) => source,
            None => match self.tables.get(&scan.table_name) {
                Some(source) => Arc::clone(source),
                None => return Err(refused(unknown_table(&scan.table_name, &self.view.tables))),
            },
        };
        let names = scan.projection.as_ref().map(|places| places.iter().map(|place| named(&scan, *place)));
        let names = names.map(Iterator::collect::<Result<Vec<_>>>).transpose()?;
        let (name, mut rows) =
            (scan.table_name.clone(), LogicalPlanBuilder::scan(scan.table_name.clone(), Arc::clone(&source), None)?);
        // Tables treat filters and a limit inside a scan as hints. As nodes above the scan they always apply.
        if let Some(filter) = conjunction(scan.filters) {
            rows = rows.filter(filter)?;
        }
        if let Some(names) = names {
            let shown = source.schema();
            let columns = names.into_iter().map(|column| match shown.index_of(&column) {
                Ok(_) => Ok(Expr::Column(Column::new(Some(name.clone()), column))),
                Err(_) => {
                    let near = did_you_mean(&column, shown.fields().iter().map(|field| field.name().as_str()));
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

    /// The replacement for a scan of something that is not a table of the catalog; `None` for a table.
    fn computed(&self, scan: &TableScan, given: &Arc<dyn TableProvider>) -> Result<Option<Arc<dyn TableSource>>> {
        if let Some(rows) = given.downcast_ref::<CteWorkTable>() {
            // It holds a name and a schema, and has no rows outside of its query.
            return Ok(self.recursive.contains(rows.name()).then(|| Arc::clone(&scan.source)));
        }
        if given.is::<GenerateSeriesTable>() {
            // First value, last value, and step.
            return Ok(Some(Arc::clone(&scan.source)));
        }
        if let Some(fresh) = given.downcast_ref::<FreshnessRow>() {
            let own = self.view.freshness.of(fresh.table_name()).map_err(refused)?;
            return Ok(Some(provider_as_source(Arc::new(own))));
        }
        Ok(None)
    }

    /// Replaces a function call by the session's function.
    fn function(&self, expr: Expr) -> Result<Transformed<Expr>> {
        let state: &SessionState = &self.view.state;
        Ok(Transformed::yes(match expr {
            Expr::ScalarFunction(call) if function_limits::is_operator(&call.func) => Expr::ScalarFunction(call),
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

/// The name of a projected column as the plan knows it.
fn named(scan: &TableScan, place: usize) -> Result<String> {
    let schema = scan.source.schema();
    let field = schema.fields().get(place);
    let field = field.ok_or_else(|| DataFusionError::Plan(format!("`{}` has no column {place}", scan.table_name)))?;
    Ok(field.name().clone())
}

/// The session's function of this name.
fn known<'a, F>(functions: &'a HashMap<String, F>, name: &str) -> Result<&'a F> {
    // The same message as for SQL text that calls it.
    functions.get(name).ok_or_else(|| DataFusionError::Plan(format!("Invalid function '{name}'")))
}

fn refused(error: Error) -> DataFusionError {
    DataFusionError::External(Box::new(error))
}
