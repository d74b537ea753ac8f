//! Sorts rows and splits them into files by UTC day.
//!
//! ```text
//!   rows ─► sort by (day, tenant, time, id) ─► gather ─► a file per UTC day ─► bytes and bounds
//! ```
//!
//! The input is rows of one contract in any order. The output is [`EncodedFile`]s in memory. A tenant's rows are
//! contiguous in a file, so the tenant's queries read few pages.

use std::ops::Range;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch, StringArray};
use arrow::compute::{max, max_string, min, min_string};
use arrow::datatypes::TimestampMicrosecondType;

use crate::clock::{DAY, Micros};
use crate::contract::{Contract, EventBatch};
use crate::error::{Error, Result};
use crate::lake::log::stats::{FileBounds, string_bound, time_bound};
use crate::lake::parquet_writer::parquet_file::{WriteOptions, parquet_file};
use crate::lake::parquet_writer::take::gather;

/// The number of recently seen tenants that [`ranks`] caches.
const TENANTS_CACHED: usize = 64;

/// An encoded Parquet file that has not been stored yet.
#[derive(Debug)]
pub(in crate::lake) struct EncodedFile {
    /// The UTC day of all rows, in days since 1970.
    pub(in crate::lake) day: i32,
    pub(in crate::lake) bytes: Vec<u8>,
    pub(in crate::lake) bounds: FileBounds,
}

/// The selected rows of a batch, in any order.
#[derive(Debug, Clone)]
pub struct RowSelection {
    batch: EventBatch,
    /// The indexes of the selected rows, or `None` if all rows are selected.
    rows: Option<Vec<u32>>,
}

impl RowSelection {
    /// Selects the rows of `batch` at these indexes. The rows are copied only once, when they are sorted.
    pub fn new(batch: EventBatch, rows: Vec<u32>) -> Self {
        Self { batch, rows: Some(rows) }
    }

    /// Returns the number of selected rows.
    pub fn len(&self) -> usize {
        self.rows.as_ref().map_or(self.batch.num_rows(), Vec::len)
    }

    /// Returns true if no rows are selected.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Returns the selected rows as a batch.
    #[cfg(test)]
    pub fn to_batch(&self) -> EventBatch {
        let rows = self.rows.clone().unwrap_or_else(|| (0..self.batch.num_rows() as u32).collect());
        gather(&self.batch, &rows).unwrap()
    }
}

impl From<EventBatch> for RowSelection {
    fn from(batch: EventBatch) -> Self {
        Self { batch, rows: None }
    }
}

/// Sorts rows and encodes one file for each UTC day.
pub(in crate::lake) fn encode(
    contract: &Contract,
    options: &WriteOptions,
    rows: &RowSelection,
) -> Result<Vec<EncodedFile>> {
    let (rows, days) = sort(contract, rows)?;
    days.into_iter()
        .map(|(day, range)| encode_day(contract, options, day, rows.slice(range.start, range.len())))
        .collect()
}

/// For each UTC day (in days since 1970), the range of its rows.
type Days = Vec<(i32, Range<usize>)>;

/// Sorts rows by (day, tenant, time, id), and returns them with the range of each day.
fn sort(contract: &Contract, rows: &RowSelection) -> Result<(EventBatch, Days)> {
    let keys = sorted_keys(contract, rows)?;
    let mut days = Days::new();
    for (index, key) in keys.iter().enumerate() {
        match days.last_mut() {
            Some((day, range)) if *day == key.day() => range.end = index + 1,
            _ => days.push((key.day(), index..index + 1)),
        }
    }
    if keys.len() == rows.batch.num_rows() && keys.iter().zip(0..).all(|(key, row)| key.row == row) {
        return Ok((rows.batch.clone(), days));
    }
    let order: Vec<u32> = keys.into_iter().map(|key| key.row).collect();
    let rows = gather(&rows.batch, &order).map_err(|error| internal(contract, error))?;
    Ok((rows, days))
}

/// The sort key of a row. Comparing strings is slow, so the key contains the tenant's rank instead of its name. The key
/// contains only eight bytes of the id: those that follow the common prefix of all ids. Whole ids are compared only if
/// these bytes are equal.
#[derive(Debug, Clone, Copy)]
struct SortKey {
    /// The day, tenant rank and time, packed into one number that sorts like the tuple of the three.
    day_tenant_time: u128,
    /// The eight bytes of the id, as a number that sorts like the bytes.
    id: u64,
    row: u32,
}

impl SortKey {
    fn new(day: i32, tenant_rank: u32, time: Micros, id: u64, row: u32) -> Self {
        // Flipping the sign bit of signed numbers gives unsigned numbers that sort in the same order.
        let (day, time) = (day.cast_unsigned() ^ (1 << 31), time.cast_unsigned() ^ (1 << 63));
        let day_tenant_time = u128::from(day) << 96 | u128::from(tenant_rank) << 64 | u128::from(time);
        Self { day_tenant_time, id, row }
    }

    fn day(&self) -> i32 {
        ((self.day_tenant_time >> 96) as u32 ^ (1 << 31)).cast_signed()
    }

    /// Returns the fields that are compared first. The whole id and the row index are compared only if these fields are
    /// equal.
    fn packed(&self) -> (u128, u64) {
        (self.day_tenant_time, self.id)
    }
}

/// Returns the eight bytes of a string that begin at `start`, as a number that sorts like the bytes. Missing bytes are
/// zero.
pub(crate) fn eight_bytes(string: &str, start: usize) -> u64 {
    let rest = string.as_bytes().get(start..).unwrap_or_default();
    match rest.first_chunk() {
        Some(bytes) => u64::from_be_bytes(*bytes),
        None => {
            let mut bytes = [0; 8];
            bytes[..rest.len()].copy_from_slice(rest);
            u64::from_be_bytes(bytes)
        }
    }
}

/// Returns the length of the prefix that all strings share.
pub(crate) fn common_prefix(strings: &StringArray) -> usize {
    let mut rows = (0..strings.len()).map(|row| strings.value(row).as_bytes());
    let Some(mut prefix) = rows.next() else { return 0 };
    for string in rows {
        if !string.starts_with(prefix) {
            let count = prefix.iter().zip(string).take_while(|(one, other)| one == other).count();
            prefix = &prefix[..count];
        }
    }
    prefix.len()
}

fn sorted_keys(contract: &Contract, selection: &RowSelection) -> Result<Vec<SortKey>> {
    let rows = &selection.batch;
    let tenants = text_column(contract, rows, contract.tenant)?;
    let times = rows
        .column(contract.time)
        .as_primitive_opt::<TimestampMicrosecondType>()
        .ok_or_else(|| internal(contract, "the time column is not in microseconds"))?;
    let ids = text_column(contract, rows, contract.id)?;
    let count = u32::try_from(rows.num_rows()).map_err(|error| internal(contract, error))?;
    let (ranks, prefix) = (ranks(tenants), common_prefix(ids));
    let key = |row: u32| {
        let index = row as usize;
        let time = times.value(index);
        let day = i32::try_from(time.div_euclid(DAY)).map_err(|error| internal(contract, error))?;
        Ok(SortKey::new(day, ranks[index], time, eight_bytes(ids.value(index), prefix), row))
    };
    let mut keys = match &selection.rows {
        Some(rows) => rows.iter().copied().map(key).collect::<Result<Vec<_>>>()?,
        None => (0..count).map(key).collect::<Result<Vec<_>>>()?,
    };
    keys.sort_unstable_by(|left, right| {
        (left.packed().cmp(&right.packed()))
            .then_with(|| ids.value(left.row as usize).cmp(ids.value(right.row as usize)))
            .then_with(|| left.row.cmp(&right.row))
    });
    Ok(keys)
}

/// Returns the rank of each row's tenant among the batch's sorted tenants.
fn ranks(tenants: &StringArray) -> Vec<u32> {
    let mut numbers = std::collections::HashMap::new();
    let mut names = Vec::new();
    // A few tenants send most rows, so recently seen tenants are cached.
    let mut cache = [("", 0); TENANTS_CACHED];
    let rows: Vec<u32> = (0..tenants.len())
        .map(|row| {
            let name = tenants.value(row);
            let last = name.bytes().next_back().map_or(0, usize::from);
            let cached = &mut cache[(last + name.len()) % TENANTS_CACHED];
            if cached.0 != name || name.is_empty() {
                let number = *numbers.entry(name).or_insert_with(|| {
                    names.push(name);
                    names.len() as u32 - 1
                });
                *cached = (name, number);
            }
            cached.1
        })
        .collect();
    let mut sorted: Vec<u32> = (0..names.len() as u32).collect();
    sorted.sort_unstable_by_key(|number| names[*number as usize]);
    let mut rank_of = vec![0; names.len()];
    for (rank, number) in (0..).zip(sorted) {
        rank_of[number as usize] = rank;
    }
    rows.into_iter().map(|number| rank_of[number as usize]).collect()
}

fn encode_day(contract: &Contract, options: &WriteOptions, day: i32, rows: EventBatch) -> Result<EncodedFile> {
    let bytes = parquet_file(contract, options, &rows).map_err(|error| internal(contract, error))?;
    Ok(EncodedFile { day, bytes, bounds: bounds(contract, &rows)? })
}

fn bounds(contract: &Contract, rows: &RecordBatch) -> Result<FileBounds> {
    let strings = |column: usize| {
        let values = rows.column(column).as_string_opt::<i32>()?;
        string_bound(min_string(values)?, max_string(values)?)
    };
    let times = |column: usize| {
        let values = rows.column(column).as_primitive_opt::<TimestampMicrosecondType>()?;
        time_bound(min(values)?, max(values)?)
    };
    // The rows are sorted by tenant.
    let tenants = || {
        let values = rows.column(contract.tenant).as_string_opt::<i32>().filter(|values| !values.is_empty())?;
        string_bound(values.value(0), values.value(values.len() - 1))
    };
    Ok(FileBounds {
        rows: rows.num_rows() as u64,
        tenants: tenants(),
        times: times(contract.time),
        ids: strings(contract.id),
        received: times(contract.received),
    })
}

fn text_column<'a>(contract: &Contract, rows: &'a RecordBatch, column: usize) -> Result<&'a StringArray> {
    let values: &ArrayRef = rows.column(column);
    values.as_string_opt::<i32>().ok_or_else(|| internal(contract, "a key column is not text"))
}

fn internal(contract: &Contract, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Error {
    Error::internal(format!("table `{}`: cannot encode rows", contract.name)).with_source(error)
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
    use parquet::basic::{Compression, Encoding};
    use parquet::file::metadata::SortingColumn;
    use parquet::file::properties::ReaderProperties;
    use parquet::file::reader::FileReader;
    use parquet::file::serialized_reader::{ReadOptionsBuilder, SerializedFileReader};

    use super::*;
    use crate::clock::SECOND;
    use crate::lake::tests::{Event, NOON, batch, contract};

    fn options(row_group_rows_max: usize) -> WriteOptions {
        WriteOptions { compression_level: 1, row_group_rows_max }
    }

    fn events(events: &[(&'static str, Micros, &str)]) -> Vec<Event<'static>> {
        events.iter().map(|(tenant, time, id)| (*tenant, *time, (*id).to_owned())).collect()
    }

    /// Returns the (tenant, time, id) of each row, in the order of the file.
    fn read(file: &EncodedFile) -> Vec<Event<'static>> {
        let reader =
            ParquetRecordBatchReaderBuilder::try_new(Bytes::from(file.bytes.clone())).unwrap().build().unwrap();
        let mut events = Vec::new();
        for rows in reader {
            let rows = rows.unwrap();
            assert_eq!(rows.schema().fields(), contract().schema().fields(), "the schema is preserved");
            let (tenants, ids) = (rows.column(0).as_string::<i32>(), rows.column(2).as_string::<i32>());
            let times = rows.column(1).as_primitive::<TimestampMicrosecondType>();
            let tenant = |row| if tenants.value(row) == "acme" { "acme" } else { "zeta" };
            events.extend((0..rows.num_rows()).map(|row| (tenant(row), times.value(row), ids.value(row).to_owned())));
        }
        events
    }

    #[test]
    fn each_day_has_one_sorted_file() {
        let day = NOON.div_euclid(DAY) as i32;
        let rows = events(&[
            ("zeta", NOON, "b"),
            ("acme", NOON + 1, "c"),
            ("zeta", NOON, "a"),
            ("acme", -1, "before 1970"),
            ("acme", NOON, "d"),
            ("zeta", DAY * i64::from(day + 1), "first of the next day"),
            ("zeta", DAY * i64::from(day + 1) - 1, "last of the day"),
        ]);
        let files = encode(&contract(), &options(100), &batch(&contract(), &rows).into()).unwrap();
        let found: Vec<_> = files.iter().map(|file| (file.day, read(file))).collect();
        let expected = [
            (-1, events(&[("acme", -1, "before 1970")])),
            (
                day,
                events(&[
                    ("acme", NOON, "d"),
                    ("acme", NOON + 1, "c"),
                    ("zeta", NOON, "a"),
                    ("zeta", NOON, "b"),
                    ("zeta", DAY * i64::from(day + 1) - 1, "last of the day"),
                ]),
            ),
            (day + 1, events(&[("zeta", DAY * i64::from(day + 1), "first of the next day")])),
        ];
        assert_eq!(found, expected);
        let bounds = &files[1].bounds;
        assert_eq!((bounds.rows, bounds.tenants.clone().unwrap()), (5, ("acme".into(), "zeta".into())));
        assert_eq!(bounds.ids.clone().unwrap(), ("a".into(), "last of the day".into()));
        assert_eq!(
            bounds.times.unwrap(),
            (NOON, DAY * i64::from(day + 1) + 999),
            "rounded up to the end of a millisecond"
        );
    }

    #[test]
    fn files_have_row_groups_page_indexes_and_bloom_filters() {
        let rows: Vec<_> = (0..50_000)
            .map(|number| ("acme", NOON + (number * 7_919 % 50_000) / 10 * SECOND / 1_000, format!("{number:032x}")))
            .collect();
        let file = encode(&contract(), &options(30_000), &batch(&contract(), &rows).into()).unwrap().remove(0);
        let properties = ReaderProperties::builder().set_read_bloom_filter(true).build();
        let options = ReadOptionsBuilder::new().with_page_index().with_reader_properties(properties).build();
        let reader = SerializedFileReader::new_with_options(Bytes::from(file.bytes), options).unwrap();
        let metadata = reader.metadata();
        assert_eq!(metadata.row_groups().iter().map(|group| group.num_rows()).collect::<Vec<_>>(), [30_000, 20_000]);
        assert!(metadata.column_index().is_some() && metadata.offset_index().is_some(), "page index");
        let pages = &metadata.offset_index().unwrap()[0][1];
        assert!(pages.page_locations().len() > 1, "the time column has several pages");
        let sorting = |column_idx| SortingColumn { column_idx, descending: false, nulls_first: false };
        let mut found = 0;
        for group in 0..2 {
            assert_eq!(metadata.row_group(group).sorting_columns().unwrap(), &[sorting(0), sorting(1), sorting(2)]);
            let group = reader.get_row_group(group).unwrap();
            let bloom = group.get_column_bloom_filter(2).expect("a bloom filter on ids");
            found += rows.iter().filter(|event| bloom.check(event.2.as_str())).count();
            assert!(group.get_column_bloom_filter(0).is_none(), "no other column has a bloom filter");
        }
        assert!(
            (50_000..52_000).contains(&found),
            "every id is in its group's filter, and few are in the other's: {found}"
        );
    }

    #[test]
    fn column_encodings_depend_on_the_type() {
        let rows: Vec<_> = (0..1_000).map(|number| ("acme", NOON + number, format!("{number:032x}"))).collect();
        let file = encode(&contract(), &options(30_000), &batch(&contract(), &rows).into()).unwrap().remove(0);
        let reader = SerializedFileReader::new(Bytes::from(file.bytes)).unwrap();
        let group = reader.metadata().row_group(0);
        for (column, encoding, dictionary, bounds) in [
            ("tenant_id", Encoding::RLE_DICTIONARY, true, true),
            ("event_time", Encoding::DELTA_BINARY_PACKED, false, true),
            ("event_id", Encoding::PLAIN, false, true),
            ("received_time", Encoding::DELTA_BINARY_PACKED, false, true),
            ("region", Encoding::RLE_DICTIONARY, true, true),
            ("mos", Encoding::BYTE_STREAM_SPLIT, false, true),
            ("hops", Encoding::DELTA_BINARY_PACKED, false, true),
            ("labels.key_value.key", Encoding::RLE_DICTIONARY, true, false),
        ] {
            let chunk = group.columns().iter().find(|chunk| chunk.column_path().string() == column).unwrap();
            assert!(chunk.encodings().any(|found| found == encoding), "{column}");
            assert_eq!(chunk.dictionary_page_offset().is_some(), dictionary, "{column}");
            assert!(matches!(chunk.compression(), Compression::ZSTD(_)), "{column}");
            assert_eq!(chunk.statistics().is_some(), bounds, "{column}");
        }
    }

    #[test]
    fn rows_of_another_contract_are_refused() {
        let other = crate::lake::tests::contract_of(&[
            ("tenant_id", "text"),
            ("event_time", "timestamp"),
            ("event_id", "text"),
        ]);
        let rows = batch(&other, &events(&[("acme", NOON, "a")]));
        assert!(encode(&contract(), &options(1), &rows.into()).is_err());
    }
}
