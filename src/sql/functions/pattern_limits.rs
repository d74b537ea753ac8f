//! Limits the size of regular expressions.
//!
//! A regular expression is compiled before it is used. `\w{90}` becomes an automaton of many thousand states, and a
//! function whose patterns come from a column compiles one automaton for each of them. A wrapper around each function
//! with a pattern estimates the number of states without compiling. If the pattern of an operator `~`, `~*`, `!~` or
//! `!~*` is large or not constant, the operator becomes a call of `regexp_like`.
//!
//! **Invariant:** the engine compiles only patterns that [`checked_states`] has accepted.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, StringArray};
use arrow::compute::cast;
use arrow::datatypes::{DataType, FieldRef};
use datafusion::error::{DataFusionError, Result};
use datafusion::logical_expr::expr::ScalarFunction;
use datafusion::logical_expr::simplify::{ExprSimplifyResult, SimplifyContext};
use datafusion::logical_expr::{
    BinaryExpr, Cast, ColumnarValue, Documentation, Expr, Operator, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF,
    ScalarUDFImpl, Signature, lit,
};
use regex_syntax::hir::{Class, Hir, HirKind};

use crate::error::Error;
use crate::sql::functions::definition::slice;
use crate::sql::functions::delegate::delegate;
use crate::sql::functions::function_size::Measure;
use crate::sql::interrupt;

/// The functions whose second argument is a regular expression.
const FUNCTIONS: [&str; 5] = ["regexp_count", "regexp_instr", "regexp_like", "regexp_match", "regexp_replace"];
/// The maximum estimated number of states of the regular expressions in one call on one batch of rows.
const STATES_MAX: usize = 100_000;
/// The maximum size of a regular expression in bytes.
const PATTERN_BYTES_MAX: usize = 10_000;
/// The maximum number of states of a constant pattern for which an operator is kept. An operator with a larger pattern
/// is replaced with the function `regexp_like`, which limits the number of steps per text.
const OPERATOR_STATES_MAX: usize = 128;
/// The maximum estimated number of steps to match one text.
const TEXT_STEPS_MAX: usize = 1 << 32;
/// The maximum number of steps between two checks for an interruption, unless one text needs more.
const CALL_STEPS_MAX: usize = 1 << 28;
/// The number of rows of one call, if the patterns or the flags come from a column.
const ROWS_PER_CALL: usize = 256;

/// Wraps the functions with a pattern.
pub(crate) fn with_pattern_limits(functions: Vec<Arc<ScalarUDF>>) -> Vec<Arc<ScalarUDF>> {
    let wrap = |function: Arc<ScalarUDF>| match FUNCTIONS.contains(&function.name()) {
        true => Arc::new(ScalarUDF::new_from_impl(PatternFunction { inner: function })),
        false => function,
    };
    functions.into_iter().map(wrap).collect()
}

/// Replaces an operator whose pattern is large or not constant. Returns `None` if the expression needs no replacement.
pub(super) fn limit_operator(binary: &BinaryExpr) -> Result<Option<Expr>> {
    let (ignores_case, negated) = match binary.op {
        Operator::RegexMatch => (false, false),
        Operator::RegexIMatch => (true, false),
        Operator::RegexNotMatch => (false, true),
        Operator::RegexNotIMatch => (true, true),
        _ => return Ok(None),
    };
    if let Expr::Literal(pattern, _) = &*binary.right {
        let pattern = pattern.try_as_str().flatten();
        if pattern.map_or(Ok(0), checked_states)? <= OPERATOR_STATES_MAX {
            return Ok(None);
        }
    }
    let text = |operand: &Expr| Expr::Cast(Cast::new(Box::new(operand.clone()), DataType::Utf8));
    let mut args = vec![text(&binary.left), text(&binary.right)];
    args.extend(ignores_case.then(|| lit("i")));
    let func =
        Arc::new(ScalarUDF::new_from_impl(PatternFunction { inner: datafusion::functions::regex::regexp_like() }));
    let call = Expr::ScalarFunction(ScalarFunction { func, args });
    Ok(Some(if negated { Expr::Not(Box::new(call)) } else { call }))
}

/// Returns true for the operators that match a regular expression.
pub(super) fn is_pattern_operator(op: Operator) -> bool {
    use Operator::{RegexIMatch, RegexMatch, RegexNotIMatch, RegexNotMatch};
    matches!(op, RegexMatch | RegexIMatch | RegexNotMatch | RegexNotIMatch)
}

/// Returns the estimated number of states of a regular expression. Fails if it is too large. Accepts an invalid regular
/// expression, because the engine reports the error.
fn checked_states(pattern: &str) -> Result<usize> {
    if pattern.len() > PATTERN_BYTES_MAX {
        return Err(DataFusionError::External(Box::new(Error::limited(format!(
            "a regular expression has {} bytes, but at most {PATTERN_BYTES_MAX} are allowed: use IN (…) or LIKE",
            pattern.len()
        )))));
    }
    let states = states(pattern);
    if states <= STATES_MAX { Ok(states) } else { Err(too_large()) }
}

fn too_large() -> DataFusionError {
    DataFusionError::External(Box::new(Error::limited(format!(
        "the regular expressions have more than {STATES_MAX} states for one batch of rows: use smaller repetition counts \
         such as {{1,20}}, ASCII classes such as [a-z0-9] instead of \\w, or a constant pattern"
    ))))
}

/// Returns the estimated number of states of a regular expression, or 0 if it is invalid.
fn states(pattern: &str) -> usize {
    regex_syntax::parse(pattern).map_or(0, |hir| hir_states(&hir))
}

/// Returns the estimated number of states of a part of a regular expression. The parser limits the nesting depth.
fn hir_states(hir: &Hir) -> usize {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => 1,
        HirKind::Literal(literal) => literal.0.len(),
        HirKind::Class(Class::Unicode(class)) => class.ranges().len().max(1),
        HirKind::Class(Class::Bytes(class)) => class.ranges().len().max(1),
        HirKind::Repetition(repetition) => {
            let copies = repetition.max.unwrap_or(repetition.min).max(1);
            hir_states(&repetition.sub).saturating_mul(copies as usize).saturating_add(1)
        }
        HirKind::Capture(capture) => hir_states(&capture.sub).saturating_add(2),
        HirKind::Concat(parts) | HirKind::Alternation(parts) => {
            parts.iter().map(hir_states).fold(1, usize::saturating_add)
        }
    }
}

/// A function that checks the size of its patterns.
#[derive(Debug, PartialEq, Eq, Hash)]
struct PatternFunction {
    inner: Arc<ScalarUDF>,
}

impl ScalarUDFImpl for PatternFunction {
    delegate! {
        fn name(&self) -> &str;
        fn aliases(&self) -> &[String];
        fn signature(&self) -> &Signature;
        fn return_type(&self, kinds: &[DataType]) -> Result<DataType>;
        fn return_field_from_args(&self, args: ReturnFieldArgs) -> Result<FieldRef>;
        fn schema_name(&self, args: &[Expr]) -> Result<String>;
        fn documentation(&self) -> Option<&Documentation>;
    }

    fn coerce_types(&self, kinds: &[DataType]) -> Result<Vec<DataType>> {
        self.inner.inner().coerce_types(kinds)
    }

    /// Simplifies only calls with a small constant pattern, because the engine can replace such a call with an
    /// operator.
    fn simplify(&self, args: Vec<Expr>, info: &SimplifyContext) -> Result<ExprSimplifyResult> {
        match args.get(1) {
            Some(Expr::Literal(pattern, _))
                if pattern.try_as_str().flatten().map_or(Ok(0), checked_states)? <= OPERATOR_STATES_MAX =>
            {
                self.inner.simplify(args, info)
            }
            _ => Ok(ExprSimplifyResult::Original(args)),
        }
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> Result<ColumnarValue> {
        interrupt::check()?;
        let [text, pattern, ..] = args.args.as_slice() else { return self.inner.invoke_with_args(args) };
        let states = match pattern {
            ColumnarValue::Scalar(pattern) => pattern.try_as_str().flatten().map_or(Ok(0), checked_states)?,
            ColumnarValue::Array(patterns) => checked_states_of_all(patterns)?,
        };
        let is_constant = args.args[1..].iter().all(|arg| matches!(arg, ColumnarValue::Scalar(_)));
        let rows_max = if is_constant { usize::MAX } else { ROWS_PER_CALL };
        let match_bytes_max = match_bytes_max(pattern)?;
        let sizes = Measure::sizes(Some(text));
        let mut results = Vec::<ArrayRef>::new();
        let mut start = 0;
        while start < args.number_rows {
            interrupt::check()?;
            let (mut rows, mut steps) = (0, 0_usize);
            while start + rows < args.number_rows && rows < rows_max {
                let row_steps = self.steps(sizes.at(start + rows), states, match_bytes_max)?;
                if rows > 0 && steps.saturating_add(row_steps) > CALL_STEPS_MAX {
                    break;
                }
                steps = steps.saturating_add(row_steps);
                rows += 1;
            }
            if rows == args.number_rows {
                return self.inner.invoke_with_args(args);
            }
            results.push(self.inner.invoke_with_args(slice(&args, start, rows))?.into_array(rows)?);
            start += rows;
        }
        if results.is_empty() {
            return self.inner.invoke_with_args(args);
        }
        let results: Vec<_> = results.iter().map(AsRef::as_ref).collect();
        Ok(ColumnarValue::Array(arrow::compute::concat(&results)?))
    }
}

impl PatternFunction {
    /// Returns the maximum number of steps for a text. A search takes at most one step for each byte and state. A function
    /// that searches for all matches searches again after each match. Each of these searches may read the rest of the text,
    /// unless the length of a match is limited.
    fn steps(&self, text_bytes: usize, states: usize, match_bytes_max: Option<usize>) -> Result<usize> {
        let is_repeated = self.inner.name() != "regexp_like";
        let bytes_per_search = if is_repeated { match_bytes_max.unwrap_or(text_bytes) } else { 0 };
        let steps = text_bytes.saturating_mul(states.max(bytes_per_search));
        if steps > TEXT_STEPS_MAX {
            return Err(DataFusionError::External(Box::new(Error::limited(format!(
                "a text of {text_bytes} bytes is too long for `{}` with this regular expression: use shorter texts, LIKE, or \
                 replace",
                self.inner.name()
            )))));
        }
        Ok(steps)
    }
}

/// Returns the maximum length of a match in bytes, or `None` if it is not limited.
fn match_bytes_max(pattern: &ColumnarValue) -> Result<Option<usize>> {
    let of = |pattern: &str| regex_syntax::parse(pattern).map_or(Some(0), |hir| hir.properties().maximum_len());
    match pattern {
        ColumnarValue::Scalar(pattern) => Ok(pattern.try_as_str().flatten().map_or(Some(0), of)),
        ColumnarValue::Array(patterns) => {
            let patterns = cast(patterns, &DataType::Utf8)?;
            let Some(patterns) = patterns.as_any().downcast_ref::<StringArray>() else { return Ok(None) };
            let distinct: HashSet<_> = patterns.iter().flatten().collect();
            Ok(distinct.into_iter().map(of).try_fold(0, |longest, length| length.map(|length| length.max(longest))))
        }
    }
}

/// Returns the estimated number of states of all distinct patterns in a batch. Fails if it is too large.
fn checked_states_of_all(patterns: &ArrayRef) -> Result<usize> {
    let patterns = cast(patterns, &DataType::Utf8)?;
    let Some(patterns) = patterns.as_any().downcast_ref::<StringArray>() else { return Ok(0) };
    let (mut known, mut total) = (HashSet::new(), 0_usize);
    for pattern in patterns.iter().flatten() {
        if known.insert(pattern) {
            total = total.saturating_add(checked_states(pattern)?);
            if total > STATES_MAX {
                return Err(too_large());
            }
        }
    }
    Ok(total)
}
