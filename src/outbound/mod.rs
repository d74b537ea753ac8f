//! The one HTTP client for requests to other servers: identity providers, schema registries, hosts of lookup tables, and
//! a running Glasshouse for commands of the command line.
//!
//! ```text
//!   Settings, Roots ──► Client
//!                         │
//!   Request ──► send ─► attempt ─► URL rule ─► connect ─► redirect? ─► read the body up to its limit ──► Response
//!                ▲         │       (rule)      (roots)        └─► URL rule, again
//!                └─ pause ◄┘ idempotent, and temporarily refused or unanswered
//! ```
//!
//! In: a [`Request`], and the [`Settings`] of the module that sends it. Out: a [`Response`] of any status, or an error:
//! `Unavailable` if there is no usable response, `Limited` if the response is too large, `Invalid` if the URL is not allowed.
//!
//! Proxies: a request to this machine never goes through one. Every other request goes through the proxy that the
//! environment names (`HTTPS_PROXY`, `HTTP_PROXY`, `ALL_PROXY`), unless `NO_PROXY` names its host.
//!
//! **Invariant:** an attempt ends within `time_max`, and at most `body_bytes_max` bytes of a response are kept in memory.
//! **Invariant:** `http` is allowed to this machine only, unless the settings allow other hosts; a redirect never leads from `https` to
//! `http` on another machine, nor from another machine to this one.
//! **Invariant:** credentials are sent to the origin of the request's URL only, never to the target of a redirect elsewhere.
//! **Invariant:** only idempotent requests are repeated.
//! **Invariant:** no error and no log line contains a credential: URLs are shown by [`redacted`].

mod client;
mod message;
mod roots;
mod rule;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub(crate) use client::{Client, Retry, Settings};
pub(crate) use message::{Request, Response};
pub(crate) use reqwest::StatusCode;
pub(crate) use roots::Roots;
pub(crate) use rule::{Plaintext, parse_url, redacted};
