//! Rewrites `JOIN … USING (…)` and `NATURAL JOIN` into joins with ON.
//!
//! ```text
//!   SELECT k, x FROM a FULL JOIN b USING (k)  ─►  SELECT coalesce(a.k, b.k) AS k, x FROM a FULL JOIN b ON a.k = b.k
//! ```
//!
//! Without the rewrite, DataFusion would use the left table's column as the merged column. This column is null in rows
//! that exist only in the right table. In some clauses, DataFusion would also refuse the column name as ambiguous.
//! After the rewrite, the merged column is the left column for INNER and LEFT joins, the right column for RIGHT joins,
//! and `coalesce(left, right)` for FULL joins. `a.k` remains the column of `a`. `*` returns the merged columns first,
//! then the other columns of the left table, then the other columns of the right table.

use std::ops::ControlFlow;

use datafusion::execution::session_state::SessionState;
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Cte, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, Join, JoinConstraint,
    JoinOperator, OrderBy, PipeOperator, Query, Select, SetExpr, TableAlias, TableFactor, TableWithJoins, Value,
    Visit as _, Visitor, VisitorMut,
};

use crate::error::{Error, Result};
use crate::sql::syntax::from_columns::FromColumns;
use crate::sql::syntax::merged_columns::{MergedColumns, relation_name};
use crate::sql::syntax::tree::{
    binary, call, call_expr, name_of, query, query_of, quoted, select as new_select, value, visit, visit_clauses,
    wildcard,
};
use crate::sql::syntax::wildcards::{self, ScopeColumn};

/// Rewrites each USING and NATURAL join in a statement into a join with ON.
pub(crate) fn rewrite(statement: &mut Statement, state: &SessionState) -> Result<()> {
    let Some(query) = query_of(statement) else { return Ok(()) };
    if is_without_using(query) {
        return Ok(());
    }
    UsingJoins { columns: FromColumns::new(state), unnamed: 0 }.query(query)?;
    if is_without_using(query) {
        return Ok(());
    }
    Err(Error::unsupported("USING and NATURAL are not supported in this part of a statement: use ON"))
}

/// The columns of a FROM clause, in the order in which `*` returns them.
#[derive(Default)]
struct Scope {
    columns: Vec<ScopeColumn>,
    /// The name and the columns of each table.
    relations: Vec<(String, Vec<String>)>,
}

fn is_without_using(query: &Query) -> bool {
    query.visit(&mut FindUsing).is_continue()
}

/// A visitor that stops at the first join with USING or NATURAL.
struct FindUsing;

impl Visitor for FindUsing {
    type Break = ();

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
        let is_using = query.pipe_operators.iter().any(|operator| match operator {
            PipeOperator::Join(join) => is_using(join),
            _ => false,
        });
        if is_using { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<()> {
        if select.from.iter().any(has_using) { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    }
}

/// Returns true if a FROM item contains a join with USING or NATURAL outside its subqueries.
fn has_using(tree: &TableWithJoins) -> bool {
    is_using_nested(&tree.relation) || tree.joins.iter().any(is_using)
}

fn is_using(join: &Join) -> bool {
    let constraint = constraint_of(&join.join_operator);
    matches!(constraint, Some(JoinConstraint::Using(_) | JoinConstraint::Natural)) || is_using_nested(&join.relation)
}

fn is_using_nested(relation: &TableFactor) -> bool {
    matches!(relation, TableFactor::NestedJoin { table_with_joins, .. } if has_using(table_with_joins))
}

/// Returns the constraint of a join, or `None` if the planner does not support this kind of join.
fn constraint_of(operator: &JoinOperator) -> Option<&JoinConstraint> {
    use JoinOperator as Op;
    match operator {
        Op::Join(constraint) | Op::Inner(constraint) | Op::CrossJoin(constraint) | Op::StraightJoin(constraint) => {
            Some(constraint)
        }
        Op::Left(constraint) | Op::LeftOuter(constraint) | Op::Right(constraint) | Op::RightOuter(constraint) => {
            Some(constraint)
        }
        Op::FullOuter(constraint) | Op::Semi(constraint) | Op::LeftSemi(constraint) | Op::RightSemi(constraint) => {
            Some(constraint)
        }
        Op::Anti(constraint) | Op::LeftAnti(constraint) | Op::RightAnti(constraint) => Some(constraint),
        Op::AsOf { constraint, .. } => Some(constraint),
        Op::CrossApply | Op::OuterApply | Op::ArrayJoin | Op::LeftArrayJoin | Op::InnerArrayJoin => None,
    }
}

/// Returns `coalesce(left, right)`. If `left` is already a `coalesce` for another FULL JOIN, appends `right` to its
/// arguments, because the engine would duplicate a nested `coalesce` in the plan.
fn coalesce(left: Expr, right: Expr) -> Expr {
    match left {
        Expr::Function(Function { args: FunctionArguments::List(mut list), name, .. }) => {
            list.args.push(FunctionArg::Unnamed(FunctionArgExpr::Expr(right)));
            let merged = call(&name.to_string(), Vec::new());
            Expr::Function(Function { args: FunctionArguments::List(list), ..merged })
        }
        left => call_expr("coalesce", vec![left, right]),
    }
}

/// Returns the join with `constraint` instead of its own constraint. Returns `None` for a kind of join that cannot have
/// USING.
fn with_constraint(operator: &JoinOperator, constraint: JoinConstraint) -> Option<JoinOperator> {
    use JoinOperator as Op;
    Some(match operator {
        Op::Join(_) | Op::Inner(_) => Op::Inner(constraint),
        Op::Left(_) | Op::LeftOuter(_) => Op::LeftOuter(constraint),
        Op::Right(_) | Op::RightOuter(_) => Op::RightOuter(constraint),
        Op::FullOuter(_) => Op::FullOuter(constraint),
        Op::LeftSemi(_) => Op::LeftSemi(constraint),
        Op::RightSemi(_) => Op::RightSemi(constraint),
        Op::LeftAnti(_) => Op::LeftAnti(constraint),
        Op::RightAnti(_) => Op::RightAnti(constraint),
        _ => return None,
    })
}

struct UsingJoins<'a> {
    columns: FromColumns<'a>,
    /// The number of FROM items that were given a generated alias.
    unnamed: usize,
}

/// A visitor that rewrites the subqueries of expressions.
struct Subqueries<'a, 'b> {
    joins: &'a mut UsingJoins<'b>,
    depth: usize,
}

impl VisitorMut for Subqueries<'_, '_> {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        if self.depth == 0
            && let Err(error) = self.joins.query(query)
        {
            return ControlFlow::Break(error);
        }
        self.depth += 1;
        ControlFlow::Continue(())
    }

    fn post_visit_query(&mut self, _: &mut Query) -> ControlFlow<Error> {
        self.depth -= 1;
        ControlFlow::Continue(())
    }
}

impl<'b> UsingJoins<'b> {
    fn query(&mut self, query: &mut Query) -> Result<()> {
        let outer = self.columns.len();
        if let Some(with) = &mut query.with {
            for cte in &mut with.cte_tables {
                if with.recursive && cte.query.with.is_none() {
                    self.recursive(cte)?;
                } else {
                    self.query(&mut cte.query)?;
                }
                self.columns.push(cte, with.recursive);
            }
        }
        let done = self.body(&mut query.body, query.order_by.as_mut());
        self.columns.truncate(outer);
        done
    }

    /// Rewrites a WITH query that may be recursive. Inside the recursive term, a reference to the query has the columns
    /// of the non-recursive term.
    fn recursive(&mut self, cte: &mut Cte) -> Result<()> {
        let mut first = cte.clone();
        let SetExpr::SetOperation { left, right, .. } = &mut *cte.query.body else {
            return self.query(&mut cte.query);
        };
        self.body(left, None)?;
        first.query.body.clone_from(left);
        let outer = self.columns.len();
        self.columns.push(&first, true);
        self.body(right, None)?;
        self.columns.truncate(outer);
        Ok(())
    }

    fn body(&mut self, body: &mut SetExpr, order_by: Option<&mut OrderBy>) -> Result<()> {
        match body {
            SetExpr::Select(select) => self.select(select, order_by),
            SetExpr::Query(query) => self.query(query),
            SetExpr::SetOperation { left, right, .. } => {
                self.body(left, None)?;
                self.body(right, None)
            }
            body => visit(body, &mut Subqueries { joins: self, depth: 0 }),
        }
    }

    fn select(&mut self, select: &mut Select, mut order_by: Option<&mut OrderBy>) -> Result<()> {
        let mut subqueries = Subqueries { joins: self, depth: 0 };
        visit(&mut select.from, &mut subqueries)?;
        visit(&mut select.projection, &mut subqueries)?;
        visit_clauses(select, &mut subqueries)?;
        if let Some(order_by) = order_by.as_deref_mut() {
            visit(order_by, &mut subqueries)?;
        }
        if !select.from.iter().any(has_using) {
            return Ok(());
        }
        let mut scope = Scope::default();
        for tree in &mut select.from {
            let next = self.joins(tree, &scope)?;
            scope = scope.and(next);
        }
        wildcards::expand(&mut select.projection, &scope.columns)?;
        let Scope { columns, relations } = &scope;
        self.merged(columns).replace_in_select(select, order_by, relations)
    }

    /// Returns a visitor that replaces the names of merged columns with their expressions.
    fn merged<'a>(&'a mut self, columns: &[ScopeColumn]) -> MergedColumns<'a, 'b> {
        let is_unique = |name: &String| columns.iter().filter(|column| column.name == *name).count() == 1;
        let merged = columns.iter().filter(|column| column.is_merged && is_unique(&column.name));
        let merged = merged.map(|column| (column.name.clone(), column.value.clone())).collect();
        MergedColumns::new(merged, &mut self.columns)
    }

    /// Rewrites the joins in a FROM item. `before` contains the columns of the preceding items, to which LATERAL can
    /// refer.
    fn joins(&mut self, tree: &mut TableWithJoins, before: &Scope) -> Result<Scope> {
        let mut scope = self.relation(&mut tree.relation, &before.columns)?;
        for join in &mut tree.joins {
            let visible: Vec<_> = before.columns.iter().chain(&scope.columns).cloned().collect();
            let right = self.relation(&mut join.relation, &visible)?;
            scope = self.join(scope, right, &mut join.join_operator)?;
        }
        Ok(scope)
    }

    /// Adds an alias to a FROM item without a name, and returns the columns of the item.
    fn relation(&mut self, relation: &mut TableFactor, before: &[ScopeColumn]) -> Result<Scope> {
        let is_lateral = match relation {
            TableFactor::NestedJoin { table_with_joins, alias: None } => {
                return self.joins(table_with_joins, &Scope::default());
            }
            TableFactor::NestedJoin { table_with_joins, alias: Some(alias) } if has_using(table_with_joins) => {
                let mut tree = TableWithJoins::clone(table_with_joins);
                let columns = self.joins(&mut tree, &Scope::default())?.columns;
                let mut items = vec![wildcard()];
                wildcards::expand(&mut items, &columns)?;
                let subquery = Box::new(query(SetExpr::Select(Box::new(new_select(items, vec![tree], None)))));
                let alias = Some(alias.clone());
                *relation = TableFactor::Derived { lateral: false, subquery, alias, sample: None };
                false
            }
            TableFactor::Derived { lateral, .. } | TableFactor::Function { lateral, .. } => *lateral,
            TableFactor::UNNEST { .. } => true,
            _ => false,
        };
        if is_lateral {
            let mut merged = self.merged(before);
            visit(relation, &mut merged)?;
        }
        let qualifier = self.qualifier(relation);
        let names = self.columns.of(relation)?;
        let column = |name: &String| {
            let parts = qualifier.iter().cloned().chain([quoted(name)]).collect();
            ScopeColumn { name: name.clone(), value: Expr::CompoundIdentifier(parts), is_merged: false }
        };
        let columns = names.iter().map(column).collect();
        Ok(Scope { columns, relations: vec![(relation_name(relation).unwrap_or_default(), names)] })
    }

    /// Returns the name that qualifies the columns of a FROM item.
    fn qualifier(&mut self, relation: &mut TableFactor) -> Vec<Ident> {
        let (alias, name) = match relation {
            TableFactor::Table { name, alias: None, args: None, .. } => {
                return name.0.iter().filter_map(|part| part.as_ident()).cloned().collect();
            }
            TableFactor::Table { name, alias, .. } => (alias, name.0.last().and_then(|part| part.as_ident()).cloned()),
            TableFactor::Function { name, alias, .. } => {
                (alias, name.0.last().and_then(|part| part.as_ident()).cloned())
            }
            TableFactor::Derived { alias, .. }
            | TableFactor::UNNEST { alias, .. }
            | TableFactor::NestedJoin { alias, .. } => (alias, None),
            _ => return Vec::new(),
        };
        let unnamed = &mut self.unnamed;
        let alias = alias.get_or_insert_with(|| {
            *unnamed += 1;
            let name = name.unwrap_or_else(|| quoted(format!("__subquery_{unnamed}")));
            TableAlias { explicit: true, name, columns: Vec::new(), at: None }
        });
        vec![alias.name.clone()]
    }

    /// Rewrites one join and returns the columns of its result.
    fn join(&mut self, left: Scope, right: Scope, operator: &mut JoinOperator) -> Result<Scope> {
        let names = match constraint_of(operator) {
            Some(JoinConstraint::Using(names)) => names
                .iter()
                .map(|name| match name.0.as_slice() {
                    [part] => part.as_ident().map(name_of).ok_or_else(|| invalid_name(name)),
                    _ => Err(invalid_name(name)),
                })
                .collect::<Result<Vec<_>>>()?,
            Some(JoinConstraint::Natural) => {
                let is_common = |name: &String| right.columns.iter().any(|column| column.name == *name);
                left.columns.iter().map(|column| column.name.clone()).filter(is_common).collect()
            }
            _ => {
                let both: Vec<_> = left.columns.iter().chain(&right.columns).cloned().collect();
                visit(operator, &mut self.merged(&both))?;
                return Ok(left.beside(right, operator));
            }
        };
        let mut merged = Vec::with_capacity(names.len());
        let mut condition: Option<Expr> = None;
        for name in names {
            let (l, r) = (left.find(&name, "left")?.clone(), right.find(&name, "right")?.clone());
            let equal = binary(l.clone(), BinaryOperator::Eq, r.clone());
            condition = Some(match condition {
                Some(condition) => binary(condition, BinaryOperator::And, equal),
                None => equal,
            });
            let value = match operator {
                JoinOperator::FullOuter(_) => coalesce(l, r),
                JoinOperator::Right(_)
                | JoinOperator::RightOuter(_)
                | JoinOperator::RightSemi(_)
                | JoinOperator::RightAnti(_) => r,
                _ => l,
            };
            merged.push(ScopeColumn { name, value, is_merged: true });
        }
        let on = JoinConstraint::On(condition.unwrap_or_else(|| value(Value::Boolean(true))));
        let rewritten = with_constraint(operator, on);
        *operator = rewritten
            .ok_or_else(|| Error::unsupported("USING and NATURAL are not supported with this kind of join: use ON"))?;
        let mut scope = left.beside(right, operator);
        scope.columns.retain(|column| merged.iter().all(|merged| merged.name != column.name));
        scope.columns.splice(0..0, merged);
        Ok(scope)
    }
}

impl Scope {
    /// Returns the columns of both FROM items.
    fn and(mut self, other: Self) -> Self {
        self.columns.extend(other.columns);
        self.relations.extend(other.relations);
        self
    }

    /// Returns the columns of a join. A semi join or an anti join has the columns of only one side.
    fn beside(self, right: Self, operator: &JoinOperator) -> Self {
        match operator {
            JoinOperator::LeftSemi(_) | JoinOperator::LeftAnti(_) | JoinOperator::Semi(_) | JoinOperator::Anti(_) => {
                self
            }
            JoinOperator::RightSemi(_) | JoinOperator::RightAnti(_) => right,
            _ => self.and(right),
        }
    }

    /// Returns the column with this name, or an error if `side` has no such column or more than one.
    fn find(&self, name: &str, side: &str) -> Result<&Expr> {
        let mut found = self.columns.iter().filter(|column| column.name == name);
        match (found.next(), found.next()) {
            (Some(column), None) => Ok(&column.value),
            (None, _) => Err(Error::invalid(format!(
                "column `{name}` of USING does not exist on the {side} side of the join: use ON if the names differ"
            ))),
            (Some(_), Some(_)) => Err(Error::invalid(format!(
                "column `{name}` appears more than once on the {side} side of the join: use ON with qualified names"
            ))),
        }
    }
}

fn invalid_name(name: &impl std::fmt::Display) -> Error {
    Error::invalid(format!("USING ({name}) is not allowed: list the column names without the table name"))
}
