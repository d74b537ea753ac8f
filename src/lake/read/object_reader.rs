//! Reads some columns of a Parquet object with range requests. Fetches the footer first, and then only the pages of
//! those columns.

use std::ops::Range;
use std::sync::Arc;

use arrow::record_batch::RecordBatch;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::arrow::async_reader::ParquetRecordBatchStream;
use parquet::arrow::{ParquetRecordBatchStreamBuilder, ProjectionMask};
use parquet::errors::{ParquetError, Result};
use parquet::file::metadata::{ParquetMetaData, ParquetMetaDataReader};

/// The number of bytes that the first request fetches from the end of a file. For most files, this range includes the
/// whole footer.
const FOOTER_BYTES: usize = 64 * 1024;
/// The number of rows per batch.
const BATCH_ROWS: usize = 8_192;

/// Reads the top-level columns in `names`, in the order in which the file stores them. Ignores names of columns that
/// the file does not have.
pub(in crate::lake) async fn read_columns(
    objects: &Arc<dyn ObjectStore>,
    path: Path,
    size: u64,
    names: &[&str],
) -> Result<Vec<RecordBatch>> {
    let object = ObjectReader::new(objects, path, size);
    let builder = ParquetRecordBatchStreamBuilder::new_with_options(object, plain_types()).await?;
    let fields = builder.schema().fields().iter().enumerate();
    let wanted = fields.filter(|(_, field)| names.contains(&field.name().as_str())).map(|(column, _)| column);
    let mask = ProjectionMask::roots(builder.parquet_schema(), wanted);
    builder.with_projection(mask).with_batch_size(BATCH_ROWS).build()?.try_collect().await
}

/// Reads the columns that have the dotted names `leaves`, such as `remove.path`, batch by batch. Ignores names of columns
/// that the file does not have.
pub(in crate::lake) async fn stream_leaves(
    objects: &Arc<dyn ObjectStore>,
    path: Path,
    size: u64,
    leaves: &[&str],
) -> Result<ParquetRecordBatchStream<ObjectReader>> {
    let object = ObjectReader::new(objects, path, size);
    let builder = ParquetRecordBatchStreamBuilder::new_with_options(object, plain_types()).await?;
    let columns = builder.parquet_schema().columns().iter().enumerate();
    let wanted = columns.filter(|(_, column)| leaves.contains(&column.path().string().as_str()));
    let mask = ProjectionMask::leaves(builder.parquet_schema(), wanted.map(|(leaf, _)| leaf));
    builder.with_projection(mask).with_batch_size(BATCH_ROWS).build()
}

/// Returns options with which each column is read as the Arrow type that follows from its Parquet type. Other writers
/// may have stored another Arrow type in the file, for example a view of strings.
pub(in crate::lake) fn plain_types() -> ArrowReaderOptions {
    ArrowReaderOptions::new().with_skip_arrow_metadata(true)
}

/// A Parquet reader for one object whose size is known.
pub(in crate::lake) struct ObjectReader {
    objects: Arc<dyn ObjectStore>,
    path: Path,
    size: u64,
}

impl ObjectReader {
    pub(in crate::lake) fn new(objects: &Arc<dyn ObjectStore>, path: Path, size: u64) -> Self {
        Self { objects: Arc::clone(objects), path, size }
    }
}

impl AsyncFileReader for ObjectReader {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>> {
        async move { self.objects.get_range(&self.path, range).await.map_err(external) }.boxed()
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Result<Vec<Bytes>>> {
        async move { self.objects.get_ranges(&self.path, &ranges).await.map_err(external) }.boxed()
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>>> {
        async move {
            let size = self.size;
            let reader =
                ParquetMetaDataReader::new().with_arrow_reader_options(options).with_prefetch_hint(Some(FOOTER_BYTES));
            reader.load_and_finish(self, size).await.map(Arc::new)
        }
        .boxed()
    }
}

fn external(error: object_store::Error) -> ParquetError {
    ParquetError::External(Box::new(error))
}
