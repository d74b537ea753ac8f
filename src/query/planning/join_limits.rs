//! Limits on joins that combine all pairs of rows.

use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::common::{DataFusionError, Result as PlanResult};
use datafusion::logical_expr::{Distinct, FetchType, LogicalPlan, SkipType};

use crate::error::{Error, Result};

/// The maximum number of joins without an equality between the two sides. A join with a single row does not count.
/// Nested subqueries also become such joins. Generated statements can contain more than sixteen of them.
const CROSS_JOINS_MAX: usize = 60;

/// Refuses an optimized plan with too many joins that combine all pairs of rows.
pub(in crate::query) fn check_cross_joins(plan: &LogicalPlan) -> Result<()> {
    let mut joins = 0;
    let walked = plan.apply_with_subqueries(|node| {
        if let LogicalPlan::Join(join) = node
            && join.on.is_empty()
            && !is_single_row(&join.left)
            && !is_single_row(&join.right)
        {
            joins += 1;
        }
        Ok(TreeNodeRecursion::Continue)
    });
    walked.map_err(|error| Error::internal("cannot traverse a plan").with_source(error))?;
    if joins > CROSS_JOINS_MAX {
        return Err(Error::limited(format!(
            "the statement has more than {CROSS_JOINS_MAX} joins without an equality: add conditions such as a.id = b.id"
        )));
    }
    Ok(())
}

/// Refuses a plan with a join of constant rows that could return 2^63 or more rows. The engine multiplies the row
/// counts of both sides without an overflow check.
pub(super) fn check_rows(plan: &LogicalPlan) -> Result<()> {
    match max_rows(plan) {
        Ok(_) => Ok(()),
        Err(DataFusionError::ResourcesExhausted(_)) => Err(Error::limited(
            "a join of the statement would return more than 2^63 rows: add conditions such as a.id = b.id",
        )),
        Err(error) => Err(Error::internal("cannot traverse a plan").with_source(error)),
    }
}

/// Returns true if a plan returns at most one row.
fn is_single_row(plan: &LogicalPlan) -> bool {
    matches!(max_rows(plan), Ok(Some(0 | 1)))
}

/// Returns the maximum number of rows of a plan, or `None` if it is unknown. Fails with `ResourcesExhausted` if
/// a join could return too many rows.
fn max_rows(plan: &LogicalPlan) -> PlanResult<Option<u64>> {
    plan.apply_subqueries(|subquery| max_rows(subquery).map(|_| TreeNodeRecursion::Continue))?;
    let inputs = plan.inputs().into_iter().map(max_rows).collect::<PlanResult<Vec<_>>>()?;
    let input = inputs.first().copied().flatten();
    Ok(match plan {
        LogicalPlan::Values(values) => Some(values.values.len() as u64),
        LogicalPlan::EmptyRelation(empty) => Some(u64::from(empty.produce_one_row)),
        LogicalPlan::Aggregate(aggregate) if aggregate.group_expr.is_empty() => Some(1),
        LogicalPlan::Limit(limit) => {
            // A negative LIMIT or OFFSET is an error, which the engine reports later.
            let fetch = match (limit.get_skip_type(), limit.get_fetch_type()) {
                (Ok(SkipType::Literal(_)), Ok(FetchType::Literal(Some(fetch)))) => Some(fetch as u64),
                _ => None,
            };
            input.map_or(fetch, |rows| Some(fetch.map_or(rows, |fetch| fetch.min(rows))))
        }
        LogicalPlan::Projection(_)
        | LogicalPlan::Filter(_)
        | LogicalPlan::Window(_)
        | LogicalPlan::Aggregate(_)
        | LogicalPlan::Sort(_)
        | LogicalPlan::Repartition(_)
        | LogicalPlan::SubqueryAlias(_)
        | LogicalPlan::Distinct(Distinct::All(_) | Distinct::On(_)) => input,
        LogicalPlan::Union(_) => inputs.iter().try_fold(0_u64, |sum, rows| Some(sum.saturating_add((*rows)?))),
        LogicalPlan::Join(_) => match inputs.as_slice() {
            [Some(left), Some(right)] => {
                let rows = left.checked_mul(*right).filter(|rows| *rows < 1 << 63);
                Some(rows.ok_or_else(|| DataFusionError::ResourcesExhausted("too many rows".to_owned()))?)
            }
            _ => None,
        },
        _ => None,
    })
}
