//! Rewrites `listagg` to the engine's `string_agg`, and simplifies the ORDER BY of aggregates.
//!
//! ```sql
//! listagg(x, ', ') WITHIN GROUP (ORDER BY y)   ─►   string_agg(x, ', ' ORDER BY y)
//! listagg(x)                                   ─►   string_agg(x, '')
//! array_agg(x ORDER BY 1, y, y DESC)           ─►   array_agg(x ORDER BY y)
//! array_agg(DISTINCT x ORDER BY x DESC)        ─►   array_sort(array_agg(DISTINCT x), 'DESC', 'NULLS FIRST')
//! ```
//!
//! A call to `string_agg` with WITHIN GROUP is rewritten like `listagg`.
//!
//! As in PostgreSQL, a number in the ORDER BY of an aggregate is a constant. The engine would interpret it as the
//! position of a column. The engine also refuses a repeated expression, which has no effect on the order.

use std::collections::HashSet;
use std::ops::ControlFlow;

use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    DuplicateTreatment, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentClause, FunctionArguments, Ident,
    ListAggOnOverflow, ObjectName, OrderByExpr, UnaryOperator, Value, ValueWithSpan, VisitMut as _, VisitorMut,
};

use crate::sql::syntax::tree::{call_expr, text};

/// Rewrites the calls to aggregates in a statement and its subqueries.
pub(crate) fn rewrite(statement: &mut Statement) {
    match statement {
        Statement::Statement(statement) => _ = statement.visit(&mut ListAgg),
        Statement::Explain(explain) => rewrite(&mut explain.statement),
        // This arm is unreachable, because `statement::parse` accepts only queries.
        Statement::CreateExternalTable(_) | Statement::CopyTo(_) | Statement::Reset(_) => {}
    }
}

struct ListAgg;

impl VisitorMut for ListAgg {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::Function(function) = expr {
            rewrite_call(function);
            simplify_order(function);
            if let Some(sorted) = sort_distinct(function) {
                *expr = sorted;
            }
        }
        ControlFlow::Continue(())
    }
}

/// Removes constants and repeated expressions from the ORDER BY inside the parentheses of a call.
fn simplify_order(function: &mut Function) {
    let FunctionArguments::List(list) = &mut function.args else { return };
    for clause in &mut list.clauses {
        if let FunctionArgumentClause::OrderBy(order_by) = clause {
            let mut known = HashSet::new();
            order_by.retain(|OrderByExpr { expr, .. }| !is_number(expr) && known.insert(expr.to_string()));
        }
    }
    list.clauses.retain(|clause| !matches!(clause, FunctionArgumentClause::OrderBy(order_by) if order_by.is_empty()));
}

/// Returns `array_sort(array_agg(DISTINCT x), 'DESC')` for `array_agg(DISTINCT x ORDER BY x DESC)`. The engine ignores
/// the order if the statement contains another ordered aggregate.
fn sort_distinct(function: &mut Function) -> Option<Expr> {
    let is_array_agg = function.name.to_string().eq_ignore_ascii_case("array_agg");
    let FunctionArguments::List(list) = &mut function.args else { return None };
    if !is_array_agg || list.duplicate_treatment != Some(DuplicateTreatment::Distinct) {
        return None;
    }
    let [FunctionArg::Unnamed(FunctionArgExpr::Expr(value))] = list.args.as_slice() else { return None };
    let [FunctionArgumentClause::OrderBy(order_by)] = list.clauses.as_slice() else { return None };
    let [OrderByExpr { expr, options, .. }] = order_by.as_slice() else { return None };
    if expr != value {
        return None;
    }
    let is_ascending = options.asc.unwrap_or(true);
    let order = if is_ascending { "ASC" } else { "DESC" };
    let nulls = if options.nulls_first.unwrap_or(!is_ascending) { "NULLS FIRST" } else { "NULLS LAST" };
    list.clauses.clear();
    Some(call_expr("array_sort", vec![Expr::Function(function.clone()), text(order), text(nulls)]))
}

fn is_number(expr: &Expr) -> bool {
    match expr {
        Expr::Value(ValueWithSpan { value: Value::Number(..), .. }) => true,
        Expr::Nested(inner) | Expr::UnaryOp { op: UnaryOperator::Plus | UnaryOperator::Minus, expr: inner } => {
            is_number(inner)
        }
        _ => false,
    }
}

fn rewrite_call(function: &mut Function) {
    let [name] = function.name.0.as_slice() else { return };
    let is_named = |known: &str| name.as_ident().is_some_and(|name| name.value.eq_ignore_ascii_case(known));
    let is_list_agg = is_named("listagg");
    let is_ordered_string_agg = is_named("string_agg") && !function.within_group.is_empty();
    if !is_list_agg && !is_ordered_string_agg {
        return;
    }
    let FunctionArguments::List(list) = &mut function.args else { return };
    if is_list_agg {
        function.name = ObjectName::from(vec![Ident::new("string_agg")]);
        if list.args.len() == 1 {
            list.args.push(FunctionArg::Unnamed(FunctionArgExpr::Expr(text(""))));
        }
        // ON OVERFLOW ERROR can be omitted, because a result that is too long always causes an error.
        let is_error = |clause: &FunctionArgumentClause| {
            matches!(clause, FunctionArgumentClause::OnOverflow(ListAggOnOverflow::Error))
        };
        list.clauses.retain(|clause| !is_error(clause));
    }
    // The planner refuses WITHIN GROUP together with ORDER BY or OVER, so calls with these clauses are left unchanged.
    if !function.within_group.is_empty() && list.clauses.is_empty() && function.over.is_none() {
        list.clauses.push(FunctionArgumentClause::OrderBy(std::mem::take(&mut function.within_group)));
    }
}
