//! Decodes messages with a schema from a schema registry or from a file.
//!
//! ```text
//!   messages ─► decoder ── ids ──► client (one request per id) ◄─► registry
//!               │     ▲               │
//!               │     └── schemas ────┘
//!               └─► bytes for the contract, or a rejection
//! ```
//!
//! [`MessageDecoder`] converts the messages of a batch, or the payloads of quarantine entries, to a form that the
//! contract can decode ([`DecodedMessages`]).
//!
//! **Invariant:** a message is not rejected because its schema is temporarily unavailable. Instead, the source reads
//! the message's batch again later.

mod message_decoder;

mod client;

#[cfg(test)]
mod client_tests;
#[cfg(test)]
mod tests;

pub(super) use message_decoder::{DecodedMessages, MessageDecoder, Schemas};
