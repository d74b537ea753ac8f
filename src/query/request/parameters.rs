//! Placeholders in a statement (`?` and `$1`), and the values that a client binds to them.
//!
//! In: the tokens of a statement; later one row of values. Out: tokens with numbered placeholders only; literals of the
//! types that the statement expects. A value that a cast would change is refused, with its ordinal.
//!
//! **Invariant:** a bound value becomes a typed literal in the plan; it is never part of SQL text.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{TreeNode as _, TreeNodeRecursion};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::error::{Error, Result};

/// The maximum number of placeholders in one statement.
const PARAMETERS_MAX: usize = 1000;

/// Numbers the `?` of a statement from left to right and keeps `$1`. A statement cannot mix the two.
pub(in crate::query) fn number(tokens: Vec<TokenWithSpan>) -> Result<Vec<TokenWithSpan>> {
    let mut numbered = Vec::with_capacity(tokens.len());
    let (mut marks, mut dollars) = (0, false);
    for token in tokens {
        let span = token.span;
        if let Token::Placeholder(name) = &token.token {
            dollars |= name.starts_with('$');
        }
        match after_mark(&token.token) {
            None => numbered.push(token),
            Some(rest) => {
                marks += 1;
                let mark = Token::Placeholder(format!("${marks}"));
                numbered.extend(
                    std::iter::once(mark).chain(rest.iter().cloned()).map(|token| TokenWithSpan { token, span }),
                );
            }
        }
    }
    if marks > 0 && dollars {
        return Err(Error::invalid("the statement mixes `?` and `$1` placeholders: use only one kind"));
    }
    if marks > PARAMETERS_MAX {
        return Err(Error::limited(format!("the statement has {marks} placeholders, more than {PARAMETERS_MAX}")));
    }
    Ok(numbered)
}

/// The tokens after the question mark, for a token that starts with one. The tokenizer joins some (`x = ?-1`), because
/// other databases have operators of these characters; the engine has none of them.
fn after_mark(token: &Token) -> Option<&'static [Token]> {
    match token {
        Token::Question => Some(&[]),
        Token::Placeholder(name) if name == "?" => Some(&[]),
        Token::QuestionMarkDash => Some(&[Token::Minus]),
        Token::QuestionMarkSharp => Some(&[Token::Sharp]),
        Token::QuestionAnd => Some(&[Token::Ampersand]),
        Token::QuestionPipe => Some(&[Token::Pipe]),
        Token::QuestionMarkDashVerticalBar => Some(&[Token::Minus, Token::Pipe]),
        Token::QuestionMarkDoubleVerticalBar => Some(&[Token::StringConcat]),
        _ => None,
    }
}

/// The placeholders of a plan by name, with the type that the engine infers. Two cases are added that it does not
/// infer: a placeholder directly inside a cast has the type of the cast, and those of LIMIT and OFFSET are integers.
pub(in crate::query) fn of_plan(plan: &LogicalPlan) -> Result<HashMap<String, Option<FieldRef>>, DataFusionError> {
    let mut found = plan.get_parameter_fields()?;
    let mut infer = |expr: &Expr, kind: &DataType| {
        if let Expr::Placeholder(placeholder) = expr {
            let field = || Arc::new(Field::new("", kind.clone(), true));
            found.entry(placeholder.id.clone()).or_default().get_or_insert_with(field);
        }
    };
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::Limit(limit) = node {
            [&limit.skip, &limit.fetch].into_iter().flatten().for_each(|bound| infer(bound, &DataType::Int64));
        }
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                if let Expr::Cast(cast) = expr {
                    infer(&cast.expr, cast.field.data_type());
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(found)
}

/// One field per placeholder, in order; `Null` if the engine cannot infer the type.
pub(in crate::query) fn schema(found: &HashMap<String, Option<FieldRef>>) -> Result<Schema> {
    let mut kinds: Vec<Option<DataType>> = Vec::new();
    for (name, field) in found.iter().collect::<BTreeMap<_, _>>() {
        let ordinal = name.strip_prefix('$').and_then(|digits| digits.parse::<usize>().ok()).filter(|at| *at > 0);
        let Some(ordinal) = ordinal else {
            return Err(Error::invalid(format!("named placeholder `{name}` is not supported: use `$1` or `?`")));
        };
        if ordinal > PARAMETERS_MAX {
            return Err(Error::limited(format!(
                "placeholder `{name}` exceeds the limit of {PARAMETERS_MAX} placeholders in one statement"
            )));
        }
        kinds.resize(kinds.len().max(ordinal), None);
        kinds[ordinal - 1] = Some(field.as_ref().map_or(DataType::Null, |field| field.data_type().clone()));
    }
    let fields = kinds.into_iter().enumerate().map(|(place, kind)| match kind {
        Some(kind) => Ok(Field::new(format!("${}", place + 1), kind, true)),
        None => Err(Error::invalid(format!("placeholder `${}` is missing: number them without gaps", place + 1))),
    });
    Ok(Schema::new(fields.collect::<Result<Vec<_>>>()?))
}

/// Converts one row of values to the parameters of the statement.
pub(in crate::query) fn bind(wanted: &Schema, given: Option<&RecordBatch>) -> Result<Vec<ScalarValue>> {
    let count = wanted.fields().len();
    let Some(given) = given.filter(|given| given.num_columns() > 0) else {
        return if count == 0 { Ok(Vec::new()) } else { Err(mismatch(count, 0)) };
    };
    if given.num_columns() != count {
        return Err(mismatch(count, given.num_columns()));
    }
    if given.num_rows() != 1 {
        return Err(Error::invalid(format!("{} rows of parameters are bound: bind exactly one row", given.num_rows())));
    }
    let values = wanted.fields().iter().zip(given.columns()).enumerate();
    values
        .map(|(place, (field, column))| {
            let ordinal = place + 1;
            let value = ScalarValue::try_from_array(column, 0).map_err(|error| {
                Error::invalid(format!("parameter {ordinal}: cannot read its value")).with_source(error)
            })?;
            cast(unwrapped(value), field.data_type()).map_err(|error| error.at(format!("parameter {ordinal}")))
        })
        .collect()
}

fn mismatch(wanted: usize, given: usize) -> Error {
    Error::invalid(format!("the statement has {wanted} parameters and {given} are bound"))
}

/// The value inside a union or a dictionary, which some clients bind.
fn unwrapped(value: ScalarValue) -> ScalarValue {
    match value {
        ScalarValue::Union(Some((_, inner)), ..) => unwrapped(*inner),
        ScalarValue::Union(None, ..) => ScalarValue::Null,
        ScalarValue::Dictionary(_, inner) => unwrapped(*inner),
        ScalarValue::Utf8View(text) | ScalarValue::LargeUtf8(text) => ScalarValue::Utf8(text),
        ScalarValue::BinaryView(bytes) | ScalarValue::LargeBinary(bytes) => ScalarValue::Binary(bytes),
        other => other,
    }
}

/// Casts the value to `kind` without loss: text is parsed; a number or a time must survive the round trip.
fn cast(value: ScalarValue, kind: &DataType) -> Result<ScalarValue> {
    let given = value.data_type();
    if *kind == DataType::Null || given == *kind {
        return Ok(value);
    }
    let refuse = || Error::invalid(format!("`{value}` ({given}) does not fit {kind}"));
    let as_text = matches!(given, DataType::Utf8);
    let found = value.cast_to(kind).map_err(|error| refuse().with_source(error))?;
    if value.is_null() || as_text {
        return Ok(found);
    }
    match found.cast_to(&given) {
        Ok(back) if back == value => Ok(found),
        _ => Err(refuse()),
    }
}
