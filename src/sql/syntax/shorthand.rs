//! Rewrites standard SQL clauses into equivalent ones that DataFusion supports.
//!
//! ```text
//!   FETCH FIRST n ROWS ONLY          ─►  LIMIT n
//!   ORDER BY (1)                     ─►  ORDER BY 1
//!   (… ORDER BY x OFFSET n)          ─►  (… ORDER BY x LIMIT 1000000000000 OFFSET n)
//!   ORDER BY x … WITH TIES           ─►  QUALIFY rank() OVER (ORDER BY x) <= n
//!   GROUP BY ROLLUP (1), CUBE (1)…   ─►  the expression of the select list
//!   EXISTS (SELECT * …)              ─►  EXISTS (SELECT 1 …)
//!   (a, b) IN (…), (a, b) < (c, d)   ─►  comparisons of columns (see `row_comparisons`)
//! ```

use std::ops::ControlFlow;

use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Fetch, GroupByExpr, LimitClause, Offset, OffsetRows, OrderBy, OrderByExpr, OrderByKind,
    Query, Select, SelectItem, SetExpr, Value, VisitMut as _, VisitorMut, WindowSpec, WindowType,
};

use crate::error::{Error, Result};
use crate::sql::ROWS_UNLIMITED;
use crate::sql::syntax::row_comparisons::RowComparisons;
use crate::sql::syntax::tree::{binary, call, flow, name_of, nested, ordinal, query_of, value};

/// The maximum number of grouping sets in one GROUP BY clause. The engine computes all sets of a batch at once.
const GROUPING_SETS_MAX: usize = 128;

/// Rewrites the unsupported clauses in a statement and its subqueries.
pub(crate) fn rewrite(statement: &mut Statement) -> Result<()> {
    let Some(query) = query_of(statement) else { return Ok(()) };
    flow(query.visit(&mut Shorthand::default()))
}

#[derive(Default)]
struct Shorthand {
    rows: RowComparisons,
    /// The number of queries around the visited query, including the query itself.
    depth: usize,
}

impl VisitorMut for Shorthand {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        self.depth += 1;
        if let Some(fetch) = query.fetch.take() {
            to_flow(rewrite_fetch(query, fetch))?;
        }
        if self.depth > 1 {
            limit_offset(query);
        }
        if let Some(OrderBy { kind: OrderByKind::Expressions(order_by), .. }) = &mut query.order_by {
            order_by.iter_mut().for_each(|order| without_parentheses(&mut order.expr));
        }
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<Error> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Error> {
        self.rows.rewrite_filters(select);
        to_flow(replace_ordinals(select))
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        if let Expr::Exists { subquery, .. } = expr {
            drop_columns(subquery);
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        to_flow(self.rows.rewrite(expr))
    }
}

/// Replaces `(1)` with `1`, because the engine would treat `(1)` as a constant instead of a position.
fn without_parentheses(expr: &mut Expr) {
    let mut inner = &*expr;
    while let Expr::Nested(nested) = inner {
        inner = nested;
    }
    if ordinal(inner).is_some() {
        *expr = inner.clone();
    }
}

fn to_flow(result: Result<()>) -> ControlFlow<Error> {
    result.map_or_else(ControlFlow::Break, ControlFlow::Continue)
}

/// Replaces `EXISTS (SELECT * …)` with `EXISTS (SELECT 1 …)`, because the engine would confuse columns with the same
/// name.
fn drop_columns(subquery: &mut Query) {
    let SetExpr::Select(select) = &mut *subquery.body else { return };
    let is_wildcard = |item: &SelectItem| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..));
    let is_grouped = match &select.group_by {
        GroupByExpr::All(_) => true,
        GroupByExpr::Expressions(groups, _) => !groups.is_empty(),
    };
    let is_plain = select.distinct.is_none() && !is_grouped && select.having.is_none() && select.qualify.is_none();
    if is_plain
        && !select.from.is_empty()
        && subquery.order_by.is_none()
        && subquery.pipe_operators.is_empty()
        && select.projection.iter().all(is_wildcard)
    {
        select.projection = vec![SelectItem::UnnamedExpr(value(Value::Number("1".into(), false)))];
    }
}

/// Adds the limit `ROWS_UNLIMITED` to a subquery with ORDER BY and OFFSET. Without a limit, the engine would remove the
/// sort, and OFFSET would skip the wrong rows.
fn limit_offset(query: &mut Query) {
    if query.order_by.is_none() {
        return;
    }
    if let Some(LimitClause::LimitOffset { limit: limit @ None, offset: Some(_), limit_by }) = &mut query.limit_clause
        && limit_by.is_empty()
    {
        *limit = Some(value(Value::Number(ROWS_UNLIMITED.to_string(), false)));
    }
}

fn rewrite_fetch(query: &mut Query, fetch: Fetch) -> Result<()> {
    let Fetch { with_ties, percent, quantity } = fetch;
    if percent {
        return Err(Error::unsupported("FETCH with PERCENT is not supported: use FETCH FIRST n ROWS ONLY"));
    }
    let quantity = quantity.unwrap_or_else(|| value(Value::Number("1".into(), false)));
    let offset = match query.limit_clause.take() {
        None => None,
        Some(LimitClause::LimitOffset { limit: None, offset, limit_by }) if limit_by.is_empty() => offset,
        Some(_) => return Err(Error::invalid("FETCH and LIMIT cannot be combined: use one of them")),
    };
    let limit = if with_ties {
        add_rank_filter(query, quantity, offset.as_ref())?;
        None
    } else {
        Some(quantity)
    };
    if limit.is_some() || offset.is_some() {
        query.limit_clause = Some(LimitClause::LimitOffset { limit, offset, limit_by: Vec::new() });
    }
    Ok(())
}

/// Implements WITH TIES: adds a QUALIFY condition on the rank of a row.
fn add_rank_filter(query: &mut Query, quantity: Expr, offset: Option<&Offset>) -> Result<()> {
    let refusal = |part: &str| {
        Err(Error::unsupported(format!("FETCH … WITH TIES after {part} is not supported: select from a subquery")))
    };
    let Some(OrderBy { kind: OrderByKind::Expressions(order_by), .. }) = &query.order_by else {
        return Err(Error::invalid("FETCH … WITH TIES needs ORDER BY with a list of expressions"));
    };
    let SetExpr::Select(select) = &mut *query.body else { return refusal("a set operation") };
    if select.distinct.is_some() {
        return refusal("DISTINCT");
    }
    if select.qualify.is_some() {
        return refusal("QUALIFY");
    }
    let order_by = order_by.iter().map(|order| input_order(order, &select.projection)).collect::<Result<_>>()?;
    let window = WindowSpec { window_name: None, partition_by: Vec::new(), order_by, window_frame: None };
    let mut rank = call("rank", Vec::new());
    rank.over = Some(WindowType::WindowSpec(window));
    let last = match offset {
        Some(Offset { value, rows: OffsetRows::None | OffsetRows::Row | OffsetRows::Rows }) => {
            binary(nested(quantity), BinaryOperator::Plus, nested(value.clone()))
        }
        None => nested(quantity),
    };
    select.qualify = Some(binary(Expr::Function(rank), BinaryOperator::LtEq, last));
    Ok(())
}

/// Replaces a position or output name in ORDER BY with its expression, because a window function cannot refer to
/// positions and output names.
fn input_order(order: &OrderByExpr, items: &[SelectItem]) -> Result<OrderByExpr> {
    let mut order = order.clone();
    if let Some(position) = ordinal(&order.expr) {
        order.expr = item_at(items, position, "ORDER BY")?.clone();
    } else if let Expr::Identifier(ident) = &order.expr {
        let name = name_of(ident);
        let aliased = items.iter().find_map(|item| match item {
            SelectItem::ExprWithAlias { expr, alias } if name_of(alias) == name => Some(expr.clone()),
            _ => None,
        });
        order.expr = aliased.unwrap_or(order.expr);
    }
    Ok(order)
}

/// Replaces each position inside ROLLUP, CUBE and GROUPING SETS with the select item at that position. Otherwise, the
/// engine would treat `1` in `ROLLUP (1)` as a constant.
fn replace_ordinals(select: &mut Select) -> Result<()> {
    let GroupByExpr::Expressions(groups, _) = &mut select.group_by else { return Ok(()) };
    check_grouping_sets(groups)?;
    for group in groups {
        let (Expr::Rollup(sets) | Expr::Cube(sets) | Expr::GroupingSets(sets)) = group else { continue };
        for expr in sets.iter_mut().flatten() {
            if let Some(position) = ordinal(expr) {
                *expr = item_at(&select.projection, position, "GROUP BY")?.clone();
            }
        }
    }
    Ok(())
}

/// One element of a GROUP BY clause, with the number of its expressions or sets.
pub(crate) enum GroupElement {
    Expression,
    Cube(usize),
    Rollup(usize),
    GroupingSets(usize),
}

fn check_grouping_sets(groups: &[Expr]) -> Result<()> {
    check_group_elements(groups.iter().map(|group| match group {
        Expr::Cube(sets) => GroupElement::Cube(sets.len()),
        Expr::Rollup(sets) => GroupElement::Rollup(sets.len()),
        Expr::GroupingSets(sets) => GroupElement::GroupingSets(sets.len()),
        _ => GroupElement::Expression,
    }))
}

/// Refuses a GROUP BY clause with too many grouping sets. The number of sets doubles with each expression in CUBE.
pub(crate) fn check_group_elements(elements: impl Iterator<Item = GroupElement>) -> Result<()> {
    let sets = elements.fold(1_usize, |total, element| {
        let sets = match element {
            GroupElement::Cube(sets) => u32::try_from(sets).ok().and_then(|sets| 2_usize.checked_pow(sets)),
            GroupElement::Rollup(sets) => Some(sets + 1),
            GroupElement::GroupingSets(sets) => Some(sets),
            GroupElement::Expression => Some(1),
        };
        total.saturating_mul(sets.unwrap_or(usize::MAX))
    });
    if sets > GROUPING_SETS_MAX {
        return Err(Error::limited(format!(
            "GROUP BY has more than {GROUPING_SETS_MAX} grouping sets: list the sets that you need in GROUPING SETS"
        )));
    }
    Ok(())
}

/// Returns the expression at a position of the select list, counted from 1.
fn item_at<'a>(items: &'a [SelectItem], position: usize, clause: &str) -> Result<&'a Expr> {
    let before = items.get(..position).unwrap_or(items);
    let is_wildcard = |item: &SelectItem| matches!(item, SelectItem::Wildcard(_) | SelectItem::QualifiedWildcard(..));
    if before.iter().any(is_wildcard) {
        return Err(Error::unsupported(format!("{clause} {position} after * is not supported: name the column")));
    }
    match position.checked_sub(1).and_then(|index| items.get(index)) {
        Some(SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) => Ok(expr),
        _ => Err(Error::invalid(format!("{clause} position {position} is not in the select list"))),
    }
}
