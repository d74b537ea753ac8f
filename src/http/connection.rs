//! Accepts HTTP/1.1 connections up to a limit, keeps them alive between requests, and closes them gracefully.
//!
//! When [`accept`] returns, the tasks of all connections have ended.
//!
//! **Invariant:** a silent or slow client can occupy a connection only for a limited time. [`HEAD_TIME_MAX`] limits the
//! time until the request head is complete, and `http.request_time_max` limits the rest of the request.

use std::pin::pin;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::request_head::HEADERS_READ_MAX;
use crate::config::HttpConfig;
use crate::listener::{ConnectionLimit, ConnectionSlot, Listener};
use crate::supervise::Stop;

/// The maximum time that a client may take to send a request head, measured from the start of the connection or from
/// the end of the previous response.
const HEAD_TIME_MAX: Duration = Duration::from_secs(30);

/// Accepts connections until a stop is requested. Requests that are already running continue until they finish or
/// `stop.cut` aborts them.
pub(super) async fn accept(mut listener: Listener, router: Router, config: &HttpConfig, stop: Stop) {
    let mut connections = JoinSet::new();
    let server = server(config);
    while let Some((stream, slot)) = stop.asked.run_until_cancelled(listener.accept()).await {
        connections.spawn(serve_connection(stream, server.clone(), router.clone(), slot, stop.asked.clone()));
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    if stop.cut.run_until_cancelled(drained).await.is_none() {
        tracing::warn!(
            connections = connections.len(),
            "closed connections whose requests did not finish before the shutdown deadline"
        );
        connections.shutdown().await;
    }
}

/// Returns the limit on open connections, and the response that rejects a connection above this limit.
pub(super) fn limit(config: &HttpConfig) -> ConnectionLimit {
    let connections_max = config.connections_max;
    let body = format!(
        "{{\"error\":{{\"kind\":\"limited\",\"message\":\"the server has {connections_max} connections (limit \
         http.connections_max): retry later\"}}}}"
    );
    let refusal = format!(
        "HTTP/1.1 429 Too Many Requests\r\ncontent-type: application/json\r\ncontent-length: {}\r\nretry-after: 1\r\n\
         connection: close\r\n\r\n{body}",
        body.len()
    );
    ConnectionLimit { key: "http.connections_max", connections_max, refusal: refusal.into() }
}

fn server(config: &HttpConfig) -> http1::Builder {
    let mut server = http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .max_header_size(config.header_read_bytes_max())
        .max_headers(HEADERS_READ_MAX)
        .max_buf_size(config.read_ahead_bytes_max());
    server
}

/// Serves the requests of one connection. After a stop is requested, the connection finishes the current request and
/// accepts no further requests.
async fn serve_connection(
    stream: TcpStream,
    server: http1::Builder,
    router: Router,
    _slot: ConnectionSlot,
    stop: CancellationToken,
) {
    let connection = server.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "a connection failed");
    }
}
