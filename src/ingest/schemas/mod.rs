//! Messages that are read by their schemas: those of a registry, or one of a file.
//!
//! ```text
//!   messages ─► reader ─ ids ─► registry (asked once for each) ─► schemas
//!                 ▲                                                  │
//!                 └──────────────────────────────────────────────────┴─► what the contract decodes, or why not
//! ```
//!
//! In: a haul's messages, or what a quarantine kept of them. Out: the same, each with the bytes that are decoded in its place
//! ([`Forms`]).
//!
//! **Invariant:** a schema that cannot be had now sends the batch back to where it came from, never a message to the
//! quarantine.

mod reader;

mod registry;

#[cfg(test)]
mod registry_tests;
#[cfg(test)]
mod tests;

pub(super) use reader::{Forms, SchemaReader, Schemas};
