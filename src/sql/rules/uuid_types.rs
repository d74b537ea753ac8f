//! Determines which expressions and columns contain UUIDs, or lists of UUIDs.
//!
//! The metadata of a column's field names its type. The engine drops this metadata in most functions, so this file
//! derives it again: `max(id)`, `coalesce(id, x)`, `ids[1]` and the columns of UNION, VALUES and subqueries contain
//! UUIDs if their inputs do.
//!
//! ```text
//!   node, with the typed schemas of its inputs ─► UuidScopes::is_uuid(expression) ─► typed schema of the node
//! ```
//!
//! **Invariant:** all values of an expression for which [`UuidScopes::is_uuid`] returns true are in the canonical form,
//! after `uuid_comparisons.rs` has converted the texts that are combined with UUIDs.

use std::sync::Arc;

use arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::common::{Column, DFSchema, ExprSchema as _, JoinType};
use datafusion::error::Result;
use datafusion::logical_expr::utils::grouping_set_to_exprlist;
use datafusion::logical_expr::{
    Aggregate, Case, Distinct, Expr, Join, LogicalPlan, Union, Unnest, WindowFunctionDefinition,
};

use crate::contract::ColumnKind;

/// The scalar functions that return one of their arguments, an element of a list, or a list of their arguments or their
/// elements. The arguments of such a function have a common type.
const COMBINING: [&str; 22] = [
    "array_append",
    "array_concat",
    "array_except",
    "array_has",
    "array_has_all",
    "array_has_any",
    "array_intersect",
    "array_position",
    "array_positions",
    "array_prepend",
    "array_remove",
    "array_remove_all",
    "array_remove_n",
    "array_replace",
    "array_replace_all",
    "array_replace_n",
    "array_union",
    "coalesce",
    "greatest",
    "least",
    "make_array",
    "nullif",
];
/// More functions of this kind, which have only one argument that can contain UUIDs, or whose first argument is a
/// condition.
const PASSING: [&str; 18] = [
    "array_any_value",
    "array_compact",
    "array_distinct",
    "array_element",
    "array_first",
    "array_max",
    "array_min",
    "array_pop_back",
    "array_pop_front",
    "array_repeat",
    "array_resize",
    "array_reverse",
    "array_slice",
    "array_sort",
    "flatten",
    "ifnull",
    "nvl",
    "nvl2",
];
/// The functions of this kind whose results are no UUIDs.
const TESTS: [&str; 5] = ["array_has", "array_has_all", "array_has_any", "array_position", "array_positions"];
/// The aggregates and window functions that return a value of their first argument, or a list of them.
const AGGREGATES: [&str; 15] = [
    "any_value",
    "arg_max",
    "arg_min",
    "array_agg",
    "first_value",
    "lag",
    "last_value",
    "lead",
    "max",
    "max_by",
    "min",
    "min_by",
    "mode",
    "nth_value",
    "percentile_disc",
];

/// Returns the arguments of a function that must have a common type, or an empty slice if the function has none.
pub(super) fn combined<'a>(function: &str, args: &'a mut [Expr]) -> &'a mut [Expr] {
    match function {
        "nvl2" => args.get_mut(1..).unwrap_or_default(),
        "ifnull" | "nvl" => args,
        name if COMBINING.contains(&name) => args,
        _ => &mut [],
    }
}

/// Returns true if the metadata of a field names a type with UUIDs.
pub(super) fn is_uuid_field(field: &Field) -> bool {
    matches!(ColumnKind::of_metadata(field), Some(ColumnKind::Uuid | ColumnKind::List(ColumnKind::Uuid)))
}

/// Returns true if `name` is the name of a cast to UUIDs.
pub(super) fn is_cast_function(name: &str) -> bool {
    ["to_uuid", "try_to_uuid", "to_uuids", "try_to_uuids"].contains(&name)
}

/// The typed schemas of the inputs of a node, and of the nodes around its subquery. The innermost schema is the last.
#[derive(Debug, Default)]
pub(super) struct UuidScopes {
    schemas: Vec<DFSchema>,
    /// The subqueries that return UUIDs, although the metadata of their columns does not name the type.
    subqueries: Vec<Arc<LogicalPlan>>,
}

impl UuidScopes {
    pub(super) fn push(&mut self, schema: DFSchema) {
        self.schemas.push(schema);
    }

    pub(super) fn pop(&mut self) {
        self.schemas.pop();
    }

    /// Returns the schema of the innermost scope.
    pub(super) fn schema(&self) -> Option<&DFSchema> {
        self.schemas.last()
    }

    /// Remembers that a scalar subquery returns UUIDs.
    pub(super) fn add_subquery(&mut self, plan: &Arc<LogicalPlan>) {
        self.subqueries.push(Arc::clone(plan));
    }

    /// Returns true if the values of an expression are UUIDs or lists of UUIDs.
    pub(super) fn is_uuid(&self, expr: &Expr) -> bool {
        match expr {
            Expr::Column(column) => self.schemas.last().is_some_and(|schema| has_uuids(schema, column) == Some(true)),
            Expr::OuterReferenceColumn(field, column) => {
                let mut outer = self.schemas.iter().rev().skip(1);
                is_uuid_field(field) || outer.find_map(|schema| has_uuids(schema, column)) == Some(true)
            }
            Expr::Alias(alias) => self.is_uuid(&alias.expr),
            Expr::Unnest(unnest) => self.is_uuid(&unnest.expr),
            Expr::ScalarSubquery(subquery) => {
                let plan = &subquery.subquery;
                let is_named = plan.schema().fields().first().is_some_and(|field| is_uuid_field(field));
                is_named || self.subqueries.iter().any(|known| Arc::ptr_eq(known, plan))
            }
            Expr::Case(Case { when_then_expr, else_expr, .. }) => {
                let results = when_then_expr.iter().map(|(_, then)| then).chain(else_expr);
                results.into_iter().any(|result| self.is_uuid(result))
            }
            Expr::ScalarFunction(call) => {
                let name = call.func.name();
                let is_passing = COMBINING.contains(&name) && !TESTS.contains(&name) || PASSING.contains(&name);
                let args = if name == "nvl2" { call.args.get(1..).unwrap_or_default() } else { &call.args };
                is_cast_function(name) || is_passing && args.iter().any(|arg| self.is_uuid(arg))
            }
            Expr::AggregateFunction(call) => self.returns_uuids(call.func.name(), &call.params.args),
            Expr::WindowFunction(call) => match &call.fun {
                WindowFunctionDefinition::AggregateUDF(function) => {
                    self.returns_uuids(function.name(), &call.params.args)
                }
                WindowFunctionDefinition::WindowUDF(function) => self.returns_uuids(function.name(), &call.params.args),
            },
            _ => false,
        }
    }

    fn returns_uuids(&self, function: &str, args: &[Expr]) -> bool {
        AGGREGATES.contains(&function) && args.first().is_some_and(|arg| self.is_uuid(arg))
    }

    /// Returns the schema of a node, in which the metadata names all columns with UUIDs. The innermost scope must contain
    /// the schemas of the node's inputs.
    pub(super) fn typed_schema(&self, plan: &LogicalPlan, inputs: &[DFSchema]) -> Result<DFSchema> {
        let all = |exprs: &[Expr]| exprs.iter().map(|expr| self.is_uuid(expr)).collect::<Vec<_>>();
        let input = |index: usize| inputs.get(index).map(flags).unwrap_or_default();
        let found = match plan {
            LogicalPlan::Projection(projection) => all(&projection.expr),
            LogicalPlan::Aggregate(aggregate) => self.aggregate(aggregate)?,
            LogicalPlan::Window(window) => [input(0), all(&window.window_expr)].concat(),
            LogicalPlan::Distinct(Distinct::On(distinct)) => all(&distinct.select_expr),
            LogicalPlan::Values(list) => (0..list.schema.fields().len())
                .map(|column| list.values.iter().filter_map(|row| row.get(column)).any(|value| self.is_uuid(value)))
                .collect(),
            LogicalPlan::Union(union) => union_flags(union, inputs),
            LogicalPlan::Join(join) => join_flags(join, input(0), input(1)),
            LogicalPlan::Unnest(unnest) => unnest_flags(unnest, &input(0)),
            LogicalPlan::TableScan(_) | LogicalPlan::EmptyRelation(_) => Vec::new(),
            _ => input(0),
        };
        let schema = plan.schema();
        if found.len() != schema.fields().len() || !found.contains(&true) {
            return Ok(DFSchema::clone(schema));
        }
        let fields = schema.iter().zip(found).map(|((qualifier, field), is_uuid)| {
            let field = if is_uuid { with_uuids(field) } else { Arc::clone(field) };
            (qualifier.cloned(), field)
        });
        DFSchema::new_with_metadata(fields.collect(), schema.as_arrow().metadata().clone())
    }

    /// Returns the flags of the group columns and of the results. With grouping sets, there is a column between them.
    fn aggregate(&self, aggregate: &Aggregate) -> Result<Vec<bool>> {
        let groups = grouping_set_to_exprlist(&aggregate.group_expr)?;
        let mut found: Vec<bool> = groups.iter().map(|expr| self.is_uuid(expr)).collect();
        found.resize(aggregate.schema.fields().len() - aggregate.aggr_expr.len(), false);
        found.extend(aggregate.aggr_expr.iter().map(|expr| self.is_uuid(expr)));
        Ok(found)
    }
}

/// Returns whether a column contains UUIDs, or `None` if the schema has no such column.
fn has_uuids(schema: &DFSchema, column: &Column) -> Option<bool> {
    schema.field_from_column(column).ok().map(|field| is_uuid_field(field))
}

/// Returns whether each column of a schema contains UUIDs.
fn flags(schema: &DFSchema) -> Vec<bool> {
    schema.fields().iter().map(|field| is_uuid_field(field)).collect()
}

fn with_uuids(field: &FieldRef) -> FieldRef {
    let kind = match field.data_type() {
        DataType::List(_) | DataType::LargeList(_) | DataType::FixedSizeList(..) => ColumnKind::List(&ColumnKind::Uuid),
        _ => ColumnKind::Uuid,
    };
    let metadata = kind.field(field.name()).metadata().clone();
    Arc::new(field.as_ref().clone().with_metadata(metadata))
}

fn union_flags(union: &Union, inputs: &[DFSchema]) -> Vec<bool> {
    let is_uuid =
        |column: usize| inputs.iter().any(|input| input.fields().get(column).is_some_and(|f| is_uuid_field(f)));
    (0..union.schema.fields().len()).map(is_uuid).collect()
}

fn join_flags(join: &Join, left: Vec<bool>, right: Vec<bool>) -> Vec<bool> {
    match join.join_type {
        JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full => [left, right].concat(),
        JoinType::LeftSemi | JoinType::LeftAnti => left,
        JoinType::RightSemi | JoinType::RightAnti => right,
        JoinType::LeftMark => [left, vec![false]].concat(),
        JoinType::RightMark => [right, vec![false]].concat(),
    }
}

fn unnest_flags(unnest: &Unnest, input: &[bool]) -> Vec<bool> {
    unnest.dependency_indices.iter().map(|index| input.get(*index).copied().unwrap_or(false)).collect()
}
