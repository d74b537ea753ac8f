//! Prevents the optimizer from merging IN lists, because it ignores NULL when it merges them.
//!
//! The optimizer replaces `x IN (1, 2) AND x IN (3, 4)` with `false`, which is wrong if `x` is NULL, and
//! `x NOT IN (1, 2) OR x NOT IN (3, 4)` with `true`. It also treats a NULL in a list as an ordinary value
//! (apache/datafusion#24246). This rule hides such lists from the optimizer.

use std::collections::HashSet;
use std::sync::Arc;

use datafusion::common::tree_node::{Transformed, TreeNode as _, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan, Operator};
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

use crate::sql::functions::pass_through::{self, PassThrough};
use crate::sql::plan_expressions::any_expression;

/// The engine's rule that merges lists.
const MERGER: &str = "simplify_expressions";

/// Adds the rule of this file before the engine's rule that merges lists.
pub(crate) fn before_merger(
    rules: Vec<Arc<dyn OptimizerRule + Send + Sync>>,
) -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    let mut all: Vec<Arc<dyn OptimizerRule + Send + Sync>> = Vec::with_capacity(rules.len() + 2);
    for rule in rules {
        if rule.name() == MERGER {
            all.push(Arc::new(InListRule));
        }
        all.push(rule);
    }
    all
}

#[derive(Debug)]
struct InListRule;

impl OptimizerRule for InListRule {
    fn name(&self) -> &'static str {
        "keep_in_lists_apart"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::TopDown)
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        if !any_expression(&plan, |expr| Set::of(expr).is_some())? {
            return Ok(Transformed::no(plan));
        }
        let names = NamePreserver::new(&plan);
        plan.map_expressions(|expr| {
            let repeated = repeated(&expr)?;
            if repeated.is_empty() {
                return Ok(Transformed::no(expr));
            }
            let name = names.save(&expr);
            Ok(hide(expr, &repeated)?.update_data(|expr| name.restore(expr)))
        })
    }
}

/// Hides the lists for these expressions from the optimizer.
fn hide(expr: Expr, repeated: &HashSet<Expr>) -> Result<Transformed<Expr>> {
    expr.transform_down(|expr| {
        if Set::of(&expr).is_some_and(|set| repeated.contains(set.tested)) {
            return Ok(Transformed::new(PassThrough::Opaque.call(expr), true, TreeNodeRecursion::Jump));
        }
        Ok(Transformed::no(expr))
    })
}

/// Returns the expressions that a condition compares with more than one list. The optimizer moves conditions before it
/// merges lists, so the lists can be anywhere in the condition.
fn repeated(condition: &Expr) -> Result<HashSet<Expr>> {
    let (mut known, mut repeated) = (HashSet::new(), HashSet::new());
    condition.apply(|expr| {
        if matches!(pass_through::called(expr), Some((PassThrough::Opaque, _))) {
            return Ok(TreeNodeRecursion::Jump);
        }
        let Some(set) = Set::of(expr) else { return Ok(TreeNodeRecursion::Continue) };
        if !known.insert(set.tested.clone()) {
            repeated.insert(set.tested.clone());
        }
        Ok(TreeNodeRecursion::Jump)
    })?;
    Ok(repeated)
}

/// A condition that is an IN list, or becomes one in the optimizer.
struct Set<'a> {
    tested: &'a Expr,
}

impl<'a> Set<'a> {
    fn of(expr: &'a Expr) -> Option<Self> {
        match expr {
            Expr::BinaryExpr(BinaryExpr { op: Operator::Or, .. }) => alternatives(expr).map(|tested| Self { tested }),
            Expr::InList(list) => Some(Self { tested: &list.expr }),
            // The optimizer replaces `x = ANY (constant array)` with an IN list.
            Expr::ScalarFunction(call) if call.func.name() == "array_has" => {
                call.args.get(1).map(|tested| Self { tested })
            }
            _ => None,
        }
    }
}

/// Returns the column that each operand of a chain of ORs compares with a constant.
fn alternatives(expr: &Expr) -> Option<&Expr> {
    let mut tested: Option<&Expr> = None;
    let mut rest = vec![expr];
    while let Some(expr) = rest.pop() {
        let found = match expr {
            Expr::InList(list) if !list.negated => &*list.expr,
            Expr::ScalarFunction(call) if call.func.name() == "array_has" => call.args.get(1)?,
            Expr::BinaryExpr(BinaryExpr { left, op, right }) => match (op, &**left, &**right) {
                (Operator::Or, left, right) => {
                    rest.extend([left, right]);
                    continue;
                }
                (Operator::Eq, tested @ Expr::Column(_), Expr::Literal(..))
                | (Operator::Eq, Expr::Literal(..), tested @ Expr::Column(_)) => tested,
                _ => return None,
            },
            _ => return None,
        };
        if tested.is_some_and(|tested| tested != found) {
            return None;
        }
        tested = Some(found);
    }
    tested
}
