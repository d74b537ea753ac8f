//! Limits how much a condition grows when the optimizer moves it below derived columns.
//!
//! The optimizer replaces each column in a condition with the expression that computes the column. In `SELECT x + x AS x
//! FROM (SELECT x + x AS x FROM …)`, each level doubles the expression, so twenty levels would produce a million
//! operands. This file computes the size of the replaced conditions before the optimizer runs.

use std::collections::HashMap;

use datafusion::common::tree_node::{TreeNode as _, TreeNodeRecursion};
use datafusion::common::{DFSchema, Result as PlanResult};
use datafusion::logical_expr::{Expr, LogicalPlan};

use crate::error::{Error, Result};

/// The maximum number of operands in a condition after the replacement.
const CONDITION_SIZE_MAX: usize = 50_000;

/// Refuses a plan with a condition that would become too large.
pub(in crate::query) fn check(plan: &LogicalPlan) -> Result<()> {
    let mut sizes = ColumnSizes { largest: 0, shared: HashMap::new() };
    sizes.of_outputs(plan).map_err(|error| Error::internal("cannot traverse a plan").with_source(error))?;
    if sizes.largest <= CONDITION_SIZE_MAX {
        return Ok(());
    }
    Err(Error::limited(format!(
        "a condition of the statement would have more than {CONDITION_SIZE_MAX} operands, because it uses columns that are \
         computed from other computed columns: refer to each of them less often"
    )))
}

struct ColumnSizes {
    /// The size of the largest condition so far.
    largest: usize,
    /// The sizes of the outputs of nodes that were already visited, by the address of the node.
    shared: HashMap<*const LogicalPlan, Vec<usize>>,
}

impl ColumnSizes {
    /// Returns the size of the expression for each output column of a node, down to the columns of tables, aggregates
    /// and other nodes below which no condition is moved.
    fn of_outputs(&mut self, plan: &LogicalPlan) -> PlanResult<Vec<usize>> {
        if let Some(sizes) = self.shared.get(&std::ptr::from_ref(plan)) {
            return Ok(sizes.clone());
        }
        let mut inputs = Vec::new();
        for input in plan.inputs() {
            inputs.push((input.schema().as_ref(), self.of_outputs(input)?));
        }
        plan.apply_subqueries(|subquery| self.of_outputs(subquery).map(|_| TreeNodeRecursion::Continue))?;
        let size_of = |expr: &Expr| size(expr, &inputs);
        if matches!(plan, LogicalPlan::Filter(_) | LogicalPlan::Join(_)) {
            let mut conditions = 0_usize;
            plan.apply_expressions(|expr| {
                conditions = conditions.saturating_add(size_of(expr)?);
                Ok(TreeNodeRecursion::Continue)
            })?;
            self.largest = self.largest.max(conditions);
        }
        let columns = plan.schema().fields().len();
        let mut sizes = match plan {
            LogicalPlan::Projection(projection) => projection.expr.iter().map(size_of).collect::<PlanResult<_>>()?,
            LogicalPlan::Aggregate(aggregate) => aggregate.group_expr.iter().map(size_of).collect::<PlanResult<_>>()?,
            LogicalPlan::Union(_) => (0..columns)
                .map(|column| inputs.iter().filter_map(|(_, sizes)| sizes.get(column)).copied().max().unwrap_or(1))
                .collect(),
            _ => inputs.iter().flat_map(|(_, sizes)| sizes).copied().collect::<Vec<_>>(),
        };
        sizes.resize(columns, 1);
        self.shared.insert(std::ptr::from_ref(plan), sizes.clone());
        Ok(sizes)
    }
}

/// Returns the number of operands of an expression, in which each column counts as the expression that computes it.
fn size(expr: &Expr, inputs: &[(&DFSchema, Vec<usize>)]) -> PlanResult<usize> {
    let mut total = 0_usize;
    expr.apply(|expr| {
        let own = match expr {
            Expr::Column(column) => inputs
                .iter()
                .find_map(|(schema, sizes)| schema.maybe_index_of_column(column).and_then(|index| sizes.get(index)))
                .copied()
                .unwrap_or(1),
            _ => 1,
        };
        total = total.saturating_add(own);
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(total)
}
