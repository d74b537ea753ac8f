//! What an endpoint hands in: a request's events before they are decoded.

use arrow::record_batch::RecordBatch;
use bytes::Bytes;

use crate::contract::{EventBatch, Format};

/// The events of one request, as they were received.
#[derive(Debug)]
pub enum Body {
    /// A decompressed body of this format.
    Encoded(Format, Bytes),
    /// Columns (Flight).
    Arrow(Vec<RecordBatch>),
}

impl Body {
    /// How it is written.
    pub(super) fn format(&self) -> Format {
        match self {
            Self::Encoded(format, _) => *format,
            Self::Arrow(_) => Format::ArrowIpc,
        }
    }

    /// Bytes that it takes in memory.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Encoded(_, body) => body.len(),
            Self::Arrow(batches) => batches.iter().map(EventBatch::plain_bytes_of).sum(),
        }
    }
}
