//! Decoding messages by a schema, from a schema registry or from a file.
//!
//! ```text
//!   messages ─► reader ─ ids ─► registry (one request per id) ──► schemas
//!                 ▲                                                  │
//!                 └──────────────────────────────────────────────────┴─► bytes for the contract, or a rejection
//! ```
//!
//! In: the messages of a batch, or the payloads that a quarantine kept. Out: the same messages, each with the bytes that the
//! contract decodes in its place ([`Forms`]).
//!
//! **Invariant:** if a schema is temporarily unavailable, the batch is read again later. None of its messages goes to the
//! quarantine because of that.

mod reader;

mod registry;

#[cfg(test)]
mod registry_tests;
#[cfg(test)]
mod tests;

pub(super) use reader::{Forms, SchemaReader, Schemas};
