//! The Kafka source: its client, and the sessions that it runs one after another.
//!
//! ```text
//!   source ─► session ─ ends for any reason ─► the next session
//!               │  └─► end (position, lag), gap, pause
//!   brokers ◄─► client ─ messages, assignments ─► session ─► message batch ─► stored with its offsets
//!               ▲   └─ errors ─► error.rs ─► the log, operators
//!               └─ token ◄─► an identity provider
//! ```
//!
//! In: a checked configuration ([`Source`]). Out: message batches for [`source`](super::source), which stores them.
//!
//! **Invariant:** only this folder uses `rdkafka`.
//! **Invariant:** the table alone decides where reading continues, never the offsets that Kafka or the client stores.

mod source;

mod session;

mod end_tracking;
mod offset_gap;
mod pause;

mod client;
mod partition_end;

mod error;
mod oauth_token;

#[cfg(test)]
mod oauth_token_tests;
#[cfg(test)]
mod pause_tests;
#[cfg(test)]
pub(super) mod tests;

pub use source::Source;
