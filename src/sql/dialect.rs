//! The functions, operators, rules and options that define the dialect.

use std::sync::Arc;

use datafusion::catalog::TableFunction;
use datafusion::config::ConfigOptions;
use datafusion::execution::SessionStateDefaults;
use datafusion::execution::session_state::SessionStateBuilder;
use datafusion::logical_expr::planner::ExprPlanner;
use datafusion::optimizer::{Analyzer, AnalyzerRule, Optimizer, OptimizerRule};

use crate::sql::functions::count_distinct::CountDistinctPlanner;
use crate::sql::functions::generate_series::with_time_series;
use crate::sql::functions::interval_product::IntervalProductPlanner;
use crate::sql::functions::json_functions::JsonOperatorPlanner;
use crate::sql::functions::window_aggregates::WindowAggregatePlanner;
use crate::sql::functions::{
    aggregate_functions, arrow_casts, common_types, corrected_functions, counted_windows, exact_lists, function_limits,
    json_functions, pattern_limits, text_casts, time_functions,
};
use crate::sql::rules::aggregate_order::AggregateOrderRule;
use crate::sql::rules::canonical_doubles::CanonicalDoubleRule;
use crate::sql::rules::checked_arithmetic::CheckedArithmeticRule;
use crate::sql::rules::computed_keys::ComputedKeyRule;
use crate::sql::rules::constant_lists::ConstantListRule;
use crate::sql::rules::exact_numbers::ExactNumbersRule;
use crate::sql::rules::fallible_operands::{FilteredArgumentRule, GuardRule};
use crate::sql::rules::interval_comparisons::IntervalComparisonRule;
use crate::sql::rules::time_coercion::TimeCoercionRule;
use crate::sql::rules::time_units::{TimeTypePlanner, TimeUnitPlanner};
use crate::sql::rules::uuid_comparisons::UuidComparisonRule;
use crate::sql::rules::volatile_filters::VolatileFilterRule;
use crate::sql::rules::{self, functional_dependencies, in_lists, single_distinct};
use crate::sql::syntax::boolean_texts::BooleanTextPlanner;
use crate::sql::syntax::parameter_values::BoundValuePlanner;

/// Returns a builder of session states that plan statements in this dialect. These states have no tables, table
/// functions or file formats, and do not treat table names as URLs, so a statement cannot read a file by its name.
pub(crate) fn session_state(mut options: ConfigOptions) -> SessionStateBuilder {
    set_options(&mut options);
    let scalar_functions = arrow_casts::without_fixed_sizes(SessionStateDefaults::default_scalar_functions());
    let scalar_functions = exact_lists::with_exact_lists(scalar_functions);
    let scalar_functions = common_types::with_common_types(scalar_functions);
    let scalar_functions = corrected_functions::with_corrections(scalar_functions);
    let scalar_functions = time_functions::with_time_functions(scalar_functions);
    let mut scalar_functions = pattern_limits::with_pattern_limits(scalar_functions);
    scalar_functions.extend(json_functions::functions().into_iter().chain(text_casts::functions()));
    SessionStateBuilder::new()
        .with_config(options.into())
        .with_expr_planners(expr_planners())
        .with_type_planner(Arc::new(TimeTypePlanner))
        .with_scalar_functions(function_limits::with_limits(scalar_functions))
        .with_higher_order_functions(SessionStateDefaults::default_higher_order_functions())
        .with_aggregate_functions(aggregate_functions::all())
        .with_window_functions(counted_windows::with_counts(SessionStateDefaults::default_window_functions()))
        .with_analyzer_rules(analyzer_rules())
        .with_optimizer_rules(optimizer_rules())
        .with_optimizer_rule(Arc::new(GuardRule))
        .with_optimizer_rule(Arc::new(ConstantListRule))
        .with_physical_optimizer_rules(rules::physical_optimizer_rules())
}

/// Returns the table functions of the dialect.
pub(crate) fn table_functions() -> Vec<Arc<TableFunction>> {
    with_time_series(SessionStateDefaults::default_table_functions())
}

fn set_options(options: &mut ConfigOptions) {
    options.sql_parser.collect_spans = true;
    // Literals with a decimal point are parsed as decimals, which are exact, as in PostgreSQL.
    options.sql_parser.parse_float_as_decimal = true;
    // String view arrays are disabled: after a filter, such an array still refers to the buffers of all rows, and all
    // of these buffers would be sent to the client.
    options.sql_parser.map_string_types_to_utf8view = false;
    // These rules return wrong results or fail: see apache/datafusion#25350 for the first rule, and #24678 and the
    // other reports in #25459 for the second.
    options.optimizer.enable_distinct_aggregation_soft_limit = false;
    options.optimizer.enable_leaf_expression_pushdown = false;
    // The session time zone is UTC. It applies to `TIMESTAMP WITH TIME ZONE`, and to time strings without a time zone.
    options.execution.time_zone = Some("UTC".to_owned());
}

/// Returns the expression planners of this crate, followed by those of the engine.
fn expr_planners() -> Vec<Arc<dyn ExprPlanner>> {
    let ours: [Arc<dyn ExprPlanner>; 7] = [
        Arc::new(BoundValuePlanner),
        Arc::new(JsonOperatorPlanner),
        Arc::new(BooleanTextPlanner),
        Arc::new(CountDistinctPlanner),
        Arc::new(IntervalProductPlanner),
        Arc::new(TimeUnitPlanner),
        Arc::new(WindowAggregatePlanner),
    ];
    ours.into_iter().chain(SessionStateDefaults::default_expr_planners()).collect()
}

/// Returns the analyzer rules. Some rules of this crate run before the engine's rules, which include type coercion, and
/// some run after them.
fn analyzer_rules() -> Vec<Arc<dyn AnalyzerRule + Send + Sync>> {
    let mut rules: Vec<Arc<dyn AnalyzerRule + Send + Sync>> = vec![
        Arc::new(UuidComparisonRule),
        Arc::new(ExactNumbersRule),
        Arc::new(TimeCoercionRule),
        Arc::new(IntervalComparisonRule),
    ];
    rules.extend(Analyzer::new().rules);
    rules.push(Arc::new(AggregateOrderRule));
    rules.push(Arc::new(CheckedArithmeticRule));
    rules.push(Arc::new(CanonicalDoubleRule));
    rules.push(Arc::new(ComputedKeyRule));
    rules.push(Arc::new(FilteredArgumentRule));
    rules.push(Arc::new(VolatileFilterRule));
    rules.push(Arc::new(function_limits::ResultSizeRule));
    rules
}

/// Returns the engine's optimizer rules with three changes: one rule is wrapped (`single_distinct.rs`), a rule of this
/// crate runs before each rule that uses functional dependencies (`functional_dependencies.rs`), and another runs before the
/// rule that merges IN lists (`in_lists.rs`).
fn optimizer_rules() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    in_lists::before_merger(functional_dependencies::before_users(single_distinct::wrap(Optimizer::new().rules)))
}
