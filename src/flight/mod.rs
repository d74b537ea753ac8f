//! The Arrow door: Flight SQL for ADBC, JDBC, ODBC, pyarrow and BI tools. The only module that knows tonic and arrow-flight.
//!
//! (to be drawn by its author)

use std::sync::Arc;

use crate::clock::Clock;
use crate::config::{FlightConfig, Secret};
use crate::error::Result;
use crate::ingest::Ingest;
use crate::query::Engine;
use crate::telemetry::Metrics;
use crate::tenancy::Verifier;

mod catalog;
mod keys;
mod sqlinfo;
mod xdbc;

pub mod client;

/// What the door needs.
#[derive(Debug, Clone)]
pub struct Doors {
    /// Tokens.
    pub verifier: Arc<Verifier>,
    /// Questions.
    pub engine: Arc<Engine>,
    /// Events.
    pub ingest: Arc<Ingest>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// Time.
    pub clock: Clock,
}

/// Serves Flight SQL and gRPC health on `listener` until `stop` ends; then drains for at most `drain_max`.
pub async fn serve(
    listener: tokio::net::TcpListener,
    doors: Doors,
    config: FlightConfig,
    handle_secret: Secret,
    stop: tokio_util::sync::CancellationToken,
) -> Result<()> {
    let _ = (listener, doors, config, handle_secret, stop);
    todo!()
}
