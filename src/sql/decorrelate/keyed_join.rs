//! Rewrites joins inside a subquery. The key columns are added to each side that refers to the outer query, or to both
//! sides if the join type requires it. If both sides have key columns, the join also compares them.

use std::sync::Arc;

use datafusion::common::{Column, JoinType, not_impl_err};
use datafusion::error::Result;
use datafusion::functions::core::expr_fn::coalesce;
use datafusion::logical_expr::utils::conjunction;
use datafusion::logical_expr::{Expr, Join, LogicalPlan, Projection};

use super::Rewriter;
use super::domain::Domain;
use super::keyed_plan::{Unnested, refers_to, substitute};

impl Rewriter {
    pub(super) fn unnest_join(&mut self, join: &Join, domain: &Domain) -> Result<Unnested> {
        let (left, right) = (refers_to(&join.left, domain)?, refers_to(&join.right, domain)?);
        match (left, right, join.join_type) {
            (
                _,
                false,
                JoinType::Inner | JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark,
            ) => {
                let left = self.unnest(&join.left, domain)?;
                joined(join, left.plan, LogicalPlan::clone(&join.right), left.keys, domain, Vec::new())
            }
            (false, true, JoinType::Inner | JoinType::Right | JoinType::RightSemi | JoinType::RightAnti) => {
                let right = self.unnest(&join.right, domain)?;
                joined(join, LogicalPlan::clone(&join.left), right.plan, right.keys, domain, Vec::new())
            }
            _ => {
                let (left, right) = (self.unnest(&join.left, domain)?, self.unnest(&join.right, domain)?);
                let equal = domain.equals(&left.keys, &right.keys);
                match join.join_type {
                    JoinType::Inner | JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti | JoinType::LeftMark => {
                        joined(join, left.plan, right.plan, left.keys, domain, equal)
                    }
                    JoinType::Right | JoinType::RightSemi | JoinType::RightAnti => {
                        joined(join, left.plan, right.plan, right.keys, domain, equal)
                    }
                    JoinType::Full => self.unnest_full_join(join, left, right, domain, equal),
                    _ => not_impl_err!("a {} join is not supported in a correlated subquery", join.join_type),
                }
            }
        }
    }

    /// In a full join, the key of a row comes from the left row, or from the right row if there is no left row.
    fn unnest_full_join(
        &mut self,
        join: &Join,
        left: Unnested,
        right: Unnested,
        domain: &Domain,
        equal: Vec<Expr>,
    ) -> Result<Unnested> {
        let either = right.keys.clone();
        let both = joined(join, left.plan, right.plan, left.keys, domain, equal)?;
        let mut columns: Vec<_> = join.schema.iter().map(|field| Expr::Column(Column::from(field))).collect();
        let mut keys = Vec::with_capacity(both.keys.len());
        for (left, right) in both.keys.into_iter().zip(either) {
            let name = self.fresh();
            columns.push(coalesce(vec![Expr::Column(left), Expr::Column(right)]).alias(&name));
            keys.push(Column::new_unqualified(name));
        }
        let plan = LogicalPlan::Projection(Projection::try_new(columns, Arc::new(both.plan))?);
        Ok(Unnested { plan, keys })
    }
}

/// Joins `left` and `right`. The result has the type and the conditions of `join`, and also the conditions in `equal`.
fn joined(
    join: &Join,
    left: LogicalPlan,
    right: LogicalPlan,
    keys: Vec<Column>,
    domain: &Domain,
    equal: Vec<Expr>,
) -> Result<Unnested> {
    let mut conditions = equal;
    if let Some(condition) = &join.filter {
        conditions.push(substitute(condition.clone(), domain, &keys)?);
    }
    let mut on = Vec::with_capacity(join.on.len());
    for (left, right) in &join.on {
        let has_outer = left.contains_outer() || right.contains_outer();
        if has_outer {
            conditions.push(substitute(left.clone().eq(right.clone()), domain, &keys)?);
        } else {
            on.push((left.clone(), right.clone()));
        }
    }
    let plan = Join::try_new(
        Arc::new(left),
        Arc::new(right),
        on,
        conjunction(conditions),
        join.join_type,
        join.join_constraint,
        join.null_equality,
        join.null_aware,
    )?;
    Ok(Unnested { plan: LogicalPlan::Join(plan), keys })
}
