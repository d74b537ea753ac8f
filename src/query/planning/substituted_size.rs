//! Limits how much an expression grows when the optimizer moves it below derived columns, or repeats its operands.
//!
//! The optimizer replaces each column in a condition with the expression that computes the column. In `SELECT x + x AS
//! x FROM (SELECT x + x AS x FROM …)`, each level doubles the expression, so twenty levels would produce a million
//! operands. The optimizer also merges projections, so ninety levels of nested calls become one expression. It repeats
//! the arguments of functions such as `coalesce`, so forty nested calls would exhaust the memory. This file computes
//! the size and the depth of these expressions before the optimizer runs.

use std::collections::HashMap;

use datafusion::common::tree_node::{TreeNode as _, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result as PlanResult};
use datafusion::logical_expr::{Expr, LogicalPlan};

use crate::error::{Error, Result};
use crate::query::planning::plan_size::EXPR_DEPTH_MAX;

/// The maximum number of operands in an expression after its operands have been repeated and, in a condition, its
/// columns have been replaced.
const EXPANDED_SIZE_MAX: usize = 50_000;
/// The maximum nesting depth of an expression after its columns have been replaced. The optimizer recurses through the
/// expression.
const DEPTH_MAX: usize = EXPR_DEPTH_MAX;

/// Refuses a plan with an expression that would become too large or too deep.
pub(in crate::query) fn check(plan: &LogicalPlan) -> Result<()> {
    let mut sizes = ColumnSizes { largest: Expanded::COLUMN, shared: HashMap::new() };
    sizes.of_outputs(plan).map_err(|error| Error::internal("cannot traverse a plan").with_source(error))?;
    let Expanded { size, depth } = sizes.largest;
    if size > EXPANDED_SIZE_MAX {
        return Err(Error::limited(format!(
            "an expression of the statement would have more than {EXPANDED_SIZE_MAX} operands, because it repeats computed \
             columns, or the arguments of functions such as coalesce: refer to each of them less often"
        )));
    }
    if depth > DEPTH_MAX {
        return Err(Error::limited(format!(
            "an expression of the statement would be nested more than {DEPTH_MAX} levels deep, because its columns are \
             computed from other computed columns: use fewer levels of computed columns"
        )));
    }
    Ok(())
}

/// The size of an expression in which each column is replaced with the expression that computes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Expanded {
    /// The number of operands and operators.
    size: usize,
    depth: usize,
}

impl Expanded {
    /// The size of a column that no expression computes.
    const COLUMN: Self = Self { size: 1, depth: 1 };

    fn max(self, other: Self) -> Self {
        Self { size: self.size.max(other.size), depth: self.depth.max(other.depth) }
    }
}

struct ColumnSizes {
    /// The size of the largest condition, and the depth of the deepest expression.
    largest: Expanded,
    /// The output sizes of the nodes that were already visited, keyed by the address of the node.
    shared: HashMap<*const LogicalPlan, Vec<Expanded>>,
}

/// The schema and the column sizes of each input of a node.
type Inputs<'a> = [(&'a DFSchema, Vec<Expanded>)];

impl ColumnSizes {
    /// For each output column of a node, returns the size of the expression that computes the column. The operands of
    /// this expression are columns of tables, of aggregates, and of other nodes below which the optimizer moves no
    /// conditions.
    fn of_outputs(&mut self, plan: &LogicalPlan) -> PlanResult<Vec<Expanded>> {
        if let Some(sizes) = self.shared.get(&std::ptr::from_ref(plan)) {
            return Ok(sizes.clone());
        }
        let mut inputs = Vec::new();
        for input in plan.inputs() {
            inputs.push((input.schema().as_ref(), self.of_outputs(input)?));
        }
        plan.apply_subqueries(|subquery| self.of_outputs(subquery).map(|_| TreeNodeRecursion::Continue))?;
        let (mut conditions, mut own) = (Expanded { size: 0, depth: 0 }, 0);
        plan.apply_expressions(|expr| {
            let Expanded { size, depth } = expanded(expr, &inputs)?;
            conditions.size = conditions.size.saturating_add(size);
            conditions.depth = conditions.depth.max(depth);
            own = own.max(expanded(expr, &[])?.size);
            Ok(TreeNodeRecursion::Continue)
        })?;
        if !matches!(plan, LogicalPlan::Filter(_) | LogicalPlan::Join(_)) {
            // The optimizer does not move the expressions of other nodes, but it simplifies them, so only their own
            // size counts.
            conditions.size = own;
        }
        self.largest = self.largest.max(conditions);
        let columns = plan.schema().fields().len();
        let computed =
            |exprs: &[Expr]| exprs.iter().map(|expr| expanded(expr, &inputs)).collect::<PlanResult<Vec<_>>>();
        let mut sizes = match plan {
            LogicalPlan::Projection(projection) => computed(&projection.expr)?,
            LogicalPlan::Aggregate(aggregate) => computed(&aggregate.group_expr)?,
            LogicalPlan::Union(_) => (0..columns)
                .map(|column| {
                    let branches = inputs.iter().filter_map(|(_, sizes)| sizes.get(column));
                    branches.fold(Expanded::COLUMN, |largest, size| largest.max(*size))
                })
                .collect(),
            _ => inputs.iter().flat_map(|(_, sizes)| sizes).copied().collect(),
        };
        sizes.resize(columns, Expanded::COLUMN);
        self.shared.insert(std::ptr::from_ref(plan), sizes.clone());
        Ok(sizes)
    }
}

/// Returns the size of an expression.
fn expanded(expr: &Expr, inputs: &Inputs<'_>) -> PlanResult<Expanded> {
    if let Expr::Column(column) = expr {
        let known = inputs.iter().find_map(|(schema, sizes)| {
            schema.maybe_index_of_column(column).and_then(|index| sizes.get(index)).copied()
        });
        return Ok(known.unwrap_or(Expanded::COLUMN));
    }
    let (mut size, mut depth, mut last) = (0_usize, 0, 0);
    expr.apply_children(|child| {
        let child = expanded(child, inputs)?;
        size = size.saturating_add(child.size);
        depth = depth.max(child.depth);
        last = child.size;
        Ok(TreeNodeRecursion::Continue)
    })?;
    if repeats_operands(expr) {
        size = size.saturating_mul(2).saturating_sub(last);
    }
    Ok(Expanded { size: size.saturating_add(1), depth: depth + 1 })
}

/// Returns true if the optimizer repeats the operands of the expression, except for the last operand.
fn repeats_operands(expr: &Expr) -> bool {
    match expr {
        Expr::Between(_) => true,
        Expr::ScalarFunction(call) => ["coalesce", "nvl", "nvl2", "ifnull"].contains(&call.func.name()),
        _ => false,
    }
}
