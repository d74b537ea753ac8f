//! The cached physical plan of a statement.
//!
//! The physical plan of a statement can be cached if the statement has no parameters and calls no functions that depend
//! on the time or on random numbers, such as `now()` and `random()`. If the state of all plan nodes can be reset, the
//! cached plan is used for every run. Otherwise, it is used only for the first run.

use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use datafusion::common::ScalarValue;
use datafusion::common::tree_node::{TreeNode as _, TreeNodeRecursion};
use datafusion::error::DataFusionError;
use datafusion::logical_expr::{Expr, LogicalPlan, Volatility};
use datafusion::physical_expr::expressions::Literal;
use datafusion::physical_plan::ExecutionPlan;
use datafusion::physical_plan::execution_plan::reset_plan_states;

use crate::query::planning::erased_plan::ErasedPlan;

/// The names of the plan nodes whose state can be reset, so that they can run again.
const REPEATABLE: [&str; 13] = [
    "AdaptiveBatchExec",
    "AggregateExec",
    "BatchRowsExec",
    "CoalescePartitionsExec",
    "FilterExec",
    "LookupScan",
    "PlaceholderRowExec",
    "ProjectionExec",
    "RepartitionExec",
    "SortExec",
    "SortPreservingMergeExec",
    "TenantScan",
    "UnorderedExec",
];

/// The maximum total size, in bytes, of the constants in a cached physical plan. Even a short statement can have large
/// constants, because the planner evaluates functions of constants.
const CONSTANT_BYTES_MAX: usize = 64 << 10;

/// The cached physical plan of a statement that has no parameters and does not depend on the time of the query.
#[derive(Debug, Default)]
pub struct ReusablePlan {
    /// A plan that can run any number of times. Its state is reset for each run.
    repeatable: OnceLock<ErasedPlan<Arc<dyn ExecutionPlan>>>,
    /// A plan that can run only once and has not run yet.
    single: Mutex<Option<ErasedPlan<Arc<dyn ExecutionPlan>>>>,
}

impl ReusablePlan {
    /// Returns an empty `ReusablePlan`, or `None` if the physical plan for this statement cannot be cached.
    pub(in crate::query) fn for_statement(plan: &LogicalPlan) -> Option<Arc<Self>> {
        is_timeless(plan).then(Arc::default)
    }

    /// Returns the stored plan.
    #[cfg(test)]
    pub(in crate::query) fn stored(&self) -> Option<&Arc<dyn ExecutionPlan>> {
        self.repeatable.get().map(|plan| &**plan)
    }

    /// Returns a plan to run, or `None` if no plan is stored.
    pub(in crate::query) fn take(&self) -> Option<Result<Arc<dyn ExecutionPlan>, DataFusionError>> {
        if let Some(plan) = self.repeatable.get() {
            return Some(reset_plan_states(Arc::clone(plan)));
        }
        let plan = self.single.lock().unwrap_or_else(PoisonError::into_inner).take();
        plan.map(|plan| Ok(Arc::clone(&plan)))
    }

    /// Caches a plan that has never run. Does not cache a plan with large constants.
    pub(in crate::query) fn store(&self, plan: Arc<dyn ExecutionPlan>) {
        if constant_bytes(&plan).map_or(true, |bytes| bytes > CONSTANT_BYTES_MAX) {
            return;
        }
        let is_repeatable = is_repeatable(&plan);
        let plan = ErasedPlan::new(plan);
        if is_repeatable {
            // `set` fails only if a concurrent call has already stored an equal plan.
            let _ = self.repeatable.set(plan);
        } else {
            *self.single.lock().unwrap_or_else(PoisonError::into_inner) = Some(plan);
        }
    }
}

/// Returns true if the plan only reads data, and contains no functions that depend on the time or on random numbers.
fn is_timeless(plan: &LogicalPlan) -> bool {
    let is_volatile = |expr: &Expr| {
        Ok(match expr {
            Expr::ScalarFunction(call) => call.func.signature().volatility != Volatility::Immutable,
            Expr::HigherOrderFunction(_) | Expr::ScalarVariable(..) | Expr::Placeholder(_) => true,
            _ => false,
        })
    };
    let mut timeless = true;
    let walked = plan.apply_with_subqueries(|node| {
        timeless &= !matches!(node, LogicalPlan::Explain(_) | LogicalPlan::Analyze(_) | LogicalPlan::RecursiveQuery(_));
        node.apply_expressions(|expr| {
            timeless &= !expr.exists(is_volatile)?;
            Ok(if timeless { TreeNodeRecursion::Continue } else { TreeNodeRecursion::Stop })
        })
    });
    walked.is_ok() && timeless
}

/// Returns the size of the constants in the expressions of a plan, in bytes.
fn constant_bytes(plan: &Arc<dyn ExecutionPlan>) -> Result<usize, DataFusionError> {
    let mut bytes = 0;
    plan.apply(|node| {
        node.apply_expressions(&mut |expr| {
            expr.apply(|expr| {
                if let Some(literal) = expr.downcast_ref::<Literal>() {
                    bytes += literal.value().size().saturating_sub(size_of::<ScalarValue>());
                }
                Ok(TreeNodeRecursion::Continue)
            })
        })?;
        Ok(TreeNodeRecursion::Continue)
    })?;
    Ok(bytes)
}

/// Returns true if a plan can run again. A sort with a limit cannot run again: it gives its input nodes a dynamic
/// filter, which would keep the state of the previous run.
pub(in crate::query) fn is_repeatable(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let is_limited_sort = plan.name() == "SortExec" && plan.fetch().is_some();
    REPEATABLE.contains(&plan.name()) && !is_limited_sort && plan.children().into_iter().all(is_repeatable)
}
