//! Connections: accepted up to a bound, HTTP/1.1 with keep-alive, ended in order.
//!
//! In: a listener and the routes. Out: nothing is left running when [`accept`] returns.
//!
//! **Invariant:** a silent or slow client holds a connection for a bounded time: [`HEAD_TIME_MAX`] between and within
//! request heads, `http.request_time_max` for the rest.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::config::HttpConfig;
use crate::supervise::Stop;

/// A request's line and headers; a token of the default size fits four times.
pub(super) const HEAD_BYTES_MAX: usize = 64 * 1024;
/// Headers of one request.
const HEADERS_MAX: usize = 64;
/// Bytes read ahead of the handler.
const READ_AHEAD_BYTES_MAX: usize = 256 * 1024;
/// From a connection's first byte, or its last answer, to the end of the next request's head.
const HEAD_TIME_MAX: Duration = Duration::from_secs(30);
/// The pause after a failed accept: the process is out of descriptors, and others need time to close theirs.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Accepts until it is asked to stop, then lets running requests end until they are cut.
pub(super) async fn accept(listener: TcpListener, router: Router, config: &HttpConfig, stop: Stop) {
    let slots = Arc::new(Semaphore::new(config.connections_max.min(Semaphore::MAX_PERMITS)));
    let mut connections = JoinSet::new();
    while let Some((stream, slot)) = stop.asked.run_until_cancelled(next(&listener, &slots)).await {
        connections.spawn(answer(stream, router.clone(), slot, stop.asked.clone()));
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    let drained = async { while connections.join_next().await.is_some() {} };
    if stop.cut.run_until_cancelled(drained).await.is_none() {
        tracing::warn!(
            connections = connections.len(),
            "cut connections that did not finish before the deadline of the stop"
        );
        connections.shutdown().await;
    }
}

/// The next connection, when there is a slot for it: until then clients wait in the kernel's bounded queue.
async fn next(listener: &TcpListener, slots: &Arc<Semaphore>) -> (TcpStream, OwnedSemaphorePermit) {
    let slot = slots.clone().acquire_owned().await.expect("the slots are never closed");
    loop {
        match listener.accept().await {
            Ok((stream, _)) => return (stream, slot),
            Err(error) => {
                tracing::warn!(%error, "could not accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

/// Answers one connection's requests. After `stop` the running one is the last.
async fn answer(stream: TcpStream, router: Router, _slot: OwnedSemaphorePermit, stop: CancellationToken) {
    // Answers are small and written at once: waiting for more to send would only delay them.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "could not set TCP_NODELAY");
    }
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIME_MAX)
        .max_header_size(HEAD_BYTES_MAX)
        .max_headers(HEADERS_MAX)
        .max_buf_size(READ_AHEAD_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut connection = pin!(connection);
    let outcome = tokio::select! {
        outcome = connection.as_mut() => outcome,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "a connection broke off");
    }
}
