//! What the server says of itself: logs for people or machines, metrics for Prometheus.
//!
//! Metrics are plain fields of [`Metrics`], each documented with its unit; `/metrics` renders them.

use crate::config::LogConfig;
use crate::error::Result;

/// All metrics of the process. Labels never hold a tenant's data other than the tenant's name.
#[derive(Debug, Default)]
pub struct Metrics {}

impl Metrics {
    /// The text exposition format (OpenMetrics).
    pub fn render(&self) -> String {
        todo!()
    }
}

/// Starts logging to standard error. Called once, by the binary.
pub fn start_logging(config: &LogConfig) -> Result<()> {
    let _ = config;
    todo!()
}
