//! Refuses to read a JSON string as a number if the string may be base64.
//!
//! Debezium sends decimals as base64 by default. Only the converter's schema distinguishes such a string from text: the
//! base64 text `1e10` is the decimal -27572.60 if its scale is 2. Decimals of messages with a schema are decoded to JSON
//! numbers, which are not checked. All other numbers in JSON strings must not look like base64.
//!
//! [`guard`] replaces functions of a plan with variants that fail on a string that may be base64:
//!
//! ```text
//!   json_int(row, 'total'), json_float(row, 'total')     always
//!   CAST(row->>'total' AS …)                             the function `->>` whose text is cast to a number
//!   SELECT row->>'total' AS t …  CAST(t AS …)            the same, if the text is first a column of a subquery
//!   SELECT row->>'total' AS total                        the same, if the table stores `total` as a decimal
//! ```
//!
//! A column of texts keeps its checks through `unnest`. JSON that is itself a string in JSON, such as the value of a JSON
//! column, is checked too: a statement can read the same object as text and as a string.
//!
//! **Invariant:** the guard may make a statement fail on text that is not base64, but it never lets a decimal in base64
//! become another number or NULL. A text is identified by the name of its column, so that columns of the same name are
//! checked together.

use std::collections::BTreeSet;

use datafusion::common::tree_node::{Transformed, TreeNode as _, TreeNodeRecursion};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{Alias, Case, ScalarFunction};
use datafusion::logical_expr::{Cast, Expr, LogicalPlan, TryCast};

use crate::sql::functions::json_functions::guarded;
use crate::sql::plan_expressions::rewrite_expressions;

/// The functions whose text may be cast to a number.
const JSON_TEXTS: [&str; 6] =
    ["json_text", "json_extract_path_text", "json_text_array", "json_raw", "json_extract_path", "json_array"];

/// Adds the checks to a plan. The plan must be optimized, because the optimizer adds casts. The table reads the texts in
/// the result columns `stored_as_numbers` as numbers.
pub(super) fn guard(plan: LogicalPlan, stored_as_numbers: BTreeSet<String>) -> Result<LogicalPlan> {
    let columns = columns_read_as_numbers(&plan, stored_as_numbers)?;
    let guarded = plan.transform_up_with_subqueries(|node| {
        let is_projection = matches!(node, LogicalPlan::Projection(_));
        let node = rewrite_expressions(node, |expr| Ok(guard_number(expr)))?;
        match is_projection {
            true => Ok(Transformed::yes(guard_columns(node.data, &columns)?)),
            false => Ok(node),
        }
    });
    Ok(guarded?.data)
}

/// Returns the names of the columns whose texts may be cast to numbers.
fn columns_read_as_numbers(plan: &LogicalPlan, stored_as_numbers: BTreeSet<String>) -> Result<BTreeSet<String>> {
    let mut columns = stored_as_numbers;
    loop {
        let before = columns.len();
        plan.apply_with_subqueries(|node| {
            if let LogicalPlan::Unnest(unnest) = node {
                // The output columns have other names than the lists from which they come.
                let outputs = unnest.schema.fields().iter().zip(&unnest.dependency_indices);
                let read = outputs.filter(|(output, _)| columns.contains(output.name()));
                let inputs: Vec<_> =
                    read.map(|(_, input)| unnest.input.schema().field(*input).name().clone()).collect();
                columns.extend(inputs);
            }
            for expr in node.expressions() {
                if matches!(node, LogicalPlan::Projection(_)) && columns.contains(&output_name(&expr)) {
                    add_columns(&expr, &mut columns);
                }
                expr.apply(|inner| {
                    inner_number(inner).into_iter().for_each(|operand| add_columns(operand, &mut columns));
                    Ok(TreeNodeRecursion::Continue)
                })?;
            }
            Ok(TreeNodeRecursion::Continue)
        })?;
        if columns.len() == before {
            return Ok(columns);
        }
    }
}

/// Returns the name of a projected column, without its table.
fn output_name(expr: &Expr) -> String {
    match expr {
        Expr::Alias(Alias { name, .. }) => name.clone(),
        Expr::Column(column) => column.name.clone(),
        other => other.schema_name().to_string(),
    }
}

/// Returns the operand of a cast to a number.
fn inner_number(expr: &Expr) -> Option<&Expr> {
    match expr {
        Expr::Cast(Cast { expr, field }) | Expr::TryCast(TryCast { expr, field }) => {
            field.data_type().is_numeric().then_some(expr)
        }
        _ => None,
    }
}

/// Adds the columns whose values may be the value of the expression.
fn add_columns(expr: &Expr, columns: &mut BTreeSet<String>) {
    match expr {
        Expr::Column(column) => {
            columns.insert(column.name.clone());
        }
        Expr::ScalarFunction(call) if JSON_TEXTS.contains(&call.func.name()) => {}
        Expr::ScalarFunction(call) => call.args.iter().for_each(|arg| add_columns(arg, columns)),
        Expr::Case(Case { when_then_expr, else_expr, .. }) => {
            let branches = when_then_expr.iter().map(|(_, then)| then).chain(else_expr);
            branches.for_each(|branch| add_columns(branch, columns));
        }
        Expr::Alias(Alias { expr, .. }) | Expr::Cast(Cast { expr, .. }) | Expr::TryCast(TryCast { expr, .. }) => {
            add_columns(expr, columns);
        }
        _ => {}
    }
}

/// Adds checks to the texts of a projection that other nodes read as numbers.
fn guard_columns(node: LogicalPlan, columns: &BTreeSet<String>) -> Result<LogicalPlan> {
    let guarded = node.map_expressions(|expr| {
        let name = output_name(&expr);
        Ok(match columns.contains(&name) {
            // The alias keeps the name of the column.
            true => match expr {
                Expr::Alias(Alias { expr, relation, name, metadata }) => {
                    let expr = Box::new(guard_text(*expr));
                    Transformed::yes(Expr::Alias(Alias { expr, relation, name, metadata }))
                }
                expr => Transformed::yes(guard_text(expr).alias_if_changed(name)?),
            },
            false => Transformed::no(expr),
        })
    });
    Ok(guarded?.data)
}

/// Adds a check to a function that returns a number, and to the operand of a cast to a number.
fn guard_number(expr: Expr) -> Transformed<Expr> {
    match expr {
        Expr::Cast(Cast { expr, field }) if field.data_type().is_numeric() => {
            Transformed::yes(Expr::Cast(Cast { expr: Box::new(guard_text(*expr)), field }))
        }
        Expr::TryCast(TryCast { expr, field }) if field.data_type().is_numeric() => {
            Transformed::yes(Expr::TryCast(TryCast { expr: Box::new(guard_text(*expr)), field }))
        }
        Expr::ScalarFunction(call) if !JSON_TEXTS.contains(&call.func.name()) => Transformed::yes(guard_call(call)),
        other => Transformed::no(other),
    }
}

/// Adds a check to each function that may return the value of the expression as a text.
fn guard_text(expr: Expr) -> Expr {
    match expr {
        Expr::ScalarFunction(call) if JSON_TEXTS.contains(&call.func.name()) => guard_call(call),
        Expr::ScalarFunction(ScalarFunction { func, args }) => {
            let args = if func.name().starts_with("json_") { args } else { args.into_iter().map(guard_text).collect() };
            Expr::ScalarFunction(ScalarFunction { func, args })
        }
        Expr::Case(Case { expr, when_then_expr, else_expr }) => {
            let branches = when_then_expr.into_iter().map(|(when, then)| (when, Box::new(guard_text(*then))));
            let (branches, otherwise) = (branches.collect(), else_expr.map(|expr| Box::new(guard_text(*expr))));
            Expr::Case(Case { expr, when_then_expr: branches, else_expr: otherwise })
        }
        Expr::Alias(Alias { expr, relation, name, metadata }) => {
            Expr::Alias(Alias { expr: Box::new(guard_text(*expr)), relation, name, metadata })
        }
        Expr::Cast(Cast { expr, field }) => Expr::Cast(Cast { expr: Box::new(guard_text(*expr)), field }),
        Expr::TryCast(TryCast { expr, field }) => Expr::TryCast(TryCast { expr: Box::new(guard_text(*expr)), field }),
        other => other,
    }
}

/// Replaces a JSON function with its guarded variant, if it has one.
fn guard_call(ScalarFunction { func, args }: ScalarFunction) -> Expr {
    let func = guarded(func.name()).unwrap_or(func);
    Expr::ScalarFunction(ScalarFunction { func, args })
}
