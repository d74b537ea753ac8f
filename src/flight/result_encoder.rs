//! Encodes results. The batches are converted to Flight messages that do not exceed the size limit of clients.
//!
//! The schema message comes first, and the rows follow in order. A batch is split according to its estimated encoded
//! size, and the size of each message is checked after encoding. Only one batch is buffered at a time. If a single row
//! exceeds the size limit, the stream ends with the error `Limited`. There is no limit on the size of the whole result.
//!
//! Encoding is on the hot path of queries. For this reason, the size of a column without nested data is computed from
//! its offsets alone, and data is copied only once.

use std::collections::VecDeque;

use arrow::array::{Array, ArrayData, ArrayRef, AsArray, RecordBatch, RecordBatchOptions};
use arrow::datatypes::{DataType, SchemaRef};
use arrow::error::ArrowError;
use arrow::ipc::writer::{DictionaryTracker, EncodedData, IpcDataGenerator, IpcWriteContext, IpcWriteOptions};
use arrow_flight::FlightData;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, stream};
use prost::Message;

use super::result_arrow_types::{convert, to_wire, wire_schema};
use crate::config::TypeProfile;
use crate::error::{Error, Result};

/// The alignment of body buffers, in bytes.
const ALIGNMENT: usize = 64;
/// The estimated size of a message, not including its body and the metadata of its columns.
const HEADER_BYTES: usize = 512;
/// The estimated size of the metadata for one column, which consists of its field node and its buffer descriptions.
const HEADER_BYTES_PER_COLUMN: usize = 128;

/// Encodes a result as messages. Each batch is cast to `wire`, which is the schema that the server has announced to the
/// client.
pub(super) fn encode_result(
    batches: BoxStream<'static, Result<RecordBatch>>,
    wire: SchemaRef,
    message_bytes_max: usize,
) -> impl Stream<Item = Result<FlightData>> + Send {
    let encoder = ResultEncoder::new(batches, wire, message_bytes_max);
    stream::try_unfold(
        encoder,
        |mut encoder| async move { Ok(encoder.next().await?.map(|message| (message, encoder))) },
    )
}

/// Encodes the batches of a result in order.
struct ResultEncoder {
    batches: BoxStream<'static, Result<RecordBatch>>,
    wire: SchemaRef,
    /// The slices of the current batch that have not been encoded yet. The next slice is at the end.
    parts: Vec<RecordBatch>,
    /// The encoded messages that have not been sent yet.
    ready: VecDeque<FlightData>,
    encoder: BatchEncoder,
}

impl ResultEncoder {
    fn new(batches: BoxStream<'static, Result<RecordBatch>>, wire: SchemaRef, message_bytes_max: usize) -> Self {
        let mut encoder = BatchEncoder::new(&wire, message_bytes_max);
        let ready = VecDeque::from([encoder.schema(&wire)]);
        Self { batches, wire, parts: Vec::new(), ready, encoder }
    }

    async fn next(&mut self) -> Result<Option<FlightData>> {
        loop {
            if let Some(message) = self.ready.pop_front() {
                return Ok(Some(message));
            }
            if let Some(part) = self.parts.pop() {
                self.encoder.encode(part, &mut self.parts, &mut self.ready)?;
                continue;
            }
            match self.batches.next().await {
                Some(batch) => self.parts.push(to_wire(batch?, &self.wire)?),
                None => return Ok(None),
            }
        }
    }
}

/// Encodes one batch at a time.
struct BatchEncoder {
    generator: IpcDataGenerator,
    dictionaries: DictionaryTracker,
    context: IpcWriteContext,
    options: IpcWriteOptions,
    has_views: bool,
    /// The maximum size of a message.
    message_bytes_max: usize,
    /// The maximum size of a message body, according to the estimate. A batch with a larger estimate is split before it
    /// is encoded.
    body_bytes_max: usize,
}

impl BatchEncoder {
    fn new(wire: &SchemaRef, message_bytes_max: usize) -> Self {
        let header = HEADER_BYTES + HEADER_BYTES_PER_COLUMN * wire.flattened_fields().len();
        Self {
            generator: IpcDataGenerator::default(),
            dictionaries: DictionaryTracker::new(false),
            context: IpcWriteContext::default(),
            options: IpcWriteOptions::default(),
            has_views: wire.flattened_fields().iter().any(|field| is_view(field.data_type())),
            message_bytes_max,
            body_bytes_max: message_bytes_max.saturating_sub(header).max(message_bytes_max / 2),
        }
    }

    fn schema(&mut self, wire: &SchemaRef) -> FlightData {
        let encoded =
            self.generator.schema_to_bytes_with_dictionary_tracker(wire, &mut self.dictionaries, &self.options);
        message(encoded)
    }

    /// Encodes `part` and adds its messages to `ready`. If `part` is too large for a message, adds smaller slices of it
    /// to `parts` instead.
    fn encode(
        &mut self,
        part: RecordBatch,
        parts: &mut Vec<RecordBatch>,
        ready: &mut VecDeque<FlightData>,
    ) -> Result<()> {
        if part.num_rows() == 0 {
            return Ok(());
        }
        let part = if self.has_views { compacted(&part).map_err(unencodable)? } else { part };
        let size = body_bytes(&part);
        if size > self.body_bytes_max {
            return self.split(&part, size, parts);
        }
        let (dictionaries, rows) = self
            .generator
            .encode(&part, &mut self.dictionaries, &self.options, &mut self.context)
            .map_err(unencodable)?;
        for dictionary in dictionaries {
            let dictionary = message(dictionary);
            self.check_dictionary(&dictionary)?;
            ready.push_back(dictionary);
        }
        let rows = message(rows);
        if rows.encoded_len() > self.message_bytes_max {
            return self.split(&part, rows.encoded_len(), parts);
        }
        ready.push_back(rows);
        Ok(())
    }

    /// Splits `part` into slices that have the same number of rows, and adds them to `parts`. `parts` is a stack, so
    /// the first slice is added last. If a slice is still too large, it will be split again.
    fn split(&self, part: &RecordBatch, size: usize, parts: &mut Vec<RecordBatch>) -> Result<()> {
        let rows = part.num_rows();
        if rows == 1 {
            return Err(Error::limited(format!(
                "one row takes {size} bytes, but a message holds at most {} bytes: select fewer or shorter columns",
                self.message_bytes_max
            )));
        }
        let rows_per_part = (rows / size.div_ceil(self.body_bytes_max).max(2)).max(1);
        let starts: Vec<usize> = (0..rows).step_by(rows_per_part).collect();
        parts.extend(starts.into_iter().rev().map(|start| part.slice(start, rows_per_part.min(rows - start))));
        Ok(())
    }

    fn check_dictionary(&self, dictionary: &FlightData) -> Result<()> {
        let size = dictionary.encoded_len();
        if size <= self.message_bytes_max {
            return Ok(());
        }
        Err(Error::limited(format!(
            "the dictionary of a column takes {size} bytes, but a message holds at most {} bytes: set the session option \
             `types` to `compat`",
            self.message_bytes_max
        )))
    }
}

fn message(encoded: EncodedData) -> FlightData {
    FlightData { data_header: encoded.ipc_message.into(), data_body: encoded.arrow_data.into(), ..Default::default() }
}

fn unencodable(error: ArrowError) -> Error {
    Error::internal("cannot encode a result").with_source(error)
}

/// Estimates the encoded size of a batch's body. Dictionaries are not counted.
fn body_bytes(batch: &RecordBatch) -> usize {
    batch.columns().iter().map(|column| array_bytes(&column.to_data())).sum()
}

/// Estimates the encoded size of an array. The function counts what the IPC writer sends: only the used range of each
/// buffer, and only the used values of each list.
fn array_bytes(data: &ArrayData) -> usize {
    let validity = if data.null_count() > 0 { padded(data.len().div_ceil(8)) } else { 0 };
    if data.is_empty() {
        return ALIGNMENT;
    }
    validity
        + match data.data_type() {
            DataType::List(_) | DataType::Map(_, _) => {
                let offsets = &data.buffers()[0].typed_data::<i32>()[data.offset()..];
                let (start, end) = (offsets[0] as usize, offsets[data.len()] as usize);
                padded((data.len() + 1) * size_of::<i32>())
                    + array_bytes(&data.child_data()[0].slice(start, end - start))
            }
            DataType::LargeList(_) => {
                let offsets = &data.buffers()[0].typed_data::<i64>()[data.offset()..];
                let (start, end) = (offsets[0] as usize, offsets[data.len()] as usize);
                padded((data.len() + 1) * size_of::<i64>())
                    + array_bytes(&data.child_data()[0].slice(start, end - start))
            }
            DataType::FixedSizeList(_, width) => {
                let width = *width as usize;
                array_bytes(&data.child_data()[0].slice(data.offset() * width, data.len() * width))
            }
            DataType::Struct(_) => data.child_data().iter().map(array_bytes).sum(),
            DataType::Dictionary(keys, _) => padded(data.len() * keys.primitive_width().unwrap_or(8)),
            DataType::Utf8View | DataType::BinaryView => {
                let values: usize = data.buffers()[1..].iter().map(|buffer| padded(buffer.len())).sum();
                padded(data.len() * size_of::<u128>()) + values
            }
            // For the following types, the IPC writer sends whole buffers, so whole buffers are counted. This estimate
            // need not be exact, because the size is checked again after encoding.
            DataType::Union(_, _)
            | DataType::ListView(_)
            | DataType::LargeListView(_)
            | DataType::RunEndEncoded(_, _) => data.get_array_memory_size(),
            _ => padded(data.get_slice_memory_size().unwrap_or(0)) + 2 * ALIGNMENT,
        }
}

fn padded(bytes: usize) -> usize {
    bytes.next_multiple_of(ALIGNMENT)
}

fn is_view(data_type: &DataType) -> bool {
    matches!(data_type, DataType::Utf8View | DataType::BinaryView)
}

/// Removes the bytes that no view references, and returns the resulting batch. Otherwise, the IPC writer would send
/// these bytes, too.
fn compacted(batch: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let columns = batch
        .columns()
        .iter()
        .zip(wire_schema(batch.schema_ref(), TypeProfile::Compat).fields())
        .map(|(column, plain)| compacted_column(column, plain.data_type()))
        .collect::<Result<Vec<_>, _>>()?;
    let options = RecordBatchOptions::new().with_row_count(Some(batch.num_rows()));
    RecordBatch::try_new_with_options(batch.schema(), columns, &options)
}

/// Removes the unreferenced bytes of a column with views. If the views are in a nested type, the column is cast to
/// `plain`, which is the same type without views, and then back.
fn compacted_column(column: &ArrayRef, plain: &DataType) -> Result<ArrayRef, ArrowError> {
    match column.data_type() {
        DataType::Utf8View => Ok(std::sync::Arc::new(column.as_string_view().gc())),
        DataType::BinaryView => Ok(std::sync::Arc::new(column.as_binary_view().gc())),
        nested if nested.is_nested() && nested != plain => convert(&convert(column, plain)?, nested),
        _ => Ok(column.clone()),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{ListBuilder, StringArray, StringBuilder, StringViewArray, UInt64Array};
    use arrow::compute::{concat_batches, filter_record_batch};
    use arrow_flight::decode::FlightRecordBatchStream;
    use futures::TryStreamExt;

    use super::*;
    use crate::error::Kind;

    const MESSAGE_BYTES_MAX: usize = 64 * 1024;

    fn one(array: impl Array + 'static) -> RecordBatch {
        RecordBatch::try_from_iter([("c", Arc::new(array) as ArrayRef)]).unwrap()
    }

    async fn encode(batch: &RecordBatch, types: TypeProfile) -> Result<Vec<FlightData>> {
        let wire = wire_schema(batch.schema_ref(), types);
        encode_result(stream::iter([Ok(batch.clone())]).boxed(), wire, MESSAGE_BYTES_MAX).try_collect().await
    }

    /// Encodes a batch, and checks the size of each message. Also checks that the messages decode to the same rows.
    /// Returns the number of messages.
    async fn check(batch: &RecordBatch, types: TypeProfile) -> usize {
        let sent = encode(batch, types).await.unwrap();
        for message in &sent {
            assert!(message.encoded_len() <= MESSAGE_BYTES_MAX, "{} bytes", message.encoded_len());
        }
        let count = sent.len();
        let stream = FlightRecordBatchStream::new_from_flight_data(stream::iter(sent.into_iter().map(Ok)));
        let received: Vec<RecordBatch> = stream.try_collect().await.unwrap();
        let wire = wire_schema(batch.schema_ref(), types);
        let expected = to_wire(batch.clone(), &wire).unwrap();
        assert_eq!(concat_batches(&wire, &received).unwrap(), expected);
        count
    }

    #[tokio::test]
    async fn no_message_is_too_large() {
        let skewed: Vec<String> = (0..4_000).map(|n| "x".repeat(if n % 500 == 0 { 20_000 } else { n % 7 })).collect();
        let mut lists = ListBuilder::new(StringBuilder::new());
        for text in &skewed {
            lists.append_value([Some(text.as_str()), None, Some("end")]);
        }
        let lists = one(lists.finish());
        let views = one(StringViewArray::from_iter_values(&skewed));
        let one_percent = arrow::array::BooleanArray::from_iter((0..4_000).map(|n| Some(n % 100 == 3)));
        let cases = [
            one(UInt64Array::from_iter_values(0..100_000)),
            one(StringArray::from_iter_values(&skewed)),
            one(skewed
                .iter()
                .map(|text| Some(text.as_str()))
                .collect::<arrow::array::DictionaryArray<arrow::datatypes::Int32Type>>()),
            lists.slice(490, 700),
            lists,
            filter_record_batch(&views, &one_percent).unwrap(),
            views,
        ];
        for batch in &cases {
            check(batch, TypeProfile::Compat).await;
        }
        for batch in [&cases[0], &cases[1], &cases[3], &cases[4], &cases[5], &cases[6]] {
            check(batch, TypeProfile::Native).await;
        }
    }

    #[tokio::test]
    async fn only_the_bytes_of_a_slice_count_towards_its_size() {
        let texts: Vec<String> = (0..1_000).map(|n| format!("{n:0>1000}")).collect();
        let batch = one(StringViewArray::from_iter_values(texts));
        assert_eq!(check(&batch.slice(10, 20), TypeProfile::Native).await, 2);
        assert_eq!(check(&batch.slice(10, 20), TypeProfile::Compat).await, 2);
    }

    #[tokio::test]
    async fn an_empty_result_has_only_a_schema_message() {
        let batch = one(UInt64Array::from_iter_values(0..10)).slice(3, 0);
        assert_eq!(encode(&batch, TypeProfile::Compat).await.unwrap().len(), 1);
    }

    #[tokio::test]
    async fn error_for_a_row_larger_than_a_message_has_both_sizes() {
        let batch = one(StringArray::from(vec!["short".to_owned(), "x".repeat(MESSAGE_BYTES_MAX)]));
        let error = encode(&batch, TypeProfile::Compat).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Limited);
        assert!(error.message().contains("one row takes 65"), "{error}");
        assert!(error.message().contains("at most 65536"), "{error}");
    }
}
