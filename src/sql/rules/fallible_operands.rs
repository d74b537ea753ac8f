//! Protects expressions that may fail: an operand of AND or OR is not evaluated on rows for which another operand
//! decides the result, and the argument of an aggregate is not evaluated on rows that its FILTER excludes.
//!
//! `WHERE b <> 0 AND a / b > 1` must not divide by zero. However, the engine evaluates both sides of AND on all rows,
//! and its optimizer may swap the two sides. This rule runs after the engine's rules. It moves those operands of AND or
//! OR that may fail into a CASE, and uses the other operands as the WHEN condition. A CASE evaluates a branch only on
//! the rows for which its condition is true. The CASE returns 1 or 0, because the optimizer would turn a CASE that
//! returns booleans back into AND and OR.
//!
//! ```text
//!   safe AND fallible  ─►  safe AND CASE WHEN safe THEN CAST(fallible AS TINYINT) ELSE 0 END = 1
//!   safe OR fallible   ─►  CASE WHEN safe THEN 1 ELSE CAST(fallible AS TINYINT) END = 1
//!   sum(fallible) FILTER (WHERE f)  ─►  sum(CASE WHEN f THEN fallible END) FILTER (WHERE f)
//! ```
//!
//! An operand that cannot fail protects all operands that can fail, regardless of their order. An operand that can fail
//! protects the operands after it. A condition on one table does not protect an expression on another table, because
//! that expression is evaluated before the join.

use arrow::datatypes::DataType;
use datafusion::common::tree_node::{Transformed, TreeNode as _, TreeNodeRecursion};
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::config::ConfigOptions;
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::expr::Case;
use datafusion::logical_expr::expr_rewriter::NamePreserver;
use datafusion::logical_expr::utils::{conjunction, disjunction, merge_schema};
use datafusion::logical_expr::{BinaryExpr, Cast, Expr, ExprSchemable as _, LogicalPlan, Operator, binary_expr, lit};
use datafusion::optimizer::{AnalyzerRule, ApplyOrder, OptimizerConfig, OptimizerRule};

use crate::sql::functions::is_fallible;
use crate::sql::interrupt;
use crate::sql::plan_expressions::{any_expression, rewrite_expressions};

/// The maximum number of operands that get their own CASE in one condition.
const NESTED_MAX: usize = 8;
/// The maximum number of nodes in an expression that is repeated. Without this limit, each level of nested ANDs and ORs
/// would double the size of the expression.
const REPEATED_NODES_MAX: usize = 32;

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
        interrupt::check()?;
        // A scan uses its filters only to select files and pages. It evaluates no expressions that can fail.
        if matches!(plan, LogicalPlan::TableScan(_)) || !has_condition(&plan)? {
            return Ok(Transformed::no(plan));
        }
        let guards = Guards { schema: merge_schema(&plan.inputs()) };
        // Filters and joins discard a row if the condition is NULL or false, so NULL can be treated like false.
        let is_filter = matches!(plan, LogicalPlan::Filter(_) | LogicalPlan::Join(_));
        let names = NamePreserver::new(&plan);
        plan.map_expressions(|expr| {
            let (name, original) = (names.save(&expr), expr.clone());
            let rewritten = guards.rewrite(expr, is_filter)?;
            Ok(if rewritten == original {
                Transformed::no(original)
            } else {
                Transformed::yes(name.restore(rewritten))
            })
        })
    }
}

/// The analyzer rule that protects the arguments of aggregates and window functions with a FILTER. It runs before the
/// optimizer, which would compute an argument that two aggregates share on all rows.
#[derive(Debug)]
pub(crate) struct FilteredArgumentRule;

impl AnalyzerRule for FilteredArgumentRule {
    fn name(&self) -> &'static str {
        "guard_filtered_arguments"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|plan| {
            if !matches!(plan, LogicalPlan::Aggregate(_) | LogicalPlan::Window(_))
                || !any_expression(&plan, |expr| filter_of(expr).is_some())?
            {
                return Ok(Transformed::no(plan));
            }
            let guards = Guards { schema: merge_schema(&plan.inputs()) };
            rewrite_expressions(plan, |mut expr| {
                let is_changed = guards.protect_arguments(&mut expr);
                Ok(Transformed::new_transformed(expr, is_changed))
            })
        })
        .map(|plan| plan.data)
    }
}

/// Returns the FILTER of an aggregate or a window function.
fn filter_of(expr: &Expr) -> Option<&Expr> {
    match expr {
        Expr::AggregateFunction(call) => call.params.filter.as_deref(),
        Expr::WindowFunction(call) => call.params.filter.as_deref(),
        _ => None,
    }
}

/// Returns true if an expression of the node contains AND, OR or FILTER, and also an operation that can fail.
fn has_condition(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_expressions(|expr| {
        let (mut is_guarded, mut fails) = (false, false);
        expr.apply(|expr| {
            match expr {
                Expr::BinaryExpr(BinaryExpr { op: Operator::And | Operator::Or, .. }) => is_guarded = true,
                Expr::AggregateFunction(_) | Expr::WindowFunction(_) => is_guarded |= filter_of(expr).is_some(),
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
    /// Protects an expression and its subexpressions. `is_filter` is true if only rows for which the expression is true
    /// are kept. In that case, NULL can be treated in the same way as false.
    fn rewrite(&self, expr: Expr, is_filter: bool) -> Result<Expr> {
        if !self.can_fail(&expr) {
            return Ok(expr);
        }
        match without_guard(expr, is_filter) {
            expr @ Expr::BinaryExpr(BinaryExpr { op: Operator::And, .. }) => self.rewrite_and(expr, is_filter),
            expr @ Expr::BinaryExpr(BinaryExpr { op: Operator::Or, .. }) => self.rewrite_or(expr, is_filter),
            expr => {
                let mut expr = expr.map_children(|child| self.rewrite(child, false).map(Transformed::yes))?.data;
                self.protect_arguments(&mut expr);
                Ok(expr)
            }
        }
    }

    fn rewrite_and(&self, expr: Expr, is_filter: bool) -> Result<Expr> {
        let (safe, fallible) = self.parts(expr, Operator::And, is_filter)?;
        let guard = conjunction(safe.iter().filter(|part| is_repeatable(part)).cloned());
        let chain = nested(fallible, conjunction).into_iter().rev();
        let rest = chain.reduce(|rest, part| guarded_and(part, rest, is_filter));
        let rest = match (guard, rest) {
            (Some(guard), Some(rest)) => Some(only_guarded_and(guard, rest, is_filter)),
            (_, rest) => rest,
        };
        Ok(conjunction(safe.into_iter().chain(rest)).unwrap_or_else(|| lit(true)))
    }

    fn rewrite_or(&self, expr: Expr, is_filter: bool) -> Result<Expr> {
        let (safe, fallible) = self.parts(expr, Operator::Or, is_filter)?;
        let chain = disjunction(safe).into_iter().chain(nested(fallible, disjunction)).collect::<Vec<_>>();
        let rest = chain.into_iter().rev().reduce(|rest, part| guarded_or(part, rest, is_filter));
        Ok(rest.unwrap_or_else(|| lit(false)))
    }

    /// Returns the protected operands of nested ANDs or ORs: those that cannot fail, and those that can.
    fn parts(&self, expr: Expr, operator: Operator, is_filter: bool) -> Result<(Vec<Expr>, Vec<Expr>)> {
        let (mut safe, mut fallible) = (Vec::new(), Vec::new());
        for part in operands(expr, operator, is_filter) {
            let can_fail = self.can_fail(&part);
            let part = self.rewrite(part, is_filter)?;
            if can_fail { fallible.push(part) } else { safe.push(part) }
        }
        Ok((safe, fallible))
    }

    /// Protects the arguments of an aggregate or a window function with a FILTER. The engine evaluates the arguments on all
    /// rows, and applies the FILTER afterwards. Returns true if an argument has changed.
    fn protect_arguments(&self, expr: &mut Expr) -> bool {
        let (args, filter) = match expr {
            Expr::AggregateFunction(call) => (&mut call.params.args, call.params.filter.as_deref()),
            Expr::WindowFunction(call) => (&mut call.params.args, call.params.filter.as_deref()),
            _ => return false,
        };
        let Some(filter) = filter.filter(|filter| is_repeatable(filter)) else { return false };
        let mut is_changed = false;
        for arg in args {
            let is_protected =
                matches!(arg, Expr::Case(case) if case.when_then_expr.iter().any(|(when, _)| **when == *filter));
            if !is_protected && self.can_fail(arg) {
                let when_then_expr = vec![(Box::new(filter.clone()), Box::new(std::mem::take(arg)))];
                *arg = Expr::Case(Case { expr: None, when_then_expr, else_expr: None });
                is_changed = true;
            }
        }
        is_changed
    }

    /// Returns true if the expression may fail on some rows.
    fn can_fail(&self, expr: &Expr) -> bool {
        let mut fails = false;
        let walked = expr.apply(|expr| {
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
        // An expression without columns needs no protection: the optimizer has already computed it, or it fails for
        // every row.
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

/// Returns the operands of nested ANDs or ORs, without the guards of a previous run, and without duplicates.
fn operands(expr: Expr, operator: Operator, is_filter: bool) -> Vec<Expr> {
    let (mut parts, mut pending) = (Vec::new(), vec![expr]);
    while let Some(expr) = pending.pop() {
        match without_guard(expr, is_filter) {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) if op == operator => pending.extend([*right, *left]),
            expr if parts.contains(&expr) && is_repeatable(&expr) => {}
            expr => parts.push(expr),
        }
    }
    parts
}

/// Returns `guard AND rest`, where `rest` is evaluated only on the rows for which `guard` is not false. Returns a plain
/// AND if this would repeat an operand that is large or not repeatable.
fn guarded_and(guard: Expr, rest: Expr, is_filter: bool) -> Expr {
    let is_possible = is_repeatable(&guard) && is_repeatable(&rest) && (is_filter || is_small(&guard));
    if is_possible { only_guarded_and(guard, rest, is_filter) } else { guard.and(rest) }
}

/// Returns `rest`, evaluated only on the rows for which `guard` is not false. The result is that of `guard AND rest`.
/// Returns `rest` alone if the guard would have to be repeated and is large, or if `rest` is not repeatable. In these
/// two cases, the caller must combine the result with `guard`.
fn only_guarded_and(guard: Expr, rest: Expr, is_filter: bool) -> Expr {
    if !is_repeatable(&rest) || !(is_filter || is_small(&guard)) {
        return rest;
    }
    if is_filter {
        return choose(guard, tiny(rest), lit(0_i8));
    }
    choose(Expr::IsNotFalse(Box::new(guard.clone())), tiny(guard.and(rest)), lit(0_i8))
}

/// Returns `guard OR rest`, where `rest` is evaluated only on the rows for which `guard` is not true. Returns a plain
/// OR if this would repeat an operand that is large or not repeatable.
fn guarded_or(guard: Expr, rest: Expr, is_filter: bool) -> Expr {
    if !is_repeatable(&guard) || !is_repeatable(&rest) || !(is_filter || is_small(&guard)) {
        return guard.or(rest);
    }
    let otherwise = if is_filter { rest } else { guard.clone().or(rest) };
    choose(guard, lit(1_i8), tiny(otherwise))
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

/// Turns an expression that this rule has created back into AND or OR. The optimizer runs the rule several times, and
/// may add further operands between two runs.
///
/// If `is_filter` is false, replaces only forms that treat NULL in the same way as AND and OR.
fn without_guard(expr: Expr, is_filter: bool) -> Expr {
    let Some((when, then, otherwise)) = guarded_parts(&expr) else { return expr };
    let is_literal = |expr: &Expr, value| matches!(expr, Expr::Literal(ScalarValue::Int8(Some(v)), _) if *v == value);
    match (when, condition(then), condition(otherwise)) {
        (Expr::IsNotFalse(guard), Some(Expr::BinaryExpr(both)), None) if is_literal(otherwise, 0) => {
            let is_ours = both.op == Operator::And && both.left == *guard;
            if is_ours { Expr::BinaryExpr(both.clone()) } else { expr }
        }
        (guard, None, Some(Expr::BinaryExpr(both)))
            if is_literal(then, 1) && both.op == Operator::Or && *both.left == *guard =>
        {
            Expr::BinaryExpr(both.clone())
        }
        (guard, Some(rest), None) if is_filter && is_literal(otherwise, 0) => guard.clone().and(rest.clone()),
        (guard, None, Some(rest)) if is_filter && is_literal(then, 1) => guard.clone().or(rest.clone()),
        _ => expr,
    }
}

/// Returns the parts of `CASE WHEN … THEN … ELSE … END = 1`.
fn guarded_parts(expr: &Expr) -> Option<(&Expr, &Expr, &Expr)> {
    let Expr::BinaryExpr(BinaryExpr { left, op: Operator::Eq, right }) = expr else { return None };
    if !matches!(**right, Expr::Literal(ScalarValue::Int8(Some(1)), _)) {
        return None;
    }
    match &**left {
        Expr::Case(Case { expr: None, when_then_expr, else_expr: Some(otherwise) }) => {
            match when_then_expr.as_slice() {
                [(when, then)] => Some((when, then, otherwise)),
                _ => None,
            }
        }
        _ => None,
    }
}

/// Returns the condition in an expression that [`tiny`] has created.
fn condition(expr: &Expr) -> Option<&Expr> {
    match expr {
        Expr::Cast(Cast { expr, field }) if *field.data_type() == DataType::Int8 => Some(expr),
        _ => None,
    }
}

/// Returns true if the expression may be repeated without making the plan much larger.
fn is_small(expr: &Expr) -> bool {
    let mut nodes = 0;
    let walked = expr.apply(|_| {
        nodes += 1;
        Ok(if nodes > REPEATED_NODES_MAX { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    });
    walked.is_ok() && nodes <= REPEATED_NODES_MAX
}

/// Returns true if evaluating the expression twice gives the same result.
fn is_repeatable(expr: &Expr) -> bool {
    let is_single = |expr: &Expr| {
        Ok(expr.is_volatile_node()
            || matches!(expr, Expr::ScalarSubquery(_) | Expr::InSubquery(_) | Expr::Exists(_) | Expr::SetComparison(_)))
    };
    !expr.exists(is_single).unwrap_or(true)
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
        (DataType::Float64, DataType::Float32) => true,
        (from, to) if from.is_numeric() => to.is_integer() || to.is_decimal() && !from.is_integer(),
        _ => false,
    }
}
