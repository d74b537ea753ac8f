//! Prepares the contents of a lookup table for queries.
//!
//! ```text
//!   loaded batches ─► types and values that tables can have ─┬─ shared: queries and transforms share the batches
//!                                                            └─ tenant: the rows of each tenant are copied
//! ```
//!
//! The rows of a tenant are copied into arrays of their own. A slice of a shared array would not be enough: the engine
//! may evaluate an expression on all values of a list array, not only on those of the slice, and it would count the
//! whole array against the memory limit of a query.
//!
//! **Invariant:** an array that [`QueryableRows::ByTenant`] contains for a tenant holds no values of other tenants.
//! **Invariant:** a row whose tenant is null or empty belongs to no tenant.
//! **Invariant:** the columns have types that the SQL dialect is tested with. As in a table, a floating-point column
//! contains neither NaN nor infinity.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use arrow::array::types::{Float32Type, Float64Type};
use arrow::array::{Array as _, ArrayRef, AsArray as _, RecordBatch, RecordBatchOptions};
use arrow::compute::interleave_record_batch;
use arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};
use arrow::error::ArrowError;

use super::lookup_contents::{LoadedLookup, LookupLimits, QueryableRows};
use super::lookup_fault;
use crate::config::LookupConfig;
use crate::error::{Error, Result};

/// The maximum number of rows per record batch of a tenant.
const BATCH_ROWS: usize = 8_192;

/// The position of a row: the index of its batch, and its index in the batch.
type RowIndex = (usize, usize);

/// Prepares `loaded` for queries if `config` permits queries. Fails with `Invalid` if a column has a type or a value
/// that a table cannot have, and with `Limited` if the copies of the tenants' rows are too large.
pub(super) fn prepare(loaded: LoadedLookup, config: &LookupConfig, limits: &LookupLimits) -> Result<LoadedLookup> {
    if !config.is_queryable() {
        return Ok(loaded);
    }
    let schema = queryable_schema(&loaded.schema, !config.columns.is_empty())?;
    let mut rows_before = 0;
    let batches = loaded.batches.iter().map(|batch| {
        let converted = converted(batch, &schema, rows_before);
        rows_before += batch.num_rows();
        converted
    });
    let batches = batches.collect::<Result<Vec<_>>>()?;
    let queryable = match &config.tenant {
        Some(tenant) => QueryableRows::ByTenant(by_tenant(&batches, tenant, limits)?),
        None => QueryableRows::All,
    };
    Ok(LoadedLookup { schema, batches: Arc::new(batches), rows: loaded.rows, queryable })
}

/// Returns the columns as queries see them: with types that the SQL dialect supports, nullable, and without metadata.
/// Declared columns already have the types of table columns.
fn queryable_schema(loaded: &Schema, is_declared: bool) -> Result<SchemaRef> {
    let mut names = BTreeSet::new();
    let fields = loaded.fields().iter().map(|field| {
        let name = field.name();
        if name.is_empty() || !names.insert(name.as_str()) {
            return Err(Error::invalid(format!("column `{name}` has no unique name; rename it, or declare `columns`")));
        }
        let loaded = field.data_type();
        let kind = if is_declared { Some(loaded.clone()) } else { queryable_type(loaded) };
        let kind = kind.ok_or_else(|| {
            Error::invalid(format!(
                "column `{name}` has the type {loaded}, which queries of lookup tables do not support; declare `columns` \
                 with the columns to read"
            ))
        })?;
        Ok(Field::new(name, kind, true))
    });
    Ok(Arc::new(Schema::new(fields.collect::<Result<Vec<_>>>()?)))
}

/// Returns the type to which a column of the type `loaded` is converted without loss, except that times keep only
/// microseconds. Returns `None` if queries do not support the type.
fn queryable_type(loaded: &DataType) -> Option<DataType> {
    Some(match loaded {
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View | DataType::Null => DataType::Utf8,
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView => DataType::Binary,
        DataType::Int8 | DataType::Int16 | DataType::UInt8 | DataType::UInt16 => DataType::Int32,
        DataType::UInt32 => DataType::Int64,
        DataType::Timestamp(_, None) => DataType::Timestamp(TimeUnit::Microsecond, None),
        DataType::Timestamp(_, Some(_)) => DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into())),
        DataType::Dictionary(_, value) => queryable_type(value)?,
        DataType::Boolean
        | DataType::Int32
        | DataType::Int64
        | DataType::Float32
        | DataType::Float64
        | DataType::Date32
        | DataType::Decimal128(..) => loaded.clone(),
        _ => return None,
    })
}

/// Casts the columns of a batch to the types of `schema`, and checks their values. `rows_before` is the number of rows
/// in the batches before this one.
fn converted(batch: &RecordBatch, schema: &SchemaRef, rows_before: usize) -> Result<RecordBatch> {
    let columns = batch.columns().iter().zip(schema.fields()).map(|(column, field)| {
        let (name, kind) = (field.name(), field.data_type());
        let column = lookup_fault::cast(name, column, kind, rows_before)?;
        match is_finite(&column) {
            true => Ok(column),
            false => Err(Error::invalid(format!("column `{name}` contains NaN or infinity; use null instead"))),
        }
    });
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(Arc::clone(schema), columns.collect::<Result<Vec<_>>>()?, &options)
        .map_err(|cause| internal(cause, "the values of a lookup do not fit its columns"))
}

/// Returns false if a floating-point column, or a list column of such numbers, contains NaN or infinity.
fn is_finite(column: &ArrayRef) -> bool {
    let mut valid = (0..column.len()).filter(|row| column.is_valid(*row));
    match column.data_type() {
        DataType::Float32 => valid.all(|row| column.as_primitive::<Float32Type>().value(row).is_finite()),
        DataType::Float64 => valid.all(|row| column.as_primitive::<Float64Type>().value(row).is_finite()),
        DataType::List(_) => is_finite(column.as_list::<i32>().values()),
        _ => true,
    }
}

/// Copies the rows of each tenant, in their order. The column `tenant` contains the tenants.
fn by_tenant(
    batches: &[RecordBatch],
    tenant: &str,
    limits: &LookupLimits,
) -> Result<BTreeMap<Box<str>, Arc<Vec<RecordBatch>>>> {
    let mut rows: BTreeMap<&str, Vec<RowIndex>> = BTreeMap::new();
    for (index, batch) in batches.iter().enumerate() {
        let tenants = batch.column_by_name(tenant).and_then(|column| column.as_string_opt::<i32>());
        let tenants = tenants.ok_or_else(|| {
            Error::invalid(format!("column `{tenant}`, which contains the tenants, is not a text column of the lookup"))
        })?;
        for (row, tenant) in tenants.iter().enumerate() {
            if let Some(tenant) = tenant.filter(|tenant| !tenant.is_empty()) {
                rows.entry(tenant).or_default().push((index, row));
            }
        }
    }
    let mut bytes = 0;
    let mut copies = BTreeMap::new();
    for (tenant, rows) in rows {
        let copy = rows.chunks(BATCH_ROWS).map(|rows| copied(batches, rows)).collect::<Result<Vec<_>>>()?;
        bytes += copy.iter().map(RecordBatch::get_array_memory_size).sum::<usize>();
        if bytes > limits.bytes_max {
            return Err(limits.too_large());
        }
        copies.insert(tenant.into(), Arc::new(copy));
    }
    Ok(copies)
}

/// Copies the given rows, which are ordered by batch, into one batch.
fn copied(batches: &[RecordBatch], rows: &[RowIndex]) -> Result<RecordBatch> {
    let (mut read, mut last) = (Vec::new(), None);
    let mut indexes = Vec::with_capacity(rows.len());
    for (batch, row) in rows {
        if last != Some(*batch) {
            read.push(&batches[*batch]);
            last = Some(*batch);
        }
        indexes.push((read.len() - 1, *row));
    }
    interleave_record_batch(&read, &indexes).map_err(|cause| internal(cause, "the rows of a lookup cannot be copied"))
}

fn internal(cause: ArrowError, message: &'static str) -> Error {
    Error::internal(message).with_source(cause)
}
