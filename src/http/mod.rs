//! The web door: ingest, health and metrics. Every route on this page. The only module that knows axum.

use std::sync::Arc;

use crate::clock::Clock;
use crate::config::{HttpConfig, IngestConfig};
use crate::error::Result;
use crate::ingest::Ingest;
use crate::telemetry::Metrics;
use crate::tenancy::Verifier;

/// What the door needs.
#[derive(Debug, Clone)]
pub struct Doors {
    /// Tokens.
    pub verifier: Arc<Verifier>,
    /// Events.
    pub ingest: Arc<Ingest>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Time.
    pub clock: Clock,
    /// Limits of bodies.
    pub limits: IngestConfig,
}

/// Serves until `stop` ends, then finishes running requests.
pub async fn serve(
    listener: tokio::net::TcpListener,
    doors: Doors,
    config: HttpConfig,
    stop: tokio_util::sync::CancellationToken,
) -> Result<()> {
    let _ = (listener, doors, config, stop);
    todo!()
}
