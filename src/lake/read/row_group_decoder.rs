//! Decodes single row groups of a Parquet file to the columns of a table. Merges read files with it.
//!
//! ```text
//!   footer ─► RowGroupDecoder ─┐
//!   bytes of one row group ────┴─► RowGroupRows ─► columns in the table's schema
//! ```
//!
//! Any Delta writer may have written the file. A column that the file lacks is null. A column of another type is cast
//! if no value changes. Otherwise, decoding fails. Text that the file stores as a dictionary stays a dictionary.
//!
//! **Invariant:** a row is decoded completely, or decoding fails. A file with a column that the table does not have is
//! refused, because its values would be lost.

use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, new_null_array};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::datatypes::{DataType, Field, Schema, SchemaRef};
use bytes::{Buf as _, Bytes};
use parquet::arrow::ProjectionMask;
use parquet::arrow::arrow_reader::{
    ArrowReaderMetadata, ArrowReaderOptions, ParquetRecordBatchReader, ParquetRecordBatchReaderBuilder,
};
use parquet::basic::{Encoding, PageType, Type as PhysicalType};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData};
use parquet::file::reader::{ChunkReader, Length};

use crate::contract::{EVENT_DATE, plain_column};
use crate::error::{Error, Result};

/// Decodes the row groups of one file.
#[derive(Debug, Clone)]
pub(crate) struct RowGroupDecoder {
    metadata: Arc<ParquetMetaData>,
    /// The types that the file itself declares.
    inferred: SchemaRef,
    /// The columns of the table that are decoded.
    fields: Vec<Arc<Field>>,
    /// For each element of `fields`, the index of the file's column, or `None` if the file does not have it.
    roots: Vec<Option<usize>>,
}

/// The bytes of a file from position `offset`.
#[derive(Debug, Clone)]
pub(crate) struct FileBytes {
    pub(crate) offset: u64,
    pub(crate) bytes: Bytes,
}

/// The rows of one row group, in batches.
pub(crate) struct RowGroupRows {
    reader: ParquetRecordBatchReader,
    first: Option<Vec<ArrayRef>>,
    fields: Vec<Arc<Field>>,
    /// For each field, its position in the reader's batches.
    positions: Vec<Option<usize>>,
}

impl RowGroupDecoder {
    /// Decodes the columns of `schema` at these indexes. Returns `Unsupported` if the table has no such column, or if a
    /// column of the file cannot be cast to the table's type.
    pub(crate) fn new(metadata: &Arc<ParquetMetaData>, schema: &SchemaRef, columns: &[usize]) -> Result<Self> {
        let options = ArrowReaderOptions::new().with_skip_arrow_metadata(true);
        let inferred = ArrowReaderMetadata::try_new(Arc::clone(metadata), options)
            .map_err(|error| Error::unsupported("its schema cannot be read").with_source(error))?;
        let inferred = Arc::clone(inferred.schema());
        let unknown = inferred.fields().iter().find(|field| {
            field.name() != EVENT_DATE && !schema.fields().iter().any(|known| known.name() == field.name())
        });
        if let Some(unknown) = unknown {
            return Err(Error::unsupported(format!(
                "it has a column `{}` that the table does not have",
                unknown.name()
            )));
        }
        let fields: Vec<Arc<Field>> = columns.iter().map(|column| Arc::clone(&schema.fields()[*column])).collect();
        let mut roots = Vec::with_capacity(fields.len());
        for field in &fields {
            let root = inferred.fields().iter().position(|given| given.name() == field.name());
            match root {
                Some(root) => check_type(&inferred.fields()[root], field)?,
                None if field.is_nullable() => {}
                None => return Err(Error::unsupported(format!("it has no column `{}`", field.name()))),
            }
            roots.push(root);
        }
        Ok(Self { metadata: Arc::clone(metadata), inferred, fields, roots })
    }

    pub(crate) fn metadata(&self) -> &Arc<ParquetMetaData> {
        &self.metadata
    }

    /// Returns the number of row groups.
    pub(crate) fn groups(&self) -> usize {
        self.metadata.num_row_groups()
    }

    /// Returns the number of rows in a row group.
    pub(crate) fn rows(&self, group: usize) -> u64 {
        u64::try_from(self.metadata.row_group(group).num_rows()).unwrap_or(0)
    }

    /// Returns the position of a row group's bytes in the file.
    pub(crate) fn bytes(&self, group: usize) -> Range<u64> {
        let ranges = self.metadata.row_group(group).columns().iter().map(ColumnChunkMetaData::byte_range);
        let (start, end) = ranges.fold((u64::MAX, 0), |(start, end), (from, length)| {
            (start.min(from), end.max(from.saturating_add(length)))
        });
        start.min(end)..end
    }

    /// Returns an estimate of the memory that one decoded row takes, in bytes.
    pub(crate) fn row_bytes(&self, group: usize) -> u64 {
        let chunks = self.metadata.row_group(group).columns().iter();
        let bytes = |chunk: &ColumnChunkMetaData| match is_dictionary(chunk) {
            true => 2 * u64::try_from(chunk.num_values()).unwrap_or(0),
            false => {
                let text = chunk.unencoded_byte_array_data_bytes().unwrap_or(0).max(chunk.uncompressed_size());
                // Fixed-size values may be packed into fewer bits than they take when they are decoded.
                u64::try_from(text).unwrap_or(0) + 8 * u64::try_from(chunk.num_values()).unwrap_or(0)
            }
        };
        let total: u64 = chunks.map(bytes).sum();
        total.div_ceil(self.rows(group).max(1))
    }

    /// Decodes a row group in batches of at most `batch_rows` rows. `bytes` must include the row group. Returns
    /// `Unsupported` if the bytes are corrupt, or if a value does not fit the table.
    pub(crate) fn decode(&self, group: usize, bytes: FileBytes, batch_rows: usize) -> Result<RowGroupRows> {
        let hinted = self.open(group, bytes.clone(), batch_rows, true).and_then(RowGroupRows::with_first);
        match hinted {
            Ok(rows) => Ok(rows),
            // A dictionary may have too many values for our dictionary type.
            Err(_) => self.open(group, bytes, batch_rows, false).and_then(RowGroupRows::with_first),
        }
    }

    fn open(&self, group: usize, bytes: FileBytes, batch_rows: usize, dictionaries: bool) -> Result<RowGroupRows> {
        self.try_open(group, bytes, batch_rows, dictionaries).map_err(unreadable)
    }

    fn try_open(
        &self,
        group: usize,
        bytes: FileBytes,
        batch_rows: usize,
        dictionaries: bool,
    ) -> ParquetResult<RowGroupRows> {
        let descriptor = self.metadata.file_metadata().schema_descr();
        let columns = self.metadata.row_group(group).columns();
        let fields = self.inferred.fields().iter().enumerate().map(|(root, field)| {
            let leaves: Vec<usize> =
                (0..columns.len()).filter(|leaf| descriptor.get_column_root_idx(*leaf) == root).collect();
            let is_dictionary = |leaf: usize| dictionaries && is_dictionary(&columns[leaf]);
            let kind = match (field.data_type(), &leaves[..]) {
                (DataType::Utf8, [leaf]) if is_dictionary(*leaf) => dictionary_type(),
                (DataType::Map(entries, ordered), [key, value]) => {
                    map_type(entries, *ordered, [is_dictionary(*key), is_dictionary(*value)])
                }
                (kind, [leaf]) if columns[*leaf].column_type() == PhysicalType::INT96 => self.int96_type(root, kind),
                (kind, _) => kind.clone(),
            };
            Arc::new(field.as_ref().clone().with_data_type(kind))
        });
        let schema = Schema::new_with_metadata(fields.collect::<Vec<_>>(), self.inferred.metadata().clone());
        let options = ArrowReaderOptions::new().with_schema(Arc::new(schema));
        let metadata = ArrowReaderMetadata::try_new(Arc::clone(&self.metadata), options)?;
        let mut roots: Vec<usize> = self.roots.iter().flatten().copied().collect();
        roots.sort_unstable();
        let reader = ParquetRecordBatchReaderBuilder::new_with_metadata(bytes, metadata)
            .with_row_groups(vec![group])
            .with_projection(ProjectionMask::roots(descriptor, roots.iter().copied()))
            .with_batch_size(batch_rows)
            .build()?;
        let positions = self.roots.iter().map(|root| roots.iter().position(|other| Some(*other) == *root)).collect();
        Ok(RowGroupRows { reader, first: None, fields: self.fields.clone(), positions })
    }

    /// Returns the type as which a column of 96-bit times is read. Such times have nanoseconds, which Delta does not.
    fn int96_type(&self, root: usize, kind: &DataType) -> DataType {
        let column = self.roots.iter().position(|other| *other == Some(root));
        match column.map(|column| self.fields[column].data_type()) {
            Some(wanted @ DataType::Timestamp(..)) => wanted.clone(),
            _ => kind.clone(),
        }
    }
}

impl RowGroupRows {
    /// Decodes the first batch, which also decodes the dictionaries.
    fn with_first(mut self) -> Result<Self> {
        self.first = self.next_batch()?;
        Ok(self)
    }

    /// Returns the columns of the next batch, or `None` at the end of the row group.
    pub(crate) fn next_batch(&mut self) -> Result<Option<Vec<ArrayRef>>> {
        if let Some(first) = self.first.take() {
            return Ok(Some(first));
        }
        let Some(batch) = self.reader.next() else { return Ok(None) };
        let batch = batch.map_err(unreadable)?;
        let columns = self.fields.iter().zip(&self.positions).map(|(field, position)| match position {
            Some(position) => convert(field, batch.column(*position)),
            None => Ok(new_null_array(field.data_type(), batch.num_rows())),
        });
        Ok(Some(columns.collect::<Result<_>>()?))
    }
}

fn unreadable(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::unsupported("a row group cannot be decoded: the file may be corrupt").with_source(error)
}

impl Length for FileBytes {
    fn len(&self) -> u64 {
        self.offset + self.bytes.len() as u64
    }
}

impl ChunkReader for FileBytes {
    type T = bytes::buf::Reader<Bytes>;

    fn get_read(&self, start: u64) -> ParquetResult<Self::T> {
        let start = self.index(start)?;
        Ok(self.bytes.slice(start..).reader())
    }

    fn get_bytes(&self, start: u64, length: usize) -> ParquetResult<Bytes> {
        let start = self.index(start)?;
        let end = start.checked_add(length).filter(|end| *end <= self.bytes.len());
        let end = end.ok_or_else(|| ParquetError::EOF("a column chunk ends after its row group".into()))?;
        Ok(self.bytes.slice(start..end))
    }
}

impl FileBytes {
    fn index(&self, position: u64) -> ParquetResult<usize> {
        let index = position.checked_sub(self.offset).and_then(|index| usize::try_from(index).ok());
        let index = index.filter(|index| *index <= self.bytes.len());
        index.ok_or_else(|| ParquetError::EOF(format!("position {position} is not in the row group")))
    }
}

/// Returns true if all data pages of a column chunk of text contain indexes into a dictionary.
fn is_dictionary(chunk: &ColumnChunkMetaData) -> bool {
    let indexes = [Encoding::RLE_DICTIONARY, Encoding::PLAIN_DICTIONARY];
    let has_dictionary = chunk.column_type() == PhysicalType::BYTE_ARRAY && chunk.dictionary_page_offset().is_some();
    // Depending on where the metadata comes from, it lists the encodings of data pages or all pages.
    let by_mask = chunk.page_encoding_stats_mask().map(|pages| indexes.iter().any(|index| pages.is_only(*index)));
    let by_page = chunk.page_encoding_stats().map(|pages| {
        let mut data = pages.iter().filter(|page| page.page_type != PageType::DICTIONARY_PAGE && page.count > 0);
        data.all(|page| indexes.contains(&page.encoding))
    });
    has_dictionary && by_mask.or(by_page).unwrap_or(false)
}

fn dictionary_type() -> DataType {
    DataType::Dictionary(Box::new(DataType::UInt16), Box::new(DataType::Utf8))
}

/// Returns the type of a map whose text keys or values are dictionaries.
fn map_type(entries: &Arc<Field>, ordered: bool, dictionaries: [bool; 2]) -> DataType {
    let DataType::Struct(fields) = entries.data_type() else { return DataType::Map(Arc::clone(entries), ordered) };
    let fields = fields.iter().zip(dictionaries).map(|(field, is_dictionary)| match field.data_type() {
        DataType::Utf8 if is_dictionary => Arc::new(field.as_ref().clone().with_data_type(dictionary_type())),
        _ => Arc::clone(field),
    });
    let entries = entries.as_ref().clone().with_data_type(DataType::Struct(fields.collect()));
    DataType::Map(Arc::new(entries), ordered)
}

/// Checks that values of the file's type can be cast to the table's type.
fn check_type(given: &Field, wanted: &Field) -> Result<()> {
    if is_castable(given.data_type(), wanted.data_type()) {
        return Ok(());
    }
    Err(Error::unsupported(format!(
        "its column `{}` is of type {}, but the table has {}",
        wanted.name(),
        given.data_type(),
        wanted.data_type()
    )))
}

fn is_castable(given: &DataType, wanted: &DataType) -> bool {
    use DataType::{Binary, Decimal128, Float32, Float64, List, Map, Struct, Timestamp, Utf8};
    match (given, wanted) {
        (given, wanted) if given == wanted => true,
        (given, wanted) if given.is_integer() && wanted.is_integer() => true,
        (Float32 | Float64, Float64 | Float32) | (Decimal128(..), Decimal128(..)) | (Timestamp(..), Timestamp(..)) => {
            true
        }
        (Binary, Utf8) => true,
        (List(given), List(wanted)) => is_castable(given.data_type(), wanted.data_type()),
        (Map(given, _), Map(wanted, _)) => is_castable(given.data_type(), wanted.data_type()),
        (Struct(given), Struct(wanted)) => {
            given.len() == wanted.len()
                && given.iter().zip(wanted).all(|(given, wanted)| is_castable(given.data_type(), wanted.data_type()))
        }
        _ => false,
    }
}

/// Casts a column to the table's type. Fails if a value would change, or if it is null and must not be.
fn convert(field: &Field, values: &ArrayRef) -> Result<ArrayRef> {
    let refuse = |why: &str| Error::unsupported(format!("its column `{}` {why}", field.name()));
    if !field.is_nullable() && values.null_count() > 0 {
        return Err(refuse("has a null, but the table does not allow nulls in it"));
    }
    let kind = values.data_type();
    if kind == field.data_type() || *kind == dictionary_type() && *field.data_type() == DataType::Utf8 {
        return Ok(Arc::clone(values));
    }
    if let (DataType::Map(given, _), DataType::Map(wanted, _)) = (kind, field.data_type())
        && is_same_map(given, wanted)
    {
        return Ok(Arc::clone(values));
    }
    let plain = plain_column(values).map_err(unreadable)?;
    let options = CastOptions { safe: false, ..CastOptions::default() };
    let cast = |values: &ArrayRef, kind: &DataType| {
        cast_with_options(values, kind, &options)
            .map_err(|error| refuse(&format!("has a value that is not a {}", field.data_type())).with_source(error))
    };
    let converted = cast(&plain, field.data_type())?;
    match cast(&converted, plain.data_type())? == plain {
        true => Ok(converted),
        false => Err(refuse(&format!("has a value that would change as a {}", field.data_type()))),
    }
}

/// Returns true if two maps differ only in the dictionary encoding of their text.
fn is_same_map(given: &Field, wanted: &Field) -> bool {
    let (DataType::Struct(fields), DataType::Struct(others)) = (given.data_type(), wanted.data_type()) else {
        return false;
    };
    let is_same = |(given, wanted): (&Arc<Field>, &Arc<Field>)| {
        let kind = given.data_type();
        given.name() == wanted.name()
            && (kind == wanted.data_type() || *kind == dictionary_type() && *wanted.data_type() == DataType::Utf8)
    };
    given.name() == wanted.name() && fields.len() == others.len() && fields.iter().zip(others).all(is_same)
}
