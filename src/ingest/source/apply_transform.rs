//! Applies a source's transform to its messages. The rows that the transform produces are decoded in the same way as
//! events from clients. If a row is invalid, the quarantine stores the whole message from which it came.
//!
//! ```text
//!   messages ─► transform ─► rows, each with its message ─► decode by owner ─┬─► valid rows
//!                   └─────────────────────► rejected messages ◄──────────────┘
//! ```
//!
//! [`Preparer::prepare_transformed`] takes the messages of a batch and returns a [`PreparedBatch`]. This work is
//! CPU-intensive, so it runs on the blocking pool.
//!
//! **Invariant:** a reject contains the offset and the bytes of the message that the source received. It never contains
//! output of the transform.
//! **Invariant:** a message causes at most one reject, even if several of its rows are invalid. The valid rows of the
//! message are still stored.

use std::collections::BTreeMap;

use arrow::array::UInt32Array;
use arrow::compute::take_record_batch;
use bytes::Bytes;
use tokio::runtime::Handle;

use super::message_batch::{BatchMessage, TenantResolution};
use super::truncation::Truncation;
use crate::config::Envelope;
use crate::contract::{DecodeOptions, EventBatch, Format, Owner, Reason, Reject, decode_arrow};
use crate::error::{Error, Result};
use crate::ingest::prepare::{PreparedBatch, Preparer, ReceivedMessages};
use crate::transform::{self, Rows, Transform};

/// The decoded rows that one run of a transform produced.
struct DecodedRows {
    batches: Vec<EventBatch>,
    rejects: Vec<Reject>,
}

impl Preparer {
    /// Transforms JSON messages and decodes the resulting rows. Fails with `Limited` if the result is too large for one
    /// batch. Fails with a [`Truncation`] as the cause if a message reports that a database table was truncated and the
    /// source stops at such a message.
    pub(super) fn prepare_transformed(
        &self,
        transform: &Transform,
        (_, body, messages): (Format, &Bytes, &[BatchMessage]),
        received: &ReceivedMessages<'_>,
        stamp: &DecodeOptions,
        source: &str,
        runtime: &Handle,
    ) -> Result<PreparedBatch> {
        let (mut accepted, mut rejects) = (Vec::with_capacity(messages.len()), BTreeMap::new());
        for (index, message) in messages.iter().enumerate() {
            match tenant_resolution(message, transform.envelope(), stamp) {
                Ok(true) => accepted.push(index),
                Ok(false) => {}
                // The transform skips the message, or stops at it.
                Err((Reason::MissingTenant, _)) if transform.is_without_row(&message.as_transform_message(body)) => {
                    accepted.push(index);
                }
                Err((reason, detail)) => reject(&mut rejects, bad(body, messages, index, reason, detail)),
            }
        }
        let inputs: Vec<_> = accepted.iter().map(|index| messages[*index].as_transform_message(body)).collect();
        let outcome = transform.run(&inputs, runtime, |rows| self.decode_rows(&rows, &accepted, messages, stamp))?;
        if let Some(message) = outcome.truncation {
            let BatchMessage { topic_partition, offset, .. } = &messages[accepted[message]];
            return Err(Truncation { topic_partition: topic_partition.clone(), offset: *offset }.into());
        }
        for transform::MessageError { message, reason, detail } in outcome.errors {
            reject(&mut rejects, bad(body, messages, accepted[message], reason, detail));
        }
        let mut batches = Vec::with_capacity(outcome.parts.len());
        for part in outcome.parts {
            batches.extend(part.batches);
            for Reject { index, reason, detail, tenant, .. } in part.rejects {
                let bad = bad(body, messages, index as usize, reason, detail);
                reject(&mut rejects, Reject { tenant: tenant.or(bad.tenant.clone()), ..bad });
            }
        }
        let rejects: Vec<Reject> = rejects.into_values().collect();
        self.assemble_messages(self.join(batches)?, rejects, received, stamp, source)
    }

    /// Decodes the rows of each owner separately. A rejected row is reported with the index of its message.
    fn decode_rows(
        &self,
        rows: &Rows,
        accepted: &[usize],
        messages: &[BatchMessage],
        stamp: &DecodeOptions,
    ) -> Result<DecodedRows> {
        let mut rows_by_tenant: BTreeMap<&TenantResolution, Vec<u32>> = BTreeMap::new();
        for (row, message) in (0..).zip(&rows.messages) {
            rows_by_tenant.entry(&messages[accepted[*message as usize]].tenant_resolution).or_default().push(row);
        }
        let mut decoded = DecodedRows { batches: Vec::with_capacity(rows_by_tenant.len()), rejects: Vec::new() };
        for (tenant_resolution, indexes) in rows_by_tenant {
            let owner = match tenant_resolution {
                TenantResolution::Tenant(tenant) => Owner::Tenant(tenant.clone()),
                TenantResolution::PerEvent | TenantResolution::Refused(..) => Owner::PerEvent,
            };
            let part = match indexes.len() == rows.batch.num_rows() {
                true => rows.batch.clone(),
                false => take_record_batch(&rows.batch, &UInt32Array::from(indexes.clone()))
                    .map_err(|cause| Error::internal("cannot select the rows of one owner").with_source(cause))?,
            };
            let found = decode_arrow(&self.contract, &part, 0, &DecodeOptions { owner, ..stamp.clone() })?;
            decoded.batches.push(found.batch);
            decoded.rejects.extend(found.rejects.into_iter().map(|reject| {
                let message = rows.messages[indexes[reject.index as usize] as usize];
                Reject { index: accepted[message as usize] as u64, ..reject }
            }));
        }
        Ok(decoded)
    }
}

impl BatchMessage {
    fn as_transform_message<'a>(&'a self, body: &'a Bytes) -> transform::Message<'a> {
        let meta = self.meta.as_deref();
        transform::Message {
            value: (!self.is_tombstone()).then(|| &body[self.range.clone()]),
            key: meta.and_then(|meta| meta.key.as_deref()),
            headers: meta.map_or(&[], |meta| &meta.headers),
            topic: &self.topic_partition.topic,
            partition: self.topic_partition.partition,
            offset: self.offset,
            time: meta.and_then(|meta| meta.time),
        }
    }

    fn is_tombstone(&self) -> bool {
        self.meta.as_ref().is_some_and(|meta| meta.is_tombstone)
    }
}

/// Returns true if the transform receives the message, and false if the message is skipped. Fails with the reason if
/// the message must be rejected before the transform runs.
fn tenant_resolution(
    message: &BatchMessage,
    envelope: Envelope,
    stamp: &DecodeOptions,
) -> std::result::Result<bool, (Reason, String)> {
    // Debezium sends a tombstone after each delete event to make Kafka delete the key. Tombstones are skipped, even if
    // their tenant is unknown.
    if envelope == Envelope::Debezium && message.is_tombstone() {
        return Ok(false);
    }
    let (bytes, bytes_max) = (message.range.len(), stamp.event_bytes_max);
    match &message.tenant_resolution {
        TenantResolution::Refused(_, reason, detail) => Err((*reason, detail.clone())),
        _ if bytes > bytes_max => {
            Err((Reason::TooLarge, format!("the message has {bytes} bytes; at most {bytes_max} are allowed")))
        }
        TenantResolution::PerEvent | TenantResolution::Tenant(_) => Ok(true),
    }
}

/// Creates the reject for a message.
fn bad(body: &Bytes, messages: &[BatchMessage], index: usize, reason: Reason, detail: String) -> Reject {
    let message = &messages[index];
    let tenant = match &message.tenant_resolution {
        TenantResolution::Tenant(tenant) => Some(tenant.clone()),
        TenantResolution::Refused(tenant, ..) => tenant.clone(),
        TenantResolution::PerEvent => None,
    };
    Reject { index: index as u64, tenant, bytes: body.slice(message.range.clone()), reason, detail }
}

/// Adds a reject unless its message already has a reject.
fn reject(rejects: &mut BTreeMap<u64, Reject>, reject: Reject) {
    rejects.entry(reject.index).or_insert(reject);
}
