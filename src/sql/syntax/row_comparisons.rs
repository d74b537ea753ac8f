//! Rewrites comparisons of rows, such as `(a, b) IN ((1, 2), (3, 4))`, into comparisons of columns, and BETWEEN SYMMETRIC
//! into two BETWEENs.
//!
//! The engine compares rows as structs, and treats a null inside a struct as an ordinary value. In the engine, `(1,
//! NULL) = (1, 2)` is false instead of unknown, so a negated comparison would return too many rows.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArguments, Ident, Join, Query, Select,
    SelectItem, SetExpr, TableAlias, TableAliasColumnDef, TableFactor, Value, Visit as _, Visitor,
};

use crate::error::{Error, Result};
use crate::sql::syntax::token_rewrites::SYMMETRIC_BOUND;
use crate::sql::syntax::tree::{binary, flow, last_name_of, nested, not, query, select, table, value};

/// The maximum number of expressions that the rewrites may add to a statement.
const ADDED_MAX: usize = 50_000;
/// The alias of a subquery in a row comparison.
const ROWS: &str = "__rows";

/// Rewrites the comparisons of rows in one statement.
#[derive(Debug, Default)]
pub(in crate::sql::syntax) struct RowComparisons {
    /// The number of expressions that have been added so far.
    added: usize,
}

impl RowComparisons {
    /// Rewrites a comparison whose operands have already been rewritten.
    pub(in crate::sql::syntax) fn rewrite(&mut self, expr: &mut Expr) -> Result<()> {
        let rewritten = match &*expr {
            Expr::InList { expr: left, list, negated } => {
                let Some(left) = row(left) else { return Ok(()) };
                let mut tests = Vec::with_capacity(list.len());
                for right in list.iter() {
                    let right = row(right).ok_or_else(unequal)?;
                    self.count(left)?;
                    self.count(right)?;
                    tests.push(compare(left, &BinaryOperator::Eq, right)?);
                }
                let found = balanced(tests, &BinaryOperator::Or).unwrap_or_else(|| value(Value::Boolean(false)));
                if *negated { not(found) } else { nested(found) }
            }
            Expr::BinaryOp { left, op, right } if is_comparison(op) => {
                let (Some(left), Some(right)) = (row(left), row(right)) else { return Ok(()) };
                self.count(left)?;
                self.count(right)?;
                nested(compare(left, op, right)?)
            }
            Expr::IsDistinctFrom(left, right) | Expr::IsNotDistinctFrom(left, right) => {
                let (Some(left), Some(right)) = (row(left), row(right)) else { return Ok(()) };
                let same = not_distinct(left, right)?;
                if matches!(expr, Expr::IsDistinctFrom(..)) { not(same) } else { nested(same) }
            }
            // IS NULL and IS NOT NULL are true for a row only if they are true for all its columns.
            Expr::IsNull(of) | Expr::IsNotNull(of) if row(of).is_some() => {
                let columns = row(of).unwrap_or_default();
                let tests = match &*expr {
                    Expr::IsNull(_) => columns.iter().map(|column| Expr::IsNull(boxed(column))).collect(),
                    _ => columns.iter().map(|column| Expr::IsNotNull(boxed(column))).collect(),
                };
                nested(balanced(tests, &BinaryOperator::And).unwrap_or_else(|| value(Value::Boolean(true))))
            }
            Expr::InSubquery { expr: left, .. } if row(left).is_some() => {
                return Err(Error::unsupported(
                    "IN with a row and a subquery is not supported here: use EXISTS or NOT EXISTS with a comparison of \
                     each column, in WHERE",
                ));
            }
            Expr::Between { expr: tested, negated, low, high } if symmetric_bound(low).is_some() => {
                let low = symmetric_bound(low).unwrap_or(low);
                [&**tested, low, &**high]
                    .into_iter()
                    .try_for_each(|copied| self.count(std::slice::from_ref(copied)))?;
                let range = |low: &Expr, high: &Expr| Expr::Between {
                    expr: tested.clone(),
                    negated: false,
                    low: boxed(low),
                    high: boxed(high),
                };
                let either = binary(nested(range(low, high)), BinaryOperator::Or, nested(range(high, low)));
                if *negated { not(either) } else { nested(either) }
            }
            Expr::Between { expr: left, .. } if row(left).is_some() => {
                return Err(Error::unsupported("BETWEEN with rows is not supported: use <= and >="));
            }
            _ => return Ok(()),
        };
        *expr = rewritten;
        Ok(())
    }

    /// Rewrites conditions such as `(a, b) IN (SELECT …)` in WHERE and ON, where unknown has the same effect as false.
    pub(in crate::sql::syntax) fn rewrite_filters(&mut self, select: &mut Select) {
        if let Some(selection) = &mut select.selection {
            rewrite_filter(selection);
        }
        for Join { join_operator, .. } in select.from.iter_mut().flat_map(|tree| &mut tree.joins) {
            use datafusion::sql::sqlparser::ast::{JoinConstraint::On, JoinOperator as Op};
            if let Op::Join(On(on)) | Op::Inner(On(on)) = join_operator {
                rewrite_filter(on);
            }
        }
    }

    /// Counts the subexpressions in `exprs`, and fails if the total exceeds [`ADDED_MAX`].
    fn count(&mut self, exprs: &[Expr]) -> Result<()> {
        struct Count<'a>(&'a mut usize);
        impl Visitor for Count<'_> {
            type Break = Error;

            fn pre_visit_expr(&mut self, _: &Expr) -> ControlFlow<Error> {
                *self.0 += 1;
                if *self.0 <= ADDED_MAX {
                    return ControlFlow::Continue(());
                }
                ControlFlow::Break(Error::limited(
                    "the statement compares too many rows: use a join with VALUES instead of IN",
                ))
            }
        }
        exprs.iter().try_for_each(|expr| flow(expr.visit(&mut Count(&mut self.added))))
    }
}

fn rewrite_filter(expr: &mut Expr) {
    match expr {
        Expr::Nested(inner) => rewrite_filter(inner),
        Expr::BinaryOp { left, op: BinaryOperator::And | BinaryOperator::Or, right } => {
            rewrite_filter(left);
            rewrite_filter(right);
        }
        Expr::InSubquery { expr: left, subquery, negated } => {
            if let Some(left) = row(left) {
                *expr = exists(left, subquery, *negated);
            }
        }
        _ => {}
    }
}

/// Returns `EXISTS (SELECT 1 FROM (subquery) rows (c1, c2) WHERE c1 = a AND c2 = b)`. For NOT IN, returns a condition
/// that is true only if the comparison with each row of the subquery is false, and not unknown.
fn exists(left: &[Expr], subquery: &Query, negated: bool) -> Expr {
    let names: Vec<_> = (1..=left.len()).map(|column| Ident::new(format!("__column_{column}"))).collect();
    let column = |name: &Ident| Expr::CompoundIdentifier(vec![Ident::new(ROWS), name.clone()]);
    let tests = left.iter().zip(&names).map(|(left, name)| {
        let equal = binary(column(name), BinaryOperator::Eq, nested(left.clone()));
        if negated { Expr::IsNotFalse(Box::new(nested(equal))) } else { equal }
    });
    let selection = balanced(tests.collect(), &BinaryOperator::And);
    let columns = names.iter().map(|name| TableAliasColumnDef::from_name(name.value.clone())).collect();
    let alias = Some(TableAlias { explicit: true, name: Ident::new(ROWS), columns, at: None });
    let rows = TableFactor::Derived { lateral: false, subquery: Box::new(subquery.clone()), alias, sample: None };
    let items = vec![SelectItem::UnnamedExpr(value(Value::Number("1".into(), false)))];
    let found = query(SetExpr::Select(Box::new(select(items, vec![table(rows)], selection))));
    Expr::Exists { subquery: Box::new(found), negated }
}

/// Returns the columns of a row expression, or `None` for any other expression.
fn row(expr: &Expr) -> Option<&[Expr]> {
    match expr {
        Expr::Tuple(columns) if columns.len() > 1 => Some(columns),
        Expr::Nested(inner) => row(inner),
        _ => None,
    }
}

/// Returns `a` if `low` is the marker that `token_rewrites` inserts into `BETWEEN SYMMETRIC a AND b`.
fn symmetric_bound(low: &Expr) -> Option<&Expr> {
    let Expr::Function(Function { name, args: FunctionArguments::List(list), .. }) = low else { return None };
    match list.args.as_slice() {
        [FunctionArg::Unnamed(FunctionArgExpr::Expr(bound))]
            if last_name_of(name).as_deref() == Some(SYMMETRIC_BOUND) =>
        {
            Some(bound)
        }
        _ => None,
    }
}

fn unequal() -> Error {
    Error::invalid("the compared rows do not have the same number of columns")
}

fn boxed(expr: &Expr) -> Box<Expr> {
    Box::new(nested(expr.clone()))
}

fn is_comparison(op: &BinaryOperator) -> bool {
    use BinaryOperator::{Eq, Gt, GtEq, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq)
}

/// Compares two rows column by column. Columns that are rows themselves are compared in the same way.
fn compare(left: &[Expr], op: &BinaryOperator, right: &[Expr]) -> Result<Expr> {
    if left.len() != right.len() {
        return Err(unequal());
    }
    let compare_one = |op: &BinaryOperator, index: usize| match (row(&left[index]), row(&right[index])) {
        (Some(left), Some(right)) => compare(left, op, right).map(nested),
        (None, None) => Ok(binary(nested(left[index].clone()), op.clone(), nested(right[index].clone()))),
        _ => Err(unequal()),
    };
    let all = |op: &BinaryOperator, chain: &BinaryOperator| {
        let tests = (0..left.len()).map(|index| compare_one(op, index)).collect::<Result<_>>()?;
        Ok(balanced(tests, chain).unwrap_or_else(|| value(Value::Boolean(true))))
    };
    let strict = match op {
        BinaryOperator::Eq => return all(op, &BinaryOperator::And),
        BinaryOperator::NotEq => return all(op, &BinaryOperator::Or),
        BinaryOperator::LtEq => BinaryOperator::Lt,
        BinaryOperator::GtEq => BinaryOperator::Gt,
        op => op.clone(),
    };
    // The first pair of columns that differ determines the result.
    let last = left.len() - 1;
    (0..last).rev().try_fold(compare_one(op, last)?, |rest, index| {
        let equal = binary(compare_one(&BinaryOperator::Eq, index)?, BinaryOperator::And, nested(rest));
        Ok(binary(compare_one(&strict, index)?, BinaryOperator::Or, nested(equal)))
    })
}

/// Returns `left IS NOT DISTINCT FROM right` for two rows, column by column.
fn not_distinct(left: &[Expr], right: &[Expr]) -> Result<Expr> {
    if left.len() != right.len() {
        return Err(unequal());
    }
    let pairs = left.iter().zip(right).map(|(left, right)| match (row(left), row(right)) {
        (Some(left), Some(right)) => not_distinct(left, right).map(nested),
        (None, None) => Ok(Expr::IsNotDistinctFrom(boxed(left), boxed(right))),
        _ => Err(unequal()),
    });
    let same = balanced(pairs.collect::<Result<_>>()?, &BinaryOperator::And);
    Ok(same.unwrap_or_else(|| value(Value::Boolean(true))))
}

/// Combines conditions with a logical operator into a balanced tree. A chain would need too much stack space.
fn balanced(mut tests: Vec<Expr>, op: &BinaryOperator) -> Option<Expr> {
    while tests.len() > 1 {
        let mut pairs = Vec::with_capacity(tests.len().div_ceil(2));
        let mut rest = tests.into_iter();
        while let Some(left) = rest.next() {
            pairs.push(match rest.next() {
                Some(right) => binary(nested(left), op.clone(), nested(right)),
                None => left,
            });
        }
        tests = pairs;
    }
    tests.pop()
}
