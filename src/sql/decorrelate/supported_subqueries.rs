//! Recognizes the subqueries that the engine evaluates correctly and efficiently. These subqueries are called plain,
//! and stay as they are:
//!
//! - `EXISTS`, `NOT EXISTS` and `IN` in a WHERE condition, if outer columns occur only in WHERE conditions of the
//!   subquery, and not inside its joins, aggregates, limits or derived tables. For `IN`, the conditions with outer columns must be
//!   equalities, and the tested value must be a column.
//! - `NOT IN` in a WHERE condition, if the tested value is a column, the subquery contains no outer columns, and neither
//!   column can be NULL. The engine's join for columns that can be NULL does not detect NULLs in expressions
//!   (apache/datafusion#25474), and has a race between its partitions (apache/datafusion#25076).
//! - Scalar subqueries without outer columns.
//! - Scalar subqueries that compute aggregates without GROUP BY. Outer columns may occur only in WHERE conditions of
//!   the form `outer column = inner column`.

use datafusion::common::tree_node::{TreeNode as _, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema};
use datafusion::error::Result;
use datafusion::logical_expr::utils::split_conjunction;
use datafusion::logical_expr::{BinaryExpr, Distinct, Expr, ExprSchemable as _, LogicalPlan, Operator};

use super::{is_subquery, outer_columns};

/// Returns true if all subqueries of a WHERE condition on rows with `schema` can be left to the engine.
pub(super) fn is_plain_conjunct(conjunct: &Expr, schema: &DFSchema) -> Result<bool> {
    match conjunct {
        Expr::Exists(test) => is_plain_predicate(&test.subquery.subquery, false),
        Expr::InSubquery(test) => {
            // The engine needs the expression of the subquery's column, and finds none for VALUES.
            if has_subquery(&test.expr)? || test.subquery.subquery.head_output_expr()?.is_none() {
                return Ok(false);
            }
            let is_uncorrelated = all_outer_columns(&test.subquery.subquery)?.is_empty();
            let is_column = matches!(*test.expr, Expr::Column(_));
            if test.negated {
                let has_nulls = test.expr.nullable(schema)? || test.subquery.subquery.schema().field(0).is_nullable();
                return Ok(is_uncorrelated && is_column && !has_nulls);
            }
            Ok(is_uncorrelated || is_column && is_plain_predicate(&test.subquery.subquery, true)?)
        }
        other => has_only_plain_scalars(other),
    }
}

/// Returns true if all subqueries in an expression are scalar and can be left to the engine.
pub(super) fn has_only_plain_scalars(expr: &Expr) -> Result<bool> {
    let mut plain = true;
    expr.apply(|expr| {
        plain &= match expr {
            Expr::ScalarSubquery(subquery) => {
                all_outer_columns(&subquery.subquery)?.is_empty() || is_plain_scalar(&subquery.subquery)?
            }
            other => !is_subquery(other),
        };
        Ok(if plain { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
    })?;
    Ok(plain)
}

fn has_subquery(expr: &Expr) -> Result<bool> {
    expr.exists(|expr| Ok(is_subquery(expr)))
}

/// Returns the outer columns to which a plan and its nested subqueries refer.
pub(super) fn all_outer_columns(plan: &LogicalPlan) -> Result<Vec<Column>> {
    let mut columns = outer_columns(plan)?;
    plan.apply(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                let inner = match expr {
                    Expr::Exists(test) => &test.subquery.subquery,
                    Expr::InSubquery(test) => &test.subquery.subquery,
                    Expr::SetComparison(test) => &test.subquery.subquery,
                    Expr::ScalarSubquery(subquery) => &subquery.subquery,
                    _ => return Ok(TreeNodeRecursion::Continue),
                };
                let nested = all_outer_columns(inner)?;
                columns.extend(nested.into_iter().filter(|column| !in_inputs(node, column)));
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(columns)
}

/// Returns true if an input of the node has the column.
fn in_inputs(node: &LogicalPlan, column: &Column) -> bool {
    node.inputs().iter().any(|input| input.schema().has_column(column))
}

/// Returns true if outer columns occur only in WHERE conditions. They must not occur in other nodes, such as joins,
/// aggregates, limits and derived tables, or in the inputs of these nodes.
fn is_plain_predicate(plan: &LogicalPlan, only_equalities: bool) -> Result<bool> {
    let has_plain_exprs = |node: &LogicalPlan| -> Result<bool> {
        let mut plain = true;
        node.apply_expressions(|expr| {
            plain &= !expr.exists(|expr| Ok(matches!(expr, Expr::OuterReferenceColumn(..)) || is_subquery(expr)))?;
            Ok(TreeNodeRecursion::Continue)
        })?;
        Ok(plain)
    };
    match plan {
        LogicalPlan::Projection(projection) => {
            Ok(has_plain_exprs(plan)? && is_plain_predicate(&projection.input, only_equalities)?)
        }
        LogicalPlan::Distinct(Distinct::All(input)) => is_plain_predicate(input, only_equalities),
        LogicalPlan::Filter(filter) => {
            Ok(is_plain_filter(&filter.predicate, only_equalities)?
                && is_plain_predicate(&filter.input, only_equalities)?)
        }
        other => Ok(all_outer_columns(other)?.is_empty()),
    }
}

/// Returns true if the predicate contains no subquery. If `only_equalities` is true, each outer column in the predicate
/// must be compared with a column using `=`.
fn is_plain_filter(predicate: &Expr, only_equalities: bool) -> Result<bool> {
    Ok(!has_subquery(predicate)? && (!only_equalities || has_only_equalities(predicate)))
}

/// Returns true if the plan computes aggregates, and if outer columns occur only in equality conditions on the input
/// rows of the aggregation.
fn is_plain_scalar(plan: &LogicalPlan) -> Result<bool> {
    match plan {
        LogicalPlan::Projection(projection) => {
            let plain = projection.expr.iter().all(|expr| !contains_outer(expr));
            Ok(plain && is_plain_scalar(&projection.input)?)
        }
        LogicalPlan::Aggregate(aggregate) => {
            let plain = aggregate.group_expr.is_empty() && !aggregate.aggr_expr.iter().any(contains_outer);
            Ok(plain && is_plain_equality(&aggregate.input)?)
        }
        _ => Ok(false),
    }
}

fn contains_outer(expr: &Expr) -> bool {
    let found = expr.exists(|expr| Ok(matches!(expr, Expr::OuterReferenceColumn(..)) || is_subquery(expr)));
    found.unwrap_or(true)
}

fn is_plain_equality(plan: &LogicalPlan) -> Result<bool> {
    match plan {
        LogicalPlan::Filter(filter) => Ok(has_only_equalities(&filter.predicate) && is_plain_equality(&filter.input)?),
        other => Ok(all_outer_columns(other)?.is_empty()),
    }
}

/// Returns true if outer columns occur only in conditions of the form `outer column = inner column`.
fn has_only_equalities(predicate: &Expr) -> bool {
    split_conjunction(predicate).into_iter().all(|conjunct| {
        !contains_outer(conjunct)
            || matches!(conjunct, Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right })
                if is_outer_and_inner(left, right) || is_outer_and_inner(right, left))
    })
}

fn is_outer_and_inner(outer: &Expr, inner: &Expr) -> bool {
    matches!(outer, Expr::OuterReferenceColumn(..)) && matches!(inner, Expr::Column(_))
}
