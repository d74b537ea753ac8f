//! The Flight SQL endpoint. The endpoint serves ADBC, JDBC and ODBC drivers, pyarrow and BI tools. Only this module
//! uses tonic and arrow-flight.
//!
//! ```text
//!   client ─► connection (limits connections) ─► admission (limits calls and headers)
//!                                                     │
//!      ┌──────────────────────────────────────────────┘
//!      ▼
//!   service ─ auth (every call) ─► command_decoder ─┬─► query_rpcs ─ plan ─► signed_handle (ticket)
//!      │                                            │        └─ run ─► result_arrow_types ─► result_encoder ─► unread_stream ─► client
//!      │                                            ├─► catalog, table_keys, sqlinfo, xdbc_type_info ─► result_encoder ─► client
//!      │                                            ├─► prepared_statement ◄─► signed_handle (bound parameters)
//!      │                                            ├─► message_reader ─► upload ─► ingest ─► Writer::submit
//!      │                                            └─► session_options, cancel
//!      └─► rpc_outcome (metrics) ─► error (status)
//! ```
//!
//! **Invariant:** every RPC authenticates its caller. The token in the RPC alone determines which tenants' data is
//! visible.
//! **Invariant:** a single function computes the schema of a result from its plan. FlightInfo, GetSchema and the stream
//! therefore contain the same schema.
//! **Invariant:** no message that the server sends is larger than `flight.message_bytes_max`. A call that exceeds a
//! limit gets a gRPC status. Its connection is not reset.
//! **Invariant:** the server stores no tickets or prepared handles. Tickets and handles work on any connection, and on
//! any server that has the same `handle_secret`.

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

mod command_decoder;

mod query_rpcs;
mod unread_stream;

mod prepared_statement;
mod result_arrow_types;
mod result_encoder;
mod result_time_zone;
mod signed_handle;

mod catalog;
mod function_groups;
mod metadata_filter;
mod sqlinfo;
mod table_keys;
mod xdbc_type_info;

mod ingest;
mod message_reader;
mod upload;
mod upload_memory;

mod cancel;
mod rpc_outcome;
mod session_options;

pub mod client;

#[cfg(test)]
mod limits_tests;
#[cfg(test)]
mod lookup_tests;
#[cfg(test)]
mod malformed_arrow_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

/// The interval of HTTP/2 pings. They keep a connection open while a long query sends no data. Without pings, load
/// balancers often close a connection that has been idle for 60 s.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
/// How long the server waits for the reply to a ping before it closes the connection.
const KEEPALIVE_WAIT_MAX: Duration = Duration::from_secs(20);
/// The maximum number of concurrent calls on one connection. In addition, `flight.streams_max` limits the number of
/// concurrent calls on all connections together.
const CALLS_MAX: u32 = 256;
/// How long the server waits for connections to close after it has aborted the running streams.
const CLOSE_MAX: Duration = Duration::from_secs(5);

/// The services that the endpoint uses.
#[derive(Debug, Clone)]
pub struct FlightServices {
    /// Verifies tokens.
    pub verifier: Arc<Verifier>,
    /// Runs queries.
    pub engine: Arc<Engine>,
    /// Stores uploaded events.
    pub writer: Arc<Writer>,
    /// Counts calls, refused tokens and exceeded limits.
    pub metrics: Arc<Metrics>,
    /// Provides the current time, which determines whether handles and session options have expired.
    pub clock: Clock,
}

/// Serves Flight SQL and gRPC health checks on `listener` until a stop is requested. After that, running streams may
/// finish until they are aborted by `stop.cut`.
///
/// Returns `Invalid` if the certificates cannot be used, or if the listener would serve plain text on a non-loopback
/// address without `plaintext_allowed`.
pub async fn serve(
    listener: TcpListener,
    services: FlightServices,
    config: FlightConfig,
    handle_secret: Secret,
    stop: Stop,
) -> Result<()> {
    let mut server = builder(&config);
    if let Some(tls) = tls::settings(&listener, &config)? {
        server = server.tls_config(tls).map_err(|error| {
            Error::invalid("flight: invalid TLS certificate or key: check `tls_cert` and `tls_key`").with_source(error)
        })?;
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
            report_not_serving(health).await;
            tokio::select! {
                outcome = &mut serving => outcome,
                () = stop.cut.cancelled() => {
                    // A connection that is still open after this time has no running stream. It is open only because
                    // its client has not closed it.
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
        "computed the flow-control windows from flight.window_bytes_max and flight.connections_max"
    );
    let as_u32 = |bytes: usize| u32::try_from(bytes).unwrap_or(u32::MAX);
    // Connections have no maximum age. To end a connection that is too old, the server would send a GOAWAY, and JDBC
    // drivers would then abort a running query.
    Server::builder()
        .http2_max_header_list_size(as_u32(config.header_read_bytes_max()))
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_WAIT_MAX))
        .initial_stream_window_size(as_u32(stream_window))
        .initial_connection_window_size(as_u32(connection_window))
        .max_concurrent_streams(CALLS_MAX)
}

/// Reports the services as not serving, so that load balancers choose other servers. This also ends the Watch calls of
/// health checks, which would otherwise keep connections open.
async fn report_not_serving(mut health: HealthReporter) {
    for service in ["", "arrow.flight.protocol.FlightService"] {
        health.set_service_status(service, ServingStatus::NotServing).await;
        health.clear_service_status(service).await;
    }
}
