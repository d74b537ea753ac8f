//! Encodes rows as Parquet files. Rows of ingest are sorted, split by UTC day, and encoded in memory. Rows of merged
//! files are already sorted, and are encoded row group by row group.
//!
//! ```text
//!   batches ─► sort (tenant, time, id; by day) ─► take ─► parquet_file ─┬─► column_encoder ─► bytes + stats
//!                                                                       │         ▲
//!   sorted batches of merged files ─► streaming_file ───────────────────┘   dictionary_encoder
//!                                          ▲
//!                          stored_schema ──┘   all columns of the table
//! ```
//!
//! **Invariant:** a file holds rows of one UTC day in the order (tenant, time, id).

pub(super) mod column_encoder;
pub(super) mod dictionary_encoder;
#[cfg(test)]
mod dictionary_encoder_tests;
pub(super) mod parquet_file;
pub(super) mod row_group_buffer;
pub(super) mod sort;
pub(super) mod stored_schema;
pub(super) mod streaming_file;
pub(super) mod take;
