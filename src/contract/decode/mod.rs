//! Decoders. They turn the bytes of a request or message into checked rows, or into rejects with reasons.
//!
//! ```text
//!   bytes ─► json (cursor) | protobuf ─► column_value (decimal, time, json_text) ─► accept_or_reject (check) ─┐
//!   bytes ─► ipc ─► arrow_batch ─► cast ─► check ─────────────────────────────────────────────────────────────┴─► rows of the batch | Reject
//! ```
//!
//! **Invariant:** decoding uses neither a clock nor I/O.
//! **Invariant:** an event that cannot be decoded does not affect other events. The event's bytes are returned in a
//! `Reject`.

pub(super) mod accept_or_reject;
pub(super) mod arrow_batch;
mod arrow_expansion;
#[cfg(test)]
mod arrow_tests;
#[cfg(test)]
mod body_tests;
pub(super) mod cast;
pub(super) mod column_value;
pub(super) mod cursor;
mod decimal;
pub(super) mod ipc;
pub(super) mod json;
mod json_columns;
pub(super) mod json_text;
pub(super) mod key_columns;
#[cfg(test)]
mod kind_tests;
#[cfg(test)]
mod message_tests;
pub(super) mod protobuf;
mod protobuf_wire;
pub(super) mod reject_reason;
#[cfg(test)]
mod retention_tests;
pub(super) mod time;
