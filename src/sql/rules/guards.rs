//! Ensures that AND, OR and the FILTER of an aggregate protect expressions that may fail.
//!
//! `WHERE b <> 0 AND a / b > 1` must not divide by zero. But the engine evaluates both sides of AND on all rows, and
//! its optimizer changes their order. This rule runs after the engine's rules. It moves those operands of AND or OR
//! that may fail into a CASE, and uses the other operands as the WHEN condition. A CASE evaluates a branch only on the
//! rows for which its condition is true. The branches are small integers, because the optimizer would turn a CASE of
//! booleans back into AND and OR.
//!
//! ```text
//!   safe AND fallible  ─►  safe AND CASE WHEN safe THEN CAST(fallible AS TINYINT) ELSE 0 END = 1
//!   safe OR fallible   ─►  CASE WHEN safe THEN 1 ELSE CAST(safe OR fallible AS TINYINT) END = 1
//!   sum(fallible) FILTER (WHERE f)  ─►  sum(CASE WHEN f THEN fallible END) FILTER (WHERE f)
//! ```
//!
//! An operand that cannot fail protects all operands that can fail, regardless of their order. An operand that can fail
//! protects the operands after it. A condition on one table does not protect an expression on another table, because
//! that expression is evaluated before the join.

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode as _, TreeNodeRecursion};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::expr::{AggregateFunction, Case};
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::{conjunction, disjunction, merge_schema, split_conjunction_owned};
use datafusion::logical_expr::{BinaryExpr, Cast, Expr, ExprSchemable as _, LogicalPlan, Operator, binary_expr, lit};
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};

use crate::sql::functions::is_fallible;

/// The maximum number of operands that get their own CASE in one condition.
const NESTED_MAX: usize = 8;

/// The optimizer rule that uses CASE to protect expressions that may fail.
#[derive(Debug)]
pub(crate) struct GuardRule;

impl OptimizerRule for GuardRule {
    fn name(&self) -> &'static str {
        "guard_fallible_expressions"
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        Some(ApplyOrder::BottomUp)
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>, DataFusionError> {
        // A scan uses its filters only to select files and pages, and evaluates no expressions that can fail.
        if matches!(plan, LogicalPlan::TableScan(_)) || !has_condition(&plan)? {
            return Ok(Transformed::no(plan));
        }
        let guards = Guards { schema: merge_schema(&plan.inputs()) };
        // The condition removes a row if it is NULL or false, so NULL can be treated in the same way as false.
        let is_filter = matches!(plan, LogicalPlan::Filter(_) | LogicalPlan::Join(_));
        let names = NamePreserver::new(&plan);
        plan.map_expressions(|expr| {
            let name = names.save(&expr);
            Ok(guards.rewrite(expr, is_filter)?.update_data(|expr| name.restore(expr)))
        })
    }
}

/// Returns true if the node contains AND, OR or FILTER, and an expression that may fail, depending on its types.
fn has_condition(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_expressions(|expr| {
        let (mut is_guarded, mut fails) = (false, false);
        expr.apply(|expr| {
            match expr {
                Expr::BinaryExpr(BinaryExpr { op: Operator::And | Operator::Or, .. }) => is_guarded = true,
                Expr::AggregateFunction(call) => is_guarded |= call.params.filter.is_some(),
                Expr::BinaryExpr(BinaryExpr { op: Operator::Divide | Operator::Modulo, .. }) | Expr::Cast(_) => {
                    fails = true;
                }
                Expr::ScalarFunction(call) => fails |= is_fallible(&call.func),
                _ => {}
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        found |= is_guarded && fails;
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

struct Guards {
    schema: DFSchema,
}

impl Guards {
    /// Protects an expression and its subexpressions. `is_filter` is true if the expression is the whole condition of a
    /// filter or a join.
    fn rewrite(&self, expr: Expr, is_filter: bool) -> Result<Transformed<Expr>> {
        let mut is_top = is_filter;
        expr.transform_down(|expr| {
            let is_whole = std::mem::take(&mut is_top);
            match expr {
                expr if is_guarded(&expr) => Ok(Transformed::new(expr, false, TreeNodeRecursion::Jump)),
                Expr::BinaryExpr(BinaryExpr { op: Operator::And, .. }) => self.rewrite_and(expr, is_whole),
                Expr::BinaryExpr(BinaryExpr { op: Operator::Or, .. }) => self.rewrite_or(expr),
                Expr::AggregateFunction(call) => Ok(self.rewrite_aggregate(call)),
                expr => Ok(Transformed::no(expr)),
            }
        })
    }

    fn rewrite_and(&self, expr: Expr, is_filter: bool) -> Result<Transformed<Expr>> {
        let (parts, mut changed) = self.rewrite_parts(split_conjunction_owned(expr), is_filter)?;
        let (fallible, safe): (Vec<_>, Vec<_>) = parts.iter().cloned().partition(|part| self.can_fail(part));
        let fallible = nested(fallible, conjunction);
        let guard = conjunction(safe.iter().filter(|part| is_repeatable(part)).cloned());
        let mut rest: Option<Expr> = None;
        for part in fallible.iter().rev() {
            rest = Some(match rest {
                Some(rest) if is_repeatable(part) && is_repeatable(&rest) => {
                    changed = true;
                    protect(part.clone(), rest, is_filter)
                }
                Some(rest) => part.clone().and(rest),
                None => part.clone(),
            });
        }
        let rest = match (guard, rest) {
            (Some(guard), Some(rest)) if is_repeatable(&rest) => {
                changed = true;
                Some(protect(guard, rest, is_filter))
            }
            (_, rest) => rest,
        };
        let parts = if changed { safe.into_iter().chain(rest).collect() } else { parts };
        let expr = conjunction(parts).unwrap_or_else(|| lit(true));
        Ok(Transformed::new(expr, changed, TreeNodeRecursion::Jump))
    }

    fn rewrite_or(&self, expr: Expr) -> Result<Transformed<Expr>> {
        let (parts, mut changed) = self.rewrite_parts(split_disjunction_owned(expr), false)?;
        let (fallible, safe): (Vec<_>, Vec<_>) = parts.iter().cloned().partition(|part| self.can_fail(part));
        let is_one = fallible.len() == 1 && safe.is_empty();
        let mut expr = disjunction(parts.iter().cloned()).unwrap_or_else(|| lit(false));
        if !fallible.is_empty() && !is_one && parts.iter().all(is_repeatable) {
            changed = true;
            let fallible = nested(fallible, disjunction);
            let mut rest: Option<Expr> = None;
            let parts: Vec<_> = disjunction(safe).into_iter().chain(fallible).collect();
            for part in parts.into_iter().rev() {
                rest = Some(match rest {
                    Some(rest) => {
                        let branch = tiny(part.clone().or(rest));
                        choose(part, lit(1_i8), branch)
                    }
                    None => part,
                });
            }
            expr = rest.unwrap_or_else(|| lit(false));
        }
        Ok(Transformed::new(expr, changed, TreeNodeRecursion::Jump))
    }

    fn rewrite_parts(&self, parts: Vec<Expr>, is_filter: bool) -> Result<(Vec<Expr>, bool)> {
        let mut changed = false;
        let parts = parts.into_iter().map(|part| {
            let part = self.rewrite(part, is_filter)?;
            changed |= part.transformed;
            Ok(part.data)
        });
        let parts = parts.collect::<Result<Vec<_>>>()?;
        Ok((parts, changed))
    }

    /// Protects the arguments of an aggregate. The engine evaluates the arguments on all rows, and applies the FILTER
    /// afterwards.
    fn rewrite_aggregate(&self, mut call: AggregateFunction) -> Transformed<Expr> {
        let mut changed = false;
        if let Some(filter) = call.params.filter.as_deref().filter(|filter| is_repeatable(filter)) {
            for arg in &mut call.params.args {
                let is_protected =
                    matches!(arg, Expr::Case(case) if case.when_then_expr.iter().any(|(when, _)| **when == *filter));
                if !is_protected && self.can_fail(arg) {
                    let when_then_expr = vec![(Box::new(filter.clone()), Box::new(std::mem::take(arg)))];
                    *arg = Expr::Case(Case { expr: None, when_then_expr, else_expr: None });
                    changed = true;
                }
            }
        }
        let call = Expr::AggregateFunction(call);
        if changed { Transformed::yes(call) } else { Transformed::no(call) }
    }

    /// Returns true if the expression may fail on some rows.
    fn can_fail(&self, expr: &Expr) -> bool {
        let mut fails = false;
        let walked = expr.apply(|expr| {
            if is_guarded(expr) {
                return Ok(TreeNodeRecursion::Jump);
            }
            fails |= self.node_can_fail(expr);
            Ok(if fails { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
        });
        walked.is_err() || fails
    }

    fn node_can_fail(&self, expr: &Expr) -> bool {
        let fails = match expr {
            Expr::BinaryExpr(BinaryExpr { op: Operator::Divide | Operator::Modulo, right, .. }) => !is_nonzero(right),
            Expr::ScalarFunction(call) if is_fallible(&call.func) => {
                let is_quotient = call.func.name() == "/";
                !(is_quotient && call.args.last().is_some_and(is_nonzero))
            }
            Expr::Cast(Cast { expr, field }) => match expr.get_type(&self.schema) {
                Ok(from) => cast_can_fail(&from, field.data_type()),
                Err(_) => true,
            },
            _ => return false,
        };
        // The optimizer has already computed an expression without columns, or the expression fails for every row.
        fails
            && expr.exists(|expr| Ok(matches!(expr, Expr::Column(_) | Expr::OuterReferenceColumn(..)))).unwrap_or(true)
    }
}

/// Combines all operands after the first [`NESTED_MAX`] into one operand, because each nested CASE needs stack space.
fn nested(mut parts: Vec<Expr>, join: fn(Vec<Expr>) -> Option<Expr>) -> Vec<Expr> {
    let rest = parts.split_off(parts.len().min(NESTED_MAX));
    parts.extend(join(rest));
    parts
}

/// Returns an expression for `guard AND rest` that evaluates `rest` only on the rows for which `guard` is not false.
fn protect(guard: Expr, rest: Expr, is_filter: bool) -> Expr {
    if is_filter {
        return choose(guard, tiny(rest), lit(0_i8));
    }
    choose(Expr::IsNotFalse(Box::new(guard.clone())), tiny(guard.and(rest)), lit(0_i8))
}

fn choose(when: Expr, then: Expr, otherwise: Expr) -> Expr {
    let case = Case {
        expr: None,
        when_then_expr: vec![(Box::new(when), Box::new(then))],
        else_expr: Some(Box::new(otherwise)),
    };
    binary_expr(Expr::Case(case), Operator::Eq, lit(1_i8))
}

fn tiny(condition: Expr) -> Expr {
    Expr::Cast(Cast::new(Box::new(condition), DataType::Int8))
}

/// Returns true if this rule created the expression.
fn is_guarded(expr: &Expr) -> bool {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = expr else { return false };
    let is_tiny = |expr: &Expr| match expr {
        Expr::Cast(Cast { field, .. }) => *field.data_type() == DataType::Int8,
        Expr::Literal(ScalarValue::Int8(Some(0 | 1)), _) => true,
        _ => false,
    };
    matches!(**right, Expr::Literal(ScalarValue::Int8(Some(1)), _))
        && matches!(&**left, Expr::Case(Case { expr: None, when_then_expr, else_expr: Some(otherwise) })
            if when_then_expr.iter().all(|(_, then)| is_tiny(then)) && is_tiny(otherwise))
}

/// Returns true if evaluating the expression twice gives the same result.
fn is_repeatable(expr: &Expr) -> bool {
    let is_single = |expr: &Expr| {
        Ok(expr.is_volatile_node()
            || matches!(expr, Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::SetComparison(_)))
    };
    !expr.exists(is_single).unwrap_or(true)
}

fn split_disjunction_owned(expr: Expr) -> Vec<Expr> {
    let (mut parts, mut pending) = (Vec::new(), vec![expr]);
    while let Some(expr) = pending.pop() {
        match expr {
            Expr::BinaryExpr(BinaryExpr { left, op: Operator::Or, right }) => pending.extend([*right, *left]),
            expr => parts.push(expr),
        }
    }
    parts
}

/// Returns true if the divisor is a literal other than zero.
fn is_nonzero(divisor: &Expr) -> bool {
    match divisor {
        Expr::Literal(value, _) => {
            !value.is_null() && ScalarValue::new_zero(&value.data_type()).is_ok_and(|zero| zero != *value)
        }
        _ => false,
    }
}

/// Returns true if some value of type `from` cannot be cast to type `to`.
fn cast_can_fail(from: &DataType, to: &DataType) -> bool {
    let is_text = |kind: &DataType| match kind {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => true,
        DataType::Dictionary(_, values) => values.is_string(),
        _ => false,
    };
    match (from, to) {
        (_, to) if is_text(to) => false,
        (from, _) if is_text(from) => true,
        (from, to) if from.is_integer() && to.is_integer() => {
            let is_wider = to.primitive_width() > from.primitive_width();
            let is_same = to == from;
            let loses_sign = from.is_signed_integer() && to.is_unsigned_integer();
            !is_same && (!is_wider || loses_sign)
        }
        (from, to) if from.is_numeric() => to.is_integer() || to.is_decimal() && !from.is_integer(),
        _ => false,
    }
}
