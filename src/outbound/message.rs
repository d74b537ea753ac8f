//! A request and its answer as plain values. A request holds credentials, so that it has no `Debug`.

use std::time::Duration;

use bytes::Bytes;
use reqwest::{Method, StatusCode};
use url::Url;

/// What is asked.
#[derive(Clone)]
pub(crate) struct Request {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: Vec<(&'static str, &'static str)>,
    pub(super) credentials: Credentials,
    pub(super) body: Bytes,
    pub(super) is_idempotent: bool,
}

/// What goes into the header `authorization`.
#[derive(Clone)]
pub(super) enum Credentials {
    None,
    Basic { user: String, password: String },
    Bearer(String),
}

/// What is answered.
pub(crate) struct Response {
    pub(crate) status: StatusCode,
    /// All of it if the status is a success; else no more than the limit.
    pub(crate) body: Bytes,
    /// When the peer wants to be asked again, if it says so in seconds.
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

    /// The same with a header.
    pub(crate) fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }

    /// The same with HTTP basic authentication.
    pub(crate) fn basic(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.credentials = Credentials::Basic { user: user.into(), password: password.into() };
        self
    }

    /// The same with a bearer token.
    pub(crate) fn bearer(mut self, token: impl Into<String>) -> Self {
        self.credentials = Credentials::Bearer(token.into());
        self
    }

    /// The same, declared safe to send twice.
    pub(crate) fn idempotent(mut self) -> Self {
        self.is_idempotent = true;
        self
    }
}
