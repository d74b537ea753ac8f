//! Metrics of queries. A [`QueryMeter`] counts one query as running, and records its end even if the client has
//! disconnected.

use std::time::Instant;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Unit;

use super::label_value::Labels;
use super::metrics_registry::{MetricsRegistry, durations};
use crate::error::{Error, Kind};

/// The outcome of a query.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueryOutcome {
    /// All rows were sent.
    Ok,
    /// The query was invalid, or the server failed.
    Failed,
    /// The query exceeded a limit.
    Limited,
    /// The client cancelled the query or disconnected.
    Cancelled,
}

impl QueryOutcome {
    /// Returns the outcome as a label value for metrics.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Failed => "failed",
            Self::Limited => "limited",
            Self::Cancelled => "cancelled",
        }
    }
}

impl From<&Error> for QueryOutcome {
    fn from(error: &Error) -> Self {
        match error.kind() {
            Kind::Limited => Self::Limited,
            Kind::Cancelled => Self::Cancelled,
            _ => Self::Failed,
        }
    }
}

/// Metrics of all queries. Clones share their values.
#[derive(Debug, Clone)]
pub(super) struct QueryMetrics {
    running: Gauge,
    ended: Family<Labels<1>, Counter>,
    duration: Histogram,
    rows: Counter,
}

impl QueryMetrics {
    pub(super) fn new(registry: &mut MetricsRegistry) -> Self {
        Self {
            running: registry.add("queries_running", "Queries currently running", Gauge::default()),
            ended: registry.add("queries", "Finished queries, by outcome", Family::default()),
            duration: registry.add_in(
                Unit::Seconds,
                "query_duration",
                "Query time from planning to the last row",
                durations(),
            ),
            rows: registry.add_in(
                Unit::Other("rows".to_owned()),
                "query_returned",
                "Rows returned by queries",
                Counter::default(),
            ),
        }
    }

    /// Starts metering a query.
    pub(super) fn start(&self) -> QueryMeter {
        self.running.inc();
        QueryMeter { metrics: self.clone(), start: Instant::now(), rows: 0, outcome: QueryOutcome::Cancelled }
    }
}

/// Meters one running query. If the meter is dropped without a call to [`QueryMeter::end`], the query counts as
/// cancelled.
#[derive(Debug)]
pub struct QueryMeter {
    metrics: QueryMetrics,
    start: Instant,
    rows: u64,
    outcome: QueryOutcome,
}

impl QueryMeter {
    /// Adds `count` to the number of returned rows.
    pub fn rows(&mut self, count: u64) {
        self.rows += count;
    }

    /// Ends the query with `outcome`.
    pub fn end(mut self, outcome: QueryOutcome) {
        self.outcome = outcome;
    }
}

impl Drop for QueryMeter {
    fn drop(&mut self) {
        self.metrics.running.dec();
        self.metrics.ended.get_or_create(&[("outcome", self.outcome.word().into())]).inc();
        self.metrics.duration.observe(self.start.elapsed().as_secs_f64());
        self.metrics.rows.inc_by(self.rows);
    }
}
