//! Compares booleans with string constants, such as `flag = 'f'`. As in PostgreSQL, the string is converted to a
//! boolean. The engine refuses such comparisons.

use arrow::datatypes::DataType;
use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::Result;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawBinaryExpr};
use datafusion::logical_expr::{Cast, Expr, ExprSchemable as _};
use datafusion::sql::sqlparser::ast::BinaryOperator;

/// Casts a string constant to a boolean if it is compared with a boolean.
#[derive(Debug)]
pub(crate) struct BooleanTextPlanner;

impl ExprPlanner for BooleanTextPlanner {
    fn plan_binary_op(&self, mut expr: RawBinaryExpr, schema: &DFSchema) -> Result<PlannerResult<RawBinaryExpr>> {
        use BinaryOperator::{Eq, Gt, GtEq, Lt, LtEq, NotEq};
        if matches!(expr.op, Eq | NotEq | Lt | LtEq | Gt | GtEq) {
            if is_text(&expr.right) && is_boolean(&expr.left, schema) {
                expr.right = to_boolean(expr.right);
            } else if is_text(&expr.left) && is_boolean(&expr.right, schema) {
                expr.left = to_boolean(expr.left);
            }
        }
        Ok(PlannerResult::Original(expr))
    }
}

fn is_text(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(ScalarValue::Utf8(_) | ScalarValue::LargeUtf8(_) | ScalarValue::Utf8View(_), _))
}

fn is_boolean(expr: &Expr, schema: &DFSchema) -> bool {
    expr.get_type(schema).is_ok_and(|kind| kind == DataType::Boolean)
}

fn to_boolean(text: Expr) -> Expr {
    Expr::Cast(Cast::new(Box::new(text), DataType::Boolean))
}
