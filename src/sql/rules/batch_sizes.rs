//! Limits the sizes of batches whose rows can be large.
//!
//! ```text
//!   node                                              what the rule adds
//!   computes texts, or unnests lists              ─►  AdaptiveBatchExec below the node (`adaptive_batches.rs`)
//!   joins rows with texts                         ─►  AdaptiveBatchExec below both sides
//!   merges small batches that such a node returns ─►  BatchRowsExec (`batch_rows.rs`), or a smaller batch size
//! ```

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TreeNode as _, TreeNodeRecursion};
use datafusion::common::{JoinType, ScalarValue};
use datafusion::error::{DataFusionError, Result};
use datafusion::physical_expr::expressions::{Column, InListExpr, LikeExpr, Literal};
use datafusion::physical_expr::window::{StandardWindowExpr, WindowExpr};
use datafusion::physical_expr::{HigherOrderFunctionExpr, PhysicalExpr, ScalarFunctionExpr};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::aggregates::AggregateExec;
use datafusion::physical_plan::execution_plan::replace_children_if_necessary;
use datafusion::physical_plan::filter::{FilterExec, FilterExecBuilder};
use datafusion::physical_plan::joins::{CrossJoinExec, HashJoinExec, NestedLoopJoinExec};
use datafusion::physical_plan::repartition::RepartitionExec;
use datafusion::physical_plan::unnest::UnnestExec;
use datafusion::physical_plan::windows::{BoundedWindowAggExec, WindowAggExec, WindowUDFExpr};

use crate::error::Error;
use crate::sql::adaptive_batches::{AdaptiveBatchExec, BatchUse, VALUE_BYTES};
use crate::sql::batch_rows::BatchRowsExec;
use crate::sql::functions::counted_functions::is_short;

/// The nodes that compute expressions for each batch.
const COMPUTING: [&str; 3] = ["AggregateExec", "FilterExec", "ProjectionExec"];
/// A node needs smaller batches only if its expressions take up more than this number of bytes per row.
const ROW_BYTES_MIN: usize = 1 << 10;
/// The maximum size in bytes of the constants in the window functions of one node. The engine copies them for all rows
/// of the input at once.
const WINDOW_CONSTANTS_MAX: usize = 4 << 10;
/// The assumed size, in bytes, of a LIKE pattern that is not a constant. Such a pattern is compiled for every row. The
/// large size makes batches small, so that the query can be interrupted between them.
const PATTERN_ROW_BYTES: usize = 128 << 10;
/// The target number of rows when a node merges small batches whose rows may be large.
const MERGED_ROWS: usize = 256;

/// The physical optimizer rule that limits the sizes of batches. It runs last.
#[derive(Debug)]
pub(super) struct BatchSizeRule;

impl PhysicalOptimizerRule for BatchSizeRule {
    fn name(&self) -> &'static str {
        "batch_sizes"
    }

    fn schema_check(&self) -> bool {
        true
    }

    fn optimize(&self, plan: Arc<dyn ExecutionPlan>, config: &ConfigOptions) -> Result<Arc<dyn ExecutionPlan>> {
        let batch_rows = config.execution.batch_size.get();
        plan.transform_up(|plan| match limited(Arc::clone(&plan), batch_rows)? {
            Some(limited) => Ok(Transformed::yes(limited)),
            None => Ok(Transformed::no(plan)),
        })
        .map(|plan| plan.data)
    }
}

/// Limits the batches of a node whose results or input rows can be large. Returns `None` if the node stays unchanged.
fn limited(plan: Arc<dyn ExecutionPlan>, batch_rows: usize) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    if let Some(output) = join_output(&plan) {
        return limit_join(plan, output, batch_rows).map(Some);
    }
    let own_use = batch_use(&plan)?;
    let merges_large_rows = has_long_values(&plan) && (own_use.is_some() || has_large_rows(&plan));
    let plan = match plan.downcast_ref::<FilterExec>() {
        Some(filter) if merges_large_rows => {
            let filter = FilterExecBuilder::from(filter).with_batch_size(MERGED_ROWS).build()?;
            Arc::new(filter)
        }
        _ => plan,
    };
    if let Some(own_use) = own_use {
        return with_uses(plan, |_| Some(own_use.clone())).map(Some);
    }
    if plan.is::<RepartitionExec>() && merges_large_rows {
        return with_merged_rows(plan, batch_rows).map(Some);
    }
    Ok(None)
}

/// Adds an [`AdaptiveBatchExec`] above each input of a node for which `batch_use` returns a use.
fn with_uses(
    plan: Arc<dyn ExecutionPlan>,
    batch_use: impl Fn(usize) -> Option<BatchUse>,
) -> Result<Arc<dyn ExecutionPlan>> {
    let inputs = plan.children().into_iter().enumerate().map(|(index, input)| -> Arc<dyn ExecutionPlan> {
        let input = Arc::clone(input);
        match batch_use(index) {
            Some(batch_use) => Arc::new(AdaptiveBatchExec::new(input, batch_use)),
            None => input,
        }
    });
    let inputs = inputs.collect();
    replace_children_if_necessary(plan, inputs)
}

/// Makes a node return batches of [`MERGED_ROWS`] rows. Its inputs still return batches of `batch_rows` rows.
fn with_merged_rows(plan: Arc<dyn ExecutionPlan>, batch_rows: usize) -> Result<Arc<dyn ExecutionPlan>> {
    let inputs = plan
        .children()
        .into_iter()
        .map(|input| -> Arc<dyn ExecutionPlan> { Arc::new(BatchRowsExec::new(Arc::clone(input), batch_rows)) });
    let inputs = inputs.collect();
    let plan = replace_children_if_necessary(plan, inputs)?;
    Ok(Arc::new(BatchRowsExec::new(plan, MERGED_ROWS)))
}

/// How a join returns rows.
#[derive(Clone, Copy, PartialEq, Eq)]
enum JoinOutput {
    /// One batch for each combination of a build row and a probe batch.
    Pairs,
    /// Batches of the usual size, to which the join merges the rows that it returns.
    Merged,
}

/// Returns how a join returns rows, or `None` if the node is not a join or does not repeat long values.
fn join_output(plan: &Arc<dyn ExecutionPlan>) -> Option<JoinOutput> {
    let repeats = |kind: JoinType| matches!(kind, JoinType::Inner | JoinType::Left | JoinType::Right | JoinType::Full);
    let hash_join = plan.downcast_ref::<HashJoinExec>().map(HashJoinExec::join_type);
    let loop_join = plan.downcast_ref::<NestedLoopJoinExec>().map(NestedLoopJoinExec::join_type);
    let output = if plan.is::<CrossJoinExec>() {
        Some(JoinOutput::Pairs)
    } else {
        hash_join.or(loop_join).filter(|kind| repeats(**kind)).map(|_| JoinOutput::Merged)
    };
    output.filter(|_| has_long_values(plan))
}

fn limit_join(plan: Arc<dyn ExecutionPlan>, output: JoinOutput, batch_rows: usize) -> Result<Arc<dyn ExecutionPlan>> {
    let has_large_rows = has_large_rows(&plan);
    let merged_rows = if has_large_rows { MERGED_ROWS } else { batch_rows };
    let build_row_bytes = Arc::new(AtomicUsize::new(0));
    let is_merged = output == JoinOutput::Merged;
    let plan = with_uses(plan, |index| {
        let build_row_bytes = Arc::clone(&build_row_bytes);
        Some(match index {
            0 => BatchUse::Build(build_row_bytes),
            _ => BatchUse::Probe { build_row_bytes, batch_rows: is_merged.then_some(merged_rows) },
        })
    })?;
    if has_large_rows && is_merged { with_merged_rows(plan, batch_rows) } else { Ok(plan) }
}

/// Returns true if the node has a column whose values have no fixed length.
fn has_long_values(plan: &Arc<dyn ExecutionPlan>) -> bool {
    plan.schema().fields().iter().any(|field| !is_short(field.data_type()))
}

/// Returns true if a node below `plan` computes long values.
fn has_large_rows(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let makes_large_rows = |plan: &Arc<dyn ExecutionPlan>| {
        let adaptive = plan.downcast_ref::<AdaptiveBatchExec>();
        let aggregate = plan.downcast_ref::<AggregateExec>();
        adaptive.is_some_and(AdaptiveBatchExec::makes_large_rows)
            || aggregate
                .is_some_and(|aggregate| aggregate.aggr_expr().iter().any(|call| !is_short(call.field().data_type())))
    };
    plan.children().into_iter().any(|input| makes_large_rows(input) || has_large_rows(input))
}

/// Returns how a node uses its input, or `None` if it needs no smaller batches.
fn batch_use(plan: &Arc<dyn ExecutionPlan>) -> Result<Option<BatchUse>> {
    if let Some(unnest) = plan.downcast_ref::<UnnestExec>() {
        let lists = unnest.list_column_indices().iter().map(|list| list.index_in_input_schema);
        return Ok(Some(BatchUse::Unnest(lists.collect())));
    }
    let mut size = ExpressionSize::default();
    let windows = window_expressions(plan);
    if let Some(windows) = windows {
        windows.iter().for_each(|window| size.add_window(window));
        if size.constants > WINDOW_CONSTANTS_MAX {
            return Err(DataFusionError::External(Box::new(Error::limited(format!(
                "the constants in window functions take up {} bytes, but at most {WINDOW_CONSTANTS_MAX} are allowed, \
                 because they are copied for every row: use shorter constants",
                size.constants
            )))));
        }
        if plan.is::<WindowAggExec>() {
            return Ok(Some(BatchUse::Retain { row_bytes: windows.len() * VALUE_BYTES }));
        }
    } else if COMPUTING.contains(&plan.name()) {
        plan.apply_expressions(&mut |expr| {
            size.add(expr);
            Ok(TreeNodeRecursion::Continue)
        })?;
    }
    let row_bytes = size.constants.saturating_add(size.values * VALUE_BYTES);
    let needs_limit = size.calls_functions || row_bytes > ROW_BYTES_MIN;
    Ok(needs_limit.then_some(BatchUse::Expressions { row_bytes, calls_functions: size.calls_functions }))
}

fn window_expressions(plan: &Arc<dyn ExecutionPlan>) -> Option<&[Arc<dyn WindowExpr>]> {
    if let Some(window) = plan.downcast_ref::<WindowAggExec>() {
        return Some(window.window_expr());
    }
    plan.downcast_ref::<BoundedWindowAggExec>().map(BoundedWindowAggExec::window_expr)
}

/// The size of the values that a node computes for each row.
#[derive(Default)]
struct ExpressionSize {
    /// The total size of the constants in bytes.
    constants: usize,
    /// The number of values that are computed.
    values: usize,
    /// True if the results of a function have no fixed length.
    calls_functions: bool,
}

impl ExpressionSize {
    fn add(&mut self, expr: &Arc<dyn PhysicalExpr>) {
        if let Some(literal) = expr.downcast_ref::<Literal>() {
            let heap_bytes = literal.value().size().saturating_sub(size_of::<ScalarValue>());
            self.constants = self.constants.saturating_add(heap_bytes);
            self.values += 1;
            return;
        }
        if let Some(list) = expr.downcast_ref::<InListExpr>() {
            // The values of the list are not copied.
            return self.add(list.expr());
        }
        if let Some(like) = expr.downcast_ref::<LikeExpr>()
            && !like.pattern().is::<Literal>()
        {
            self.constants = self.constants.saturating_add(PATTERN_ROW_BYTES);
        }
        self.values += usize::from(!expr.is::<Column>());
        let function = expr.downcast_ref::<ScalarFunctionExpr>();
        self.calls_functions |= function.is_some_and(|function| !is_short(function.return_type()));
        self.calls_functions |= expr.is::<HigherOrderFunctionExpr>();
        expr.children().into_iter().for_each(|child| self.add(child));
    }

    fn add_window(&mut self, window: &Arc<dyn WindowExpr>) {
        self.calls_functions |= window.field().is_ok_and(|field| !is_short(field.data_type()));
        let standard = window.as_any().downcast_ref::<StandardWindowExpr>();
        let function = standard.map(|window| window.get_standard_func_expr().as_any());
        match function.and_then(|function| function.downcast_ref::<WindowUDFExpr>()) {
            Some(function) => function.args().iter().for_each(|arg| self.add(arg)),
            None => window.expressions().iter().for_each(|arg| self.add(arg)),
        }
    }
}
