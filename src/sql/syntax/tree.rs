//! Helper functions that build and inspect nodes of the SQL syntax tree.

use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    self, BinaryOperator, CastKind, DataType, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList,
    FunctionArguments, GroupByExpr, Ident, LimitClause, ObjectName, Query, Select, SelectFlavor, SelectItem, SetExpr,
    TableFactor, TableWithJoins, UnaryOperator, Value, VisitMut, VisitorMut, WildcardAdditionalOptions,
    helpers::attached_token::AttachedToken,
};

use crate::error::Result;

/// Returns the query inside a statement, or `None` for SHOW and DESCRIBE.
pub(in crate::sql::syntax) fn query_of(statement: &mut Statement) -> Option<&mut Query> {
    match statement {
        Statement::Statement(statement) => match &mut **statement {
            ast::Statement::Query(query) => Some(query),
            ast::Statement::Explain { statement, .. } => match &mut **statement {
                ast::Statement::Query(query) => Some(query),
                _ => None,
            },
            _ => None,
        },
        Statement::Explain(explain) => query_of(&mut explain.statement),
        Statement::CreateExternalTable(_) | Statement::CopyTo(_) | Statement::Reset(_) => None,
    }
}

/// Returns the name to which an identifier refers. The name is in lower case unless the identifier is quoted.
pub(in crate::sql::syntax) fn name_of(ident: &Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_ascii_lowercase(),
    }
}

/// Returns the name of an object without its schema.
pub(in crate::sql::syntax) fn last_name_of(name: &ObjectName) -> Option<String> {
    name.0.last().and_then(|part| part.as_ident()).map(name_of)
}

/// Returns the output name of a plain or compound identifier. Returns `None` for any other expression.
pub(in crate::sql::syntax) fn column_name(expr: &Expr) -> Option<String> {
    match expr {
        Expr::Identifier(ident) => Some(name_of(ident)),
        Expr::CompoundIdentifier(parts) => parts.last().map(name_of),
        Expr::Nested(inner) => column_name(inner),
        _ => None,
    }
}

/// Returns the position in `ORDER BY 2` or `GROUP BY 2`, counted from 1.
pub(in crate::sql::syntax) fn ordinal(expr: &Expr) -> Option<usize> {
    match expr {
        Expr::Value(value) => match &value.value {
            Value::Number(digits, _) => digits.to_string().parse().ok(),
            _ => None,
        },
        _ => None,
    }
}

pub(in crate::sql::syntax) fn quoted(name: impl Into<String>) -> Ident {
    Ident::with_quote('"', name)
}

pub(in crate::sql::syntax) fn value(value: Value) -> Expr {
    Expr::Value(value.into())
}

pub(in crate::sql::syntax) fn null() -> Expr {
    value(Value::Null)
}

pub(in crate::sql::syntax) fn text(text: impl Into<String>) -> Expr {
    value(Value::SingleQuotedString(text.into()))
}

pub(in crate::sql::syntax) fn number(digits: &str) -> Expr {
    value(Value::Number(digits.to_owned(), false))
}

/// Takes an expression out of the tree, and leaves NULL in its place.
pub(in crate::sql::syntax) fn take(expr: &mut Expr) -> Expr {
    std::mem::replace(expr, null())
}

/// Encloses an expression in parentheses if it needs them as an operand.
pub(in crate::sql::syntax) fn nested(expr: Expr) -> Expr {
    match expr {
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) | Expr::Value(_) | Expr::Nested(_) | Expr::Function(_) => {
            expr
        }
        expr => parenthesized(expr),
    }
}

/// Encloses any expression in parentheses.
pub(in crate::sql::syntax) fn parenthesized(expr: Expr) -> Expr {
    Expr::Nested(Box::new(expr))
}

pub(in crate::sql::syntax) fn cast(expr: Expr, data_type: DataType) -> Expr {
    Expr::Cast { kind: CastKind::Cast, expr: Box::new(expr), data_type, array: false, format: None }
}

pub(in crate::sql::syntax) fn binary(left: Expr, op: BinaryOperator, right: Expr) -> Expr {
    Expr::BinaryOp { left: Box::new(left), op, right: Box::new(right) }
}

pub(in crate::sql::syntax) fn not(expr: Expr) -> Expr {
    Expr::UnaryOp { op: UnaryOperator::Not, expr: Box::new(nested(expr)) }
}

/// Builds a function call as an expression.
pub(in crate::sql::syntax) fn call_expr(name: &str, args: Vec<Expr>) -> Expr {
    Expr::Function(call(name, args))
}

/// Builds a function call.
pub(in crate::sql::syntax) fn call(name: &str, args: Vec<Expr>) -> Function {
    let args = args.into_iter().map(|arg| FunctionArg::Unnamed(FunctionArgExpr::Expr(arg))).collect();
    Function {
        name: Ident::new(name).into(),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList { duplicate_treatment: None, args, clauses: Vec::new() }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: Vec::new(),
    }
}

/// Builds the query `SELECT items FROM from WHERE selection`.
pub(in crate::sql::syntax) fn select(
    items: Vec<SelectItem>,
    from: Vec<TableWithJoins>,
    selection: Option<Expr>,
) -> Select {
    Select {
        select_token: AttachedToken::empty(),
        optimizer_hints: Vec::new(),
        distinct: None,
        select_modifiers: None,
        top: None,
        top_before_distinct: false,
        projection: items,
        exclude: None,
        into: None,
        from,
        lateral_views: Vec::new(),
        prewhere: None,
        selection,
        connect_by: Vec::new(),
        group_by: GroupByExpr::Expressions(Vec::new(), Vec::new()),
        cluster_by: Vec::new(),
        distribute_by: Vec::new(),
        sort_by: Vec::new(),
        having: None,
        named_window: Vec::new(),
        qualify: None,
        window_before_qualify: false,
        value_table_mode: None,
        flavor: SelectFlavor::Standard,
    }
}

pub(in crate::sql::syntax) fn query(body: SetExpr) -> Query {
    Query {
        with: None,
        body: Box::new(body),
        order_by: None,
        limit_clause: None::<LimitClause>,
        fetch: None,
        locks: Vec::new(),
        for_clause: None,
        settings: None,
        format_clause: None,
        pipe_operators: Vec::new(),
    }
}

/// Returns `*` as an item of a select list.
pub(in crate::sql::syntax) fn wildcard() -> SelectItem {
    SelectItem::Wildcard(WildcardAdditionalOptions::default())
}

/// Returns a FROM item without joins.
pub(in crate::sql::syntax) fn table(relation: TableFactor) -> TableWithJoins {
    TableWithJoins { relation, joins: Vec::new() }
}

/// Calls `visitor` on the expressions in every clause of `select` except FROM and the select list.
pub(in crate::sql::syntax) fn visit_clauses<V>(select: &mut Select, visitor: &mut V) -> Result<()>
where
    V: VisitorMut<Break = crate::error::Error>,
{
    visit(&mut select.selection, visitor)?;
    visit(&mut select.group_by, visitor)?;
    visit(&mut select.having, visitor)?;
    visit(&mut select.qualify, visitor)?;
    visit(&mut select.named_window, visitor)?;
    visit(&mut select.distribute_by, visitor)?;
    visit(&mut select.cluster_by, visitor)?;
    visit(&mut select.sort_by, visitor)
}

/// Calls `visitor` on a node of the syntax tree and on its descendants.
pub(in crate::sql::syntax) fn visit<N, V>(node: &mut N, visitor: &mut V) -> Result<()>
where
    N: VisitMut,
    V: VisitorMut<Break = crate::error::Error>,
{
    flow(node.visit(visitor))
}

/// Returns the error with which a visitor stopped, if any.
pub(in crate::sql::syntax) fn flow(visited: std::ops::ControlFlow<crate::error::Error>) -> Result<()> {
    match visited {
        std::ops::ControlFlow::Continue(()) => Ok(()),
        std::ops::ControlFlow::Break(error) => Err(error),
    }
}
