//! Decodes the file of a lookup, or the result of its query.
//!
//! If columns are declared, the lookup has these columns with their declared types. Otherwise, the lookup has all
//! columns of the file or query, with types inferred from the values. The size of the file, the size in memory and the
//! number of rows are limited.

use std::fs::File;
use std::io::{Cursor, Read as _};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, RecordBatchOptions};
use arrow::csv;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::json;
use bytes::Bytes;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use super::lookup_contents::{LoadedLookup, LookupLimits, QueryableRows};
use super::lookup_fault;
use crate::config::LookupFormat;
use crate::contract::{ColumnKind, InvalidValue, exact_column};
use crate::error::{Error, Result, did_you_mean};

/// The number of rows per record batch.
const BATCH_ROWS: usize = 8_192;

/// Reads and decodes a whole file. The file extension determines the format.
pub(super) fn read(path: &Path, declared: Option<&SchemaRef>, limits: &LookupLimits) -> Result<LoadedLookup> {
    let format = LookupFormat::of(&path.to_string_lossy());
    let format = format.ok_or_else(|| {
        Error::invalid("the file name does not end in a known extension; use .csv, .json or .parquet")
    })?;
    let cannot_read = |error: std::io::Error| Error::unavailable(format!("{} cannot be read: {error}", path.display()));
    let mut body = Vec::new();
    let limit = limits.bytes_max as u64 + 1;
    File::open(path).and_then(|file| file.take(limit).read_to_end(&mut body)).map_err(cannot_read)?;
    if body.len() > limits.bytes_max {
        return Err(limits.too_large());
    }
    decode(body.into(), format, declared, limits).map_err(|error| error.at(path.display()))
}

/// Decodes the bytes of a whole file.
pub(super) fn decode(
    body: Bytes,
    format: LookupFormat,
    declared: Option<&SchemaRef>,
    limits: &LookupLimits,
) -> Result<LoadedLookup> {
    let mut rows = LookupRows::new(declared, *limits);
    match format {
        LookupFormat::Csv => {
            let schema = csv_schema(&body, declared)?;
            let unreadable = |error| lookup_fault::csv_error(&error, Some(&schema));
            let reader = csv::ReaderBuilder::new(Arc::clone(&schema)).with_header(true).with_batch_size(BATCH_ROWS);
            let reader = reader.build(Cursor::new(body)).map_err(unreadable)?;
            reader.into_iter().try_for_each(|batch| rows.push(batch.map_err(unreadable)?))?;
        }
        LookupFormat::Json => {
            let schema = match declared {
                Some(declared) => json_schema(declared),
                None => {
                    let inferred = json::reader::infer_json_schema(Cursor::new(&body), None);
                    Arc::new(plain(&inferred.map_err(|_| lookup_fault::json_error(&body, None))?.0))
                }
            };
            let unreadable = |_| lookup_fault::json_error(&body, Some(&schema));
            // A number in a decimal column is read as text, with all its digits.
            let reader = json::ReaderBuilder::new(Arc::clone(&schema)).with_coerce_primitive(declared.is_some());
            let reader = reader.with_batch_size(BATCH_ROWS).build(Cursor::new(&body)).map_err(unreadable)?;
            reader.into_iter().try_for_each(|batch| rows.push(batch.map_err(unreadable)?))?;
        }
        LookupFormat::Parquet => {
            let cannot_read =
                |error: parquet::errors::ParquetError| Error::invalid(format!("not valid Parquet: {error}"));
            let reader = ParquetRecordBatchReaderBuilder::try_new(body).map_err(cannot_read)?;
            let row_count = usize::try_from(reader.metadata().file_metadata().num_rows()).unwrap_or(usize::MAX);
            if row_count > limits.rows_max {
                return Err(limits.too_many_rows());
            }
            let reader = reader.with_batch_size(BATCH_ROWS).build().map_err(cannot_read)?;
            rows.schema.get_or_insert(arrow::array::RecordBatchReader::schema(&reader));
            for batch in reader {
                let batch = batch.map_err(|error| Error::invalid(format!("not valid Parquet: {error}")))?;
                rows.push(batch)?;
            }
        }
    }
    rows.finish()
}

/// Converts the result of a query to the contents of a lookup.
pub(super) fn from_batches(
    batches: Vec<RecordBatch>,
    declared: Option<&SchemaRef>,
    limits: &LookupLimits,
) -> Result<LoadedLookup> {
    let mut rows = LookupRows::new(declared, *limits);
    batches.into_iter().try_for_each(|batch| rows.push(batch))?;
    rows.finish()
}

/// Collects record batches after casting them to the final schema, and enforces the limits on rows and memory.
struct LookupRows {
    declared: Option<SchemaRef>,
    schema: Option<SchemaRef>,
    batches: Vec<RecordBatch>,
    rows: usize,
    bytes: usize,
    limits: LookupLimits,
}

impl LookupRows {
    fn new(declared: Option<&SchemaRef>, limits: LookupLimits) -> Self {
        let declared = declared.cloned();
        Self { schema: declared.clone(), declared, batches: Vec::new(), rows: 0, bytes: 0, limits }
    }

    fn push(&mut self, batch: RecordBatch) -> Result<()> {
        let batch = match &self.declared {
            Some(declared) => conform(&batch, declared, self.rows)?,
            None => batch,
        };
        self.rows += batch.num_rows();
        self.bytes += batch.get_array_memory_size();
        if self.rows > self.limits.rows_max {
            return Err(self.limits.too_many_rows());
        }
        if self.bytes > self.limits.bytes_max {
            return Err(self.limits.too_large());
        }
        self.schema.get_or_insert_with(|| batch.schema());
        self.batches.push(batch);
        Ok(())
    }

    fn finish(self) -> Result<LoadedLookup> {
        let schema = self.schema.filter(|schema| !schema.fields().is_empty());
        let schema =
            schema.ok_or_else(|| Error::invalid("the lookup is empty and has no declared columns; set `columns`"))?;
        let (batches, queryable) = (Arc::new(self.batches), QueryableRows::None);
        Ok(LoadedLookup { schema, batches, rows: self.rows, queryable })
    }
}

/// Returns the schema of a CSV file: all its columns, in file order. A declared column has its declared type.
fn csv_schema(body: &Bytes, declared: Option<&SchemaRef>) -> Result<SchemaRef> {
    // If no columns are declared, type inference reads all rows, because later values may not fit the types of the
    // first rows.
    let records = declared.map(|_| 0);
    let (inferred, _) = csv::reader::Format::default()
        .with_header(true)
        .infer_schema(Cursor::new(body), records)
        .map_err(|error| lookup_fault::csv_error(&error, None))?;
    let Some(declared) = declared else { return Ok(Arc::new(plain(&inferred))) };
    let fields = inferred.fields().iter().map(|field| {
        let kind = declared.field_with_name(field.name()).map_or(DataType::Utf8, read_type);
        Field::new(field.name(), kind, true)
    });
    Ok(Arc::new(Schema::new(fields.collect::<Vec<_>>())))
}

/// Returns the schema with which a JSON file with declared columns is read.
fn json_schema(declared: &SchemaRef) -> SchemaRef {
    let fields = declared.fields().iter().map(|field| Field::new(field.name(), read_type(field), true));
    Arc::new(Schema::new(fields.collect::<Vec<_>>()))
}

/// Returns the type with which the values of a declared column are read from text. The values of an exact kind are read
/// as text and then cast with the rules of ingest, because the engine's readers would round them, or not check them.
fn read_type(field: &Field) -> DataType {
    match exact_kind(field) {
        Some(ColumnKind::List(_)) => DataType::List(Arc::new(Field::new("element", DataType::Utf8, true))),
        Some(_) => DataType::Utf8,
        None => field.data_type().clone(),
    }
}

/// Returns the kind of a declared column whose values are cast with the rules of ingest.
fn exact_kind(field: &Field) -> Option<ColumnKind> {
    if let Some(kind) = ColumnKind::of_metadata(field) {
        return Some(kind);
    }
    match field.data_type() {
        DataType::Decimal128(precision, scale) => ColumnKind::decimal(*precision, scale.cast_unsigned()),
        DataType::Time64(_) => Some(ColumnKind::Time),
        DataType::List(element) => exact_kind(element).and_then(ColumnKind::list_of),
        _ => None,
    }
}

/// Normalizes inferred types. A column that has only nulls becomes text, and timestamps of any precision become
/// microseconds in UTC.
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

/// Selects the declared columns of a batch, and casts them to their declared types. `rows_before` is the number of rows
/// in the batches before this one.
fn conform(batch: &RecordBatch, declared: &SchemaRef, rows_before: usize) -> Result<RecordBatch> {
    if batch.schema_ref() == declared {
        return Ok(batch.clone());
    }
    let column = |field: &Arc<Field>| -> Result<ArrayRef> {
        let name = field.name();
        let found = batch.column_by_name(name).ok_or_else(|| {
            let guess = did_you_mean(name, batch.schema_ref().fields().iter().map(|field| field.name().as_str()));
            Error::invalid(format!("declared column `{name}` does not exist in the lookup{guess}"))
        })?;
        if let Some(kind) = exact_kind(field) {
            return exact_column(name, kind, found).map_err(|InvalidValue { row, error }| match row {
                Some(row) => error.at(lookup_fault::row_place(rows_before + row)),
                None => error,
            });
        }
        lookup_fault::cast(name, found, field.data_type(), rows_before)
    };
    let columns = declared.fields().iter().map(column).collect::<Result<Vec<_>>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(declared), columns, &options)
        .map_err(|cause| Error::internal("the values of a lookup do not fit its columns").with_source(cause))
}
