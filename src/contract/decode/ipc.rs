//! The decoder of Arrow IPC streams, which reads one message at a time.
//!
//! The bytes come from a client and are not trusted. Before anything is read, all lengths are checked against the size
//! of the body. Before memory is allocated for compressed buffers, their declared sizes are checked against a limit. If
//! Arrow's reader panics, the body is refused and the server continues. If a stream is truncated or corrupt after its
//! schema, the batches before that position are kept, and the remaining bytes are recorded as a single reject.

use arrow::array::Array;
use arrow::buffer::Buffer;
use arrow::ipc::reader::StreamDecoder;
use arrow::ipc::{MessageHeader, RecordBatch as BatchHeader, root_as_message};
use arrow::record_batch::RecordBatch;
use bytes::Bytes;

use super::accept_or_reject::push_reject;
use super::arrow_batch;
use super::reject_reason::{Reason, Reject};
use crate::contract::{Contract, DecodeOptions, Decoded, EventBatch, Owner};
use crate::error::{Error, Result};
use crate::supervise::catch;

/// The marker before each message. The current stream format requires it. Streams in the format of older Arrow versions
/// have no marker.
const CONTINUATION: [u8; 4] = [0xff; 4];
/// The maximum total size of all decompressed buffers, as a multiple of the size of the body.
const EXPANSION_MAX: u64 = 64;

/// The maximum size of a body's decoded rows, in bytes. The limit on the size of the body is not enough, because rows
/// can take more space than their body.
const ROWS_BYTES_MAX: usize = 1 << 30;

/// Decodes a whole body.
pub(in crate::contract) fn decode(contract: &Contract, body: &Bytes, options: &DecodeOptions) -> Result<Decoded> {
    let mut stream =
        Stream { body, buffer: Buffer::from(body.clone()), at: 0, decoder: StreamDecoder::new(), expanded: 0 };
    let mut batches = vec![EventBatch::empty(contract)];
    let mut rejects = Vec::new();
    let (mut index, mut bytes) = (0, 0_usize);
    loop {
        let start = stream.at;
        match stream.next() {
            Ok(None) => break,
            Ok(Some(batch)) => {
                let decoded = arrow_batch::decode(contract, &batch, index, options)?;
                index += batch.num_rows() as u64;
                bytes = bytes.saturating_add(bytes_of(&decoded.batch));
                if bytes > ROWS_BYTES_MAX {
                    return Err(Error::limited(format!(
                        "the rows of the body take more than {ROWS_BYTES_MAX} bytes: send smaller bodies"
                    )));
                }
                batches.push(decoded.batch);
                decoded.rejects.into_iter().try_for_each(|reject| push_reject(&mut rejects, reject))?;
            }
            Err(error) if stream.decoder.schema().is_none() => {
                return Err(Error::invalid(format!("the body is not an Arrow IPC stream: {error}")));
            }
            Err(error) => {
                let tenant = match &options.owner {
                    Owner::Tenant(tenant) => Some(tenant.clone()),
                    Owner::PerEvent => None,
                };
                let (bytes, detail) =
                    (body.slice(start..), format!("the Arrow stream is invalid from this row on: {error}"));
                push_reject(&mut rejects, Reject { index, tenant, bytes, reason: Reason::Malformed, detail })?;
                break;
            }
        }
    }
    let batch = EventBatch::concat(&batches.iter().collect::<Vec<_>>())?;
    Ok(Decoded { batch, rejects })
}

/// Returns the size of a batch's rows in bytes. If the rows share a buffer with other rows, only the range that they
/// use is counted.
fn bytes_of(batch: &RecordBatch) -> usize {
    let bytes = batch.columns().iter().map(|column| column.to_data().get_slice_memory_size().unwrap_or(0));
    bytes.fold(0, usize::saturating_add)
}

/// An IPC stream and the current position in it.
struct Stream<'a> {
    body: &'a [u8],
    buffer: Buffer,
    /// The offset of the next message.
    at: usize,
    decoder: StreamDecoder,
    /// The total decompressed size that the compressed buffers have declared so far.
    expanded: u64,
}

impl Stream<'_> {
    /// Reads the next batch. Returns `None` at the end of the stream.
    fn next(&mut self) -> Result<Option<RecordBatch>, String> {
        while let Some(end) = self.message_end()? {
            let mut message = self.buffer.slice_with_length(self.at, end - self.at);
            self.at = end;
            let decoder = &mut self.decoder;
            // Arrow's reader panics on some invalid streams. After an error, including a panic, the caller does not use
            // the reader again.
            let read = catch(|| decoder.decode(&mut message));
            match read.map_err(|_| "the Arrow reader cannot parse it")?.map_err(|error| error.to_string())? {
                Some(batch) => return Ok(Some(batch)),
                None => continue,
            }
        }
        match self.decoder.schema() {
            Some(_) => Ok(None),
            None => Err("it has no schema".into()),
        }
    }

    /// Checks the lengths in the next message and returns the offset of its end. Returns `None` at the end of the
    /// stream.
    fn message_end(&mut self) -> Result<Option<usize>, String> {
        let mut rest = &self.body[self.at..];
        if rest.is_empty() {
            return Ok(None);
        }
        let all = rest.len();
        rest = rest.strip_prefix(&CONTINUATION).unwrap_or(rest);
        let (length, rest) = rest.split_first_chunk().ok_or("it ends inside a length")?;
        let length = u32::from_le_bytes(*length) as usize;
        if length == 0 {
            return Ok(None);
        }
        let (metadata, rest) = rest.split_at_checked(length).ok_or("it ends inside a message's metadata")?;
        let message =
            root_as_message(metadata).map_err(|error| format!("the metadata of a message is invalid ({error})"))?;
        let length = usize::try_from(message.bodyLength()).map_err(|_| "a message has a negative length")?;
        let (data, rest) = rest.split_at_checked(length).ok_or("it ends inside a message's data")?;
        let batch = match message.header_type() {
            MessageHeader::RecordBatch => message.header_as_record_batch(),
            MessageHeader::DictionaryBatch => message.header_as_dictionary_batch().and_then(|batch| batch.data()),
            _ => None,
        };
        if let Some(batch) = batch {
            self.check_expansion(batch, data)?;
        }
        Ok(Some(self.at + all - rest.len()))
    }

    /// Adds the decompressed sizes that a message declares to the total, and checks the total against the limit.
    fn check_expansion(&mut self, batch: BatchHeader<'_>, data: &[u8]) -> Result<(), String> {
        if batch.compression().is_none() {
            return Ok(());
        }
        for buffer in batch.buffers().iter().flatten() {
            let start = usize::try_from(buffer.offset()).map_err(|_| "a buffer has a negative offset")?;
            let length = data.get(start..).and_then(|data| data.first_chunk()).map(|bytes| i64::from_le_bytes(*bytes));
            // A negative length marks a buffer that is not compressed. An empty buffer has no length prefix.
            self.expanded =
                self.expanded.saturating_add(length.and_then(|length| u64::try_from(length).ok()).unwrap_or(0));
        }
        let allowed = (self.body.len() as u64).saturating_mul(EXPANSION_MAX);
        if self.expanded > allowed {
            return Err(format!(
                "its compressed buffers expand to more than {EXPANSION_MAX} times the size of the body"
            ));
        }
        Ok(())
    }
}
