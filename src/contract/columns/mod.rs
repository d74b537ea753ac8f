//! Builders of Arrow columns. Values are appended row by row. The row that is being written, called the *current* row,
//! can be dropped.
//!
//! ```text
//!   values ─► batch_builder ─► column_builder ─┬─► text_builder ─► dictionary | plain strings ─┐
//!                                              ├─► list_offsets, and a builder of the elements ┤
//!                                              └─► map_builder  ───────────────────────────────┴─► EventBatch
//!   batches ─► event_batch: concatenate, decode to plain strings (dictionary_ops)
//! ```
//!
//! **Invariant:** the values of the current row follow the values of all kept rows. When the row is dropped, the
//! buffers are truncated to remove its values.

pub(super) mod batch_builder;
pub(super) mod column_builder;
pub(super) mod dictionary;
pub(super) mod dictionary_ops;
#[cfg(test)]
mod dictionary_tests;
pub(super) mod event_batch;
pub(super) mod list_offsets;
pub(super) mod map_builder;
pub(super) mod padded_slice;
pub(super) mod text_builder;
