//! Expands `*` in a select list if the columns of the FROM clause are known.

use datafusion::sql::sqlparser::ast::{
    ExceptSelectItem, ExcludeSelectItem, Expr, ReplaceSelectItem, SelectItem, WildcardAdditionalOptions,
};

use crate::error::{Error, Result};
use crate::sql::syntax::tree::{last_name_of, name_of, quoted};

/// A column of a FROM clause that a query can refer to without a table name.
#[derive(Clone)]
pub(in crate::sql::syntax) struct ScopeColumn {
    pub(in crate::sql::syntax) name: String,
    /// The qualified column name, or the expression for a merged column.
    pub(in crate::sql::syntax) value: Expr,
    /// True if a join with USING or NATURAL created this column from two columns.
    pub(in crate::sql::syntax) is_merged: bool,
}

/// Replaces each unqualified `*` with `columns`, and applies the EXCLUDE, EXCEPT and REPLACE options of the `*`.
pub(in crate::sql::syntax) fn expand(items: &mut Vec<SelectItem>, columns: &[ScopeColumn]) -> Result<()> {
    if !items.iter().any(|item| matches!(item, SelectItem::Wildcard(_))) {
        return Ok(());
    }
    let mut expanded = Vec::with_capacity(items.len() + columns.len());
    for item in items.drain(..) {
        match item {
            SelectItem::Wildcard(options) => expand_one(&options, columns, &mut expanded)?,
            item => expanded.push(item),
        }
    }
    *items = expanded;
    Ok(())
}

fn expand_one(
    options: &WildcardAdditionalOptions,
    columns: &[ScopeColumn],
    expanded: &mut Vec<SelectItem>,
) -> Result<()> {
    if options.opt_rename.is_some() || options.opt_alias.is_some() {
        return Err(Error::unsupported("* RENAME is not supported: list the columns, as in SELECT a AS b"));
    }
    let excluded = excluded(options);
    let replaced: Vec<_> = options
        .opt_replace
        .iter()
        .flat_map(|ReplaceSelectItem { items }| items)
        .map(|item| (name_of(&item.column_name), &item.expr))
        .collect();
    let known = |name: &String| columns.iter().any(|column| column.name == *name);
    if let Some(name) = excluded.iter().chain(replaced.iter().map(|(name, _)| name)).find(|name| !known(name)) {
        return Err(Error::invalid(format!("unknown column `{name}` in an option of *")));
    }
    for column in columns.iter().filter(|column| !excluded.contains(&column.name)) {
        let replacement = replaced.iter().find(|(name, _)| *name == column.name).map(|(_, expr)| (*expr).clone());
        let value = replacement.unwrap_or_else(|| column.value.clone());
        expanded.push(match value {
            value @ Expr::CompoundIdentifier(_) => SelectItem::UnnamedExpr(value),
            expr => SelectItem::ExprWithAlias { expr, alias: quoted(&column.name) },
        });
    }
    Ok(())
}

/// Returns the names in EXCLUDE and EXCEPT.
fn excluded(options: &WildcardAdditionalOptions) -> Vec<String> {
    let exclude = match &options.opt_exclude {
        Some(ExcludeSelectItem::Single(name)) => std::slice::from_ref(name),
        Some(ExcludeSelectItem::Multiple(names)) => names,
        None => &[],
    };
    let mut names: Vec<_> = exclude.iter().filter_map(last_name_of).collect();
    if let Some(ExceptSelectItem { first_element, additional_elements }) = &options.opt_except {
        names.extend(std::iter::once(first_element).chain(additional_elements).map(name_of));
    }
    names
}
