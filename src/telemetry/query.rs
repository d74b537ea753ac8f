//! The meter of one query: counts it as running, and records its end even if the client has gone away.

use std::sync::Arc;
use std::time::Instant;

use super::Metrics;
use crate::error::{Error, Kind};

/// How a query ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum QueryOutcome {
    /// Every row was sent.
    Ok,
    /// The query was invalid, or the server failed.
    Failed,
    /// It exceeded a limit.
    Limited,
    /// The client disconnected or cancelled.
    Cancelled,
}

impl QueryOutcome {
    /// The label value in metrics.
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

/// A running query. If it is dropped without [`QueryMeter::end`], it counts as cancelled.
#[derive(Debug)]
pub struct QueryMeter {
    metrics: Arc<Metrics>,
    start: Instant,
    rows: u64,
    outcome: QueryOutcome,
}

impl QueryMeter {
    pub(super) fn start(metrics: Arc<Metrics>) -> Self {
        metrics.queries_running.inc();
        Self { metrics, start: Instant::now(), rows: 0, outcome: QueryOutcome::Cancelled }
    }

    /// Adds rows that were returned.
    pub fn rows(&mut self, count: u64) {
        self.rows += count;
    }

    /// Ends the query with an outcome.
    pub fn end(mut self, outcome: QueryOutcome) {
        self.outcome = outcome;
    }
}

impl Drop for QueryMeter {
    fn drop(&mut self) {
        self.metrics.queries_running.dec();
        self.metrics.query_ended(self.outcome, self.rows, self.start.elapsed());
    }
}
