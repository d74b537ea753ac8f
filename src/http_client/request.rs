//! An HTTP request and its response. [`Request`] does not implement `Debug`, because it may contain credentials.

use std::time::Duration;

use bytes::Bytes;
use reqwest::{Method, StatusCode};
use url::Url;

/// A request to another server.
#[derive(Clone)]
pub(crate) struct Request {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: Vec<(&'static str, &'static str)>,
    pub(super) credentials: Credentials,
    pub(super) body: Bytes,
    pub(super) is_idempotent: bool,
}

/// The credentials in the `authorization` header.
#[derive(Clone)]
pub(super) enum Credentials {
    None,
    Basic { user: String, password: String },
    Bearer(String),
}

/// A response from another server.
pub(crate) struct Response {
    pub(crate) status: StatusCode,
    /// The body. If the status is an error and the body exceeds the size limit, the body is truncated.
    pub(crate) body: Bytes,
    /// The value of `retry-after`. `None` if the header is missing or is not a number of seconds.
    pub(super) retry_after: Option<Duration>,
}

impl Request {
    /// Creates a `GET` request. The client may repeat it, and follows redirects for it.
    pub(crate) fn get(url: Url) -> Self {
        Self {
            method: Method::GET,
            url,
            headers: Vec::new(),
            credentials: Credentials::None,
            body: Bytes::new(),
            is_idempotent: true,
        }
    }

    /// Creates a `POST` request. The client does not follow redirects for it, and sends it only once unless it is
    /// marked as [`idempotent`](Self::idempotent).
    pub(crate) fn post(url: Url, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        let request = Self { method: Method::POST, body: body.into(), is_idempotent: false, ..Self::get(url) };
        request.header("content-type", content_type)
    }

    /// Adds a header.
    pub(crate) fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Sets the user and password for HTTP basic authentication.
    pub(crate) fn basic(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.credentials = Credentials::Basic { user: user.into(), password: password.into() };
        self
    }

    /// Sets a bearer token for authentication.
    pub(crate) fn bearer(mut self, token: impl Into<String>) -> Self {
        self.credentials = Credentials::Bearer(token.into());
        self
    }

    /// Marks the request as safe to repeat, so that the client may retry it.
    pub(crate) fn idempotent(mut self) -> Self {
        self.is_idempotent = true;
        self
    }
}
