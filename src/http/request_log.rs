//! Gives every request an id, a log span, a time limit, and metrics.
//!
//! The response contains the id in the header `x-request-id`. The response has status 503 if the request exceeds its
//! time limit. If the handler panicked, the response has status 500 and an error id.

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

/// The request and response header that contains the id of a request.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The maximum length of a request id that the server accepts from a client.
const REQUEST_ID_BYTES_MAX: usize = 64;
/// The route name that the metrics use for requests whose path matches no route.
const NO_ROUTE: &str = "none";

/// The id of a request. Handlers read it from the extensions of the request.
#[derive(Debug, Clone)]
pub(super) struct RequestId(pub(super) String);

/// Runs the handler of a request. Logs and counts the request.
pub(super) async fn observe(State(handler): State<Arc<HttpHandler>>, mut request: Request, next: Next) -> Response {
    let begun = Instant::now();
    let id = request_id(request.headers());
    let route = request.extensions().get::<MatchedPath>().map_or(NO_ROUTE, MatchedPath::as_str).to_owned();
    let span = tracing::info_span!("request", %id, method = %request.method(), %route);
    request.extensions_mut().insert(RequestId(id.clone()));

    let running = tokio::time::timeout(handler.config.request_time_max, catch_future(next.run(request)));
    let outcome = running.instrument(span.clone()).await;
    let mut response = span.in_scope(|| match outcome {
        Ok(Ok(response)) => response,
        Ok(Err(panic)) => panicked(panic).into_response(),
        Err(_) => too_slow(&handler).into_response(),
    });
    if let Ok(value) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    let (status, took) = (response.status().as_u16(), begun.elapsed());
    handler.services.metrics.http_request(&route, status, took);
    span.in_scope(|| tracing::debug!(status, took_ms = took.as_millis(), "sent a response"));
    response
}

/// Returns the id that the client sent if it is short and contains only letters, digits, `-`, `_` and `.`; otherwise
/// returns a new id. If the client sends an id, the logs of both sides can be searched for this id.
fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let plain = |id: &&str| {
        (1..=REQUEST_ID_BYTES_MAX).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
    };
    given.filter(plain).map_or_else(|| Uuid::now_v7().to_string(), str::to_owned)
}

/// Returns the response to a request whose handler panicked. The connection stays open, because the panic affects only
/// this request.
fn panicked(panic: Panic) -> ErrorBody {
    Error::internal("a request handler panicked").with_source(panic).into()
}

fn too_slow(handler: &HttpHandler) -> ErrorBody {
    handler.services.metrics.limited("http.request_time_max");
    let seconds = handler.config.request_time_max.as_secs_f32();
    Error::unavailable(format!("the request took longer than {seconds} s: send it again; no event is stored twice"))
        .into()
}
