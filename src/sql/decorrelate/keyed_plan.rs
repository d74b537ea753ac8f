//! Rewrites the plan of a subquery so that it returns the rows for all keys of the outer query at once. Each row
//! contains its key.
//!
//! ```text
//!   a part without outer columns   ─► D × part
//!   Filter, Projection, Sort       ─► the same node, which passes the key on
//!   Aggregate                      ─► groups by the key; without GROUP BY, keys without rows are added afterwards
//!   Window                         ─► partitions by the key
//!   Limit                          ─► row_number() in each key (keyed_limit.rs)
//!   Distinct, Union, Join          ─► compare the key too (keyed_join.rs)
//! ```

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode as _};
use datafusion::common::{Column, DFSchema, JoinType, ScalarValue, not_impl_err};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{AggregateFunction, WindowFunction};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{
    Aggregate, Distinct, DistinctOn, Expr, Filter, LogicalPlan, LogicalPlanBuilder, Projection, Sort, SortExpr,
    SubqueryAlias, Union, Unnest, Window, lit, when,
};

use super::domain::Domain;
use super::{Rewriter, outer_columns};

/// A plan that contains the columns of a subquery and the key of each row. The plan may contain further columns.
pub(super) struct Unnested {
    pub(super) plan: LogicalPlan,
    pub(super) keys: Vec<Column>,
}

impl Unnested {
    /// Projects the plan to the columns of `schema`, followed by the key columns with new names.
    pub(super) fn exact(self, schema: &DFSchema, names: &mut Rewriter) -> Result<Self> {
        let mut columns: Vec<_> = schema.iter().map(|field| Expr::Column(Column::from(field))).collect();
        let mut keys = Vec::with_capacity(self.keys.len());
        for key in self.keys {
            let name = names.fresh();
            columns.push(Expr::Column(key).alias(&name));
            keys.push(Column::new_unqualified(name));
        }
        let plan = Projection::try_new(columns, Arc::new(self.plan))?;
        Ok(Self { plan: LogicalPlan::Projection(plan), keys })
    }

    fn key_exprs(&self) -> impl Iterator<Item = Expr> {
        self.keys.iter().cloned().map(Expr::Column)
    }
}

impl Rewriter {
    /// Returns the rows of `plan` for each key of the domain. `plan` must not contain any subqueries.
    pub(super) fn unnest(&mut self, plan: &LogicalPlan, domain: &Domain) -> Result<Unnested> {
        self.count_node()?;
        if !refers_to(plan, domain)? {
            let (keys, columns) = domain.instance(self)?;
            let plan = match plan {
                LogicalPlan::EmptyRelation(empty) if empty.produce_one_row => keys,
                plan => LogicalPlanBuilder::from(keys).cross_join(plan.clone())?.build()?,
            };
            return Ok(Unnested { plan, keys: columns });
        }
        match plan {
            LogicalPlan::Projection(projection) => {
                self.unnest(&projection.input, domain)?.projected(&projection.expr, domain)
            }
            LogicalPlan::Filter(filter) => {
                let input = self.unnest(&filter.input, domain)?;
                let predicate = substitute(filter.predicate.clone(), domain, &input.keys)?;
                let plan = LogicalPlan::Filter(Filter::try_new(predicate, Arc::new(input.plan))?);
                Ok(Unnested { plan, keys: input.keys })
            }
            LogicalPlan::SubqueryAlias(alias) => {
                let input = self.unnest(&alias.input, domain)?.exact(alias.input.schema(), self)?;
                let keys = input.keys.into_iter().map(|key| Column::new(Some(alias.alias.clone()), key.name)).collect();
                let plan = SubqueryAlias::try_new(Arc::new(input.plan), alias.alias.clone())?;
                Ok(Unnested { plan: LogicalPlan::SubqueryAlias(plan), keys })
            }
            LogicalPlan::Aggregate(aggregate) => self.unnest_aggregate(aggregate, domain),
            LogicalPlan::Window(window) => self.unnest_window(window, domain),
            LogicalPlan::Sort(sort) if sort.fetch.is_none() => {
                let input = self.unnest(&sort.input, domain)?;
                let mut expr = Vec::with_capacity(sort.expr.len());
                for key in &sort.expr {
                    expr.push(SortExpr { expr: substitute(key.expr.clone(), domain, &input.keys)?, ..key.clone() });
                }
                let plan = LogicalPlan::Sort(Sort { expr, input: Arc::new(input.plan), fetch: None });
                Ok(Unnested { plan, keys: input.keys })
            }
            LogicalPlan::Limit(limit) => self.unnest_limit(limit, domain),
            LogicalPlan::Distinct(Distinct::All(input)) => {
                let rows = self.unnest(input, domain)?.exact(input.schema(), self)?;
                let plan = LogicalPlan::Distinct(Distinct::All(Arc::new(rows.plan)));
                Ok(Unnested { plan, keys: rows.keys })
            }
            LogicalPlan::Distinct(Distinct::On(distinct)) => self.unnest_distinct_on(distinct, domain),
            LogicalPlan::Union(union) => self.unnest_union(union, domain),
            LogicalPlan::Join(join) => self.unnest_join(join, domain),
            LogicalPlan::Unnest(unnest) => self.unnest_lists(unnest, domain),
            LogicalPlan::Subquery(subquery) => self.unnest(&subquery.subquery, domain),
            other => {
                let node = other.display().to_string();
                let node = node.split([':', ' ']).next().unwrap_or_default().to_owned();
                not_impl_err!("{node} in a subquery that refers to the outer query is not supported: use a join")
            }
        }
    }

    fn unnest_aggregate(&mut self, aggregate: &Aggregate, domain: &Domain) -> Result<Unnested> {
        if aggregate.group_expr.iter().any(|expr| matches!(expr, Expr::GroupingSet(_))) {
            return not_impl_err!(
                "ROLLUP, CUBE and GROUPING SETS in a subquery that refers to the outer query are not supported: use a join"
            );
        }
        let input = self.unnest(&aggregate.input, domain)?;
        let mut groups: Vec<_> = input.key_exprs().collect();
        groups.extend(substitute_named(&aggregate.group_expr, domain, &input.keys)?);
        let values = substitute_named(&aggregate.aggr_expr, domain, &input.keys)?;
        let plan = LogicalPlan::Aggregate(Aggregate::try_new(Arc::new(input.plan), groups, values)?);
        let grouped = Unnested { plan, keys: input.keys };
        if aggregate.group_expr.is_empty() { self.with_empty_groups(aggregate, grouped, domain) } else { Ok(grouped) }
    }

    /// An aggregate without GROUP BY returns one row even if it has no input rows. Adds such a row for each key without
    /// input rows.
    fn with_empty_groups(&mut self, aggregate: &Aggregate, grouped: Unnested, domain: &Domain) -> Result<Unnested> {
        let marker = self.fresh();
        let mut columns: Vec<_> = grouped.plan.schema().columns().into_iter().map(Expr::Column).collect();
        columns.push(lit(true).alias(&marker));
        let marked = LogicalPlan::Projection(Projection::try_new(columns, Arc::new(grouped.plan))?);
        let (all, keys) = domain.instance(self)?;
        let joined = LogicalPlanBuilder::from(all)
            .join_on(marked, JoinType::Left, domain.equals(&keys, &grouped.keys))?
            .build()?;
        let mut columns = Vec::with_capacity(keys.len() + aggregate.aggr_expr.len());
        for (field, expr) in aggregate.schema.iter().zip(&aggregate.aggr_expr) {
            let column = Column::from(field);
            let (relation, name) = (column.relation.clone(), column.name.clone());
            let default = empty_value(expr, field.1.data_type())?;
            let column = Expr::Column(column);
            if default.is_null() {
                columns.push(column);
                continue;
            }
            let is_empty = Expr::Column(Column::new_unqualified(&marker)).is_null();
            columns.push(when(is_empty, lit(default)).otherwise(column)?.alias_qualified(relation, name));
        }
        columns.extend(keys.iter().cloned().map(Expr::Column));
        let plan = LogicalPlan::Projection(Projection::try_new(columns, Arc::new(joined))?);
        Ok(Unnested { plan, keys })
    }

    fn unnest_window(&mut self, window: &Window, domain: &Domain) -> Result<Unnested> {
        let input = self.unnest(&window.input, domain)?;
        let names = NamePreserver::new_for_projection();
        let mut exprs = Vec::with_capacity(window.window_expr.len());
        for expr in &window.window_expr {
            let name = names.save(expr);
            let expr = substitute(expr.clone(), domain, &input.keys)?;
            let expr = expr.transform_up(|expr| match expr {
                Expr::WindowFunction(call) => {
                    let WindowFunction { fun, mut params } = *call;
                    params.partition_by.extend(input.key_exprs());
                    Ok(Transformed::yes(Expr::WindowFunction(Box::new(WindowFunction { fun, params }))))
                }
                other => Ok(Transformed::no(other)),
            })?;
            exprs.push(name.restore(expr.data));
        }
        let plan = LogicalPlan::Window(Window::try_new(exprs, Arc::new(input.plan))?);
        Ok(Unnested { plan, keys: input.keys })
    }

    fn unnest_distinct_on(&mut self, distinct: &DistinctOn, domain: &Domain) -> Result<Unnested> {
        let input = self.unnest(&distinct.input, domain)?;
        let mut on: Vec<_> = input.key_exprs().collect();
        on.extend(distinct.on_expr.iter().cloned());
        let mut order: Vec<_> = input.key_exprs().map(|key| key.sort(true, false)).collect();
        order.extend(distinct.sort_expr.clone().unwrap_or_default());
        let fits = distinct.sort_expr.as_ref().is_some_and(|order| order.len() >= distinct.on_expr.len());
        let order = if fits { Some(order) } else { None };
        let mut exprs = distinct.select_expr.clone();
        exprs.extend(input.key_exprs());
        if on.iter().chain(&exprs).any(|expr| expr.contains_outer()) {
            return not_impl_err!("DISTINCT ON of an outer column in a subquery is not supported: use row_number()");
        }
        let plan = DistinctOn::try_new(on, exprs, order, Arc::new(input.plan))?;
        Ok(Unnested { plan: LogicalPlan::Distinct(Distinct::On(plan)), keys: input.keys })
    }

    fn unnest_union(&mut self, union: &Union, domain: &Domain) -> Result<Unnested> {
        let names: Vec<_> = domain.columns.iter().map(|_| self.fresh()).collect();
        let mut inputs = Vec::with_capacity(union.inputs.len());
        for input in &union.inputs {
            let rows = self.unnest(input, domain)?;
            let mut columns: Vec<_> = input.schema().columns().into_iter().map(Expr::Column).collect();
            columns.extend(rows.keys.iter().zip(&names).map(|(key, name)| Expr::Column(key.clone()).alias(name)));
            inputs.push(Arc::new(LogicalPlan::Projection(Projection::try_new(columns, Arc::new(rows.plan))?)));
        }
        let plan = LogicalPlan::Union(Union::try_new_with_loose_types(inputs)?);
        let keys: Vec<_> = names.into_iter().map(Column::new_unqualified).collect();
        let mut columns = Vec::with_capacity(plan.schema().fields().len());
        for (old, new) in union.schema.iter().zip(plan.schema().iter()) {
            let (old, new) = (Column::from(old), Column::from(new));
            columns.push(if old.relation == new.relation && old.name == new.name {
                Expr::Column(new)
            } else {
                Expr::Column(new).alias_qualified(old.relation, old.name)
            });
        }
        columns.extend(keys.iter().cloned().map(Expr::Column));
        let plan = LogicalPlan::Projection(Projection::try_new(columns, Arc::new(plan))?);
        Ok(Unnested { plan, keys })
    }

    fn unnest_lists(&mut self, unnest: &Unnest, domain: &Domain) -> Result<Unnested> {
        let input = self.unnest(&unnest.input, domain)?;
        let plan = LogicalPlanBuilder::from(input.plan)
            .unnest_columns_with_options(unnest.exec_columns.clone(), unnest.options.clone())?
            .build()?;
        Ok(Unnested { plan, keys: input.keys })
    }
}

/// Returns true if the plan refers to one of the outer columns in the domain.
pub(super) fn refers_to(plan: &LogicalPlan, domain: &Domain) -> Result<bool> {
    Ok(outer_columns(plan)?.iter().any(|column| domain.position(column).is_some()))
}

/// Replaces the outer columns in an expression with the key columns.
pub(super) fn substitute(expr: Expr, domain: &Domain, keys: &[Column]) -> Result<Expr> {
    if expr.is_volatile() {
        return not_impl_err!("a volatile function such as random() is not supported in a correlated subquery");
    }
    let replaced = expr.transform_up(|expr| {
        Ok(match expr {
            Expr::OuterReferenceColumn(field, column) => match domain.position(&column) {
                Some(position) => Transformed::yes(Expr::Column(keys[position].clone())),
                None => Transformed::no(Expr::OuterReferenceColumn(field, column)),
            },
            other => Transformed::no(other),
        })
    })?;
    Ok(replaced.data)
}

/// Replaces the outer columns in expressions with the key columns, and keeps the names of the expressions.
pub(super) fn substitute_named(exprs: &[Expr], domain: &Domain, keys: &[Column]) -> Result<Vec<Expr>> {
    let names = NamePreserver::new_for_projection();
    let replaced = exprs.iter().map(|expr| {
        let name = names.save(expr);
        Ok(name.restore(substitute(expr.clone(), domain, keys)?))
    });
    replaced.collect()
}

/// Returns the value of an aggregate that has no input rows.
fn empty_value(expr: &Expr, kind: &DataType) -> Result<ScalarValue> {
    match expr {
        Expr::Alias(alias) => empty_value(&alias.expr, kind),
        Expr::AggregateFunction(AggregateFunction { func, .. }) => func.default_value(kind),
        _ => ScalarValue::try_from(kind),
    }
}
