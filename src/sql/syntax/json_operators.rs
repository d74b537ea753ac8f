//! Corrects the precedence of the JSON operators `->`, `->>`, `#>` and `#>>`.
//!
//! In PostgreSQL, they have the same precedence as `||`, which is higher than the precedence of comparisons. The parser
//! gives them a lower one. It reads `a ->> 'b' = 'c'` as `a ->> ('b' = 'c')`, and `1 = a -> 'b'` as `(1 = a) -> 'b'`.
//!
//! `'x' || a ->> 'b'` is refused. By these rules, it means `('x' || a) ->> 'b'`, which is never intended: the value would be
//! NULL, because `'x' || a` is not valid JSON. PostgreSQL refuses it, because the left operand is text.
//!
//! The parser keeps parentheses as `Nested`, so an operand that is a comparison and not `Nested` was grouped incorrectly.

use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr};

use crate::error::{Error, Result};
use crate::sql::syntax::tree::take;

/// If an operand of a JSON operator has a lower precedence than the operator, moves the JSON operator into the operand.
///
/// # Errors
///
/// If the left operand is a concatenation without parentheses.
pub(super) fn rotate(expr: &mut Expr) -> Result<()> {
    let Expr::BinaryOp { left, op, right } = expr else { return Ok(()) };
    if !is_json_operator(op) {
        return Ok(());
    }
    if let Expr::BinaryOp { left: text, op: BinaryOperator::StringConcat, right: json } = &**left {
        return Err(Error::invalid(format!(
            "|| and {op} have the same precedence: enclose the JSON operator in parentheses, as in {text} || ({json} {op} \
             {right})"
        )));
    }
    if let Some(last) = last_operand(left) {
        // `f(x, last) -> right` becomes `f(x, last -> right)`.
        let operand = Expr::BinaryOp { left: Box::new(take(last)), op: op.clone(), right: Box::new(take(right)) };
        *last = operand;
        rotate(last)?;
        *expr = take(left);
    } else if let Some(first) = first_operand(right) {
        // `left -> f(first, x)` becomes `f(left -> first, x)`.
        let operand = Expr::BinaryOp { left: Box::new(take(left)), op: op.clone(), right: Box::new(take(first)) };
        *first = operand;
        rotate(first)?;
        *expr = take(right);
    }
    Ok(())
}

fn is_json_operator(op: &BinaryOperator) -> bool {
    use BinaryOperator::{Arrow, HashArrow, HashLongArrow, LongArrow};
    matches!(op, Arrow | LongArrow | HashArrow | HashLongArrow)
}

/// Returns the last operand of an expression that has a lower precedence than the JSON operators.
fn last_operand(expr: &mut Expr) -> Option<&mut Expr> {
    match expr {
        Expr::BinaryOp { op, right, .. } if is_comparison(op) => Some(right),
        Expr::IsDistinctFrom(_, right) | Expr::IsNotDistinctFrom(_, right) => Some(right),
        Expr::Like { pattern, escape_char: None, .. }
        | Expr::ILike { pattern, escape_char: None, .. }
        | Expr::SimilarTo { pattern, escape_char: None, .. } => Some(pattern),
        Expr::Between { high, .. } => Some(high),
        _ => None,
    }
}

/// Returns the first operand of an expression whose precedence is not higher than the one of the JSON operators.
fn first_operand(expr: &mut Expr) -> Option<&mut Expr> {
    match expr {
        Expr::BinaryOp { left, op, .. } if !is_arithmetic(op) && !is_json_operator(op) => Some(left),
        Expr::IsDistinctFrom(left, _) | Expr::IsNotDistinctFrom(left, _) => Some(left),
        Expr::Like { expr, .. }
        | Expr::ILike { expr, .. }
        | Expr::SimilarTo { expr, .. }
        | Expr::RLike { expr, .. }
        | Expr::Between { expr, .. }
        | Expr::InList { expr, .. }
        | Expr::InSubquery { expr, .. }
        | Expr::InUnnest { expr, .. }
        | Expr::IsNull(expr)
        | Expr::IsNotNull(expr)
        | Expr::IsTrue(expr)
        | Expr::IsNotTrue(expr)
        | Expr::IsFalse(expr)
        | Expr::IsNotFalse(expr)
        | Expr::IsUnknown(expr)
        | Expr::IsNotUnknown(expr) => Some(expr),
        Expr::AnyOp { left, .. } | Expr::AllOp { left, .. } => Some(left),
        _ => None,
    }
}

fn is_arithmetic(op: &BinaryOperator) -> bool {
    use BinaryOperator::{Divide, Minus, Modulo, Multiply, PGExp, Plus};
    matches!(op, Plus | Minus | Multiply | Divide | Modulo | PGExp)
}

fn is_comparison(op: &BinaryOperator) -> bool {
    use BinaryOperator::{Eq, Gt, GtEq, Lt, LtEq, NotEq, Spaceship};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | Spaceship)
}
