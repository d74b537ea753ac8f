//! Plans statements in which a select list has two items with the same output name, such as `SELECT count(*),
//! count(*)`.
//!
//! The engine requires unique names, and gives a column and a cast of this column the same name. [`OutputNames`] gives
//! items with equal names an alias, and restores the names in the declared schema. A unique name is never changed, so
//! ORDER BY and outer queries can refer to it. ORDER BY and outer queries cannot refer to a name that several items
//! share.
//!
//! Names are replaced only after the engine has refused a statement, so other statements are not slowed down.

use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

use arrow::datatypes::{Schema, SchemaRef};
use datafusion::common::SchemaError;
use datafusion::common::tree_node::TreeNodeRecursion;
use datafusion::error::DataFusionError;
use datafusion::logical_expr::expr::Alias;
use datafusion::logical_expr::{Expr as PlanExpr, LogicalPlan};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    CaseWhen, Distinct, Expr, OrderBy, OrderByExpr, OrderByKind, Query, Select, SelectItem, SetExpr, Visit as _,
    VisitMut, Visitor, VisitorMut, helpers::attached_token::AttachedToken,
};

use crate::error::{Error, Result};
use crate::sql::engine_error_text::root;
use crate::sql::syntax::tree::{column_name, name_of, ordinal, query_of, quoted, text, visit};

/// The beginning of the `CASE` that [`DistinctCasts`] adds around a cast.
const CAST: &str = "CASE WHEN Utf8(\"";
/// The end of the condition of that `CASE`, before the cast.
const THEN: &str = "\") IS NOT NULL THEN ";

/// Returns true if the engine refused a statement because of duplicate output names.
pub(crate) fn is_duplicate(error: &DataFusionError) -> bool {
    match root(error) {
        DataFusionError::Plan(text) => {
            text.contains("require unique expression names")
                || text.contains("must appear in select list")
                || text.contains("Column in ORDER BY must be in GROUP BY")
        }
        DataFusionError::SchemaError(error, _) => !matches!(**error, SchemaError::FieldNotFound { .. }),
        _ => false,
    }
}

/// Returns the error for an outer query that refers to an ambiguous name of an inner select list.
pub(crate) fn to_error(error: &DataFusionError) -> Option<Error> {
    match root(error) {
        DataFusionError::Plan(text) if text.contains("require unique expression names") => Some(Error::invalid(
            "two columns of a select list have the same name and cannot be told apart: rename one of them with AS",
        )),
        _ => None,
    }
}

/// Determines which output names are replaced. Each variant includes the names of the preceding variants.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Replaced {
    /// The names that several items of a select list share.
    Shared,
    /// Also each alias in a select list with a `*`, because the `*` can contain a column of this name.
    BesideWildcards,
    /// Also the names of casts inside the items.
    Casts,
}

impl Replaced {
    /// All variants, in the order in which they are tried.
    pub(crate) const ALL: [Self; 3] = [Self::Shared, Self::BesideWildcards, Self::Casts];
}

/// The output names that were replaced by an alias.
#[derive(Debug)]
pub(crate) struct OutputNames {
    replaced: Replaced,
    /// The original name for each alias, or `None` if the name must be read from the plan.
    names: HashMap<String, Option<String>>,
}

impl OutputNames {
    pub(crate) fn new(replaced: Replaced) -> Self {
        Self { replaced, names: HashMap::new() }
    }

    /// Gives each item of a select list a unique name.
    pub(crate) fn replace(&mut self, statement: &mut Statement) -> Result<()> {
        let Some(query) = query_of(statement) else { return Ok(()) };
        visit(query, self)?;
        match self.replaced {
            Replaced::Casts => visit(query, &mut DistinctCasts { aliases: self }),
            Replaced::Shared | Replaced::BesideWildcards => Ok(()),
        }
    }

    /// Returns the schema with the original names.
    pub(crate) fn restore(mut self, schema: &SchemaRef, plan: &LogicalPlan) -> SchemaRef {
        // The traversal cannot fail, because our closure returns no error.
        let _ = plan.apply_with_subqueries(|node| {
            for expr in node.expressions() {
                if let PlanExpr::Alias(Alias { expr, name, .. }) = expr
                    && let Some(unknown @ None) = self.names.get_mut(&name)
                {
                    *unknown = Some(without_conditions(expr.qualified_name().1));
                }
            }
            Ok(TreeNodeRecursion::Continue)
        });
        let fields = schema.fields().iter().map(|field| field.as_ref().clone().with_name(self.name(field.name())));
        Arc::new(Schema::new_with_metadata(fields.collect::<Vec<_>>(), schema.metadata().clone()))
    }

    /// Returns the original name of an output column of the plan. An alias can refer to an alias of a subquery, so the
    /// lookup continues until the name is not an alias.
    fn name(&self, of: &str) -> String {
        let mut name = of;
        for _ in 0..=self.names.len() {
            match self.names.get(name) {
                Some(Some(next)) => name = next,
                _ => break,
            }
        }
        name.to_owned()
    }

    fn alias(&mut self, item: &mut SelectItem) {
        let alias = format!("__column_{}", self.names.len() + 1);
        let (expr, name) = match item {
            SelectItem::UnnamedExpr(expr) => (expr.clone(), column_name(expr)),
            SelectItem::ExprWithAlias { expr, alias } => (expr.clone(), Some(name_of(alias))),
            _ => return,
        };
        self.names.insert(alias.clone(), name);
        *item = SelectItem::ExprWithAlias { expr, alias: quoted(alias) };
    }

    fn replace_in_select(&mut self, select: &mut Select, order_by: Option<&mut OrderBy>) -> Result<()> {
        let items = &mut select.projection;
        let names: Vec<_> = items.iter().map(ItemName::of).collect();
        let has_wildcard = names.iter().any(|name| matches!(name, ItemName::Wildcard { .. }));
        let is_beside = |name: &ItemName| {
            has_wildcard && self.replaced >= Replaced::BesideWildcards && matches!(name, ItemName::Alias(_))
        };
        let order_by = match order_by {
            Some(OrderBy { kind: OrderByKind::Expressions(order_by), .. }) => order_by.as_mut_slice(),
            _ => &mut [],
        };
        // A column that only ORDER BY uses must not have the same name as an alias.
        let columns = qualified_columns(order_by);
        let is_hidden = |name: &ItemName| matches!(name, ItemName::Alias(alias) if columns.contains(alias));
        let is_replaced =
            names.iter().enumerate().map(|(i, name)| name.clashes(i, &names) || is_beside(name) || is_hidden(name));
        let mut is_replaced: Vec<_> = is_replaced.collect();
        check_order(items, &names, &is_replaced, order_by)?;
        if matches!(select.distinct, Some(Distinct::Distinct)) {
            // In a SELECT DISTINCT, each ORDER BY expression must also be a select item. Such an item gets an alias,
            // and ORDER BY refers to the alias.
            for (item, is_replaced) in items.iter().zip(&mut is_replaced) {
                let SelectItem::UnnamedExpr(expr) = item else { continue };
                let is_ordered = |order: &OrderByExpr| order.expr.to_string() == expr.to_string();
                *is_replaced |= column_name(expr).is_none() && order_by.iter().any(is_ordered);
            }
        }
        if !has_wildcard {
            // In a grouped query, the engine does not find an unnamed item to which ORDER BY refers by its position.
            for position in order_by.iter().filter_map(|order| ordinal(&order.expr)) {
                if let Some(index) = position.checked_sub(1)
                    && let Some(SelectItem::UnnamedExpr(expr)) = items.get(index)
                {
                    is_replaced[index] |= column_name(expr).is_none();
                }
            }
        }
        for (item, _) in items.iter_mut().zip(is_replaced).filter(|(_, is_replaced)| *is_replaced) {
            let (before, name) = match item {
                SelectItem::UnnamedExpr(expr) => (expr.to_string(), None),
                SelectItem::ExprWithAlias { expr, alias } => (expr.to_string(), Some(name_of(alias))),
                _ => continue,
            };
            self.alias(item);
            let SelectItem::ExprWithAlias { alias, .. } = item else { continue };
            for order in order_by.iter_mut() {
                let is_alias =
                    matches!(&order.expr, Expr::Identifier(ident) if name.as_deref() == Some(&*name_of(ident)));
                if is_alias || order.expr.to_string() == before {
                    order.expr = Expr::Identifier(alias.clone());
                }
            }
        }
        Ok(())
    }
}

impl VisitorMut for OutputNames {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<Error> {
        match &mut *query.body {
            SetExpr::Select(select) => self
                .replace_in_select(select, query.order_by.as_mut())
                .map_or_else(ControlFlow::Break, ControlFlow::Continue),
            _ => ControlFlow::Continue(()),
        }
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Error> {
        self.replace_in_select(select, None).map_or_else(ControlFlow::Break, ControlFlow::Continue)
    }
}

/// Returns the names of the columns that are used with a qualifier inside ORDER BY expressions.
fn qualified_columns(order_by: &[OrderByExpr]) -> HashSet<String> {
    struct Columns(HashSet<String>);
    impl Visitor for Columns {
        type Break = ();

        fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<()> {
            if let Expr::CompoundIdentifier(parts) = expr {
                self.0.extend(parts.last().map(name_of));
            }
            ControlFlow::Continue(())
        }
    }
    let mut columns = Columns(HashSet::new());
    let _ = order_by.iter().try_for_each(|order| order.expr.visit(&mut columns));
    columns.0
}

/// The part of a select item by which the engine recognizes duplicate names.
#[derive(Debug, PartialEq)]
enum ItemName {
    /// A column, or a cast of a column.
    Column { table: Option<String>, name: String },
    /// An alias.
    Alias(String),
    /// `*` or `table.*`.
    Wildcard { table: Option<String> },
    /// The text of any other expression, without casts.
    Text(String),
}

impl ItemName {
    fn of(item: &SelectItem) -> Self {
        match item {
            SelectItem::UnnamedExpr(expr) => {
                let mut expr = expr.clone();
                let _ = VisitMut::visit(&mut expr, &mut WithoutCasts);
                match &expr {
                    Expr::Identifier(ident) => Self::Column { table: None, name: name_of(ident) },
                    Expr::CompoundIdentifier(parts) => Self::Column {
                        table: parts.iter().rev().nth(1).map(name_of),
                        name: parts.last().map(name_of).unwrap_or_default(),
                    },
                    expr => Self::Text(expr.to_string().to_lowercase()),
                }
            }
            SelectItem::ExprWithAlias { alias, .. } => Self::Alias(name_of(alias)),
            SelectItem::QualifiedWildcard(of, _) => {
                Self::Wildcard { table: Some(of.to_string().trim_end_matches(".*").to_lowercase()) }
            }
            SelectItem::Wildcard(_) => Self::Wildcard { table: None },
            SelectItem::ExprWithAliases { .. } => Self::Text(item.to_string()),
        }
    }

    /// Returns true if another item has the same name. `self` is the name of the item at `index`.
    fn clashes(&self, index: usize, all: &[Self]) -> bool {
        all.iter().enumerate().any(|(other, name)| other != index && self.is_same(name))
    }

    fn is_same(&self, other: &Self) -> bool {
        let is_same_table = |a: &Option<String>, b: &Option<String>| a.is_none() || b.is_none() || a == b;
        match (self, other) {
            (Self::Column { table, name }, Self::Column { table: other, name: other_name }) => {
                name == other_name && is_same_table(table, other)
            }
            (Self::Column { table, .. }, Self::Wildcard { table: other }) => is_same_table(table, other),
            (Self::Text(text), Self::Text(other)) | (Self::Alias(text), Self::Alias(other)) => text == other,
            (Self::Alias(alias), Self::Column { name, .. }) | (Self::Column { name, .. }, Self::Alias(alias)) => {
                alias == name
            }
            _ => false,
        }
    }
}

/// Refuses an ORDER BY that refers to a name that several different items share.
fn check_order(items: &[SelectItem], names: &[ItemName], is_replaced: &[bool], order_by: &[OrderByExpr]) -> Result<()> {
    let outputs: Vec<_> = items
        .iter()
        .zip(is_replaced)
        .filter_map(|(item, is_replaced)| match item {
            SelectItem::UnnamedExpr(expr) if *is_replaced => Some((column_name(expr)?, expr)),
            SelectItem::ExprWithAlias { expr, alias } if *is_replaced => Some((name_of(alias), expr)),
            _ => None,
        })
        .collect();
    let has_wildcard = names.iter().any(|name| matches!(name, ItemName::Wildcard { .. }));
    for order in order_by {
        let Expr::Identifier(ident) = &order.expr else { continue };
        let name = name_of(ident);
        let mut same = outputs.iter().filter(|(output, _)| *output == name).map(|(_, expr)| expr);
        let Some(first) = same.next() else { continue };
        let is_other = has_wildcard && column_name(first).is_none_or(|column| column != name);
        if is_other || same.any(|expr| expr.to_string() != first.to_string()) {
            return Err(Error::invalid(format!("column `{name}` of ORDER BY is ambiguous: use its position instead")));
        }
    }
    Ok(())
}

/// A visitor that removes casts, because the engine omits casts in names.
struct WithoutCasts;

impl VisitorMut for WithoutCasts {
    type Break = ();

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::Cast { expr: inner, .. } | Expr::Nested(inner) | Expr::AtTimeZone { timestamp: inner, .. } => {
                *expr = (**inner).clone();
            }
            Expr::TypedString(typed) => *expr = Expr::Value(typed.value.clone()),
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// A visitor that encloses each cast in a `CASE` whose condition is always true. The condition contains the type of the
/// cast, so the name of the cast differs from that of its operand. The optimizer removes the `CASE`.
struct DistinctCasts<'a> {
    aliases: &'a mut OutputNames,
}

impl VisitorMut for DistinctCasts<'_> {
    type Break = Error;

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Error> {
        for item in &mut select.projection {
            let SelectItem::UnnamedExpr(expr) = item else { continue };
            if column_name(expr).is_none() {
                self.aliases.alias(item);
            }
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        let kind = match expr {
            Expr::Cast { data_type, .. } => Some(data_type.to_string()),
            Expr::AtTimeZone { time_zone, .. } => Some(time_zone.to_string()),
            _ => None,
        };
        if let Some(kind) = kind {
            let condition = Expr::IsNotNull(Box::new(text(kind)));
            *expr = Expr::Case {
                case_token: AttachedToken::empty(),
                end_token: AttachedToken::empty(),
                operand: None,
                conditions: vec![CaseWhen { condition, result: expr.clone() }],
                else_result: None,
            };
        }
        ControlFlow::Continue(())
    }
}

/// Removes the text of the `CASE` around each cast from a name.
fn without_conditions(mut name: String) -> String {
    while let Some(start) = name.rfind(CAST) {
        let Some(then) = name[start..].find(THEN).map(|at| start + at) else { break };
        let inner = then + THEN.len();
        let Some(end) = name[inner..].find(" END").map(|at| inner + at) else { break };
        name.replace_range(end..end + " END".len(), "");
        name.replace_range(start..inner, "");
    }
    name
}
