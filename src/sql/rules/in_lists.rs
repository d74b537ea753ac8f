//! Prevents the optimizer from merging two IN lists, because it forgets NULL.
//!
//! The optimizer replaces `x IN (1, 2) AND x IN (3, 4)` with `false`, which is wrong if `x` is NULL, and
//! `x NOT IN (1, 2) OR x NOT IN (3, 4)` with `true`. It also treats a NULL in a list as an ordinary value
//! (apache/datafusion#24246). This rule hides one of the two lists from the optimizer.

use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::error::Result;
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan, Operator};
use datafusion::optimizer::optimizer::ApplyOrder;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

use crate::sql::functions::pass_through::PassThrough;
use crate::sql::plan_expressions::{any_expression, rewrite_expressions};

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
        if !any_expression(&plan, is_candidate)? {
            return Ok(Transformed::no(plan));
        }
        rewrite_expressions(plan, |expr| {
            Ok(match expr {
                Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_pair(&left, op, &right) => {
                    let right = Box::new(PassThrough::Opaque.call(*right));
                    Transformed::yes(Expr::BinaryExpr(BinaryExpr { left, op, right }))
                }
                other => Transformed::no(other),
            })
        })
    }
}

fn is_candidate(expr: &Expr) -> bool {
    matches!(expr, Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_pair(left, *op, right))
}

/// Returns true if both operands of AND or OR are lists of constants for the same expression, which the optimizer would
/// merge wrongly. It merges `x NOT IN … AND x NOT IN …` and `x IN … OR x IN …` correctly.
fn is_pair(left: &Expr, op: Operator, right: &Expr) -> bool {
    let sets = match op {
        Operator::And => (Set::of(left), Set::of(right)),
        Operator::Or => (Set::of_negated(left), Set::of_negated(right)),
        _ => return false,
    };
    match sets {
        (Some(left), Some(right)) => {
            left.tested == right.tested && (op == Operator::Or || !left.is_negated || !right.is_negated)
        }
        _ => false,
    }
}

/// A condition that is an IN list, or becomes one in the optimizer.
struct Set<'a> {
    tested: &'a Expr,
    is_negated: bool,
}

impl<'a> Set<'a> {
    fn of(expr: &'a Expr) -> Option<Self> {
        match expr {
            Expr::BinaryExpr(BinaryExpr { op: Operator::Or, .. }) => {
                alternatives(expr).map(|tested| Self { tested, is_negated: false })
            }
            expr => Self::of_list(expr),
        }
    }

    fn of_negated(expr: &'a Expr) -> Option<Self> {
        Self::of_list(expr).filter(|set| set.is_negated)
    }

    fn of_list(expr: &'a Expr) -> Option<Self> {
        match expr {
            Expr::InList(list) => Some(Self { tested: &list.expr, is_negated: list.negated }),
            Expr::Not(inner) => Self::of(inner).map(|set| Self { is_negated: !set.is_negated, ..set }),
            _ => None,
        }
    }
}

/// Returns the column that all operands of a chain of OR compare with constants.
fn alternatives(expr: &Expr) -> Option<&Expr> {
    let mut tested: Option<&Expr> = None;
    let mut rest = vec![expr];
    while let Some(expr) = rest.pop() {
        let found = match expr {
            Expr::InList(list) if !list.negated => &*list.expr,
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
