//! Placeholders in a statement (`?` and `$1`), and the values that a client binds to them.
//!
//! Before parsing, the placeholders are numbered. Before running, one row of values is cast to the types that the
//! statement expects. A value that the cast would change is refused, and the error names its ordinal.
//!
//! **Invariant:** a bound value becomes a typed literal in the plan. It is never part of SQL text.

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

/// Replaces the `?` placeholders of a statement with `$1`, `$2`, and so on, from left to right. A statement cannot
/// contain both kinds.
pub(in crate::query) fn number(tokens: Vec<TokenWithSpan>) -> Result<Vec<TokenWithSpan>> {
    let mut numbered = Vec::with_capacity(tokens.len());
    let (mut question_marks, mut has_dollars) = (0, false);
    for token in tokens {
        let span = token.span;
        if let Token::Placeholder(name) = &token.token {
            has_dollars |= name.starts_with('$');
        }
        match after_question_mark(&token.token) {
            None => numbered.push(token),
            Some(rest) => {
                question_marks += 1;
                let placeholder = Token::Placeholder(format!("${question_marks}"));
                numbered.extend(
                    std::iter::once(placeholder).chain(rest.iter().cloned()).map(|token| TokenWithSpan { token, span }),
                );
            }
        }
    }
    if question_marks > 0 && has_dollars {
        return Err(Error::invalid("the statement mixes `?` and `$1` placeholders: use only one kind"));
    }
    if question_marks > PARAMETERS_MAX {
        return Err(Error::limited(format!(
            "the statement has {question_marks} placeholders, but at most {PARAMETERS_MAX} are allowed"
        )));
    }
    Ok(numbered)
}

/// Returns the tokens after the question mark of a token that starts with one, and `None` for any other token. The
/// tokenizer reads the `?-` of `x = ?-1` as one token, because some databases have such an operator. The engine has no
/// operator that starts with a question mark.
fn after_question_mark(token: &Token) -> Option<&'static [Token]> {
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

/// Returns the placeholders of a plan by name, with their inferred types. In two cases the engine infers no type, and
/// this function does: a placeholder directly inside a cast has the type of the cast, and a placeholder in LIMIT or
/// OFFSET is an integer.
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

/// Returns one field per placeholder, in order. Its type is `Null` if no type could be inferred.
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
    let fields = (1..).zip(kinds).map(|(ordinal, kind)| match kind {
        Some(kind) => Ok(Field::new(format!("${ordinal}"), kind, true)),
        None => {
            Err(Error::invalid(format!("placeholder `${ordinal}` is missing: number the placeholders without gaps")))
        }
    });
    Ok(Schema::new(fields.collect::<Result<Vec<_>>>()?))
}

/// Casts one row of values to the parameter types of the statement.
pub(in crate::query) fn bind(parameters: &Schema, given: Option<&RecordBatch>) -> Result<Vec<ScalarValue>> {
    let count = parameters.fields().len();
    let Some(given) = given.filter(|given| given.num_columns() > 0) else {
        return if count == 0 { Ok(Vec::new()) } else { Err(mismatch(count, 0)) };
    };
    if given.num_columns() != count {
        return Err(mismatch(count, given.num_columns()));
    }
    if given.num_rows() != 1 {
        return Err(Error::invalid(format!("{} rows of parameters are bound: bind exactly one row", given.num_rows())));
    }
    let values = (1..).zip(parameters.fields().iter().zip(given.columns()));
    values
        .map(|(ordinal, (field, column))| {
            let value = ScalarValue::try_from_array(column, 0).map_err(|error| {
                Error::invalid(format!("parameter {ordinal}: cannot read its value")).with_source(error)
            })?;
            cast(unwrapped(value), field.data_type()).map_err(|error| error.at(format!("parameter {ordinal}")))
        })
        .collect()
}

fn mismatch(expected: usize, given: usize) -> Error {
    Error::invalid(format!("the number of bound values ({given}) does not match the number of parameters ({expected})"))
}

/// Extracts the value from a union or a dictionary, which some clients bind, and converts view and large types to the
/// plain ones.
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

/// Casts the value to `kind` without loss. Text is parsed. A value of any other type must be the same after a cast to
/// `kind` and back.
fn cast(value: ScalarValue, kind: &DataType) -> Result<ScalarValue> {
    let given = value.data_type();
    if *kind == DataType::Null || given == *kind {
        return Ok(value);
    }
    let refuse = || Error::invalid(format!("`{value}` ({given}) does not fit {kind}"));
    let is_text = matches!(given, DataType::Utf8);
    let found = value.cast_to(kind).map_err(|error| refuse().with_source(error))?;
    if value.is_null() || is_text {
        return Ok(found);
    }
    match found.cast_to(&given) {
        Ok(back) if back == value => Ok(found),
        _ => Err(refuse()),
    }
}
