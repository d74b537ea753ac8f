//! Decodes uploads. The Flight messages of a client are converted to validated batches.
//!
//! An upload consists of a descriptor and a stream of batches. The descriptor states the purpose of the upload. It is
//! part of the first message. In a message with compressed buffers, dictionaries, views or run-end encoded arrays, a
//! few bytes can represent terabytes of data. The decoder therefore checks the sizes that a message declares before it
//! allocates memory for the expanded data. It also checks the actual size of each batch after decoding.

use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, RecordBatch};
use arrow::datatypes::{ArrowDictionaryKeyType, DataType};
use arrow::downcast_dictionary_array;
use arrow::ipc::{MessageHeader, root_as_message};
use arrow_flight::decode::FlightRecordBatchStream;
use arrow_flight::error::FlightError;
use arrow_flight::{FlightData, FlightDescriptor};
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt, stream};

use super::error::from_status;
use super::message_reader::{MessageReader, REQUEST, SizeLimit};
use super::upload_memory::{DecodedSize, MessageReservation, UploadMemory};
use crate::error::{Error, Result};
use crate::supervise::catch_future;

/// A message may declare up to this number of rows even if it contains fewer bytes than rows. Rows of nulls, for
/// example, may take no bytes. A client that declares many more rows than bytes probably wants to exhaust the server's
/// memory.
const ROWS_WITHOUT_BYTES_MAX: usize = 1024;
/// In a compressed message, an uncompressed buffer starts with this value in place of a decompressed size.
const UNCOMPRESSED: i64 = -1;

/// An upload whose first message has arrived.
pub(super) struct Upload {
    /// The descriptor from the first message.
    pub(super) descriptor: FlightDescriptor,
    first: FlightData,
    rest: MessageReader,
}

impl Upload {
    /// Waits for the first message, which must contain the descriptor. The size limit for requests applies to this
    /// message.
    pub(super) async fn open(mut messages: MessageReader) -> Result<Self> {
        let first = messages.next(REQUEST, async |_| Ok(())).await?;
        let (mut first, ()) = first
            .ok_or_else(|| Error::invalid("the upload has no messages: the first message must contain the command"))?;
        let descriptor = first.flight_descriptor.take();
        let descriptor =
            descriptor.ok_or_else(|| Error::invalid("the first message of an upload has no descriptor"))?;
        Ok(Self { descriptor, first, rest: messages })
    }

    /// Returns the batches of the upload. Each message, and each batch after decoding, may take at most `limit` bytes.
    /// `memory` holds the memory reservations of the batches until the caller takes them. If `memory` is `None`, no
    /// memory is reserved, and the size limit for requests applies instead.
    pub(super) fn batches(
        self,
        limit: SizeLimit,
        memory: Option<Arc<UploadMemory>>,
    ) -> BoxStream<'static, Result<RecordBatch>> {
        let bytes_max = limit.bytes_max;
        let messages = stream::iter([Ok((self.first, None))])
            .chain(received(self.rest, limit, memory.clone()))
            // A message without a header contains only metadata.
            .try_filter(|(message, _)| std::future::ready(!message.data_header.is_empty()))
            .and_then(move |(message, reservation)| admit(message, reservation, bytes_max, memory.clone()))
            .map_err(|error| FlightError::ExternalError(error.into()));
        fenced(FlightRecordBatchStream::new_from_flight_data(messages).map_err(from_flight))
            .and_then(move |batch| std::future::ready(check_batch(&batch, bytes_max).map(|()| batch)))
            .boxed()
    }
}

/// If the Arrow reader panics, ends the stream with an error. Some invalid messages make it panic, because it contains
/// assertions about messages.
fn fenced(
    batches: impl Stream<Item = Result<RecordBatch>> + Send + 'static,
) -> impl Stream<Item = Result<RecordBatch>> + Send {
    stream::unfold(Some(batches.boxed()), |batches| async move {
        let mut batches = batches?;
        match catch_future(batches.next()).await {
            Ok(batch) => Some((batch?, Some(batches))),
            Err(panic) => {
                let message = "an Arrow message of the upload is invalid and cannot be decoded";
                Some((Err(Error::invalid(message).with_source(panic)), None))
            }
        }
    })
    // The stream must be fused, because a caller that forms groups of batches polls it again after its end.
    .fuse()
}

/// Returns the messages after the first message. Reserves memory for each message before it reads the message.
fn received(
    messages: MessageReader,
    limit: SizeLimit,
    memory: Option<Arc<UploadMemory>>,
) -> impl Stream<Item = Result<(FlightData, Option<MessageReservation>)>> {
    stream::try_unfold((messages, memory), move |(mut messages, memory)| async move {
        let reserve = async |bytes| match &memory {
            Some(memory) => memory.reserve(bytes).await.map(Some),
            None => Ok(None),
        };
        let next = messages.next(limit, reserve).await?;
        Ok(next.map(|message| (message, (messages, memory))))
    })
}

/// Checks a message, and reserves the memory for its decoded data.
async fn admit(
    message: FlightData,
    reservation: Option<MessageReservation>,
    bytes_max: usize,
    memory: Option<Arc<UploadMemory>>,
) -> Result<FlightData> {
    let size = check_message(&message, bytes_max)?;
    if let (Some(reservation), Some(memory)) = (reservation, memory) {
        memory.hold(reservation, size).await?;
    }
    Ok(message)
}

/// Converts an error from arrow-flight.
pub(super) fn from_flight(error: FlightError) -> Error {
    match error {
        FlightError::Tonic(status) => from_status(*status),
        FlightError::ExternalError(source) => match source.downcast::<Error>() {
            Ok(error) => *error,
            Err(source) => Error::invalid("cannot read the Arrow data").with_source(source),
        },
        other => Error::invalid(format!("cannot read the Arrow data: {other}")).with_source(other),
    }
}

/// Checks the number of rows and the sizes of buffers that a message declares. Returns the amount of memory that the
/// decoded message will take.
fn check_message(message: &FlightData, bytes_max: usize) -> Result<DecodedSize> {
    let header = root_as_message(&message.data_header)
        .map_err(|error| Error::invalid("cannot read the header of an Arrow message").with_source(error.to_string()))?;
    let mut dictionary = None;
    let batch = match header.header_type() {
        MessageHeader::RecordBatch => header.header_as_record_batch(),
        MessageHeader::DictionaryBatch => header.header_as_dictionary_batch().and_then(|batch| {
            dictionary = Some(batch.id());
            batch.data()
        }),
        _ => return Ok(DecodedSize::default()),
    };
    let batch = batch.ok_or_else(|| Error::invalid("an Arrow message does not contain a record batch"))?;
    let mut expanded_bytes = 0_usize;
    if batch.compression().is_some() {
        for buffer in batch.buffers().iter().flatten() {
            let bytes = claimed_bytes(&message.data_body, buffer.offset(), buffer.length())?;
            expanded_bytes = expanded_bytes.saturating_add(bytes);
        }
    }
    let bytes = expanded_bytes.saturating_add(message.data_body.len());
    if bytes > bytes_max {
        return Err(too_large(bytes, bytes_max));
    }
    let rows =
        usize::try_from(batch.length()).map_err(|_| Error::invalid("an Arrow batch has a negative number of rows"))?;
    if rows > bytes.max(ROWS_WITHOUT_BYTES_MAX) {
        return Err(Error::invalid(format!("an Arrow batch claims {rows} rows but has only {bytes} bytes")));
    }
    Ok(DecodedSize { expanded_bytes, dictionary })
}

/// Returns the decompressed size that the first eight bytes of a buffer declare. Returns 0 if the buffer is not
/// compressed.
fn claimed_bytes(body: &[u8], offset: i64, length: i64) -> Result<usize> {
    if length == 0 {
        return Ok(0);
    }
    let claimed = usize::try_from(offset)
        .ok()
        .and_then(|offset| body.get(offset..)?.first_chunk::<8>())
        .map(|claimed| i64::from_le_bytes(*claimed))
        .ok_or_else(|| Error::invalid("an Arrow buffer lies outside its message"))?;
    match claimed {
        UNCOMPRESSED => Ok(0),
        _ => usize::try_from(claimed).map_err(|_| Error::invalid("an Arrow buffer claims a negative size")),
    }
}

/// Checks the expanded size and the column types of a batch.
fn check_batch(batch: &RecordBatch, bytes_max: usize) -> Result<()> {
    let mut bytes = 0_usize;
    for (field, column) in batch.schema_ref().fields().iter().zip(batch.columns()) {
        let flat = flat_bytes(column).ok_or_else(|| {
            Error::invalid(format!(
                "column `{}` has type {}, which is not supported in uploads",
                field.name(),
                column.data_type()
            ))
        })?;
        bytes = bytes.saturating_add(flat);
    }
    if bytes > bytes_max { Err(too_large(bytes, bytes_max)) } else { Ok(()) }
}

fn too_large(bytes: usize, bytes_max: usize) -> Error {
    Error::limited(format!(
        "an expanded Arrow batch takes {bytes} bytes, but at most {bytes_max} are allowed: send smaller batches"
    ))
}

/// Returns the size of an array in bytes. A value that several rows share is counted once for each row. Returns `None`
/// for types in which a few bytes can represent any number of copies of a value.
fn flat_bytes(array: &ArrayRef) -> Option<usize> {
    match array.data_type() {
        DataType::Utf8View => Some(array.as_string_view().lengths().map(|length| length as usize).sum()),
        DataType::BinaryView => Some(array.as_binary_view().lengths().map(|length| length as usize).sum()),
        DataType::Dictionary(_, _) => dictionary_bytes(array),
        DataType::Struct(_) => array.as_struct().columns().iter().map(flat_bytes).sum(),
        DataType::Map(_, _) => array.as_map().entries().columns().iter().map(flat_bytes).sum(),
        DataType::List(_) => flat_bytes(array.as_list::<i32>().values()),
        DataType::LargeList(_) => flat_bytes(array.as_list::<i64>().values()),
        DataType::FixedSizeList(_, _) => flat_bytes(array.as_fixed_size_list().values()),
        DataType::ListView(_) | DataType::LargeListView(_) | DataType::RunEndEncoded(_, _) => None,
        // Unions occur only in bound parameters, whose size is limited by the maximum size of a handle.
        _ => Some(array.to_data().get_slice_memory_size().unwrap_or_else(|_| array.get_array_memory_size())),
    }
}

fn dictionary_bytes(array: &ArrayRef) -> Option<usize> {
    downcast_dictionary_array!(
        array => keyed_bytes(array),
        _ => None
    )
}

fn keyed_bytes<K: ArrowDictionaryKeyType>(array: &arrow::array::DictionaryArray<K>) -> Option<usize> {
    let values = array.values();
    if values.data_type().is_nested() || matches!(values.data_type(), DataType::Dictionary(_, _)) {
        return None;
    }
    let lengths: Vec<usize> = match values.data_type() {
        DataType::Utf8 => values.as_string::<i32>().offsets().lengths().collect(),
        DataType::LargeUtf8 => values.as_string::<i64>().offsets().lengths().collect(),
        DataType::Binary => values.as_binary::<i32>().offsets().lengths().collect(),
        DataType::LargeBinary => values.as_binary::<i64>().offsets().lengths().collect(),
        DataType::Utf8View => values.as_string_view().lengths().map(|length| length as usize).collect(),
        DataType::BinaryView => values.as_binary_view().lengths().map(|length| length as usize).collect(),
        DataType::FixedSizeBinary(width) => vec![usize::try_from(*width).ok()?; values.len()],
        other => vec![other.primitive_width().unwrap_or(1); values.len()],
    };
    Some(array.keys_iter().flatten().map(|key| lengths.get(key).copied().unwrap_or(0)).sum())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{DictionaryArray, Int64Array, ListViewArray, StringArray, StringViewArray, UInt8Array};
    use arrow::datatypes::Int32Type;
    use arrow::ipc::CompressionType;
    use arrow::ipc::writer::{DictionaryTracker, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};

    use super::*;
    use crate::error::Kind;

    const BYTES_MAX: usize = 1024 * 1024;

    fn one(array: impl Array + 'static) -> RecordBatch {
        RecordBatch::try_from_iter([("c", Arc::new(array) as ArrayRef)]).unwrap()
    }

    #[test]
    fn shared_values_count_each_time_they_are_used() {
        let long = "x".repeat(10_000);
        let many = |array: ArrayRef| {
            let picks = arrow::array::UInt32Array::from(vec![0; 1_000]);
            arrow::compute::take(&array, &picks, None).unwrap()
        };
        let views = many(Arc::new(StringViewArray::from(vec![long.as_str()])));
        let keys = UInt8Array::from(vec![0; 1_000]);
        let words = DictionaryArray::new(keys, Arc::new(StringArray::from(vec![long.as_str()])));
        for batch in [RecordBatch::try_from_iter([("c", views)]).unwrap(), one(words)] {
            let error = check_batch(&batch, BYTES_MAX).unwrap_err();
            assert_eq!(error.kind(), Kind::Limited);
            assert!(error.message().contains("takes 10000000 bytes"), "{error}");
        }
        let lists = ListViewArray::from_iter_primitive::<Int32Type, _, _>([Some([Some(1)])]);
        assert_eq!(check_batch(&one(lists), BYTES_MAX).unwrap_err().kind(), Kind::Invalid);
        assert!(check_batch(&one(StringArray::from(vec!["a"; 1_000])), BYTES_MAX).is_ok());
    }

    fn compressed(batch: &RecordBatch) -> FlightData {
        let options = IpcWriteOptions::default().try_with_compression(Some(CompressionType::ZSTD)).unwrap();
        let mut tracker = DictionaryTracker::new(false);
        let (_, rows) =
            IpcDataGenerator::default().encode(batch, &mut tracker, &options, &mut IpcWriteContext::default()).unwrap();
        FlightData { data_header: rows.ipc_message.into(), data_body: rows.arrow_data.into(), ..Default::default() }
    }

    #[test]
    fn a_compression_bomb_is_refused_before_it_is_inflated() {
        let bomb = compressed(&one(Int64Array::from(vec![7; 1_000_000])));
        assert!(bomb.data_body.len() < BYTES_MAX / 10, "{}", bomb.data_body.len());
        assert_eq!(check_message(&bomb, BYTES_MAX).unwrap_err().kind(), Kind::Limited);
        assert!(check_message(&compressed(&one(Int64Array::from(vec![7; 1_000]))), BYTES_MAX).is_ok());
    }

    #[test]
    fn row_count_is_bounded_by_message_bytes() {
        let nothing = compressed(&one(arrow::array::NullArray::new(2_000)));
        assert_eq!(check_message(&nothing, BYTES_MAX).unwrap_err().kind(), Kind::Invalid);
        assert!(check_message(&compressed(&one(arrow::array::NullArray::new(1))), BYTES_MAX).is_ok());
    }
}
