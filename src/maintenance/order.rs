//! The order (tenant, time, id) of rows from several batches.
//!
//! ```text
//!   sorted batches ─► segments (rows of one tenant) ─► per tenant: append, or sort keys ─► runs
//! ```
//!
//! Only the key columns are read. Rows of one tenant are sorted by time and eight bytes of the id. Whole ids are
//! compared only if these are equal. If the batches of a tenant do not overlap in time, their rows are not compared at
//! all.

use std::cmp::Ordering;
use std::ops::Range;

use arrow::array::{Array as _, ArrayRef, AsArray as _, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::TimestampMicrosecondType;

use crate::clock::Micros;
use crate::contract::{TextDictionaryArray, as_dictionary, plain_column};
use crate::error::{Error, Result};
use crate::lake::{common_prefix, eight_bytes};
use crate::maintenance::gather::Run;

/// The key columns of a batch whose rows are in order.
#[derive(Debug, Clone)]
pub(super) struct Keys {
    tenants: Tenants,
    pub(super) times: TimestampMicrosecondArray,
    pub(super) ids: StringArray,
    /// The row at which each tenant's rows end.
    segment_ends: Vec<u32>,
    /// The bytes with which all ids begin.
    prefix: Vec<u8>,
}

#[derive(Debug, Clone)]
enum Tenants {
    Plain(StringArray),
    Dictionary(TextDictionaryArray, StringArray),
}

/// The key of one row.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) tenant: String,
    pub(super) time: Micros,
    pub(super) id: String,
}

/// The order of the selected rows.
#[derive(Debug, Default)]
pub(super) struct MergedOrder {
    pub(super) runs: Vec<Run>,
    /// The number of rows of each tenant, and a row of the tenant, as (batch, row).
    pub(super) tenants: Vec<TenantRows>,
}

/// Consecutive rows of one tenant.
#[derive(Debug, Clone, Copy)]
pub(super) struct TenantRows {
    pub(super) rows: usize,
    /// The batch and the row in which the tenant's name can be found.
    pub(super) name: (u32, u32),
}

impl Keys {
    /// Reads the key columns, which must be the first three columns and must have no nulls. Does not check the order.
    pub(super) fn new(columns: &[ArrayRef]) -> Result<Self> {
        let mismatch = || Error::internal("the key columns have unexpected types");
        let [tenant, time, id, ..] = columns else { return Err(mismatch()) };
        let tenants = match as_dictionary(tenant) {
            Some(texts) => {
                let names = texts.values().as_string_opt::<i32>().ok_or_else(mismatch)?;
                Tenants::Dictionary(texts.clone(), names.clone())
            }
            None => Tenants::Plain(tenant.as_string_opt::<i32>().ok_or_else(mismatch)?.clone()),
        };
        let times = time.as_primitive_opt::<TimestampMicrosecondType>().ok_or_else(mismatch)?.clone();
        let ids = plain_column(id).map_err(|error| mismatch().with_source(error))?;
        let ids = ids.as_string_opt::<i32>().ok_or_else(mismatch)?.clone();
        let prefix = match common_prefix(&ids) {
            0 => Vec::new(),
            length => ids.value(0).as_bytes()[..length].to_vec(),
        };
        let segment_ends = tenants.segment_ends();
        Ok(Self { tenants, times, ids, segment_ends, prefix })
    }

    pub(super) fn len(&self) -> usize {
        self.times.len()
    }

    pub(super) fn tenant(&self, row: usize) -> &str {
        self.tenants.name(row)
    }

    pub(super) fn key(&self, row: usize) -> Key {
        Key { tenant: self.tenant(row).to_owned(), time: self.times.value(row), id: self.ids.value(row).to_owned() }
    }

    /// Returns the segments: for each tenant in order, the range of its rows.
    pub(super) fn segments(&self) -> impl Iterator<Item = Range<usize>> {
        let mut start = 0;
        self.segment_ends.iter().map(move |end| std::mem::replace(&mut start, *end as usize)..*end as usize)
    }

    pub(super) fn compare(&self, row: usize, key: &Key) -> Ordering {
        (self.tenant(row).cmp(&key.tenant))
            .then_with(|| self.times.value(row).cmp(&key.time))
            .then_with(|| self.ids.value(row).cmp(&key.id))
    }

    /// Returns true if the rows are in order.
    pub(super) fn is_sorted(&self) -> bool {
        let mut before: Option<&str> = None;
        self.segments().all(|rows| {
            let name = self.tenant(rows.start);
            let follows = before.is_none_or(|before| before < name);
            before = Some(name);
            follows && (rows.start + 1..rows.end).all(|row| self.follows(row))
        })
    }

    /// Returns true if the row's time and id are not before those of the previous row.
    fn follows(&self, row: usize) -> bool {
        match self.times.value(row - 1).cmp(&self.times.value(row)) {
            Ordering::Less => true,
            Ordering::Greater => false,
            Ordering::Equal => self.ids.value(row - 1) <= self.ids.value(row),
        }
    }

    /// Returns the number of rows from `start` whose key is not greater than `key`.
    pub(super) fn rows_up_to(&self, start: usize, key: &Key) -> usize {
        let (mut low, mut high) = (start, self.len());
        while low < high {
            let middle = low.midpoint(high);
            match self.compare(middle, key) {
                Ordering::Greater => high = middle,
                _ => low = middle + 1,
            }
        }
        low - start
    }
}

impl Tenants {
    fn name(&self, row: usize) -> &str {
        match self {
            Self::Plain(names) => names.value(row),
            Self::Dictionary(texts, names) => names.value(usize::from(texts.keys().values()[row])),
        }
    }

    fn segment_ends(&self) -> Vec<u32> {
        let is_end = |row: usize| match self {
            Self::Plain(names) => names.value(row - 1) != names.value(row),
            Self::Dictionary(texts, _) => {
                let keys = texts.keys().values();
                keys[row - 1] != keys[row] && self.name(row - 1) != self.name(row)
            }
        };
        let rows = match self {
            Self::Plain(names) => names.len(),
            Self::Dictionary(texts, _) => texts.len(),
        };
        let ends = (1..rows).filter(|row| is_end(*row)).chain((rows > 0).then_some(rows));
        ends.map(|end| end as u32).collect()
    }
}

/// Selected rows of one batch, which all belong to one tenant.
#[derive(Debug, Clone, Copy)]
struct Segment<'a> {
    tenant: &'a str,
    batch: u32,
    start: u32,
    end: u32,
}

/// A row while it is sorted.
#[derive(Debug, Clone, Copy)]
struct SortRow {
    time: Micros,
    /// Eight bytes of the id, as a number that sorts like the bytes.
    id: u64,
    batch: u32,
    row: u32,
}

/// Returns the order of the selected rows: `rows` has a range of rows for each batch. Each range must be in order.
pub(super) fn merged_order(batches: &[&Keys], rows: &[Range<usize>]) -> MergedOrder {
    let mut segments: Vec<Segment<'_>> = Vec::new();
    for ((batch, keys), selected) in (0..).zip(batches).zip(rows) {
        let first = keys.segment_ends.partition_point(|end| *end as usize <= selected.start);
        let mut start = selected.start as u32;
        for end in &keys.segment_ends[first..] {
            let end = (*end).min(selected.end as u32);
            if start >= end {
                break;
            }
            segments.push(Segment { tenant: keys.tenant(start as usize), batch, start, end });
            start = end;
        }
    }
    // A stable sort detects that each batch is already in order.
    segments.sort_by(|one, other| one.tenant.cmp(other.tenant));
    let prefix = shared_prefix(batches);
    let (mut order, mut scratch) = (MergedOrder::default(), Vec::new());
    for same in segments.chunk_by_mut(|one, other| one.tenant == other.tenant) {
        let rows = same.iter().map(|segment| (segment.end - segment.start) as usize).sum();
        order.tenants.push(TenantRows { rows, name: (same[0].batch, same[0].start) });
        same.sort_by(|one, other| first_key(batches, one).cmp(&first_key(batches, other)));
        if same.windows(2).all(|pair| last_key(batches, &pair[0]) <= first_key(batches, &pair[1])) {
            let runs = same.iter().map(|it| Run { batch: it.batch, start: it.start, length: it.end - it.start });
            order.runs.extend(runs);
        } else {
            sort_rows(batches, same, prefix, &mut scratch);
            push_runs(&scratch, &mut order.runs);
        }
    }
    order
}

fn first_key<'a>(batches: &[&'a Keys], segment: &Segment<'_>) -> (Micros, &'a str) {
    key_at(batches, segment.batch, segment.start)
}

fn last_key<'a>(batches: &[&'a Keys], segment: &Segment<'_>) -> (Micros, &'a str) {
    key_at(batches, segment.batch, segment.end - 1)
}

fn key_at<'a>(batches: &[&'a Keys], batch: u32, row: u32) -> (Micros, &'a str) {
    let keys = batches[batch as usize];
    (keys.times.value(row as usize), keys.ids.value(row as usize))
}

/// Returns the length of the prefix that the ids of all batches share.
fn shared_prefix(batches: &[&Keys]) -> usize {
    let mut prefixes = batches.iter().filter(|keys| keys.len() > 0).map(|keys| &keys.prefix[..]);
    let Some(first) = prefixes.next() else { return 0 };
    prefixes.fold(first.len(), |length, prefix| {
        first[..length].iter().zip(prefix).take_while(|(one, other)| one == other).count()
    })
}

fn sort_rows(batches: &[&Keys], segments: &[Segment<'_>], prefix: usize, sorted: &mut Vec<SortRow>) {
    sorted.clear();
    for segment in segments {
        let keys = batches[segment.batch as usize];
        let times = keys.times.values();
        sorted.extend((segment.start..segment.end).map(|row| SortRow {
            time: times[row as usize],
            id: eight_bytes(keys.ids.value(row as usize), prefix),
            batch: segment.batch,
            row,
        }));
    }
    // A stable sort detects that the segments are already in order, and merges them.
    sorted.sort_by(|one, other| {
        (one.time, one.id).cmp(&(other.time, other.id)).then_with(|| {
            let id = |row: &SortRow| batches[row.batch as usize].ids.value(row.row as usize);
            id(one).cmp(id(other))
        })
    });
}

fn push_runs(sorted: &[SortRow], runs: &mut Vec<Run>) {
    for row in sorted {
        match runs.last_mut() {
            Some(run) if run.batch == row.batch && run.start + run.length == row.row => run.length += 1,
            _ => runs.push(Run { batch: row.batch, start: row.row, length: 1 }),
        }
    }
}
