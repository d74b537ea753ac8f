//! Replaces `IS TRUE`, `IS NOT FALSE`, `IS UNKNOWN` and similar tests with `IS [NOT] DISTINCT FROM`.
//!
//! The engine evaluates these tests as `IS [NOT] DISTINCT FROM`, but only its logical plan assumes that their results
//! are never NULL. If the results are grouped or aggregated, the engine compares the schemas of the logical and the
//! physical plan, and refuses the statement because the schemas differ.

use datafusion::common::ScalarValue;
use datafusion::common::tree_node::Transformed;
use datafusion::logical_expr::{BinaryExpr, Expr, Operator, lit};

/// Replaces `expr` if it is one of these tests.
pub(super) fn rewrite(expr: Expr) -> Transformed<Expr> {
    use Operator::{IsDistinctFrom, IsNotDistinctFrom};
    let (tested, op, value) = match expr {
        Expr::IsTrue(tested) => (tested, IsNotDistinctFrom, Some(true)),
        Expr::IsNotTrue(tested) => (tested, IsDistinctFrom, Some(true)),
        Expr::IsFalse(tested) => (tested, IsNotDistinctFrom, Some(false)),
        Expr::IsNotFalse(tested) => (tested, IsDistinctFrom, Some(false)),
        Expr::IsUnknown(tested) => (tested, IsNotDistinctFrom, None),
        Expr::IsNotUnknown(tested) => (tested, IsDistinctFrom, None),
        other => return Transformed::no(other),
    };
    let value = lit(ScalarValue::Boolean(value));
    Transformed::yes(Expr::BinaryExpr(BinaryExpr::new(tested, op, Box::new(value))))
}
