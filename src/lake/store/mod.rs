//! The lake's object store: opens a client for `lake.url`.
//!
//! ```text
//!   lake.url ─► client ─┬─► S3 (bounded retries)
//!                       └─► durable_folder (local files, fsync)
//!   bytes ─► upload ─► one object, in parts
//! ```
//!
//! **Invariant:** a put returns only after the object is durable.

pub(super) mod client;
pub(super) mod durable_folder;
#[cfg(test)]
pub(super) mod faulty_store;
pub(super) mod upload;
