//! Which events are stored already: a batched lookup of (tenant, time, id) in sorted files.
//!
//! ```text
//!   events ─► files whose bounds hold them ─► those files' filters of ids ─► pages whose times hold them ─► compare
//!             (in memory)                     (bloom filters, kept a while)  (page index)
//! ```
//!
//! In: [`EventKeys`] of events, and files. Out: for each event whether one of the files has it. An event that is sent again
//! carries the same time, so it is looked for at its own time only.
//!
//! **Invariant:** a step before the last may let an absent event pass, and never stops a present one.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array as _, AsArray as _, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::TimestampMicrosecondType;
use futures::{StreamExt as _, TryStreamExt as _};
use parquet::arrow::arrow_reader::{ArrowReaderOptions, RowSelection};
use parquet::arrow::{ParquetRecordBatchStreamBuilder, ProjectionMask};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData};
use parquet::file::page_index::column_index::ColumnIndexMetaData;

use crate::clock::Micros;
use crate::contract::Contract;
use crate::error::{Error, Result};
use crate::lake::read::bloom_filters::FileBloomFilters;
use crate::lake::read::object_reader::ObjectReader;
use crate::lake::{DataFile, Table};

/// Files that are looked into at once.
const READS_MAX: usize = 8;

/// The keys of some events: their tenants, times and ids, in order.
#[derive(Debug, Clone)]
pub struct EventKeys {
    tenants: StringArray,
    times: TimestampMicrosecondArray,
    ids: StringArray,
    /// Events by time.
    by_time: Vec<u32>,
}

impl EventKeys {
    /// The keys of `rows`, which are of the contract. `Internal` when they are not.
    pub fn of(contract: &Contract, rows: &RecordBatch) -> Result<Self> {
        let unfit = || Error::internal(format!("table `{}`: rows to look up are not of its contract", contract.name));
        let text = |column: usize| rows.column(column).as_string_opt::<i32>().cloned().ok_or_else(unfit);
        let times = rows.column(contract.time).as_primitive_opt::<TimestampMicrosecondType>().cloned();
        let times = times.ok_or_else(unfit)?;
        let mut by_time: Vec<u32> = (0..u32::try_from(rows.num_rows()).map_err(|_| unfit())?).collect();
        by_time.sort_unstable_by_key(|event| times.value(*event as usize));
        Ok(Self { tenants: text(contract.tenant)?, times, ids: text(contract.id)?, by_time })
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// The events that the file may hold by its bounds.
    fn within(&self, file: &DataFile) -> Vec<u32> {
        let time = |event: &u32| self.times.value(*event as usize);
        let span = match file.times {
            Some((low, high)) => {
                let begin = self.by_time.partition_point(|event| time(event) < low);
                begin..begin + self.by_time[begin..].partition_point(|event| time(event) <= high)
            }
            None => 0..self.by_time.len(),
        };
        let holds = |bound: &Option<(Arc<str>, Arc<str>)>, text: &str| {
            bound.as_ref().is_none_or(|(low, high)| (&**low..=&**high).contains(&text))
        };
        let held = self.by_time[span].iter().copied().filter(|event| {
            let event = *event as usize;
            holds(&file.tenants, self.tenants.value(event)) && holds(&file.ids, self.ids.value(event))
        });
        held.collect()
    }
}

/// For each event whether one of `files` has it.
pub(in crate::lake) async fn stored(table: &Table, files: &[Arc<DataFile>], keys: EventKeys) -> Result<Vec<bool>> {
    let mut found = vec![false; keys.len()];
    let live = table.snapshot();
    let asked = files.iter().map(|file| (file.clone(), keys.within(file))).filter(|(_, events)| !events.is_empty());
    // What a file held that is gone meanwhile is in the one that replaced it.
    let asked: Vec<_> = asked.filter(|(file, _)| live.holds(file)).collect();
    let keys = &keys;
    let mut looks = futures::stream::iter(asked)
        .map(|(file, events)| async move {
            look(table, &file, keys, events).await.map_err(|error| {
                let name = &table.contract().name;
                Error::unavailable(format!("table `{name}`: `{}` cannot be read", file.path)).with_source(error)
            })
        })
        .buffer_unordered(READS_MAX);
    while let Some(events) = looks.try_next().await? {
        events.into_iter().for_each(|event| found[event as usize] = true);
    }
    Ok(found)
}

/// Those of `events` that the file has.
async fn look(table: &Table, file: &DataFile, keys: &EventKeys, mut events: Vec<u32>) -> ParquetResult<Vec<u32>> {
    let filter = match table.filters.get(&file.path) {
        Some(filter) => filter,
        None => table.filters.keep(&file.path, load_filter(table, file).await?),
    };
    events.retain(|event| filter.may_hold(keys.ids.value(*event as usize)));
    if events.is_empty() {
        return Ok(events);
    }
    let (contract, options) =
        (table.contract(), ArrowReaderOptions::new().with_page_index_policy(PageIndexPolicy::Optional));
    let builder = ParquetRecordBatchStreamBuilder::new_with_options(object(table, file), options).await?;
    let columns =
        [contract.tenant, contract.time, contract.id].map(|column| leaf(contract, column, builder.metadata()));
    let [tenant, time, id] = columns;
    let (tenant, time, id) = (tenant?, time?, id?);
    let mut times: Vec<Micros> = events.iter().map(|event| keys.times.value(*event as usize)).collect();
    times.sort_unstable();
    let selection = pages(builder.metadata(), time, &times);
    let mask = ProjectionMask::leaves(builder.parquet_schema(), [tenant, time, id]);
    let mut wanted: HashMap<(&str, Micros, &str), Vec<u32>> = HashMap::new();
    for event in events {
        let at = event as usize;
        wanted.entry((keys.tenants.value(at), keys.times.value(at), keys.ids.value(at))).or_default().push(event);
    }
    let mut builder = builder.with_projection(mask);
    if let Some(selection) = selection {
        builder = builder.with_row_selection(selection);
    }
    let (mut rows, mut found) = (builder.build()?, HashSet::new());
    while let Some(rows) = rows.try_next().await? {
        let name = |column: usize| contract.columns[column].name.as_str();
        let text = |column: usize| rows.column_by_name(name(column)).and_then(|array| array.as_string_opt::<i32>());
        let moments = rows.column_by_name(name(contract.time));
        let moments = moments.and_then(|array| array.as_primitive_opt::<TimestampMicrosecondType>());
        let (Some(tenants), Some(moments), Some(ids)) = (text(contract.tenant), moments, text(contract.id)) else {
            return Err(ParquetError::General("its key columns have other types".into()));
        };
        for row in 0..rows.num_rows() {
            let moment = moments.value(row);
            if times.binary_search(&moment).is_ok() {
                found.extend(wanted.get(&(tenants.value(row), moment, ids.value(row))).into_iter().flatten());
            }
        }
    }
    Ok(found.into_iter().collect())
}

/// The file's filter of ids. A file of another writer may have none.
async fn load_filter(table: &Table, file: &DataFile) -> ParquetResult<FileBloomFilters> {
    let mut builder = ParquetRecordBatchStreamBuilder::new(object(table, file)).await?;
    let id = leaf(table.contract(), table.contract().id, builder.metadata())?;
    let mut groups = Vec::with_capacity(builder.metadata().num_row_groups());
    for group in 0..builder.metadata().num_row_groups() {
        groups.push(builder.get_row_group_column_bloom_filter(group, id).await?);
    }
    Ok(FileBloomFilters::new(groups))
}

fn object(table: &Table, file: &DataFile) -> ObjectReader {
    ObjectReader::new(&table.location().0.objects, table.file_path(file), file.size)
}

/// Where a top-level column stands among the file's leaves.
fn leaf(contract: &Contract, column: usize, metadata: &ParquetMetaData) -> ParquetResult<usize> {
    let name = contract.columns[column].name.as_str();
    let leaves = metadata.file_metadata().schema_descr().columns();
    let found = leaves.iter().position(|leaf| matches!(leaf.path().parts(), [only] if only == name));
    found.ok_or_else(|| ParquetError::General(format!("it has no column `{name}`")))
}

/// The rows of pages that may hold one of `times`, which are sorted. None when the file does not say: then all rows.
fn pages(metadata: &ParquetMetaData, time: usize, times: &[Micros]) -> Option<RowSelection> {
    let (columns, offsets) = (metadata.column_index()?, metadata.offset_index()?);
    let (mut ranges, mut first_row): (Vec<Range<usize>>, usize) = (Vec::new(), 0);
    for (group, rows) in metadata.row_groups().iter().enumerate() {
        let end = first_row + usize::try_from(rows.num_rows()).ok()?;
        let ColumnIndexMetaData::INT64(bounds) = columns.get(group)?.get(time)? else { return None };
        let starts = offsets.get(group)?.get(time)?.page_locations().iter().map(|page| page.first_row_index);
        let starts: Vec<usize> =
            starts.map(|row| Some(first_row + usize::try_from(row).ok()?)).collect::<Option<_>>()?;
        for (page, start) in starts.iter().enumerate() {
            let held = match (bounds.min_value(page), bounds.max_value(page)) {
                (Some(low), Some(high)) => {
                    times.get(times.partition_point(|time| time < low)).is_some_and(|time| time <= high)
                }
                _ => false,
            };
            if held {
                ranges.push(*start..starts.get(page + 1).copied().unwrap_or(end));
            }
        }
        first_row = end;
    }
    Some(RowSelection::from_consecutive_ranges(ranges.into_iter(), first_row))
}
