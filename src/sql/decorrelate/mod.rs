//! Replaces LATERAL joins and subqueries in expressions with ordinary joins and aggregates, before the engine plans
//! them.
//!
//! The engine's own rules support only a few forms of subqueries, and return wrong results for some of these. This pass
//! implements the general method from "Unnesting arbitrary queries" (Neumann and Kemper). It evaluates each subquery
//! once, for all distinct values of the outer columns to which the subquery refers, and then joins the outer rows with
//! the result.
//!
//! ```text
//!   node over I, with a subquery Q(k) in an expression
//!     D = distinct k of I                    domain.rs
//!     S = the rows of Q for each key of D    keyed_plan.rs, keyed_join.rs, keyed_limit.rs
//!     R = one row for each key of D          subquery.rs: the value, or the counts that EXISTS, IN, ANY and ALL need
//!     node over (I LEFT JOIN R ON k), with an expression over R's columns in place of the subquery
//! ```
//!
//! The pass leaves a subquery to the engine if the engine evaluates it correctly and efficiently
//! (`supported_subqueries.rs`).
//!
//! **Invariant:** after the pass, references to outer columns remain only in the subqueries that the pass leaves to the
//! engine.
//! **Invariant:** the schema of the plan does not change. The rewritten plan reads each table through the same scan as
//! before, so the tenant barrier still applies.

mod domain;
mod keyed_join;
mod keyed_limit;
mod keyed_plan;
mod outer_aggregates;
mod set_operations_all;
mod single_row;
mod subquery;
mod supported_subqueries;

use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode as _, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, JoinType, TableReference, not_impl_err, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::{conjunction, split_conjunction_owned};
use datafusion::logical_expr::{
    Aggregate, Expr, Filter, Join, LogicalPlan, LogicalPlanBuilder, Projection, Sort, SortExpr, SubqueryAlias, Window,
    lit,
};

use self::domain::Domain;
use crate::sql::rules::uuid_comparisons;

/// The maximum number of nodes that the pass may create. The number must be limited, because each level of nesting can
/// double the number of nodes in the levels below it.
const NODES_MAX: usize = 5_000;

/// The prefix of the column names that the pass creates.
pub(crate) const NAME_PREFIX: &str = "__subquery_";

/// Replaces the subqueries that the engine does not support, and those for which it returns wrong results.
pub(crate) fn decorrelate(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    if !contains_subquery(&plan)? {
        return Ok(Transformed::no(plan));
    }
    outer_aggregates::check(&plan)?;
    let plan = uuid_comparisons::convert(plan)?;
    let plan = Rewriter::default().rewrite(plan, false)?;
    // The engine may have assumed that a subquery cannot return NULL. The expression that replaces it may be nullable,
    // so compute the schemas again.
    let plan = plan.transform_up(|node| Ok(Transformed::yes(node.recompute_schema()?)))?.data;
    if let Some(column) = supported_subqueries::all_outer_columns(&plan)?.first() {
        return not_impl_err!("a subquery cannot refer to the column `{column}` of the outer query here");
    }
    Ok(Transformed::yes(plan))
}

/// Returns true if the plan contains a subquery in an expression, a LATERAL join, INTERSECT ALL or EXCEPT ALL.
fn contains_subquery(plan: &LogicalPlan) -> Result<bool> {
    plan.exists(|node| {
        let mut found = matches!(node, LogicalPlan::Subquery(_)) || set_operations_all::is_multiset(node);
        if !found {
            node.apply_expressions(|expr| {
                found |= expr.exists(|expr| Ok(is_subquery(expr)))?;
                Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
            })?;
        }
        Ok(found)
    })
}

fn is_subquery(expr: &Expr) -> bool {
    matches!(expr, Expr::Exists(_) | Expr::InSubquery(_) | Expr::SetComparison(_) | Expr::ScalarSubquery(_))
}

/// Returns the outer columns to which the nodes of the plan refer. Ignores references in nested subqueries.
fn outer_columns(plan: &LogicalPlan) -> Result<Vec<Column>> {
    let mut columns = Vec::new();
    plan.apply(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let Expr::OuterReferenceColumn(_, column) = expr
                    && !columns.contains(column)
                {
                    columns.push(column.clone());
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(columns)
}

/// Adds a projection that returns only the columns of `schema`.
fn project_to(plan: LogicalPlan, schema: &DFSchema) -> Result<LogicalPlan> {
    let columns = schema.iter().map(|field| Expr::Column(Column::from(field))).collect();
    Ok(LogicalPlan::Projection(Projection::try_new(columns, Arc::new(plan))?))
}

/// The state of one run of this pass.
#[derive(Default)]
struct Rewriter {
    names: usize,
    nodes: usize,
}

impl Rewriter {
    /// Returns a column name that no other node of the plan uses.
    fn fresh(&mut self) -> String {
        self.names += 1;
        format!("{NAME_PREFIX}{}", self.names)
    }

    /// Counts a node, and fails if the pass has visited or created more than [`NODES_MAX`] nodes.
    fn count_node(&mut self) -> Result<()> {
        self.nodes += 1;
        if self.nodes > NODES_MAX {
            return plan_err!("the subqueries of the statement are nested too deeply: use joins or fewer levels");
        }
        Ok(())
    }

    /// Rewrites the subqueries in a plan. If `force` is false, subqueries that the engine evaluates correctly stay as
    /// they are.
    fn rewrite(&mut self, plan: LogicalPlan, force: bool) -> Result<LogicalPlan> {
        Ok(plan.transform_up(|node| self.rewrite_node(node, force))?.data)
    }

    fn rewrite_node(&mut self, node: LogicalPlan, force: bool) -> Result<Transformed<LogicalPlan>> {
        self.count_node()?;
        if set_operations_all::is_multiset(&node) {
            return set_operations_all::rewrite(node, self).map(Transformed::yes);
        }
        if let LogicalPlan::Join(join) = &node
            && is_lateral(&join.right)
        {
            return self.lateral(join).map(Transformed::yes);
        }
        let mut found = false;
        node.apply_expressions(|expr| {
            found |= expr.exists(|expr| Ok(is_subquery(expr)))?;
            Ok(TreeNodeRecursion::Continue)
        })?;
        if !found {
            return Ok(Transformed::no(node));
        }
        Ok(Transformed::yes(match node {
            LogicalPlan::Filter(filter) => self.filter(filter, force)?,
            LogicalPlan::Projection(projection) => self.projection(projection, force)?,
            LogicalPlan::Aggregate(aggregate) => self.aggregate(aggregate)?,
            LogicalPlan::Window(window) => self.window(window)?,
            LogicalPlan::Sort(sort) => self.sort(sort)?,
            LogicalPlan::Join(join) => self.join_condition(join)?,
            other => {
                let place = other.display().to_string();
                let place = place.split([':', ' ']).next().unwrap_or_default().to_owned();
                return not_impl_err!("a subquery is not supported in {place}: compute it in a WITH query");
            }
        }))
    }

    fn filter(&mut self, filter: Filter, force: bool) -> Result<LogicalPlan> {
        let schema = Arc::clone(filter.input.schema());
        let (mut kept, mut replaced) = (Vec::new(), Vec::new());
        for conjunct in split_conjunction_owned(filter.predicate) {
            if !conjunct.exists(|expr| Ok(is_subquery(expr)))? {
                kept.push(conjunct);
                continue;
            }
            let conjunct = if force { conjunct } else { self.rewrite_inside(conjunct, &schema)? };
            let is_plain = !force && supported_subqueries::is_plain_conjunct(&conjunct, &schema)?;
            if is_plain { kept.push(conjunct) } else { replaced.push(conjunct) }
        }
        let mut rows = Arc::unwrap_or_clone(filter.input);
        if let Some(kept) = conjunction(kept) {
            rows = LogicalPlan::Filter(Filter::try_new(kept, Arc::new(rows))?);
        }
        if replaced.is_empty() {
            return Ok(rows);
        }
        let base = Arc::new(rows.clone());
        let replaced = replaced.into_iter().map(|conjunct| self.replace(conjunct, &mut rows, &base));
        let Some(predicate) = conjunction(replaced.collect::<Result<Vec<_>>>()?) else { return Ok(rows) };
        project_to(LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(rows))?), &schema)
    }

    /// If the engine can evaluate all subqueries of `expr` itself, rewrites only the subqueries that are nested in
    /// them.
    fn rewrite_inside(&mut self, expr: Expr, schema: &DFSchema) -> Result<Expr> {
        if !supported_subqueries::is_plain_conjunct(&expr, schema)? {
            return Ok(expr);
        }
        self.rewrite_plans(expr)
    }

    /// Rewrites the plans of all subqueries in `expr`.
    fn rewrite_plans(&mut self, expr: Expr) -> Result<Expr> {
        let rewritten = expr.transform_up(|expr| {
            let mut expr = expr;
            let inner = match &mut expr {
                Expr::Exists(test) => &mut test.subquery,
                Expr::InSubquery(test) => &mut test.subquery,
                Expr::ScalarSubquery(subquery) => subquery,
                _ => return Ok(Transformed::no(expr)),
            };
            let plan = self.rewrite(LogicalPlan::clone(&inner.subquery), false)?;
            let is_null_if_empty = !single_row::is_value_nullable_or_single(&plan);
            inner.subquery = Arc::new(plan);
            if is_null_if_empty && matches!(&expr, Expr::ScalarSubquery(_)) {
                expr = single_row::subquery_value(expr, lit(1_i64));
            }
            Ok(Transformed::yes(expr))
        })?;
        Ok(rewritten.data)
    }

    fn projection(&mut self, projection: Projection, force: bool) -> Result<LogicalPlan> {
        let mut rows = LogicalPlan::clone(&projection.input);
        let names = NamePreserver::new_for_projection();
        let mut exprs = Vec::with_capacity(projection.expr.len());
        for expr in projection.expr {
            if !expr.exists(|expr| Ok(is_subquery(expr)))? {
                exprs.push(expr);
                continue;
            }
            let mut expr = expr;
            if !force && supported_subqueries::has_only_plain_scalars(&expr)? {
                expr = self.rewrite_plans(expr)?;
                if supported_subqueries::has_only_plain_scalars(&expr)? {
                    exprs.push(expr);
                    continue;
                }
            }
            let name = names.save(&expr);
            exprs.push(name.restore(self.replace(expr, &mut rows, &projection.input)?));
        }
        Ok(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(rows))?))
    }

    fn aggregate(&mut self, aggregate: Aggregate) -> Result<LogicalPlan> {
        let mut rows = LogicalPlan::clone(&aggregate.input);
        let groups = self.replace_named(aggregate.group_expr, &mut rows, &aggregate.input)?;
        let values = self.replace_named(aggregate.aggr_expr, &mut rows, &aggregate.input)?;
        Ok(LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(rows), groups, values)?))
    }

    fn window(&mut self, window: Window) -> Result<LogicalPlan> {
        let mut rows = LogicalPlan::clone(&window.input);
        let exprs = self.replace_named(window.window_expr, &mut rows, &window.input)?;
        project_to(LogicalPlan::Window(Window::try_new(exprs, Arc::new(rows))?), &window.schema)
    }

    fn sort(&mut self, mut sort: Sort) -> Result<LogicalPlan> {
        let schema = Arc::clone(sort.input.schema());
        let base = match &*sort.input {
            LogicalPlan::Projection(projection) => self.project_sort_keys(&mut sort.expr, projection)?,
            _ => Arc::clone(&sort.input),
        };
        let mut rows = LogicalPlan::clone(&base);
        let mut keys = Vec::with_capacity(sort.expr.len());
        for key in sort.expr {
            let expr = self.replace(key.expr, &mut rows, &base)?;
            keys.push(SortExpr { expr, ..key });
        }
        project_to(LogicalPlan::Sort(Sort { expr: keys, input: Arc::new(rows), fetch: sort.fetch }), &schema)
    }

    /// Evaluates the subqueries in sort keys that refer to columns outside the select list. Adds the result of each
    /// such subquery to the select list as a column, and returns the extended projection.
    fn project_sort_keys(&mut self, keys: &mut [SortExpr], list: &Projection) -> Result<Arc<LogicalPlan>> {
        let mut rows = LogicalPlan::clone(&list.input);
        let mut exprs = list.expr.clone();
        for key in keys {
            let replaced = std::mem::take(&mut key.expr).transform_up(|expr| {
                let columns = subquery::columns_of(&expr)?;
                let all_in = |schema: &DFSchema| columns.iter().all(|column| schema.has_column(column));
                if !is_subquery(&expr) || all_in(&list.schema) || !all_in(list.input.schema()) {
                    return Ok(Transformed::no(expr));
                }
                let name = self.fresh();
                exprs.push(self.attach(expr, &mut rows, &list.input)?.alias(&name));
                Ok(Transformed::yes(Expr::Column(Column::new_unqualified(name))))
            })?;
            key.expr = replaced.data;
        }
        Ok(Arc::new(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(rows))?)))
    }

    /// Rewrites a join that has subqueries in its condition. An inner join is replaced with a cross join and a filter
    /// on its rows. In an outer join, each subquery may refer to only one side of the join, and is evaluated on that
    /// side.
    fn join_condition(&mut self, join: Join) -> Result<LogicalPlan> {
        let mut conditions: Vec<_> = join.on.into_iter().map(|(left, right)| left.eq(right)).collect();
        conditions.extend(join.filter);
        let condition = conjunction(conditions);
        if join.join_type == JoinType::Inner {
            let rows = LogicalPlanBuilder::from(join.left).cross_join(LogicalPlan::clone(&join.right))?.build()?;
            return match condition {
                Some(condition) => self.filter(Filter::try_new(condition, Arc::new(rows))?, true),
                None => Ok(rows),
            };
        }
        let (mut left, mut right) = (LogicalPlan::clone(&join.left), LogicalPlan::clone(&join.right));
        let mut replaced = Vec::new();
        for conjunct in condition.map(split_conjunction_owned).unwrap_or_default() {
            let replaced_conjunct = conjunct.transform_up(|expr| {
                if !is_subquery(&expr) {
                    return Ok(Transformed::no(expr));
                }
                let columns = subquery::columns_of(&expr)?;
                let all_in = |schema: &DFSchema| columns.iter().all(|column| schema.has_column(column));
                if all_in(join.left.schema()) {
                    self.replace(expr, &mut left, &join.left).map(Transformed::yes)
                } else if all_in(join.right.schema()) {
                    self.replace(expr, &mut right, &join.right).map(Transformed::yes)
                } else {
                    not_impl_err!(
                        "a subquery in the ON clause of an outer join cannot refer to both sides: compute it in a WITH query"
                    )
                }
            })?;
            replaced.push(replaced_conjunct.data);
        }
        let joined = Join::try_new(
            Arc::new(left),
            Arc::new(right),
            Vec::new(),
            conjunction(replaced),
            join.join_type,
            join.join_constraint,
            join.null_equality,
            join.null_aware,
        )?;
        project_to(LogicalPlan::Join(joined), &join.schema)
    }

    /// Replaces a LATERAL join with an ordinary join.
    fn lateral(&mut self, join: &Join) -> Result<LogicalPlan> {
        let Some((inner, alias)) = lateral_side(&join.right) else { return plan_err!("unexpected LATERAL join") };
        if !matches!(join.join_type, JoinType::Inner | JoinType::Left) {
            return not_impl_err!("LATERAL is not supported in a {} join: use CROSS JOIN or LEFT JOIN", join.join_type);
        }
        let inner = self.rewrite(LogicalPlan::clone(inner), true)?;
        let mut columns = outer_columns(&inner)?;
        columns.retain(|column| join.left.schema().has_column(column));
        let (right, condition) = if columns.is_empty() {
            (inner, None)
        } else {
            let domain = Domain::of(&join.left, columns, self)?;
            let rows = self.unnest(&inner, &domain)?.exact(inner.schema(), self)?;
            (rows.plan, Some((domain, rows.keys)))
        };
        let right = match alias {
            Some(alias) => LogicalPlan::SubqueryAlias(SubqueryAlias::try_new(Arc::new(right), alias.clone())?),
            None => right,
        };
        let mut conditions: Vec<_> = join.on.iter().map(|(left, right)| left.clone().eq(right.clone())).collect();
        conditions.extend(join.filter.clone());
        if let Some((domain, keys)) = condition {
            let keys = keys.into_iter().map(|key| match alias {
                Some(alias) => Column::new(Some(alias.clone()), key.name),
                None => key,
            });
            conditions.extend(domain.equals(&domain.columns, &keys.collect::<Vec<_>>()));
        }
        let joined = LogicalPlanBuilder::from(LogicalPlan::clone(&join.left))
            .join_on(right, join.join_type, conditions)?
            .build()?;
        project_to(joined, &join.schema)
    }

    fn replace_named(
        &mut self,
        exprs: Vec<Expr>,
        rows: &mut LogicalPlan,
        base: &Arc<LogicalPlan>,
    ) -> Result<Vec<Expr>> {
        let names = NamePreserver::new_for_projection();
        let mut replaced = Vec::with_capacity(exprs.len());
        for expr in exprs {
            if !expr.exists(|expr| Ok(is_subquery(expr)))? {
                replaced.push(expr);
                continue;
            }
            let name = names.save(&expr);
            replaced.push(name.restore(self.replace(expr, rows, base)?));
        }
        Ok(replaced)
    }

    /// Replaces the subqueries in an expression with new columns in `rows`. `rows` must contain the rows and columns of
    /// `base`.
    fn replace(&mut self, expr: Expr, rows: &mut LogicalPlan, base: &Arc<LogicalPlan>) -> Result<Expr> {
        let replaced = expr.transform_up(|expr| {
            if is_subquery(&expr) {
                self.attach(expr, rows, base).map(Transformed::yes)
            } else {
                Ok(Transformed::no(expr))
            }
        })?;
        Ok(replaced.data)
    }
}

fn is_lateral(plan: &LogicalPlan) -> bool {
    lateral_side(plan).is_some()
}

/// If the plan is a LATERAL item in FROM, returns its query and its alias.
fn lateral_side(plan: &LogicalPlan) -> Option<(&LogicalPlan, Option<&TableReference>)> {
    match plan {
        LogicalPlan::Subquery(subquery) => Some((&subquery.subquery, None)),
        LogicalPlan::SubqueryAlias(alias) => match &*alias.input {
            LogicalPlan::Subquery(subquery) => Some((&subquery.subquery, Some(&alias.alias))),
            _ => None,
        },
        _ => None,
    }
}
