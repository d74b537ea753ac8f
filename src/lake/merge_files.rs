//! Opens the files that a merge reads, and stores the files that it writes. The merge itself is in `maintenance`.
//!
//! **Invariant:** a file is stored under a new name, and is not visible before it is committed.

use std::ops::Range;
use std::sync::Arc;

use arrow::datatypes::SchemaRef;
use object_store::ObjectStoreExt as _;
use parquet::arrow::async_reader::AsyncFileReader as _;
use parquet::errors::ParquetError;
use uuid::Uuid;

use crate::contract::EVENT_DATE;
use crate::error::{Error, Result};
use crate::lake::log::table_state;
use crate::lake::parquet_writer::stored_schema::stored_schema;
use crate::lake::parquet_writer::streaming_file::FileSummary;
use crate::lake::read::object_reader::ObjectReader;
use crate::lake::read::row_group_decoder::{FileBytes, RowGroupDecoder};
use crate::lake::store::upload::FileUpload;
use crate::lake::{DataFile, Table};
use crate::supervise::catch;

/// An open file whose footer has been read.
#[derive(Debug)]
pub(crate) struct MergeInput {
    pub(crate) file: Arc<DataFile>,
    pub(crate) decoder: RowGroupDecoder,
}

impl Table {
    /// Returns the schema of merged files: all columns of the table, including those that the contract has dropped.
    pub(crate) fn stored_schema(&self) -> Result<SchemaRef> {
        stored_schema(&self.contract, &self.state().metadata.schema_string)
    }

    /// Reads a file's footer. Returns `Unavailable` if the file cannot be read. Returns `Unsupported` if its footer is
    /// corrupt, if its columns do not fit the table, or if its row count differs from the log.
    pub(crate) async fn open_input(&self, schema: &SchemaRef, file: &Arc<DataFile>) -> Result<MergeInput> {
        let mut reader = ObjectReader::new(&self.location().0.objects, self.file_path(file), file.size);
        let metadata = reader.get_metadata(None).await;
        let metadata = metadata.map_err(|error| match error {
            ParquetError::External(_) => Error::unavailable("its footer cannot be read").with_source(error),
            _ => Error::unsupported("its footer is corrupt").with_source(error),
        })?;
        let columns: Vec<usize> = (0..schema.fields().len()).collect();
        let checked = catch(|| {
            let decoder = RowGroupDecoder::new(&metadata, schema, &columns)?;
            let groups = 0..decoder.groups();
            let rows: u64 = groups.clone().map(|group| decoder.rows(group)).sum();
            if rows != file.rows {
                return Err(Error::unsupported(format!(
                    "it has {rows} rows, but the log says {}: rewrite it with correct statistics",
                    file.rows
                )));
            }
            match groups.map(|group| decoder.bytes(group)).find(|bytes| bytes.end > file.size) {
                Some(_) => Err(Error::unsupported("a row group ends after the end of the file")),
                None => Ok(decoder),
            }
        });
        let decoder = checked.map_err(|panic| Error::unsupported("its footer is corrupt").with_source(panic))??;
        Ok(MergeInput { file: Arc::clone(file), decoder })
    }

    /// Reads the bytes of a row group, which are a range of the file.
    pub(crate) async fn row_group(&self, file: &DataFile, range: Range<u64>) -> Result<FileBytes> {
        let path = self.file_path(file);
        let offset = range.start;
        let bytes = self.location().0.objects.get_range(&path, range).await;
        let bytes = bytes.map_err(|error| Error::unavailable("a row group cannot be read").with_source(error))?;
        Ok(FileBytes { offset, bytes })
    }

    /// Starts to store a file of this level and range. Returns the upload and the file's path relative to the table.
    pub(crate) fn start_file(&self, day: i32, level: u8, range: usize) -> Result<(FileUpload, Arc<str>)> {
        let folder = table_state::day_text(day)?;
        let name: Arc<str> =
            format!("{EVENT_DATE}={folder}/part-{level}-{range}-{}.zstd.parquet", Uuid::now_v7()).into();
        self.ages.start(&name);
        Ok((FileUpload::new(&self.location().0.objects, self.path_of(&name)), name))
    }

    /// Returns a file that has been stored, for a commit.
    pub(crate) fn stored_file(&self, path: &Arc<str>, day: i32, summary: &FileSummary) -> DataFile {
        let bounds = summary.bounds.clone();
        DataFile {
            path: Arc::clone(path),
            size: summary.size,
            rows: bounds.rows,
            day,
            tenants: bounds.tenants,
            times: bounds.times,
            ids: bounds.ids,
            received: bounds.received,
            modified: self.now_ms(),
        }
    }
}
