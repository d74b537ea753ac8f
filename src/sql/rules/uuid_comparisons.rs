//! Compares UUIDs with text as PostgreSQL does: the text is converted to a UUID first. The rule runs before the engine's
//! type coercion.
//!
//! A UUID is stored as text in its canonical form. Without this rule, `id = '550E8400-…'` would compare the characters,
//! and a UUID in upper case would not be found. A text that is not a UUID is an error.
//!
//! The rule converts the operands of comparison operators, `IN` and `BETWEEN`. Other expressions, such as `coalesce(id, x)`,
//! return text. A text constant that is a UUID in another form is refused there, because it would equal no UUID.
//!
//! **Invariant:** the rule changes only operands that are compared with a UUID.
//! **Invariant:** if a plan reads UUIDs, all text constants that are UUIDs are in the canonical form.

use arrow::datatypes::Field;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode as _, TreeNodeRecursion};
use datafusion::common::{DFSchema, ExprSchema as _, ScalarValue, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{InList, ScalarFunction};
use datafusion::logical_expr::utils::merge_schema;
use datafusion::logical_expr::{Between, BinaryExpr, Case, Expr, ExprSchemable as _, LogicalPlan, Operator};
use datafusion::optimizer::AnalyzerRule;

use crate::contract::ColumnKind;
use crate::sql::functions::text_casts::{canonical_uuid, to_uuid};
use crate::sql::plan_expressions::{any_expression, rewrite_expressions};

/// The analyzer rule that converts texts that are compared with UUIDs.
#[derive(Debug)]
pub(crate) struct UuidComparisonRule;

impl AnalyzerRule for UuidComparisonRule {
    fn name(&self) -> &'static str {
        "compare_uuids"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        if !has_uuid(&plan)? {
            return Ok(plan);
        }
        let plan = plan.transform_up_with_subqueries(rewrite_node)?.data;
        check_constants(&plan)?;
        Ok(plan)
    }
}

/// Refuses text constants that are UUIDs in a form that equals no stored UUID.
fn check_constants(plan: &LogicalPlan) -> Result<()> {
    plan.apply_with_subqueries(|node| {
        node.apply_expressions(|expr| {
            expr.apply(|inner| {
                if let Expr::ScalarFunction(call) = inner
                    && is_cast_function(call.func.name())
                {
                    return Ok(TreeNodeRecursion::Jump);
                }
                match inner {
                    Expr::Literal(ScalarValue::Utf8(Some(text)), _) => {
                        check_constant(text).map(|()| TreeNodeRecursion::Continue)
                    }
                    _ => Ok(TreeNodeRecursion::Continue),
                }
            })
        })
    })?;
    Ok(())
}

fn check_constant(text: &str) -> Result<()> {
    match canonical_uuid(text) {
        Ok(canonical) if canonical != text => plan_err!(
            "the text '{text}' is compared as text, and UUIDs are stored in lower case with hyphens: write UUID '{text}', or \
             '{canonical}'"
        ),
        _ => Ok(()),
    }
}

/// Returns true if the plan reads a column of UUIDs, or casts to UUIDs.
fn has_uuid(plan: &LogicalPlan) -> Result<bool> {
    let mut found = false;
    plan.apply_with_subqueries(|node| {
        found = match node {
            LogicalPlan::TableScan(scan) => scan.projected_schema.fields().iter().any(|field| is_uuid_field(field)),
            _ => any_expression(node, is_cast)?,
        };
        Ok(if found { TreeNodeRecursion::Stop } else { TreeNodeRecursion::Continue })
    })?;
    Ok(found)
}

fn rewrite_node(plan: LogicalPlan) -> Result<Transformed<LogicalPlan>> {
    if let LogicalPlan::Join(join) = &plan {
        let is_mixed =
            |(left, right): &(Expr, Expr)| is_uuid(left, join.left.schema()) != is_uuid(right, join.right.schema());
        if let Some((left, right)) = join.on.iter().find(|pair| is_mixed(pair)) {
            return plan_err!(
                "cannot join `{left}` with `{right}`, because only one of them is a UUID: cast the text to UUID"
            );
        }
    }
    let schema = match plan.inputs().as_slice() {
        [input] => input.schema().as_ref().clone(),
        inputs => merge_schema(inputs),
    };
    rewrite_expressions(plan, |expr| rewrite_expr(expr, &schema))
}

fn rewrite_expr(expr: Expr, schema: &DFSchema) -> Result<Transformed<Expr>> {
    let is_uuid = |expr: &Expr| is_uuid(expr, schema);
    match expr {
        Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_comparison(op) && is_uuid(&left) != is_uuid(&right) => {
            let (left, right) = match is_uuid(&left) {
                true => (*left, converted(*right, schema)?),
                false => (converted(*left, schema)?, *right),
            };
            Ok(Transformed::yes(Expr::BinaryExpr(BinaryExpr::new(Box::new(left), op, Box::new(right)))))
        }
        Expr::InList(InList { expr, list, negated }) if is_uuid(&expr) => {
            let list = list.into_iter().map(|item| if is_uuid(&item) { Ok(item) } else { converted(item, schema) });
            Ok(Transformed::yes(Expr::InList(InList { expr, list: list.collect::<Result<_>>()?, negated })))
        }
        Expr::Between(Between { expr, negated, low, high }) if is_uuid(&expr) => {
            let bound = |bound: Box<Expr>| {
                if is_uuid(&bound) { Ok(bound) } else { converted(*bound, schema).map(Box::new) }
            };
            let (low, high) = (bound(low)?, bound(high)?);
            Ok(Transformed::yes(Expr::Between(Between { expr, negated, low, high })))
        }
        Expr::InSubquery(mut test) => {
            let columns = test.subquery.subquery.schema();
            let lists_uuids = columns.fields().first().is_some_and(|field| is_uuid_field(field));
            match (is_uuid(&test.expr), lists_uuids) {
                (false, true) => *test.expr = converted(std::mem::take(&mut *test.expr), schema)?,
                (true, false) => {
                    return plan_err!(
                        "a UUID is compared with the texts of a subquery: cast them to UUID, as in CAST(x AS UUID)"
                    );
                }
                _ => return Ok(Transformed::no(Expr::InSubquery(test))),
            }
            Ok(Transformed::yes(Expr::InSubquery(test)))
        }
        expr => Ok(Transformed::no(expr)),
    }
}

fn is_comparison(op: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}

/// Converts a text that is compared with a UUID. Returns other expressions unchanged.
fn converted(expr: Expr, schema: &DFSchema) -> Result<Expr> {
    match expr {
        Expr::Literal(ScalarValue::Utf8(Some(text)), metadata) => {
            Ok(Expr::Literal(ScalarValue::Utf8(Some(canonical_uuid(&text)?)), metadata))
        }
        expr if expr.get_type(schema).is_ok_and(|kind| kind.is_string()) => {
            Ok(Expr::ScalarFunction(ScalarFunction { func: to_uuid(), args: vec![expr] }))
        }
        expr => Ok(expr),
    }
}

/// Returns true if the values of an expression are UUIDs.
fn is_uuid(expr: &Expr, schema: &DFSchema) -> bool {
    match expr {
        Expr::Column(column) => schema.field_from_column(column).is_ok_and(|field| is_uuid_field(field)),
        Expr::OuterReferenceColumn(field, _) => is_uuid_field(field),
        Expr::Alias(alias) => is_uuid(&alias.expr, schema),
        Expr::ScalarSubquery(subquery) => {
            subquery.subquery.schema().fields().first().is_some_and(|field| is_uuid_field(field))
        }
        Expr::Case(Case { when_then_expr, else_expr, .. }) => {
            let results = when_then_expr.iter().map(|(_, then)| then).chain(else_expr);
            results.into_iter().any(|result| is_uuid(result, schema))
        }
        Expr::ScalarFunction(function) if ["coalesce", "nullif", "greatest", "least"].contains(&function.name()) => {
            function.args.iter().any(|argument| is_uuid(argument, schema))
        }
        expr => is_cast(expr),
    }
}

fn is_cast(expr: &Expr) -> bool {
    matches!(expr, Expr::ScalarFunction(function) if is_cast_function(function.name()))
}

fn is_cast_function(name: &str) -> bool {
    ["to_uuid", "try_to_uuid"].contains(&name)
}

fn is_uuid_field(field: &Field) -> bool {
    ColumnKind::of_metadata(field) == Some(ColumnKind::Uuid)
}
