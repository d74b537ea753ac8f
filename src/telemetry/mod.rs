//! Telemetry: the log, and metrics for Prometheus.
//!
//! ```text
//!   every module ─► tracing ─► logs ─► standard error (text or JSON)
//!                └► Metrics (one method per kind of event) ─► render ─► GET /metrics
//! ```
//!
//! **Invariant:** the number of distinct label values is bounded. A malicious sender therefore cannot exhaust memory
//! with new label values.
//! **Invariant:** the only tenant data in a label is the tenant's name.

mod label_value;
mod logs;
mod maintenance;
mod metrics;
mod metrics_registry;
mod query;
mod source;
mod transform;

pub use logs::start_logging;
pub use maintenance::{LevelSize, MaintenanceMetrics, MergeOutcome};
pub use metrics::{EventOutcome, Metrics};
pub use query::{QueryMeter, QueryOutcome};
pub use source::{PartitionLabel, RegistryAnswer, SourceMetrics, SourceTrouble};
pub use transform::TransformMetrics;
