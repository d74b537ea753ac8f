//! Rows to Parquet: sorted, encoded per column, with statistics, page index and bloom filters.

/// How files are written.
#[derive(Debug, Clone)]
pub struct WriteOptions {
    /// zstd level.
    pub compression_level: i32,
    /// Rows of a row group.
    pub row_group_rows_max: usize,
}
