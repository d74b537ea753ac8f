//! Functions whose result can be far larger than their arguments, with a bound.
use std::sync::Arc;

use datafusion::logical_expr::ScalarUDF;

/// The functions of a session.
pub(super) fn bounded(functions: Vec<Arc<ScalarUDF>>) -> Vec<Arc<ScalarUDF>> {
    functions
}
