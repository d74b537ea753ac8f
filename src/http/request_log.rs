//! Wraps every request: gives it an id, a log span, a time limit, and metrics.
//!
//! In: a request and its handler. Out: the handler's response with `x-request-id`; 503 if it took too long; 500 with an
//! error id if it panicked.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue};
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};
use tracing::Instrument as _;
use uuid::Uuid;

use super::HttpHandler;
use super::error::ErrorBody;
use crate::error::Error;
use crate::supervise::{Panic, catch_future};

/// The header of a request's id, in requests and responses.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The maximum length of an id sent by a client.
const REQUEST_ID_BYTES_MAX: usize = 64;
/// The route label of the metrics for paths that match no route.
const NO_ROUTE: &str = "none";

/// A request's id, for handlers.
#[derive(Debug, Clone)]
pub(super) struct RequestId(pub(super) String);

/// Runs one request.
pub(super) async fn observe(State(handler): State<Arc<HttpHandler>>, mut request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let id = request_id(request.headers());
    let route = request.extensions().get::<MatchedPath>().map_or(NO_ROUTE, MatchedPath::as_str).to_owned();
    let span = tracing::info_span!("request", %id, method = %request.method(), %route);
    request.extensions_mut().insert(RequestId(id.clone()));

    let running = tokio::time::timeout(handler.config.request_time_max, catch_future(next.run(request)));
    let answer = running.instrument(span.clone()).await;
    let mut response = span.in_scope(|| match answer {
        Ok(Ok(response)) => response,
        Ok(Err(panic)) => panicked(panic).into_response(),
        Err(_) => too_slow(&handler).into_response(),
    });
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    let (status, took) = (response.status().as_u16(), begun.elapsed());
    handler.services.metrics.http_request(&route, status, took);
    span.in_scope(|| tracing::debug!(status, took_ms = took.as_millis(), "answered"));
    response
}

/// The client's id if it is short and plain, so that it appears in both logs; else a new one.
fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let plain = |id: &&str| {
        (1..=REQUEST_ID_BYTES_MAX).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
    };
    given.filter(plain).map_or_else(|| Uuid::now_v7().to_string(), str::to_owned)
}

/// The connection continues: only this request fails.
fn panicked(panic: Panic) -> ErrorBody {
    Error::internal("a request panicked").with_source(panic).into()
}

fn too_slow(handler: &HttpHandler) -> ErrorBody {
    handler.services.metrics.limited("http.request_time_max");
    let seconds = handler.config.request_time_max.as_secs_f32();
    Error::unavailable(format!("the request took longer than {seconds} s: retry, no event is stored twice")).into()
}
