//! Registers metrics under the prefix `glasshouse`, each with its help text.

use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Metric, Registry, Unit};

/// A registry whose methods return the registered metric, so a struct of metrics can be built in one expression.
pub(super) struct MetricsRegistry(Registry);

impl MetricsRegistry {
    /// Creates an empty registry.
    pub(super) fn new() -> Self {
        Self(Registry::with_prefix("glasshouse"))
    }

    /// Registers `metric` without a unit.
    pub(super) fn add<M: Metric + Clone>(&mut self, name: &str, help: &str, metric: M) -> M {
        self.0.register(name, help, metric.clone());
        metric
    }

    /// Registers `metric` with a unit, which is appended to its name.
    pub(super) fn add_in<M: Metric + Clone>(&mut self, unit: Unit, name: &str, help: &str, metric: M) -> M {
        self.0.register_with_unit(name, help, unit, metric.clone());
        metric
    }

    /// Registers an info metric, whose labels never change.
    pub(super) fn add_info(&mut self, name: &str, help: &str, info: impl Metric) {
        self.0.register(name, help, info);
    }

    /// Returns the registry for rendering.
    pub(super) fn finish(self) -> Registry {
        self.0
    }
}

/// Creates a histogram of durations. The bucket boundaries double from 1 ms to 65 s.
pub(super) fn durations() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 2.0, 17))
}

/// Creates a histogram of row counts. The bucket boundaries grow by a factor of four, from 1 row to about a million
/// rows.
pub(super) fn row_counts() -> Histogram {
    Histogram::new(exponential_buckets(1.0, 4.0, 11))
}
