//! Looks up a batch of events in sorted files, by (tenant, time, id).
//!
//! ```text
//!   events ─► files whose bounds include them ─► bloom filters of ids ─► pages whose times include them ─► compare
//!             (in memory)                        (cached)                (page index)
//! ```
//!
//! [`Table::stored`] returns, for each event, whether one of the given files contains the event. If an event is sent
//! again, its event time is the same, so only pages whose time range includes that time are read.
//!
//! The files are those that the dedupe index has chosen. A rewrite may have removed some of them from the table since.
//! They are read nevertheless: the index does not know the files that replaced them.
//!
//! **Invariant:** the bounds, bloom filters and page index never exclude a file or page that contains the event. They
//! may also retain files and pages that do not contain it, so whole keys are compared at the end.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array as _, AsArray as _, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::TimestampMicrosecondType;
use futures::{StreamExt as _, TryStreamExt as _};
use parquet::arrow::arrow_reader::RowSelection;
use parquet::arrow::{ParquetRecordBatchStreamBuilder, ProjectionMask};
use parquet::errors::{ParquetError, Result as ParquetResult};
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData};
use parquet::file::page_index::column_index::ColumnIndexMetaData;

use crate::clock::Micros;
use crate::contract::Contract;
use crate::error::{Error, Result};
use crate::lake::read::bloom_filters::FileBloomFilters;
use crate::lake::read::object_reader::{ObjectReader, plain_types};
use crate::lake::{DataFile, ReadError, Table};

/// The maximum number of files that are read concurrently.
const READS_MAX: usize = 8;

/// The tenants, times and ids of events.
#[derive(Debug, Clone)]
pub struct EventKeys {
    tenants: StringArray,
    times: TimestampMicrosecondArray,
    ids: StringArray,
    /// The indexes of the events, sorted by time.
    by_time: Vec<u32>,
}

impl EventKeys {
    /// Returns the keys of `rows`. Returns `Internal` if the rows do not have the columns that the contract declares.
    pub fn of(contract: &Contract, rows: &RecordBatch) -> Result<Self> {
        let mismatch =
            || Error::internal(format!("table `{}`: the rows to look up do not match its contract", contract.name));
        let text = |column: usize| rows.column(column).as_string_opt::<i32>().cloned().ok_or_else(mismatch);
        let times = rows.column(contract.time).as_primitive_opt::<TimestampMicrosecondType>().cloned();
        let times = times.ok_or_else(mismatch)?;
        let mut by_time: Vec<u32> = (0..u32::try_from(rows.num_rows()).map_err(|_| mismatch())?).collect();
        by_time.sort_unstable_by_key(|event| times.value(*event as usize));
        Ok(Self { tenants: text(contract.tenant)?, times, ids: text(contract.id)?, by_time })
    }

    /// Returns the number of events.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Returns true if there are no events.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// Returns the events that the file may contain according to its bounds.
    fn within(&self, file: &DataFile) -> Vec<u32> {
        let time = |event: &u32| self.times.value(*event as usize);
        let range = match file.times {
            Some((low, high)) => {
                let begin = self.by_time.partition_point(|event| time(event) < low);
                begin..begin + self.by_time[begin..].partition_point(|event| time(event) <= high)
            }
            None => 0..self.by_time.len(),
        };
        let includes = |bound: &Option<(Arc<str>, Arc<str>)>, value: &str| {
            bound.as_ref().is_none_or(|(low, high)| (&**low..=&**high).contains(&value))
        };
        let may_contain = self.by_time[range].iter().copied().filter(|event| {
            let event = *event as usize;
            includes(&file.tenants, self.tenants.value(event)) && includes(&file.ids, self.ids.value(event))
        });
        may_contain.collect()
    }
}

impl Table {
    /// Returns, for each event, whether one of `files` contains its tenant, time and id. The files need not be live: a
    /// file that was rewritten after the caller had chosen it still has its rows.
    pub async fn stored(&self, files: &[Arc<DataFile>], keys: EventKeys) -> Result<Vec<bool>, ReadError> {
        let mut found = vec![false; keys.len()];
        let candidates: Vec<_> = files
            .iter()
            .map(|file| (file.clone(), keys.within(file)))
            .filter(|(_, events)| !events.is_empty())
            .collect();
        let keys = &keys;
        let mut lookups = futures::stream::iter(candidates)
            .map(|(file, events)| async move {
                let found = look_up(self, &file, keys, events).await;
                found.map_err(|error| ReadError::new(self.contract(), &file, error))
            })
            .buffer_unordered(READS_MAX);
        while let Some(events) = lookups.try_next().await? {
            events.into_iter().for_each(|event| found[event as usize] = true);
        }
        Ok(found)
    }
}

/// Returns the `events` that the file contains.
async fn look_up(table: &Table, file: &DataFile, keys: &EventKeys, mut events: Vec<u32>) -> ParquetResult<Vec<u32>> {
    let filter = match table.filters.get(&file.path) {
        Some(filter) => filter,
        None => table.filters.insert(&file.path, load_filter(table, file).await?),
    };
    events.retain(|event| filter.may_contain(keys.ids.value(*event as usize)));
    if events.is_empty() {
        return Ok(events);
    }
    let (contract, options) = (table.contract(), plain_types().with_page_index_policy(PageIndexPolicy::Optional));
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
        let row_times = rows.column_by_name(name(contract.time));
        let row_times = row_times.and_then(|array| array.as_primitive_opt::<TimestampMicrosecondType>());
        let (Some(tenants), Some(row_times), Some(ids)) = (text(contract.tenant), row_times, text(contract.id)) else {
            return Err(ParquetError::General("the key columns have unexpected types".into()));
        };
        for row in 0..rows.num_rows() {
            let time_of_row = row_times.value(row);
            if times.binary_search(&time_of_row).is_ok() {
                found.extend(wanted.get(&(tenants.value(row), time_of_row, ids.value(row))).into_iter().flatten());
            }
        }
    }
    Ok(found.into_iter().collect())
}

/// Loads the bloom filters for the file's event ids. Files from other writers may have no bloom filters.
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

/// Returns the index of a top-level column among the file's leaf columns.
fn leaf(contract: &Contract, column: usize, metadata: &ParquetMetaData) -> ParquetResult<usize> {
    let name = contract.columns[column].name.as_str();
    let leaves = metadata.file_metadata().schema_descr().columns();
    let found = leaves.iter().position(|leaf| matches!(leaf.path().parts(), [only] if only == name));
    found.ok_or_else(|| ParquetError::General(format!("the file has no column `{name}`")))
}

/// Returns the rows of the pages that may contain one of `times`, which must be sorted. Returns `None` if the file has
/// no page index. The caller then reads all rows.
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
            let may_contain = match (bounds.min_value(page), bounds.max_value(page)) {
                (Some(low), Some(high)) => {
                    times.get(times.partition_point(|time| time < low)).is_some_and(|time| time <= high)
                }
                _ => false,
            };
            if may_contain {
                ranges.push(*start..starts.get(page + 1).copied().unwrap_or(end));
            }
        }
        first_row = end;
    }
    Some(RowSelection::from_consecutive_ranges(ranges.into_iter(), first_row))
}
