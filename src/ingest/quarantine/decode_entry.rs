//! Decoding of quarantine entries for a replay, including entries that only their source can decode.
//!
//! In: entries with their payloads. Out: for each entry the bytes that the table's contract decodes, or the reason why there
//! are none. The entry's `place` names its source. The source must still be configured, and must not have a transform.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::reader::QuarantineEntry;
use crate::contract::{Format, Reason};
use crate::error::{Error, Result};
use crate::ingest::schemas::{SchemaReader, Schemas};
use crate::ingest::source::{Sources, text_bytes_max};
use crate::ingest::writer::Writer;

/// The number of entries whose schemas are requested at once.
const ENTRIES_MAX: usize = 64;

/// The bytes that the contract decodes, or the reason why there are none.
pub(super) type DecodedEntry = Result<(Format, Bytes), (Reason, String)>;

/// Decodes the payloads of entries. Fails with `Unavailable` if a registry is unreachable, and with `Limited` if the entries
/// are too large together.
pub(super) async fn read_again(
    writer: &Writer,
    sources: &Sources,
    entries: &[QuarantineEntry],
) -> Result<Vec<DecodedEntry>> {
    let mut forms: Vec<Option<DecodedEntry>> = Vec::with_capacity(entries.len());
    let mut by_source: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, entry) in entries.iter().enumerate() {
        let payload = entry.payload.clone().unwrap_or_default();
        forms.push(entry.format.format().map(|format| Ok((format, payload))));
        if entry.format.format().is_none() {
            by_source.entry(source(entry)).or_default().push(index);
        }
    }
    let (mut bytes, bytes_max) = (0, text_bytes_max(&writer.limits));
    for (source, indexes) in by_source {
        let Some(reader) = sources.reader(source).cloned() else { continue };
        let payload = |index: &usize| entries[*index].payload.clone().unwrap_or_default();
        let given: Vec<Bytes> = indexes.iter().map(payload).collect();
        let mut schemas = Schemas::new();
        for part in given.chunks(ENTRIES_MAX) {
            schemas.extend(reader.learn(reader.ids(part.iter().map(|payload| &**payload))).await?);
        }
        let (event_bytes_max, bytes_left) = (writer.limits.event_bytes_max, bytes_max - bytes);
        let read = writer.decode(move || read_all(&reader, &given, &schemas, event_bytes_max, bytes_left)).await?;
        bytes += read.iter().flatten().map(|(_, text)| text.len()).sum::<usize>();
        for (index, form) in indexes.into_iter().zip(read) {
            forms[index] = Some(form);
        }
    }
    Ok(forms.into_iter().map(|form| form.unwrap_or_else(|| Err(unread()))).collect())
}

fn read_all(
    reader: &SchemaReader,
    payloads: &[Bytes],
    schemas: &Schemas,
    event_bytes_max: usize,
    bytes_max: usize,
) -> Result<Vec<DecodedEntry>> {
    let mut bytes = 0;
    let read = payloads.iter().map(|payload| {
        let form = reader.read_one(payload, schemas, event_bytes_max);
        bytes += form.as_ref().map_or(0, |(_, text)| text.len());
        if bytes > bytes_max {
            return Err(Error::limited("these entries are too large to replay at once: select fewer entries"));
        }
        Ok(form)
    });
    read.collect()
}

/// The source that an entry's place names, or an empty string.
fn source(entry: &QuarantineEntry) -> &str {
    let place = entry.place.strip_prefix("kafka ").and_then(|place| place.split_once(", "));
    place.map_or("", |(source, _)| source)
}

fn unread() -> (Reason, String) {
    let why = "only its source can decode it, and that source does not run here or has a transform: replay the entry with a file that holds the event";
    (Reason::Malformed, why.to_owned())
}
