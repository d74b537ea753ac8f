//! Decodes messages whose schemas are in a schema registry or in a file.
//!
//! ```text
//!   messages ─► decoder ── ids ──► client (one request per id) ◄─► registry
//!               │     ▲               │
//!               │     └── schemas ────┘
//!               └─► bytes for the contract, or a rejection
//! ```
//!
//! [`MessageDecoder`] converts messages to a form that the contract can decode ([`DecodedMessages`]). It is used for
//! the messages of a batch and for the payloads of quarantine entries.
//!
//! **Invariant:** no message is rejected if its schema is only temporarily unavailable. Instead, the source reads the
//! whole batch again later.

mod message_decoder;

mod client;

#[cfg(test)]
mod client_tests;
#[cfg(test)]
mod tests;

pub(super) use message_decoder::{DecodedMessages, MessageDecoder, Schemas};
