//! Maps errors to HTTP responses. Only this file decides which status a [`Kind`] of error gets.
//!
//! All errors have the same JSON format: `{"error":{"kind","message","id"?}}`.
//!
//! **Invariant:** the response for an internal error does not reveal the cause. It contains an id that can be used to
//! find the cause in the log.

use std::time::Duration;

use axum::Json;
use axum::http::header::{RETRY_AFTER, WWW_AUTHENTICATE};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::json;
use uuid::Uuid;

use crate::error::{Error, Kind};

/// The default delay before a retry, for `Unavailable` errors that do not specify a delay.
const RETRY_AFTER_DEFAULT: Duration = Duration::from_secs(1);

/// An error and the status of its response.
#[derive(Debug)]
pub(super) struct ErrorBody {
    status: StatusCode,
    error: Error,
}

impl ErrorBody {
    /// Creates a response with a status that no kind of error maps to, such as 405, 413 or 415.
    pub(super) fn new(status: StatusCode, error: Error) -> Self {
        Self { status, error }
    }

    /// Creates a response with status 413.
    pub(super) fn too_large(message: String) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, Error::limited(message))
    }

    /// Creates a response with status 415.
    pub(super) fn wrong_media(message: String) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, Error::unsupported(message))
    }
}

impl From<Error> for ErrorBody {
    fn from(error: Error) -> Self {
        Self::new(status(error.kind()), error)
    }
}

/// Returns the status for a kind of error.
fn status(kind: Kind) -> StatusCode {
    match kind {
        Kind::Invalid => StatusCode::BAD_REQUEST,
        Kind::Unauthenticated => StatusCode::UNAUTHORIZED,
        Kind::Forbidden => StatusCode::FORBIDDEN,
        Kind::NotFound => StatusCode::NOT_FOUND,
        Kind::Conflict => StatusCode::CONFLICT,
        Kind::Limited => StatusCode::TOO_MANY_REQUESTS,
        // The kind `Cancelled` means that the client itself cancelled the request, so it probably no longer reads the
        // response. If the server cancels a request because it is stopping, the error has the kind `Unavailable`
        // instead.
        Kind::Cancelled => StatusCode::REQUEST_TIMEOUT,
        Kind::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Kind::Unsupported => StatusCode::NOT_IMPLEMENTED,
        Kind::Internal => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// Returns the name that JSON responses use for an error kind.
fn kind_name(kind: Kind) -> &'static str {
    match kind {
        Kind::Invalid => "invalid",
        Kind::Unauthenticated => "unauthenticated",
        Kind::Forbidden => "forbidden",
        Kind::NotFound => "not_found",
        Kind::Conflict => "conflict",
        Kind::Limited => "limited",
        Kind::Cancelled => "cancelled",
        Kind::Unavailable => "unavailable",
        Kind::Unsupported => "unsupported",
        Kind::Internal => "internal",
    }
}

impl IntoResponse for ErrorBody {
    /// Logs the error and builds its response. Only this function logs errors of HTTP requests.
    fn into_response(self) -> Response {
        let Self { status, error } = self;
        let kind = error.kind();
        let body = if kind == Kind::Internal {
            let id = Uuid::new_v4();
            tracing::error!(%id, ?error, "a request failed with an internal error");
            json!({ "kind": kind_name(kind), "message": "internal error: search the server's log for this id", "id": id.to_string() })
        } else {
            tracing::debug!(status = status.as_u16(), ?error, "a request failed");
            json!({ "kind": kind_name(kind), "message": error.message() })
        };
        let mut response = (status, Json(json!({ "error": body }))).into_response();
        let headers = response.headers_mut();
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"glasshouse\""));
        }
        let wait = error.wait().or((kind == Kind::Unavailable).then_some(RETRY_AFTER_DEFAULT));
        if let Some(wait) = wait {
            let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
            headers.insert(RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        }
        response
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_map_to_status_and_retry_after() {
        let seconds = Duration::from_millis(1500);
        let cases = [
            (Error::invalid("x").into(), 400, None),
            (Error::limited("x").retry_after(seconds).into(), 429, Some("2")),
            (Error::limited("x").into(), 429, None),
            (Error::unavailable("x").into(), 503, Some("1")),
            (ErrorBody::too_large("x".into()), 413, None),
            (ErrorBody::wrong_media("x".into()), 415, None),
        ];
        for (problem, status, wait) in cases {
            let response: Response = ErrorBody::into_response(problem);
            assert_eq!(response.status().as_u16(), status);
            assert_eq!(response.headers().get(RETRY_AFTER).map(|wait| wait.to_str().unwrap()), wait, "{status}");
        }
        let refused = ErrorBody::from(Error::unauthenticated("x")).into_response();
        assert!(refused.headers().contains_key(WWW_AUTHENTICATE));
    }

    #[tokio::test]
    async fn internal_errors_show_an_id_and_not_their_cause() {
        let error = Error::internal("cannot read `secret.parquet`").with_source("disk 7 of tenant acme");
        let response = ErrorBody::from(error).into_response();
        assert_eq!(response.status(), StatusCode::INTERNAL_SERVER_ERROR);
        let body = axum::body::to_bytes(response.into_body(), 4096).await.unwrap();
        let text = String::from_utf8(body.to_vec()).unwrap();
        assert!(text.contains("\"id\":\"") && !text.contains("secret") && !text.contains("acme"), "{text}");
    }
}
