//! A body to what the committers take: good rows with the hashes of their ids, bad events as quarantine rows.
//!
//! In: a [`Body`] or the messages of a source, and a [`Stamp`]. Out: a [`PreparedBatch`]. Pure, and heavy: it runs on the
//! blocking pool.
//!
//! **Invariant:** a bad event sent again by a retry of the same request, or read again from the same place of a topic, has
//! the same quarantine id, and is kept once.

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

/// Bytes of a digest that name a rejected event.
const QUARANTINE_ID_BYTES: usize = 16;

/// What a body holds, ready to be stored.
#[derive(Debug)]
pub(super) struct PreparedBatch {
    /// Good events.
    pub(super) good: Part,
    /// Bad events as rows of the quarantine, if there are any.
    pub(super) bad: Option<Part>,
    /// Where the bad events stood, from 0.
    pub(super) places: Vec<u64>,
    /// What the sender is told of the first of them.
    pub(super) notes: Vec<RejectNote>,
}

impl PreparedBatch {
    /// What its rows take of the memory.
    pub(super) fn bytes(&self) -> usize {
        self.good.bytes + self.bad.as_ref().map_or(0, |bad| bad.bytes)
    }

    /// The same, under way until its rows are settled.
    pub(super) fn held(mut self, held: InFlightGuard) -> Self {
        let held = Arc::new(held);
        for part in [Some(&mut self.good), self.bad.as_mut()].into_iter().flatten() {
            part.held = Some(held.clone());
        }
        self
    }
}

/// What decoding needs beside the body.
#[derive(Debug, Clone)]
pub(super) struct Preparer {
    pub(super) contract: Arc<Contract>,
    pub(super) quarantine: Arc<Contract>,
    pub(super) key_hasher: EventKeyHasher,
    pub(super) notes_max: usize,
}

/// Messages as they were received, which is how the quarantine keeps them, whatever they are decoded from.
#[derive(Debug)]
pub(super) struct ReceivedMessages<'a> {
    pub(super) body: &'a Bytes,
    pub(super) messages: &'a [BatchMessage],
    pub(super) kept_as: Kept,
}

/// What the quarantine calls a rejected event.
#[derive(Debug)]
struct RejectName {
    id: String,
    place: String,
}

impl Preparer {
    /// Decodes, and turns rejects into rows. `Invalid` only when the body as a whole cannot be read.
    pub(super) fn prepare(&self, body: Body, stamp: &Stamp, door: &str) -> Result<PreparedBatch> {
        let kept_as = body.format().kept_as().as_str();
        let (rows, rejects) = self.decode(body, stamp)?;
        self.assemble(rows, &rejects, (stamp, kept_as), |reject| RejectName {
            // What it is and where it stood in its request, so that a retry finds the same name.
            id: digest(&[&reject.index.to_le_bytes(), reject.reason.as_str().as_bytes(), &[0], &reject.bytes]),
            place: format!("{door}, event {}", reject.index),
        })
    }

    /// The same for messages: each is one event, and rejects have their place in the topic as their name.
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

    /// Rows and rejects of messages, the rejects named by their places in the topic and kept as they were received.
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
            // With its bytes: a topic that is made anew has other messages at the same places.
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

    /// Messages of one owner are decoded together.
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

    /// Rows of the table, with their contents.
    pub(super) fn good(&self, rows: EventBatch) -> Result<Part> {
        let contents = fingerprints(&self.contract, &rows)?;
        self.part(&self.contract, rows, &contents)
    }

    pub(super) fn part(&self, contract: &Contract, rows: EventBatch, contents: &[u32]) -> Result<Part> {
        let marks = self.key_hasher.marks(&rows, contract.tenant, contract.id, contents)?;
        Ok(Part { bytes: rows.plain_bytes(), rows, marks, held: None })
    }

    /// Rejects in the quarantine's schema.
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
            name => Err(Error::internal(format!("the quarantine has a column `{name}` that nothing fills"))),
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        RecordBatch::try_new(contract.schema().clone(), columns)
            .map_err(|cause| Error::internal("cannot build quarantine rows").with_source(cause))
            .and_then(|rows| EventBatch::new(contract, rows))
    }
}

/// One text of each.
fn texts<'a, R, T: AsRef<str>>(each: &'a [R], text: impl Fn(&'a R) -> T) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(each.iter().map(text)))
}

/// Whose it is. The empty text is no tenant's: nobody but an engineer at the lake sees those rows.
fn owner(reject: &Reject) -> &str {
    reject.tenant.as_ref().map_or("", TenantId::as_str)
}

/// A short digest of bytes, in hexadecimal digits.
fn digest(parts: &[&[u8]]) -> String {
    let mut digest = Sha256::new();
    parts.iter().for_each(|part| digest.update(part));
    digest.finalize()[..QUARANTINE_ID_BYTES].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn note(reject: &Reject) -> RejectNote {
    RejectNote { index: reject.index, reason: reject.reason, detail: reject.detail.clone() }
}
