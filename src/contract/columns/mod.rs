//! Builders of Arrow columns: values are appended row by row, and the open row can be dropped.
//!
//! ```text
//!   values ─► batch_builder ─► column_builder ─┬─► text_builder ─► dictionary | plain text ─┐
//!                                              └─► map_builder  ────────────────────────────┴─► EventBatch
//!   batches ─► event_batch: concatenate, decode to plain text (dictionary_ops)
//! ```
//!
//! **Invariant:** values of the open row come after all kept values and are truncated when the row is rejected.

pub(super) mod batch_builder;
pub(super) mod column_builder;
pub(super) mod dictionary;
mod dictionary_ops;
#[cfg(test)]
mod dictionary_tests;
pub(super) mod event_batch;
pub(super) mod map_builder;
pub(super) mod padded_slice;
pub(super) mod text_builder;
