//! The Flight SQL endpoint, for ADBC, JDBC, ODBC, pyarrow and BI tools. The only module that uses tonic and
//! arrow-flight.
//!
//! ```text
//!   client ─► connection (bounded) ─► admission (calls, headers)
//!                │
//!                ▼
//!             service ─ auth (every call) ─► command ─┬─► statement ─ plan ─► handle (signed ticket)
//!                │                                    │        └─ run ─► profile (types) ─► stream (messages) ─► expiring ─► client
//!                │                                    ├─► catalog, keys, sqlinfo, xdbc ─► stream ─► client
//!                │                                    ├─► prepared ◄─► handle (signed parameters)
//!                │                                    ├─► upload (bounded) ─► ingest ─► Writer::submit
//!                │                                    └─► options · cancel
//!                └─ error (status)
//! ```
//!
//! **Invariant:** every RPC authenticates; the token of that same call alone decides whose data is visible.
//! **Invariant:** the schema of a result is one pure function of its plan, so FlightInfo, GetSchema and the stream
//! agree.
//! **Invariant:** no message is larger than `message_bytes_max`; reaching a limit returns a status, never a reset.
//! **Invariant:** tickets and prepared handles are stateless: they work on any connection, and on any server with the
//! same `handle_secret`.

use std::sync::Arc;
use std::time::Duration;

use arrow_flight::flight_service_server::FlightServiceServer;
use tokio::net::TcpListener;
use tonic::transport::Server;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::clock::Clock;
use crate::config::{FlightConfig, Secret};
use crate::error::{Error, Result};
use crate::ingest::Writer;
use crate::query::Engine;
use crate::supervise::Stop;
use crate::telemetry::Metrics;
use crate::tenancy::Verifier;

mod connection;
mod graceful_close;
mod tls;

mod admission;
mod service;

mod auth;
mod error;

mod command;

mod statement;
mod unread_stream;

mod handle;
mod prepared;
mod profile;
mod stream;

mod catalog;
mod sqlinfo;
mod table_keys;
mod xdbc;

mod ingest;
mod message_reader;
mod upload;
mod upload_memory;

mod cancel;
mod options;
mod rpc;

pub mod client;

#[cfg(test)]
mod limits_tests;
#[cfg(test)]
mod malformed_arrow_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

/// Pings keep connections open while a long query sends nothing; load balancers commonly close idle ones after 60 s.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_WAIT_MAX: Duration = Duration::from_secs(20);
/// The maximum number of concurrent calls of one connection, in addition to `streams_max` for all connections.
const CALLS_MAX: u32 = 256;
/// The time for connections to close after their streams were cut.
const CLOSE_MAX: Duration = Duration::from_secs(5);

/// What the endpoint needs.
#[derive(Debug, Clone)]
pub struct FlightServices {
    /// Verifies tokens.
    pub verifier: Arc<Verifier>,
    /// Runs queries.
    pub engine: Arc<Engine>,
    /// Takes events.
    pub writer: Arc<Writer>,
    /// Metrics.
    pub metrics: Arc<Metrics>,
    /// The clock.
    pub clock: Clock,
}

/// Serves Flight SQL and gRPC health on `listener` until the stop is requested; then running streams finish, or are
/// cut.
///
/// `Invalid` for unusable certificates, and for plain text on a non-loopback address that is not allowed.
pub async fn serve(
    listener: TcpListener,
    services: FlightServices,
    config: FlightConfig,
    handle_secret: Secret,
    stop: Stop,
) -> Result<()> {
    let mut server = builder(&config);
    if let Some(tls) = tls::settings(&listener, &config)? {
        server = server
            .tls_config(tls)
            .map_err(|error| Error::invalid("flight: unusable TLS certificates or key").with_source(error))?;
    }
    let (health, health_service) = tonic_health::server::health_reporter();
    health.set_serving::<FlightServiceServer<service::FlightHandler>>().await;

    let admission = admission::Admission::new(&config, services.metrics.clone());
    let incoming = connection::connections(listener, &config, services.metrics.clone());
    let handler = service::FlightHandler::new(services, config, &handle_secret, stop.cut.clone());
    let flight = FlightServiceServer::new(handler).max_decoding_message_size(FlightConfig::REQUEST_BYTES_MAX);
    let serving = server
        .add_service(admission::AdmissionService::new(health_service, &admission))
        .add_service(admission::AdmissionService::new(flight, &admission))
        .serve_with_incoming_shutdown(incoming, stop.asked.clone().cancelled_owned());
    let mut serving = std::pin::pin!(serving);

    let outcome = tokio::select! {
        outcome = &mut serving => outcome,
        () = stop.asked.cancelled() => {
            say_not_serving(health).await;
            tokio::select! {
                outcome = &mut serving => outcome,
                () = stop.cut.cancelled() => {
                    // Connections still open after this have no running stream: their client does not close them.
                    tokio::time::timeout(CLOSE_MAX, &mut serving).await.unwrap_or(Ok(()))
                }
            }
        }
    };
    outcome.map_err(|error| Error::unavailable("the Flight listener failed").with_source(error))
}

fn builder(config: &FlightConfig) -> Server {
    let (stream_window, connection_window) = config.windows();
    tracing::info!(
        stream_window,
        connection_window,
        connections_max = config.connections_max,
        "the flow-control windows of all connections fit flight.window_bytes_max"
    );
    let in_frame = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
    // No maximum age for connections: JDBC drivers fail queries that receive a GOAWAY.
    Server::builder()
        .http2_max_header_list_size(in_frame(config.header_read_bytes_max()))
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_WAIT_MAX))
        .initial_stream_window_size(in_frame(stream_window))
        .initial_connection_window_size(in_frame(connection_window))
        .max_concurrent_streams(CALLS_MAX)
}

/// Reports the services as not serving, so that load balancers use other servers, and ends their watches, which would
/// keep connections open.
async fn say_not_serving(mut health: HealthReporter) {
    for service in ["", "arrow.flight.protocol.FlightService"] {
        health.set_service_status(service, ServingStatus::NotServing).await;
        health.clear_service_status(service).await;
    }
}
