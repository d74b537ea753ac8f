//! The decoder of Arrow events: matches columns by name, casts them without loss, and checks them column by column.
//!
//! ```text
//!   RecordBatch ─ by name ─► cast ─► columns ─┬─► check ─► filter ─► EventBatch
//!                          unknown ─► the map ┘     └─► rejects (the row as JSON)
//! ```
//!
//! A column of an incompatible type (text instead of a number) fails the whole batch, because the schema is wrong. A
//! value that does not fit rejects its row. A batch without faults is not processed row by row, unless a map has to be
//! built.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, BooleanArray, MapArray, RecordBatch, StringArray, StructArray, new_null_array,
};
use arrow::buffer::BooleanBuffer;
use arrow::compute::filter;
use arrow::datatypes::{DataType, TimestampMicrosecondType};
use bytes::Bytes;

use super::acceptor::{BODY_EVENTS_MAX, BODY_REJECTS_MAX, refuse, too_many_events};
use super::reject::{Reason, Reject, RejectCause};
use super::{cast, check};
use crate::contract::EventBatch;
use crate::contract::columns::column_builder::{map_builder, received_column, tenant_column};
use crate::contract::{ColumnKind, Contract, Decoded, EVENT_DATE, Owner, RECEIVED_TIME, Stamp, TenantId};
use crate::error::{Error, Result, did_you_mean};

/// The first fault of each bad row.
#[derive(Debug, Default)]
pub(in crate::contract) struct FaultsByRow(BTreeMap<usize, RejectCause>);

impl FaultsByRow {
    /// Records the first fault of a row. Records at most one row more than a body may reject, which shows that there
    /// are too many.
    pub(in crate::contract) fn add(&mut self, row: usize, fault: impl FnOnce() -> RejectCause) {
        if self.0.len() <= BODY_REJECTS_MAX {
            self.0.entry(row).or_insert_with(fault);
        }
    }
}

/// Decodes one batch; `first_index` is the index of its first row in the body.
pub(in crate::contract) fn decode(
    contract: &Contract,
    batch: &RecordBatch,
    first_index: u64,
    stamp: &Stamp,
) -> Result<Decoded> {
    let rows = batch.num_rows();
    if first_index.saturating_add(rows as u64) > BODY_EVENTS_MAX {
        return Err(too_many_events());
    }
    cast::check_expansion(batch)?;
    let sources = ColumnSources::find(contract, batch)?;
    let mut faults = FaultsByRow::default();
    let mut columns = Vec::with_capacity(contract.columns.len());
    for (index, column) in contract.columns.iter().enumerate() {
        columns.push(match sources.columns[index] {
            _ if index == contract.received => received_column(stamp, rows),
            _ if Some(index) == contract.map => map(contract, batch, &sources, stamp, &mut faults)?,
            Some(source) => cast::column(contract, index, source, &mut faults)?,
            None => new_null_array(&column.kind.data_type(), rows),
        });
    }
    check_keys(contract, stamp, &columns, &mut faults);
    check_sizes(stamp, &columns, rows, &mut faults);
    let rejects = rejects(contract, batch, first_index, stamp, &columns, &faults)?;
    if stamp.owner != Owner::PerEvent {
        columns[contract.tenant] = tenant_column(stamp, rows);
    }
    Ok(Decoded { batch: keep(contract, columns, rows, &faults)?, rejects })
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
                // The server sets these columns. A batch that was queried from the table contains them.
                _ if name == RECEIVED_TIME || name == EVENT_DATE => {}
                Some(column) if all.columns[column].is_some() => {
                    return Err(Error::invalid(format!(
                        "column `{name}` appears more than once in the batch: send it once"
                    )));
                }
                Some(column) => all.columns[column] = Some(batch.column(index)),
                None if contract.unknown_to_map => all.unknown.push(index),
                None => {
                    let hint = did_you_mean(name, contract.columns.iter().map(|column| column.name.as_str()));
                    let why = "the table has no map column for undeclared columns";
                    return Err(Error::invalid(format!("unknown column `{name}`{hint}; {why}")));
                }
            }
        }
        Ok(all)
    }
}

/// The map column: the entries of the batch's map column, then the non-null values of undeclared columns.
fn map(
    contract: &Contract,
    batch: &RecordBatch,
    sources: &ColumnSources<'_>,
    stamp: &Stamp,
    faults: &mut FaultsByRow,
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
        && let Some(map) = given.unchanged(stamp)
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
        check_entries(&entries, stamp, row, faults);
        for (key, value) in &entries {
            builder.keys().append_value(key);
            builder.values().append_option(*value);
        }
        builder.append(!entries.is_empty()).expect("each entry has added one key and one value");
    }
    Ok(Arc::new(builder.finish()))
}

fn check_entries(entries: &[(&str, Option<&str>)], stamp: &Stamp, row: usize, faults: &mut FaultsByRow) {
    if entries.len() > stamp.dimensions_max {
        let detail = format!(
            "the event has more than {} undeclared fields: declare some of them as columns, or send fewer",
            stamp.dimensions_max
        );
        return faults.add(row, || RejectCause::new(Reason::TooLarge, detail));
    }
    for (index, (key, _)) in entries.iter().enumerate() {
        if entries[..index].iter().any(|(earlier, _)| earlier == key) {
            faults.add(row, || RejectCause::duplicate(key));
        }
    }
}

/// The map column of a batch.
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

    /// The column in stored form, if no row needs changes: each row is null without entries, or has at most the allowed
    /// number of entries, with distinct keys.
    fn unchanged(&self, stamp: &Stamp) -> Option<ArrayRef> {
        let offsets = self.map.value_offsets();
        let is_plain = |row: usize| {
            let (first, last) = (offsets[row] as usize, offsets[row + 1] as usize);
            let is_known = |at: usize| (first..at).any(|earlier| self.keys.value(earlier) == self.keys.value(at));
            self.map.is_null(row) == (first == last)
                && last - first <= stamp.dimensions_max
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

fn check_keys(contract: &Contract, stamp: &Stamp, columns: &[ArrayRef], faults: &mut FaultsByRow) {
    let tenants = columns[contract.tenant].as_string::<i32>();
    let times = columns[contract.time].as_primitive::<TimestampMicrosecondType>();
    let ids = columns[contract.id].as_string::<i32>();
    for (row, ((tenant, time), id)) in tenants.iter().zip(times).zip(ids).enumerate() {
        let fault = check::tenant(contract, stamp, tenant)
            .or_else(|| check::time(contract, stamp, time))
            .or_else(|| check::id(contract, id.map(str::as_bytes)));
        if let Some(fault) = fault {
            faults.add(row, || fault);
        }
    }
}

/// Checks the size of each event: the bytes of its texts, byte strings and map, plus eight for every other value.
fn check_sizes(stamp: &Stamp, columns: &[ArrayRef], rows: usize, faults: &mut FaultsByRow) {
    let mut sizes = vec![0_usize; rows];
    for column in columns {
        match column.data_type() {
            DataType::Utf8 => add_lengths(&mut sizes, column.as_string::<i32>().value_offsets()),
            DataType::Binary => add_lengths(&mut sizes, column.as_binary::<i32>().value_offsets()),
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
    for (row, size) in sizes.into_iter().enumerate().filter(|(_, size)| *size > stamp.event_bytes_max) {
        faults.add(row, || RejectCause::too_large(size, stamp.event_bytes_max));
    }
}

fn add_lengths(sizes: &mut [usize], offsets: &[i32]) {
    for (size, ends) in sizes.iter_mut().zip(offsets.windows(2)) {
        *size += (ends[1] - ends[0]) as usize;
    }
}

fn rejects(
    contract: &Contract,
    batch: &RecordBatch,
    first_index: u64,
    stamp: &Stamp,
    columns: &[ArrayRef],
    faults: &FaultsByRow,
) -> Result<Vec<Reject>> {
    let tenants = columns[contract.tenant].as_string::<i32>();
    let mut rejects = Vec::new();
    for (row, RejectCause { reason, detail }) in &faults.0 {
        let tenant = match &stamp.owner {
            Owner::Tenant(tenant) => Some(tenant.clone()),
            Owner::PerEvent if tenants.is_null(*row) => None,
            Owner::PerEvent => TenantId::parse(tenants.value(*row)).ok(),
        };
        let index = first_index + *row as u64;
        let (reason, detail) = (*reason, detail.clone());
        // Check the limit first: `refuse` fails beyond it, so the bytes are not needed.
        let bytes = if rejects.len() < BODY_REJECTS_MAX { row_as_json(batch, *row) } else { Bytes::new() };
        refuse(&mut rejects, Reject { index, tenant, bytes, reason, detail })?;
    }
    Ok(rejects)
}

/// One row as a JSON object without nulls. Empty if a type cannot be written as JSON.
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

/// The rows without a fault.
fn keep(contract: &Contract, columns: Vec<ArrayRef>, rows: usize, faults: &FaultsByRow) -> Result<EventBatch> {
    if faults.0.is_empty() {
        return EventBatch::of_columns(contract, columns, rows);
    }
    let good = BooleanArray::new(BooleanBuffer::collect_bool(rows, |row| !faults.0.contains_key(&row)), None);
    let kept: Result<Vec<_>, _> = columns.iter().map(|column| filter(column, &good)).collect();
    let kept = kept.map_err(|fault| Error::internal("cannot remove rejected rows from a batch").with_source(fault))?;
    EventBatch::of_columns(contract, kept, rows - faults.0.len())
}
