//! The quarantine reader: counts, finds and reads the open entries of a quarantine.
//!
//! In: a filter ([`EntryFilter`]). Out: counts, and entries in the order of their receipt.
//!
//! ```text
//!   each UTC day ─► its closing rows ─► its open entries ─┬─► counts
//!   (small columns only)                                  └─► the first or last few ─► read them
//! ```
//!
//! **Invariant:** an entry and the row that closes it belong to the same day ([`crate::contract::RESOLVES`]). So memory holds
//! only one day's closing rows and the requested number of entries.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::sync::Arc;

use arrow::array::{Array as _, AsArray as _, BinaryArray, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::datatypes::TimestampMicrosecondType;
use bytes::Bytes;
use futures::TryStreamExt as _;

use crate::clock::Micros;
use crate::contract::{Contract, Kept, RESOLVES};
use crate::error::{Error, Result};
use crate::ingest::dedupe::EventKeyHasher;
use crate::ingest::write::MemoryReservation;
use crate::lake::{DataFile, Table};

/// The number of rows that one scan may read, counting entries and closing rows.
const LOOK_ROWS_MAX: u64 = 4_000_000;
/// The number of counts in one scan: reasons times tenants.
const COUNTS_MAX: usize = 10_000;
/// The batch size, in rows, for the columns that the filter uses.
const LIGHT_BATCH_ROWS: usize = 8_192;
/// The batch size, in rows, with payloads. A payload may be as large as a body, so the reservation grows after each one.
const PAYLOAD_BATCH_ROWS: usize = 1;

/// A filter of entries; an entry has to match every field.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EntryFilter {
    /// The entry's id is one of these; empty for any id.
    pub ids: Vec<String>,
    /// The entry belongs to this tenant; the empty string selects entries without a tenant.
    pub tenant: Option<String>,
    /// The entry was rejected for this reason.
    pub reason: Option<String>,
    /// The entry was received at this time or later.
    pub since: Option<Micros>,
}

/// One rejected event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantineEntry {
    /// Its id. The id, tenant and time identify an entry.
    pub id: String,
    /// Its tenant; empty if unknown.
    pub tenant: String,
    /// When it was rejected.
    pub received: Micros,
    /// The reason for the rejection, in one word.
    pub reason: String,
    /// The reason as a sentence for people.
    pub detail: String,
    /// Where it came from: endpoint, request and index.
    pub place: String,
    /// The format of the payload.
    pub format: Kept,
    /// The bytes that were received; `None` unless requested.
    pub payload: Option<Bytes>,
}

/// The number of open entries of one reason and tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryCount {
    /// The reason for the rejection.
    pub reason: String,
    /// Their tenant.
    pub tenant: String,
    /// The number of entries.
    pub count: u64,
    /// The receive times of the first and the last of them.
    pub received: (Micros, Micros),
}

/// A position between two entries, in the order of their receipt.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntryCursor {
    received: Micros,
    tenant: String,
    id: String,
}

/// Which of the matching entries to return.
#[derive(Debug, Clone)]
pub(super) enum EntryRange {
    /// The newest entries up to a limit, newest first, and the counts of all.
    Newest(usize),
    /// The oldest entries after a cursor up to a limit, oldest first.
    Next(Option<EntryCursor>, usize),
}

/// The result of a scan.
#[derive(Debug, Default)]
pub(super) struct FoundEntries {
    counts: BTreeMap<(String, String), EntryCount>,
    entries: BTreeSet<EntryPosition>,
    /// Whether there are more matching entries than requested.
    pub(super) more: bool,
    newest_first: bool,
    files: Vec<Arc<DataFile>>,
}

/// The position of an entry. Positions sort in the order of receipt.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct EntryPosition {
    mark: EntryCursor,
    reason: String,
    file: usize,
    row: usize,
}

/// Reads one quarantine.
#[derive(Debug)]
pub(super) struct QuarantineReader<'a> {
    pub(super) table: &'a Arc<Table>,
    pub(super) key_hasher: EventKeyHasher,
}

impl EntryFilter {
    /// Whether the filter is empty and matches all entries.
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }
}

impl EntryCursor {
    /// The cursor as text, which [`EntryCursor::parse`] reads.
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

    /// Parses a cursor. Fails with `Invalid` if the text is not a cursor.
    pub fn parse(text: &str) -> Result<Self> {
        let mut parts = text.splitn(3, '/');
        let mark = (|| {
            let (received, id, tenant) = (parts.next()?.parse().ok()?, parts.next()?, parts.next()?);
            Some(Self { received, id: id.to_owned(), tenant: tenant.to_owned() })
        })();
        mark.ok_or_else(|| Error::invalid("`after` is not a valid cursor: send the `next` of the previous response"))
    }
}

impl QuarantineEntry {
    /// The cursor after this entry.
    pub fn mark(&self) -> EntryCursor {
        EntryCursor { received: self.received, tenant: self.tenant.clone(), id: self.id.clone() }
    }
}

/// The id of the row that closes an entry.
pub(super) fn closing_id(id: &str, received: Micros) -> String {
    format!("{id}/{received}")
}

impl QuarantineReader<'_> {
    /// Scans the current version of the quarantine, including commits of other servers. Fails with `Limited` if it has too many
    /// rows.
    pub(super) async fn find(&self, pick: &EntryFilter, want: &EntryRange) -> Result<FoundEntries> {
        let snapshot = self.table.refresh().await?;
        let mut found = FoundEntries { newest_first: matches!(want, EntryRange::Newest(_)), ..FoundEntries::default() };
        found.files = snapshot.files.iter().filter(|file| may_hold(file, pick, want)).cloned().collect();
        if found.files.iter().map(|file| file.rows).sum::<u64>() > LOOK_ROWS_MAX {
            let name = &self.table.contract().name;
            return Err(Error::limited(format!(
                "`{name}` has more than {LOOK_ROWS_MAX} rows to scan: name a tenant, or a later `since`"
            )));
        }
        let mut days: BTreeMap<i32, Vec<usize>> = BTreeMap::new();
        for (index, file) in found.files.iter().enumerate() {
            days.entry(file.day).or_default().push(index);
        }
        let ids: BTreeSet<&str> = pick.ids.iter().map(String::as_str).collect();
        for files in days.into_values() {
            let mut closed = HashSet::new();
            for file in &files {
                self.closed(&found.files[*file].clone(), &mut closed).await?;
            }
            for file in files {
                self.entries(file, &closed, (pick, &ids), want, &mut found).await?;
            }
            // Later days hold only later entries.
            if matches!(want, EntryRange::Next(..)) && found.more {
                break;
            }
        }
        Ok(found)
    }

    /// Collects the entries that the rows of a file close.
    async fn closed(&self, file: &DataFile, closed: &mut HashSet<u128>) -> Result<()> {
        let contract = self.table.contract();
        let names = [contract.tenant, contract.time].map(|column| contract.columns[column].name.as_str());
        let names = [names[0], names[1], RESOLVES];
        let mut batches = self.table.rows(file, &names, None, LIGHT_BATCH_ROWS).await?;
        while let Some(batch) = batches.try_next().await? {
            // A file of a version without the column `resolves` closes no entries.
            let Some(resolves) = optional_text(&batch, RESOLVES) else { return Ok(()) };
            let (tenants, times) = (text(&batch, names[0])?, moments(&batch, contract)?);
            for row in (0..batch.num_rows()).filter(|row| resolves.is_valid(*row)) {
                let id = closing_id(resolves.value(row), times.value(row));
                closed.insert(self.key_hasher.hash(tenants.value(row), &id));
            }
        }
        Ok(())
    }

    /// Collects the open entries of a file that match.
    async fn entries(
        &self,
        file: usize,
        closed: &HashSet<u128>,
        (pick, ids): (&EntryFilter, &BTreeSet<&str>),
        want: &EntryRange,
        found: &mut FoundEntries,
    ) -> Result<()> {
        let contract = self.table.contract();
        let name = |column: usize| contract.columns[column].name.as_str();
        let names = [name(contract.tenant), name(contract.time), name(contract.id), "reason", RESOLVES];
        let mut batches = self.table.rows(&found.files[file].clone(), &names, None, LIGHT_BATCH_ROWS).await?;
        let mut first_row = 0;
        while let Some(batch) = batches.try_next().await? {
            let (tenants, ids_held, reasons) =
                (text(&batch, names[0])?, text(&batch, names[2])?, text(&batch, "reason")?);
            let (times, resolves) = (moments(&batch, contract)?, optional_text(&batch, RESOLVES));
            for row in 0..batch.num_rows() {
                let (tenant, id, received) = (tenants.value(row), ids_held.value(row), times.value(row));
                let is_entry = resolves.is_none_or(|resolves| resolves.is_null(row));
                let is_meant = pick.tenant.as_ref().is_none_or(|picked| picked == tenant)
                    && pick.reason.as_ref().is_none_or(|picked| picked == reasons.value(row))
                    && pick.since.is_none_or(|since| received >= since)
                    && (ids.is_empty() || ids.contains(id));
                if is_entry && is_meant && !closed.contains(&self.key_hasher.hash(tenant, &closing_id(id, received))) {
                    let mark = EntryCursor { received, tenant: tenant.to_owned(), id: id.to_owned() };
                    let reason = reasons.value(row).to_owned();
                    found.push(EntryPosition { mark, reason, file, row: first_row + row }, want)?;
                }
            }
            first_row += batch.num_rows();
        }
        Ok(())
    }

    /// Reads the found entries in order. With payloads, the reservation grows by their bytes.
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
        let batch_rows = if with_payload { PAYLOAD_BATCH_ROWS } else { LIGHT_BATCH_ROWS };
        let mut by_file: BTreeMap<usize, Vec<&EntryPosition>> = BTreeMap::new();
        for spot in &found.entries {
            by_file.entry(spot.file).or_default().push(spot);
        }
        let (mut entries, mut bytes) = (BTreeMap::new(), 0);
        for (file, mut spots) in by_file {
            spots.sort_unstable_by_key(|spot| spot.row);
            let places: Vec<usize> = spots.iter().map(|spot| spot.row).collect();
            let mut batches = self.table.rows(&found.files[file], columns, Some(&places), batch_rows).await?;
            let mut spots = spots.into_iter();
            while let Some(batch) = batches.try_next().await? {
                for (row, spot) in (0..batch.num_rows()).zip(spots.by_ref()) {
                    let entry = entry(&batch, row, spot, with_payload)?;
                    bytes += entry.payload.as_ref().map_or(0, Bytes::len);
                    entries.insert(spot, entry);
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
    /// Takes the counts by reason and tenant, if [`EntryRange::Newest`] was requested.
    pub(super) fn take_counts(&mut self) -> Vec<EntryCount> {
        std::mem::take(&mut self.counts).into_values().collect()
    }

    fn push(&mut self, spot: EntryPosition, want: &EntryRange) -> Result<()> {
        let wanted = match want {
            EntryRange::Newest(wanted) => {
                self.count(&spot)?;
                *wanted
            }
            EntryRange::Next(Some(after), _) if spot.mark <= *after => return Ok(()),
            EntryRange::Next(_, wanted) => *wanted,
        };
        self.entries.insert(spot);
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

    fn count(&mut self, spot: &EntryPosition) -> Result<()> {
        let EntryPosition { mark: EntryCursor { received, tenant, .. }, reason, .. } = spot;
        let kind = (reason.clone(), tenant.clone());
        if self.counts.len() >= COUNTS_MAX && !self.counts.contains_key(&kind) {
            return Err(Error::limited(format!(
                "there are more than {COUNTS_MAX} pairs of reason and tenant: name a tenant, a reason, or a later `since`"
            )));
        }
        let received = (*received, *received);
        let none = EntryCount { reason: kind.0.clone(), tenant: kind.1.clone(), count: 0, received };
        let count = self.counts.entry(kind).or_insert(none);
        count.count += 1;
        count.received = (count.received.0.min(received.0), count.received.1.max(received.1));
        Ok(())
    }
}

/// Whether a file may hold matching entries, by its statistics.
fn may_hold(file: &DataFile, pick: &EntryFilter, want: &EntryRange) -> bool {
    let after = match want {
        EntryRange::Next(Some(after), _) => Some(after.received),
        _ => None,
    };
    let since = pick.since.max(after);
    let late = file.times.zip(since).is_none_or(|((_, latest), since)| latest >= since);
    let own = file.tenants.as_ref().zip(pick.tenant.as_deref());
    late && own.is_none_or(|((least, greatest), tenant)| **least <= *tenant && *tenant <= **greatest)
}

fn entry(batch: &RecordBatch, row: usize, spot: &EntryPosition, with_payload: bool) -> Result<QuarantineEntry> {
    let payload = match with_payload {
        true => Some(Bytes::copy_from_slice(binary(batch, "payload")?.value(row))),
        false => None,
    };
    let format = optional_text(batch, "format").filter(|format| format.is_valid(row));
    let format = format.map(|format| format.value(row));
    Ok(QuarantineEntry {
        id: spot.mark.id.clone(),
        tenant: spot.mark.tenant.clone(),
        received: spot.mark.received,
        reason: spot.reason.clone(),
        detail: text(batch, "detail")?.value(row).to_owned(),
        place: text(batch, "place")?.value(row).to_owned(),
        format: Kept::of(format, payload.as_deref().unwrap_or_default()),
        payload,
    })
}

fn optional_text<'a>(batch: &'a RecordBatch, name: &str) -> Option<&'a StringArray> {
    batch.column_by_name(name)?.as_string_opt::<i32>()
}

fn text<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a StringArray> {
    optional_text(batch, name).ok_or_else(|| other_type(name))
}

fn binary<'a>(batch: &'a RecordBatch, name: &str) -> Result<&'a BinaryArray> {
    let column = batch.column_by_name(name).and_then(|column| column.as_binary_opt::<i32>());
    column.ok_or_else(|| other_type(name))
}

fn moments<'a>(batch: &'a RecordBatch, contract: &Contract) -> Result<&'a TimestampMicrosecondArray> {
    let name = &contract.columns[contract.time].name;
    let column = batch.column_by_name(name).and_then(|column| column.as_primitive_opt::<TimestampMicrosecondType>());
    column.ok_or_else(|| other_type(name))
}

fn other_type(name: &str) -> Error {
    Error::internal(format!("a file of the quarantine has no column `{name}` of the expected type"))
}
