//! Tracks which message a row comes from: carries a hidden column through the plan, and refuses plans that would lose it.
//!
//! In: the plan of a statement. Out: the same plan with [`PLACE`] as its last column, or an error that gives
//! the reason.
//!
//! ```text
//!   Projection ─► Filter ─► Join ─┬─► SubqueryAlias ─► messages      each node on this path carries the column
//!                                 └─► Aggregate ─► a lookup          a part that does not read messages is unrestricted
//! ```
//!
//! **Invariant:** each row above `messages` comes from exactly one message of the batch. So a batch may be split anywhere, its
//! bad messages can be removed, and reading it again with other boundaries gives the same rows. Nodes that read several
//! messages at once (GROUP BY, windows, DISTINCT, ORDER BY, LIMIT, joins of messages with themselves) are refused.

use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode as _, TreeNodeRecursion};
use datafusion::common::{Column, JoinType};
use datafusion::datasource::provider_as_source;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, TableScan, Volatility};

use super::batch_table::BatchTable;
use super::error::of_engine;
use super::messages::{MESSAGES, PLACE};
use crate::error::{Error, Result};

/// A plan that carries the hidden column, and the column's name in it.
struct ProvenancePlan {
    plan: LogicalPlan,
    place: Column,
}

/// Adds the hidden column to the end of the plan; `messages` is the table that provides it.
pub(super) fn carry(plan: &LogicalPlan, messages: &Arc<BatchTable>) -> Result<LogicalPlan> {
    check(plan)?;
    match node(plan, messages)? {
        Some(carried) => Ok(carried.plan),
        None => Err(Error::invalid("the transform does not read from `messages`: SELECT … FROM messages")),
    }
}

/// Refuses, anywhere in the plan, functions that depend on time or randomness, and a second use of `messages`.
fn check(plan: &LogicalPlan) -> Result<()> {
    let (mut scans, mut found) = (0, Ok(()));
    let walked = plan.apply_with_subqueries(|node| {
        scans += usize::from(is_messages(node));
        if node.schema().fields().iter().any(|field| field.name() == PLACE) {
            found = Err(Error::invalid(format!("the name `{PLACE}` is reserved by the server: use another name")));
        }
        node.apply_expressions(|expr| {
            expr.apply(|inner| {
                if let Some(name) = changing(inner) {
                    found = Err(Error::invalid(format!(
                        "`{name}` returns a different value at each call, but a message that is read again must \
                         produce the same row: use the message's `time`, `offset` or `key`"
                    )));
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    walked.map_err(|fault| Error::internal("cannot traverse a plan").with_source(fault))?;
    found?;
    if scans > 1 {
        return Err(Error::invalid(
            "the transform reads `messages` more than once: the rows of a message must not depend on the other messages \
             in the same batch",
        ));
    }
    Ok(())
}

fn changing(expr: &Expr) -> Option<String> {
    match expr {
        Expr::ScalarFunction(call) if call.func.signature().volatility != Volatility::Immutable => {
            Some(call.func.name().to_owned())
        }
        Expr::Placeholder(placeholder) => Some(placeholder.id.clone()),
        Expr::ScalarVariable(_, names) => Some(names.join(".")),
        _ => None,
    }
}

fn is_messages(plan: &LogicalPlan) -> bool {
    matches!(plan, LogicalPlan::TableScan(scan) if scan.table_name.table() == MESSAGES)
}

/// Adds the hidden column to a node, if `messages` is below it.
fn node(plan: &LogicalPlan, messages: &Arc<BatchTable>) -> Result<Option<ProvenancePlan>> {
    if let LogicalPlan::TableScan(scan) = plan {
        return is_messages(plan).then(|| messages_with_place(scan, messages)).transpose();
    }
    let mut inputs = Vec::new();
    let mut place = None;
    for (side, input) in plan.inputs().into_iter().enumerate() {
        match node(input, messages)? {
            Some(carried) => {
                place = Some((side, carried.place));
                inputs.push(carried.plan);
            }
            None => inputs.push(input.clone()),
        }
    }
    let Some((side, place)) = place else { return Ok(None) };
    let mut exprs = plan.expressions();
    let place = match plan {
        LogicalPlan::Projection(_) => {
            exprs.push(Expr::Column(place.clone()));
            place
        }
        LogicalPlan::Filter(_) | LogicalPlan::Unnest(_) => place,
        LogicalPlan::SubqueryAlias(alias) => Column::new(Some(alias.alias.clone()), PLACE),
        LogicalPlan::Join(join) => {
            check_join(join.join_type, side)?;
            place
        }
        other => return Err(refused(other)),
    };
    let plan = plan.with_new_exprs(exprs, inputs).map_err(of_engine)?;
    Ok(Some(ProvenancePlan { plan, place }))
}

fn messages_with_place(scan: &TableScan, messages: &Arc<BatchTable>) -> Result<ProvenancePlan> {
    let source = provider_as_source(Arc::clone(messages) as _);
    let plan = LogicalPlanBuilder::scan(scan.table_name.clone(), source, None);
    let plan = plan.and_then(LogicalPlanBuilder::build).map_err(|fault: DataFusionError| of_engine(fault))?;
    Ok(ProvenancePlan { plan, place: Column::new(Some(scan.table_name.clone()), PLACE) })
}

/// Refuses joins that produce rows without a message: such rows depend on which messages are in the batch.
fn check_join(kind: JoinType, side: usize) -> Result<()> {
    let keeps_messages = match side {
        0 => matches!(kind, JoinType::Inner | JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti),
        _ => matches!(kind, JoinType::Inner | JoinType::Right | JoinType::RightSemi | JoinType::RightAnti),
    };
    if keeps_messages {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "a {kind} join here would produce rows of no message: put `messages` on the preserved side (messages LEFT JOIN …)"
    )))
}

fn refused(plan: &LogicalPlan) -> Error {
    let what = match plan {
        LogicalPlan::Aggregate(_) => "GROUP BY and aggregates",
        LogicalPlan::Window(_) => "window functions",
        LogicalPlan::Distinct(_) => "DISTINCT",
        LogicalPlan::Sort(_) => "ORDER BY",
        LogicalPlan::Limit(_) => "LIMIT",
        LogicalPlan::Union(_) => "UNION",
        LogicalPlan::RecursiveQuery(_) => "recursion",
        _ => "this operation",
    };
    Error::invalid(format!(
        "{what} over messages is not allowed in a transform: batch boundaries must not change the rows; \
         SELECT the rows of each message, and aggregate them in queries"
    ))
}
