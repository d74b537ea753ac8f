//! The methods of [`ExecutionPlan`] that are the same in all our plan nodes, as macros.
//!
//! None of the nodes exposes expressions to optimizers. A file that calls the macros must import `Arc`, `Result` and
//! `ExecutionPlan`.

use std::sync::Arc;

use datafusion::error::{DataFusionError, Result};
use datafusion::physical_plan::ExecutionPlan;

/// Implements the methods of a plan node without inputs.
macro_rules! leaf_methods {
    () => {
        fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
            Vec::new()
        }

        fn with_new_children(self: Arc<Self>, _: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
            Ok(self)
        }

        $crate::sql::plan_node::no_expressions! {}
    };
}

/// Implements the methods of a plan node whose only input is in the field `input`. The argument is a closure that
/// receives the node and a new input, and returns the node with this input.
macro_rules! one_input_methods {
    ($with_input:expr) => {
        fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
            vec![&self.input]
        }

        fn with_new_children(self: Arc<Self>, inputs: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
            let with_input: fn(&Self, Arc<dyn ExecutionPlan>) -> Result<Self> = $with_input;
            Ok(Arc::new(with_input(&self, $crate::sql::plan_node::only_input(self.name(), inputs)?)?))
        }

        $crate::sql::plan_node::no_expressions! {}
    };
}

/// Implements the method that visits the expressions of a plan node, for a node without expressions.
macro_rules! no_expressions {
    () => {
        fn apply_expressions(
            &self,
            _: &mut dyn FnMut(
                &Arc<dyn ::datafusion::physical_expr::PhysicalExpr>,
            ) -> Result<::datafusion::common::tree_node::TreeNodeRecursion>,
        ) -> Result<::datafusion::common::tree_node::TreeNodeRecursion> {
            Ok(::datafusion::common::tree_node::TreeNodeRecursion::Continue)
        }
    };
}

pub(crate) use {leaf_methods, no_expressions, one_input_methods};

/// Returns the only new input of the node `name`.
pub(crate) fn only_input(name: &str, inputs: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
    let input = inputs.into_iter().next();
    input.ok_or_else(|| DataFusionError::Internal(format!("{name} needs exactly one input")))
}
