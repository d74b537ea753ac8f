//! Rewrites numbers and the operator `^`, because the engine's planner interprets them differently from PostgreSQL.
//!
//! - `a ^ b` is exponentiation of doubles, and binds more tightly than `*`. The engine interprets `^` as XOR, which
//!   binds less tightly than `+`.
//! - A literal with an exponent (`1e3`) is a double. The engine would parse the literal as a decimal with a negative
//!   scale.

use std::ops::ControlFlow;

use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, DataType, ExactNumberInfo, Expr, Value, ValueWithSpan, VisitMut as _, VisitorMut,
};

use crate::sql::syntax::tree::{binary, call_expr, cast, null, take};

/// Rewrites the number literals and the `^` operators in a statement and its subqueries.
pub(crate) fn rewrite(statement: &mut Statement) {
    match statement {
        Statement::Statement(statement) => {
            let _ = statement.visit(&mut Numbers);
        }
        Statement::Explain(explain) => rewrite(&mut explain.statement),
        // This arm is unreachable, because `statement::parse` accepts only queries.
        Statement::CreateExternalTable(_) | Statement::CopyTo(_) | Statement::Reset(_) => {}
    }
}

struct Numbers;

impl VisitorMut for Numbers {
    type Break = ();

    /// Visits the operands of an expression before the expression itself.
    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::Value(ValueWithSpan { value: Value::Number(text, _), span }) if text.contains(['e', 'E']) => {
                let text = Value::SingleQuotedString(text.replace('_', ""));
                *expr = as_double(Expr::Value(ValueWithSpan { value: text, span: *span }));
            }
            Expr::BinaryOp { left, op: BinaryOperator::BitwiseXor, right } => {
                *expr = with_power(take(left), take(right));
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

fn as_double(expr: Expr) -> Expr {
    cast(expr, DataType::Double(ExactNumberInfo::None))
}

/// Returns `left ^ right` with the operator precedence of PostgreSQL. In the parser, `^` has a lower precedence than
/// the other arithmetic operators, so `a * b ^ c + d` is parsed as `(a * b) ^ (c + d)`.
fn with_power(left: Expr, right: Expr) -> Expr {
    let (mut operands, mut operators) = (Vec::new(), Vec::new());
    flatten(left, &mut operands, &mut operators);
    let at = operands.len();
    flatten(right, &mut operands, &mut operators);
    let exponent = operands.remove(at);
    if let Some(base) = operands.get_mut(at - 1) {
        *base = power(take(base), exponent);
    }
    rebuild(operands, operators)
}

/// Appends the operands and operators of an expression from left to right. An operand in parentheses is not split.
fn flatten(expr: Expr, operands: &mut Vec<Expr>, operators: &mut Vec<BinaryOperator>) {
    match expr {
        Expr::BinaryOp { left, op, right } => {
            flatten(*left, operands, operators);
            operators.push(op);
            flatten(*right, operands, operators);
        }
        operand => operands.push(operand),
    }
}

/// Combines operands and operators into an expression. All operators are left-associative.
fn rebuild(operands: Vec<Expr>, operators: Vec<BinaryOperator>) -> Expr {
    let mut operands = operands.into_iter();
    let mut done = vec![operands.next().unwrap_or_else(null)];
    let mut pending: Vec<BinaryOperator> = Vec::new();
    for (operator, operand) in operators.into_iter().zip(operands) {
        while pending.last().is_some_and(|last| precedence(last) >= precedence(&operator)) {
            join(&mut done, &mut pending);
        }
        pending.push(operator);
        done.push(operand);
    }
    while !pending.is_empty() {
        join(&mut done, &mut pending);
    }
    done.pop().unwrap_or_else(null)
}

fn join(done: &mut Vec<Expr>, pending: &mut Vec<BinaryOperator>) {
    if let (Some(right), Some(left), Some(op)) = (done.pop(), done.pop(), pending.pop()) {
        done.push(binary(left, op, right));
    }
}

fn precedence(operator: &BinaryOperator) -> u8 {
    use BinaryOperator::{Divide, Minus, Modulo, Multiply, Plus};
    match operator {
        Multiply | Divide | Modulo => 3,
        Plus | Minus => 2,
        _ => 1,
    }
}

fn power(base: Expr, exponent: Expr) -> Expr {
    call_expr("power", vec![as_double(base), as_double(exponent)])
}

#[cfg(test)]
mod tests {
    use datafusion::sql::parser::DFParser;

    use super::*;

    #[test]
    fn a_power_binds_closer_than_a_product() {
        let cases = [
            ("a ^ b", "[a b]"),
            ("a * b ^ c", "a * [b c]"),
            ("a ^ b * c", "[a b] * c"),
            ("a + b ^ c * d - e", "a + [b c] * d - e"),
            ("a * b ^ c + d", "a * [b c] + d"),
            ("a ^ b ^ c", "[[a b] c]"),
            ("a ^ b * c ^ d", "[a b] * [c d]"),
            ("a - b * c ^ d ^ e", "a - b * [[c d] e]"),
            ("(a + b) ^ c", "[(a + b) c]"),
            ("-a ^ -b", "[-a -b]"),
            ("a ^ b = c", "[a b] = c"),
            ("a - b - c ^ d - e", "a - b - [c d] - e"),
        ];
        for (sql, expected) in cases {
            let mut statements = DFParser::parse_sql(&format!("SELECT {sql}")).unwrap();
            rewrite(&mut statements[0]);
            let found = statements[0].to_string().replace("power(", "[").replace(" AS DOUBLE), CAST(", " ");
            let found = found.replace(" AS DOUBLE))", "]").replace("CAST(", "").replace("SELECT ", "");
            assert_eq!(found, expected, "{sql}");
        }
    }
}
