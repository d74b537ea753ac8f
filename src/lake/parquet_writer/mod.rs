//! Encodes rows as Parquet files: sorts them, splits them by UTC day, and encodes each day's rows.
//!
//! ```text
//!   batches ─► sort (tenant, time, id; by day) ─► take ─► parquet_file ─► bytes + stats
//!                                                             ▲
//!                                        dictionary_encoder ──┘   columns that are already dictionaries
//! ```
//!
//! **Invariant:** a file holds rows of one UTC day in the order (tenant, time, id).

pub(super) mod dictionary_encoder;
#[cfg(test)]
mod dictionary_encoder_tests;
pub(super) mod parquet_file;
pub(super) mod sort;
pub(super) mod take;
