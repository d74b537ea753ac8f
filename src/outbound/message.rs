//! A request and its response as plain values. A request holds credentials, so it has no `Debug`.

use std::time::Duration;

use bytes::Bytes;
use reqwest::{Method, StatusCode};
use url::Url;

/// A request.
#[derive(Clone)]
pub(crate) struct Request {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: Vec<(&'static str, &'static str)>,
    pub(super) credentials: Credentials,
    pub(super) body: Bytes,
    pub(super) is_idempotent: bool,
}

/// The content of the header `authorization`.
#[derive(Clone)]
pub(super) enum Credentials {
    None,
    Basic { user: String, password: String },
    Bearer(String),
}

/// A response.
pub(crate) struct Response {
    pub(crate) status: StatusCode,
    /// The whole body if the status is a success; otherwise at most the limit.
    pub(crate) body: Bytes,
    /// The value of `retry-after`, if the peer sent it in seconds.
    pub(super) retry_after: Option<Duration>,
}

impl Request {
    /// A `GET`, which is idempotent and follows redirects.
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

    /// A `POST`. It is sent once unless it is declared [`idempotent`](Self::idempotent), and follows no redirect.
    pub(crate) fn post(url: Url, content_type: &'static str, body: impl Into<Bytes>) -> Self {
        let request = Self { method: Method::POST, body: body.into(), is_idempotent: false, ..Self::get(url) };
        request.header("content-type", content_type)
    }

    /// Adds a header.
    pub(crate) fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Sets HTTP basic authentication.
    pub(crate) fn basic(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.credentials = Credentials::Basic { user: user.into(), password: password.into() };
        self
    }

    /// Sets a bearer token.
    pub(crate) fn bearer(mut self, token: impl Into<String>) -> Self {
        self.credentials = Credentials::Bearer(token.into());
        self
    }

    /// Declares that the request is safe to repeat.
    pub(crate) fn idempotent(mut self) -> Self {
        self.is_idempotent = true;
        self
    }
}
