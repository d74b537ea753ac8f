//! Decoders: the bytes of a request or message become checked rows, or rejects with reasons.
//!
//! ```text
//!   bytes ─► json (cursor) | protobuf ─► value ─┐
//!   bytes ─► ipc ─► arrow_batch ─► cast ────────┴─► check ─► acceptor ─► rows of the batch builder | Reject
//! ```
//!
//! **Invariant:** decoding is pure: no clock, no IO.
//! **Invariant:** one bad event never affects the others; an event that cannot be decoded becomes a `Reject` with its
//! bytes.

pub(super) mod acceptor;
pub(super) mod arrow_batch;
#[cfg(test)]
mod arrow_tests;
#[cfg(test)]
mod body_tests;
pub(super) mod cast;
pub(super) mod check;
pub(super) mod cursor;
pub(super) mod ipc;
pub(super) mod json;
pub(super) mod protobuf;
pub(super) mod reject;
pub(super) mod time;
pub(super) mod value;
