//! Analyzer and optimizer rules that prevent wrong results and unnecessary errors caused by the engine's own rules.
//!
//! ```text
//!   logical plan ─► uuid_comparisons with uuid_types ─► exact_numbers (decimals) ─► time_coercion with time_units and boolean_predicates
//!     ─► interval_comparisons
//!     ─► engine's type coercion ─► aggregate_order ─► checked_arithmetic ─► canonical_doubles
//!     ─► computed_keys ─► fallible_operands (arguments with FILTER) ─► volatile_filters ─► function_limits
//!     ─► engine's optimizer, with single_distinct, functional_dependencies and in_lists ─► fallible_operands ─► constant_lists
//!     ─► physical plan ─► grouping_sets ─► split_limits ─► engine's physical optimizer, with lookup_joins and missing_sorts
//!     ─► interruptible_joins ─► batch_sizes
//! ```
//!
//! **Invariant:** a rule never adds tables or functions that the session is not allowed to use.
//! **Invariant:** a rule keeps the names of columns, and never changes which rows a plan returns. A rule overrides the
//! engine's choice of a type only if values would lose digits in that type.

use std::sync::Arc;

use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;

pub(super) mod aggregate_order;
mod batch_sizes;
mod boolean_predicates;
pub(super) mod canonical_doubles;
pub(super) mod checked_arithmetic;
pub(super) mod computed_keys;
pub(super) mod constant_lists;
pub(super) mod exact_numbers;
pub(super) mod fallible_operands;
pub(super) mod functional_dependencies;
mod grouping_sets;
pub(super) mod in_lists;
mod interruptible_joins;
pub(super) mod interval_comparisons;
mod lookup_joins;
mod missing_sorts;
pub(super) mod single_distinct;
mod split_limits;
pub(super) mod time_coercion;
pub(super) mod time_units;
pub(super) mod uuid_comparisons;
mod uuid_types;
pub(super) mod volatile_filters;

/// Returns the physical optimizer rules of the engine and of this crate.
pub(super) fn physical_optimizer_rules() -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    let mut rules = PhysicalOptimizer::new().rules;
    // This rule finds columns by name, so it can move a filter to the wrong input of an outer join. Filters on tables
    // have already been moved to the scans in the logical plan.
    rules.retain(|rule| !rule.name().starts_with("FilterPushdown"));
    let sorts =
        rules.iter().position(|rule| rule.name() == "EnsureRequirements").map_or(rules.len(), |index| index + 1);
    rules.insert(sorts, Arc::new(missing_sorts::MissingSortsRule));
    let joins = rules.iter().position(|rule| rule.name() == "join_selection").map_or(0, |index| index + 1);
    rules.insert(joins, Arc::new(lookup_joins::LookupJoinRule));
    rules.insert(0, Arc::new(grouping_sets::GroupingSetsRule));
    rules.insert(1, Arc::new(split_limits::SplitLimitsRule));
    rules.push(Arc::new(interruptible_joins::InterruptibleJoinRule));
    rules.push(Arc::new(batch_sizes::BatchSizeRule));
    rules
}
