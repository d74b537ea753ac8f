//! Request bodies: the events of a request before they are decoded.

use arrow::record_batch::RecordBatch;
use bytes::Bytes;

use crate::contract::{EventBatch, Format};

/// The events of one request, as they were received.
#[derive(Debug)]
pub enum Body {
    /// A decompressed body in this format.
    Encoded(Format, Bytes),
    /// Arrow record batches (Flight).
    Arrow(Vec<RecordBatch>),
}

impl Body {
    /// The format of the events.
    pub(super) fn format(&self) -> Format {
        match self {
            Self::Encoded(format, _) => *format,
            Self::Arrow(_) => Format::ArrowIpc,
        }
    }

    /// The memory that it occupies, in bytes.
    pub(super) fn bytes(&self) -> usize {
        match self {
            Self::Encoded(_, body) => body.len(),
            Self::Arrow(batches) => batches.iter().map(EventBatch::plain_bytes_of).sum(),
        }
    }
}
