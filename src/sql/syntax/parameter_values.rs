//! Replaces the placeholders in a syntax tree with bound values.
//!
//! ```text
//!   $1 in the tree ─ substitute ─► a marker ─ the engine's planner calls BoundValuePlanner ─► a typed literal
//! ```
//!
//! The syntax tree has no node for a literal of an arbitrary Arrow type. Each placeholder is therefore replaced with a
//! marker: a dictionary literal `{key: ordinal}` whose key is reserved. [`BoundValuePlanner`] plans a marker as the
//! bound literal. The engine's planner then infers types from this literal.
//!
//! **Invariant:** a bound value keeps its type and its value. The value never becomes part of SQL text.
//! **Invariant:** if a client writes a marker in the text of a statement, the marker is either replaced with a value
//! that this client has bound, or refused with an error.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use datafusion::common::{DFSchema, ScalarValue};
use datafusion::error::{DataFusionError, Result as EngineResult};
use datafusion::logical_expr::Expr as PlanExpr;
use datafusion::logical_expr::expr::Cast;
use datafusion::logical_expr::planner::{ExprPlanner, PlannerResult, RawDictionaryExpr};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    self, DictionaryField, Expr, GroupByExpr, Ident, Query, Select, SelectItem, Value, ValueWithSpan, Visit as _,
    VisitMut as _, Visitor, VisitorMut,
};

use crate::sql::syntax::tree::number;

/// The key of a marker.
const VALUE: &str = "\0bound value";
/// The key of a marker in GROUP BY. Without a separate key, the planner would interpret an integer in GROUP BY as the
/// position of a column.
const GROUP: &str = "\0bound group";

tokio::task_local! {
    /// The bound values for the statement that is being planned.
    static BOUND: Arc<[ScalarValue]>;
}

/// Plans markers as literals.
#[derive(Debug)]
pub(crate) struct BoundValuePlanner;

impl ExprPlanner for BoundValuePlanner {
    fn plan_dictionary_literal(
        &self,
        expr: RawDictionaryExpr,
        _: &DFSchema,
    ) -> EngineResult<PlannerResult<RawDictionaryExpr>> {
        let marker = match (&expr.keys[..], &expr.values[..]) {
            (
                [PlanExpr::Literal(ScalarValue::Utf8(Some(key)), _)],
                [PlanExpr::Literal(ScalarValue::Int64(Some(ordinal)), _)],
            ) if key == VALUE || key == GROUP => Some((key == GROUP, *ordinal)),
            _ => None,
        };
        let Some((is_group, ordinal)) = marker else { return Ok(PlannerResult::Original(expr)) };
        let index = usize::try_from(ordinal).ok().and_then(|ordinal| ordinal.checked_sub(1));
        let value = BOUND.try_with(|values| index.and_then(|index| values.get(index).cloned())).ok().flatten();
        let value = value.ok_or_else(|| DataFusionError::Plan(format!("parameter {ordinal} is not bound")))?;
        let kind = value.data_type();
        let literal = PlanExpr::Literal(value, None);
        Ok(PlannerResult::Planned(if is_group { PlanExpr::Cast(Cast::new(Box::new(literal), kind)) } else { literal }))
    }
}

/// Runs `planning` with `values` as the bound values of its markers.
pub(crate) async fn with_values<T>(values: Arc<[ScalarValue]>, planning: impl Future<Output = T>) -> T {
    BOUND.scope(values, planning).await
}

/// Returns the number of uses of each placeholder in a statement, keyed by the placeholder's name.
pub(crate) fn placeholders(statement: &Statement) -> BTreeMap<String, usize> {
    let mut uses = Uses::default();
    if let Some(statement) = syntax(statement) {
        let _ = statement.visit(&mut uses);
    }
    uses.0
}

/// Adds an alias to each unnamed SELECT column that contains a placeholder. Without the alias, the column name would
/// contain the bound value, and two columns with equal values would have the same name.
pub(crate) fn name_columns(statement: &mut Statement) {
    if let Some(statement) = syntax_mut(statement) {
        let _ = statement.visit(&mut ColumnNames);
    }
}

/// Replaces each placeholder with a marker.
pub(crate) fn substitute(statement: &mut Statement) {
    if let Some(statement) = syntax_mut(statement) {
        let _ = statement.visit(&mut Markers);
    }
}

fn syntax(statement: &Statement) -> Option<&ast::Statement> {
    match statement {
        Statement::Statement(statement) => Some(statement),
        Statement::Explain(explain) => syntax(&explain.statement),
        Statement::CreateExternalTable(_) | Statement::CopyTo(_) | Statement::Reset(_) => None,
    }
}

fn syntax_mut(statement: &mut Statement) -> Option<&mut ast::Statement> {
    match statement {
        Statement::Statement(statement) => Some(statement),
        Statement::Explain(explain) => syntax_mut(&mut explain.statement),
        Statement::CreateExternalTable(_) | Statement::CopyTo(_) | Statement::Reset(_) => None,
    }
}

/// Returns the name of a placeholder, or `None` if the expression is not a placeholder.
fn placeholder(expr: &Expr) -> Option<&str> {
    match expr {
        Expr::Value(ValueWithSpan { value: Value::Placeholder(name), span: _ }) => Some(name),
        _ => None,
    }
}

#[derive(Default)]
struct Uses(BTreeMap<String, usize>);

impl Visitor for Uses {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
        if let Some(name) = placeholder(expr) {
            match self.0.get_mut(name) {
                Some(uses) => *uses += 1,
                None => drop(self.0.insert(name.to_owned(), 1)),
            }
        }
        ControlFlow::Continue(())
    }
}

struct ColumnNames;

impl VisitorMut for ColumnNames {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        let is_distinct = select.distinct.is_some();
        for item in &mut select.projection {
            // In a SELECT DISTINCT, an item with an alias would no longer match the same expression in ORDER BY.
            if let SelectItem::UnnamedExpr(expr) = item
                && (placeholder(expr).is_some() || !is_distinct && has_placeholder(expr))
            {
                let alias = Ident::with_quote('"', expr.to_string());
                *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
            }
        }
        ControlFlow::Continue(())
    }
}

/// Returns true if the expression contains a placeholder outside its subqueries.
fn has_placeholder(expr: &Expr) -> bool {
    struct Search {
        depth: usize,
    }
    impl Visitor for Search {
        type Break = ();

        fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
            self.depth += 1;
            ControlFlow::Continue(())
        }

        fn post_visit_query(&mut self, _: &Query) -> ControlFlow<()> {
            self.depth -= 1;
            ControlFlow::Continue(())
        }

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            match placeholder(expr) {
                Some(_) if self.depth == 0 => ControlFlow::Break(()),
                _ => ControlFlow::Continue(()),
            }
        }
    }
    expr.visit(&mut Search { depth: 0 }).is_break()
}

struct Markers;

impl VisitorMut for Markers {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        if let GroupByExpr::Expressions(items, _) = &mut select.group_by {
            items.iter_mut().for_each(|item| mark(item, GROUP));
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        mark(expr, VALUE);
        ControlFlow::Continue(())
    }
}

/// Replaces the expression with a marker if it is a numbered placeholder.
fn mark(expr: &mut Expr, key: &str) {
    if let Expr::Nested(inner) = expr
        && key == GROUP
    {
        return mark(inner, key);
    }
    let ordinal = placeholder(expr).and_then(|name| name.strip_prefix('$')).filter(|digits| !digits.is_empty());
    if let Some(ordinal) = ordinal.filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit())) {
        *expr = Expr::Dictionary(vec![DictionaryField { key: Ident::new(key), value: Box::new(number(ordinal)) }]);
    }
}
