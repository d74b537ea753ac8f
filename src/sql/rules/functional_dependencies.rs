//! Removes the functional dependencies from a plan, because the engine derives wrong ones.
//!
//! In `(SELECT DISTINCT k …) a JOIN b ON … GROUP BY k, y`, the engine concludes that `k` determines `y` in the result,
//! although `k` determines only the columns of `a`. If an outer query groups by `k` and `y` again, the engine drops `y`
//! and returns too few rows. Without dependencies, the engine only misses the opportunity to drop a key that is not
//! needed.

use std::sync::Arc;

use datafusion::common::tree_node::Transformed;
use datafusion::common::{DFSchema, DFSchemaRef, FunctionalDependencies};
use datafusion::error::Result;
use datafusion::logical_expr::LogicalPlan;
use datafusion::optimizer::{OptimizerConfig, OptimizerRule};

/// The engine's rules that use functional dependencies.
const USERS: [&str; 4] =
    ["eliminate_join", "replace_distinct_aggregate", "eliminate_duplicated_expr", "optimize_projections"];

/// Adds the rule of this file before each of the engine's rules that use functional dependencies.
pub(crate) fn before_users(
    rules: Vec<Arc<dyn OptimizerRule + Send + Sync>>,
) -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    let mut all: Vec<Arc<dyn OptimizerRule + Send + Sync>> = Vec::with_capacity(rules.len() + USERS.len());
    for rule in rules {
        if USERS.contains(&rule.name()) {
            all.push(Arc::new(ForgetDependencies));
        }
        all.push(rule);
    }
    all
}

#[derive(Debug)]
struct ForgetDependencies;

impl OptimizerRule for ForgetDependencies {
    fn name(&self) -> &'static str {
        "functional_dependencies"
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(&self, plan: LogicalPlan, _: &dyn OptimizerConfig) -> Result<Transformed<LogicalPlan>> {
        plan.transform_up_with_subqueries(|mut node| {
            let Some(schema) = own_schema(&mut node).filter(|schema| !schema.functional_dependencies().is_empty())
            else {
                return Ok(Transformed::no(node));
            };
            let forgotten = DFSchema::clone(schema).with_functional_dependencies(FunctionalDependencies::empty())?;
            *schema = Arc::new(forgotten);
            Ok(Transformed::yes(node))
        })
    }
}

/// Returns the schema that a node stores, or `None` for a node that uses the schema of its input.
fn own_schema(node: &mut LogicalPlan) -> Option<&mut DFSchemaRef> {
    Some(match node {
        LogicalPlan::Projection(node) => &mut node.schema,
        LogicalPlan::Window(node) => &mut node.schema,
        LogicalPlan::Aggregate(node) => &mut node.schema,
        LogicalPlan::Join(node) => &mut node.schema,
        LogicalPlan::Union(node) => &mut node.schema,
        LogicalPlan::SubqueryAlias(node) => &mut node.schema,
        LogicalPlan::Unnest(node) => &mut node.schema,
        LogicalPlan::TableScan(node) => &mut node.projected_schema,
        _ => return None,
    })
}
