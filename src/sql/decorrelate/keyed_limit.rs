//! Applies a LIMIT or OFFSET in a subquery to the rows of each key separately.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::{Column, not_impl_err};
use datafusion::error::Result;
use datafusion::functions_window::expr_fn::row_number;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{
    Expr, ExprFunctionExt as _, FetchType, Filter, Limit, LogicalPlan, Projection, SkipType, SortExpr, SubqueryAlias,
    Window, cast, lit,
};

use super::Rewriter;
use super::domain::Domain;
use super::keyed_plan::{Unnested, substitute, substitute_named};

impl Rewriter {
    pub(super) fn unnest_limit(&mut self, limit: &Limit, domain: &Domain) -> Result<Unnested> {
        let (SkipType::Literal(skip), FetchType::Literal(fetch)) = (limit.get_skip_type()?, limit.get_fetch_type()?)
        else {
            return not_impl_err!("LIMIT and OFFSET of a subquery that refers to the outer query must be numbers");
        };
        let (skip, fetch) =
            (i64::try_from(skip).unwrap_or(i64::MAX), fetch.map(|n| i64::try_from(n).unwrap_or(i64::MAX)));
        self.limited(&limit.input, skip, fetch, domain)
    }

    /// Selects the rows from `skip + 1` to `skip + fetch` for each key. A projection or an alias keeps the order of its
    /// input, so the limit is applied to the input, which may be a sort.
    fn limited(&mut self, plan: &LogicalPlan, skip: i64, fetch: Option<i64>, domain: &Domain) -> Result<Unnested> {
        self.count_node()?;
        match plan {
            LogicalPlan::Projection(projection) => {
                let input = self.limited(&projection.input, skip, fetch, domain)?;
                input.projected(&projection.expr, domain)
            }
            LogicalPlan::SubqueryAlias(alias) => {
                let input = self.limited(&alias.input, skip, fetch, domain)?.exact(alias.input.schema(), self)?;
                let keys = input.keys.into_iter().map(|key| Column::new(Some(alias.alias.clone()), key.name)).collect();
                let plan = SubqueryAlias::try_new(Arc::new(input.plan), alias.alias.clone())?;
                Ok(Unnested { plan: LogicalPlan::SubqueryAlias(plan), keys })
            }
            LogicalPlan::Sort(sort) => {
                let input = self.unnest(&sort.input, domain)?;
                let mut order = Vec::with_capacity(sort.expr.len());
                for key in &sort.expr {
                    order.push(SortExpr { expr: substitute(key.expr.clone(), domain, &input.keys)?, ..key.clone() });
                }
                let fetch = match (fetch, sort.fetch) {
                    (fetch, None) => fetch,
                    _ => return not_impl_err!("a sort with a limit is not supported in a correlated subquery"),
                };
                self.numbered(input, order, skip, fetch)
            }
            other => {
                let input = self.unnest(other, domain)?;
                self.numbered(input, Vec::new(), skip, fetch)
            }
        }
    }

    fn numbered(&mut self, input: Unnested, order: Vec<SortExpr>, skip: i64, fetch: Option<i64>) -> Result<Unnested> {
        let name = self.fresh();
        let keys = input.keys.iter().cloned().map(Expr::Column).collect();
        let mut number = row_number().partition_by(keys);
        if !order.is_empty() {
            number = number.order_by(order);
        }
        let window = Window::try_new(vec![number.build()?.alias(&name)], Arc::new(input.plan))?;
        let number = cast(Expr::Column(Column::new_unqualified(name)), DataType::Int64);
        let mut conditions = Vec::new();
        if skip > 0 {
            conditions.push(number.clone().gt(lit(skip)));
        }
        if let Some(fetch) = fetch {
            conditions.push(number.lt_eq(lit(skip.saturating_add(fetch))));
        }
        let plan = LogicalPlan::Window(window);
        let plan = match conjunction(conditions) {
            Some(condition) => LogicalPlan::Filter(Filter::try_new(condition, Arc::new(plan))?),
            None => plan,
        };
        Ok(Unnested { plan, keys: input.keys })
    }
}

impl Unnested {
    /// Adds a projection that returns `exprs` and the key columns.
    pub(super) fn projected(self, exprs: &[Expr], domain: &Domain) -> Result<Self> {
        let mut columns = substitute_named(exprs, domain, &self.keys)?;
        columns.extend(self.keys.iter().cloned().map(Expr::Column));
        let plan = Projection::try_new(columns, Arc::new(self.plan))?;
        Ok(Self { plan: LogicalPlan::Projection(plan), keys: self.keys })
    }
}
