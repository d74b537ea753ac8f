//! Compares and combines UUIDs with text as PostgreSQL does: the text is converted to a UUID first.
//!
//! A UUID is stored as text in its canonical form. Without this file, `id = '550E8400-…'` would compare the characters,
//! and a UUID in upper case would not be found. A text that is not a UUID is an error. `uuid_types.rs` determines which
//! expressions contain UUIDs.
//!
//! ```text
//!   plan ─► convert ─► decorrelate ─► bound values ─► the analyzer rule: convert
//! ```
//!
//! The conversion is done for comparison operators, `IN`, `BETWEEN`, `ANY`, `ALL`, join keys, `CASE`, `coalesce` and similar
//! functions, functions of lists, VALUES and UNION. It runs first before subqueries are replaced, because `id >= ALL
//! (SELECT text …)` becomes a comparison with the maximum, which would be the maximum of the texts. The analyzer rule
//! converts the values that are bound to placeholders.
//!
//! **Invariant:** only operands that are compared or combined with a UUID change.
//! **Invariant:** a constant that is a UUID in another form is never compared with the text of a UUID.

use std::sync::Arc;

use arrow::datatypes::DataType;
use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode as _, TreeNodeRecursion};
use datafusion::common::{Column, DFSchema, JoinType, NullEquality, ScalarValue, plan_err};
use datafusion::error::Result;
use datafusion::logical_expr::expr::{ScalarFunction, WindowFunction};
use datafusion::logical_expr::{
    BinaryExpr, Cast, Expr, ExprSchemable as _, Join, LogicalPlan, LogicalPlanBuilder, Operator, RecursiveQuery,
    Subquery, TryCast, Union, Values,
};
use datafusion::optimizer::AnalyzerRule;

use crate::sql::functions::text_casts::{canonical_uuid, to_uuid, to_uuids};
use crate::sql::plan_expressions::{any_expression, rewrite_expressions};
use crate::sql::rules::uuid_types::{UuidScopes, combined, is_cast_function, is_uuid_field};

/// The analyzer rule that converts texts that are compared or combined with UUIDs.
#[derive(Debug)]
pub(crate) struct UuidComparisonRule;

impl AnalyzerRule for UuidComparisonRule {
    fn name(&self) -> &'static str {
        "compare_uuids"
    }

    fn analyze(&self, plan: LogicalPlan, _: &ConfigOptions) -> Result<LogicalPlan> {
        convert(plan)
    }
}

/// Converts the texts that are compared or combined with UUIDs.
///
/// # Errors
///
/// If a text constant is not a UUID, or if texts are combined with UUIDs in INTERSECT or EXCEPT.
pub(crate) fn convert(plan: LogicalPlan) -> Result<LogicalPlan> {
    if has_uuid(&plan)? { Ok(Converter::default().rewrite(plan)?.0) } else { Ok(plan) }
}

/// Returns true if the plan reads a column of UUIDs, or casts to UUIDs.
fn has_uuid(plan: &LogicalPlan) -> Result<bool> {
    let is_cast = |expr: &Expr| matches!(expr, Expr::ScalarFunction(call) if is_cast_function(call.func.name()));
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

/// The state of one pass over a plan.
#[derive(Default)]
struct Converter {
    scopes: UuidScopes,
    is_changed: bool,
}

impl Converter {
    /// Rewrites a node and its inputs. Also returns the schema of the node, in which the metadata names all columns with
    /// UUIDs.
    fn rewrite(&mut self, plan: LogicalPlan) -> Result<(LogicalPlan, DFSchema)> {
        let mut inputs = Vec::new();
        let is_join = matches!(plan, LogicalPlan::Join(_));
        let plan = plan.map_children(|child| {
            // The right side of a LATERAL join can refer to the columns of the left side.
            let outer = inputs.last().filter(|_| is_join).cloned();
            let has_outer = outer.is_some();
            outer.into_iter().for_each(|schema| self.scopes.push(schema));
            let (child, schema) = self.rewrite(child)?;
            if has_outer {
                self.scopes.pop();
            }
            inputs.push(schema);
            Ok(Transformed::yes(child))
        })?;
        let plan = plan.data;
        let scope = match (&plan, inputs.as_slice()) {
            (LogicalPlan::TableScan(scan), _) => {
                DFSchema::try_from_qualified_schema(scan.table_name.clone(), &scan.source.schema())?
            }
            (_, [input]) => input.clone(),
            _ => merged(&inputs),
        };
        self.scopes.push(scope);
        let plan = rewrite_expressions(plan, |expr| self.rewrite_expr(expr))?;
        self.is_changed |= plan.transformed;
        let plan = match plan.data {
            LogicalPlan::Union(union) => self.rewrite_union(union, &inputs)?,
            LogicalPlan::Values(list) => self.rewrite_values(list)?,
            LogicalPlan::Join(join) => self.rewrite_join(join, &inputs)?,
            LogicalPlan::RecursiveQuery(query) => check_recursive(query, &inputs)?,
            plan => plan,
        };
        let plan = if self.is_changed { plan.recompute_schema()? } else { plan };
        let schema = self.scopes.typed_schema(&plan, &inputs)?;
        self.scopes.pop();
        Ok((plan, schema))
    }

    fn rewrite_expr(&mut self, expr: Expr) -> Result<Transformed<Expr>> {
        let mut expr = expr;
        let is_changed = match &mut expr {
            Expr::BinaryExpr(BinaryExpr { left, op, right }) if is_comparison(*op) => {
                self.unify([&mut **left, &mut **right])?
            }
            Expr::InList(list) => self.unify(std::iter::once(&mut *list.expr).chain(&mut list.list))?,
            Expr::Between(between) => self.unify([&mut *between.expr, &mut *between.low, &mut *between.high])?,
            Expr::Case(case) => {
                let (mut tests, mut results) = (Vec::new(), Vec::new());
                for (when, then) in &mut case.when_then_expr {
                    tests.push(&mut **when);
                    results.push(&mut **then);
                }
                results.extend(case.else_expr.as_deref_mut());
                let is_changed = match case.expr.as_deref_mut() {
                    Some(operand) => self.unify(std::iter::once(operand).chain(tests))?,
                    None => false,
                };
                self.unify(results)? || is_changed
            }
            Expr::ScalarFunction(call) => {
                let name = call.func.name().to_owned();
                // `coalesce(id, '')` is a text. The decorrelation of subqueries compares such texts.
                let is_kept = |arg: &&mut Expr| name != "coalesce" || !is_empty_text(arg);
                self.unify(combined(&name, &mut call.args).iter_mut().filter(is_kept))?
            }
            Expr::WindowFunction(call) if ["lag", "lead"].contains(&call.fun.name()) => {
                let WindowFunction { params, .. } = &mut **call;
                self.unify(&mut params.args)?
            }
            Expr::ScalarSubquery(subquery) => {
                if self.rewrite_subquery(subquery)? {
                    self.scopes.add_subquery(&subquery.subquery);
                }
                true
            }
            Expr::Exists(exists) => {
                self.rewrite_subquery(&mut exists.subquery)?;
                true
            }
            Expr::InSubquery(test) => self.rewrite_comparison(&mut test.expr, &mut test.subquery)?,
            Expr::SetComparison(test) => self.rewrite_comparison(&mut test.expr, &mut test.subquery)?,
            _ => false,
        };
        Ok(if is_changed { Transformed::yes(expr) } else { Transformed::no(expr) })
    }

    /// Converts the texts among expressions that are compared with each other or have a common type, if another of the
    /// expressions is a UUID. Returns true if an expression changed.
    fn unify<'a>(&self, exprs: impl IntoIterator<Item = &'a mut Expr>) -> Result<bool> {
        let exprs: Vec<_> = exprs.into_iter().map(|expr| (self.scopes.is_uuid(expr), expr)).collect();
        if !exprs.iter().any(|(is_uuid, _)| *is_uuid) {
            if exprs.iter().any(|(_, expr)| self.may_be_uuid_text(expr)) {
                exprs.iter().try_for_each(|(_, expr)| check_constant(expr))?;
            }
            return Ok(false);
        }
        let mut is_changed = false;
        for (is_uuid, expr) in exprs {
            if !is_uuid {
                is_changed |= self.convert(expr)?;
            }
        }
        Ok(is_changed)
    }

    /// Returns true for a cast of a UUID to text, and for a field of a struct or map, whose type is not known.
    fn may_be_uuid_text(&self, expr: &Expr) -> bool {
        match expr {
            Expr::Alias(alias) => self.may_be_uuid_text(&alias.expr),
            Expr::Cast(Cast { expr, .. }) | Expr::TryCast(TryCast { expr, .. }) => self.scopes.is_uuid(expr),
            Expr::ScalarFunction(call) if call.func.name() == "array_element" => {
                call.args.first().is_some_and(|list| self.may_be_uuid_text(list))
            }
            Expr::ScalarFunction(call) => ["get_field", "map_extract", "map_values"].contains(&call.func.name()),
            _ => false,
        }
    }

    /// Converts a text, or a list of texts. Leaves other expressions unchanged, and placeholders, whose values are not
    /// known yet. Returns true if the expression changed.
    fn convert(&self, expr: &mut Expr) -> Result<bool> {
        if let Expr::Literal(ScalarValue::Utf8(text), _) = expr {
            let canonical = text.as_deref().map(canonical_uuid).transpose()?;
            let is_changed = *text != canonical;
            *text = canonical;
            return Ok(is_changed);
        }
        let Some(schema) = self.scopes.schema() else { return Ok(false) };
        let func = match expr.get_type(schema) {
            _ if matches!(expr, Expr::Placeholder(_)) => return Ok(false),
            Ok(kind) if kind.is_string() => to_uuid(),
            Ok(DataType::List(field) | DataType::LargeList(field)) if field.data_type().is_string() => to_uuids(),
            _ => return Ok(false),
        };
        let args = vec![std::mem::take(expr)];
        *expr = Expr::ScalarFunction(ScalarFunction { func, args });
        Ok(true)
    }

    /// Rewrites a subquery. Returns true if its first column contains UUIDs.
    fn rewrite_subquery(&mut self, subquery: &mut Subquery) -> Result<bool> {
        let (plan, schema) = self.rewrite(LogicalPlan::clone(&subquery.subquery))?;
        subquery.subquery = Arc::new(plan);
        Ok(schema.fields().first().is_some_and(|field| is_uuid_field(field)))
    }

    /// Rewrites the comparison of a value with the column of a subquery. Always returns true.
    fn rewrite_comparison(&mut self, value: &mut Expr, subquery: &mut Subquery) -> Result<bool> {
        match (self.scopes.is_uuid(value), self.rewrite_subquery(subquery)?) {
            (false, true) => _ = self.convert(value)?,
            (true, false) => {
                subquery.subquery = Arc::new(self.converted_columns(LogicalPlan::clone(&subquery.subquery), &[true])?);
            }
            _ => {}
        }
        Ok(true)
    }

    /// Adds a projection that converts the columns whose flag is true.
    fn converted_columns(&mut self, plan: LogicalPlan, flags: &[bool]) -> Result<LogicalPlan> {
        let schema = DFSchema::clone(plan.schema());
        self.scopes.push(schema.clone());
        let mut is_changed = false;
        let columns = schema.iter().enumerate().map(|(index, (qualifier, field))| {
            let mut column = Expr::Column(Column::from((qualifier, field)));
            if flags.get(index) != Some(&true) || !self.convert(&mut column)? {
                return Ok(column);
            }
            is_changed = true;
            Ok(column.alias_qualified(qualifier.cloned(), field.name()))
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        self.scopes.pop();
        self.is_changed |= is_changed;
        if is_changed { LogicalPlanBuilder::from(plan).project(columns)?.build() } else { Ok(plan) }
    }

    /// Converts the texts in the columns of a UNION that also contain UUIDs.
    fn rewrite_union(&mut self, union: Union, inputs: &[DFSchema]) -> Result<LogicalPlan> {
        let is_uuid = |input: &DFSchema, column: usize| input.fields().get(column).is_some_and(|f| is_uuid_field(f));
        let columns = 0..union.schema.fields().len();
        let targets: Vec<bool> = columns.map(|column| inputs.iter().any(|input| is_uuid(input, column))).collect();
        let is_mixed = |input: &DFSchema| (0..targets.len()).any(|column| targets[column] && !is_uuid(input, column));
        if !inputs.iter().any(is_mixed) {
            return Ok(LogicalPlan::Union(union));
        }
        let branches = union.inputs.into_iter().zip(inputs).map(|(branch, input)| {
            let flags: Vec<_> = (0..targets.len()).map(|at| targets[at] && !is_uuid(input, at)).collect();
            self.converted_columns(Arc::unwrap_or_clone(branch), &flags).map(Arc::new)
        });
        Union::try_new_with_loose_types(branches.collect::<Result<_>>()?).map(LogicalPlan::Union)
    }

    /// Converts the texts in the columns of a VALUES list that also contain UUIDs.
    fn rewrite_values(&mut self, mut list: Values) -> Result<LogicalPlan> {
        for column in 0..list.schema.fields().len() {
            let is_changed = self.unify(list.values.iter_mut().filter_map(|row| row.get_mut(column)))?;
            self.is_changed |= is_changed;
        }
        Ok(LogicalPlan::Values(list))
    }

    /// Converts the texts in join keys whose other side is a UUID.
    fn rewrite_join(&mut self, mut join: Join, inputs: &[DFSchema]) -> Result<LogicalPlan> {
        let [left_schema, right_schema] = inputs else { return Ok(LogicalPlan::Join(join)) };
        let is_set_operation = matches!(join.join_type, JoinType::LeftSemi | JoinType::LeftAnti)
            && join.null_equality == NullEquality::NullEqualsNull;
        for (left, right) in &mut join.on {
            self.scopes.push(left_schema.clone());
            let is_left = self.scopes.is_uuid(left);
            self.scopes.pop();
            self.scopes.push(right_schema.clone());
            let is_right = self.scopes.is_uuid(right);
            self.scopes.pop();
            if is_left == is_right {
                continue;
            }
            let (text, schema) = if is_left { (&mut *right, right_schema) } else { (&mut *left, left_schema) };
            if is_set_operation && text.get_type(schema).is_ok_and(|kind| kind.is_string() || kind.is_nested()) {
                return plan_err!(
                    "INTERSECT and EXCEPT cannot combine the UUIDs and the texts of `{left}` and `{right}`: cast the texts to \
                     UUID"
                );
            }
            self.scopes.push(schema.clone());
            self.is_changed |= self.convert(text)?;
            self.scopes.pop();
        }
        Ok(LogicalPlan::Join(join))
    }
}

/// Refuses a recursive query if the metadata does not name a column with UUIDs, because the query reads its own rows with
/// the columns that the metadata describes.
fn check_recursive(query: RecursiveQuery, inputs: &[DFSchema]) -> Result<LogicalPlan> {
    let columns = query.static_term.schema().fields().iter();
    let typed = inputs.first().into_iter().flat_map(|schema| schema.fields().iter());
    for (column, typed) in columns.zip(typed) {
        if is_uuid_field(typed) && !is_uuid_field(column) {
            return plan_err!(
                "the column `{}` of the recursive query contains UUIDs: cast its first value, as in CAST(x AS UUID)",
                column.name()
            );
        }
    }
    Ok(LogicalPlan::RecursiveQuery(query))
}

/// Merges the schemas of the inputs of a node.
fn merged(inputs: &[DFSchema]) -> DFSchema {
    let mut all = DFSchema::empty();
    inputs.iter().for_each(|input| all.merge(input));
    all
}

fn is_empty_text(expr: &Expr) -> bool {
    matches!(expr, Expr::Literal(ScalarValue::Utf8(Some(text)), _) if text.is_empty())
}

/// Refuses a text constant that is a UUID in a form that equals no stored UUID.
fn check_constant(expr: &Expr) -> Result<()> {
    match expr {
        Expr::Literal(ScalarValue::Utf8(Some(text)), _) => match canonical_uuid(text) {
            Ok(canonical) if canonical != *text => plan_err!(
                "the text '{text}' is compared as text, and UUIDs are stored in lower case with hyphens: write UUID '{text}', or \
                 '{canonical}'"
            ),
            _ => Ok(()),
        },
        _ => Ok(()),
    }
}

fn is_comparison(op: Operator) -> bool {
    use Operator::{Eq, Gt, GtEq, IsDistinctFrom, IsNotDistinctFrom, Lt, LtEq, NotEq};
    matches!(op, Eq | NotEq | Lt | LtEq | Gt | GtEq | IsDistinctFrom | IsNotDistinctFrom)
}
