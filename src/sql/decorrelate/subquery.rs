//! Joins the outer rows with the result of one subquery, and returns the expression that replaces the subquery.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::{Column, JoinType, ScalarValue, not_impl_err, plan_err};
use datafusion::error::Result;
use datafusion::functions::core::expr_fn::coalesce;
use datafusion::functions_aggregate::expr_fn::{count, first_value, max, min};
use datafusion::logical_expr::expr::{SetComparison, SetQuantifier};
use datafusion::logical_expr::type_coercion::binary::comparison_coercion;
use datafusion::logical_expr::{
    Aggregate, BinaryExpr, Distinct, Expr, ExprSchemable as _, Filter, LogicalPlan, LogicalPlanBuilder, Operator,
    Projection, cast, lit, not, when,
};

use super::domain::{Domain, resolve};
use super::keyed_plan::Unnested;
use super::single_row::subquery_value;
use super::{Rewriter, outer_columns};
use crate::sql::functions::decimal_types::wide_decimal;

/// The plan of the outer rows. The result of each subquery is added to it as columns.
struct Outer<'a> {
    rows: &'a mut LogicalPlan,
    /// The distinct keys of the outer rows, or `None` if the subquery has no outer columns.
    domain: Option<Domain>,
}

/// The rows that a subquery returns. Each row has a value and a key.
struct Values {
    plan: Arc<LogicalPlan>,
    keys: Vec<Column>,
    value: Column,
}

/// Returns the columns of the outer rows that a subquery expression uses.
pub(super) fn columns_of(expr: &Expr) -> Result<Vec<Column>> {
    let (operand, plan) = match expr {
        Expr::Exists(test) => (None, &test.subquery.subquery),
        Expr::InSubquery(test) => (Some(&test.expr), &test.subquery.subquery),
        Expr::SetComparison(test) => (Some(&test.expr), &test.subquery.subquery),
        Expr::ScalarSubquery(subquery) => (None, &subquery.subquery),
        _ => return Ok(Vec::new()),
    };
    let mut columns = outer_columns(plan)?;
    if let Some(operand) = operand {
        columns.extend(operand.column_refs().into_iter().cloned());
    }
    Ok(columns)
}

impl Rewriter {
    /// Adds the result of the subquery `expr` to `rows`, and returns the expression that replaces `expr`.
    pub(super) fn attach(&mut self, expr: Expr, rows: &mut LogicalPlan, base: &Arc<LogicalPlan>) -> Result<Expr> {
        match expr {
            Expr::Exists(test) => {
                let exists = self.exists(&test.subquery.subquery, rows, base)?;
                Ok(if test.negated { not(exists) } else { exists })
            }
            Expr::ScalarSubquery(subquery) => self.scalar(&subquery.subquery, rows, base),
            Expr::InSubquery(test) => {
                let found = self.contained(*test.expr, &test.subquery.subquery, rows, base)?;
                Ok(if test.negated { not(found) } else { found })
            }
            Expr::SetComparison(SetComparison { expr, subquery, op, quantifier }) => match (op, quantifier) {
                (Operator::Eq, SetQuantifier::Any) => self.contained(*expr, &subquery.subquery, rows, base),
                (Operator::NotEq, SetQuantifier::All) => self.contained(*expr, &subquery.subquery, rows, base).map(not),
                (op, quantifier) => self.compared(*expr, op, quantifier, &subquery.subquery, rows, base),
            },
            other => plan_err!("{other} is not a subquery"),
        }
    }

    /// Returns the rows of a subquery for each key of the outer rows.
    fn unnested<'a>(
        &mut self,
        subquery: &LogicalPlan,
        rows: &'a mut LogicalPlan,
        base: &Arc<LogicalPlan>,
    ) -> Result<(Outer<'a>, Unnested)> {
        let inner = self.rewrite(subquery.clone(), true)?;
        let columns = resolve(outer_columns(&inner)?, base.schema());
        if columns.is_empty() {
            return Ok((Outer { rows, domain: None }, Unnested { plan: inner, keys: Vec::new() }));
        }
        let domain = Domain::of(base, columns, self)?;
        let unnested = self.unnest(&inner, &domain)?;
        Ok((Outer { rows, domain: Some(domain) }, unnested))
    }

    /// Like `unnested`, but for a subquery with one column.
    fn values<'a>(
        &mut self,
        subquery: &LogicalPlan,
        rows: &'a mut LogicalPlan,
        base: &Arc<LogicalPlan>,
    ) -> Result<(Outer<'a>, Values)> {
        if subquery.schema().fields().len() != 1 {
            return plan_err!(
                "a subquery used as a value must return one column, but this one returns {}",
                subquery.schema().fields().len()
            );
        }
        let (outer, unnested) = self.unnested(subquery, rows, base)?;
        let value = self.fresh();
        let column = Column::from(subquery.schema().qualified_field(0));
        let mut exprs: Vec<_> = unnested.keys.iter().cloned().map(Expr::Column).collect();
        exprs.push(Expr::Column(column).alias(&value));
        let plan = Arc::new(LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(unnested.plan))?));
        Ok((outer, Values { plan, keys: unnested.keys, value: Column::new_unqualified(value) }))
    }

    fn exists(&mut self, subquery: &LogicalPlan, rows: &mut LogicalPlan, base: &Arc<LogicalPlan>) -> Result<Expr> {
        let (outer, unnested) = self.unnested(subquery, rows, base)?;
        let plan = if unnested.keys.is_empty() {
            let row = lit(1_i64).alias(self.fresh());
            LogicalPlanBuilder::from(unnested.plan).project(vec![row])?.limit(0, Some(1))?.build()?
        } else {
            unnested.plan
        };
        let counts = self.aggregated(Arc::new(plan), unnested.keys, vec![count(lit(1_i64))], &[0], outer)?;
        Ok(subquery_value(counts[0].clone().gt(lit(0_i64)), counts[1].clone()))
    }

    fn scalar(&mut self, subquery: &LogicalPlan, rows: &mut LogicalPlan, base: &Arc<LogicalPlan>) -> Result<Expr> {
        let (outer, values) = self.values(subquery, rows, base)?;
        let plan = if values.keys.is_empty() {
            Arc::new(LogicalPlanBuilder::from(values.plan).limit(0, Some(2))?.build()?)
        } else {
            values.plan
        };
        let value = first_value(Expr::Column(values.value), Vec::new());
        let results = self.aggregated(plan, values.keys, vec![count(lit(1_i64)), value], &[0], outer)?;
        Ok(subquery_value(results[1].clone(), results[0].clone()))
    }

    /// Replaces `value IN (subquery)`. The result is true if the subquery returns the value. Otherwise, it is null if
    /// the subquery returns a null, or if the value is null and the subquery returns at least one row. In all other
    /// cases, it is false.
    fn contained(
        &mut self,
        value: Expr,
        subquery: &LogicalPlan,
        rows: &mut LogicalPlan,
        base: &Arc<LogicalPlan>,
    ) -> Result<Expr> {
        let kind = common_type(&value, subquery, rows)?;
        let (outer, values) = self.values(subquery, rows, base)?;
        let Outer { rows, domain } = outer;
        let value = cast(value, kind.clone());
        // The subquery's distinct values other than NULL, which are compared with `value`.
        let (found, item) = (self.fresh(), self.fresh());
        let key_names: Vec<_> = values.keys.iter().map(|_| self.fresh()).collect();
        let column = Expr::Column(values.value.clone());
        let filtered = Filter::try_new(column.clone().is_not_null(), Arc::clone(&values.plan))?;
        let mut exprs: Vec<_> = renamed(&values.keys, &key_names).collect();
        exprs.push(cast(column.clone(), kind).alias(&item));
        let plan = Projection::try_new(exprs, Arc::new(LogicalPlan::Filter(filtered)))?;
        let plan = LogicalPlan::Distinct(Distinct::All(Arc::new(LogicalPlan::Projection(plan))));
        let mut exprs: Vec<_> = plan.schema().columns().into_iter().map(Expr::Column).collect();
        exprs.push(lit(true).alias(&found));
        let set = LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(plan))?);
        let mut conditions = vec![value.clone().eq(Expr::Column(Column::new_unqualified(item)))];
        if let Some(domain) = &domain {
            let keys: Vec<_> = key_names.into_iter().map(Column::new_unqualified).collect();
            conditions.extend(domain.equals(&domain.columns, &keys));
        }
        *rows = LogicalPlanBuilder::from(rows.clone()).join_on(set, JoinType::Left, conditions)?.build()?;
        let counts = vec![count(lit(1_i64)), count(column)];
        let results = self.aggregated(values.plan, values.keys, counts, &[0, 1], Outer { rows, domain })?;
        let (all, known, one) = (results[0].clone(), results[1].clone(), results[2].clone());
        let test = when(Expr::Column(Column::new_unqualified(found)).is_not_null(), lit(true))
            .when(all.clone().eq(lit(0_i64)), lit(false))
            .when(value.is_null().or(known.lt(all)), lit(ScalarValue::Boolean(None)))
            .otherwise(lit(false))?;
        Ok(subquery_value(test, one))
    }

    /// Replaces `value op ANY (subquery)` and `value op ALL (subquery)` with a comparison with the minimum or the
    /// maximum.
    fn compared(
        &mut self,
        value: Expr,
        op: Operator,
        quantifier: SetQuantifier,
        subquery: &LogicalPlan,
        rows: &mut LogicalPlan,
        base: &Arc<LogicalPlan>,
    ) -> Result<Expr> {
        let kind = common_type(&value, subquery, rows)?;
        let (outer, values) = self.values(subquery, rows, base)?;
        let value = cast(value, kind.clone());
        let column = cast(Expr::Column(values.value), kind);
        let exprs = vec![count(lit(1_i64)), count(column.clone()), min(column.clone()), max(column)];
        let results = self.aggregated(values.plan, values.keys, exprs, &[0, 1], outer)?;
        let (all, known, low, high) = (results[0].clone(), results[1].clone(), results[2].clone(), results[3].clone());
        let compare = |with: Expr| Expr::BinaryExpr(BinaryExpr::new(Box::new(value.clone()), op, Box::new(with)));
        let is_any = matches!(quantifier, SetQuantifier::Any);
        let decided = match (op, is_any) {
            (Operator::Lt | Operator::LtEq, true) | (Operator::Gt | Operator::GtEq, false) => compare(high),
            (Operator::Gt | Operator::GtEq, true) | (Operator::Lt | Operator::LtEq, false) => compare(low),
            (Operator::NotEq, true) => compare(low).or(compare(high)),
            (Operator::Eq, false) => compare(low).and(compare(high)),
            _ => return not_impl_err!("{op} ANY and {op} ALL with a subquery are not supported: use EXISTS"),
        };
        let decided = if is_any { decided.is_true() } else { decided.is_false() };
        let test = when(all.clone().eq(lit(0_i64)), lit(!is_any))
            .when(value.is_null(), lit(ScalarValue::Boolean(None)))
            .when(decided, lit(is_any))
            .when(known.lt(all), lit(ScalarValue::Boolean(None)))
            .otherwise(lit(!is_any))?;
        Ok(subquery_value(test, results[4].clone()))
    }

    /// Computes aggregates for each key, and joins the outer rows with the results. Returns the columns with the
    /// results, and a marker column. The marker is 1 if the domain contains the key of the outer row, and NULL
    /// otherwise. For keys without rows, the results in `counts` are 0 instead of NULL.
    fn aggregated(
        &mut self,
        plan: Arc<LogicalPlan>,
        keys: Vec<Column>,
        exprs: Vec<Expr>,
        counts: &[usize],
        outer: Outer<'_>,
    ) -> Result<Vec<Expr>> {
        let names: Vec<_> = exprs.iter().map(|_| self.fresh()).collect();
        let exprs = exprs.into_iter().zip(&names).map(|(expr, name)| expr.alias(name)).collect();
        let groups = keys.iter().cloned().map(Expr::Column).collect();
        let grouped = LogicalPlan::Aggregate(Aggregate::try_new(plan, groups, exprs)?);
        let Some(domain) = outer.domain else {
            *outer.rows = LogicalPlanBuilder::from(outer.rows.clone()).cross_join(grouped)?.build()?;
            let columns = names.into_iter().map(|name| Expr::Column(Column::new_unqualified(name)));
            return Ok(columns.chain([lit(1_i64)]).collect());
        };
        let (all, all_keys) = domain.instance(self)?;
        let joined =
            LogicalPlanBuilder::from(all).join_on(grouped, JoinType::Left, domain.equals(&all_keys, &keys))?.build()?;
        let mut exprs: Vec<_> = all_keys.iter().cloned().map(Expr::Column).collect();
        let mut results = Vec::with_capacity(names.len() + 1);
        for (position, name) in names.into_iter().enumerate() {
            let (column, result) = (Expr::Column(Column::new_unqualified(name)), self.fresh());
            let filled = if counts.contains(&position) { coalesce(vec![column, lit(0_i64)]) } else { column };
            exprs.push(filled.alias(&result));
            results.push(Expr::Column(Column::new_unqualified(result)));
        }
        let one = self.fresh();
        exprs.push(lit(1_i64).alias(&one));
        results.push(Expr::Column(Column::new_unqualified(one)));
        let complete = LogicalPlan::Projection(Projection::try_new(exprs, Arc::new(joined))?);
        *outer.rows = LogicalPlanBuilder::from(outer.rows.clone())
            .join_on(complete, JoinType::Left, domain.equals(&domain.columns, &all_keys))?
            .build()?;
        Ok(results)
    }
}

fn renamed<'a>(keys: &'a [Column], names: &'a [String]) -> impl Iterator<Item = Expr> + 'a {
    keys.iter().zip(names).map(|(key, name)| Expr::Column(key.clone()).alias(name))
}

/// Returns the common type of a value and the column of a subquery. Both are cast to this type before they are
/// compared.
fn common_type(value: &Expr, subquery: &LogicalPlan, rows: &LogicalPlan) -> Result<DataType> {
    let Some(field) = subquery.schema().fields().first() else {
        return plan_err!("a subquery used as a value must return one column");
    };
    let kind = match value {
        Expr::Placeholder(placeholder) if placeholder.field.is_none() => field.data_type().clone(),
        value => value.get_type(rows.schema())?,
    };
    let other = field.data_type();
    // The analyzer rules `exact_numbers` and `time_coercion` choose the same types for the operands of a comparison.
    let common = match (&kind, other) {
        (kind, other) if kind.is_floating() && other.is_decimal() || kind.is_decimal() && other.is_floating() => {
            Some(DataType::Float64)
        }
        (time @ DataType::Timestamp(..), DataType::Date32) | (DataType::Date32, time @ DataType::Timestamp(..)) => {
            Some(time.clone())
        }
        (kind, other) => wide_decimal(&[kind.clone(), other.clone()]).or_else(|| comparison_coercion(kind, other)),
    };
    match common {
        Some(kind) => Ok(kind),
        None => plan_err!("cannot compare a value of type {kind} with a subquery of type {other}"),
    }
}
