//! The Kafka source: the client of a source, and the sessions that run one after another.
//!
//! ```text
//!   source ─► session loop ─► session ─ ends for any reason ─► the next session
//!                               │  └─► assignment, lag reporting, offset gap, pause
//!   brokers ◄─► client ─ messages, assignments ─► session ─► message batch ─► stored with its offsets
//!               ▲   └─ errors ─► error.rs ─► the log, operators
//!               └─ token ◄─► an identity provider
//! ```
//!
//! A [`Source`] contains a checked configuration. The sessions of a source collect messages in batches, which
//! [`source`](super::source) stores.
//!
//! **Invariant:** only this folder uses `rdkafka`.
//! **Invariant:** only the offsets in the table determine where reading continues, never the offsets that Kafka or the
//! client stores.

mod source;

mod session;
mod session_loop;

mod assignment;
mod lag_reporting;
mod offset_gap;
mod pause;

mod client;
mod client_settings;
mod end_offset;

mod error;
mod oauth_token;

#[cfg(test)]
mod oauth_token_tests;
#[cfg(test)]
mod pause_tests;
#[cfg(test)]
pub(super) mod tests;

pub use source::Source;
