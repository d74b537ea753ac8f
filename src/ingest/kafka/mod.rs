//! The Kafka source. A source has a Kafka client and runs sessions, one after another.
//!
//! ```text
//!   source ─► session loop ─► session ─ ends for any reason ─► the next session
//!                               │  └─► assignment, lag reporting, offset gap, pause, truncation stop
//!   brokers ◄─► client ─ messages, assignments ─► session ─► message batch ─► stored with its offsets
//!               ▲   └─ errors ─► error.rs ─► the log, operators
//!               └─ token ◄─► an identity provider
//! ```
//!
//! A [`Source`] is created from the configuration. Its sessions collect messages in batches, and the module
//! [`source`](super::source) stores the batches.
//!
//! **Invariant:** only this folder uses `rdkafka`.
//! **Invariant:** a source continues from the offsets in the table. The offsets that Kafka or the client stores are
//! never used for this purpose.

mod source;

mod session;
mod session_loop;

mod assignment;
mod lag_reporting;
mod offset_gap;
mod partition_pause;
mod truncation_stop;

mod client;
mod client_settings;
mod end_offset;

mod error;
mod oauth_token;

#[cfg(test)]
mod oauth_token_tests;
#[cfg(test)]
mod partition_pause_tests;
#[cfg(test)]
pub(super) mod tests;
#[cfg(test)]
mod truncation_stop_tests;

pub use source::Source;
