//! What lies in a quarantine and is not closed: counted, found, read.
//!
//! In: which entries are meant ([`EntryFilter`]). Out: counts, and entries in the order of their receipt.
//!
//! ```text
//!   each UTC day ─► what closes its entries ─► its open entries ─┬─► counts
//!   (light columns only)                                         └─► the first or last few ─► read them
//! ```
//!
//! **Invariant:** an entry and the row that closes it are of one day ([`crate::contract::RESOLVES`]): what is held in memory
//! is one day's closings and as many entries as were asked for.

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

/// Rows that one look passes, entries and what closes them.
const LOOK_ROWS_MAX: u64 = 4_000_000;
/// Counts of one look: kinds of reasons times tenants.
const COUNTS_MAX: usize = 10_000;
/// Rows of one batch of the columns by which entries are found.
const LIGHT_BATCH_ROWS: usize = 8_192;
/// Rows of one batch with payloads, each of which may be as large as a body: room is taken after each.
const PAYLOAD_BATCH_ROWS: usize = 1;

/// Which entries are meant: those for which all of it holds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct EntryFilter {
    /// One of these; any when there are none.
    pub ids: Vec<String>,
    /// This tenant's; the empty text for entries of nobody.
    pub tenant: Option<String>,
    /// Rejected for this reason.
    pub reason: Option<String>,
    /// Received at this time or later.
    pub since: Option<Micros>,
}

/// One rejected event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuarantineEntry {
    /// Its id. With its tenant and time it names it.
    pub id: String,
    /// Whose it is; empty when nobody knows.
    pub tenant: String,
    /// When it was rejected.
    pub received: Micros,
    /// Why, in one word.
    pub reason: String,
    /// For a person.
    pub detail: String,
    /// Door, request and index.
    pub place: String,
    /// How the payload is written.
    pub format: Kept,
    /// What was received; none unless it was asked for.
    pub payload: Option<Bytes>,
}

/// Open entries of one reason and tenant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EntryCount {
    /// Why they were rejected.
    pub reason: String,
    /// Whose they are.
    pub tenant: String,
    /// How many there are.
    pub count: u64,
    /// When the first and the last of them were received.
    pub received: (Micros, Micros),
}

/// A place between two entries, in the order of their receipt.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct EntryCursor {
    received: Micros,
    tenant: String,
    id: String,
}

/// Which of the entries are wanted.
#[derive(Debug, Clone)]
pub(super) enum EntryRange {
    /// The newest so many, newest first, and the counts of all.
    Newest(usize),
    /// The oldest so many behind a mark, oldest first.
    Next(Option<EntryCursor>, usize),
}

/// What was found.
#[derive(Debug, Default)]
pub(super) struct FoundEntries {
    counts: BTreeMap<(String, String), EntryCount>,
    entries: BTreeSet<EntryPosition>,
    /// Whether there are more than were wanted.
    pub(super) more: bool,
    newest_first: bool,
    files: Vec<Arc<DataFile>>,
}

/// Where an entry is. They are in the order of their receipt.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct EntryPosition {
    mark: EntryCursor,
    reason: String,
    file: usize,
    row: usize,
}

/// One quarantine, to be looked into.
#[derive(Debug)]
pub(super) struct QuarantineReader<'a> {
    pub(super) table: &'a Arc<Table>,
    pub(super) key_hasher: EventKeyHasher,
}

impl EntryFilter {
    /// Whether nothing is said: all entries.
    pub fn is_all(&self) -> bool {
        *self == Self::default()
    }
}

impl EntryCursor {
    /// As text, to be handed to a caller and back.
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

    /// The mark of a text. `Invalid` when it is none.
    pub fn parse(text: &str) -> Result<Self> {
        let mut parts = text.splitn(3, '/');
        let mark = (|| {
            let (received, id, tenant) = (parts.next()?.parse().ok()?, parts.next()?, parts.next()?);
            Some(Self { received, id: id.to_owned(), tenant: tenant.to_owned() })
        })();
        mark.ok_or_else(|| Error::invalid("`after` is not what an answer's `next` said"))
    }
}

impl QuarantineEntry {
    /// Its place among the others.
    pub fn mark(&self) -> EntryCursor {
        EntryCursor { received: self.received, tenant: self.tenant.clone(), id: self.id.clone() }
    }
}

/// The id of the row that closes an entry.
pub(super) fn closing_id(id: &str, received: Micros) -> String {
    format!("{id}/{received}")
}

impl QuarantineReader<'_> {
    /// Looks through the quarantine as it is now, other servers' commits included. `Limited` when that is too much.
    pub(super) async fn find(&self, pick: &EntryFilter, want: &EntryRange) -> Result<FoundEntries> {
        let snapshot = self.table.refresh().await?;
        let mut found = FoundEntries { newest_first: matches!(want, EntryRange::Newest(_)), ..FoundEntries::default() };
        found.files = snapshot.files.iter().filter(|file| may_hold(file, pick, want)).cloned().collect();
        if found.files.iter().map(|file| file.rows).sum::<u64>() > LOOK_ROWS_MAX {
            let name = &self.table.contract().name;
            return Err(Error::limited(format!(
                "`{name}` has more than {LOOK_ROWS_MAX} rows to look through: name a tenant, or a later `since`"
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
            // Later days hold later entries only.
            if matches!(want, EntryRange::Next(..)) && found.more {
                break;
            }
        }
        Ok(found)
    }

    /// What the rows of a file close.
    async fn closed(&self, file: &DataFile, closed: &mut HashSet<u128>) -> Result<()> {
        let contract = self.table.contract();
        let names = [contract.tenant, contract.time].map(|column| contract.columns[column].name.as_str());
        let names = [names[0], names[1], RESOLVES];
        let mut batches = self.table.rows(file, &names, None, LIGHT_BATCH_ROWS).await?;
        while let Some(batch) = batches.try_next().await? {
            // A file from before entries could be closed.
            let Some(resolves) = optional_text(&batch, RESOLVES) else { return Ok(()) };
            let (tenants, times) = (text(&batch, names[0])?, moments(&batch, contract)?);
            for row in (0..batch.num_rows()).filter(|row| resolves.is_valid(*row)) {
                let id = closing_id(resolves.value(row), times.value(row));
                closed.insert(self.key_hasher.hash(tenants.value(row), &id));
            }
        }
        Ok(())
    }

    /// The open entries of a file.
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

    /// Reads what was found, in its order. With payloads, `reservation` grows by their bytes.
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
    /// How many of each reason and tenant, if the newest were wanted.
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
                "there are more than {COUNTS_MAX} kinds of entries to count: name a tenant, a reason, or a later `since`"
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

/// Whether a file may hold entries that are meant, by its bounds.
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
    Error::internal(format!("a file of the quarantine has no column `{name}` of its type"))
}
