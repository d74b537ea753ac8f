//! Tracks which message each row comes from.
//!
//! Adds the hidden column [`MESSAGE_INDEX`] to a statement's plan. Each node between `messages` and the root of the
//! plan outputs this column as its last column. A plan with a node that cannot output the column is refused.
//!
//! ```text
//!   Projection ─► Filter ─► Join ─┬─► SubqueryAlias ─► messages      each node on this path carries the column
//!                                 └─► Aggregate ─► a lookup          a part that does not read messages is unrestricted
//! ```
//!
//! **Invariant:** each row that a node above `messages` produces comes from exactly one message of the batch. A batch
//! can therefore be split anywhere, failing messages can be removed, and a second read with different batch boundaries
//! produces the same rows. Operations that combine several messages (GROUP BY, window functions, DISTINCT, ORDER BY,
//! LIMIT, self-joins of `messages`) are refused.

use std::sync::Arc;

use datafusion::common::tree_node::{TreeNode as _, TreeNodeRecursion};
use datafusion::common::{Column, JoinType};
use datafusion::datasource::provider_as_source;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, TableScan, Volatility};

use super::error::of_engine;
use super::messages_table::{MESSAGE_INDEX, MESSAGES};
use super::placeholder_table::PlaceholderTable;
use crate::error::{Error, Result};

/// A plan whose last output column is the hidden column, and a reference to this column.
struct TrackedPlan {
    plan: LogicalPlan,
    index: Column,
}

/// Adds the hidden column as the last column of the plan. The table `messages` provides the column.
pub(super) fn carry(plan: &LogicalPlan, messages: &Arc<PlaceholderTable>) -> Result<LogicalPlan> {
    check(plan)?;
    match node(plan, messages)? {
        Some(tracked) => Ok(tracked.plan),
        None => Err(Error::invalid("the transform does not read from `messages`; write SELECT … FROM messages")),
    }
}

/// Refuses functions that depend on time or randomness, and a second use of `messages`, anywhere in the plan.
fn check(plan: &LogicalPlan) -> Result<()> {
    let (mut scans, mut found) = (0, Ok(()));
    let walked = plan.apply_with_subqueries(|node| {
        scans += usize::from(is_messages(node));
        if node.schema().fields().iter().any(|field| field.name() == MESSAGE_INDEX) {
            found =
                Err(Error::invalid(format!("the name `{MESSAGE_INDEX}` is reserved for the server; use another name")));
        }
        node.apply_expressions(|expr| {
            expr.apply(|inner| {
                if let Some(name) = volatile_name(inner) {
                    found = Err(Error::invalid(format!(
                        "`{name}` may return a different value on each call, but a message that is read again must \
                         produce the same row; use the message's `time`, `offset` or `key` instead"
                    )));
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    walked.map_err(|error| Error::internal("cannot traverse a plan").with_source(error))?;
    found?;
    if scans > 1 {
        return Err(Error::invalid(
            "the transform reads `messages` more than once, but the rows of a message must not depend on the other messages \
             in the batch; read `messages` once",
        ));
    }
    Ok(())
}

/// Returns the name of the function or variable if its value may change between evaluations.
fn volatile_name(expr: &Expr) -> Option<String> {
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

/// Adds the hidden column to a node. Returns `None` if the node does not read `messages`.
fn node(plan: &LogicalPlan, messages: &Arc<PlaceholderTable>) -> Result<Option<TrackedPlan>> {
    if let LogicalPlan::TableScan(scan) = plan {
        return is_messages(plan).then(|| messages_with_index(scan, messages)).transpose();
    }
    let mut inputs = Vec::new();
    let mut index = None;
    for (side, input) in plan.inputs().into_iter().enumerate() {
        match node(input, messages)? {
            Some(tracked) => {
                index = Some((side, tracked.index));
                inputs.push(tracked.plan);
            }
            None => inputs.push(input.clone()),
        }
    }
    let Some((side, index)) = index else { return Ok(None) };
    let mut exprs = plan.expressions();
    let index = match plan {
        LogicalPlan::Projection(_) => {
            exprs.push(Expr::Column(index.clone()));
            index
        }
        LogicalPlan::Filter(_) | LogicalPlan::Unnest(_) => index,
        LogicalPlan::SubqueryAlias(alias) => Column::new(Some(alias.alias.clone()), MESSAGE_INDEX),
        LogicalPlan::Join(join) => {
            check_join(join.join_type, side)?;
            index
        }
        other => return Err(refused(other)),
    };
    let plan = plan.with_new_exprs(exprs, inputs).map_err(of_engine)?;
    Ok(Some(TrackedPlan { plan, index }))
}

fn messages_with_index(scan: &TableScan, messages: &Arc<PlaceholderTable>) -> Result<TrackedPlan> {
    let source = provider_as_source(Arc::clone(messages) as _);
    let plan = LogicalPlanBuilder::scan(scan.table_name.clone(), source, None);
    let plan = plan.and_then(LogicalPlanBuilder::build).map_err(|error: DataFusionError| of_engine(error))?;
    Ok(TrackedPlan { plan, index: Column::new(Some(scan.table_name.clone()), MESSAGE_INDEX) })
}

/// Refuses joins that can produce rows without a message, because such rows depend on which messages are in the batch.
fn check_join(kind: JoinType, side: usize) -> Result<()> {
    let keeps_messages = match side {
        0 => matches!(kind, JoinType::Inner | JoinType::Left | JoinType::LeftSemi | JoinType::LeftAnti),
        _ => matches!(kind, JoinType::Inner | JoinType::Right | JoinType::RightSemi | JoinType::RightAnti),
    };
    if keeps_messages {
        return Ok(());
    }
    Err(Error::invalid(format!(
        "this {kind} join could produce rows that do not come from a message; put `messages` on the preserved side \
         (messages LEFT JOIN …)"
    )))
}

/// Returns the error for an operation that combines rows of several messages.
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
        "{what} over messages cannot be used in a transform, because the rows must not depend on batch boundaries; \
         select the rows of each message, and aggregate them in queries"
    ))
}
