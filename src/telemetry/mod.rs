//! Telemetry: logs for people or machines, and metrics for Prometheus.
//!
//! ```text
//!   every module ─► tracing ─► logs ─► standard error (text or JSON)
//!                └► Metrics (one method per domain event) ─► render ─► GET /metrics
//! ```
//!
//! **Invariant:** the number of label values is bounded, so that a malicious sender cannot exhaust the memory.
//! **Invariant:** the tenant's name is the only tenant data used as a label.

mod label_value;
mod logs;
mod metrics;
mod query;
mod source;
mod transform;

pub use logs::start_logging;
pub use metrics::{EventOutcome, Metrics};
pub use query::{QueryMeter, QueryOutcome};
pub use source::{PartitionLabel, RegistryAnswer, SourceMetrics, SourceTrouble};
pub use transform::TransformMetrics;
