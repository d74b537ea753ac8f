//! The domain of a subquery: the distinct values of the outer columns to which it refers.

use std::sync::Arc;

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{Column, DFSchema, ExprSchema as _, ScalarValue, not_impl_err};
use datafusion::error::Result;
use datafusion::functions::core::expr_fn::coalesce;
use datafusion::logical_expr::{Distinct, Expr, LogicalPlan, Projection, lit};

use super::{NAME_PREFIX, Rewriter};

/// The distinct keys of the outer rows.
pub(super) struct Domain {
    /// The columns of the outer rows.
    pub(super) columns: Vec<Column>,
    /// For each nullable column, a value that replaces NULL in comparisons. `None` for a column that is not nullable.
    defaults: Vec<Option<ScalarValue>>,
    /// The plan that returns the distinct keys, with one column for each outer column.
    rows: Arc<LogicalPlan>,
}

impl Domain {
    pub(super) fn of(outer: &LogicalPlan, columns: Vec<Column>, names: &mut Rewriter) -> Result<Self> {
        if !is_stable(outer)? {
            return not_impl_err!(
                "a subquery or LATERAL cannot refer to rows that may differ each time they are read (LIMIT, row_number(), \
                 random()): use a join, or apply LIMIT after the subquery"
            );
        }
        let (mut defaults, mut exprs) = (Vec::with_capacity(columns.len()), Vec::with_capacity(columns.len()));
        for column in &columns {
            let field = outer.schema().field_from_column(column)?;
            let default = match ScalarValue::new_default(field.data_type()) {
                Ok(value) => value,
                Err(_) => {
                    return not_impl_err!(
                        "a subquery that refers to the outer column `{column}` of type {} is not supported: select the part \
                         that it needs as a separate column in a WITH query",
                        field.data_type()
                    );
                }
            };
            defaults.push(field.is_nullable().then_some(default));
            exprs.push(Expr::Column(column.clone()).alias(names.fresh()));
        }
        let keys = LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(outer.clone()))?);
        Ok(Self { columns, defaults, rows: Arc::new(LogicalPlan::Distinct(Distinct::All(Arc::new(keys)))) })
    }

    /// Returns a plan that returns the keys under new column names, so that a larger plan can contain several such
    /// plans without name conflicts.
    pub(super) fn instance(&self, names: &mut Rewriter) -> Result<(LogicalPlan, Vec<Column>)> {
        names.count_node()?;
        let fresh: Vec<_> = self.columns.iter().map(|_| names.fresh()).collect();
        let exprs = self.rows.schema().columns().into_iter().zip(&fresh);
        let exprs = exprs.map(|(column, name)| Expr::Column(column).alias(name)).collect();
        let plan = LogicalPlan::Projection(Projection::try_new(exprs, Arc::clone(&self.rows))?);
        Ok((plan, fresh.into_iter().map(Column::new_unqualified).collect()))
    }

    /// Returns the conditions under which two keys are equal. Two nulls are considered equal.
    ///
    /// The conditions are plain equalities, because the engine treats `IS NOT DISTINCT FROM` as a property of the whole
    /// join: if it later moved other equalities into the join, those would also match nulls.
    pub(super) fn equals(&self, left: &[Column], right: &[Column]) -> Vec<Expr> {
        let mut conditions = Vec::with_capacity(2 * left.len());
        for ((left, right), default) in left.iter().zip(right).zip(&self.defaults) {
            let (left, right) = (Expr::Column(left.clone()), Expr::Column(right.clone()));
            match default {
                None => conditions.push(left.eq(right)),
                Some(default) => {
                    let filled = |key: &Expr| coalesce(vec![key.clone(), lit(default.clone())]);
                    conditions.push(filled(&left).eq(filled(&right)));
                    conditions.push(left.is_null().eq(right.is_null()));
                }
            }
        }
        conditions
    }

    /// Returns the position of an outer column in the keys.
    pub(super) fn position(&self, column: &Column) -> Option<usize> {
        self.columns.iter().position(|key| key.relation == column.relation && key.name == column.name)
    }
}

/// Returns the `columns` that are in `schema`.
pub(super) fn resolve(columns: Vec<Column>, schema: &DFSchema) -> Vec<Column> {
    columns.into_iter().filter(|column| schema.has_column(column)).collect()
}

/// Returns true if the plan returns the same rows each time it runs. This matters because the plan of the outer rows
/// runs several times. If one run did not return a key, the subquery would appear to have no rows for this key.
fn is_stable(plan: &LogicalPlan) -> Result<bool> {
    let mut stable = true;
    plan.apply_with_subqueries(|node| {
        stable &= match node {
            LogicalPlan::Projection(_)
            | LogicalPlan::Filter(_)
            | LogicalPlan::Join(_)
            | LogicalPlan::Union(_)
            | LogicalPlan::TableScan(_)
            | LogicalPlan::EmptyRelation(_)
            | LogicalPlan::Subquery(_)
            | LogicalPlan::SubqueryAlias(_)
            | LogicalPlan::Values(_)
            | LogicalPlan::Unnest(_)
            | LogicalPlan::Distinct(Distinct::All(_)) => true,
            LogicalPlan::Sort(sort) => sort.fetch.is_none(),
            LogicalPlan::Aggregate(aggregate) => aggregate.aggr_expr.iter().all(is_stable_value),
            LogicalPlan::Window(window) => window.window_expr.iter().all(is_stable_value),
            // This pass generates a LIMIT where it needs only one row from a subquery without outer columns.
            LogicalPlan::Limit(limit) => is_generated(&limit.input),
            _ => false,
        };
        node.apply_expressions(|expr| {
            stable &= !expr.is_volatile();
            Ok(TreeNodeRecursion::Continue)
        })
    })?;
    Ok(stable)
}

/// Returns true if this pass generated the last column of the plan.
fn is_generated(plan: &LogicalPlan) -> bool {
    plan.schema().fields().last().is_some_and(|field| field.name().starts_with(NAME_PREFIX))
}

/// Returns true if the value of an aggregate or window function does not depend on the order of rows whose sort keys
/// are equal.
fn is_stable_value(expr: &Expr) -> bool {
    // The other aggregates may depend on the order of their rows.
    const STABLE_AGGREGATES: [&str; 24] = [
        "approx_distinct",
        "arg_max",
        "arg_min",
        "avg",
        "bit_and",
        "bit_or",
        "bit_xor",
        "bool_and",
        "bool_or",
        "count",
        "grouping",
        "max",
        "max_by",
        "median",
        "min",
        "min_by",
        "mode",
        "percentile_cont",
        "percentile_disc",
        "stddev",
        "stddev_pop",
        "sum",
        "var",
        "var_pop",
    ];
    const STABLE_WINDOWS: [&str; 9] =
        ["rank", "dense_rank", "percent_rank", "cume_dist", "count", "min", "max", "sum", "avg"];
    match expr {
        // Where this pass generates `first_value`, the function is applied to at most one row.
        Expr::Alias(alias)
            if alias.name.starts_with(NAME_PREFIX) && matches!(*alias.expr, Expr::AggregateFunction(_)) =>
        {
            true
        }
        Expr::Alias(alias) => is_stable_value(&alias.expr),
        Expr::AggregateFunction(call) => STABLE_AGGREGATES.contains(&call.func.name()),
        Expr::WindowFunction(call) => STABLE_WINDOWS.contains(&call.fun.name()),
        _ => false,
    }
}
