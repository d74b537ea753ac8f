//! Decodes the payloads of quarantine entries for a replay. Some payloads can be decoded only by the source from which
//! they came.
//!
//! For each entry, [`decode_payloads`] returns bytes that the table's contract can decode, or the reason why the
//! payload cannot be converted to such bytes. If a payload must be decoded by its source, the source is found by its
//! name, which is part of the entry's `place`. The source must still be configured, and must not have a transform.

use std::collections::BTreeMap;

use bytes::Bytes;

use super::reader::QuarantineEntry;
use crate::contract::{Format, Reason};
use crate::error::{Error, Result};
use crate::ingest::schema_registry::{MessageDecoder, Schemas};
use crate::ingest::source::{Sources, text_bytes_max};
use crate::ingest::writer::Writer;

/// The maximum number of entries for which schemas are fetched at the same time.
const SCHEMA_REQUEST_ENTRIES: usize = 64;

/// A payload in a form that the contract can decode, or the reason and the detail with which the entry is rejected
/// again.
pub(super) type DecodedPayload = Result<(Format, Bytes), (Reason, String)>;

/// Decodes the payloads of entries. Fails with `Unavailable` if a schema registry is unreachable. Fails with `Limited`
/// if the total size of the decoded payloads is too large.
pub(super) async fn decode_payloads(
    writer: &Writer,
    sources: &Sources,
    entries: &[QuarantineEntry],
) -> Result<Vec<DecodedPayload>> {
    let mut decoded: Vec<Option<DecodedPayload>> = Vec::with_capacity(entries.len());
    let mut by_source: BTreeMap<&str, Vec<usize>> = BTreeMap::new();
    for (index, entry) in entries.iter().enumerate() {
        let payload = entry.payload.clone().unwrap_or_default();
        decoded.push(entry.format.format().map(|format| Ok((format, payload))));
        if entry.format.format().is_none() {
            by_source.entry(source_name(entry)).or_default().push(index);
        }
    }
    let (mut bytes, bytes_max) = (0, text_bytes_max(&writer.limits));
    for (source, indexes) in by_source {
        let Some(decoder) = sources.reader(source).cloned() else { continue };
        let payload = |index: &usize| entries[*index].payload.clone().unwrap_or_default();
        let payloads: Vec<Bytes> = indexes.iter().map(payload).collect();
        let mut schemas = Schemas::new();
        for chunk in payloads.chunks(SCHEMA_REQUEST_ENTRIES) {
            let ids = decoder.schema_ids(chunk.iter().map(|payload| &**payload));
            schemas.extend(decoder.fetch_schemas(ids).await?);
        }
        let (event_bytes_max, bytes_left) = (writer.limits.event_bytes_max, bytes_max - bytes);
        let decoding = move || decode_all(&decoder, &payloads, &schemas, event_bytes_max, bytes_left);
        let results = writer.decode(decoding).await?;
        bytes += results.iter().flatten().map(|(_, payload)| payload.len()).sum::<usize>();
        for (index, result) in indexes.into_iter().zip(results) {
            decoded[index] = Some(result);
        }
    }
    Ok(decoded.into_iter().map(|payload| payload.unwrap_or_else(|| Err(undecodable()))).collect())
}

/// Decodes the payloads of entries from one source. Fails with `Limited` if the total size of the results exceeds
/// `bytes_max` bytes.
fn decode_all(
    decoder: &MessageDecoder,
    payloads: &[Bytes],
    schemas: &Schemas,
    event_bytes_max: usize,
    bytes_max: usize,
) -> Result<Vec<DecodedPayload>> {
    let mut bytes = 0;
    let results = payloads.iter().map(|payload| {
        let decoded = decoder.decode_one(payload, schemas, event_bytes_max);
        bytes += decoded.as_ref().map_or(0, |(_, payload)| payload.len());
        if bytes > bytes_max {
            return Err(Error::limited("the entries are too large to replay together: select fewer entries"));
        }
        Ok(decoded)
    });
    results.collect()
}

/// Returns the name of the source from which an entry came. The name is part of the entry's `place`. Returns an empty
/// string if the entry did not come from a source.
fn source_name(entry: &QuarantineEntry) -> &str {
    let place = entry.place.strip_prefix("kafka ").and_then(|place| place.split_once(", "));
    place.map_or("", |(source, _)| source)
}

/// Returns the rejection for an entry whose source is not configured or has a transform.
fn undecodable() -> (Reason, String) {
    let why = "only the entry's source can decode it, and that source is not configured on this server or has a transform: \
               replay the entry with a file that contains the event";
    (Reason::Malformed, why.to_owned())
}
