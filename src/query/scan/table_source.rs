//! The object store and the Parquet reader of a table, which the engine shares among all scans of the table.

use std::sync::Arc;

use datafusion::datasource::physical_plan::ParquetFileReaderFactory;
use datafusion::execution::object_store::ObjectStoreUrl;

/// The location of a table's files, and the reader for them.
#[derive(Clone)]
pub(in crate::query) struct TableSource {
    /// The URL under which the object store is registered.
    pub(in crate::query) store: ObjectStoreUrl,
    /// The reader of Parquet files, which caches their metadata.
    pub(in crate::query) reader: Arc<dyn ParquetFileReaderFactory>,
    /// The number of partitions of a scan.
    pub(in crate::query) partitions: usize,
}
