//! The HTTP client for all requests to other servers: identity providers, schema registries, hosts of lookup tables,
//! and a running Glasshouse server for command-line commands.
//!
//! ```text
//!   Settings, Roots ──► Client
//!                         │
//!   Request ──► send ─► attempt ─► check URL ─► connect ─► redirect? ─► read the body up to its limit ──► Response
//!                ▲         │      (url_rule)                  └─► check URL again
//!                └─ pause ◄┘ if idempotent, and refused temporarily or not answered
//! ```
//!
//! [`Client::send`] returns a [`Response`] even if its status is an error. The call fails with `Invalid` if the URL is not allowed,
//! with `Limited` if the response is too large, and with `Unavailable` if no complete response arrives.
//!
//! Requests to loopback addresses never use a proxy. All other requests use the proxy that the environment variables
//! `HTTPS_PROXY`, `HTTP_PROXY` and `ALL_PROXY` configure, unless `NO_PROXY` contains the host of the URL.
//!
//! **Invariant:** an attempt ends within `time_max` and keeps at most `body_bytes_max` bytes of the response in memory.
//! **Invariant:** plain `http` is allowed only to loopback addresses, unless the settings allow other hosts. The client
//! does not follow redirects from `https` to `http` unless the target is a loopback address. It does not follow
//! redirects to a loopback address from any other address.
//! **Invariant:** credentials are sent only to the origin of the request's URL. After a redirect to another origin, the
//! client sends no credentials.
//! **Invariant:** the client repeats only idempotent requests.
//! **Invariant:** errors and log lines contain no credentials, because [`redacted`] removes them from URLs.

mod client;
mod request;
mod root_certificates;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
mod url_rule;

pub(crate) use client::{Client, Retry, Settings};
pub(crate) use request::{Request, Response};
pub(crate) use reqwest::StatusCode;
pub(crate) use root_certificates::Roots;
pub(crate) use url_rule::{Plaintext, parse_url, redacted};
