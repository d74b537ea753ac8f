//! Corrects the precedence of operators for which the parser differs from PostgreSQL.
//!
//! | text | parser | PostgreSQL, and after this pass |
//! |---|---|---|
//! | `a IS DISTINCT FROM b OR c` | `a IS DISTINCT FROM (b OR c)` | `(a IS DISTINCT FROM b) OR c` |
//! | `a = b LIKE c` | `(a = b) LIKE c` | `a = (b LIKE c)` |
//! | `a LIKE b = c` | `a LIKE (b = c)` | `(a LIKE b) = c` |
//! | `a < b IN (c)` | `(a < b) IN (c)` | `a < (b IN (c))` |
//! | `a ->> b = c` | `a ->> (b = c)` | `(a ->> b) = c` |
//!
//! The parser keeps parentheses as `Nested`. If the operator of an operand has a lower precedence and the operand is
//! not `Nested`, the parser has therefore grouped the operators incorrectly.

use std::ops::ControlFlow;

use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{BinaryOperator, Expr, Query, UnaryOperator, VisitMut as _, VisitorMut};

use crate::error::{Error, Result};
use crate::sql::syntax::json_operators;
use crate::sql::syntax::tree::{query_of, take};

/// Corrects the precedence of operators in a statement.
pub(super) fn rewrite(statement: &mut Statement) -> Result<()> {
    let Some(query) = query_of(statement) else { return Ok(()) };
    match Query::visit(query, &mut Precedence) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

struct Precedence;

impl VisitorMut for Precedence {
    type Break = Error;

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        rotate(expr);
        json_operators::rotate(expr).map_or_else(ControlFlow::Break, ControlFlow::Continue)
    }
}

/// If the operator of an operand has a lower precedence than `expr`, moves that operator above `expr`.
fn rotate(expr: &mut Expr) {
    if let Some(operand) = last_operand(expr) {
        // `p(l op r)` becomes `p(l) op r`.
        let Expr::BinaryOp { left, op, right } = take(operand) else { return };
        *operand = *left;
        let mut parent = take(expr);
        rotate(&mut parent);
        *expr = Expr::BinaryOp { left: Box::new(parent), op, right };
    } else if let Some(operand) = first_operand(expr) {
        // `p(l op r)` becomes `l op p(r)`.
        let Expr::BinaryOp { left, op, right } = take(operand) else { return };
        *operand = *right;
        let mut parent = take(expr);
        rotate(&mut parent);
        *expr = Expr::BinaryOp { left, op, right: Box::new(parent) };
    }
}

/// Returns the last operand of `expr` if the operand has a lower precedence than `expr`.
fn last_operand(expr: &mut Expr) -> Option<&mut Expr> {
    let (operand, is_lower): (_, fn(&BinaryOperator) -> bool) = match expr {
        Expr::IsDistinctFrom(_, right) | Expr::IsNotDistinctFrom(_, right) => (right, is_logical),
        Expr::UnaryOp { op: UnaryOperator::Not, expr } => (expr, is_logical),
        Expr::BinaryOp { op: BinaryOperator::And, right, .. } => (right, |op| *op == BinaryOperator::Or),
        Expr::Like { pattern, escape_char: None, .. }
        | Expr::ILike { pattern, escape_char: None, .. }
        | Expr::SimilarTo { pattern, escape_char: None, .. } => (pattern, is_comparison),
        _ => return None,
    };
    matches!(&**operand, Expr::BinaryOp { op, .. } if is_lower(op)).then_some(operand)
}

/// Returns the first operand of `expr` if the operand has a lower precedence than `expr`.
fn first_operand(expr: &mut Expr) -> Option<&mut Expr> {
    let (Expr::Like { expr: operand, .. }
    | Expr::ILike { expr: operand, .. }
    | Expr::SimilarTo { expr: operand, .. }
    | Expr::Between { expr: operand, .. }
    | Expr::InList { expr: operand, .. }
    | Expr::InSubquery { expr: operand, .. }) = expr
    else {
        return None;
    };
    matches!(&**operand, Expr::BinaryOp { op, .. } if is_comparison(op)).then_some(operand)
}

fn is_logical(op: &BinaryOperator) -> bool {
    matches!(op, BinaryOperator::And | BinaryOperator::Or)
}

fn is_comparison(op: &BinaryOperator) -> bool {
    use BinaryOperator::{Eq, Gt, GtEq, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq)
}
