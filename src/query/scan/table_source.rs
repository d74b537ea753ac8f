//! The object store and the Parquet reader of a table. All scans of the table share them.

use std::sync::Arc;

use datafusion::datasource::physical_plan::ParquetFileReaderFactory;
use datafusion::execution::object_store::ObjectStoreUrl;

/// The location of a table's files, and the reader for them.
#[derive(Clone)]
pub(in crate::query) struct TableSource {
    /// The URL under which the object store is registered.
    pub(in crate::query) store: ObjectStoreUrl,
    /// The reader for Parquet files, which caches the metadata of files.
    pub(in crate::query) reader: Arc<dyn ParquetFileReaderFactory>,
    /// The number of partitions in each scan.
    pub(in crate::query) partitions: usize,
}
