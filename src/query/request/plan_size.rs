//! Limits on the nesting depth and the size of a logical plan.
//!
//! In: a statement before planning, or a plan, built from SQL text or passed by a caller. Out: an error, or nothing.
//! Planning and optimization recurse through a plan and visit each node many times. Without limits a small statement
//! could keep a thread busy for hours: a chain of WITH queries that each name the previous one twice doubles the plan
//! with each step.

use std::collections::HashMap;

use datafusion::common::tree_node::{TreeNode as _, TreeNodeRecursion, TreeNodeVisitor};
use datafusion::common::{Result as PlanResult, ScalarValue};
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::sql::sqlparser::ast::{Query, TableFactor};

use crate::config::QueryConfig;
use crate::error::{Error, Result};
use crate::query::request::statement::{CHAIN_MAX, RELATIONS_MAX, too_long_chain, too_many_relations};

/// The maximum nesting depth of an expression: a chain of operators, and everything around it.
const EXPR_DEPTH_MAX: usize = CHAIN_MAX + 200;
/// The maximum nesting depth of plan nodes. Each member of a chain of UNIONs takes two levels.
const NODE_DEPTH_MAX: usize = 3 * CHAIN_MAX;
/// The maximum number of nodes and expressions in a plan. A shared part counts each time the plan reaches it.
const PARTS_MAX: usize = 1_000_000;

/// The maximum number of tables that a statement reads, with WITH queries expanded.
const READS_MAX: usize = 1_000;

/// Counts the tables that a statement reads, with WITH queries expanded. Queries are entered and left in the order of
/// the text.
#[derive(Debug, Default)]
pub(in crate::query) struct Reads {
    /// The open queries, with the number of tables that each has read so far.
    open: Vec<usize>,
    /// The names of the WITH queries that follow, by the address of the query.
    defined: HashMap<usize, String>,
    /// The number of tables that each WITH query reads, by name. If a name repeats, the greater number counts.
    known: HashMap<String, usize>,
}

impl Reads {
    pub(in crate::query) fn enter(&mut self, query: &Query) {
        for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
            self.defined.insert(address(&cte.query), cte.alias.name.value.to_lowercase());
        }
        self.open.push(0);
    }

    pub(in crate::query) fn leave(&mut self, query: &Query) -> Result<()> {
        let reads = self.open.pop().unwrap_or(0);
        match self.defined.remove(&address(query)) {
            Some(name) => {
                let known = self.known.entry(name).or_insert(1);
                *known = reads.max(*known);
                Ok(())
            }
            None => self.add(reads),
        }
    }

    pub(in crate::query) fn read(&mut self, relation: &TableFactor) -> Result<()> {
        let with_query = match relation {
            TableFactor::Table { name, .. } => self.known.get(&name.to_string().replace('"', "").to_lowercase()),
            _ => None,
        };
        self.add(with_query.copied().unwrap_or(1))
    }

    fn add(&mut self, reads: usize) -> Result<()> {
        let Some(open) = self.open.last_mut() else { return Ok(()) };
        *open = open.saturating_add(reads);
        if *open <= READS_MAX {
            return Ok(());
        }
        Err(Error::limited(format!(
            "the statement reads more than {READS_MAX} tables once its WITH queries are expanded: reference them less \
             often"
        )))
    }
}

/// Identifies a query within a statement.
fn address(query: &Query) -> usize {
    std::ptr::from_ref(query).addr()
}

/// Refuses a plan that is nested too deeply or is too large.
pub(in crate::query) fn check(plan: &LogicalPlan) -> Result<()> {
    let mut size = Size::default();
    let walked = plan.visit_with_subqueries(&mut size);
    size.outcome?;
    walked.map(|_| ()).map_err(|fault| Error::internal("cannot traverse a plan").with_source(fault))
}

/// Refuses a plan passed by a caller if it names too many tables, or its literals exceed the size limit of a statement.
pub(in crate::query) fn check_input(plan: &LogicalPlan, config: &QueryConfig) -> Result<()> {
    let (mut relations, mut bytes) = (0, 0);
    let walked = plan.apply_with_subqueries(|node| {
        relations += usize::from(matches!(node, LogicalPlan::TableScan(_)));
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let Expr::Literal(value, _) = expr {
                    bytes += literal_bytes(value);
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    });
    walked.map_err(|fault| Error::internal("cannot traverse a plan").with_source(fault))?;
    if relations > RELATIONS_MAX {
        return Err(too_many_relations());
    }
    if bytes > config.sql_bytes_max {
        return Err(Error::limited(format!(
            "the literals of the plan have {bytes} bytes, more than {} (limit query.sql_bytes_max)",
            config.sql_bytes_max
        )));
    }
    Ok(())
}

/// The size of a literal beyond the fixed size of all literals.
fn literal_bytes(value: &ScalarValue) -> usize {
    value.size().saturating_sub(size_of::<ScalarValue>())
}

/// Counts the parts of a plan, and stops when there are too many.
struct Size {
    parts: usize,
    depth: usize,
    outcome: Result<()>,
}

/// The same for one expression.
struct ExprSize<'a> {
    size: &'a mut Size,
    depth: usize,
}

impl Default for Size {
    fn default() -> Self {
        Self { parts: 0, depth: 0, outcome: Ok(()) }
    }
}

impl Size {
    fn part(&mut self) -> TreeNodeRecursion {
        self.parts += 1;
        if self.parts <= PARTS_MAX {
            return TreeNodeRecursion::Continue;
        }
        self.refuse(Error::limited(format!(
            "the plan of the statement has more than {PARTS_MAX} parts: reference fewer tables, columns and WITH queries"
        )))
    }

    fn refuse(&mut self, error: Error) -> TreeNodeRecursion {
        self.outcome = Err(error);
        TreeNodeRecursion::Stop
    }
}

impl<'n> TreeNodeVisitor<'n> for Size {
    type Node = LogicalPlan;

    fn f_down(&mut self, node: &'n LogicalPlan) -> PlanResult<TreeNodeRecursion> {
        self.depth += 1;
        if self.depth > NODE_DEPTH_MAX {
            return Ok(self.refuse(Error::limited("the plan is nested too deeply")));
        }
        if self.part() == TreeNodeRecursion::Stop {
            return Ok(TreeNodeRecursion::Stop);
        }
        node.apply_expressions(|expr| expr.visit(&mut ExprSize { size: self, depth: 0 }))
    }

    fn f_up(&mut self, _: &'n LogicalPlan) -> PlanResult<TreeNodeRecursion> {
        self.depth -= 1;
        Ok(TreeNodeRecursion::Continue)
    }
}

impl<'n> TreeNodeVisitor<'n> for ExprSize<'_> {
    type Node = Expr;

    fn f_down(&mut self, _: &'n Expr) -> PlanResult<TreeNodeRecursion> {
        self.depth += 1;
        if self.depth > EXPR_DEPTH_MAX {
            return Ok(self.size.refuse(too_long_chain()));
        }
        Ok(self.size.part())
    }

    fn f_up(&mut self, _: &'n Expr) -> PlanResult<TreeNodeRecursion> {
        self.depth -= 1;
        Ok(TreeNodeRecursion::Continue)
    }
}
