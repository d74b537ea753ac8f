//! Limits on the nesting depth and the size of a logical plan.
//!
//! Planning and optimization recurse through a plan and visit each node many times. Without limits, a small statement
//! could keep a thread busy for hours. `table_reads.rs` also limits the number of tables before a statement is planned.

use datafusion::common::tree_node::{TreeNode as _, TreeNodeRecursion, TreeNodeVisitor};
use datafusion::common::{Result as PlanResult, ScalarValue};
use datafusion::logical_expr::expr::GroupingSet;
use datafusion::logical_expr::{Aggregate, Expr, LogicalPlan};

use crate::config::QueryConfig;
use crate::error::{Error, Result};
use crate::query::planning::join_limits;
use crate::query::planning::statement::{RELATIONS_MAX, WINDOWS_MAX, too_many_relations, too_many_windows};
use crate::query::planning::token_limits::{CHAIN_MAX, too_long_chain};
use crate::sql::syntax::shorthand::{GroupElement, check_group_elements};

/// The maximum nesting depth of an expression, which is the maximum length of an operator chain plus a margin for other
/// nesting.
pub(in crate::query) const EXPR_DEPTH_MAX: usize = CHAIN_MAX + 200;
/// The maximum nesting depth of plan nodes. Each UNION in a chain of UNIONs adds two levels.
const NODE_DEPTH_MAX: usize = 3 * CHAIN_MAX;
/// The maximum number of nodes and expressions in a plan. If a plan refers to the same subplan several times, the nodes
/// of the subplan are counted each time.
const PARTS_MAX: usize = 1_000_000;
/// The maximum number of aggregates and GROUP BY columns of one SELECT.
const AGGREGATE_COLUMNS_MAX: usize = 500;
/// The assumed size, in bytes, of a plan node or an expression without its literals.
const PART_BYTES: usize = 1 << 10;

/// Refuses a plan that is too deeply nested or too large.
pub(in crate::query) fn check(plan: &LogicalPlan) -> Result<()> {
    let mut counter = SizeCounter::default();
    let walked = plan.visit_with_subqueries(&mut counter);
    counter.outcome?;
    walked.map_err(|error| Error::internal("cannot traverse a plan").with_source(error))?;
    join_limits::check_rows(plan)
}

/// Refuses a plan sent by a client if it refers to too many tables, has too many window functions, or has literals that
/// exceed the maximum size of a statement.
pub(in crate::query) fn check_input(plan: &LogicalPlan, config: &QueryConfig) -> Result<()> {
    let (mut relations, mut windows) = (0, 0);
    let walked = plan.apply_with_subqueries(|node| {
        relations += usize::from(matches!(node, LogicalPlan::TableScan(_)));
        if let LogicalPlan::Window(window) = node {
            windows += window.window_expr.len();
        }
        Ok(TreeNodeRecursion::Continue)
    });
    walked.map_err(|error| Error::internal("cannot traverse a plan").with_source(error))?;
    let (_, bytes) = parts_and_literals(plan)?;
    if relations > RELATIONS_MAX {
        return Err(too_many_relations());
    }
    if windows > WINDOWS_MAX {
        return Err(too_many_windows());
    }
    if bytes > config.sql_bytes_max {
        return Err(Error::limited(format!(
            "the literals of the plan have {bytes} bytes, but at most {} are allowed (limit query.sql_bytes_max)",
            config.sql_bytes_max
        )));
    }
    Ok(())
}

/// Refuses an aggregation with too many columns or grouping sets.
fn check_aggregate(aggregate: &Aggregate) -> Result<()> {
    let columns = aggregate.schema.fields().len();
    if columns > AGGREGATE_COLUMNS_MAX {
        return Err(Error::limited(format!(
            "the statement has more than {AGGREGATE_COLUMNS_MAX} aggregates and GROUP BY columns in one SELECT: split it \
             into several statements"
        )));
    }
    check_group_elements(aggregate.group_expr.iter().map(|expr| match expr {
        Expr::GroupingSet(GroupingSet::Cube(columns)) => GroupElement::Cube(columns.len()),
        Expr::GroupingSet(GroupingSet::Rollup(columns)) => GroupElement::Rollup(columns.len()),
        Expr::GroupingSet(GroupingSet::GroupingSets(sets)) => GroupElement::GroupingSets(sets.len()),
        _ => GroupElement::Expression,
    }))
}

/// Returns the estimated size of a plan in bytes.
pub(in crate::query) fn bytes(plan: &LogicalPlan) -> Result<usize> {
    let (parts, literals) = parts_and_literals(plan)?;
    Ok(parts.saturating_mul(PART_BYTES).saturating_add(literals))
}

/// Returns the number of nodes and expressions of a plan, and the size of its literals in bytes.
fn parts_and_literals(plan: &LogicalPlan) -> Result<(usize, usize)> {
    let (mut parts, mut bytes) = (0, 0);
    let walked = plan.apply_with_subqueries(|node| {
        parts += 1;
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                parts += 1;
                if let Expr::Literal(value, _) = expr {
                    bytes += literal_bytes(value);
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    walked.map_err(|error| Error::internal("cannot traverse a plan").with_source(error))?;
    Ok((parts, bytes))
}

/// Returns the number of bytes that a literal occupies on the heap.
fn literal_bytes(value: &ScalarValue) -> usize {
    value.size().saturating_sub(size_of::<ScalarValue>())
}

/// Counts the nodes and expressions of a plan, and stops when a limit is exceeded.
struct SizeCounter {
    parts: usize,
    depth: usize,
    outcome: Result<()>,
}

/// Counts the subexpressions of an expression for a [`SizeCounter`].
struct ExprCounter<'a> {
    plan: &'a mut SizeCounter,
    depth: usize,
}

impl Default for SizeCounter {
    fn default() -> Self {
        Self { parts: 0, depth: 0, outcome: Ok(()) }
    }
}

impl SizeCounter {
    fn count_part(&mut self) -> TreeNodeRecursion {
        self.parts += 1;
        if self.parts <= PARTS_MAX {
            return TreeNodeRecursion::Continue;
        }
        self.refuse(Error::limited(format!(
            "the plan of the statement has more than {PARTS_MAX} nodes and expressions: reference fewer tables, columns \
             and WITH queries"
        )))
    }

    fn refuse(&mut self, error: Error) -> TreeNodeRecursion {
        self.outcome = Err(error);
        TreeNodeRecursion::Stop
    }
}

impl<'n> TreeNodeVisitor<'n> for SizeCounter {
    type Node = LogicalPlan;

    fn f_down(&mut self, node: &'n LogicalPlan) -> PlanResult<TreeNodeRecursion> {
        self.depth += 1;
        if self.depth > NODE_DEPTH_MAX {
            return Ok(self.refuse(Error::limited("the plan is nested too deeply")));
        }
        if self.count_part() == TreeNodeRecursion::Stop {
            return Ok(TreeNodeRecursion::Stop);
        }
        if let LogicalPlan::Aggregate(aggregate) = node
            && let Err(error) = check_aggregate(aggregate)
        {
            return Ok(self.refuse(error));
        }
        node.apply_expressions(|expr| expr.visit(&mut ExprCounter { plan: self, depth: 0 }))
    }

    fn f_up(&mut self, _: &'n LogicalPlan) -> PlanResult<TreeNodeRecursion> {
        self.depth -= 1;
        Ok(TreeNodeRecursion::Continue)
    }
}

impl<'n> TreeNodeVisitor<'n> for ExprCounter<'_> {
    type Node = Expr;

    fn f_down(&mut self, _: &'n Expr) -> PlanResult<TreeNodeRecursion> {
        self.depth += 1;
        if self.depth > EXPR_DEPTH_MAX {
            return Ok(self.plan.refuse(too_long_chain()));
        }
        Ok(self.plan.count_part())
    }

    fn f_up(&mut self, _: &'n Expr) -> PlanResult<TreeNodeRecursion> {
        self.depth -= 1;
        Ok(TreeNodeRecursion::Continue)
    }
}
