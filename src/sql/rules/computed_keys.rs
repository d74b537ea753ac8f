//! Computes the keys of sorts, windows and ordered aggregates in a projection, so that these nodes sort by columns only.
//!
//! ```text
//!   Sort: sqrt(x)               ─►  Projection: (the columns of the input)
//!     (input)                         Sort: __key_0
//!                                       Projection: (the columns of the input), sqrt(x) AS __key_0
//!                                         (input)
//! ```
//!
//! The engine derives from the properties of a function whether its result is sorted. If it cannot derive them, for example
//! for `sqrt(x)` or `abs(length(x))`, it takes rows that it has just sorted for unsorted, and refuses the plan.

use std::sync::Arc;

use datafusion::common::Column;
use datafusion::common::tree_node::{Transformed, TreeNode as _};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan, Projection, Sort, Window};
use datafusion::optimizer::AnalyzerRule;

/// The analyzer rule that computes keys in a projection. It runs after the rules that change keys.
#[derive(Debug)]
pub(crate) struct ComputedKeyRule;

impl AnalyzerRule for ComputedKeyRule {
    fn name(&self) -> &'static str {
        "computed_keys"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|plan| match plan {
            LogicalPlan::Sort(sort) => rewrite_sort(sort),
            LogicalPlan::Window(window) => rewrite_window(window),
            LogicalPlan::Aggregate(aggregate) if aggregate.aggr_expr.iter().any(has_order) => {
                rewrite_aggregate(aggregate)
            }
            plan => Ok(Transformed::no(plan)),
        })
        .map(|plan| plan.data)
    }
}

fn rewrite_sort(mut sort: Sort) -> Result<Transformed<LogicalPlan>> {
    // Constant keys do not affect the order, and the engine would copy them for every row.
    if sort.expr.iter().any(|key| !matches!(key.expr, Expr::Literal(..))) {
        sort.expr.retain(|key| !matches!(key.expr, Expr::Literal(..)));
    }
    let mut keys = Keys::default();
    for key in &mut sort.expr {
        keys.replace(&mut key.expr);
    }
    if keys.is_empty() {
        return Ok(Transformed::no(LogicalPlan::Sort(sort)));
    }
    let columns = sort.input.schema().columns().into_iter().map(Expr::Column).collect();
    sort.input = keys.below(&sort.input)?;
    Ok(Transformed::yes(LogicalPlan::Projection(Projection::try_new(columns, Arc::new(LogicalPlan::Sort(sort)))?)))
}

fn rewrite_window(window: Window) -> Result<Transformed<LogicalPlan>> {
    let mut keys = Keys::default();
    let exprs = keys.replace_in(&window.window_expr)?;
    if keys.is_empty() {
        return Ok(Transformed::no(LogicalPlan::Window(window)));
    }
    let rows = Arc::new(LogicalPlan::Window(Window::try_new(exprs, keys.below(&window.input)?)?));
    let columns = window.schema.columns().into_iter().map(Expr::Column).collect();
    Ok(Transformed::yes(LogicalPlan::Projection(Projection::try_new(columns, rows)?)))
}

fn rewrite_aggregate(aggregate: Aggregate) -> Result<Transformed<LogicalPlan>> {
    let mut keys = Keys::default();
    let exprs = keys.replace_in(&aggregate.aggr_expr)?;
    if keys.is_empty() {
        return Ok(Transformed::no(LogicalPlan::Aggregate(aggregate)));
    }
    let rows = Aggregate::try_new(keys.below(&aggregate.input)?, aggregate.group_expr, exprs)?;
    Ok(Transformed::yes(LogicalPlan::Aggregate(rows)))
}

fn has_order(expr: &Expr) -> bool {
    expr.exists(|expr| Ok(matches!(expr, Expr::AggregateFunction(call) if !call.params.order_by.is_empty())))
        .unwrap_or(true)
}

/// The computed keys of one node. Equal keys share a column, because all functions of a window node
/// must have the same keys.
#[derive(Default)]
struct Keys(Vec<Expr>);

impl Keys {
    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Replaces the keys of window functions and aggregates. The names of the expressions do not change.
    fn replace_in(&mut self, exprs: &[Expr]) -> Result<Vec<Expr>> {
        let names = NamePreserver::new_for_projection();
        let replace = |expr: &Expr| {
            let name = names.save(expr);
            let replaced = expr.clone().transform_up(|mut expr| {
                let (partition_by, order_by) = match &mut expr {
                    Expr::WindowFunction(call) => {
                        (call.params.partition_by.as_mut_slice(), call.params.order_by.as_mut_slice())
                    }
                    Expr::AggregateFunction(call) => (&mut [][..], call.params.order_by.as_mut_slice()),
                    _ => return Ok(Transformed::no(expr)),
                };
                let order_by = order_by.iter_mut().map(|key| &mut key.expr);
                partition_by.iter_mut().chain(order_by).for_each(|key| self.replace(key));
                Ok(Transformed::yes(expr))
            })?;
            Ok(name.restore(replaced.data))
        };
        exprs.iter().map(replace).collect()
    }

    /// Replaces a key by the column that contains its values, unless the key is a column or a constant, or contains a
    /// subquery or a column of the outer query.
    fn replace(&mut self, key: &mut Expr) {
        let is_correlated = |expr: &Expr| {
            matches!(
                expr,
                Expr::OuterReferenceColumn(..) | Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_)
            )
        };
        let is_kept = matches!(key, Expr::Column(_) | Expr::Literal(..) | Expr::Placeholder(_))
            || key.exists(|expr| Ok(is_correlated(expr))).unwrap_or(true);
        if is_kept {
            return;
        }
        let index = self.0.iter().position(|known| known == key).unwrap_or(self.0.len());
        let computed = std::mem::replace(key, Expr::Column(Column::new_unqualified(key_name(index))));
        if index == self.0.len() {
            self.0.push(computed);
        }
    }

    /// Returns a projection that adds the computed keys to the columns of `input`.
    fn below(self, input: &Arc<LogicalPlan>) -> Result<Arc<LogicalPlan>> {
        let columns = input.schema().columns().into_iter().map(Expr::Column);
        let keys = self.0.into_iter().enumerate().map(|(index, key)| key.alias(key_name(index)));
        Ok(Arc::new(LogicalPlan::Projection(Projection::try_new(columns.chain(keys).collect(), Arc::clone(input))?)))
    }
}

/// Returns the name of the column with a computed key.
fn key_name(index: usize) -> String {
    format!("__key_{index}")
}
