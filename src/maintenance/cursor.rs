//! Reads one input of a merge, batch by batch in the order of its rows.
//!
//! ```text
//!   bytes of a row group ─► decode ─► add to the proof ─► drop expired rows ─► check the order ─► batches ─► take
//! ```
//!
//! **Invariant:** a cursor returns no rows that the merge drops because they are expired.
//! **Invariant:** the rows of a cursor are in the order (tenant, time, id). A file that turns out not to be sorted is
//! refused. A small file that does not claim to be sorted is sorted in memory.

use std::collections::VecDeque;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef};
use parquet::file::metadata::RowGroupMetaData;

use crate::contract::ExpiryBounds;
use crate::error::{Error, Result};
use crate::lake::{FileBytes, MergeInput, RowGroupRows};
use crate::maintenance::expired_rows::{SplitRows, split};
use crate::maintenance::gather::{Run, gather};
use crate::maintenance::order::{Key, Keys};
use crate::maintenance::proof::{RowHasher, RowSum};
use crate::supervise::catch;

/// The number of rows per batch while a file is sorted in memory.
const SORT_BATCH_ROWS: usize = 65_536;

/// An input and the rows that have been decoded but not merged.
pub(super) struct Cursor {
    pub(super) input: MergeInput,
    /// False until the merge reaches the smallest tenant of the file.
    pub(super) is_open: bool,
    next_group: usize,
    reader: Option<(RowGroupRows, usize)>,
    batches: VecDeque<DecodedBatch>,
    /// The last key that has been decoded.
    last: Option<Key>,
    /// The proof over all decoded rows.
    pub(super) sum: RowSum,
    /// The proof over the rows that were dropped.
    pub(super) dropped: RowSum,
    expiry: Arc<ExpiryBounds>,
}

/// Decoded rows, of which the first `start` have been merged.
pub(super) struct DecodedBatch {
    pub(super) columns: Vec<ArrayRef>,
    pub(super) keys: Keys,
    pub(super) start: usize,
    bytes: usize,
}

impl Cursor {
    pub(super) fn new(input: MergeInput, expiry: &Arc<ExpiryBounds>) -> Self {
        let is_open = input.file.tenants.is_none();
        let (sum, dropped, expiry) = (RowSum::default(), RowSum::default(), Arc::clone(expiry));
        let batches = VecDeque::new();
        Self { input, is_open, next_group: 0, reader: None, batches, last: None, sum, dropped, expiry }
    }

    /// Returns the path of the file.
    pub(super) fn path(&self) -> &Arc<str> {
        &self.input.file.path
    }

    /// Returns the next row group if its bytes are needed to have `batch_rows` decoded rows.
    pub(super) fn needed_group(&self, batch_rows: usize) -> Option<usize> {
        let has_group = self.next_group < self.input.decoder.groups();
        (self.is_open && has_group && self.reader.is_none() && self.rows() < batch_rows).then_some(self.next_group)
    }

    /// Starts to decode the next row group.
    pub(super) fn start_group(&mut self, bytes: FileBytes, batch_rows: usize) -> Result<()> {
        let (group, held) = (self.next_group, bytes.bytes.len());
        let decoded = catch(|| self.input.decoder.decode(group, bytes, batch_rows));
        self.reader = Some((decoded.map_err(panicked)??, held));
        self.next_group += 1;
        Ok(())
    }

    /// Decodes until there are `batch_rows` rows or the row group ends.
    pub(super) fn fill(&mut self, batch_rows: usize, hasher: &RowHasher) -> Result<()> {
        while self.rows() < batch_rows {
            let Some((reader, _)) = &mut self.reader else { return Ok(()) };
            let next = catch(|| reader.next_batch()).map_err(panicked)??;
            let Some(columns) = next else {
                self.reader = None;
                return Ok(());
            };
            let batch = self.decoded(columns, hasher)?;
            self.push(batch)?;
        }
        Ok(())
    }

    fn decoded(&mut self, mut columns: Vec<ArrayRef>, hasher: &RowHasher) -> Result<DecodedBatch> {
        let mut keys = Keys::new(&columns)?;
        self.sum.add(sum_of(hasher, &keys, &columns)?);
        if !self.expiry.tenants.is_empty()
            && let Some(SplitRows { expired, kept }) = split(&columns, &keys, &self.expiry)?
        {
            self.dropped.add(sum_of(hasher, &Keys::new(&expired)?, &expired)?);
            keys = Keys::new(&kept)?;
            columns = kept;
        }
        let bytes = columns.iter().map(|column| column.get_array_memory_size()).sum();
        Ok(DecodedBatch { columns, keys, start: 0, bytes })
    }

    fn push(&mut self, batch: DecodedBatch) -> Result<()> {
        if batch.keys.len() == 0 {
            return Ok(());
        }
        let follows = self.last.as_ref().is_none_or(|last| batch.keys.compare(0, last).is_ge());
        if !follows || !batch.keys.is_sorted() {
            return Err(Error::unsupported(
                "it is not sorted by tenant, time and id, and is too large to be sorted in memory: rewrite it sorted",
            ));
        }
        self.last = Some(batch.keys.key(batch.keys.len() - 1));
        self.batches.push_back(batch);
        Ok(())
    }

    /// Returns true if all row groups claim to be sorted by the key columns, which are the first columns of merged
    /// files and of files that ingest wrote.
    pub(super) fn claims_order(&self) -> bool {
        let is_sorted = |group: &RowGroupMetaData| {
            let columns = group.sorting_columns().map(Vec::as_slice).unwrap_or_default();
            columns.len() >= 3
                && columns[..3]
                    .iter()
                    .zip(0..)
                    .all(|(sorted, column)| sorted.column_idx == column && !sorted.descending)
        };
        self.input.decoder.metadata().row_groups().iter().all(is_sorted)
    }

    /// Decodes the whole file and sorts its rows. `groups` has the bytes of each row group.
    pub(super) fn load_sorted(&mut self, groups: Vec<FileBytes>, hasher: &RowHasher) -> Result<()> {
        let mut batches = Vec::new();
        for (group, bytes) in groups.into_iter().enumerate() {
            let decoder = &self.input.decoder;
            let decoded = catch(|| -> Result<Vec<Vec<ArrayRef>>> {
                let mut rows = decoder.decode(group, bytes, SORT_BATCH_ROWS)?;
                let mut columns = Vec::new();
                while let Some(batch) = rows.next_batch()? {
                    columns.push(batch);
                }
                Ok(columns)
            });
            for columns in decoded.map_err(panicked)?? {
                batches.push(self.decoded(columns, hasher)?);
            }
        }
        self.is_open = true;
        self.next_group = self.input.decoder.groups();
        let order = sorted_runs(&batches);
        let Some(first) = batches.first() else { return Ok(()) };
        let columns = (0..first.columns.len()).map(|column| {
            let columns: Vec<&ArrayRef> = batches.iter().map(|batch| &batch.columns[column]).collect();
            gather(&columns, &order)
        });
        let columns: Vec<ArrayRef> = columns
            .collect::<Result<_, _>>()
            .map_err(|error| Error::internal("cannot sort a file").with_source(error))?;
        let bytes = columns.iter().map(|column| column.get_array_memory_size()).sum();
        let keys = Keys::new(&columns)?;
        self.push(DecodedBatch { columns, keys, start: 0, bytes })
    }

    /// Returns true if all rows have been decoded.
    pub(super) fn is_ended(&self) -> bool {
        self.reader.is_none() && self.next_group == self.input.decoder.groups()
    }

    /// Returns the number of rows that have been decoded but not merged.
    pub(super) fn rows(&self) -> usize {
        self.batches.iter().map(|batch| batch.keys.len() - batch.start).sum()
    }

    /// Returns the last decoded key. All rows that have not been decoded have at least this key.
    pub(super) fn last_key(&self) -> Option<&Key> {
        self.last.as_ref()
    }

    /// Returns the batches with rows that are not greater than `bound`, and the ranges of these rows.
    pub(super) fn up_to(&self, bound: Option<&Key>) -> impl Iterator<Item = (&DecodedBatch, Range<usize>)> {
        let rows = move |batch: &DecodedBatch| match bound {
            Some(bound) => batch.start + batch.keys.rows_up_to(batch.start, bound),
            None => batch.keys.len(),
        };
        let ranges = self.batches.iter().map(move |batch| (batch, batch.start..rows(batch)));
        ranges.take_while(|(_, rows)| !rows.is_empty())
    }

    /// Removes the rows that [`Cursor::up_to`] returned.
    pub(super) fn remove(&mut self, mut rows: usize) {
        while rows > 0
            && let Some(batch) = self.batches.front_mut()
        {
            let left = batch.keys.len() - batch.start;
            if rows < left {
                batch.start += rows;
                return;
            }
            rows -= left;
            self.batches.pop_front();
        }
    }

    /// Returns the memory that the input takes, in bytes.
    pub(super) fn memory_bytes(&self) -> usize {
        let decoded: usize = self.batches.iter().map(|batch| batch.bytes).sum();
        decoded + self.reader.as_ref().map_or(0, |(_, held)| *held)
    }
}

/// Returns the sum of the hashes of a batch's rows.
pub(super) fn sum_of(hasher: &RowHasher, keys: &Keys, columns: &[ArrayRef]) -> Result<RowSum> {
    let mut tenants = vec![0; keys.len()];
    for rows in keys.segments() {
        let hash = hasher.bytes(keys.tenant(rows.start).as_bytes());
        tenants[rows].fill(hash);
    }
    hasher
        .sum(|row| tenants[row], &keys.times, &keys.ids, columns)
        .map_err(|error| Error::internal("rows cannot be hashed").with_source(error))
}

/// Returns the rows of all batches in order.
fn sorted_runs(batches: &[DecodedBatch]) -> Vec<Run> {
    let rows =
        (0..).zip(batches).flat_map(|(batch, decoded)| (0..decoded.keys.len() as u32).map(move |row| (batch, row)));
    let mut rows: Vec<(u32, u32)> = rows.collect();
    let key = |(batch, row): &(u32, u32)| {
        let (keys, row) = (&batches[*batch as usize].keys, *row as usize);
        (keys.tenant(row), keys.times.value(row), keys.ids.value(row))
    };
    rows.sort_by(|one, other| key(one).cmp(&key(other)));
    rows.into_iter().map(|(batch, start)| Run { batch, start, length: 1 }).collect()
}

fn panicked(panic: crate::supervise::Panic) -> Error {
    Error::unsupported("a row group cannot be decoded: the file may be corrupt").with_source(panic)
}
