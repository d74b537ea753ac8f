//! Encodes sorted rows as a Parquet file, row group by row group. The caller takes the encoded bytes after each row
//! group, so a file is never in memory as a whole.
//!
//! ```text
//!   sorted columns ─► write ─► row_group_buffer ─► end_group ─► bytes ─► caller
//!                                                         └─► finish ─► footer, FileSummary
//! ```
//!
//! The caller decides where row groups end. The columns are those of [`stored_schema`]. Text columns may be
//! dictionaries. Whether a leaf is dictionary-encoded is decided for each row group, from its first rows.
//!
//! Only the key columns and the receive time have a column index. The other columns have statistics of the whole row
//! group. The footer contains the key [`LAYOUT_KEY`], which says that this writer has written and checked the file.
//!
//! [`stored_schema`]: crate::lake::parquet_writer::stored_schema

use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::datatypes::SchemaRef;
use bytes::Bytes;
use parquet::arrow::ArrowWriter;
use parquet::arrow::arrow_writer::ArrowRowGroupWriterFactory;
use parquet::basic::{Compression, ZstdLevel};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::SortingColumn;
use parquet::file::metadata::{FileMetaData, KeyValue, ParquetMetaData, ParquetMetaDataBuilder, RowGroupMetaDataPtr};
use parquet::file::properties::{EnabledStatistics, WriterProperties};
use parquet::file::statistics::Statistics;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::types::ColumnPath;

use crate::contract::Contract;
use crate::error::{Error, Result};
use crate::lake::log::stats::{FileBounds, string_bound, time_bound};
use crate::lake::parquet_writer::column_encoder::{set_encoding, unordered_leaves};
use crate::lake::parquet_writer::dictionary_encoder::DictionaryEncoder;
use crate::lake::parquet_writer::parquet_file::{BLOOM_FPP, CREATED_BY};
use crate::lake::parquet_writer::row_group_buffer::RowGroupBuffer;

/// The footer key that says that this writer has written and checked the file.
pub(crate) const LAYOUT_KEY: &str = "glasshouse.layout";
/// The version of the layout.
const LAYOUT: &str = "1";

/// How a file is encoded.
#[derive(Debug, Clone, Copy)]
pub struct FileLayout {
    /// The zstd compression level.
    pub compression_level: i32,
    /// The maximum number of rows per page.
    pub page_rows: usize,
    /// The maximum number of rows per row group, for the size of bloom filters.
    pub row_group_rows_max: usize,
}

/// A file that is being encoded.
pub(crate) struct StreamingFile {
    contract: Arc<Contract>,
    schema: SchemaRef,
    file: SerializedFileWriter<Vec<u8>>,
    factory: ArrowRowGroupWriterFactory,
    encoder: DictionaryEncoder,
    buffer: Option<RowGroupBuffer>,
    bounds: Option<FileBounds>,
    /// The number of bytes that have been taken.
    taken: u64,
    groups: usize,
}

/// The size and the bounds of an encoded file.
#[derive(Debug, Clone)]
pub(crate) struct FileSummary {
    pub(in crate::lake) bounds: FileBounds,
    /// The size in bytes.
    pub(in crate::lake) size: u64,
}

/// The bytes of an encoded row group, and the metadata with which they can be read before the file has a footer.
pub(crate) struct EncodedGroup {
    pub(crate) bytes: Bytes,
    /// The position of `bytes` in the file.
    pub(crate) offset: u64,
    /// Metadata that contains only this row group.
    pub(crate) metadata: Arc<ParquetMetaData>,
}

impl StreamingFile {
    /// Starts a file with the columns of `schema`. Returns `Internal` if the layout is invalid.
    pub(crate) fn new(contract: &Arc<Contract>, schema: &SchemaRef, layout: &FileLayout) -> Result<Self> {
        let failed = |error: ParquetError| internal(contract, error);
        let level = ZstdLevel::try_new(layout.compression_level).map_err(failed)?;
        let properties = properties(contract, schema, layout, level);
        let writer = ArrowWriter::try_new(Vec::new(), Arc::clone(schema), Some(properties)).map_err(failed)?;
        let (file, factory) = writer.into_serialized_writer().map_err(failed)?;
        Ok(Self {
            contract: Arc::clone(contract),
            schema: Arc::clone(schema),
            file,
            factory,
            encoder: DictionaryEncoder::new(level, layout.page_rows).map_err(failed)?,
            buffer: None,
            bounds: None,
            taken: 0,
            groups: 0,
        })
    }

    /// Appends rows to the current row group. The columns must have the types of the schema, except that text may be
    /// dictionary-encoded. The rows must follow the previous rows in the order (tenant, time, id).
    pub(crate) fn write(&mut self, columns: &[ArrayRef]) -> Result<()> {
        self.try_write(columns).map_err(|error| internal(&self.contract, error))
    }

    fn try_write(&mut self, columns: &[ArrayRef]) -> ParquetResult<()> {
        let buffer = match &mut self.buffer {
            Some(buffer) => buffer,
            none => {
                let leaves = self.file.schema_descr().columns().to_vec();
                let writers = self.factory.create_column_writers(self.groups)?;
                let keys = [self.contract.tenant, self.contract.time, self.contract.id];
                none.insert(RowGroupBuffer::new(leaves, writers, keys))
            }
        };
        buffer.write(&self.schema, columns)
    }

    /// Returns the number of rows in the current row group.
    pub(crate) fn group_rows(&self) -> usize {
        self.buffer.as_ref().map_or(0, RowGroupBuffer::rows)
    }

    /// Ends the current row group and returns its bytes. Returns `None` if it has no rows.
    pub(crate) fn end_group(&mut self) -> Result<Option<EncodedGroup>> {
        let Some(buffer) = self.buffer.take() else { return Ok(None) };
        let group = self.try_end_group(buffer).map_err(|error| internal(&self.contract, error))?;
        Ok(Some(group))
    }

    fn try_end_group(&mut self, buffer: RowGroupBuffer) -> ParquetResult<EncodedGroup> {
        let mut group = self.file.next_row_group()?;
        buffer.encode(&self.schema, &mut self.encoder, &mut group)?;
        let metadata = group.close()?;
        self.groups += 1;
        let bounds = group_bounds(&self.contract, &metadata)?;
        self.bounds = Some(match self.bounds.take() {
            Some(before) => union(before, bounds),
            None => bounds,
        });
        let (offset, bytes) = self.take()?;
        Ok(EncodedGroup { bytes, offset, metadata: self.metadata_of(&metadata) })
    }

    /// Returns the metadata of a file that contains only one row group.
    fn metadata_of(&self, group: &RowGroupMetaDataPtr) -> Arc<ParquetMetaData> {
        let schema = group.schema_descr_ptr();
        let file = FileMetaData::new(1, group.num_rows(), None, None, schema, None);
        Arc::new(ParquetMetaDataBuilder::new(file).add_row_group(group.as_ref().clone()).build())
    }

    /// Writes the footer. Returns the last bytes of the file, and its summary. Returns `Internal` if the last row group
    /// has not been ended, or if the file has no rows.
    pub(crate) fn finish(mut self) -> Result<(Bytes, FileSummary)> {
        let unfinished = || internal(&self.contract, "a file was finished before its last row group");
        let bounds = self.bounds.take().filter(|_| self.buffer.is_none()).ok_or_else(unfinished)?;
        let failed = |error: ParquetError| internal(&self.contract, error);
        self.file.finish().map_err(failed)?;
        let (_, bytes) = self.take().map_err(|error| internal(&self.contract, error))?;
        Ok((bytes, FileSummary { bounds, size: self.taken }))
    }

    fn take(&mut self) -> ParquetResult<(u64, Bytes)> {
        self.file.flush()?;
        let bytes = std::mem::take(self.file.inner_mut());
        let offset = self.taken;
        self.taken += bytes.len() as u64;
        Ok((offset, bytes.into()))
    }

    /// Returns the size of the row groups that have been ended, in bytes.
    pub(crate) fn bytes_written(&self) -> u64 {
        self.taken
    }

    /// Returns the memory that the current row group takes, in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.buffer.as_ref().map_or(0, RowGroupBuffer::memory_bytes)
    }
}

fn internal(contract: &Contract, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::internal(format!("table `{}`: cannot encode merged rows", contract.name)).with_source(error)
}

fn properties(contract: &Contract, schema: &SchemaRef, layout: &FileLayout, level: ZstdLevel) -> WriterProperties {
    let keys = [contract.tenant, contract.time, contract.id];
    let sorting = keys.map(|column| SortingColumn {
        // `column_idx` is the index of a leaf column. The key columns are the first columns, and each has one leaf.
        column_idx: column as i32,
        descending: false,
        nulls_first: false,
    });
    let name = |column: usize| ColumnPath::from(schema.field(column).name().as_str());
    let id = name(contract.id);
    let mut builder = WriterProperties::builder()
        .set_created_by(CREATED_BY.to_owned())
        .set_compression(Compression::ZSTD(level))
        .set_max_row_group_row_count(None)
        .set_data_page_row_count_limit(layout.page_rows)
        .set_sorting_columns(Some(sorting.to_vec()))
        .set_key_value_metadata(Some(vec![KeyValue::new(LAYOUT_KEY.to_owned(), LAYOUT.to_owned())]))
        .set_statistics_enabled(EnabledStatistics::Chunk)
        .set_column_dictionary_enabled(id.clone(), false)
        .set_column_bloom_filter_enabled(id.clone(), true)
        .set_column_bloom_filter_fpp(id.clone(), BLOOM_FPP)
        .set_column_bloom_filter_max_ndv(id, layout.row_group_rows_max as u64);
    for column in keys.into_iter().chain([contract.received]) {
        builder = builder.set_column_statistics_enabled(name(column), EnabledStatistics::Page);
    }
    for field in schema.fields() {
        builder = set_encoding(builder, field);
        for leaf in unordered_leaves(field) {
            builder = builder.set_column_statistics_enabled(leaf, EnabledStatistics::None);
        }
    }
    builder.build()
}

/// Returns the bounds of a row group, from the statistics of its columns.
fn group_bounds(contract: &Contract, group: &RowGroupMetaDataPtr) -> ParquetResult<FileBounds> {
    let rows = u64::try_from(group.num_rows()).map_err(|_| ParquetError::General("a negative row count".into()))?;
    let strings = |column: usize| match group.column(column).statistics() {
        Some(Statistics::ByteArray(bounds)) => {
            let (least, most) = (bounds.min_opt()?.as_utf8().ok()?, bounds.max_opt()?.as_utf8().ok()?);
            string_bound(least, most)
        }
        _ => None,
    };
    let times = |column: usize| match group.column(column).statistics() {
        Some(Statistics::Int64(bounds)) => time_bound(*bounds.min_opt()?, *bounds.max_opt()?),
        _ => None,
    };
    Ok(FileBounds {
        rows,
        tenants: strings(contract.tenant),
        times: times(contract.time),
        ids: strings(contract.id),
        received: times(contract.received),
    })
}

/// Returns bounds that include the rows of both.
fn union(one: FileBounds, other: FileBounds) -> FileBounds {
    fn wider<T: Ord>(one: Option<(T, T)>, other: Option<(T, T)>) -> Option<(T, T)> {
        let ((low, high), (other_low, other_high)) = (one?, other?);
        Some((low.min(other_low), high.max(other_high)))
    }
    FileBounds {
        rows: one.rows + other.rows,
        tenants: wider(one.tenants, other.tenants),
        times: wider(one.times, other.times),
        ids: wider(one.ids, other.ids),
        received: wider(one.received, other.received),
    }
}
