//! Placeholders in a statement (`?` and `$1`), and the values that a client binds to them.
//!
//! The placeholders are numbered before the statement is parsed. Before each run, each placeholder is replaced by a
//! literal that has the type of the bound value, and the statement is planned again ([`parameter_values`]). A bound value
//! therefore has the same effect as a literal in the statement.
//!
//! **Invariant:** a bound value keeps its own type, is never changed, and is never inserted into SQL text.

use std::collections::BTreeMap;

use arrow::array::RecordBatch;
use arrow::datatypes::{DataType, Field, FieldRef, Schema};
use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{TreeNode as _, TreeNodeRecursion};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{BinaryExpr, Expr, LogicalPlan};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan};

use crate::error::{Error, Result};
use crate::query::planning::erased_plan::ErasedPlan;
use crate::sql::syntax::parameter_values;

/// The maximum number of placeholders in one statement.
const PARAMETERS_MAX: usize = 1000;
/// The maximum size of the bound values in one plan, in bytes.
const VALUES_BYTES_MAX: usize = 64 << 20;

/// Replaces the `?` placeholders of a statement with `$1`, `$2`, and so on, from left to right. A statement cannot
/// contain both `?` and `$1` placeholders.
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

/// Splits a token that starts with a question mark: returns the tokens that follow the question mark. Returns `None`
/// for any other token. The tokenizer reads `?-` in `x = ?-1` as one token, because some databases have an operator
/// `?-`. The engine has no operator that starts with a question mark.
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

/// A statement with placeholders, which is planned again for each row of bound values.
#[derive(Debug)]
pub(in crate::query) struct ParameterizedStatement {
    pub(in crate::query) statement: ErasedPlan<Statement>,
    /// The number of uses of each placeholder, keyed by the placeholder's name.
    placeholders: BTreeMap<String, usize>,
}

impl ParameterizedStatement {
    /// Returns `None` if the statement has no placeholders. Otherwise, names each unnamed result column that contains a
    /// placeholder, so that column names do not depend on bound values.
    pub(in crate::query) fn of(statement: &mut Statement) -> Option<Self> {
        let placeholders = parameter_values::placeholders(statement);
        if placeholders.is_empty() {
            return None;
        }
        parameter_values::name_columns(statement);
        Some(Self { statement: ErasedPlan::new(statement.clone()), placeholders })
    }

    /// Returns the statement with a marker in place of each placeholder.
    pub(in crate::query) fn marked(&self) -> Statement {
        let mut statement = Statement::clone(&self.statement);
        parameter_values::substitute(&mut statement);
        statement
    }

    /// Returns a list that contains `value` once for each placeholder.
    pub(in crate::query) fn repeat(&self, value: &ScalarValue) -> Vec<ScalarValue> {
        vec![value.clone(); self.placeholders.len()]
    }

    /// Adds the placeholders of this statement to `found`, except those that are already in it.
    pub(in crate::query) fn complete(&self, found: &mut Placeholders) {
        for name in self.placeholders.keys() {
            found.entry(name.clone()).or_insert(None);
        }
    }

    /// Refuses values that would make the plan too large. For each use of a placeholder, the plan contains a copy of
    /// the value.
    pub(in crate::query) fn check_size(&self, values: &[ScalarValue]) -> Result<()> {
        let size = |(name, uses): (&String, &usize)| {
            let value = ordinal(name).and_then(|ordinal| values.get(ordinal - 1));
            value.map_or(0, |value| uses.saturating_mul(value.size()))
        };
        let bytes = self.placeholders.iter().map(size).fold(0, usize::saturating_add);
        if bytes <= VALUES_BYTES_MAX {
            return Ok(());
        }
        Err(Error::limited(format!(
            "the bound values take {bytes} bytes, counted once per use, but at most {VALUES_BYTES_MAX} are \
             allowed: bind smaller values, or use them less often"
        )))
    }
}

/// Returns example values for placeholders. They are used to plan statements that cannot be planned without values.
pub(in crate::query) fn examples() -> [ScalarValue; 4] {
    let day = ScalarValue::new_interval_mdn(0, 1, 0);
    [ScalarValue::Null, ScalarValue::Int64(Some(1)), ScalarValue::from("day"), day]
}

/// The inferred types of a plan's placeholders, keyed by their names. A type is `Null` if several types are possible,
/// and `None` if no type could be inferred.
pub(in crate::query) type Placeholders = BTreeMap<String, Option<DataType>>;

/// Returns the placeholders of a plan. The types are only hints for clients that need a type to bind a value: a bound
/// value always keeps its own type. Usually, the engine infers the type from the other operand. A placeholder directly
/// inside a cast has the cast's target type, and a placeholder in LIMIT or OFFSET is an integer. In arithmetic with
/// times, the other operand does not determine the type. In `ts - $1`, for example, `$1` may be a time or an interval.
pub(in crate::query) fn of_plan(plan: &LogicalPlan) -> Result<Placeholders, DataFusionError> {
    let mut found = Placeholders::new();
    plan.apply_with_subqueries(|node| {
        if let LogicalPlan::Limit(limit) = node {
            let bounds = [&limit.skip, &limit.fetch].into_iter().flatten();
            bounds.for_each(|bound| infer(&mut found, bound, Some(DataType::Int64)));
        }
        node.apply_expressions(|expr| {
            expr.apply(|expr| {
                match expr {
                    Expr::Placeholder(placeholder) => {
                        let kind = placeholder.field.as_ref().map(|field| field.data_type().clone());
                        infer(&mut found, expr, kind);
                    }
                    Expr::Cast(cast) => infer(&mut found, &cast.expr, Some(cast.field.data_type().clone())),
                    Expr::BinaryExpr(BinaryExpr { left, op, right }) if op.is_numerical_operators() => {
                        for side in [left, right] {
                            if placeholder_type(side).is_some_and(is_time) {
                                infer(&mut found, side, Some(DataType::Null));
                            }
                        }
                    }
                    _ => {}
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })
    })?;
    Ok(found)
}

/// If `expr` is a placeholder, records that it may have the type `kind`.
fn infer(found: &mut Placeholders, expr: &Expr, kind: Option<DataType>) {
    if let Expr::Placeholder(placeholder) = expr {
        let known = found.entry(placeholder.id.clone()).or_default();
        match (&*known, kind) {
            (_, None) => {}
            (Some(known), Some(kind)) if *known == kind => {}
            (Some(_), Some(_)) => *known = Some(DataType::Null),
            (None, kind) => *known = kind,
        }
    }
}

fn placeholder_type(expr: &Expr) -> Option<&DataType> {
    match expr {
        Expr::Placeholder(placeholder) => placeholder.field.as_ref().map(|field| field.data_type()),
        _ => None,
    }
}

fn is_time(kind: &DataType) -> bool {
    kind.is_temporal() || matches!(kind, DataType::Interval(_))
}

/// Returns the number of a placeholder, counted from 1. Returns `None` for a named placeholder.
fn ordinal(name: &str) -> Option<usize> {
    name.strip_prefix('$').and_then(|digits| digits.parse().ok()).filter(|ordinal| *ordinal > 0)
}

/// Returns one field for each placeholder, ordered by number. The type of a field is `Null` if no type could be
/// inferred.
pub(in crate::query) fn schema(found: &Placeholders) -> Result<Schema> {
    let mut kinds: Vec<Option<DataType>> = Vec::new();
    for (name, kind) in found {
        let Some(ordinal) = ordinal(name) else {
            return Err(Error::invalid(format!("named placeholder `{name}` is not supported: use `$1` or `?`")));
        };
        if ordinal > PARAMETERS_MAX {
            return Err(Error::limited(format!(
                "placeholder `{name}` exceeds the limit of {PARAMETERS_MAX} placeholders in one statement"
            )));
        }
        kinds.resize(kinds.len().max(ordinal), None);
        kinds[ordinal - 1] = Some(kind.clone().unwrap_or(DataType::Null));
    }
    let fields = (1..).zip(kinds).map(|(ordinal, kind)| match kind {
        Some(kind) => Ok(Field::new(format!("${ordinal}"), kind, true)),
        None => {
            Err(Error::invalid(format!("placeholder `${ordinal}` is missing: number the placeholders without gaps")))
        }
    });
    Ok(Schema::new(fields.collect::<Result<Vec<_>>>()?))
}

/// Returns the values of one row of bound parameters. Each value keeps its own type.
pub(in crate::query) fn values(parameters: &Schema, rows: &RecordBatch, row: usize) -> Result<Vec<ScalarValue>> {
    let count = parameters.fields().len();
    if rows.num_columns() != count {
        return Err(mismatch(count, rows.num_columns()));
    }
    if row >= rows.num_rows() {
        return Err(Error::invalid("no row of parameters is bound: bind at least one row"));
    }
    let values = (1..).zip(rows.columns()).map(|(ordinal, column)| {
        ScalarValue::try_from_array(column, row)
            .map(unwrapped)
            .map_err(|error| Error::invalid(format!("parameter {ordinal}: cannot read its value")).with_source(error))
    });
    values.collect()
}

/// Returns true if each value has exactly the inferred type. In that case, the values can be inserted into the plan
/// from which the types were inferred.
pub(in crate::query) fn are_as_inferred(parameters: &Schema, values: &[ScalarValue]) -> bool {
    let is_as_inferred = |(field, value): (&FieldRef, &ScalarValue)| {
        *field.data_type() != DataType::Null && *field.data_type() == value.data_type()
    };
    parameters.fields().iter().zip(values).all(is_as_inferred)
}

/// Returns the error for a wrong number of bound values.
pub(in crate::query) fn mismatch(expected: usize, given: usize) -> Error {
    Error::invalid(format!("the number of bound values ({given}) does not match the number of parameters ({expected})"))
}

/// Returns the value inside a union, dictionary or run-end encoded value, which some clients bind. Also converts view
/// types and large types, such as `Utf8View`, to the types that SQL literals have.
fn unwrapped(value: ScalarValue) -> ScalarValue {
    match value {
        ScalarValue::Union(Some((_, inner)), ..) => unwrapped(*inner),
        ScalarValue::Union(None, ..) => ScalarValue::Null,
        ScalarValue::Dictionary(_, inner) | ScalarValue::RunEndEncoded(_, _, inner) => unwrapped(*inner),
        ScalarValue::Utf8View(text) | ScalarValue::LargeUtf8(text) => ScalarValue::Utf8(text),
        ScalarValue::BinaryView(bytes) | ScalarValue::LargeBinary(bytes) => ScalarValue::Binary(bytes),
        other => other,
    }
}
