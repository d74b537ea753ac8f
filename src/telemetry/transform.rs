//! Metrics of transforms, per lookup table.
//!
//! **Invariant:** a label value is the name of a declared lookup table. The number of distinct values is therefore
//! limited by the configuration.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Unit;

use super::label_value::{Label, Labels};
use super::metrics_registry::MetricsRegistry;

/// Metrics of each lookup table.
#[derive(Debug)]
pub struct TransformMetrics {
    rows: Family<Labels<1>, Gauge>,
    loads: Family<Labels<2>, Counter>,
}

impl TransformMetrics {
    pub(super) fn new(registry: &mut MetricsRegistry) -> Self {
        let rows = Unit::Other("rows".to_owned());
        Self {
            rows: registry.add_in(rows, "lookup", "Rows in a lookup table when it was last loaded", Family::default()),
            loads: registry.add("lookup_loads", "Loads of a lookup table, by outcome", Family::default()),
        }
    }

    /// Records that a lookup table was loaded and contains `rows` rows.
    pub fn lookup_loaded(&self, lookup: &str, rows: usize) {
        let rows = i64::try_from(rows).unwrap_or(i64::MAX);
        self.rows.get_or_create(&[("lookup", Label::owned(lookup))]).set(rows);
        self.count(lookup, "loaded");
    }

    /// Counts a failed load of a lookup table.
    pub fn lookup_failed(&self, lookup: &str) {
        self.count(lookup, "failed");
    }

    fn count(&self, lookup: &str, outcome: &'static str) {
        let labels = [("lookup", Label::owned(lookup)), ("outcome", outcome.into())];
        self.loads.get_or_create(&labels).inc();
    }
}
