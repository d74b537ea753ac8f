//! Prepares a body for the committers: decodes good events into rows with event keys, and bad events into quarantine rows.
//!
//! In: a [`Body`] or the messages of a source, and a [`Stamp`]. Out: a [`PreparedBatch`]. Pure and CPU-intensive: it runs on
//! the blocking pool.
//!
//! **Invariant:** a bad event has the same quarantine id, and is kept once, when a retry of the same request sends it again or
//! when it is read again from the same offset of a topic.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::body::Body;
use super::dedupe::{EventKeyHasher, Part, fingerprints};
use super::receipt::RejectNote;
use super::source::{BatchMessage, TenantResolution};
use crate::clock::Micros;
use crate::contract::{
    ColumnKind, Contract, EventBatch, Format, Kept, Owner, RESOLUTION, RESOLVED_BY, RESOLVES, Reject, Stamp, TenantId,
    decode, decode_arrow, decode_messages,
};
use crate::error::{Error, Result};
use crate::lake::InFlightGuard;

/// The number of digest bytes in the id of a rejected event.
const QUARANTINE_ID_BYTES: usize = 16;

/// The decoded events of a body, ready to be stored.
#[derive(Debug)]
pub(super) struct PreparedBatch {
    /// Good events.
    pub(super) good: Part,
    /// Bad events as rows of the quarantine; `None` if there are none.
    pub(super) bad: Option<Part>,
    /// The indexes of the bad events in the body, from 0.
    pub(super) places: Vec<u64>,
    /// The notes on the first bad events for the receipt.
    pub(super) notes: Vec<RejectNote>,
}

impl PreparedBatch {
    /// The memory that its rows occupy, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.good.bytes + self.bad.as_ref().map_or(0, |bad| bad.bytes)
    }

    /// Attaches the guard that counts its rows as in flight until they are stored or refused.
    pub(super) fn held(mut self, held: InFlightGuard) -> Self {
        let held = Arc::new(held);
        for part in [Some(&mut self.good), self.bad.as_mut()].into_iter().flatten() {
            part.held = Some(held.clone());
        }
        self
    }
}

/// Decodes bodies and messages for one table.
#[derive(Debug, Clone)]
pub(super) struct Preparer {
    pub(super) contract: Arc<Contract>,
    pub(super) quarantine: Arc<Contract>,
    pub(super) key_hasher: EventKeyHasher,
    pub(super) notes_max: usize,
}

/// Messages as they were received. The quarantine keeps them in this form, even if another form of them is decoded.
#[derive(Debug)]
pub(super) struct ReceivedMessages<'a> {
    pub(super) body: &'a Bytes,
    pub(super) messages: &'a [BatchMessage],
    pub(super) kept_as: Kept,
}

/// The id and the place of a rejected event in the quarantine.
#[derive(Debug)]
struct RejectName {
    id: String,
    place: String,
}

impl Preparer {
    /// Decodes a body and builds quarantine rows of its rejects. `Invalid` only if the body as a whole cannot be decoded.
    pub(super) fn prepare(&self, body: Body, stamp: &Stamp, endpoint: &str) -> Result<PreparedBatch> {
        let kept_as = body.format().kept_as().as_str();
        let (rows, rejects) = self.decode(body, stamp)?;
        self.assemble(rows, &rejects, (stamp, kept_as), |reject| RejectName {
            // Its content and its index in the request, so that a retry produces the same id.
            id: digest(&[&reject.index.to_le_bytes(), reject.reason.as_str().as_bytes(), &[0], &reject.bytes]),
            place: format!("{endpoint}, event {}", reject.index),
        })
    }

    /// Like [`Preparer::prepare`] for messages: each message is one event, and the id of a reject includes its offset.
    pub(super) fn prepare_messages(
        &self,
        (format, body, messages): (Format, &Bytes, &[BatchMessage]),
        received: &ReceivedMessages<'_>,
        stamp: &Stamp,
        source: &str,
    ) -> Result<PreparedBatch> {
        let (rows, rejects) = self.decode_messages(format, body, messages, stamp)?;
        self.assemble_messages(rows, rejects, received, stamp, source)
    }

    /// Builds a prepared batch of decoded messages. Rejects are identified by their offsets and kept as they were received.
    pub(super) fn assemble_messages(
        &self,
        rows: EventBatch,
        mut rejects: Vec<Reject>,
        received: &ReceivedMessages<'_>,
        stamp: &Stamp,
        source: &str,
    ) -> Result<PreparedBatch> {
        for reject in &mut rejects {
            reject.bytes = received.body.slice(received.messages[reject.index as usize].place.clone());
        }
        self.assemble(rows, &rejects, (stamp, received.kept_as.as_str()), |reject| {
            let BatchMessage { topic_partition, offset, .. } = &received.messages[reject.index as usize];
            let place = format!("kafka {source}, {}/{}/{offset}", topic_partition.topic, topic_partition.partition);
            // The id covers the bytes as well: a recreated topic has other messages at the same offsets.
            RejectName { id: digest(&[place.as_bytes(), &[0], &reject.bytes]), place }
        })
    }

    fn assemble(
        &self,
        rows: EventBatch,
        rejects: &[Reject],
        (stamp, kept_as): (&Stamp, &'static str),
        name: impl Fn(&Reject) -> RejectName,
    ) -> Result<PreparedBatch> {
        let notes = rejects.iter().take(self.notes_max).map(note).collect();
        let bad = match rejects.is_empty() {
            true => None,
            false => {
                let names: Vec<RejectName> = rejects.iter().map(name).collect();
                Some(self.part(
                    &self.quarantine,
                    self.quarantine_rows(rejects, &names, kept_as, stamp.received)?,
                    &[],
                )?)
            }
        };
        let places = rejects.iter().map(|reject| reject.index).collect();
        Ok(PreparedBatch { good: self.good(rows)?, bad, places, notes })
    }

    /// Decodes messages, those of one owner together.
    fn decode_messages(
        &self,
        format: Format,
        body: &Bytes,
        messages: &[BatchMessage],
        stamp: &Stamp,
    ) -> Result<(EventBatch, Vec<Reject>)> {
        let mut fates: BTreeMap<&TenantResolution, Vec<usize>> = BTreeMap::new();
        for (index, message) in messages.iter().enumerate() {
            fates.entry(&message.tenant_resolution).or_default().push(index);
        }
        let (mut rows, mut rejects) = (Vec::with_capacity(fates.len()), Vec::new());
        for (tenant_resolution, indexes) in fates {
            let owner = match tenant_resolution {
                TenantResolution::PerEvent => Owner::PerEvent,
                TenantResolution::Tenant(tenant) => Owner::Tenant(tenant.clone()),
                TenantResolution::Refused(tenant, reason, detail) => {
                    rejects.extend(indexes.into_iter().map(|index| Reject {
                        index: index as u64,
                        tenant: tenant.clone(),
                        bytes: body.slice(messages[index].place.clone()),
                        reason: *reason,
                        detail: detail.clone(),
                    }));
                    continue;
                }
            };
            let places: Vec<_> = indexes.iter().map(|index| messages[*index].place.clone()).collect();
            let decoded = decode_messages(&self.contract, format, body, &places, &Stamp { owner, ..stamp.clone() })?;
            rows.push(decoded.batch);
            let placed = |reject: Reject| Reject { index: indexes[reject.index as usize] as u64, ..reject };
            rejects.extend(decoded.rejects.into_iter().map(placed));
        }
        Ok((self.join(rows)?, rejects))
    }

    pub(super) fn decode(&self, body: Body, stamp: &Stamp) -> Result<(EventBatch, Vec<Reject>)> {
        let batches = match body {
            Body::Encoded(format, body) => {
                let decoded = decode(&self.contract, format, &body, stamp)?;
                return Ok((decoded.batch, decoded.rejects));
            }
            Body::Arrow(batches) => batches,
        };
        let (mut rows, mut rejects, mut first_index) = (Vec::with_capacity(batches.len()), Vec::new(), 0);
        for batch in &batches {
            let decoded = decode_arrow(&self.contract, batch, first_index, stamp)?;
            first_index += batch.num_rows() as u64;
            rows.push(decoded.batch);
            rejects.extend(decoded.rejects);
        }
        Ok((self.join(rows)?, rejects))
    }

    pub(super) fn join(&self, rows: Vec<EventBatch>) -> Result<EventBatch> {
        if rows.is_empty() {
            return Ok(EventBatch::empty(&self.contract));
        }
        EventBatch::concat(&rows.iter().collect::<Vec<_>>())
    }

    /// A part of good rows, with the content hash of each row.
    pub(super) fn good(&self, rows: EventBatch) -> Result<Part> {
        let contents = fingerprints(&self.contract, &rows)?;
        self.part(&self.contract, rows, &contents)
    }

    pub(super) fn part(&self, contract: &Contract, rows: EventBatch, contents: &[u32]) -> Result<Part> {
        let marks = self.key_hasher.marks(&rows, contract.tenant, contract.id, contents)?;
        Ok(Part { bytes: rows.plain_bytes(), rows, marks, held: None })
    }

    /// Converts rejects to rows in the schema of the quarantine.
    fn quarantine_rows(
        &self,
        rejects: &[Reject],
        names: &[RejectName],
        kept_as: &'static str,
        received: Micros,
    ) -> Result<EventBatch> {
        let contract = &self.quarantine;
        let times = || -> ArrayRef {
            Arc::new(TimestampMicrosecondArray::from_value(received, rejects.len()).with_timezone("UTC"))
        };
        let columns = contract.columns.iter().enumerate().map(|(index, column)| match column.name.as_str() {
            _ if index == contract.tenant => Ok(texts(rejects, owner)),
            _ if index == contract.id => Ok(texts(names, |name| &name.id)),
            "source_table" => Ok(texts(rejects, |_| &self.contract.name)),
            "reason" => Ok(texts(rejects, |reject| reject.reason.as_str())),
            "detail" => Ok(texts(rejects, |reject| &reject.detail)),
            "place" => Ok(texts(names, |name| &name.place)),
            "payload" => {
                Ok(Arc::new(BinaryArray::from_iter_values(rejects.iter().map(|reject| &reject.bytes))) as ArrayRef)
            }
            "format" => Ok(texts(rejects, |_| kept_as)),
            RESOLVES | RESOLUTION | RESOLVED_BY => Ok(new_null_array(&column.kind.data_type(), rejects.len())),
            _ if column.kind == ColumnKind::Timestamp => Ok(times()),
            name => Err(Error::internal(format!("no value is known for the quarantine column `{name}`"))),
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        RecordBatch::try_new(contract.schema().clone(), columns)
            .map_err(|cause| Error::internal("cannot build quarantine rows").with_source(cause))
            .and_then(|rows| EventBatch::new(contract, rows))
    }
}

/// A text column with one value per element.
fn texts<'a, R, T: AsRef<str>>(each: &'a [R], text: impl Fn(&'a R) -> T) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(each.iter().map(text)))
}

/// The tenant of a reject. The empty text belongs to no tenant: only direct access to the lake shows those rows.
fn owner(reject: &Reject) -> &str {
    reject.tenant.as_ref().map_or("", TenantId::as_str)
}

/// A truncated SHA-256 of the concatenated parts, in hexadecimal.
fn digest(parts: &[&[u8]]) -> String {
    let mut digest = Sha256::new();
    parts.iter().for_each(|part| digest.update(part));
    digest.finalize()[..QUARANTINE_ID_BYTES].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn note(reject: &Reject) -> RejectNote {
    RejectNote { index: reject.index, reason: reject.reason, detail: reject.detail.clone() }
}
