//! Rewrites expressions that the engine's planner does not support or plans wrongly.
//!
//! | in the statement | planned as |
//! |---|---|
//! | `CAST(x AS VARCHAR(3))` | `left(CAST(x AS VARCHAR), 3)` |
//! | `CAST(x AS UUID)`, `CAST(x AS UUID[])`, `JSON 'x'` | `to_uuid(x)`, `to_uuids(x)`, `to_json('x')` |
//! | `x AT TIME ZONE 'zone'` | `at_time_zone(x, 'zone')` |
//! | `extract(part FROM x)`, `year(x)`, … | `date_part('part', x)` |
//! | `x LIKE p ESCAPE '!'` | `x LIKE like_pattern(p, '!')` |
//! | `x SIMILAR TO p` | `x ~ similar_to_pattern(p, '\')` |
//! | `mod(a, b)` | `a % b` |
//! | `regexp_extract(x, p, n)` | `array_element(regexp_match(x, '(' \|\| p \|\| ')'), n + 1)` |
//! | `age(x)` | `age(current_date, x)` |
//! | `date(x)` | `CAST(x AS DATE)` |
//! | `CAST('2026-03-02 10:00' AS DATE)` | `CAST('2026-03-02' AS DATE)` |
//! | `substring(x FROM 'pattern')` | `array_element(regexp_match(x, 'pattern'), 1)` |
//! | `~x` | `x XOR -1` |
//!
//! `array_comparisons.rs` describes ANY and ALL, `session_values.rs` describes `current_user` and similar names, and `current_time.rs` describes `LOCALTIMESTAMP` and
//! similar keywords.

use std::ops::ControlFlow;

use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast::{
    ArrayElemTypeDef, BinaryOperator, CastKind, DataType, Expr, Function, FunctionArg, FunctionArgExpr,
    FunctionArguments, Ident, ObjectName, Select, SelectItem, UnaryOperator, Value, ValueWithSpan, VisitMut as _,
    VisitorMut,
};

use crate::error::{Error, Result};
use crate::sql::functions::calendar::{complete_time, drop_time, round_time};
use crate::sql::syntax::session_values::{SessionValue, session_value};
use crate::sql::syntax::tree::{binary, call_expr, cast, number, parenthesized, take, text};
use crate::sql::syntax::{array_comparisons, current_time, type_names};

/// Rewrites the expressions in a statement and its subqueries. Replaces `current_user` with `user`, the caller's name.
/// Returns true if the statement contains `current_user`. If `user` is `None`, the statement has no caller, and
/// `current_user` is refused.
pub(super) fn rewrite(statement: &mut Statement, user: Option<&str>) -> Result<bool> {
    let statement = match statement {
        Statement::Statement(statement) => statement,
        Statement::Explain(explain) => return rewrite(&mut explain.statement, user),
        Statement::CreateExternalTable(_) | Statement::CopyTo(_) | Statement::Reset(_) => return Ok(false),
    };
    let mut expressions = Expressions { user, names_user: false };
    match statement.visit(&mut expressions) {
        ControlFlow::Continue(()) => Ok(expressions.names_user),
        ControlFlow::Break(error) => Err(error),
    }
}

struct Expressions<'a> {
    user: Option<&'a str>,
    names_user: bool,
}

impl VisitorMut for Expressions<'_> {
    type Break = Error;

    /// Uses the keyword, such as `current_user`, as the alias of a column without an alias. The engine would otherwise
    /// derive the column's name from the caller's name.
    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<Error> {
        for item in &mut select.projection {
            if let SelectItem::UnnamedExpr(expr) = item
                && let Some(alias) = keyword(expr).map(Ident::new).or_else(|| truncated_column(expr))
            {
                *item = SelectItem::ExprWithAlias { expr: take(expr), alias };
            }
        }
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<Error> {
        self.rewrite(expr).map_or_else(ControlFlow::Break, ControlFlow::Continue)
    }
}

impl Expressions<'_> {
    fn rewrite(&mut self, expr: &mut Expr) -> Result<()> {
        if let Some((_, value)) = session_value(expr) {
            *expr = self.session_text(value)?;
            return Ok(());
        }
        match expr {
            Expr::Cast { kind, data_type, expr: from, .. } if text_cast(data_type, kind).is_some() => {
                let function = text_cast(data_type, kind).unwrap_or_default();
                *expr = call_expr(function, vec![take(from)]);
            }
            Expr::TypedString(typed) if text_cast(&typed.data_type, &CastKind::Cast).is_some() => {
                let function = text_cast(&typed.data_type, &CastKind::Cast).unwrap_or_default();
                *expr = call_expr(function, vec![Expr::Value(typed.value.clone())]);
            }
            Expr::Cast { data_type, expr: from, .. } => {
                let length = type_names::rewrite(data_type);
                if let Expr::Value(value) = &mut **from {
                    complete(value, data_type);
                }
                if let Some(length) = length {
                    *expr = call_expr("left", vec![take(expr), number(&length)]);
                }
            }
            Expr::TypedString(typed) => {
                type_names::rewrite(&mut typed.data_type);
                complete(&mut typed.value, &typed.data_type);
            }
            Expr::AtTimeZone { timestamp, time_zone } => *expr = at_time_zone(take(timestamp), take(time_zone))?,
            Expr::Extract { field, syntax: _, expr: from } => {
                *expr = call_expr("date_part", vec![text(field.to_string()), take(from)]);
            }
            Expr::Like { pattern, escape_char, .. } | Expr::ILike { pattern, escape_char, .. } => {
                if let Some(escape) = escape_char.take() {
                    **pattern = call_expr("like_pattern", vec![take(pattern), Expr::Value(escape)]);
                }
            }
            Expr::SimilarTo { negated, expr: tested, pattern, escape_char } => {
                let escape = escape_char.take().map_or_else(|| text("\\"), Expr::Value);
                let pattern = call_expr("similar_to_pattern", vec![take(pattern), escape]);
                let op = if *negated { BinaryOperator::PGRegexNotMatch } else { BinaryOperator::PGRegexMatch };
                *expr = parenthesized(binary(take(tested), op, pattern));
            }
            Expr::Substring { expr: from, substring_from: Some(pattern), substring_for, .. } if is_text(pattern) => {
                *expr = first_match(take(from), take(pattern), substring_for.is_some())?;
            }
            Expr::UnaryOp { op: UnaryOperator::BitwiseNot, expr: operand } => {
                let ones = Expr::UnaryOp { op: UnaryOperator::Minus, expr: Box::new(number("1")) };
                *expr = parenthesized(binary(parenthesized(take(operand)), BinaryOperator::PGBitwiseXor, ones));
            }
            Expr::AnyOp { .. } | Expr::AllOp { .. } => array_comparisons::rewrite(expr)?,
            Expr::Function(function) => {
                if let Some(rewritten) = current_time::rewrite(function).or_else(|| rewrite_function(function)) {
                    *expr = rewritten;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn session_text(&mut self, value: SessionValue) -> Result<Expr> {
        match value {
            SessionValue::Text(value) => Ok(text(value)),
            SessionValue::User => {
                let user = self.user.ok_or_else(|| {
                    Error::unsupported("current_user is not supported here, because the statement has no caller")
                })?;
                self.names_user = true;
                Ok(text(user))
            }
        }
    }
}

/// Returns the function that casts text to a type, or `None` if the engine casts to this type.
fn text_cast(kind: &DataType, cast: &CastKind) -> Option<&'static str> {
    let is_try = matches!(cast, CastKind::TryCast | CastKind::SafeCast);
    match kind {
        DataType::Uuid => Some(if is_try { "try_to_uuid" } else { "to_uuid" }),
        DataType::Array(ArrayElemTypeDef::SquareBracket(element, _) | ArrayElemTypeDef::AngleBracket(element))
            if **element == DataType::Uuid =>
        {
            Some(if is_try { "try_to_uuids" } else { "to_uuids" })
        }
        DataType::JSON | DataType::JSONB => Some(if is_try { "try_to_json" } else { "to_json" }),
        _ => None,
    }
}

/// Returns the name of the column for an expression that is replaced by a constant or by the current time.
fn keyword(expr: &Expr) -> Option<&'static str> {
    session_value(expr).map(|(name, _)| name).or_else(|| current_time::keyword(expr))
}

fn is_text(expr: &Expr) -> bool {
    use Value::{EscapedStringLiteral, SingleQuotedString};
    matches!(expr, Expr::Value(ValueWithSpan { value: SingleQuotedString(_) | EscapedStringLiteral(_), .. }))
}

fn at_time_zone(mut time: Expr, zone: Expr) -> Result<Expr> {
    let is_constant = matches!(&zone, Expr::Value(value) if matches!(value.value, Value::SingleQuotedString(_)));
    if !is_constant {
        return Err(Error::unsupported(
            "AT TIME ZONE supports only a constant time zone: write a name such as 'Europe/Berlin'",
        ));
    }
    if let Expr::Value(ValueWithSpan { value: Value::SingleQuotedString(text), .. }) = &mut time {
        complete_time(text);
    }
    Ok(call_expr("at_time_zone", vec![time, zone]))
}

/// Returns the part of the text that matches the first group of a regular expression, or the whole match if the
/// expression has no group.
fn first_match(from: Expr, pattern: Expr, has_escape: bool) -> Result<Expr> {
    if has_escape {
        return Err(Error::unsupported(
            "substring(text FROM pattern FOR escape) is not supported: use regexp_extract(text, pattern, 1)",
        ));
    }
    Ok(call_expr("array_element", vec![call_expr("regexp_match", vec![from, pattern]), number("1")]))
}

/// Rewrites a constant timestamp with [`complete_time`], removes the time from a constant date, and rounds a constant time
/// of day.
fn complete(value: &mut ValueWithSpan, kind: &DataType) {
    match (&mut value.value, kind) {
        (Value::SingleQuotedString(text), DataType::Timestamp(_, _)) => _ = complete_time(text),
        (Value::SingleQuotedString(text), DataType::Date) => drop_time(text),
        (Value::SingleQuotedString(text), DataType::Time(_, _)) => _ = round_time(text),
        _ => {}
    }
}

/// Returns the column's name if the expression is a cast of a column to a text type with a length.
fn truncated_column(expr: &Expr) -> Option<Ident> {
    let Expr::Cast { expr, data_type, .. } = expr else { return None };
    type_names::rewrite(&mut data_type.clone())?;
    match &**expr {
        Expr::Identifier(name) => Some(name.clone()),
        Expr::CompoundIdentifier(names) => names.last().cloned(),
        _ => None,
    }
}

fn is_named(name: &ObjectName, expected: &str) -> bool {
    match name.0.as_slice() {
        [part] => part.as_ident().is_some_and(|ident| ident.value.eq_ignore_ascii_case(expected)),
        _ => false,
    }
}

/// Returns the replacement for a call to a function that has another name in the engine.
fn rewrite_function(function: &mut Function) -> Option<Expr> {
    const NAMES: [(&str, &str); 14] = [
        ("year", "year"),
        ("quarter", "quarter"),
        ("month", "month"),
        ("week", "week"),
        ("day", "day"),
        ("dayofmonth", "day"),
        ("dayofyear", "doy"),
        ("hour", "hour"),
        ("minute", "minute"),
        ("second", "second"),
        ("mod", ""),
        ("age", ""),
        ("date", ""),
        ("regexp_extract", ""),
    ];
    const DIFFERENCES: [&str; 2] = ["date_diff", "datediff"];
    // The functions whose last argument is a string of flags, each with its number of arguments. The engine refuses an
    // empty string of flags (apache/datafusion#25021).
    const FLAGS: [(&str, usize); 3] = [("regexp_like", 3), ("regexp_match", 3), ("regexp_replace", 4)];
    let FunctionArguments::List(list) = &mut function.args else { return None };
    if !list.clauses.is_empty() || list.duplicate_treatment.is_some() || function.over.is_some() {
        return None;
    }
    if DIFFERENCES.iter().any(|name| is_named(&function.name, name)) {
        // In `datediff(day, from, to)`, the unit is an identifier without quotes.
        if let Some(unit) = list.args.first_mut().and_then(argument)
            && let Expr::Identifier(word) = unit
            && word.quote_style.is_none()
        {
            *unit = text(&word.value);
        }
        return None;
    }
    if FLAGS.iter().any(|(name, args)| is_named(&function.name, name) && list.args.len() == *args)
        && list.args.last_mut().and_then(argument).is_some_and(|flags| *flags == text(""))
    {
        list.args.pop();
        return None;
    }
    let (name, part) = NAMES.into_iter().find(|(name, _)| is_named(&function.name, name))?;
    let arguments: Option<Vec<_>> = list.args.iter_mut().map(argument).collect();
    match (name, arguments?.as_mut_slice()) {
        ("mod", [a, b]) => {
            let (a, b) = (parenthesized(take(a)), parenthesized(take(b)));
            Some(parenthesized(binary(a, BinaryOperator::Modulo, b)))
        }
        ("date", [from]) => {
            if let Expr::Value(value) = from {
                complete(value, &DataType::Date);
            }
            Some(cast(take(from), DataType::Date))
        }
        ("age", [from]) => Some(call_expr("age", vec![call_expr("current_date", Vec::new()), take(from)])),
        ("regexp_extract", [value, pattern]) => Some(regexp_extract(take(value), take(pattern), number("0"))),
        ("regexp_extract", [value, pattern, group]) => Some(regexp_extract(take(value), take(pattern), take(group))),
        ("second", [time]) => {
            let seconds = call_expr("floor", vec![call_expr("date_part", vec![text(part), take(time)])]);
            Some(cast(seconds, DataType::Int(None)))
        }
        (_, [time]) if !part.is_empty() => Some(call_expr("date_part", vec![text(part), take(time)])),
        _ => None,
    }
}

/// Encloses the pattern in a group, because `regexp_match` returns the whole match only if the pattern has no group.
/// The group number is increased by 1, because the added group is the first one.
fn regexp_extract(value: Expr, pattern: Expr, group: Expr) -> Expr {
    let join = |left, right| binary(left, BinaryOperator::StringConcat, right);
    let pattern = join(join(text("("), parenthesized(pattern)), text(")"));
    let group = binary(parenthesized(group), BinaryOperator::Plus, number("1"));
    call_expr("array_element", vec![call_expr("regexp_match", vec![value, pattern]), group])
}

fn argument(argument: &mut FunctionArg) -> Option<&mut Expr> {
    match argument {
        FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
        _ => None,
    }
}
