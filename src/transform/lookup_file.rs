//! Reads a lookup's file or query result into columns.
//!
//! In: bytes in a known format, or batches. Out: the contents of the lookup: its declared columns in their declared types, or
//! all columns in types inferred from the values. Limited in bytes (of the file and in memory) and rows.

use std::fs::File;
use std::io::{Cursor, Read as _};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::compute::{CastOptions, cast_with_options};
use arrow::csv;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;
use arrow::json;
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::lookup::LoadedLookup;
use crate::config::LookupFormat;
use crate::error::{Error, Result, did_you_mean};

/// Rows per batch.
const BATCH_ROWS: usize = 8_192;

/// The limits on a lookup's size and loading time.
#[derive(Debug, Clone, Copy)]
pub(super) struct LookupLimits {
    pub(super) bytes_max: usize,
    pub(super) rows_max: usize,
    pub(super) time_max: Duration,
}

/// Reads a whole file.
pub(super) fn read(path: &Path, declared: Option<&SchemaRef>, bounds: &LookupLimits) -> Result<LoadedLookup> {
    let format = LookupFormat::of(&path.to_string_lossy());
    let format = format
        .ok_or_else(|| Error::invalid("the file name does not end in a known format: use .csv, .json or .parquet"))?;
    let fault = |error: std::io::Error| Error::unavailable(format!("{} cannot be read: {error}", path.display()));
    let mut body = Vec::new();
    let limit = bounds.bytes_max as u64 + 1;
    File::open(path).and_then(|file| file.take(limit).read_to_end(&mut body)).map_err(fault)?;
    if body.len() > bounds.bytes_max {
        return Err(bounds.too_large());
    }
    decode(body.into(), format, declared, bounds)
}

/// Decodes a whole file.
pub(super) fn decode(
    body: Bytes,
    format: LookupFormat,
    declared: Option<&SchemaRef>,
    bounds: &LookupLimits,
) -> Result<LoadedLookup> {
    let mut gathering = LookupRows::new(declared, *bounds);
    match format {
        LookupFormat::Csv => {
            let schema = csv_schema(&body, declared)?;
            let reader = csv::ReaderBuilder::new(schema).with_header(true).with_batch_size(BATCH_ROWS);
            let reader = reader.build(Cursor::new(body)).map_err(|fault| unreadable("CSV", &fault))?;
            reader
                .into_iter()
                .try_for_each(|batch| gathering.take(batch.map_err(|fault| unreadable("CSV", &fault))?))?;
        }
        LookupFormat::Json => {
            let schema = match declared {
                Some(declared) => Arc::clone(declared),
                None => {
                    let inferred = json::reader::infer_json_schema(Cursor::new(&body), None);
                    Arc::new(plain(&inferred.map_err(|fault| unreadable("JSON", &fault))?.0))
                }
            };
            let reader = json::ReaderBuilder::new(schema).with_batch_size(BATCH_ROWS).build(Cursor::new(body));
            let reader = reader.map_err(|fault| unreadable("JSON", &fault))?;
            reader
                .into_iter()
                .try_for_each(|batch| gathering.take(batch.map_err(|fault| unreadable("JSON", &fault))?))?;
        }
        LookupFormat::Parquet => {
            let fault = |error: parquet::errors::ParquetError| Error::invalid(format!("not valid Parquet: {error}"));
            let reader = ParquetRecordBatchReaderBuilder::try_new(body).map_err(fault)?;
            let rows = usize::try_from(reader.metadata().file_metadata().num_rows()).unwrap_or(usize::MAX);
            if rows > bounds.rows_max {
                return Err(bounds.too_many());
            }
            let reader = reader.with_batch_size(BATCH_ROWS).build().map_err(fault)?;
            gathering.schema.get_or_insert(arrow::array::RecordBatchReader::schema(&reader));
            for batch in reader {
                gathering.take(batch.map_err(|fault| unreadable("Parquet", &fault))?)?;
            }
        }
    }
    gathering.finish()
}

/// Reads the result of a query.
pub(super) fn gather(
    batches: Vec<RecordBatch>,
    declared: Option<&SchemaRef>,
    bounds: &LookupLimits,
) -> Result<LoadedLookup> {
    let mut gathering = LookupRows::new(declared, *bounds);
    batches.into_iter().try_for_each(|batch| gathering.take(batch))?;
    gathering.finish()
}

/// Batches in their final schema, and their size.
struct LookupRows {
    declared: Option<SchemaRef>,
    schema: Option<SchemaRef>,
    batches: Vec<RecordBatch>,
    rows: usize,
    bytes: usize,
    bounds: LookupLimits,
}

impl LookupRows {
    fn new(declared: Option<&SchemaRef>, bounds: LookupLimits) -> Self {
        let declared = declared.cloned();
        Self { schema: declared.clone(), declared, batches: Vec::new(), rows: 0, bytes: 0, bounds }
    }

    fn take(&mut self, batch: RecordBatch) -> Result<()> {
        let batch = match &self.declared {
            Some(declared) => conform(&batch, declared)?,
            None => batch,
        };
        self.rows += batch.num_rows();
        self.bytes += batch.get_array_memory_size();
        if self.rows > self.bounds.rows_max {
            return Err(self.bounds.too_many());
        }
        if self.bytes > self.bounds.bytes_max {
            return Err(self.bounds.too_large());
        }
        self.schema.get_or_insert_with(|| batch.schema());
        self.batches.push(batch);
        Ok(())
    }

    fn finish(self) -> Result<LoadedLookup> {
        let schema = self.schema.filter(|schema| !schema.fields().is_empty());
        let schema =
            schema.ok_or_else(|| Error::invalid("the lookup is empty and has no declared columns: set `columns`"))?;
        Ok(LoadedLookup { schema, batches: Arc::new(self.batches), rows: self.rows })
    }
}

impl LookupLimits {
    fn too_large(&self) -> Error {
        Error::limited(format!("the lookup has more than {} bytes (limit ingest.lookup_bytes_max)", self.bytes_max))
    }

    fn too_many(&self) -> Error {
        Error::limited(format!("the lookup has more than {} rows (limit ingest.lookup_rows_max)", self.rows_max))
    }
}

/// All columns of a CSV file, in file order. A declared column has its declared type.
fn csv_schema(body: &Bytes, declared: Option<&SchemaRef>) -> Result<SchemaRef> {
    // Without declared types, all values are read for inference: a type must not depend on the first rows only.
    let records = declared.map(|_| 0);
    let (inferred, _) = csv::reader::Format::default()
        .with_header(true)
        .infer_schema(Cursor::new(body), records)
        .map_err(|fault| unreadable("CSV", &fault))?;
    let Some(declared) = declared else { return Ok(Arc::new(plain(&inferred))) };
    let fields = inferred.fields().iter().map(|field| {
        let kind = declared.field_with_name(field.name()).map_or(DataType::Utf8, |field| field.data_type().clone());
        Field::new(field.name(), kind, true)
    });
    Ok(Arc::new(Schema::new(fields.collect::<Vec<_>>())))
}

/// Normalizes inferred types: a column without values is text, and times are microseconds UTC whatever their precision.
fn plain(inferred: &Schema) -> Schema {
    let fields = inferred.fields().iter().map(|field| {
        let kind = match field.data_type() {
            DataType::Null => DataType::Utf8,
            DataType::Timestamp(..) => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
            kind => kind.clone(),
        };
        Field::new(field.name(), kind, true)
    });
    Schema::new(fields.collect::<Vec<_>>())
}

/// The declared columns of a batch, cast to their types.
fn conform(batch: &RecordBatch, declared: &SchemaRef) -> Result<RecordBatch> {
    if batch.schema_ref() == declared {
        return Ok(batch.clone());
    }
    let exact = CastOptions { safe: false, ..CastOptions::default() };
    let column = |field: &Arc<Field>| -> Result<ArrayRef> {
        let name = field.name();
        let given = batch.column_by_name(name).ok_or_else(|| {
            let near = did_you_mean(name, batch.schema_ref().fields().iter().map(|field| field.name().as_str()));
            Error::invalid(format!("the lookup has no column `{name}`, which is declared{near}"))
        })?;
        cast_with_options(given, field.data_type(), &exact)
            .map_err(|fault| Error::invalid(format!("column `{name}`: {fault}")))
    };
    let columns = declared.fields().iter().map(column).collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(declared), columns, &options)
        .map_err(|cause| Error::internal("a lookup does not fit its columns").with_source(cause))
}

fn unreadable(what: &str, fault: &ArrowError) -> Error {
    Error::invalid(format!("not valid {what}: {fault}"))
}
