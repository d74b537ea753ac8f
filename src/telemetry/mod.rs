//! What the server says of itself: logs for people or machines, metrics for Prometheus.
//!
//! ```text
//!   every module ─► tracing ─► logs ─► standard error (text or JSON)
//!                └► Metrics (methods in the domain's words) ─► render ─► GET /metrics
//! ```
//!
//! **Invariant:** labels are bounded: a hostile sender cannot make the server remember names without end.
//! **Invariant:** of a tenant's data, nothing but the tenant's name is ever a label.

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
