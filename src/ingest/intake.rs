//! A payload to what the committers take: good rows with the hashes of their ids, bad events as quarantine rows.
//!
//! In: a [`Payload`] and its [`Stamp`]. Out: an [`Intake`]. Pure, and heavy: it runs on the blocking pool.
//!
//! **Invariant:** a bad event sent again by a retry of the same request has the same quarantine id, and is kept once.

use std::sync::Arc;

use arrow::array::{ArrayRef, BinaryArray, RecordBatch, StringArray, TimestampMicrosecondArray};
use arrow::compute::concat_batches;
use sha2::{Digest as _, Sha256};

use super::dedupe::{Keyer, Part};
use super::{Payload, RejectNote};
use crate::clock::Micros;
use crate::contract::{ColumnKind, Contract, Reject, Stamp, TenantId, decode, decode_arrow};
use crate::error::{Error, Result};

/// Bytes of a digest that name a rejected event.
const QUARANTINE_ID_BYTES: usize = 16;

/// What a payload holds.
#[derive(Debug)]
pub(super) struct Intake {
    /// Good events.
    pub(super) good: Part,
    /// Bad events as rows of the quarantine, if there are any.
    pub(super) bad: Option<Part>,
    /// How many bad events.
    pub(super) rejected: u64,
    /// The first of them.
    pub(super) notes: Vec<RejectNote>,
}

/// What decoding needs beside the payload.
#[derive(Debug, Clone)]
pub(super) struct Intaker {
    pub(super) contract: Arc<Contract>,
    pub(super) quarantine: Arc<Contract>,
    pub(super) keyer: Keyer,
    pub(super) notes_max: usize,
}

impl Intaker {
    /// Decodes, and turns rejects into rows. `Invalid` only when the payload as a whole cannot be read.
    pub(super) fn take(&self, payload: Payload, stamp: &Stamp, door: &str) -> Result<Intake> {
        let (rows, rejects) = self.decode(payload, stamp)?;
        let notes = rejects.iter().take(self.notes_max).map(note).collect();
        let rejected = rejects.len() as u64;
        let bad = match rejects.is_empty() {
            true => None,
            false => Some(self.part(&self.quarantine, self.quarantine_rows(&rejects, stamp.received, door)?)?),
        };
        Ok(Intake { good: self.part(&self.contract, rows)?, bad, rejected, notes })
    }

    fn decode(&self, payload: Payload, stamp: &Stamp) -> Result<(RecordBatch, Vec<Reject>)> {
        let batches = match payload {
            Payload::Encoded(format, body) => {
                let decoded = decode(&self.contract, format, &body, stamp)?;
                return Ok((decoded.batch, decoded.rejects));
            }
            Payload::Arrow(batches) => batches,
        };
        let (mut rows, mut rejects, mut first_index) = (Vec::with_capacity(batches.len()), Vec::new(), 0);
        for batch in &batches {
            let decoded = decode_arrow(&self.contract, batch, first_index, stamp)?;
            first_index += batch.num_rows() as u64;
            rows.push(decoded.batch);
            rejects.extend(decoded.rejects);
        }
        let rows = match rows.len() {
            1 => rows.remove(0),
            _ => concat_batches(self.contract.schema(), &rows)
                .map_err(|cause| Error::internal("cannot join a request's rows").with_source(cause))?,
        };
        Ok((rows, rejects))
    }

    fn part(&self, contract: &Contract, rows: RecordBatch) -> Result<Part> {
        let ids = self.keyer.hashes(&rows, contract.tenant, contract.id)?;
        Ok(Part { rows, ids })
    }

    /// Rejects in the quarantine's schema.
    fn quarantine_rows(&self, rejects: &[Reject], received: Micros, door: &str) -> Result<RecordBatch> {
        let contract = &self.quarantine;
        let times = || -> ArrayRef {
            Arc::new(TimestampMicrosecondArray::from_value(received, rejects.len()).with_timezone("UTC"))
        };
        let columns = contract.columns.iter().enumerate().map(|(index, column)| match column.name.as_str() {
            _ if index == contract.tenant => Ok(texts(rejects, owner)),
            _ if index == contract.id => Ok(texts(rejects, quarantine_id)),
            "source_table" => Ok(texts(rejects, |_| &self.contract.name)),
            "reason" => Ok(texts(rejects, |reject| reject.reason.as_str())),
            "detail" => Ok(texts(rejects, |reject| &reject.detail)),
            "place" => Ok(texts(rejects, |reject| format!("{door}, event {}", reject.index))),
            "payload" => {
                Ok(Arc::new(BinaryArray::from_iter_values(rejects.iter().map(|reject| &reject.bytes))) as ArrayRef)
            }
            _ if column.kind == ColumnKind::Timestamp => Ok(times()),
            name => Err(Error::internal(format!("the quarantine has a column `{name}` that nothing fills"))),
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        RecordBatch::try_new(contract.schema().clone(), columns)
            .map_err(|cause| Error::internal("cannot build quarantine rows").with_source(cause))
    }
}

/// One text a reject.
fn texts<'a, T: AsRef<str>>(rejects: &'a [Reject], text: impl Fn(&'a Reject) -> T) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(rejects.iter().map(text)))
}

/// Whose it is. The empty text is no tenant's: nobody but an engineer at the lake sees those rows.
fn owner(reject: &Reject) -> &str {
    reject.tenant.as_ref().map_or("", TenantId::as_str)
}

/// Names a rejected event by what it is and where it stood in its request, so that a retry finds the same name.
fn quarantine_id(reject: &Reject) -> String {
    let mut digest = Sha256::new();
    digest.update(reject.index.to_le_bytes());
    digest.update(reject.reason.as_str());
    digest.update([0]);
    digest.update(&reject.bytes);
    digest.finalize()[..QUARANTINE_ID_BYTES].iter().map(|byte| format!("{byte:02x}")).collect()
}

fn note(reject: &Reject) -> RejectNote {
    RejectNote { index: reject.index, reason: reject.reason, detail: reject.detail.clone() }
}

/// Bytes that rows really hold: buffers shared with other batches are counted by their share.
pub(super) fn bytes_of(rows: &RecordBatch) -> usize {
    let columns = rows.columns().iter();
    columns.map(|column| column.to_data().get_slice_memory_size().unwrap_or(column.get_array_memory_size())).sum()
}
