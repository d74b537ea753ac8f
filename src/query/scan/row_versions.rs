//! Finds the newest version of each key in rows that arrive in any order.
//!
//! In: batches of one tenant's rows that contain all versions of a key. Out: the newest version of each key.
//!
//! ```text
//!   batch ─► number of each row's key ─► newer than the known version? ─► hold the newest rows of the batch ─┐
//!                                                    ▲                                                       ▼
//!                                       newest: key ─► (batch, row) ◄──── compact: drop superseded rows
//! ```
//!
//! **Invariant:** the newest version depends on the rows alone, not on their order: the greatest `by` (null is the
//! least), then the greatest receive time, then the greatest id.
//! **Invariant:** at most about two rows per key are held, and their memory is accounted for.

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

/// Batches that may be held in addition to those that the keys fill: a batch takes about a kilobyte regardless of its
/// rows.
const HELD_SPARE: usize = 8;

/// The columns that identify and order versions, as indexes in the input rows.
#[derive(Debug, Clone)]
pub(in crate::query) struct ColumnPlaces {
    /// The key, unique within the tenant.
    pub(in crate::query) key: Vec<usize>,
    /// The declared order: an integer, timestamp or date.
    pub(in crate::query) by: usize,
    /// The receive time.
    pub(in crate::query) received: usize,
    /// The text id of each version.
    pub(in crate::query) id: usize,
    /// The number of columns to return: the first ones.
    pub(in crate::query) columns: usize,
}

/// The state after some batches.
pub(in crate::query) struct Versions {
    places: Arc<ColumnPlaces>,
    /// Numbers the keys from 0.
    keys: Box<dyn GroupValues>,
    /// The newest version of each key, by key number.
    newest: Vec<Option<Version>>,
    held: Vec<HeldRows>,
    held_rows: usize,
    held_bytes: usize,
    /// The key of each row of the current batch.
    numbers: Vec<usize>,
    batch_rows: usize,
    memory: MemoryReservation,
}

/// How new a version is, and where its row is held.
#[derive(Debug, Clone, Copy)]
struct Version {
    by: Option<i64>,
    received: i64,
    batch: usize,
    row: usize,
}

/// Rows that are, or were on arrival, the newest of their keys: the returned columns, and the id.
struct HeldRows {
    rows: RecordBatch,
    /// The key of each row.
    keys: Vec<usize>,
}

/// The columns of one batch that order its rows.
struct VersionColumns {
    by: Int64Array,
    received: Int64Array,
    ids: StringArray,
}

impl Versions {
    /// For rows of `schema`, held in batches of `batch_rows`.
    pub(in crate::query) fn new(
        places: Arc<ColumnPlaces>,
        schema: &Schema,
        batch_rows: usize,
        memory: MemoryReservation,
    ) -> Result<Self> {
        let keys = new_group_values(Arc::new(schema.project(&places.key)?), &GroupOrdering::None)?;
        let (newest, held, numbers) = (Vec::new(), Vec::new(), Vec::new());
        Ok(Self { places, keys, newest, held, held_rows: 0, held_bytes: 0, numbers, batch_rows, memory })
    }

    /// Adds a batch. Fails if the memory limit of the query does not allow holding its newest rows.
    pub(in crate::query) fn take(&mut self, batch: &RecordBatch) -> Result<()> {
        let keys: Vec<ArrayRef> = self.places.key.iter().map(|place| Arc::clone(batch.column(*place))).collect();
        self.keys.intern(&keys, &mut self.numbers)?;
        self.newest.resize(self.keys.len(), None);
        let newest_rows = self.compare(&VersionColumns::of(batch, &self.places)?);
        if newest_rows > 0 {
            self.hold(batch, newest_rows)?;
        }
        let batches = self.newest.len() / self.batch_rows + HELD_SPARE;
        if self.held_rows > 2 * (self.newest.len() + self.batch_rows) || self.held.len() > 2 * batches {
            self.compact()?;
        }
        self.account()
    }

    /// The newest version of each key, in the returned columns.
    pub(in crate::query) fn finish(self) -> impl Iterator<Item = Result<RecordBatch>> {
        let Self { places, newest, held, mut held_bytes, memory, .. } = self;
        let columns: Vec<usize> = (0..places.columns).collect();
        held.into_iter().enumerate().map(move |(number, batch)| {
            held_bytes -= batch.bytes();
            let rows = batch.newest(number, &newest)?.rows.project(&columns)?;
            memory.resize(held_bytes + mem::size_of_val(&*newest));
            Ok(rows)
        })
    }

    /// Marks the rows of the current batch that are newer than the known versions of their keys; returns their number.
    fn compare(&mut self, ranks: &VersionColumns) -> usize {
        let (number, mut rows) = (self.held.len(), 0);
        let id_place = self.places.id.min(self.places.columns);
        for (row, key) in self.numbers.iter().enumerate() {
            let version = ranks.version(number, row);
            if let Some(known) = &self.newest[*key] {
                let order = (version.by, version.received).cmp(&(known.by, known.received)).then_with(|| {
                    let known = match self.held.get(known.batch) {
                        Some(held) => held.rows.column(id_place).as_string::<i32>().value(known.row),
                        None => ranks.ids.value(known.row),
                    };
                    ranks.ids.value(row).cmp(known)
                });
                if order != Ordering::Greater {
                    continue;
                }
                rows -= usize::from(known.batch == number);
            }
            rows += 1;
            self.newest[*key] = Some(version);
        }
        rows
    }

    /// Holds the current batch: unchanged if most of its rows are needed, else a copy of the needed rows.
    fn hold(&mut self, batch: &RecordBatch, newest_rows: usize) -> Result<()> {
        let ColumnPlaces { columns, id, .. } = *self.places;
        let held: Vec<usize> = (0..columns).chain((id >= columns).then_some(id)).collect();
        let mut held = HeldRows { rows: batch.project(&held)?, keys: self.numbers.clone() };
        if newest_rows < held.keys.len() / 2 {
            held = held.newest(self.held.len(), &self.newest)?;
            held.mark(self.held.len(), &mut self.newest);
        }
        self.push(held);
        Ok(())
    }

    fn push(&mut self, held: HeldRows) {
        self.held_rows += held.keys.len();
        self.held_bytes += held.bytes();
        self.held.push(held);
    }

    /// Drops superseded rows. It copies the rows it keeps, and runs only when it can drop as many.
    fn compact(&mut self) -> Result<()> {
        let Some(first) = self.held.first() else { return Ok(()) };
        let mut rows = BatchCoalescer::new(first.rows.schema(), self.batch_rows);
        let mut keys = Vec::with_capacity(self.newest.len());
        for (number, held) in mem::take(&mut self.held).into_iter().enumerate() {
            let held = held.newest(number, &self.newest)?;
            keys.extend(held.keys);
            rows.push_batch(held.rows)?;
        }
        rows.finish_buffered_batch()?;
        (self.held_rows, self.held_bytes) = (0, 0);
        let mut keys = keys.into_iter();
        while let Some(rows) = rows.next_completed_batch() {
            let held = HeldRows { keys: keys.by_ref().take(rows.num_rows()).collect(), rows };
            held.mark(self.held.len(), &mut self.newest);
            self.push(held);
        }
        Ok(())
    }

    fn account(&mut self) -> Result<()> {
        let newest = self.newest.capacity() * size_of::<Option<Version>>();
        let numbers = self.numbers.capacity() * size_of::<usize>();
        self.memory.try_resize(self.keys.size() + self.held_bytes + newest + numbers)
    }
}

impl HeldRows {
    /// The rows of this held batch that no newer version has superseded.
    fn newest(self, number: usize, newest: &[Option<Version>]) -> Result<Self> {
        let is_newest = |row: usize, key: usize| {
            newest[key].as_ref().is_some_and(|version| version.batch == number && version.row == row)
        };
        let places = self.keys.iter().enumerate().filter(|(row, key)| is_newest(*row, **key));
        let (places, keys): (Vec<u64>, Vec<usize>) = places.map(|(row, key)| (row as u64, *key)).unzip();
        if keys.len() == self.keys.len() {
            return Ok(self);
        }
        Ok(Self { rows: take_record_batch(&self.rows, &UInt64Array::from(places))?, keys })
    }

    /// Updates the locations of the newest versions: all of these rows are such.
    fn mark(&self, number: usize, newest: &mut [Option<Version>]) {
        for (row, key) in self.keys.iter().enumerate() {
            if let Some(version) = &mut newest[*key] {
                (version.batch, version.row) = (number, row);
            }
        }
    }

    fn bytes(&self) -> usize {
        self.rows.get_array_memory_size() + self.keys.capacity() * size_of::<usize>()
    }
}

impl VersionColumns {
    fn of(batch: &RecordBatch, places: &ColumnPlaces) -> Result<Self> {
        let number = |place: usize| -> Result<Int64Array> {
            Ok(cast(batch.column(place), &DataType::Int64)?.as_primitive::<Int64Type>().clone())
        };
        let ids = batch.column(places.id).as_string_opt::<i32>().cloned();
        let ids = ids.ok_or_else(|| DataFusionError::Internal("an id is not text".to_owned()))?;
        Ok(Self { by: number(places.by)?, received: number(places.received)?, ids })
    }

    fn version(&self, batch: usize, row: usize) -> Version {
        let by = self.by.is_valid(row).then(|| self.by.value(row));
        Version { by, received: self.received.value(row), batch, row }
    }
}

#[cfg(test)]
mod tests {
    use arrow::datatypes::Field;
    use datafusion::execution::memory_pool::{GreedyMemoryPool, MemoryConsumer, MemoryPool};

    use super::*;

    const BATCH_ROWS: usize = 64;

    fn versions(pool: &Arc<dyn MemoryPool>) -> Versions {
        let field = |name: &str, kind: DataType| Field::new(name, kind, true);
        let schema = Schema::new(vec![
            field("by", DataType::Int64),
            field("key", DataType::Int64),
            field("received", DataType::Int64),
            field("id", DataType::Utf8),
        ]);
        let places = Arc::new(ColumnPlaces { key: vec![1], by: 0, received: 2, id: 3, columns: 1 });
        Versions::new(places, &schema, BATCH_ROWS, MemoryConsumer::new("test").register(pool)).unwrap()
    }

    fn batch(rows: impl Iterator<Item = (i64, i64)> + Clone) -> RecordBatch {
        let ids: StringArray = rows.clone().map(|(key, by)| Some(format!("{key}-{by}"))).collect();
        let column = |of: fn((i64, i64)) -> i64| Arc::new(rows.clone().map(of).collect::<Int64Array>()) as ArrayRef;
        let (by, key, received) = (column(|row| row.1), column(|row| row.0), column(|_| 0));
        RecordBatch::try_from_iter([("by", by), ("key", key), ("received", received), ("id", Arc::new(ids))]).unwrap()
    }

    fn finished(versions: Versions) -> Vec<i64> {
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
    fn memory_grows_with_keys_and_not_with_versions() {
        for (keys, rounds) in [(1, 2_000), (10, 500), (1_000, 40)] {
            let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(8 << 20));
            let mut versions = versions(&pool);
            let mut most = 0;
            for round in 0..rounds {
                // Each round adds a newer version of every key, alternating the order of the keys.
                let key = |place: i64| if round % 2 == 0 { place } else { keys - 1 - place };
                let rows: Vec<(i64, i64)> = (0..keys).map(|place| (key(place), round * keys + key(place))).collect();
                for rows in rows.chunks(BATCH_ROWS) {
                    versions.take(&batch(rows.iter().copied())).unwrap();
                    assert!(
                        versions.held_rows <= 2 * (versions.newest.len() + BATCH_ROWS),
                        "{keys} keys, round {round}"
                    );
                }
                if round == 1 {
                    most = 4 * pool.reserved() + (64 << 10);
                }
                assert!(round < 2 || pool.reserved() <= most, "{keys} keys, round {round}: {}", pool.reserved());
            }
            let last = (rounds - 1) * keys;
            assert_eq!(finished(versions), (last..last + keys).collect::<Vec<_>>(), "{keys} keys");
            assert_eq!(pool.reserved(), 0);
        }
    }

    #[test]
    fn late_older_versions_are_not_held() {
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(1 << 20));
        let mut versions = versions(&pool);
        for by in (0..500).rev() {
            versions.take(&batch((0..10).map(|key| (key, by * 10 + key)))).unwrap();
        }
        assert_eq!((versions.held.len(), versions.held_rows), (1, 10));
        assert_eq!(finished(versions), (4_990..5_000).collect::<Vec<_>>());
    }

    #[test]
    fn one_batch_may_hold_many_versions_of_a_key() {
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(1 << 20));
        for order in [[1, 2, 3], [3, 2, 1], [2, 3, 1], [3, 1, 2]] {
            let mut versions = versions(&pool);
            versions.take(&batch(order.into_iter().chain([2, 1]).map(|by| (7, by)))).unwrap();
            versions.take(&batch([(7, 2), (8, 5), (8, 4)].into_iter())).unwrap();
            assert_eq!(finished(versions), [3, 5], "{order:?}");
        }
    }

    #[test]
    fn exceeding_the_memory_limit_is_an_error() {
        let pool: Arc<dyn MemoryPool> = Arc::new(GreedyMemoryPool::new(64 << 10));
        let mut versions = versions(&pool);
        let taken =
            (0..1_000).try_for_each(|part| versions.take(&batch((part * 64..part * 64 + 64).map(|key| (key, 1)))));
        assert!(matches!(taken, Err(DataFusionError::ResourcesExhausted(_))), "{taken:?}");
    }
}
