//! Limits the size of the request line and headers.
//!
//! If the request line and headers are too large, the server responds with status 431 and a body that names the limit.
//! If a request head is larger than four times the limit or has more than [`HEADERS_READ_MAX`] headers, the HTTP
//! library refuses the request: it sends status 431 without a body and closes the connection.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse as _, Response};

use super::HttpHandler;
use super::error::ErrorBody;
use crate::error::Error;

/// The maximum number of headers in a request.
const HEADERS_MAX: usize = 64;
/// The number of headers above which the HTTP library refuses a request before [`check`] runs.
pub(super) const HEADERS_READ_MAX: usize = 4 * HEADERS_MAX;
/// The number of bytes that a header needs in addition to its name and value: a colon, a space and a line end.
const HEADER_EXTRA_BYTES: usize = 4;

/// Refuses a request whose head is too large.
pub(super) async fn check(State(handler): State<Arc<HttpHandler>>, request: Request, next: Next) -> Response {
    let bytes_max = handler.config.header_bytes_max;
    let (bytes, headers) = (head_bytes(&request), request.headers().len());
    if bytes <= bytes_max && headers <= HEADERS_MAX {
        return next.run(request).await;
    }
    handler.services.metrics.limited("http.header_bytes_max");
    let error = Error::limited(format!(
        "the request line and {headers} headers take {bytes} bytes, but at most {bytes_max} bytes (limit \
         http.header_bytes_max) and {HEADERS_MAX} headers are allowed: send a shorter token or fewer headers"
    ));
    ErrorBody::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, error).into_response()
}

fn head_bytes(request: &Request) -> usize {
    let line = request.method().as_str().len() + request.uri().path_and_query().map_or(0, |path| path.as_str().len());
    let headers = request.headers().iter().map(|(name, value)| name.as_str().len() + value.len() + HEADER_EXTRA_BYTES);
    headers.fold(line, usize::saturating_add)
}
