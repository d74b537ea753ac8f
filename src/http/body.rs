//! Receives and decompresses a request body. Checks the limits on the body, and reserves memory from the ingest queue.
//!
//! A body that exceeds a limit is refused with status 413, and an incomplete or damaged body with status 400.
//!
//! **Invariant:** memory is reserved in steps while bytes arrive, because a sender may give a false content length or a
//! false size in the compression header.

use std::io::{Cursor, Read};

use axum::body::{Body, HttpBody as _};
use bytes::{Bytes, BytesMut};
use flate2::bufread::MultiGzDecoder;
use http_body_util::BodyExt as _;

use super::content_type::ContentEncoding;
use super::error::ErrorBody;
use crate::config::IngestConfig;
use crate::error::{Error, Result};
use crate::ingest::MemoryReservation;
use crate::supervise::on_thread;
use crate::telemetry::Metrics;

/// The maximum initial capacity of the buffer for a body whose length is announced.
const CLAIMED_BYTES_MAX: usize = 16 << 20;
/// The maximum number of decompressed bytes of one step on the blocking pool.
const STEP_BYTES: usize = 1 << 20;
/// The compression ratio is checked only if the decompressed size exceeds this limit. A small body of repetitive lines
/// can exceed the maximum ratio without being malicious.
const EXPANDED_BYTES_MIN: usize = 64 * 1024;
/// The base-2 logarithm of the maximum window size of a zstd frame. The maximum is 8 MiB, as RFC 8878 recommends.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// If the server refuses a body, it reads and discards at most this number of bytes. If it closed the connection
/// without reading them, the client would see a broken connection instead of the response.
const DISCARDED_BYTES_MAX: usize = 256 * 1024;

/// The limits on one body.
#[derive(Debug, Clone, Copy)]
pub(super) struct BodyLimits {
    /// The maximum size of the body. It applies before and after decompression.
    pub(super) bytes_max: usize,
    /// The maximum ratio of the decompressed size to the compressed size.
    pub(super) expansion_max: usize,
}

impl From<&IngestConfig> for BodyLimits {
    fn from(limits: &IngestConfig) -> Self {
        Self { bytes_max: limits.body_bytes_max, expansion_max: limits.body_expansion_max }
    }
}

/// Receives and decompresses a body. On success, `reservation` is at least as large as the returned body.
pub(super) async fn read(
    body: &mut Body,
    encoding: ContentEncoding,
    limits: BodyLimits,
    reservation: &mut MemoryReservation,
    metrics: &Metrics,
) -> Result<Bytes, ErrorBody> {
    let received = receive(body, limits, reservation, metrics).await?;
    match Decompressor::new(encoding, &received)? {
        None => Ok(received),
        Some(decompressor) => {
            let plain = decompress(decompressor, received.len(), limits, reservation, metrics).await?;
            drop(received);
            reservation.resize(plain.len()).await?;
            Ok(plain)
        }
    }
}

/// Reads and discards the start of a refused body.
pub(super) async fn discard(body: &mut Body) {
    let mut left = DISCARDED_BYTES_MAX;
    while let Some(Ok(frame)) = body.frame().await {
        let Some(rest) = left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) else { return };
        left = rest;
    }
}

async fn receive(
    body: &mut Body,
    limits: BodyLimits,
    reservation: &mut MemoryReservation,
    metrics: &Metrics,
) -> Result<Bytes, ErrorBody> {
    // The announced length determines only the capacity of the buffer. The buffer uses no physical memory until bytes
    // arrive.
    let claimed = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    let mut received = BytesMut::with_capacity(claimed.min(limits.bytes_max).min(CLAIMED_BYTES_MAX));
    while let Some(frame) = body.frame().await {
        let frame = frame
            .map_err(|cause| Error::invalid("the connection closed before the end of the body").with_source(cause))?;
        let Ok(data) = frame.into_data() else { continue };
        let bytes = received.len() + data.len();
        if bytes > limits.bytes_max {
            metrics.limited("ingest.body_bytes_max");
            return Err(ErrorBody::too_large(format!(
                "the body is larger than {} bytes: send it in parts",
                limits.bytes_max
            )));
        }
        reservation.resize(bytes).await?;
        received.extend_from_slice(&data);
    }
    Ok(received.freeze())
}

/// Decompresses a body in steps on the blocking pool. Before each step, waits until the memory for its output is
/// reserved.
async fn decompress(
    mut decompressor: Decompressor,
    received: usize,
    limits: BodyLimits,
    reservation: &mut MemoryReservation,
    metrics: &Metrics,
) -> Result<Bytes, ErrorBody> {
    let expanded_max = received.saturating_mul(limits.expansion_max).max(EXPANDED_BYTES_MIN);
    let bytes_max = limits.bytes_max.min(expanded_max);
    let mut plain = Vec::new();
    loop {
        // The last step may produce one byte more than the limit. If it does, the body is too large.
        let step = STEP_BYTES.min(bytes_max + 1 - plain.len());
        reservation.resize(received + plain.len() + step).await?;
        let before = plain.len();
        let stepping = on_thread(move || {
            let outcome = decompressor.step(&mut plain, step);
            (decompressor, plain, outcome)
        });
        let outcome;
        (decompressor, plain, outcome) = stepping
            .await
            .map_err(|panic| Error::internal("the decompression of a body panicked").with_source(panic))?;
        outcome.map_err(|cause| Error::invalid("the compressed body is damaged or truncated").with_source(cause))?;
        if plain.len() > bytes_max {
            return Err(too_large_error(limits, expanded_max, metrics));
        }
        if plain.len() - before < step {
            return Ok(plain.into());
        }
    }
}

fn too_large_error(limits: BodyLimits, expanded_max: usize, metrics: &Metrics) -> ErrorBody {
    if expanded_max < limits.bytes_max {
        metrics.limited("ingest.body_expansion_max");
        let times = limits.expansion_max;
        return ErrorBody::too_large(format!(
            "the decompressed body is more than {times} times as large as the compressed one (limit \
             ingest.body_expansion_max): send it in parts or without compression"
        ));
    }
    metrics.limited("ingest.body_bytes_max");
    let bytes_max = limits.bytes_max;
    ErrorBody::too_large(format!("the decompressed body is larger than {bytes_max} bytes: send it in parts"))
}

/// Decompresses a body.
enum Decompressor {
    Gzip(Box<MultiGzDecoder<Cursor<Bytes>>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, Cursor<Bytes>>>),
}

impl Decompressor {
    /// Creates a decompressor, or returns `None` if the body is not compressed.
    fn new(encoding: ContentEncoding, body: &Bytes) -> Result<Option<Self>> {
        let source = Cursor::new(body.clone());
        let failed = |cause| Error::internal("cannot start the zstd decoder").with_source(cause);
        match encoding {
            ContentEncoding::Identity => Ok(None),
            ContentEncoding::Gzip => Ok(Some(Self::Gzip(Box::new(MultiGzDecoder::new(source))))),
            ContentEncoding::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(source).map_err(failed)?;
                decoder.window_log_max(ZSTD_WINDOW_LOG_MAX).map_err(failed)?;
                Ok(Some(Self::Zstd(Box::new(decoder))))
            }
        }
    }

    /// Continues to decompress the body until `step` more bytes have been appended to `plain`. If fewer bytes are
    /// appended, the body has ended.
    fn step(&mut self, plain: &mut Vec<u8>, step: usize) -> std::io::Result<usize> {
        match self {
            Self::Gzip(decoder) => decoder.take(step as u64).read_to_end(plain),
            Self::Zstd(decoder) => decoder.take(step as u64).read_to_end(plain),
        }
    }
}
