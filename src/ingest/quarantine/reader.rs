//! Counts, finds and reads the open entries of a quarantine.
//!
//! [`QuarantineReader::find`] finds the open entries that match an [`EntryFilter`]. [`QuarantineReader::read`] reads
//! the entries that were found, in the order in which they were received.
//!
//! ```text
//!   each UTC day ─► its closing rows ─► its open entries ─┬─► counts
//!   (small columns only)                                  └─► the first or last few ─► read them
//! ```
//!
//! **Invariant:** the row that closes an entry is in the files of the entry's day ([`crate::contract::RESOLVES`]). The
//! reader can therefore process one day after another, and keeps only the closed entries of one day and the requested
//! number of entries in memory.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use arrow::array::{Array as _, AsArray as _, BinaryArray, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::TimestampMicrosecondType;
use bytes::Bytes;
use futures::TryStreamExt as _;

use crate::clock::Micros;
use crate::contract::{Contract, PayloadFormat, RESOLVES};
use crate::error::{Error, Result};
use crate::ingest::dedupe::EventKeyHasher;
use crate::ingest::group_commit::MemoryReservation;
use crate::lake::{DataFile, Table};

/// The maximum number of rows that one scan reads, including closing rows.
const SCAN_ROWS_MAX: u64 = 4_000_000;
/// The maximum number of counts that one scan returns. There is one count for each pair of reason and tenant.
const COUNTS_MAX: usize = 10_000;
/// The number of rows per batch if only small columns are read.
const SMALL_COLUMNS_BATCH_ROWS: usize = 8_192;
/// The number of rows per batch if payloads are read. The number is low because a single payload may be as large as a
/// request body, and the memory for a batch is reserved only after the batch is read.
const PAYLOAD_BATCH_ROWS: usize = 1;

/// Conditions for selecting entries. An entry matches if it meets every condition that is set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EntryFilter {
    /// Matches entries with one of these ids. An empty list matches all entries.
    pub ids: Vec<String>,
    /// Matches entries of this tenant. An empty string matches entries without a tenant.
    pub tenant: Option<String>,
    /// Matches entries that were rejected for this reason.
    pub reason: Option<String>,
    /// Matches entries that were received at this time or later.
    pub since: Option<Micros>,
}

/// An entry of a quarantine: one rejected event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantineEntry {
    /// The entry's id, which is unique only together with the tenant and the receive time.
    pub id: String,
    /// The tenant of the event. Empty if the tenant is unknown.
    pub tenant: String,
    /// The time at which the event was received and rejected.
    pub received: Micros,
    /// The reason for the rejection, as a short code.
    pub reason: String,
    /// A sentence that explains the reason.
    pub detail: String,
    /// Where the event came from: the endpoint and the index in the request, or the source, topic, partition and
    /// offset.
    pub place: String,
    /// The format of the payload.
    pub format: PayloadFormat,
    /// The payload as it was received. `None` if the caller did not request payloads.
    pub payload: Option<Bytes>,
}

/// The number of open entries with the same reason and tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryCount {
    /// The reason for the rejection.
    pub reason: String,
    /// The tenant of the events. Empty if the tenant is unknown.
    pub tenant: String,
    /// The number of entries.
    pub count: u64,
    /// The receive times of the oldest and the newest counted entry.
    pub received: (Micros, Micros),
}

/// A position between two entries in the order in which the entries were received. The fields are those of the entry
/// before this position.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntryCursor {
    received: Micros,
    tenant: String,
    id: String,
}

/// Which of the matching entries to return.
#[derive(Debug, Clone)]
pub(super) enum EntryRange {
    /// At most the given number of entries, newest first. The result also contains the counts of all matching entries.
    Newest(usize),
    /// At most the given number of entries after the cursor, oldest first. Without a cursor, the range begins with the
    /// oldest entry.
    Next(Option<EntryCursor>, usize),
}

/// The result of a scan: the requested entries, and the counts of all matching entries.
#[derive(Debug, Default)]
pub(super) struct FoundEntries {
    /// The number of matching entries by reason and tenant.
    counts: BTreeMap<(String, String), EntryCount>,
    entries: BTreeSet<EntryPosition>,
    /// True if there are more matching entries than requested.
    pub(super) more: bool,
    newest_first: bool,
    /// The files that were scanned.
    files: Vec<Arc<DataFile>>,
}

/// The position of an entry in the files of the quarantine. Positions are ordered by the time at which the entries were
/// received.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct EntryPosition {
    cursor: EntryCursor,
    reason: String,
    /// The index of the file in [`FoundEntries::files`].
    file: usize,
    /// The index of the row in the file.
    row: usize,
}

/// Finds and reads the entries of one quarantine.
#[derive(Debug)]
pub(super) struct QuarantineReader<'a> {
    pub(super) table: &'a Arc<Table>,
    pub(super) key_hasher: EventKeyHasher,
}

impl EntryFilter {
    /// Returns true if the filter has no conditions, so it matches all entries.
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }
}

impl EntryCursor {
    /// Returns the cursor as a string that [`EntryCursor::parse`] can read.
    pub fn text(&self) -> String {
        format!("{}/{}/{}", self.received, self.id, self.tenant)
    }

    pub(super) fn received(&self) -> Micros {
        self.received
    }

    pub(super) fn tenant(&self) -> &str {
        &self.tenant
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    /// Parses a cursor. Fails with `Invalid` if `text` is not a valid cursor.
    pub fn parse(text: &str) -> Result<Self> {
        let mut parts = text.splitn(3, '/');
        let cursor = (|| {
            let (received, id, tenant) = (parts.next()?.parse().ok()?, parts.next()?, parts.next()?);
            Some(Self { received, id: id.to_owned(), tenant: tenant.to_owned() })
        })();
        cursor.ok_or_else(|| {
            Error::invalid("`after` is not a valid cursor: send the value of `next` from the previous response")
        })
    }
}

impl QuarantineEntry {
    /// Returns the cursor that points directly after this entry.
    pub fn cursor(&self) -> EntryCursor {
        EntryCursor { received: self.received, tenant: self.tenant.clone(), id: self.id.clone() }
    }
}

/// Returns the id of the row that closes an entry.
pub(super) fn closing_id(id: &str, received: Micros) -> String {
    format!("{id}/{received}")
}

impl QuarantineReader<'_> {
    /// Finds the matching open entries. First reads the latest version of the quarantine, which includes the commits of
    /// other servers. Fails with `Limited` if too many rows would have to be scanned.
    pub(super) async fn find(&self, filter: &EntryFilter, range: &EntryRange) -> Result<FoundEntries> {
        let snapshot = self.table.refresh().await?;
        let mut found =
            FoundEntries { newest_first: matches!(range, EntryRange::Newest(_)), ..FoundEntries::default() };
        found.files = snapshot.files().filter(|file| may_hold(file, filter, range)).cloned().collect();
        if found.files.iter().map(|file| file.rows).sum::<u64>() > SCAN_ROWS_MAX {
            let name = &self.table.contract().name;
            return Err(Error::limited(format!(
                "the filter selects more than {SCAN_ROWS_MAX} rows in `{name}`: set `tenant`, or a later `since`"
            )));
        }
        let mut days: BTreeMap<i32, Vec<usize>> = BTreeMap::new();
        for (index, file) in found.files.iter().enumerate() {
            days.entry(file.day).or_default().push(index);
        }
        let ids: BTreeSet<&str> = filter.ids.iter().map(String::as_str).collect();
        for files in days.into_values() {
            let mut closed = HashSet::new();
            for file in &files {
                self.collect_closed(&found.files[*file].clone(), &mut closed).await?;
            }
            for file in files {
                self.collect_entries(file, &closed, (filter, &ids), range, &mut found).await?;
            }
            // No entry of a later day can belong to the page, because entries are ordered by receive time.
            if matches!(range, EntryRange::Next(..)) && found.more {
                break;
            }
        }
        Ok(found)
    }

    /// Reads the rows of a file that close entries, and adds the hash of each closed entry to `closed`.
    async fn collect_closed(&self, file: &DataFile, closed: &mut HashSet<u128>) -> Result<()> {
        let contract = self.table.contract();
        let names = [contract.tenant, contract.time].map(|column| contract.columns[column].name.as_str());
        let names = [names[0], names[1], RESOLVES];
        let mut batches = self.table.rows(file, &names, None, SMALL_COLUMNS_BATCH_ROWS).await?;
        while let Some(batch) = batches.try_next().await? {
            // A file without the column `resolves` was written before entries could be closed, so it contains no
            // closing rows.
            let Some(resolves) = optional_strings(&batch, RESOLVES) else { return Ok(()) };
            let (tenants, times) = (strings(&batch, names[0])?, event_times(&batch, contract)?);
            for row in (0..batch.num_rows()).filter(|row| resolves.is_valid(*row)) {
                let id = closing_id(resolves.value(row), times.value(row));
                closed.insert(self.key_hasher.hash(tenants.value(row), &id));
            }
        }
        Ok(())
    }

    /// Adds the matching open entries in a file to `found`.
    async fn collect_entries(
        &self,
        file: usize,
        closed: &HashSet<u128>,
        (filter, ids): (&EntryFilter, &BTreeSet<&str>),
        range: &EntryRange,
        found: &mut FoundEntries,
    ) -> Result<()> {
        let contract = self.table.contract();
        let name = |column: usize| contract.columns[column].name.as_str();
        let names = [name(contract.tenant), name(contract.time), name(contract.id), "reason", RESOLVES];
        let mut batches = self.table.rows(&found.files[file].clone(), &names, None, SMALL_COLUMNS_BATCH_ROWS).await?;
        let mut first_row = 0;
        while let Some(batch) = batches.try_next().await? {
            let (tenants, entry_ids, reasons) =
                (strings(&batch, names[0])?, strings(&batch, names[2])?, strings(&batch, "reason")?);
            let (times, resolves) = (event_times(&batch, contract)?, optional_strings(&batch, RESOLVES));
            for row in 0..batch.num_rows() {
                let (tenant, id, received) = (tenants.value(row), entry_ids.value(row), times.value(row));
                let is_entry = resolves.is_none_or(|resolves| resolves.is_null(row));
                let matches = filter.tenant.as_ref().is_none_or(|wanted| wanted == tenant)
                    && filter.reason.as_ref().is_none_or(|wanted| wanted == reasons.value(row))
                    && filter.since.is_none_or(|since| received >= since)
                    && (ids.is_empty() || ids.contains(id));
                if is_entry && matches && !closed.contains(&self.key_hasher.hash(tenant, &closing_id(id, received))) {
                    let cursor = EntryCursor { received, tenant: tenant.to_owned(), id: id.to_owned() };
                    let reason = reasons.value(row).to_owned();
                    found.push(EntryPosition { cursor, reason, file, row: first_row + row }, range)?;
                }
            }
            first_row += batch.num_rows();
        }
        Ok(())
    }

    /// Reads the entries in the order of `found`. Reads payloads only if `payloads` contains a memory reservation, and
    /// reserves the memory for them.
    pub(super) async fn read(
        &self,
        found: &FoundEntries,
        payloads: Option<&mut MemoryReservation>,
    ) -> Result<Vec<QuarantineEntry>> {
        let (with_payload, mut reservation) = (payloads.is_some(), payloads);
        let columns: &[&str] = match with_payload {
            true => &["detail", "place", "format", "payload"],
            false => &["detail", "place", "format"],
        };
        let batch_rows = if with_payload { PAYLOAD_BATCH_ROWS } else { SMALL_COLUMNS_BATCH_ROWS };
        let mut by_file: BTreeMap<usize, Vec<&EntryPosition>> = BTreeMap::new();
        for position in &found.entries {
            by_file.entry(position.file).or_default().push(position);
        }
        let (mut entries, mut bytes) = (BTreeMap::new(), 0);
        for (file, mut positions) in by_file {
            positions.sort_unstable_by_key(|position| position.row);
            let rows: Vec<usize> = positions.iter().map(|position| position.row).collect();
            let mut batches = self.table.rows(&found.files[file], columns, Some(&rows), batch_rows).await?;
            let mut positions = positions.into_iter();
            while let Some(batch) = batches.try_next().await? {
                for (row, position) in (0..batch.num_rows()).zip(positions.by_ref()) {
                    let entry = read_entry(&batch, row, position, with_payload)?;
                    bytes += entry.payload.as_ref().map_or(0, Bytes::len);
                    entries.insert(position, entry);
                }
                if let Some(reservation) = &mut reservation {
                    reservation.resize(bytes).await?;
                }
            }
        }
        let entries = entries.into_values();
        Ok(if found.newest_first { entries.rev().collect() } else { entries.collect() })
    }
}

impl FoundEntries {
    /// Removes and returns the counts by reason and tenant. Only [`EntryRange::Newest`] produces counts.
    pub(super) fn take_counts(&mut self) -> Vec<EntryCount> {
        std::mem::take(&mut self.counts).into_values().collect()
    }

    /// Adds an entry if it belongs to the range. If the number of entries then exceeds the requested number, removes
    /// the last entry in the order of the range.
    fn push(&mut self, position: EntryPosition, range: &EntryRange) -> Result<()> {
        let wanted = match range {
            EntryRange::Newest(wanted) => {
                self.count(&position)?;
                *wanted
            }
            EntryRange::Next(Some(after), _) if position.cursor <= *after => return Ok(()),
            EntryRange::Next(_, wanted) => *wanted,
        };
        self.entries.insert(position);
        if self.entries.len() > wanted {
            if self.newest_first {
                self.entries.pop_first()
            } else {
                self.entries.pop_last()
            };
            self.more = true;
        }
        Ok(())
    }

    fn count(&mut self, position: &EntryPosition) -> Result<()> {
        let EntryPosition { cursor: EntryCursor { received, tenant, .. }, reason, .. } = position;
        let key = (reason.clone(), tenant.clone());
        if self.counts.len() >= COUNTS_MAX && !self.counts.contains_key(&key) {
            return Err(Error::limited(format!(
                "the filter selects more than {COUNTS_MAX} pairs of reason and tenant: set `tenant`, `reason`, or a later \
                 `since`"
            )));
        }
        let received = (*received, *received);
        let none = EntryCount { reason: key.0.clone(), tenant: key.1.clone(), count: 0, received };
        let count = self.counts.entry(key).or_insert(none);
        count.count += 1;
        count.received = (count.received.0.min(received.0), count.received.1.max(received.1));
        Ok(())
    }
}

/// Returns true if, according to the file's statistics, the file may contain matching entries.
fn may_hold(file: &DataFile, filter: &EntryFilter, range: &EntryRange) -> bool {
    let after = match range {
        EntryRange::Next(Some(after), _) => Some(after.received),
        _ => None,
    };
    let since = filter.since.max(after);
    let may_be_late_enough = file.times.zip(since).is_none_or(|((_, latest), since)| latest >= since);
    let tenants = file.tenants.as_ref().zip(filter.tenant.as_deref());
    may_be_late_enough && tenants.is_none_or(|((least, greatest), tenant)| **least <= *tenant && *tenant <= **greatest)
}

fn read_entry(
    batch: &RecordBatch,
    row: usize,
    position: &EntryPosition,
    with_payload: bool,
) -> Result<QuarantineEntry> {
    let payload = match with_payload {
        true => Some(Bytes::copy_from_slice(binary(batch, "payload")?.value(row))),
        false => None,
    };
    let format = optional_strings(batch, "format").filter(|format| format.is_valid(row));
    let format = format.map(|format| format.value(row));
    Ok(QuarantineEntry {
        id: position.cursor.id.clone(),
        tenant: position.cursor.tenant.clone(),
        received: position.cursor.received,
        reason: position.reason.clone(),
        detail: strings(batch, "detail")?.value(row).to_owned(),
        place: strings(batch, "place")?.value(row).to_owned(),
        format: PayloadFormat::parse(format, payload.as_deref().unwrap_or_default()),
        payload,
    })
}

fn optional_strings<'a>(batch: &'a RecordBatch, name: &str) -> Option<&'a StringArray> {
    batch.column_by_name(name)?.as_string_opt::<i32>()
}

fn strings<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a StringArray> {
    optional_strings(batch, name).ok_or_else(|| missing_column(name))
}

fn binary<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a BinaryArray> {
    let column = batch.column_by_name(name).and_then(|column| column.as_binary_opt::<i32>());
    column.ok_or_else(|| missing_column(name))
}

fn event_times<'a>(batch: &'a RecordBatch, contract: &Contract) -> Result<&'a TimestampMicrosecondArray> {
    let name = &contract.columns[contract.time].name;
    let column = batch.column_by_name(name).and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>());
    column.ok_or_else(|| missing_column(name))
}

fn missing_column(name: &str) -> Error {
    Error::internal(format!("a file of the quarantine has no column `{name}` of the expected type"))
}
