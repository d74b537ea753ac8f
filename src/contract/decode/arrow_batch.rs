//! The decoder of Arrow batches. It finds each column by name, casts it without loss, and then checks the values one
//! column at a time.
//!
//! ```text
//!   RecordBatch ─ by name ─► cast ─► columns ─┬─► check ─► filter ─► EventBatch
//!                          unknown ─► the map ┘     └─► rejects (the row as JSON)
//! ```
//!
//! If a column has an incompatible type, such as text instead of a number, the whole batch is refused, because the
//! sender's schema is wrong. If a value is invalid for its column, only its row is rejected. A batch without invalid
//! values is processed row by row only if its map column has to be built.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, ListArray, MapArray, RecordBatch, StringArray, StructArray, new_null_array,
};
use arrow::buffer::BooleanBuffer;
use arrow::compute::filter;
use arrow::datatypes::{DataType, TimestampMicrosecondType};
use bytes::Bytes;

use super::accept_or_reject::{BODY_EVENTS_MAX, BODY_REJECTS_MAX, RejectedRows, push_reject, too_many_events};
use super::reject_reason::{Reason, Reject, RejectCause};
use super::{arrow_expansion, cast, key_columns};
use crate::contract::EventBatch;
use crate::contract::columns::column_builder::{map_builder, received_column, tenant_column};
use crate::contract::{ColumnKind, Contract, DecodeOptions, Decoded, EVENT_DATE, Owner, RECEIVED_TIME, TenantId};
use crate::error::{Error, Result, did_you_mean};

/// Decodes one batch. `first_index` is the index of its first row in the body.
pub(in crate::contract) fn decode(
    contract: &Contract,
    batch: &RecordBatch,
    first_index: u64,
    options: &DecodeOptions,
) -> Result<Decoded> {
    let rows = batch.num_rows();
    if first_index.saturating_add(rows as u64) > BODY_EVENTS_MAX {
        return Err(too_many_events());
    }
    arrow_expansion::check_expansion(batch)?;
    let sources = ColumnSources::find(contract, batch)?;
    let mut rejected = RejectedRows::default();
    let mut columns = Vec::with_capacity(contract.columns.len());
    for (index, column) in contract.columns.iter().enumerate() {
        columns.push(match sources.columns[index] {
            _ if index == contract.received => received_column(options, rows),
            _ if Some(index) == contract.map => map(contract, batch, &sources, options, &mut rejected)?,
            Some(source) => cast::column(contract, index, source, &mut rejected)?,
            None => new_null_array(&column.kind.stored_type(), rows),
        });
    }
    check_keys(contract, options, &columns, &mut rejected);
    check_sizes(options, &columns, rows, &mut rejected);
    let rejects = rejects(contract, batch, first_index, options, &columns, &rejected)?;
    if options.owner != Owner::PerEvent {
        columns[contract.tenant] = tenant_column(options, rows);
    }
    Ok(Decoded { batch: keep(contract, columns, rows, &rejected)?, rejects })
}

/// The assignment of a batch's columns to the contract's columns.
struct ColumnSources<'a> {
    /// For each column of the contract, the batch column that supplies its values.
    columns: Vec<Option<&'a ArrayRef>>,
    /// The indexes of the undeclared batch columns, which become map entries.
    unknown: Vec<usize>,
}

impl<'a> ColumnSources<'a> {
    fn find(contract: &Contract, batch: &'a RecordBatch) -> Result<Self> {
        let mut all = Self { columns: vec![None; contract.columns.len()], unknown: Vec::new() };
        for (index, field) in batch.schema_ref().fields().iter().enumerate() {
            let name = field.name();
            match contract.column(name) {
                // The server sets `received_time` and `event_date` itself, so it ignores these columns. A batch
                // contains them if a client sends back the result of a query on the table.
                _ if name == RECEIVED_TIME || name == EVENT_DATE => {}
                Some(column) if all.columns[column].is_some() => {
                    return Err(Error::invalid(format!(
                        "column `{name}` appears more than once in the batch: send each column once"
                    )));
                }
                Some(column) => all.columns[column] = Some(batch.column(index)),
                None if contract.unknown_to_map => all.unknown.push(index),
                None => {
                    let hint = did_you_mean(name, contract.columns.iter().map(|column| column.name.as_str()));
                    return Err(Error::invalid(format!(
                        "unknown column `{name}`{hint}; the table has no map column for undeclared columns"
                    )));
                }
            }
        }
        Ok(all)
    }
}

/// Builds the map column. Each row contains the entries of the batch's own map column, followed by the non-null values
/// of the undeclared columns. A row without entries becomes null, or an empty map if the batch's own map column
/// contains an empty map in that row.
fn map(
    contract: &Contract,
    batch: &RecordBatch,
    sources: &ColumnSources<'_>,
    options: &DecodeOptions,
    rejected: &mut RejectedRows,
) -> Result<ArrayRef> {
    let given = match contract.map.and_then(|map| sources.columns[map]) {
        Some(source) => MapColumn::new(contract, source)?,
        None => None,
    };
    let mut unknown = Vec::with_capacity(sources.unknown.len());
    for index in &sources.unknown {
        let name = batch.schema_ref().field(*index).name();
        unknown.push((name.clone(), cast::as_text(name, batch.column(*index))?));
    }
    if given.is_none() && unknown.is_empty() {
        return Ok(new_null_array(&ColumnKind::Map.data_type(), batch.num_rows()));
    }
    if let (Some(given), true) = (&given, unknown.is_empty())
        && let Some(map) = given.unchanged(options)
    {
        return Ok(map);
    }
    let mut builder = map_builder();
    let mut entries: Vec<(&str, Option<&str>)> = Vec::new();
    for row in 0..batch.num_rows() {
        entries.clear();
        given.iter().for_each(|given| given.read(row, &mut entries));
        let present = unknown.iter().filter(|(_, values)| values.is_valid(row));
        entries.extend(present.map(|(name, values)| (name.as_str(), Some(values.value(row)))));
        check_entries(&entries, options, row, rejected);
        for (key, value) in &entries {
            builder.keys().append_value(key);
            builder.values().append_option(*value);
        }
        let is_valid = !entries.is_empty() || given.as_ref().is_some_and(|given| given.map.is_valid(row));
        builder.append(is_valid).expect("each entry has added one key and one value");
    }
    Ok(Arc::new(builder.finish()))
}

fn check_entries(entries: &[(&str, Option<&str>)], options: &DecodeOptions, row: usize, rejected: &mut RejectedRows) {
    if entries.len() > options.dimensions_max {
        let detail = format!(
            "the event has more than {} undeclared fields: declare some of them as columns, or send fewer",
            options.dimensions_max
        );
        return rejected.add(row, || RejectCause::new(Reason::TooLarge, detail));
    }
    for (index, (key, _)) in entries.iter().enumerate() {
        if entries[..index].iter().any(|(earlier, _)| earlier == key) {
            rejected.add(row, || RejectCause::duplicate(key));
        }
    }
}

/// The batch's own map column. Its keys and values have been decoded to plain strings.
struct MapColumn<'a> {
    map: &'a MapArray,
    keys: StringArray,
    values: StringArray,
}

impl<'a> MapColumn<'a> {
    fn new(contract: &Contract, source: &'a ArrayRef) -> Result<Option<Self>> {
        let name = contract.map.map_or("", |map| &contract.columns[map].name);
        match source.data_type() {
            DataType::Map(..) => {
                let map = source.as_map();
                let (keys, values) = (cast::as_text(name, map.keys())?, cast::as_text(name, map.values())?);
                Ok(Some(Self { map, keys, values }))
            }
            DataType::Null => Ok(None),
            other => Err(Error::invalid(format!("column `{name}` expects a map of text, got {other}"))),
        }
    }

    /// If the column can be stored without changes, returns it with the contract's type. This is possible if null rows
    /// have no entries, the keys of each row are distinct, and no row has too many entries.
    fn unchanged(&self, options: &DecodeOptions) -> Option<ArrayRef> {
        let offsets = self.map.value_offsets();
        let is_plain = |row: usize| {
            let (first, last) = (offsets[row] as usize, offsets[row + 1] as usize);
            let is_known = |at: usize| (first..at).any(|earlier| self.keys.value(earlier) == self.keys.value(at));
            (self.map.is_valid(row) || first == last)
                && last - first <= options.dimensions_max
                && !(first + 1..last).any(is_known)
        };
        let DataType::Map(entries, _) = ColumnKind::Map.data_type() else { return None };
        let DataType::Struct(fields) = entries.data_type() else { return None };
        if self.keys.null_count() > 0 || !(0..self.map.len()).all(is_plain) {
            return None;
        }
        let columns: Vec<ArrayRef> = vec![Arc::new(self.keys.clone()), Arc::new(self.values.clone())];
        let structs = StructArray::try_new(fields.clone(), columns, None).ok()?;
        let (offsets, nulls) = (self.map.offsets().clone(), self.map.nulls().cloned());
        Some(Arc::new(MapArray::try_new(entries.clone(), offsets, structs, nulls, false).ok()?))
    }

    fn read<'b>(&'b self, row: usize, into: &mut Vec<(&'b str, Option<&'b str>)>) {
        if self.map.is_null(row) {
            return;
        }
        let offsets = self.map.value_offsets();
        for entry in offsets[row] as usize..offsets[row + 1] as usize {
            let value = self.values.is_valid(entry).then(|| self.values.value(entry));
            into.push((self.keys.value(entry), value));
        }
    }
}

fn check_keys(contract: &Contract, options: &DecodeOptions, columns: &[ArrayRef], rejected: &mut RejectedRows) {
    let tenants = columns[contract.tenant].as_string::<i32>();
    let times = columns[contract.time].as_primitive::<TimestampMicrosecondType>();
    let ids = columns[contract.id].as_string::<i32>();
    for (row, ((tenant, time), id)) in tenants.iter().zip(times).zip(ids).enumerate() {
        let cause = key_columns::tenant(contract, options, tenant)
            .or_else(|| key_columns::time(contract, options, time, || tenant))
            .or_else(|| key_columns::id(contract, id.map(str::as_bytes)));
        if let Some(cause) = cause {
            rejected.add(row, || cause);
        }
    }
}

/// Checks the size of each event. The size is the number of bytes in the event's strings, byte strings and map, plus
/// eight bytes for each other value or element.
fn check_sizes(options: &DecodeOptions, columns: &[ArrayRef], rows: usize, rejected: &mut RejectedRows) {
    let mut sizes = vec![0_usize; rows];
    for column in columns {
        match column.data_type() {
            DataType::Utf8 => add_lengths(&mut sizes, column.as_string::<i32>().value_offsets()),
            DataType::Binary => add_lengths(&mut sizes, column.as_binary::<i32>().value_offsets()),
            DataType::List(_) => add_list_sizes(&mut sizes, column.as_list()),
            DataType::Map(..) => {
                let map = column.as_map();
                let (keys, values) = (map.keys().as_string::<i32>(), map.values().as_string::<i32>());
                for (size, entries) in sizes.iter_mut().zip(map.value_offsets().windows(2)) {
                    let (first, last) = (entries[0] as usize, entries[1] as usize);
                    let text = [keys, values].map(|text| text.value_offsets()[last] - text.value_offsets()[first]);
                    *size += (text[0] + text[1]) as usize;
                }
            }
            _ => sizes.iter_mut().for_each(|size| *size += 8),
        }
    }
    for (row, size) in sizes.into_iter().enumerate().filter(|(_, size)| *size > options.event_bytes_max) {
        rejected.add(row, || RejectCause::too_large(size, options.event_bytes_max));
    }
}

fn add_lengths(sizes: &mut [usize], offsets: &[i32]) {
    for (size, ends) in sizes.iter_mut().zip(offsets.windows(2)) {
        *size += (ends[1] - ends[0]) as usize;
    }
}

fn add_list_sizes(sizes: &mut [usize], lists: &ListArray) {
    let offsets = lists.value_offsets();
    let ends: Vec<usize> = match lists.values().data_type() {
        DataType::Utf8 => ends_of(lists.values().as_string::<i32>().value_offsets(), offsets),
        DataType::Binary => ends_of(lists.values().as_binary::<i32>().value_offsets(), offsets),
        _ => offsets.iter().map(|offset| *offset as usize * 8).collect(),
    };
    for (size, ends) in sizes.iter_mut().zip(ends.windows(2)) {
        *size += ends[1] - ends[0];
    }
}

/// Returns the position of the first byte of each list. `texts` contains the offsets of the elements.
fn ends_of(texts: &[i32], lists: &[i32]) -> Vec<usize> {
    lists.iter().map(|offset| texts[*offset as usize] as usize).collect()
}

fn rejects(
    contract: &Contract,
    batch: &RecordBatch,
    first_index: u64,
    options: &DecodeOptions,
    columns: &[ArrayRef],
    rejected: &RejectedRows,
) -> Result<Vec<Reject>> {
    let tenants = columns[contract.tenant].as_string::<i32>();
    let mut rejects = Vec::new();
    for (row, RejectCause { reason, detail }) in rejected.iter() {
        let tenant = match &options.owner {
            Owner::Tenant(tenant) => Some(tenant.clone()),
            Owner::PerEvent if tenants.is_null(row) => None,
            Owner::PerEvent => TenantId::parse(tenants.value(row)).ok(),
        };
        let index = first_index + row as u64;
        let (reason, detail) = (*reason, detail.clone());
        // If the body already has too many rejects, `push_reject` returns an error and does not use the bytes.
        let bytes = if rejects.len() < BODY_REJECTS_MAX { row_as_json(batch, row) } else { Bytes::new() };
        push_reject(&mut rejects, Reject { index, tenant, bytes, reason, detail })?;
    }
    Ok(rejects)
}

/// Writes the non-null values of a row as a JSON object. Returns no bytes if a column has a type that cannot be written
/// as JSON.
fn row_as_json(batch: &RecordBatch, row: usize) -> Bytes {
    let mut line = Vec::new();
    let mut writer = arrow::json::LineDelimitedWriter::new(&mut line);
    let written = writer.write(&batch.slice(row, 1)).and_then(|()| writer.finish());
    drop(writer);
    if written.is_err() {
        return Bytes::new();
    }
    line.truncate(line.trim_ascii_end().len());
    line.into()
}

/// Returns the rows that were not rejected.
fn keep(contract: &Contract, columns: Vec<ArrayRef>, rows: usize, rejected: &RejectedRows) -> Result<EventBatch> {
    if rejected.is_empty() {
        return EventBatch::of_columns(contract, columns, rows);
    }
    let good = BooleanArray::new(BooleanBuffer::collect_bool(rows, |row| !rejected.contains(row)), None);
    let kept: Result<Vec<_>, _> = columns.iter().map(|column| filter(column, &good)).collect();
    let kept = kept.map_err(|cause| Error::internal("cannot remove rejected rows from a batch").with_source(cause))?;
    EventBatch::of_columns(contract, kept, rows - rejected.len())
}
