//! Reads a request body into memory: receives and decompresses it within limits, with memory reserved from the ingest
//! queue.
//!
//! In: a body and its encoding. Out: its decompressed bytes; 413 if it exceeds a limit, or 400 if it is incomplete.
//!
//! **Invariant:** memory is reserved step by step as bytes arrive: neither an announced length nor the size in a
//! compression header is trusted.

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

/// The maximum buffer capacity that is allocated before a body arrives.
const CLAIMED_BYTES_MAX: usize = 16 << 20;
/// The bytes that one step on the blocking pool decompresses.
const STEP_BYTES: usize = 1 << 20;
/// A body may decompress to this size whatever its ratio: a few short lines can compress very well.
const EXPANDED_BYTES_MIN: usize = 64 * 1024;
/// The maximum window of a zstd frame, as a power of two: the 8 MiB that RFC 8878 recommends.
const ZSTD_WINDOW_LOG_MAX: u32 = 23;
/// The bytes of a refused body that are read and discarded, so that the client sees the response, not a broken
/// connection.
const DISCARDED_BYTES_MAX: usize = 256 * 1024;

/// The limits of one body.
#[derive(Debug, Clone, Copy)]
pub(super) struct BodyLimits {
    pub(super) bytes_max: usize,
    pub(super) expansion_max: usize,
}

impl From<&IngestConfig> for BodyLimits {
    fn from(limits: &IngestConfig) -> Self {
        Self { bytes_max: limits.body_bytes_max, expansion_max: limits.body_expansion_max }
    }
}

/// Receives and decompresses a body. On return `reservation` covers at least the bytes of it.
pub(super) async fn read(
    body: &mut Body,
    encoding: ContentEncoding,
    bounds: BodyLimits,
    reservation: &mut MemoryReservation,
    metrics: &Metrics,
) -> Result<Bytes, ErrorBody> {
    let received = receive(body, bounds, reservation, metrics).await?;
    match Inflater::new(encoding, &received)? {
        None => Ok(received),
        Some(inflater) => {
            let plain = inflate(inflater, received.len(), bounds, reservation, metrics).await?;
            drop(received);
            reservation.resize(plain.len()).await?;
            Ok(plain)
        }
    }
}

/// Reads and discards a part of a refused body.
pub(super) async fn discard(body: &mut Body) {
    let mut left = DISCARDED_BYTES_MAX;
    while let Some(Ok(frame)) = body.frame().await {
        let Some(rest) = left.checked_sub(frame.data_ref().map_or(0, Bytes::len)) else { return };
        left = rest;
    }
}

async fn receive(
    body: &mut Body,
    bounds: BodyLimits,
    reservation: &mut MemoryReservation,
    metrics: &Metrics,
) -> Result<Bytes, ErrorBody> {
    // An announced length only reserves capacity: until bytes arrive it uses no memory.
    let claimed = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
    let mut received = BytesMut::with_capacity(claimed.min(bounds.bytes_max).min(CLAIMED_BYTES_MAX));
    while let Some(frame) = body.frame().await {
        let frame = frame
            .map_err(|cause| Error::invalid("the connection closed before the end of the body").with_source(cause))?;
        let Ok(data) = frame.into_data() else { continue };
        let bytes = received.len() + data.len();
        if bytes > bounds.bytes_max {
            metrics.limited("ingest.body_bytes_max");
            return Err(ErrorBody::too_large(format!(
                "the body is larger than {} bytes: send it in parts",
                bounds.bytes_max
            )));
        }
        reservation.resize(bytes).await?;
        received.extend_from_slice(&data);
    }
    Ok(received.freeze())
}

/// Decompresses in steps on the blocking pool, and waits for memory between them.
async fn inflate(
    mut inflater: Inflater,
    received: usize,
    bounds: BodyLimits,
    reservation: &mut MemoryReservation,
    metrics: &Metrics,
) -> Result<Bytes, ErrorBody> {
    let expanded_max = received.saturating_mul(bounds.expansion_max).max(EXPANDED_BYTES_MIN);
    let bytes_max = bounds.bytes_max.min(expanded_max);
    let mut plain = Vec::new();
    loop {
        // One byte more than allowed, to distinguish a body that is too large from one that just fits.
        let step = STEP_BYTES.min(bytes_max + 1 - plain.len());
        reservation.resize(received + plain.len() + step).await?;
        let before = plain.len();
        let stepping = on_thread(move || {
            let outcome = inflater.step(&mut plain, step);
            (inflater, plain, outcome)
        });
        let outcome;
        (inflater, plain, outcome) =
            stepping.await.map_err(|panic| Error::internal("decompressing panicked").with_source(panic))?;
        outcome.map_err(|cause| Error::invalid("the compressed body is damaged or truncated").with_source(cause))?;
        if plain.len() > bytes_max {
            return Err(bomb(bounds, expanded_max, metrics));
        }
        if plain.len() - before < step {
            return Ok(plain.into());
        }
    }
}

fn bomb(bounds: BodyLimits, expanded_max: usize, metrics: &Metrics) -> ErrorBody {
    if expanded_max < bounds.bytes_max {
        metrics.limited("ingest.body_expansion_max");
        let times = bounds.expansion_max;
        return ErrorBody::too_large(format!(
            "the decompressed body is more than {times} times larger than the compressed one"
        ));
    }
    metrics.limited("ingest.body_bytes_max");
    let bytes_max = bounds.bytes_max;
    ErrorBody::too_large(format!("the decompressed body is larger than {bytes_max} bytes: send it in parts"))
}

/// The state of a body that is being decompressed.
enum Inflater {
    Gzip(Box<MultiGzDecoder<Cursor<Bytes>>>),
    Zstd(Box<zstd::stream::read::Decoder<'static, Cursor<Bytes>>>),
}

impl Inflater {
    /// `None` for a body that is not compressed.
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

    /// Appends up to `step` bytes; fewer only at the end.
    fn step(&mut self, plain: &mut Vec<u8>, step: usize) -> std::io::Result<usize> {
        match self {
            Self::Gzip(decoder) => decoder.take(step as u64).read_to_end(plain),
            Self::Zstd(decoder) => decoder.take(step as u64).read_to_end(plain),
        }
    }
}
