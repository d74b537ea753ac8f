//! Metrics of transforms: dimension tables by name.
//!
//! **Invariant:** labels are the operator's own names: the declared dimensions bound them.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Unit;

use super::label_value::{Label, Labels};
use super::metrics::MetricsRegistry;

/// What is told of each dimension table.
#[derive(Debug)]
pub struct TransformMetrics {
    rows: Family<Labels<1>, Gauge>,
    loads: Family<Labels<2>, Counter>,
}

impl TransformMetrics {
    pub(super) fn new(page: &mut MetricsRegistry) -> Self {
        let rows = Unit::Other("rows".to_owned());
        Self {
            rows: page.add_in(rows, "dimension", "Rows of a dimension table, as last loaded", Family::default()),
            loads: page.add("dimension_loads", "Loads of a dimension table, by how they ended", Family::default()),
        }
    }

    /// A dimension table was loaded.
    pub fn dimension_loaded(&self, dimension: &str, rows: usize) {
        let rows = i64::try_from(rows).unwrap_or(i64::MAX);
        self.rows.get_or_create(&[("dimension", Label::owned(dimension))]).set(rows);
        self.count(dimension, "loaded");
    }

    /// A dimension table could not be loaded.
    pub fn dimension_failed(&self, dimension: &str) {
        self.count(dimension, "failed");
    }

    fn count(&self, dimension: &str, outcome: &'static str) {
        let labels = [("dimension", Label::owned(dimension)), ("outcome", outcome.into())];
        self.loads.get_or_create(&labels).inc();
    }
}
