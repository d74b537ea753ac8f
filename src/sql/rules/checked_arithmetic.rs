//! Replaces arithmetic and casts that would return wrong values. Runs after the engine's type coercion.
//!
//! - An overflow of `+`, `-`, `*` or unary minus on integers, durations and intervals is an error.
//! - A division of doubles by zero is an error.
//! - A cast of a double or decimal to an integer rounds, and a cast of text to a number ignores whitespace around the
//!   number. A cast of a double to `REAL` fails if the double is out of range.

use arrow::datatypes::DataType;
use datafusion::common::DFSchema;
use datafusion::common::tree_node::{Transformed, TreeNodeRecursion};
use datafusion::config::ConfigOptions;
use datafusion::error::Result;
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{BinaryExpr, Cast, Expr, ExprSchemable as _, LogicalPlan, Operator, TryCast};
use datafusion::optimizer::AnalyzerRule;

use crate::sql::functions::checked_arithmetic::CheckedOperator;
use crate::sql::functions::rounding_cast::cast_operand;
use crate::sql::interrupt;
use crate::sql::plan_expressions::{any_expression, rewrite_expressions};

/// Replaces the engine's operators with checked operators.
#[derive(Debug)]
pub(crate) struct CheckedArithmeticRule;

impl AnalyzerRule for CheckedArithmeticRule {
    fn name(&self) -> &'static str {
        "checked_arithmetic"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        plan.transform_up_with_subqueries(|plan| {
            if !any_expression(&plan, is_candidate)? {
                return Ok(Transformed::no(plan));
            }
            let schema = merge_schema(&plan.inputs());
            // The type of a long chain of operators takes long to determine.
            rewrite_expressions(plan, |expr| interrupt::check().map(|()| rewrite(expr, &schema)))
        })
        .map(|plan| plan.data)
    }
}

/// Returns true if the expression must be replaced for some types of its operands.
fn is_candidate(expr: &Expr) -> bool {
    match expr {
        Expr::BinaryExpr(binary) => CheckedOperator::of(binary.op).is_some(),
        Expr::Negative(_) => true,
        Expr::Cast(Cast { field, .. }) | Expr::TryCast(TryCast { field, .. }) => field.data_type().is_numeric(),
        _ => false,
    }
}

fn rewrite(expr: Expr, schema: &DFSchema) -> Transformed<Expr> {
    match expr {
        Expr::BinaryExpr(binary) => rewrite_binary(binary, schema),
        Expr::Negative(value) => match value.get_type(schema) {
            Ok(kind) if !kind.is_floating() && !kind.is_null() => {
                Transformed::yes(CheckedOperator::Negate.call(vec![*value]))
            }
            _ => Transformed::no(Expr::Negative(value)),
        },
        Expr::Cast(mut cast) => {
            let operand = operand(&cast.expr, cast.field.data_type(), schema, false);
            let is_changed = operand.is_some();
            cast.expr = operand.unwrap_or(cast.expr);
            Transformed::new(Expr::Cast(cast), is_changed, TreeNodeRecursion::Continue)
        }
        Expr::TryCast(mut cast) => {
            let operand = operand(&cast.expr, cast.field.data_type(), schema, true);
            let is_changed = operand.is_some();
            cast.expr = operand.unwrap_or(cast.expr);
            Transformed::new(Expr::TryCast(cast), is_changed, TreeNodeRecursion::Continue)
        }
        other => Transformed::no(other),
    }
}

/// Returns the prepared operand of a cast, or `None` if the operand needs no preparation.
fn operand(value: &Expr, to: &DataType, schema: &DFSchema, is_try: bool) -> Option<Box<Expr>> {
    if !to.is_numeric() && !to.is_nested() {
        return None;
    }
    let from = value.get_type(schema).ok()?;
    cast_operand(value, &from, to, is_try).map(Box::new)
}

fn rewrite_binary(binary: BinaryExpr, schema: &DFSchema) -> Transformed<Expr> {
    match CheckedOperator::of(binary.op) {
        Some(operator) if is_affected(&binary, schema) => {
            Transformed::yes(operator.call(vec![*binary.left, *binary.right]))
        }
        _ => Transformed::no(Expr::BinaryExpr(binary)),
    }
}

/// Returns true if the engine's operator would wrap around or divide by zero. After type coercion, both operands have
/// the same type if they are numbers.
fn is_affected(binary: &BinaryExpr, schema: &DFSchema) -> bool {
    let is_leaf = |expr: &Expr| matches!(expr, Expr::Literal(..) | Expr::Column(_) | Expr::Cast(_));
    // Check a literal, a column or a cast first: its type is cheap to determine, but the type of a long chain of
    // operators is not.
    let (first, second) =
        if is_leaf(&binary.right) { (&binary.right, &binary.left) } else { (&binary.left, &binary.right) };
    let Ok(kind) = first.get_type(schema) else { return false };
    if binary.op == Operator::Divide {
        return kind.is_floating() && !is_nonzero(&binary.right);
    }
    match kind {
        kind if kind.is_integer() => true,
        DataType::Duration(_) => true,
        DataType::Timestamp(..) | DataType::Interval(_) => match second.get_type(schema) {
            Ok(DataType::Duration(_)) => true,
            Ok(other) => other == kind,
            Err(_) => false,
        },
        _ => false,
    }
}

fn is_nonzero(expr: &Expr) -> bool {
    use datafusion::common::ScalarValue::{Float32, Float64};
    match expr {
        Expr::Literal(Float64(Some(value)), _) => *value != 0.0,
        Expr::Literal(Float32(Some(value)), _) => *value != 0.0,
        _ => false,
    }
}
