//! Merges the files of one unit into new files with the same rows, except expired ones.
//!
//! ```text
//!   Unit ─► open (footers) ─► loop { read row groups │ merge one step (CPU) │ store bytes } ─► proof ─► new files
//! ```
//!
//! Each step decodes some rows of each input, merges all rows up to the smallest key for which every input is decoded,
//! and encodes them. The bytes of the previous step are stored meanwhile.
//!
//! **Invariant:** if anything fails, the new files are deleted and the inputs are unchanged. The caller learns which
//! input cannot be merged, so that it can leave this file alone.
//! **Invariant:** the files are returned only if the number of rows and the sum of their hashes, together with those of
//! the dropped rows, equal those of the inputs.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef};
use arrow::datatypes::SchemaRef;
use futures::{StreamExt as _, TryStreamExt as _};
use tokio::time::Instant;

use crate::contract::ExpiryBounds;
use crate::error::{Error, Kind, Result};
use crate::lake::{DataFile, FileBytes, FileLayout, MergeInput, Table};
use crate::maintenance::cursor::Cursor;
use crate::maintenance::file_cuts::GROUP_ROWS_MAX;
use crate::maintenance::gather::gather;
#[cfg(test)]
use crate::maintenance::order::MergedOrder;
use crate::maintenance::order::{Key, Keys, merged_order};
use crate::maintenance::output::Output;
use crate::maintenance::policy::Unit;
use crate::maintenance::proof::{RowHasher, RowSum};
use crate::maintenance::threads::MergeThreads;
use crate::maintenance::uploads::Uploads;
use crate::supervise::blocking;

/// The maximum number of files that are read concurrently.
const READS_MAX: usize = 8;
/// The share of the memory that the bytes of row groups may take, as a divisor.
const ENCODED_SHARE: u64 = 2;
/// The share of the memory that decoded rows may take, as a divisor.
const DECODED_SHARE: u64 = 12;
/// The bounds of the number of rows that are decoded ahead of each input.
const BATCH_ROWS: std::ops::RangeInclusive<u64> = 256..=65_536;
/// Of this many merges, one compares whole rows.
const WHOLE_ROWS_EVERY: u32 = 64;

/// How a merge works.
#[derive(Debug, Clone)]
pub struct MergeOptions {
    /// The maximum memory of one merge, in bytes.
    pub memory_bytes_max: u64,
    /// The zstd compression level.
    pub compression_level: i32,
    /// The maximum number of rows per page. A reader of a small tenant decodes whole pages.
    pub page_rows: usize,
    /// True if the proof compares whole rows. Otherwise, it compares keys, and whole rows in one of 64 merges.
    pub whole_rows: bool,
    /// The threads on which the merge runs, which limit its CPU time. Without them, it runs on the blocking pool.
    pub threads: Option<Arc<MergeThreads>>,
    /// The time at which the merge is given up.
    pub deadline: Option<Instant>,
    /// The merge drops the expired rows of tenants that have a retention of their own. By default, it drops no rows.
    pub expiry: ExpiryBounds,
    #[cfg(test)]
    pub(super) tamper: Option<fn(&mut MergedOrder)>,
}

impl Default for MergeOptions {
    fn default() -> Self {
        Self {
            memory_bytes_max: 512 << 20,
            compression_level: 1,
            page_rows: 8_192,
            whole_rows: false,
            threads: None,
            deadline: None,
            expiry: ExpiryBounds::default(),
            #[cfg(test)]
            tamper: None,
        }
    }
}

impl MergeOptions {
    /// Runs one step of a merge.
    async fn run<T: Send + 'static>(
        &self,
        what: &'static str,
        step: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(Error::cancelled("the merge took too long, so it was given up"));
        }
        match &self.threads {
            Some(threads) => threads.run(what, step).await,
            None => blocking(what, step).await,
        }
    }
}

/// The result of a merge, which has not been committed.
#[derive(Debug)]
pub struct Merged {
    /// The files that were merged. The merge leaves out files at the end of the unit if their row groups do not fit
    /// into its memory.
    pub inputs: Vec<Arc<DataFile>>,
    /// The new files. They contain exactly the rows of `inputs`, except the dropped ones.
    pub files: Vec<DataFile>,
    /// The number of expired rows that were dropped. If there are any, [`retention::commit`](super::retention::commit)
    /// has to commit the merge.
    pub dropped: u64,
    /// The largest amount of memory that the merge held, in bytes.
    pub memory_bytes: u64,
}

/// The reason why a unit could not be merged.
#[derive(Debug)]
pub struct MergeError {
    /// The file that cannot be merged now, or `None` if the failure concerns no single file.
    pub file: Option<Arc<str>>,
    /// The problem.
    pub error: Error,
}

impl MergeError {
    /// Returns true if the file can never be merged. The caller should leave it alone. Otherwise, the caller may retry.
    pub fn is_permanent(&self) -> bool {
        self.file.is_some() && self.error.kind() == Kind::Unsupported
    }

    fn of(file: &Arc<str>) -> impl Fn(Error) -> Self {
        move |error| Self { file: Some(Arc::clone(file)), error: error.at(format!("file `{file}` cannot be merged")) }
    }
}

impl From<Error> for MergeError {
    fn from(error: Error) -> Self {
        Self { file: None, error }
    }
}

impl fmt::Display for MergeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.error, f)
    }
}

/// Merges the files of `unit`. The new files are stored but not committed: the caller commits or discards them.
///
/// Returns an error that names the file if a file cannot be read, or if a file can never be merged: it is corrupt, its
/// columns do not fit the table, or it is unsorted and large. Returns `Limited` if the memory does not suffice for two
/// files. Returns `Internal` if the proof fails.
pub async fn merge(table: &Arc<Table>, unit: &Unit, options: &MergeOptions) -> Result<Merged, MergeError> {
    let schema = table.stored_schema()?;
    let inputs = open(table, &schema, unit, options).await?;
    let mut uploads = Uploads::new(Arc::clone(table), unit);
    match run(table, &schema, inputs, unit, options, &mut uploads).await {
        Ok((inputs, dropped, memory_bytes)) => {
            Ok(Merged { inputs, files: uploads.into_files(), dropped, memory_bytes })
        }
        Err(error) => {
            uploads.discard().await;
            Err(error)
        }
    }
}

/// Reads the footers of the files, and returns those files that fit into memory.
async fn open(
    table: &Arc<Table>,
    schema: &SchemaRef,
    unit: &Unit,
    options: &MergeOptions,
) -> Result<Vec<MergeInput>, MergeError> {
    let opened = futures::stream::iter(unit.inputs.clone())
        .map(|file| async move { table.open_input(schema, &file).await.map_err(MergeError::of(&file.path)) });
    let mut inputs: Vec<MergeInput> = opened.buffered(READS_MAX).try_collect().await?;
    let memory = options.memory_bytes_max / ENCODED_SHARE;
    while encoded_bytes(&inputs) > memory {
        if inputs.len() <= 2 {
            return Err(Error::limited(format!(
                "table `{}`: the row groups of two files to merge have more than {memory} bytes: raise the memory limit \
                 of merges",
                table.contract().name
            ))
            .into());
        }
        inputs.pop();
    }
    Ok(inputs)
}

/// Returns the largest number of bytes of row groups that are needed at the same time. Files whose tenants do not
/// overlap are not needed at the same time.
fn encoded_bytes(inputs: &[MergeInput]) -> u64 {
    let largest = |input: &MergeInput| {
        let groups = (0..input.decoder.groups()).map(|group| input.decoder.bytes(group));
        groups.map(|bytes| bytes.end - bytes.start).max().unwrap_or(0)
    };
    let sizes: Vec<u64> = inputs.iter().map(largest).collect();
    let includes = |input: &MergeInput, tenant: Option<&Arc<str>>| match (&input.file.tenants, tenant) {
        (Some((least, most)), Some(tenant)) => least <= tenant && tenant <= most,
        _ => true,
    };
    let needed = inputs.iter().map(|input| {
        let first = input.file.tenants.as_ref().map(|(least, _)| least);
        let together = inputs.iter().zip(&sizes).filter(|(other, _)| includes(other, first));
        together.map(|(_, size)| size).sum()
    });
    needed.max().unwrap_or(0)
}

/// Runs all steps of a merge. Returns the merged files, the number of dropped rows and the largest amount of memory.
async fn run(
    table: &Arc<Table>,
    schema: &SchemaRef,
    inputs: Vec<MergeInput>,
    unit: &Unit,
    options: &MergeOptions,
    uploads: &mut Uploads<'_>,
) -> Result<(Vec<Arc<DataFile>>, u64, u64), MergeError> {
    let files: Vec<Arc<DataFile>> = inputs.iter().map(|input| Arc::clone(&input.file)).collect();
    let mut merge = Merge::new(table, schema, inputs, unit, options);
    let unsorted = read_groups(table, unsorted_reads(&merge.cursors, options)).await?;
    let load = move || {
        let result = merge.load(unsorted);
        Ok((merge, result))
    };
    let (loaded, result) = options.run("sorting files", load).await?;
    merge = loaded;
    result?;
    loop {
        let stored = std::mem::take(&mut merge.output.stored);
        let groups = merge.needed_groups();
        let (groups, ()) = futures::try_join!(read_groups(table, groups), async {
            uploads.store(stored).await.map_err(MergeError::from)
        })?;
        let waiting = uploads.waiting_bytes();
        let step = move || {
            let result = merge.step(groups, waiting);
            Ok((merge, result))
        };
        let (next, result) = options.run("merging files", step).await?;
        merge = next;
        if result? {
            break;
        }
    }
    uploads.store(std::mem::take(&mut merge.output.stored)).await?;
    let dropped = merge.prove(&table.contract().name)?;
    Ok((files, dropped, merge.memory.largest))
}

/// A row group to read: the index of its cursor, its file, and the range of its bytes.
type GroupRead = (usize, Arc<DataFile>, Range<u64>);

/// Returns the reads of the small files that do not claim to be sorted.
fn unsorted_reads(cursors: &[Cursor], options: &MergeOptions) -> Vec<GroupRead> {
    let memory = options.memory_bytes_max / DECODED_SHARE / cursors.len().max(1) as u64;
    let mut reads = Vec::new();
    for (index, cursor) in cursors.iter().enumerate() {
        let decoder = &cursor.input.decoder;
        let groups = 0..decoder.groups();
        let bytes: u64 = groups
            .clone()
            .map(|group| decoder.rows(group).saturating_mul(decoder.row_bytes(group)))
            .fold(0, u64::saturating_add);
        if !cursor.claims_order() && bytes <= memory {
            reads.extend(groups.map(|group| (index, Arc::clone(&cursor.input.file), decoder.bytes(group))));
        }
    }
    reads
}

/// Reads row groups. Returns them in the order of `reads`.
async fn read_groups(table: &Arc<Table>, reads: Vec<GroupRead>) -> Result<Vec<(usize, FileBytes)>, MergeError> {
    let reads = reads.into_iter().map(|(index, file, range)| async move {
        let bytes = table.row_group(&file, range).await.map_err(MergeError::of(&file.path))?;
        Ok((index, bytes))
    });
    futures::stream::iter(reads).buffered(READS_MAX).try_collect().await
}

/// The state of a merge between two steps.
struct Merge {
    cursors: Vec<Cursor>,
    hasher: RowHasher,
    output: Output,
    batch_rows: usize,
    memory: MemoryUse,
    #[cfg(test)]
    tamper: Option<fn(&mut MergedOrder)>,
}

/// The memory that a merge has held.
struct MemoryUse {
    /// The largest number of bytes.
    largest: u64,
    limit: u64,
}

impl MemoryUse {
    fn record(&mut self, bytes: usize) {
        self.largest = self.largest.max(bytes as u64);
    }
}

impl Merge {
    fn new(
        table: &Arc<Table>,
        schema: &SchemaRef,
        inputs: Vec<MergeInput>,
        unit: &Unit,
        options: &MergeOptions,
    ) -> Self {
        let whole = options.whole_rows || rand::random::<u32>().is_multiple_of(WHOLE_ROWS_EVERY);
        let hasher = RowHasher::new(schema, whole);
        let layout = FileLayout {
            compression_level: options.compression_level,
            page_rows: options.page_rows,
            row_group_rows_max: unit.cuts.tenant_group_rows_max.max(GROUP_ROWS_MAX),
        };
        let batch_rows = batch_rows(&inputs, options);
        let expiry = Arc::new(options.expiry.clone());
        Self {
            cursors: inputs.into_iter().map(|input| Cursor::new(input, &expiry)).collect(),
            output: Output::new(table.contract(), schema, layout, unit.cuts.clone(), hasher.clone()),
            hasher,
            batch_rows,
            memory: MemoryUse { largest: 0, limit: options.memory_bytes_max },
            #[cfg(test)]
            tamper: options.tamper,
        }
    }

    /// Sorts small files, of which all row groups are given, in order.
    fn load(&mut self, groups: Vec<(usize, FileBytes)>) -> Result<(), MergeError> {
        let mut files: BTreeMap<usize, Vec<FileBytes>> = BTreeMap::new();
        groups.into_iter().for_each(|(index, bytes)| files.entry(index).or_default().push(bytes));
        for (index, groups) in files {
            let cursor = &mut self.cursors[index];
            let path = Arc::clone(cursor.path());
            cursor.load_sorted(groups, &self.hasher).map_err(MergeError::of(&path))?;
        }
        Ok(())
    }

    /// Returns the reads of the row groups whose bytes the next step needs.
    fn needed_groups(&self) -> Vec<GroupRead> {
        let needed = |(index, cursor): (usize, &Cursor)| {
            let group = cursor.needed_group(self.batch_rows)?;
            Some((index, Arc::clone(&cursor.input.file), cursor.input.decoder.bytes(group)))
        };
        self.cursors.iter().enumerate().filter_map(needed).collect()
    }

    /// Merges the rows for which all inputs are decoded. Returns true if these were the last ones.
    fn step(&mut self, groups: Vec<(usize, FileBytes)>, waiting: usize) -> Result<bool, MergeError> {
        for (index, bytes) in groups {
            let cursor = &mut self.cursors[index];
            let path = Arc::clone(cursor.path());
            cursor.start_group(bytes, self.batch_rows).map_err(MergeError::of(&path))?;
        }
        for cursor in &mut self.cursors {
            let path = Arc::clone(cursor.path());
            cursor.fill(self.batch_rows, &self.hasher).map_err(MergeError::of(&path))?;
        }
        if self.cursors.iter().any(|cursor| cursor.is_open && !cursor.is_ended() && cursor.rows() == 0) {
            return Ok(false);
        }
        let bound = self.bound();
        if self.open_reached(bound.as_ref()) {
            return Ok(false);
        }
        self.emit(bound.as_ref(), waiting)?;
        let is_last = self.cursors.iter().all(|cursor| cursor.is_ended() && cursor.rows() == 0);
        if is_last {
            self.output.finish()?;
        }
        Ok(is_last)
    }

    /// Returns the smallest key from which an open input may have more rows, or `None` if all of them are decoded.
    fn bound(&self) -> Option<Key> {
        let open = self.cursors.iter().filter(|cursor| cursor.is_open && !cursor.is_ended());
        open.filter_map(Cursor::last_key).min().cloned()
    }

    /// Opens the files whose tenants may begin at `bound` or before it. Returns true if there are any.
    fn open_reached(&mut self, bound: Option<&Key>) -> bool {
        let closed = self.cursors.iter().filter(|cursor| !cursor.is_open);
        let first =
            closed.filter_map(|cursor| cursor.input.file.tenants.as_ref()).map(|(least, _)| least).min().cloned();
        let Some(first) = first else { return false };
        let limit = bound.map_or(&*first, |bound| bound.tenant.as_str()).to_owned();
        let mut opened = false;
        for cursor in self.cursors.iter_mut().filter(|cursor| !cursor.is_open) {
            let is_reached = cursor.input.file.tenants.as_ref().is_none_or(|(least, _)| **least <= *limit);
            cursor.is_open |= is_reached;
            opened |= is_reached;
        }
        opened
    }

    /// Merges and writes all decoded rows up to `bound`.
    fn emit(&mut self, bound: Option<&Key>, waiting: usize) -> Result<()> {
        let (mut batches, mut ranges, mut taken) = (Vec::new(), Vec::new(), Vec::new());
        for cursor in &self.cursors {
            let mut rows = 0;
            for (batch, range) in cursor.up_to(bound) {
                rows += range.len();
                batches.push(batch);
                ranges.push(range);
            }
            taken.push(rows);
        }
        if batches.is_empty() {
            return Ok(());
        }
        let keys: Vec<&Keys> = batches.iter().map(|batch| &batch.keys).collect();
        #[cfg_attr(not(test), expect(unused_mut, reason = "tests change the order"))]
        let mut order = merged_order(&keys, &ranges);
        #[cfg(test)]
        if let Some(tamper) = self.tamper {
            tamper(&mut order);
        }
        let columns = (0..batches[0].columns.len()).map(|column| {
            let columns: Vec<&ArrayRef> = batches.iter().map(|batch| &batch.columns[column]).collect();
            gather(&columns, &order.runs)
        });
        let columns: Vec<ArrayRef> = columns
            .collect::<Result<_, _>>()
            .map_err(|error| Error::internal("rows cannot be merged").with_source(error))?;
        let gathered: usize = columns.iter().map(|column| column.get_array_memory_size()).sum();
        let decoded: usize = self.cursors.iter().map(Cursor::memory_bytes).sum();
        let held = decoded + gathered + self.output.memory_bytes() + waiting;
        self.memory.record(held);
        let tenants = order.tenants.iter().map(|tenant| {
            let (batch, row) = tenant.name;
            (keys[batch as usize].tenant(row as usize), tenant.rows)
        });
        self.output.write(columns, tenants)?;
        for (cursor, rows) in self.cursors.iter_mut().zip(taken) {
            cursor.remove(rows);
        }
        let decoded: usize = self.cursors.iter().map(Cursor::memory_bytes).sum();
        self.memory.record(decoded + self.output.memory_bytes() + waiting);
        if held as u64 > self.memory.limit {
            // The rows are wider than estimated.
            self.batch_rows = (self.batch_rows / 2).max(*BATCH_ROWS.start() as usize);
        }
        Ok(())
    }

    /// Compares the rows of the inputs with those of the new files and the dropped ones. Returns the number of dropped
    /// rows.
    fn prove(&self, table: &str) -> Result<u64> {
        let (mut read, mut dropped, mut declared) = (RowSum::default(), RowSum::default(), 0);
        for cursor in &self.cursors {
            read.add(cursor.sum);
            dropped.add(cursor.dropped);
            declared += cursor.input.file.rows;
        }
        let mut accounted = self.output.sum;
        accounted.add(dropped);
        if read == accounted && read.rows == declared {
            return Ok(dropped.rows);
        }
        Err(Error::internal(format!(
            "table `{table}`: the proof of a merge failed, and nothing was replaced: the inputs have {} rows, the new \
             files and the dropped rows have {}, and the hashes of rows {}",
            declared,
            accounted.rows,
            if read.sum == accounted.sum { "agree" } else { "differ" }
        )))
    }
}

/// Returns the number of rows to decode ahead of each input.
fn batch_rows(inputs: &[MergeInput], options: &MergeOptions) -> usize {
    let widths =
        inputs.iter().flat_map(|input| (0..input.decoder.groups()).map(|group| input.decoder.row_bytes(group)));
    let width = widths.max().unwrap_or(0).max(1);
    // Each input has up to two batches, and the merged rows are a copy.
    let rows = options.memory_bytes_max / DECODED_SHARE / width / inputs.len().max(1) as u64;
    rows.clamp(*BATCH_ROWS.start(), *BATCH_ROWS.end()) as usize
}
