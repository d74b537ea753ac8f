//! Refuses clauses that the engine's parser accepts but its planner ignores.
//!
//! For each syntax node, DataFusion's planner reads the fields that it supports and ignores all other fields. For
//! example, it would ignore `FOR UPDATE`, `TABLESAMPLE` and `PREWHERE`. Each node is destructured without `..`, so a
//! new field in the parser causes a compile error instead of a wrong result.
//!
//! Clauses that the planner itself refuses are not checked here.

use std::ops::ControlFlow;

use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    Cte, Distinct, Expr, Function, FunctionArg, FunctionArgumentList, FunctionArguments, GroupByExpr, Join,
    NamedWindowDefinition, NamedWindowExpr, OrderBy, OrderByKind, PipeOperator, Query, Select, SelectFlavor,
    SelectItem, SetExpr, TableAlias, TableFactor, TableWithJoins, Visit as _, Visitor, WildcardAdditionalOptions,
    WindowSpec, WindowType, With,
};

use crate::error::{Error, Result};

/// The window functions that return the position of a row. IGNORE NULLS is refused for these functions, because it has
/// no effect on them.
const RANKS: [&str; 6] = ["cume_dist", "dense_rank", "ntile", "percent_rank", "rank", "row_number"];
/// The window functions that are not aggregates. The planner ignores DISTINCT in the arguments of these functions.
const WINDOW_FUNCTIONS: [&str; 11] = [
    "cume_dist",
    "dense_rank",
    "first_value",
    "lag",
    "last_value",
    "lead",
    "nth_value",
    "ntile",
    "percent_rank",
    "rank",
    "row_number",
];

/// Refuses a statement if it or one of its subqueries contains a clause that the planner would ignore. `is_scalar`
/// returns true for the name of a scalar function.
pub(crate) fn check(statement: &Statement, is_scalar: &dyn Fn(&str) -> bool) -> Result<()> {
    let statement = match statement {
        Statement::Statement(statement) => statement,
        Statement::Explain(explain) => return check(&explain.statement, is_scalar),
        // This arm is unreachable, because `statement::parse` accepts only queries.
        Statement::CreateExternalTable(_) | Statement::CopyTo(_) | Statement::Reset(_) => return Ok(()),
    };
    match statement.visit(&mut IgnoredClauses { is_scalar }) {
        ControlFlow::Continue(()) => Ok(()),
        ControlFlow::Break(error) => Err(error),
    }
}

struct IgnoredClauses<'a> {
    is_scalar: &'a dyn Fn(&str) -> bool,
}

impl Visitor for IgnoredClauses<'_> {
    type Break = Error;

    fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<Error> {
        flow(check_query(query))
    }

    fn pre_visit_select(&mut self, select: &Select) -> ControlFlow<Error> {
        flow(check_select(select))
    }

    fn pre_visit_table_factor(&mut self, relation: &TableFactor) -> ControlFlow<Error> {
        flow(check_relation(relation))
    }

    fn pre_visit_expr(&mut self, expr: &Expr) -> ControlFlow<Error> {
        match expr {
            Expr::Function(function) => flow(self.check_function(function)),
            Expr::Collate { .. } => flow(refuse(true, "COLLATE", "text is compared by its code points")),
            Expr::Like { any, .. } | Expr::ILike { any, .. } => flow(refuse(*any, "LIKE ANY", "use LIKE with OR")),
            _ => ControlFlow::Continue(()),
        }
    }
}

fn flow(checked: Result<()>) -> ControlFlow<Error> {
    checked.map_or_else(ControlFlow::Break, ControlFlow::Continue)
}

/// Refuses `clause` if `is_used` is true. `instead` is the alternative that the error suggests.
fn refuse(is_used: bool, clause: &str, instead: &str) -> Result<()> {
    if is_used { Err(Error::unsupported(format!("{clause} is not supported: {instead}"))) } else { Ok(()) }
}

fn check_query(query: &Query) -> Result<()> {
    let Query {
        with,
        body,
        order_by,
        limit_clause: _,
        fetch: _,
        locks,
        for_clause,
        settings,
        format_clause,
        pipe_operators,
    } = query;
    if let Some(With { with_token: _, recursive: _, cte_tables }) = with {
        cte_tables.iter().try_for_each(check_cte)?;
    }
    if let Some(OrderBy { kind, interpolate: _ }) = order_by {
        let is_select = matches!(**body, SetExpr::Select(_));
        let is_all = matches!(kind, OrderByKind::All(_));
        refuse(is_all && !is_select, "ORDER BY ALL after a set operation", "name the columns, as in ORDER BY 1, 2")?;
    }
    refuse(!locks.is_empty(), "FOR UPDATE or FOR SHARE", "a query reads one consistent snapshot and locks nothing")?;
    refuse(for_clause.is_some(), "FOR XML, FOR JSON or FOR BROWSE", "choose the format in the client")?;
    refuse(settings.is_some(), "SETTINGS", "clients cannot change engine options")?;
    refuse(format_clause.is_some(), "FORMAT", "choose the format in the client")?;
    let ordered = |operator: &PipeOperator| match operator {
        PipeOperator::Aggregate { full_table_exprs, group_by_expr } => {
            full_table_exprs.iter().chain(group_by_expr).any(|expr| {
                let order = &expr.order_by;
                order.asc.is_some() || order.nulls_first.is_some()
            })
        }
        _ => false,
    };
    refuse(pipe_operators.iter().any(ordered), "an order inside |> AGGREGATE", "add |> ORDER BY")
}

fn check_cte(cte: &Cte) -> Result<()> {
    // MATERIALIZED is only an optimizer hint, which may be ignored.
    let Cte { alias, query: _, from, materialized: _, closing_paren_token: _ } = cte;
    check_alias(Some(alias))?;
    refuse(from.is_some(), "FROM after a common table expression", "select from its name")
}

fn check_select(select: &Select) -> Result<()> {
    let Select {
        select_token: _,
        // Optimizer hints are comments, which may be ignored.
        optimizer_hints: _,
        distinct,
        select_modifiers,
        top,
        top_before_distinct: _,
        projection,
        exclude,
        into: _,
        from,
        lateral_views: _,
        prewhere,
        selection: _,
        connect_by,
        group_by,
        cluster_by: _,
        // DISTRIBUTE BY determines where rows are computed, but not which rows are returned.
        distribute_by: _,
        sort_by: _,
        having: _,
        named_window,
        qualify: _,
        window_before_qualify: _,
        value_table_mode,
        flavor,
    } = select;
    match distinct {
        None | Some(Distinct::All | Distinct::Distinct | Distinct::On(_)) => {}
    }
    let modifiers = select_modifiers.as_ref().map(ToString::to_string).unwrap_or_default();
    refuse(!modifiers.is_empty(), modifiers.trim(), "remove it")?;
    if let Some(top) = top {
        let text = top.to_string();
        refuse(true, &text, &format!("use LIMIT{}", text.trim_start_matches("TOP")))?;
    }
    projection.iter().try_for_each(check_item)?;
    refuse(exclude.is_some(), "EXCLUDE after the select list", "write SELECT * EXCLUDE (…)")?;
    refuse(prewhere.is_some(), "PREWHERE", "use WHERE")?;
    refuse(!connect_by.is_empty(), "CONNECT BY", "use WITH RECURSIVE")?;
    let (GroupByExpr::All(modifiers) | GroupByExpr::Expressions(_, modifiers)) = group_by;
    if let Some(modifier) = modifiers.first() {
        refuse(true, &modifier.to_string(), "use GROUP BY ROLLUP (…), CUBE (…) or GROUPING SETS (…)")?;
    }
    for NamedWindowDefinition(_, window) in named_window {
        if let NamedWindowExpr::WindowSpec(spec) = window {
            check_window(spec)?;
        }
    }
    refuse(value_table_mode.is_some(), "SELECT AS VALUE or AS STRUCT", "select the columns")?;
    let is_bare = matches!(flavor, SelectFlavor::FromFirstNoSelect);
    refuse(is_bare, "FROM without SELECT", "begin with SELECT *")?;
    from.iter().try_for_each(check_joins)
}

fn check_item(item: &SelectItem) -> Result<()> {
    let (SelectItem::Wildcard(options) | SelectItem::QualifiedWildcard(_, options)) = item else {
        return Ok(());
    };
    let WildcardAdditionalOptions {
        wildcard_token: _,
        opt_ilike,
        opt_exclude: _,
        opt_except: _,
        opt_replace: _,
        opt_rename: _,
        opt_alias: _,
    } = options;
    refuse(opt_ilike.is_some(), "* ILIKE", "name the columns")
}

fn check_joins(relation: &TableWithJoins) -> Result<()> {
    let TableWithJoins { relation: _, joins } = relation;
    joins
        .iter()
        .try_for_each(|Join { relation: _, global, join_operator: _ }| refuse(*global, "GLOBAL JOIN", "remove GLOBAL"))
}

fn check_relation(relation: &TableFactor) -> Result<()> {
    match relation {
        TableFactor::Table {
            name: _,
            alias,
            args,
            with_hints,
            version,
            with_ordinality,
            partitions,
            json_path,
            sample,
            index_hints,
        } => {
            check_alias(alias.as_ref())?;
            let settings = args.as_ref().and_then(|args| args.settings.as_ref());
            refuse(settings.is_some(), "SETTINGS", "clients cannot change engine options")?;
            refuse(!with_hints.is_empty(), "WITH (…) after a table", "remove the table hint")?;
            refuse(version.is_some(), "a table version", "a query reads the newest snapshot")?;
            refuse(*with_ordinality, "WITH ORDINALITY", "use row_number() OVER ()")?;
            refuse(!partitions.is_empty(), "PARTITION after a table", "use WHERE")?;
            refuse(json_path.is_some(), "a JSON path after a table", "use WHERE")?;
            refuse(sample.is_some(), "TABLESAMPLE", "use WHERE random() < 0.1")?;
            refuse(!index_hints.is_empty(), "an index hint", "remove it")
        }
        TableFactor::Derived { lateral: _, subquery: _, alias, sample } => {
            check_alias(alias.as_ref())?;
            refuse(sample.is_some(), "TABLESAMPLE", "use WHERE random() < 0.1")
        }
        TableFactor::Function { lateral: _, name: _, args, with_ordinality, alias } => {
            check_alias(alias.as_ref())?;
            let is_named = args.iter().any(|arg| !matches!(arg, FunctionArg::Unnamed(_)));
            refuse(is_named, "a named argument of a table function", "pass the arguments in order")?;
            refuse(*with_ordinality, "WITH ORDINALITY", "use row_number() OVER ()")
        }
        TableFactor::UNNEST { alias, array_exprs: _, with_offset: _, with_offset_alias: _, with_ordinality: _ } => {
            check_alias(alias.as_ref())
        }
        TableFactor::NestedJoin { table_with_joins, alias } => {
            check_joins(table_with_joins)?;
            check_alias(alias.as_ref())
        }
        TableFactor::Pivot { .. } => refuse(true, "PIVOT", "use GROUP BY with sum(…) FILTER (WHERE …)"),
        TableFactor::Unpivot { .. } => refuse(true, "UNPIVOT", "use UNION ALL"),
        TableFactor::MatchRecognize { .. } => refuse(true, "MATCH_RECOGNIZE", "use window functions"),
        TableFactor::TableFunction { .. } => refuse(true, "TABLE(…)", "write the function call without TABLE"),
        TableFactor::JsonTable { .. } | TableFactor::OpenJsonTable { .. } | TableFactor::XmlTable { .. } => {
            refuse(true, "a table of JSON or XML values", "store the values as columns")
        }
        TableFactor::SemanticView { .. } => refuse(true, "SEMANTIC_VIEW", "select from a table"),
    }
}

fn check_alias(alias: Option<&TableAlias>) -> Result<()> {
    let Some(TableAlias { explicit: _, name: _, columns, at }) = alias else { return Ok(()) };
    let is_typed = columns.iter().any(|column| column.data_type.is_some());
    refuse(is_typed, "a type in a column alias", "cast the column in the select list")?;
    refuse(at.is_some(), "AT after a table alias", "use row_number() OVER ()")
}

/// Refuses `OVER (w ORDER BY …)` if `w` is not defined. `named_windows.rs` has already replaced all defined names.
fn check_window(spec: &WindowSpec) -> Result<()> {
    let WindowSpec { window_name, partition_by: _, order_by: _, window_frame: _ } = spec;
    match window_name {
        Some(name) => Err(Error::invalid(format!("unknown window `{}`: define it in the WINDOW clause", name.value))),
        None => Ok(()),
    }
}

impl IgnoredClauses<'_> {
    fn check_function(&self, function: &Function) -> Result<()> {
        let Function { name, uses_odbc_syntax: _, parameters, args, filter, null_treatment, over, within_group } =
            function;
        refuse(*parameters != FunctionArguments::None, "a second list of arguments", "pass all arguments in one list")?;
        if let Some(WindowType::WindowSpec(spec)) = over {
            check_window(spec)?;
        }
        let (is_distinct, clauses) = match args {
            FunctionArguments::None => (false, &[][..]),
            FunctionArguments::Subquery(_) => {
                return refuse(true, &format!("`{name}(SELECT …)`"), "enclose the subquery in its own parentheses");
            }
            FunctionArguments::List(FunctionArgumentList { duplicate_treatment, args: _, clauses }) => {
                (duplicate_treatment.is_some(), clauses.as_slice())
            }
        };
        let lower = name.to_string().to_lowercase();
        if WINDOW_FUNCTIONS.contains(&lower.as_str()) && over.is_some() {
            refuse(is_distinct, &format!("DISTINCT or ALL with the window function `{name}`"), "remove it")?;
            let is_rank = RANKS.contains(&lower.as_str()) && null_treatment.is_some();
            refuse(is_rank, &format!("IGNORE NULLS or RESPECT NULLS with the function `{name}`"), "remove it")?;
        }
        if !(self.is_scalar)(&lower) {
            return Ok(());
        }
        let refuse = |is_used, clause: &str| {
            let instead = "only aggregate and window functions accept this clause";
            refuse(is_used, &format!("{clause} with the function `{name}`"), instead)
        };
        refuse(is_distinct, "DISTINCT or ALL")?;
        refuse(filter.is_some(), "FILTER")?;
        refuse(over.is_some(), "OVER")?;
        refuse(null_treatment.is_some(), "IGNORE NULLS or RESPECT NULLS")?;
        refuse(!within_group.is_empty(), "WITHIN GROUP")?;
        refuse(!clauses.is_empty(), "a clause inside the parentheses")
    }
}
