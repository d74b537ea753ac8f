//! Refuses aggregates in the WHERE and ON clauses of subqueries.
//!
//! In `SELECT k, (SELECT max(b.y) FROM b WHERE b.y < count(a.x)) FROM a GROUP BY k`, the function `count` is an
//! aggregate of the outer query, because it refers only to columns of that query. The planner does not support such
//! aggregates. `decorrelate/outer_aggregates.rs` finds them in all other clauses.

use std::ops::ControlFlow;

use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    Expr, JoinConstraint, JoinOperator, Query, Select, Visit as _, VisitMut as _, Visitor, VisitorMut,
};

use crate::error::{Error, Result};
use crate::sql::syntax::tree::{flow, query_of};

/// Refuses a statement with a subquery that has an aggregate in WHERE or ON. `is_aggregate` returns true for the name
/// of an aggregate function.
pub(super) fn check(statement: &mut Statement, is_aggregate: &dyn Fn(&str) -> bool) -> Result<()> {
    let Some(query) = query_of(statement) else { return Ok(()) };
    flow(query.visit(&mut Subqueries { is_aggregate, depth: 0 }))
}

struct Subqueries<'a> {
    is_aggregate: &'a dyn Fn(&str) -> bool,
    /// The number of queries around the visited node.
    depth: usize,
}

impl VisitorMut for Subqueries<'_> {
    type Break = Error;

    fn pre_visit_query(&mut self, _: &mut Query) -> ControlFlow<Error> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<Error> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Error> {
        if self.depth < 2 {
            return ControlFlow::Continue(());
        }
        let joins = select.from.iter().flat_map(|table| &table.joins);
        let mut conditions = joins.filter_map(|join| condition(&join.join_operator)).chain(&select.selection);
        conditions
            .try_for_each(|condition| condition.visit(&mut Aggregates { is_aggregate: self.is_aggregate, depth: 0 }))
    }
}

fn condition(operator: &JoinOperator) -> Option<&Expr> {
    match operator {
        JoinOperator::Join(JoinConstraint::On(condition))
        | JoinOperator::Inner(JoinConstraint::On(condition))
        | JoinOperator::Left(JoinConstraint::On(condition))
        | JoinOperator::LeftOuter(JoinConstraint::On(condition))
        | JoinOperator::Right(JoinConstraint::On(condition))
        | JoinOperator::RightOuter(JoinConstraint::On(condition))
        | JoinOperator::FullOuter(JoinConstraint::On(condition)) => Some(condition),
        _ => None,
    }
}

/// A visitor that finds aggregates in a condition, but not in the subqueries of the condition.
struct Aggregates<'a> {
    is_aggregate: &'a dyn Fn(&str) -> bool,
    depth: usize,
}

impl Visitor for Aggregates<'_> {
    type Break = Error;

    fn pre_visit_query(&mut self, _: &Query) -> ControlFlow<Error> {
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &Query) -> ControlFlow<Error> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Error> {
        let Expr::Function(function) = expr else { return ControlFlow::Continue(()) };
        let name = function.name.to_string().to_lowercase();
        if self.depth > 0 || function.over.is_some() || !(self.is_aggregate)(&name) {
            return ControlFlow::Continue(());
        }
        ControlFlow::Break(Error::unsupported(format!(
            "the aggregate `{name}` in the WHERE or ON clause of a subquery is not supported: use HAVING, or compute an \
             aggregate of the outer query in a subquery in FROM"
        )))
    }
}
