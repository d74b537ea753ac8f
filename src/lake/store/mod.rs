//! The object store behind the lake: one URL becomes one client.
//!
//! ```text
//!   lake.url ─► client ─┬─► S3 (bounded retries)
//!                       └─► durable_folder (local files, fsync)
//! ```
//!
//! **Invariant:** a put that returned is durable.

pub(super) mod client;
pub(super) mod durable_folder;
#[cfg(test)]
pub(super) mod faulty_store;
