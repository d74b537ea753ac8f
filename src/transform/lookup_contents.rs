//! The contents of a lookup table, and the limits on them.

use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;

use crate::error::Error;

/// The contents of a lookup table.
#[derive(Debug)]
pub(super) struct LoadedLookup {
    pub(super) schema: SchemaRef,
    pub(super) batches: Arc<Vec<RecordBatch>>,
    pub(super) rows: usize,
}

/// The limits on a lookup's size and loading time.
#[derive(Debug, Clone, Copy)]
pub(super) struct LookupLimits {
    /// The maximum number of bytes. This limit applies to the file, and separately to the contents in memory.
    pub(super) bytes_max: usize,
    pub(super) rows_max: usize,
    pub(super) time_max: Duration,
}

impl LookupLimits {
    /// Returns the error for a lookup that exceeds `bytes_max`.
    pub(super) fn too_large(&self) -> Error {
        Error::limited(format!("the lookup has more than {} bytes (limit ingest.lookup_bytes_max)", self.bytes_max))
    }

    /// Returns the error for a lookup that exceeds `rows_max`.
    pub(super) fn too_many_rows(&self) -> Error {
        Error::limited(format!("the lookup has more than {} rows (limit ingest.lookup_rows_max)", self.rows_max))
    }
}
