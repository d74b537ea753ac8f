//! Selects the latest version of each key among rows that arrive in any order.
//!
//! The input is a sequence of batches that contains all versions of each key. For each key, [`LatestVersions`] stores
//! the row of the latest version found so far, and the location of this row: a batch and a row number.
//!
//! ```text
//!   batch ─► number of each row's key ─► later than the known version? ─ yes ─► store the row ─┐
//!                                                    ▲                                         ▼
//!                                       latest: key ─► (batch, row) ◄──── compact: drop superseded rows
//! ```
//!
//! **Invariant:** the latest version does not depend on the order of the rows. It is the version with the greatest
//! value in the column `by`. Null is the smallest value. Ties are broken by the greatest receive time, and then by the
//! greatest id.
//! **Invariant:** the number of stored rows is at most about twice the number of keys. Their memory is part of the
//! query's memory, which is limited.

use std::cmp::Ordering;
use std::mem;
use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, AsArray as _, Int64Array, RecordBatch, StringArray, UInt64Array};
use arrow::compute::{BatchCoalescer, cast, take_record_batch};
use arrow::datatypes::{DataType, Int64Type, Schema};
use datafusion::error::{DataFusionError, Result};
use datafusion::execution::memory_pool::MemoryReservation;
use datafusion::physical_plan::aggregates::group_values::{GroupValues, new_group_values};
use datafusion::physical_plan::aggregates::order::GroupOrdering;

/// The number of spare batches. The stored batches are compacted if their number exceeds twice the sum of the spare
/// batches and the batches that one row per key needs. The number of batches is limited because even a batch with few
/// rows takes about a kilobyte.
const SPARE_BATCHES: usize = 8;

/// The indexes of the input columns that contain the key, and of the columns by which versions are compared.
#[derive(Debug, Clone)]
pub(in crate::query) struct VersionLayout {
    /// The indexes of the key columns.
    pub(in crate::query) key: Vec<usize>,
    /// The index of the text, integer, timestamp or date column by which versions are compared first.
    pub(in crate::query) by: usize,
    /// The index of the column with the receive time.
    pub(in crate::query) received: usize,
    /// The index of the text column with the id of each version.
    pub(in crate::query) id: usize,
    /// The number of columns to return. These are the first columns of the input.
    pub(in crate::query) columns: usize,
}

/// Selects the latest version of each key from the batches that are passed to [`LatestVersions::add`].
pub(in crate::query) struct LatestVersions {
    layout: Arc<VersionLayout>,
    /// The distinct keys, which are numbered from 0.
    keys: Box<dyn GroupValues>,
    /// The latest version of each key, indexed by the key's number.
    latest: Vec<Option<Version>>,
    stored: Vec<StoredRows>,
    stored_rows: usize,
    stored_bytes: usize,
    /// For each row in the current batch, the number of its key.
    row_keys: Vec<usize>,
    batch_rows: usize,
    reservation: MemoryReservation,
}

/// The values by which a version is compared with others, and the location of its row.
#[derive(Debug, Clone, Copy)]
struct Version {
    /// The value of the column `by`. `None` if the value is null, or if the column is text. The text of a version is
    /// read from its row.
    by: Option<i64>,
    received: i64,
    batch: usize,
    row: usize,
}

/// A stored batch, which contains the columns to return, the id, and the column `by` if it is text. Some of the rows may
/// already be superseded.
struct StoredRows {
    rows: RecordBatch,
    /// For each row, the number of its key.
    keys: Vec<usize>,
}

/// The columns of a batch by which versions are compared.
struct VersionColumns {
    by: OrderColumn,
    received: Int64Array,
    ids: StringArray,
}

/// The values of the column `by`.
enum OrderColumn {
    Integers(Int64Array),
    Texts(StringArray),
}

/// The indexes of the columns of [`StoredRows`] that come after the columns to return, or that are among them.
#[derive(Debug, Clone, Copy)]
struct StoredColumns {
    id: usize,
    by: usize,
}

impl LatestVersions {
    /// Creates a selector for input rows with this schema. Compaction copies rows into batches of `batch_rows` rows.
    pub(in crate::query) fn new(
        layout: Arc<VersionLayout>,
        schema: &Schema,
        batch_rows: usize,
        reservation: MemoryReservation,
    ) -> Result<Self> {
        let keys = new_group_values(Arc::new(schema.project(&layout.key)?), &GroupOrdering::None)?;
        Ok(Self {
            layout,
            keys,
            latest: Vec::new(),
            stored: Vec::new(),
            stored_rows: 0,
            stored_bytes: 0,
            row_keys: Vec::new(),
            batch_rows,
            reservation,
        })
    }

    /// Adds a batch of rows. Fails if the stored rows exceed the query's memory limit.
    pub(in crate::query) fn add(&mut self, batch: &RecordBatch) -> Result<()> {
        let keys: Vec<ArrayRef> = self.layout.key.iter().map(|index| Arc::clone(batch.column(*index))).collect();
        self.keys.intern(&keys, &mut self.row_keys)?;
        self.latest.resize(self.keys.len(), None);
        let later_rows = self.compare(&VersionColumns::of(batch, &self.layout)?);
        if later_rows > 0 {
            self.store(batch, later_rows)?;
        }
        let batches = self.latest.len() / self.batch_rows + SPARE_BATCHES;
        if self.stored_rows > 2 * (self.latest.len() + self.batch_rows) || self.stored.len() > 2 * batches {
            self.compact()?;
        }
        self.update_reservation()
    }

    /// Returns the latest versions of all keys, without the columns that were only needed to select them.
    pub(in crate::query) fn finish(self) -> impl Iterator<Item = Result<RecordBatch>> {
        let Self { layout, latest, stored, mut stored_bytes, reservation, .. } = self;
        let columns: Vec<usize> = (0..layout.columns).collect();
        stored.into_iter().enumerate().map(move |(number, batch)| {
            stored_bytes -= batch.bytes();
            let rows = batch.only_latest(number, &latest)?.rows.project(&columns)?;
            reservation.resize(stored_bytes + mem::size_of_val(&*latest));
            Ok(rows)
        })
    }

    /// Compares each row in the current batch with the latest version known for its key, and records the row if it is
    /// later. Returns the number of rows in the batch that are now the latest versions.
    fn compare(&mut self, columns: &VersionColumns) -> usize {
        let (number, mut rows) = (self.stored.len(), 0);
        let indexes = self.layout.stored_columns();
        for (row, key) in self.row_keys.iter().enumerate() {
            let version = columns.version(number, row);
            if let Some(known) = &self.latest[*key] {
                let stored = self.stored.get(known.batch);
                let text_order = || match &columns.by {
                    OrderColumn::Integers(_) => Ordering::Equal,
                    OrderColumn::Texts(texts) => {
                        let known_texts = stored.map_or(texts, |stored| stored.texts(indexes.by));
                        text(texts, row).cmp(&text(known_texts, known.row))
                    }
                };
                let id_order = || {
                    let known_ids = stored.map_or(&columns.ids, |stored| stored.texts(indexes.id));
                    columns.ids.value(row).cmp(known_ids.value(known.row))
                };
                let order = version.by.cmp(&known.by).then_with(text_order);
                let order = order.then_with(|| version.received.cmp(&known.received)).then_with(id_order);
                if order != Ordering::Greater {
                    continue;
                }
                rows -= usize::from(known.batch == number);
            }
            rows += 1;
            self.latest[*key] = Some(version);
        }
        rows
    }

    /// Stores the current batch, which contains the latest known versions of `later_rows` keys. If these are fewer than
    /// half of the rows, only these rows are copied and stored. Otherwise, the whole batch is stored without a copy.
    fn store(&mut self, batch: &RecordBatch, later_rows: usize) -> Result<()> {
        let indexes = self.layout.columns_to_store(&batch.schema());
        let mut rows = StoredRows { rows: batch.project(&indexes)?, keys: self.row_keys.clone() };
        if later_rows < rows.keys.len() / 2 {
            rows = rows.only_latest(self.stored.len(), &self.latest)?;
            rows.update_locations(self.stored.len(), &mut self.latest);
        }
        self.push(rows);
        Ok(())
    }

    fn push(&mut self, rows: StoredRows) {
        self.stored_rows += rows.keys.len();
        self.stored_bytes += rows.bytes();
        self.stored.push(rows);
    }

    /// Drops superseded rows and copies the others. The caller compacts only when about half of the stored rows can be
    /// dropped, so the total cost of compaction is proportional to the number of input rows.
    fn compact(&mut self) -> Result<()> {
        let Some(first) = self.stored.first() else { return Ok(()) };
        let mut rows = BatchCoalescer::new(first.rows.schema(), self.batch_rows);
        let mut keys = Vec::with_capacity(self.latest.len());
        for (number, stored) in mem::take(&mut self.stored).into_iter().enumerate() {
            let stored = stored.only_latest(number, &self.latest)?;
            keys.extend(stored.keys);
            rows.push_batch(stored.rows)?;
        }
        rows.finish_buffered_batch()?;
        (self.stored_rows, self.stored_bytes) = (0, 0);
        let mut keys = keys.into_iter();
        while let Some(rows) = rows.next_completed_batch() {
            let stored = StoredRows { keys: keys.by_ref().take(rows.num_rows()).collect(), rows };
            stored.update_locations(self.stored.len(), &mut self.latest);
            self.push(stored);
        }
        Ok(())
    }

    /// Changes the memory reservation to the number of bytes in use.
    fn update_reservation(&mut self) -> Result<()> {
        let latest = self.latest.capacity() * size_of::<Option<Version>>();
        let row_keys = self.row_keys.capacity() * size_of::<usize>();
        self.reservation.try_resize(self.keys.size() + self.stored_bytes + latest + row_keys)
    }
}

impl VersionLayout {
    /// Returns the indexes of the input columns that are stored: the columns to return, and the texts by which versions
    /// are compared.
    fn columns_to_store(&self, schema: &Schema) -> Vec<usize> {
        let is_text = schema.field(self.by).data_type() == &DataType::Utf8;
        let id = (self.id >= self.columns).then_some(self.id);
        let by = (is_text && self.by >= self.columns && self.by != self.id).then_some(self.by);
        (0..self.columns).chain(id).chain(by).collect()
    }

    /// Returns the indexes of the texts in [`StoredRows`], in the order of [`VersionLayout::columns_to_store`].
    fn stored_columns(&self) -> StoredColumns {
        let id = self.id.min(self.columns);
        let by = match self.by {
            by if by < self.columns => by,
            by if by == self.id => id,
            _ => self.columns + usize::from(self.id >= self.columns),
        };
        StoredColumns { id, by }
    }
}

impl StoredRows {
    fn texts(&self, column: usize) -> &StringArray {
        self.rows.column(column).as_string::<i32>()
    }

    /// Keeps only the rows that are the latest versions of their keys. `number` is the index of this batch in the
    /// stored batches.
    fn only_latest(self, number: usize, latest: &[Option<Version>]) -> Result<Self> {
        let is_latest = |row: usize, key: usize| {
            latest[key].as_ref().is_some_and(|version| version.batch == number && version.row == row)
        };
        let remaining = self.keys.iter().enumerate().filter(|(row, key)| is_latest(*row, **key));
        let (indexes, keys): (Vec<u64>, Vec<usize>) = remaining.map(|(row, key)| (row as u64, *key)).unzip();
        if keys.len() == self.keys.len() {
            return Ok(self);
        }
        Ok(Self { rows: take_record_batch(&self.rows, &UInt64Array::from(indexes))?, keys })
    }

    /// Records that the latest version of each key in this batch is in batch `number`. Every row of this batch must be
    /// the latest version of its key.
    fn update_locations(&self, number: usize, latest: &mut [Option<Version>]) {
        for (row, key) in self.keys.iter().enumerate() {
            if let Some(version) = &mut latest[*key] {
                (version.batch, version.row) = (number, row);
            }
        }
    }

    fn bytes(&self) -> usize {
        self.rows.get_array_memory_size() + self.keys.capacity() * size_of::<usize>()
    }
}

impl VersionColumns {
    fn of(batch: &RecordBatch, layout: &VersionLayout) -> Result<Self> {
        let integers = |index: usize| -> Result<Int64Array> {
            Ok(cast(batch.column(index), &DataType::Int64)?.as_primitive::<Int64Type>().clone())
        };
        let ids = batch.column(layout.id).as_string_opt::<i32>().cloned();
        let ids = ids.ok_or_else(|| DataFusionError::Internal("the id column is not text".to_owned()))?;
        let by = match batch.column(layout.by).as_string_opt::<i32>() {
            Some(texts) => OrderColumn::Texts(texts.clone()),
            None => OrderColumn::Integers(integers(layout.by)?),
        };
        Ok(Self { by, received: integers(layout.received)?, ids })
    }

    fn version(&self, batch: usize, row: usize) -> Version {
        let by = match &self.by {
            OrderColumn::Integers(integers) => integers.is_valid(row).then(|| integers.value(row)),
            OrderColumn::Texts(_) => None,
        };
        Version { by, received: self.received.value(row), batch, row }
    }
}

/// Returns the text in a row. `None` is less than every text.
fn text(texts: &StringArray, row: usize) -> Option<&str> {
    texts.is_valid(row).then(|| texts.value(row))
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Field;
    use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryConsumer, MemoryPool};

    use super::*;

    const BATCH_ROWS: usize = 64;

    fn versions(pool: &Arc<dyn MemoryPool>) -> LatestVersions {
        let field = |name: &str, kind: DataType| Field::new(name, kind, true);
        let schema = Schema::new(vec![
            field("by", DataType::Int64),
            field("key", DataType::Int64),
            field("received", DataType::Int64),
            field("id", DataType::Utf8),
        ]);
        let layout = Arc::new(VersionLayout { key: vec![1], by: 0, received: 2, id: 3, columns: 1 });
        LatestVersions::new(layout, &schema, BATCH_ROWS, MemoryConsumer::new("test").register(pool)).unwrap()
    }

    fn batch(rows: impl Iterator<Item = (i64, i64)> + Clone) -> RecordBatch {
        let ids: StringArray = rows.clone().map(|(key, by)| Some(format!("{key}-{by}"))).collect();
        let column = |of: fn((i64, i64)) -> i64| Arc::new(rows.clone().map(of).collect::<Int64Array>()) as ArrayRef;
        let (by, key, received) = (column(|row| row.1), column(|row| row.0), column(|_| 0));
        RecordBatch::try_from_iter([("by", by), ("key", key), ("received", received), ("id", Arc::new(ids))]).unwrap()
    }

    fn finished(versions: LatestVersions) -> Vec<i64> {
        let mut found = Vec::new();
        for batch in versions.finish() {
            let batch = batch.unwrap();
            assert_eq!(batch.num_columns(), 1, "only the returned columns");
            found.extend(batch.column(0).as_primitive::<Int64Type>().values());
        }
        found.sort_unstable();
        found
    }

    #[test]
    fn memory_grows_with_keys_but_not_with_versions() {
        for (keys, rounds) in [(1, 2_000), (10, 500), (1_000, 40)] {
            let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(8 << 20));
            let mut versions = versions(&pool);
            let mut bytes_max = 0;
            for round in 0..rounds {
                // Each round adds a later version of every key. Every second round adds the keys in reverse order.
                let key = |index: i64| if round % 2 == 0 { index } else { keys - 1 - index };
                let rows: Vec<(i64, i64)> = (0..keys).map(|index| (key(index), round * keys + key(index))).collect();
                for rows in rows.chunks(BATCH_ROWS) {
                    versions.add(&batch(rows.iter().copied())).unwrap();
                    assert!(
                        versions.stored_rows <= 2 * (versions.latest.len() + BATCH_ROWS),
                        "{keys} keys, round {round}"
                    );
                }
                if round == 1 {
                    bytes_max = 4 * pool.reserved() + (64 << 10);
                }
                assert!(round < 2 || pool.reserved() <= bytes_max, "{keys} keys, round {round}: {}", pool.reserved());
            }
            let last = (rounds - 1) * keys;
            assert_eq!(finished(versions), (last..last + keys).collect::<Vec<_>>(), "{keys} keys");
            assert_eq!(pool.reserved(), 0);
        }
    }

    #[test]
    fn older_versions_that_arrive_later_are_not_stored() {
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(1 << 20));
        let mut versions = versions(&pool);
        for by in (0..500).rev() {
            versions.add(&batch((0..10).map(|key| (key, by * 10 + key)))).unwrap();
        }
        assert_eq!((versions.stored.len(), versions.stored_rows), (1, 10));
        assert_eq!(finished(versions), (4_990..5_000).collect::<Vec<_>>());
    }

    #[test]
    fn one_batch_may_contain_many_versions_of_a_key() {
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(1 << 20));
        for order in [[1, 2, 3], [3, 2, 1], [2, 3, 1], [3, 1, 2]] {
            let mut versions = versions(&pool);
            versions.add(&batch(order.into_iter().chain([2, 1]).map(|by| (7, by)))).unwrap();
            versions.add(&batch([(7, 2), (8, 5), (8, 4)].into_iter())).unwrap();
            assert_eq!(finished(versions), [3, 5], "{order:?}");
        }
    }

    /// Returns one version of the only key. Its receive time decreases with `version`, so that it contradicts the text.
    fn text_version(by: usize, texts: [Option<&str>; 2], version: i64) -> RecordBatch {
        let column = |index: usize| Arc::new(StringArray::from(vec![texts[usize::from(index != by)]])) as ArrayRef;
        let number = |value: i64| Arc::new(Int64Array::from(vec![value])) as ArrayRef;
        RecordBatch::try_from_iter([
            ("one", column(0)),
            ("two", column(1)),
            ("received", number(-version)),
            ("key", number(7)),
        ])
        .unwrap()
    }

    #[test]
    fn texts_order_versions_by_bytes_whichever_columns_are_returned() {
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(1 << 20));
        let ascending = [None, Some(""), Some("09"), Some("1"), Some("10"), Some("9"), Some("\u{e9}")];
        let pairs = (0..ascending.len()).flat_map(|one| (0..ascending.len()).map(move |other| [one, other]));
        for (by, id, columns) in [(0, 1, 0), (0, 1, 1), (0, 1, 2), (1, 0, 0), (1, 0, 1), (1, 0, 2), (1, 1, 1)] {
            for pair in pairs.clone().filter(|pair| pair[0] != pair[1] && (by != id || !pair.contains(&0))) {
                let layout = Arc::new(VersionLayout { key: vec![3], by, received: 2, id, columns });
                let [one, other] = pair
                    .map(|version| text_version(by, [ascending[version], Some("id")], i64::try_from(version).unwrap()));
                let reservation = MemoryConsumer::new("test").register(&pool);
                let mut versions = LatestVersions::new(layout, &one.schema(), BATCH_ROWS, reservation).unwrap();
                versions.add(&one).unwrap();
                versions.add(&other).unwrap();
                let newest = -i64::try_from(pair[0].max(pair[1])).unwrap();
                assert_eq!(versions.latest[0].unwrap().received, newest, "{by} {id} {columns}: {pair:?}");
            }
        }
    }

    #[test]
    fn exceeding_the_memory_limit_fails() {
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(64 << 10));
        let mut versions = versions(&pool);
        let added =
            (0..1_000).try_for_each(|part| versions.add(&batch((part * 64..part * 64 + 64).map(|key| (key, 1)))));
        assert!(matches!(added, Err(DataFusionError::ResourcesExhausted(_))), "{added:?}");
    }
}
