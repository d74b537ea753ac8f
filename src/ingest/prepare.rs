//! Prepares events for the committers. Converts good events to rows with event keys, and bad events to quarantine rows.
//!
//! A [`Preparer`] converts a [`Body`], or the messages of a source, to a [`PreparedBatch`]. This work performs no I/O
//! but is CPU-intensive, so it runs on the blocking pool.
//!
//! **Invariant:** a bad event keeps its quarantine id if its request is sent again, or if its offset in a topic is read
//! again. The quarantine therefore stores each bad event once.

use std::collections::BTreeMap;
use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array};
use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use super::body::Body;
use super::dedupe::{EventKeyHasher, PreparedRows, content_hashes};
use super::receipt::RejectNote;
use super::source::{BatchMessage, TenantResolution};
use crate::clock::Micros;
use crate::contract::{
    ColumnKind, Contract, DecodeOptions, EventBatch, Format, Owner, PayloadFormat, RESOLUTION, RESOLVED_BY, RESOLVES,
    Reject, TenantId, decode, decode_arrow, decode_messages,
};
use crate::error::{Error, Result};
use crate::lake::InFlightGuard;

/// The number of digest bytes that form the quarantine id of a rejected event.
const QUARANTINE_ID_BYTES: usize = 16;

/// The decoded events of a body, ready to be stored.
#[derive(Debug)]
pub(super) struct PreparedBatch {
    /// The rows of the good events.
    pub(super) good: PreparedRows,
    /// The quarantine rows of the bad events. `None` if all events are good.
    pub(super) bad: Option<PreparedRows>,
    /// The indexes of the bad events in the body, counted from 0.
    pub(super) reject_indexes: Vec<u64>,
    /// Descriptions of the first `notes_max` bad events, for the receipt.
    pub(super) notes: Vec<RejectNote>,
}

impl PreparedBatch {
    /// Returns the memory that all rows occupy, in bytes.
    pub(super) fn bytes(&self) -> usize {
        self.good.bytes + self.bad.as_ref().map_or(0, |bad| bad.bytes)
    }

    /// Attaches a guard to the rows, which then count as in flight until they are stored or refused.
    pub(super) fn with_in_flight(mut self, guard: InFlightGuard) -> Self {
        let guard = Arc::new(guard);
        for rows in [Some(&mut self.good), self.bad.as_mut()].into_iter().flatten() {
            rows.in_flight = Some(guard.clone());
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
    /// The maximum number of [`RejectNote`]s for one batch.
    pub(super) notes_max: usize,
}

/// Messages as they were received. The quarantine stores rejected messages in this form, even if the contract decoded a
/// converted form of them.
#[derive(Debug)]
pub(super) struct ReceivedMessages<'a> {
    /// The bytes of all messages.
    pub(super) body: &'a Bytes,
    pub(super) messages: &'a [BatchMessage],
    /// The format in which the quarantine stores the messages.
    pub(super) kept_as: PayloadFormat,
}

/// The quarantine id of a rejected event, and a description of where the event came from.
#[derive(Debug)]
struct RejectIdentity {
    id: String,
    place: String,
}

impl Preparer {
    /// Decodes a body and builds quarantine rows for its bad events. Fails with `Invalid` if the body cannot be split
    /// into events.
    pub(super) fn prepare(&self, body: Body, stamp: &DecodeOptions, endpoint: &str) -> Result<PreparedBatch> {
        let kept_as = body.format().payload_format().as_str();
        let (rows, rejects) = self.decode(body, stamp)?;
        self.assemble(rows, &rejects, (stamp, kept_as), |reject| RejectIdentity {
            // The quarantine id depends only on the event's content and its index in the request, so a retry produces
            // the same id.
            id: digest(&[&reject.index.to_le_bytes(), reject.reason.as_str().as_bytes(), &[0], &reject.bytes]),
            place: format!("{endpoint}, event {}", reject.index),
        })
    }

    /// Like [`Preparer::prepare`], but for messages, each of which is one event. The quarantine id of a bad message is
    /// derived from its offset.
    pub(super) fn prepare_messages(
        &self,
        (format, body, messages): (Format, &Bytes, &[BatchMessage]),
        received: &ReceivedMessages<'_>,
        stamp: &DecodeOptions,
        source: &str,
    ) -> Result<PreparedBatch> {
        let (rows, rejects) = self.decode_messages(format, body, messages, stamp)?;
        self.assemble_messages(rows, rejects, received, stamp, source)
    }

    /// Builds a prepared batch from decoded messages. The quarantine id of a reject is derived from its offset, and its
    /// payload is the message as it was received.
    pub(super) fn assemble_messages(
        &self,
        rows: EventBatch,
        mut rejects: Vec<Reject>,
        received: &ReceivedMessages<'_>,
        stamp: &DecodeOptions,
        source: &str,
    ) -> Result<PreparedBatch> {
        for reject in &mut rejects {
            reject.bytes = received.body.slice(received.messages[reject.index as usize].range.clone());
        }
        self.assemble(rows, &rejects, (stamp, received.kept_as.as_str()), |reject| {
            let BatchMessage { topic_partition, offset, .. } = &received.messages[reject.index as usize];
            let place = format!("kafka {source}, {}/{}/{offset}", topic_partition.topic, topic_partition.partition);
            // The quarantine id also depends on the message's bytes, because a recreated topic has different messages
            // at the same offsets.
            RejectIdentity { id: digest(&[place.as_bytes(), &[0], &reject.bytes]), place }
        })
    }

    fn assemble(
        &self,
        rows: EventBatch,
        rejects: &[Reject],
        (stamp, kept_as): (&DecodeOptions, &'static str),
        identify: impl Fn(&Reject) -> RejectIdentity,
    ) -> Result<PreparedBatch> {
        let notes = rejects.iter().take(self.notes_max).map(note).collect();
        let bad = match rejects.is_empty() {
            true => None,
            false => {
                let identities: Vec<RejectIdentity> = rejects.iter().map(identify).collect();
                Some(self.prepare_rows(
                    &self.quarantine,
                    self.quarantine_rows(rejects, &identities, kept_as, stamp.received)?,
                    &[],
                )?)
            }
        };
        let reject_indexes = rejects.iter().map(|reject| reject.index).collect();
        Ok(PreparedBatch { good: self.prepare_good_rows(rows)?, bad, reject_indexes, notes })
    }

    /// Decodes messages. Messages with the same tenant resolution are decoded together.
    fn decode_messages(
        &self,
        format: Format,
        body: &Bytes,
        messages: &[BatchMessage],
        stamp: &DecodeOptions,
    ) -> Result<(EventBatch, Vec<Reject>)> {
        let mut by_resolution: BTreeMap<&TenantResolution, Vec<usize>> = BTreeMap::new();
        for (index, message) in messages.iter().enumerate() {
            by_resolution.entry(&message.tenant_resolution).or_default().push(index);
        }
        let (mut rows, mut rejects) = (Vec::with_capacity(by_resolution.len()), Vec::new());
        for (tenant_resolution, indexes) in by_resolution {
            let owner = match tenant_resolution {
                TenantResolution::PerEvent => Owner::PerEvent,
                TenantResolution::Tenant(tenant) => Owner::Tenant(tenant.clone()),
                TenantResolution::Refused(tenant, reason, detail) => {
                    rejects.extend(indexes.into_iter().map(|index| Reject {
                        index: index as u64,
                        tenant: tenant.clone(),
                        bytes: body.slice(messages[index].range.clone()),
                        reason: *reason,
                        detail: detail.clone(),
                    }));
                    continue;
                }
            };
            let ranges: Vec<_> = indexes.iter().map(|index| messages[*index].range.clone()).collect();
            let decoded =
                decode_messages(&self.contract, format, body, &ranges, &DecodeOptions { owner, ..stamp.clone() })?;
            rows.push(decoded.batch);
            let with_message_index = |reject: Reject| Reject { index: indexes[reject.index as usize] as u64, ..reject };
            rejects.extend(decoded.rejects.into_iter().map(with_message_index));
        }
        Ok((self.join(rows)?, rejects))
    }

    /// Decodes a body into rows and rejects.
    pub(super) fn decode(&self, body: Body, stamp: &DecodeOptions) -> Result<(EventBatch, Vec<Reject>)> {
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

    /// Concatenates batches of rows. Returns an empty batch if `rows` is empty.
    pub(super) fn join(&self, rows: Vec<EventBatch>) -> Result<EventBatch> {
        if rows.is_empty() {
            return Ok(EventBatch::empty(&self.contract));
        }
        EventBatch::concat(&rows.iter().collect::<Vec<_>>())
    }

    /// Computes the event keys of good rows, including their content hashes.
    pub(super) fn prepare_good_rows(&self, rows: EventBatch) -> Result<PreparedRows> {
        let content_hashes = content_hashes(&self.contract, &rows)?;
        self.prepare_rows(&self.contract, rows, &content_hashes)
    }

    /// Computes event keys for rows of `contract`. `content_hashes` is empty if duplicates are found by id only,
    /// without comparing their content.
    pub(super) fn prepare_rows(
        &self,
        contract: &Contract,
        rows: EventBatch,
        content_hashes: &[u32],
    ) -> Result<PreparedRows> {
        let keys = self.key_hasher.keys(&rows, contract.tenant, contract.id, content_hashes)?;
        Ok(PreparedRows { bytes: rows.plain_bytes(), rows, keys, in_flight: None })
    }

    /// Converts rejects to quarantine rows.
    fn quarantine_rows(
        &self,
        rejects: &[Reject],
        identities: &[RejectIdentity],
        kept_as: &'static str,
        received: Micros,
    ) -> Result<EventBatch> {
        let contract = &self.quarantine;
        let times = || -> ArrayRef {
            Arc::new(TimestampMicrosecondArray::from_value(received, rejects.len()).with_timezone("UTC"))
        };
        let columns = contract.columns.iter().enumerate().map(|(index, column)| match column.name.as_str() {
            _ if index == contract.tenant => Ok(string_column(rejects, tenant_of)),
            _ if index == contract.id => Ok(string_column(identities, |identity| &identity.id)),
            "source_table" => Ok(string_column(rejects, |_| &self.contract.name)),
            "reason" => Ok(string_column(rejects, |reject| reject.reason.as_str())),
            "detail" => Ok(string_column(rejects, |reject| &reject.detail)),
            "place" => Ok(string_column(identities, |identity| &identity.place)),
            "payload" => {
                Ok(Arc::new(BinaryArray::from_iter_values(rejects.iter().map(|reject| &reject.bytes))) as ArrayRef)
            }
            "format" => Ok(string_column(rejects, |_| kept_as)),
            RESOLVES | RESOLUTION | RESOLVED_BY => Ok(new_null_array(&column.kind.data_type(), rejects.len())),
            _ if column.kind == ColumnKind::Timestamp => Ok(times()),
            name => Err(Error::internal(format!("unknown quarantine column `{name}`"))),
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        RecordBatch::try_new(contract.schema().clone(), columns)
            .map_err(|cause| Error::internal("cannot build quarantine rows").with_source(cause))
            .and_then(|rows| EventBatch::new(contract, rows))
    }
}

/// Creates a string column with one value per element.
fn string_column<'a, R, T: AsRef<str>>(elements: &'a [R], value: impl Fn(&'a R) -> T) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(elements.iter().map(value)))
}

/// Returns the tenant of a reject, or an empty string if the tenant is unknown. No tenant has an empty name, so no
/// tenant sees rows without a tenant.
fn tenant_of(reject: &Reject) -> &str {
    reject.tenant.as_ref().map_or("", TenantId::as_str)
}

/// Returns the truncated SHA-256 digest of the concatenated inputs, in hexadecimal.
fn digest(parts: &[&[u8]]) -> String {
    let mut digest = Sha256::new();
    parts.iter().for_each(|part| digest.update(part));
    digest.finalize()[..QUARANTINE_ID_BYTES].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn note(reject: &Reject) -> RejectNote {
    RejectNote { index: reject.index, reason: reject.reason, detail: reject.detail.clone() }
}
