//! Kafka as a source: its client, and one session of it after the other.
//!
//! ```text
//!   source ─► session ─ ends, in any way ─► the next session
//!               │  └─► end (position, lag), gap, pause
//!   brokers ◄─► client ─ messages, assignments ─► session ─► haul ─► stored with its offsets
//!               ▲   └─ errors ─► fault ─► the log, operators
//!               └─ token ◄─► an identity provider
//! ```
//!
//! In: a checked configuration ([`Source`]). Out: hauls for [`sources`](super::source), which knows the rest.
//!
//! **Invariant:** this is the only folder that knows `rdkafka`.
//! **Invariant:** where to read on is what the table says, never what Kafka or the client remembers.

mod source;

mod session;

mod end;
mod gap;
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
