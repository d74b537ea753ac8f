//! The HTTP endpoint, which serves ingestion, quarantines, the list of tables, health checks and metrics. This file
//! lists all routes. Only this module uses axum.
//!
//! ```text
//!   connection (limits connections) ─► request_log (id, time limit, metrics) ─► request_head (limits headers)
//!                                                                                  │
//!      ┌───────────────────────────────────────────────────────────────────────────┘
//!      ├► ingest ─► caller ─► content_type ─► body ─► Writer ─► receipt
//!      ├► freshness ─► caller ─► Writer, and a session for the newest rows
//!      ├► quarantine ─► caller ─► Quarantine (list, show, replay, drop)
//!      ├► sources ─► caller (operators) ─► Sources (list, pause, resume)
//!      ├► maintenance ─► caller (operators) ─► Maintenance (state, pause, resume)
//!      ├► server_status ─► caller ─► tables, metrics (operators)
//!      ├► server_status ─► healthz, readyz
//!      └► home ─► home_content ─► html_page (browsers), JSON or Markdown (programs)
//! ```
//!
//! **Invariant:** a body is read only after the caller is authorized. The memory for the body is reserved from the
//! budget of the ingest queue.
//! **Invariant:** every response is JSON and has a request id, including the responses for unknown paths, unsupported
//! methods and internal errors. There are three exceptions: `/metrics` and `/docs/{name}` return text, browsers get
//! HTML for `/` and `/docs/{name}`, and a request gets a response without a body if it is not HTTP or its head is far
//! too large (see `request_head.rs`).

mod freshness;
mod ingest;
mod quarantine;
mod sources;

mod maintenance;
mod server_status;

mod home;
mod home_content;
mod html_escape;
mod html_page;
mod markdown;

mod request_log;

mod caller;

mod content_type;

mod body;

mod error;

mod connection;
mod request_head;

#[cfg(test)]
mod home_tests;
#[cfg(test)]
mod rejection_tests;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::Router;
use axum::http::{Method, StatusCode, Uri};
use axum::middleware::from_fn_with_state;
use axum::routing::{get, post};
use tokio_util::sync::CancellationToken;

use crate::clock::Clock;
use crate::config::{HttpConfig, IngestConfig};
use crate::error::{Error, Result};
use crate::ingest::{Quarantine, Sources, Writer};
use crate::listener::Listener;
use crate::maintenance::Maintenance;
use crate::query::Engine;
use crate::supervise::{Stop, Supervisor};
use crate::telemetry::Metrics;
use crate::tenancy::Verifier;

use error::ErrorBody;

pub use home_content::Home;

/// The services that the request handlers use.
#[derive(Debug, Clone)]
pub struct HttpServices {
    /// Verifies tokens.
    pub verifier: Arc<Verifier>,
    /// Stores events.
    pub writer: Arc<Writer>,
    /// Lists, pauses and resumes the sources.
    pub sources: Arc<Sources>,
    /// Lists, replays and drops rejected events.
    pub quarantine: Arc<Quarantine>,
    /// Shows, pauses and resumes the maintenance of this server.
    pub maintenance: Arc<Maintenance>,
    /// Runs the query for the times of the newest rows that a tenant can see.
    pub engine: Arc<Engine>,
    /// Counts requests and exceeded limits.
    pub metrics: Arc<Metrics>,
    /// Provides the current time.
    pub clock: Clock,
    /// The limits on request bodies.
    pub limits: IngestConfig,
    /// The content of the home page.
    pub home: Home,
    /// Knows which background tasks have failed, so that the readiness probe can report them.
    pub supervisor: Supervisor,
}

/// The state that every handler receives.
#[derive(Debug)]
struct HttpHandler {
    services: HttpServices,
    config: HttpConfig,
    stop: CancellationToken,
}

/// Serves requests until a stop is requested. Requests that are already running continue until they finish or
/// `stop.cut` aborts them.
pub async fn serve(
    listener: tokio::net::TcpListener,
    services: HttpServices,
    config: HttpConfig,
    stop: Stop,
) -> Result<()> {
    let listener = Listener::new(listener, connection::limit(&config), services.metrics.clone());
    let router = routes(Arc::new(HttpHandler { services, config: config.clone(), stop: stop.asked.clone() }));
    connection::accept(listener, router, &config, stop).await;
    Ok(())
}

/// Returns the router with all routes.
fn routes(handler: Arc<HttpHandler>) -> Router {
    let routes = Router::new();
    #[cfg(test)]
    let routes = routes.route("/panics", get(tests::panics));
    routes
        .route("/", get(home::home))
        .route("/docs/{name}", get(home::docs))
        .route("/v1/tables", get(server_status::tables))
        .route("/v1/tables/{table}/events", post(ingest::events))
        .route("/v1/tables/{table}/freshness", get(freshness::freshness))
        .route("/v1/quarantine", get(quarantine::counts))
        .route("/v1/tables/{table}/quarantine", get(quarantine::list))
        .route("/v1/tables/{table}/quarantine/replay", post(quarantine::replay))
        .route("/v1/tables/{table}/quarantine/drop", post(quarantine::discard))
        .route("/v1/tables/{table}/quarantine/{id}", get(quarantine::show))
        .route("/v1/tables/{table}/quarantine/{id}/replay", post(quarantine::replay_fixed))
        .route("/v1/sources", get(sources::list))
        .route("/v1/sources/{name}/pause", post(sources::pause))
        .route("/v1/sources/{name}/resume", post(sources::resume))
        .route("/v1/maintenance", get(maintenance::state))
        .route("/v1/maintenance/pause", post(maintenance::pause))
        .route("/v1/maintenance/resume", post(maintenance::resume))
        .route("/metrics", get(server_status::metrics))
        .route("/healthz", get(server_status::healthz))
        .route("/readyz", get(server_status::readyz))
        .fallback(unknown_path)
        .method_not_allowed_fallback(wrong_method)
        .layer(from_fn_with_state(handler.clone(), request_head::check))
        .layer(from_fn_with_state(handler.clone(), request_log::observe))
        .with_state(handler)
}

async fn unknown_path(uri: Uri) -> ErrorBody {
    Error::not_found(format!("unknown path `{}`: `GET /` lists all routes", uri.path())).into()
}

async fn wrong_method(method: Method, uri: Uri) -> ErrorBody {
    let error = Error::invalid(format!("`{}` does not support {method}: see the `allow` header", uri.path()));
    ErrorBody::new(StatusCode::METHOD_NOT_ALLOWED, error)
}
