//! The body of an ingest request before its events are decoded.

use arrow::record_batch::RecordBatch;
use bytes::Bytes;

use crate::contract::{EventBatch, Format};

/// The events of one request, in the form in which they were received.
#[derive(Debug)]
pub enum Body {
    /// The decompressed bytes of a body, and their format.
    Encoded(Format, Bytes),
    /// Arrow record batches that were received through Flight.
    Arrow(Vec<RecordBatch>),
}

impl Body {
    /// Returns the format of the events.
    pub(super) fn format(&self) -> Format {
        match self {
            Self::Encoded(format, _) => *format,
            Self::Arrow(_) => Format::ArrowIpc,
        }
    }

    /// Returns the memory that the body occupies, in bytes.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Encoded(_, body) => body.len(),
            Self::Arrow(batches) => batches.iter().map(EventBatch::plain_bytes_of).sum(),
        }
    }
}
