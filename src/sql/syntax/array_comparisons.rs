//! Rewrites comparisons of a value with the elements of an array: `x = ANY (a)`, `x > ALL (a)`.
//!
//! ```text
//!   x = ANY (ARRAY[a, b])   ─►  x IN (a, b)                 x <> ALL (ARRAY[a, b])  ─►  x NOT IN (a, b)
//!   x > ANY (ARRAY[a, b])   ─►  x > a OR x > b              x > ALL (ARRAY[a, b])   ─►  x > a AND x > b
//!   x > ANY (a)             ─►  a CASE that returns NULL where the standard does
//!   x = ANY (a)             ─►  the same, with array_has(a, x)
//! ```
//!
//! The engine ignores NULL elements. In the standard, a NULL element makes the result NULL unless another element decides
//! it.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, CaseWhen, Expr, Query, Value, Visit as _, Visitor, helpers::attached_token::AttachedToken,
};

use crate::error::{Error, Result};
use crate::sql::syntax::tree::{binary, call_expr, not, null, number, parenthesized, take, value};

/// The maximum number of nodes in an operand that the rewritten comparison repeats.
const REPEATED_NODES_MAX: usize = 16;

/// Rewrites `left op ANY (array)` or `left op ALL (array)`. Leaves other expressions, and subqueries, unchanged.
pub(super) fn rewrite(expr: &mut Expr) -> Result<()> {
    let (left, op, array, is_any) = match expr {
        Expr::AnyOp { left, compare_op, right, .. } => (left, compare_op.clone(), right, true),
        Expr::AllOp { left, compare_op, right } => (left, compare_op.clone(), right, false),
        _ => return Ok(()),
    };
    if matches!(**array, Expr::Subquery(_)) {
        return Ok(());
    }
    let is_list = op == if is_any { BinaryOperator::Eq } else { BinaryOperator::NotEq };
    if is_list && let Some(list) = elements(array) {
        *expr = parenthesized(Expr::InList { expr: Box::new(take(left)), list, negated: !is_any });
        return Ok(());
    }
    check_repeatable(left, "the value before ANY or ALL")?;
    if let Some(list) = elements(array) {
        let join = if is_any { BinaryOperator::Or } else { BinaryOperator::And };
        *expr = parenthesized(compare_each(take(left), &op, list, &join));
        return Ok(());
    }
    check_repeatable(array, "the array of ANY or ALL")?;
    let (left, array) = (parenthesized((**left).clone()), parenthesized((**array).clone()));
    if is_list {
        // The planner would use the engine's `array_has`, which compares fewer types.
        let has = call_expr("array_has", vec![array.clone(), left.clone()]);
        *expr = if is_any { has } else { not(has) };
    }
    *expr = parenthesized(with_nulls(expr, left, array, is_any));
    Ok(())
}

/// Returns the comparison with the NULLs of the standard. `comparison` is the engine's comparison of `left` with the
/// elements of `array`, which ignores NULL elements.
fn with_nulls(comparison: &mut Expr, left: Expr, array: Expr, is_any: bool) -> Expr {
    let comparison = parenthesized(take(comparison));
    let is_decided = if is_any { comparison.clone() } else { not(comparison.clone()) };
    let is_empty = binary(call_expr("cardinality", vec![array.clone()]), BinaryOperator::Eq, number("0"));
    let has_null = Expr::IsNotNull(Box::new(call_expr("array_position", vec![array, null()])));
    let is_unknown = binary(Expr::IsNull(Box::new(left)), BinaryOperator::Or, has_null);
    let conditions =
        [(is_empty, value(Value::Boolean(!is_any))), (is_decided, value(Value::Boolean(is_any))), (is_unknown, null())];
    let conditions = conditions.into_iter().map(|(condition, result)| CaseWhen { condition, result }).collect();
    Expr::Case {
        case_token: AttachedToken::empty(),
        end_token: AttachedToken::empty(),
        operand: None,
        conditions,
        else_result: Some(Box::new(comparison)),
    }
}

/// Moves the elements out of an array constructor. Returns `None` for any other expression, and for an empty array.
fn elements(array: &mut Expr) -> Option<Vec<Expr>> {
    match array {
        Expr::Nested(inner) => elements(inner),
        Expr::Array(array) if !array.elem.is_empty() => Some(std::mem::take(&mut array.elem)),
        _ => None,
    }
}

/// Compares a value with each of the elements, and joins the comparisons with AND or OR. The tree of comparisons is
/// balanced, so its depth is small.
fn compare_each(value: Expr, op: &BinaryOperator, mut elements: Vec<Expr>, join: &BinaryOperator) -> Expr {
    let rest = elements.split_off(elements.len() / 2);
    if elements.is_empty() {
        let element = rest.into_iter().next().unwrap_or_else(null);
        return parenthesized(binary(parenthesized(value), op.clone(), parenthesized(element)));
    }
    let left = compare_each(value.clone(), op, elements, join);
    parenthesized(binary(left, join.clone(), compare_each(value, op, rest, join)))
}

/// Refuses an operand that is large, contains a subquery or calls `random()` or a similar function, because the rewritten
/// comparison repeats the operand.
fn check_repeatable(operand: &Expr, what: &str) -> Result<()> {
    struct Nodes(usize);
    impl Visitor for Nodes {
        type Break = ();

        fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
            ControlFlow::Break(())
        }

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            self.0 += 1;
            let is_volatile = matches!(expr, Expr::Function(call) if super::volatile_queries::is_volatile_call(call));
            if is_volatile || self.0 > REPEATED_NODES_MAX { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        }
    }
    match operand.visit(&mut Nodes(0)) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(()) => Err(Error::unsupported(format!(
            "{what} must be simpler: compute it in a subquery in FROM, and use its column"
        ))),
    }
}
