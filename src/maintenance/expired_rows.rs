//! Finds the expired rows of tenants in files that also have rows which are kept.
//!
//! A merge drops these rows (`split`). [`tenant_rows`] counts the rows of the tenants that have a retention of their
//! own, so that the retention can decide whether a file is worth a rewrite.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::ArrayRef;
use arrow::error::ArrowError;
use parquet::file::metadata::RowGroupMetaData;
use parquet::file::statistics::Statistics;

use crate::clock::DAY;
use crate::contract::ExpiryBounds;
use crate::error::{Error, Result};
use crate::lake::{DataFile, RowGroupDecoder, Table};
use crate::maintenance::gather::{Run, gather};
use crate::maintenance::order::Keys;

/// The number of rows per batch while rows are counted.
const COUNT_ROWS: usize = 16_384;

/// The columns of a batch, split into expired rows and the other rows.
pub(super) struct SplitRows {
    pub(super) expired: Vec<ArrayRef>,
    pub(super) kept: Vec<ArrayRef>,
}

/// Splits a batch whose key columns are `keys`. Returns `None` if no row of a tenant with a retention of its own is
/// expired.
pub(super) fn split(columns: &[ArrayRef], keys: &Keys, expiry: &ExpiryBounds) -> Result<Option<SplitRows>> {
    let (mut expired, mut kept) = (Vec::new(), Vec::new());
    for rows in keys.segments() {
        match expiry.tenants.get(keys.tenant(rows.start)) {
            Some(before) => rows.for_each(|row| {
                let is_expired = keys.times.value(row) < *before;
                push(if is_expired { &mut expired } else { &mut kept }, row, 1);
            }),
            None => push(&mut kept, rows.start, rows.len()),
        }
    }
    if expired.is_empty() {
        return Ok(None);
    }
    let select = |runs: &[Run]| columns.iter().map(|column| rows_of(column, runs)).collect::<Result<_, _>>();
    let failed = |error: ArrowError| Error::internal("expired rows cannot be separated").with_source(error);
    Ok(Some(SplitRows { expired: select(&expired).map_err(failed)?, kept: select(&kept).map_err(failed)? }))
}

/// Adds consecutive rows to runs.
fn push(runs: &mut Vec<Run>, start: usize, length: usize) {
    match runs.last_mut() {
        Some(last) if (last.start + last.length) as usize == start => last.length += length as u32,
        _ => runs.push(Run { batch: 0, start: start as u32, length: length as u32 }),
    }
}

fn rows_of(column: &ArrayRef, runs: &[Run]) -> Result<ArrayRef, ArrowError> {
    if runs.is_empty() { Ok(column.slice(0, 0)) } else { gather(&[column], runs) }
}

/// Counts the rows of each tenant that has a retention of its own. Reads only the row groups whose bounds include such a
/// tenant. The result does not depend on the time, so it can be kept as long as the file exists.
///
/// Returns `Unavailable` if the file cannot be read, and `Unsupported` if it is corrupt.
pub async fn tenant_rows(
    table: &Arc<Table>,
    file: &Arc<DataFile>,
    expiry: &ExpiryBounds,
) -> Result<BTreeMap<String, u64>> {
    let schema = table.stored_schema()?;
    let input = table.open_input(&schema, file).await?;
    let decoder = RowGroupDecoder::new(input.decoder.metadata(), &schema, &[0, 1, 2])?;
    let tenant_column = schema.field(0).name();
    let mut counts = BTreeMap::new();
    for group in 0..decoder.groups() {
        if !may_hold(decoder.metadata().row_group(group), tenant_column, expiry) {
            continue;
        }
        let mut batches = decoder.decode(group, table.row_group(file, decoder.bytes(group)).await?, COUNT_ROWS)?;
        while let Some(columns) = batches.next_batch()? {
            let keys = Keys::new(&columns)?;
            for rows in keys.segments() {
                let tenant = keys.tenant(rows.start);
                if expiry.tenants.contains_key(tenant) {
                    // A file of another program may contain rows of a later day, which expire later than the others.
                    let end = (i64::from(file.day) + 1) * DAY;
                    let count = rows.filter(|row| keys.times.value(*row) < end).count() as u64;
                    *counts.entry(tenant.to_owned()).or_default() += count;
                }
            }
        }
    }
    counts.retain(|_, count| *count > 0);
    Ok(counts)
}

/// Returns true if, according to its statistics, a row group may contain rows of a tenant with a retention of its own.
fn may_hold(group: &RowGroupMetaData, tenant_column: &str, expiry: &ExpiryBounds) -> bool {
    let chunk = group.columns().iter().find(|chunk| chunk.column_path().parts() == [tenant_column]);
    let Some(Statistics::ByteArray(statistics)) = chunk.and_then(|chunk| chunk.statistics()) else { return true };
    let (Some(least), Some(greatest)) = (statistics.min_bytes_opt(), statistics.max_bytes_opt()) else { return true };
    expiry.tenants.keys().any(|tenant| least <= tenant.as_bytes() && tenant.as_bytes() <= greatest)
}
