//! Splits the input of `glasshouse ingest` into request bodies of bounded size. An event is never split.
//!
//! A JSON document and a Parquet file are read into memory as a whole. All other formats are streamed.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use arrow::array::{RecordBatch, RecordBatchReader};
use arrow::ipc::reader::StreamReader;
use arrow::ipc::writer::StreamWriter;
use bytes::Bytes;
use clap::ValueEnum;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::error::{Error, Result};

/// The maximum length of the varint that precedes each protobuf message, in bytes.
const VARINT_BYTES_MAX: usize = 10;
/// The maximum size of one event, in bytes. If a length prefix specifies a larger size, the input is probably not a
/// protobuf stream.
const EVENT_BYTES_MAX: u64 = 64 << 20;

/// The format of the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum InputFormat {
    /// One JSON object per line
    Ndjson,
    /// One JSON document: an object or an array of objects
    Json,
    /// Length-delimited protobuf messages
    Protobuf,
    /// An Arrow IPC stream
    Arrow,
    /// A Parquet file
    Parquet,
}

impl InputFormat {
    /// Returns the format that the extension of `file` denotes, or `None` if the extension is unknown.
    pub(crate) fn of(file: &Path) -> Option<Self> {
        match file.extension()?.to_str()? {
            "ndjson" | "jsonl" => Some(Self::Ndjson),
            "json" => Some(Self::Json),
            "pb" | "protobuf" => Some(Self::Protobuf),
            "arrow" | "arrows" => Some(Self::Arrow),
            "parquet" => Some(Self::Parquet),
            _ => None,
        }
    }
}

/// The body of one request.
#[derive(Debug)]
pub(crate) struct Chunk {
    pub(crate) content_type: &'static str,
    pub(crate) body: Bytes,
    /// The number of bytes of the input that the chunk covers.
    pub(crate) input_bytes: usize,
}

/// An iterator over the chunks of one input.
pub(crate) struct Chunks {
    source: ChunkSource,
    bytes_max: usize,
}

enum ChunkSource {
    Lines(BufReader<Box<dyn Read + Send>>),
    Document(Option<Box<dyn Read + Send>>),
    Messages(BufReader<Box<dyn Read + Send>>),
    Batches(Box<dyn RecordBatchReader + Send>),
}

impl Chunks {
    /// Creates an iterator that splits `input` into bodies of about `bytes_max` bytes.
    pub(crate) fn new(mut input: Box<dyn Read + Send>, format: InputFormat, bytes_max: usize) -> Result<Self> {
        let unreadable = |what: &str, e: arrow::error::ArrowError| {
            Error::invalid(format!("the input is not {what}: {e}")).with_source(e)
        };
        let source = match format {
            InputFormat::Ndjson => ChunkSource::Lines(BufReader::new(input)),
            InputFormat::Json => ChunkSource::Document(Some(input)),
            InputFormat::Protobuf => ChunkSource::Messages(BufReader::new(input)),
            InputFormat::Arrow => ChunkSource::Batches(Box::new(
                StreamReader::try_new(input, None).map_err(|e| unreadable("an Arrow IPC stream", e))?,
            )),
            InputFormat::Parquet => {
                // The metadata of a Parquet file is at its end, so the input is read as a whole.
                let mut bytes = Vec::new();
                input.read_to_end(&mut bytes).map_err(cannot_read)?;
                let reader = ParquetRecordBatchReaderBuilder::try_new(Bytes::from(bytes))
                    .and_then(ParquetRecordBatchReaderBuilder::build)
                    .map_err(|e| unreadable("a Parquet file", e.into()))?;
                ChunkSource::Batches(Box::new(reader))
            }
        };
        Ok(Self { source, bytes_max: bytes_max.max(1) })
    }

    fn next_chunk(&mut self) -> Result<Option<Chunk>> {
        let bytes_max = self.bytes_max;
        match &mut self.source {
            ChunkSource::Lines(input) => {
                let mut body = Vec::with_capacity(bytes_max);
                while body.len() < bytes_max && input.read_until(b'\n', &mut body).map_err(cannot_read)? > 0 {}
                Ok(raw_chunk("application/x-ndjson", body))
            }
            ChunkSource::Document(input) => {
                let mut body = Vec::new();
                if let Some(mut input) = input.take() {
                    input.read_to_end(&mut body).map_err(cannot_read)?;
                }
                Ok(raw_chunk("application/json", body))
            }
            ChunkSource::Messages(input) => {
                let mut body = Vec::with_capacity(bytes_max);
                while body.len() < bytes_max && read_message(input, &mut body)? {}
                Ok(raw_chunk("application/x-protobuf", body))
            }
            ChunkSource::Batches(input) => batches_chunk(&mut **input, bytes_max),
        }
    }
}

impl Iterator for Chunks {
    type Item = Result<Chunk>;

    fn next(&mut self) -> Option<Self::Item> {
        self.next_chunk().transpose()
    }
}

fn raw_chunk(content_type: &'static str, body: Vec<u8>) -> Option<Chunk> {
    let input_bytes = body.len();
    (input_bytes > 0).then(|| Chunk { content_type, body: body.into(), input_bytes })
}

/// Reads one length-delimited message and appends it to `body` with its prefix. Returns false at the end of the input.
fn read_message(input: &mut impl BufRead, body: &mut Vec<u8>) -> Result<bool> {
    let mut length = 0_u64;
    for index in 0..VARINT_BYTES_MAX {
        let mut byte = [0];
        if input.read(&mut byte).map_err(cannot_read)? == 0 {
            return if index == 0 { Ok(false) } else { Err(Error::invalid("the input ends inside a length prefix")) };
        }
        body.push(byte[0]);
        length |= u64::from(byte[0] & 0x7f).checked_shl(7 * index as u32).unwrap_or(0);
        if byte[0] < 0x80 {
            if length > EVENT_BYTES_MAX {
                return Err(Error::invalid(format!(
                    "the input contains a message of {length} bytes; it is probably not a length-delimited protobuf stream"
                )));
            }
            let read = input.take(length).read_to_end(body).map_err(cannot_read)? as u64;
            return if read == length { Ok(true) } else { Err(Error::invalid("the input ends inside a message")) };
        }
    }
    Err(Error::invalid(
        "the input contains a length prefix of more than ten bytes; it is not a length-delimited protobuf stream",
    ))
}

/// Reads record batches with an in-memory size of about `bytes_max` bytes, and encodes them as one Arrow IPC stream.
fn batches_chunk(input: &mut (dyn RecordBatchReader + Send), bytes_max: usize) -> Result<Option<Chunk>> {
    let failed = |e: arrow::error::ArrowError| Error::invalid(format!("cannot read a batch: {e}")).with_source(e);
    let mut batches: Vec<RecordBatch> = Vec::new();
    let mut bytes = 0;
    while bytes < bytes_max {
        let Some(batch) = input.next().transpose().map_err(failed)? else { break };
        bytes += batch.get_array_memory_size();
        batches.push(batch);
    }
    if batches.is_empty() {
        return Ok(None);
    }
    let mut writer = StreamWriter::try_new(Vec::with_capacity(bytes), &input.schema()).map_err(failed)?;
    for batch in &batches {
        writer.write(batch).map_err(failed)?;
    }
    let body = writer.into_inner().map_err(failed)?;
    Ok(Some(Chunk { content_type: "application/vnd.apache.arrow.stream", input_bytes: body.len(), body: body.into() }))
}

fn cannot_read(error: std::io::Error) -> Error {
    Error::invalid(format!("cannot read the input: {error}")).with_source(error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bodies(input: &'static [u8], format: InputFormat, bytes_max: usize) -> Result<Vec<Bytes>> {
        Chunks::new(Box::new(input), format, bytes_max)?.map(|chunk| chunk.map(|chunk| chunk.body)).collect()
    }

    #[test]
    fn lines_and_messages_are_never_split() {
        let cases: [(&'static [u8], InputFormat, &[&[u8]]); 4] = [
            (b"{}\n{\"a\":1}\n{}", InputFormat::Ndjson, &[b"{}\n{\"a\":1}\n", b"{}"]),
            (b"", InputFormat::Ndjson, &[]),
            (b"\x02ab\x03cde\x01f", InputFormat::Protobuf, &[b"\x02ab\x03cde", b"\x01f"]),
            (b"[{},{}]", InputFormat::Json, &[b"[{},{}]"]),
        ];
        for (input, format, expected) in cases {
            assert_eq!(bodies(input, format, 4).unwrap(), expected, "{format:?}");
        }
    }

    #[test]
    fn truncated_and_malformed_streams_are_errors() {
        let cases: [(&'static [u8], &str); 3] = [
            (b"\x05ab", "ends inside a message"),
            (b"\x85", "ends inside a length prefix"),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff", "more than ten bytes"),
        ];
        for (input, expected) in cases {
            let error = bodies(input, InputFormat::Protobuf, 4).unwrap_err();
            assert!(error.message().contains(expected), "{error}");
        }
    }
}
