//! Reads the messages of an upload one at a time, and reserves memory for each message before reading it.
//!
//! The reader decodes the body of a DoPut call into [`FlightData`] messages. Each message has its own allocation. gRPC
//! announces the length of a message in a prefix of five bytes. When the prefix has arrived, the reader reserves this
//! number of bytes. An upload that waits between two messages therefore reserves nothing, and no message reserves more
//! than its actual size.
//!
//! tonic's own reader is not used. It allocates a message when its prefix arrives, and keeps the memory until the next
//! message or the end of the call.
//!
//! **Invariant:** the reader does not read from the connection while it waits for memory. HTTP/2 flow control therefore
//! makes the client wait.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arrow_flight::FlightData;
use bytes::{Buf as _, Bytes, BytesMut};
use http_body_util::BodyExt as _;
use prost::Message as _;
use tonic::body::Body;
use tonic::codegen::http;

use super::error::from_status;
use crate::config::FlightConfig;
use crate::error::{Error, Result};

/// The length of a message prefix: one byte for the compression flag and four for the message length.
const PREFIX_BYTES: usize = 5;

/// The body of a DoPut call on its way from the HTTP request to the handler. It is `None` after the handler has taken
/// it.
#[derive(Clone)]
struct UploadBody(Arc<Mutex<Option<Body>>>);

/// Moves the body of `request` into the request's extensions, where [`MessageReader::new`] finds it. tonic then
/// receives an empty body.
pub(super) fn detach(request: http::Request<Body>) -> http::Request<Body> {
    let (mut head, body) = request.into_parts();
    head.extensions.insert(UploadBody(Arc::new(Mutex::new(Some(body)))));
    http::Request::from_parts(head, Body::empty())
}

/// Reads the messages of one upload.
pub(super) struct MessageReader {
    body: Body,
    /// The received bytes that are not part of a message yet. They are at most one HTTP/2 frame.
    rest: Bytes,
    /// The maximum time between the first and the last byte of a message.
    message_time_max: Duration,
}

/// The maximum size of a message. `name` is the name of this limit in errors.
#[derive(Debug, Clone, Copy)]
pub(super) struct SizeLimit {
    pub(super) bytes_max: usize,
    pub(super) name: &'static str,
}

/// The size limit for messages that reserve no memory because they count as part of the call's request.
pub(super) const REQUEST: SizeLimit = SizeLimit {
    bytes_max: FlightConfig::REQUEST_BYTES_MAX,
    name: "the limit for an upload's first message and for bound parameters",
};

impl MessageReader {
    /// Takes the body that [`detach`] stored in the extensions of `request`.
    pub(super) fn new<T>(request: &tonic::Request<T>, message_time_max: Duration) -> Result<Self> {
        let body = request.extensions().get::<UploadBody>();
        let body = body.and_then(|body| body.0.lock().unwrap_or_else(PoisonError::into_inner).take());
        let body = body.ok_or_else(|| Error::internal("an upload has no body"))?;
        Ok(Self { body, rest: Bytes::new(), message_time_max })
    }

    /// Calls `reserve` with the length of the next message, and then reads that message. Returns the message together
    /// with the value that `reserve` returned, or `None` at the end of the upload.
    pub(super) async fn next<R>(
        &mut self,
        limit: SizeLimit,
        reserve: impl AsyncFnOnce(usize) -> Result<R>,
    ) -> Result<Option<(FlightData, R)>> {
        let Some(bytes) = self.prefix(limit).await? else { return Ok(None) };
        let reservation = reserve(bytes).await?;
        let message = FlightData::decode(self.in_time(bytes).await?).map_err(|error| {
            Error::invalid("an upload message is not a valid FlightData message").with_source(error)
        })?;
        Ok(Some((message, reservation)))
    }

    /// Reads the length of the next message. The time limit starts only when the first byte of the message arrives.
    async fn prefix(&mut self, limit: SizeLimit) -> Result<Option<usize>> {
        if !self.fill().await? {
            return Ok(None);
        }
        let mut prefix = self.in_time(PREFIX_BYTES).await?;
        if prefix.get_u8() != 0 {
            return Err(Error::unsupported(
                "compressed gRPC messages are not accepted: compress the buffers of the Arrow batches instead",
            ));
        }
        let bytes = prefix.get_u32() as usize;
        let SizeLimit { bytes_max, name } = limit;
        if bytes > bytes_max {
            return Err(Error::limited(format!(
                "an upload message takes {bytes} bytes, but at most {bytes_max} are allowed ({name}): send smaller batches"
            )));
        }
        Ok(Some(bytes))
    }

    /// Reads the next `bytes` bytes. Returns `Limited` if these bytes do not arrive within the time limit.
    async fn in_time(&mut self, bytes: usize) -> Result<Bytes> {
        let time_max = self.message_time_max;
        tokio::time::timeout(time_max, self.take(bytes)).await.unwrap_or_else(|_| {
            Err(Error::limited(format!(
                "an upload message took longer than {} s to arrive (limit flight.message_in_time_max): send smaller \
                 batches",
                time_max.as_secs_f64()
            )))
        })
    }

    /// Reads the next `bytes` bytes into an allocation of exactly that size.
    async fn take(&mut self, bytes: usize) -> Result<Bytes> {
        let mut message = BytesMut::with_capacity(bytes);
        while message.len() < bytes {
            if !self.fill().await? {
                return Err(Error::invalid("the upload ends in the middle of a message"));
            }
            let part = self.rest.len().min(bytes - message.len());
            message.extend_from_slice(&self.rest.split_to(part));
        }
        Ok(message.freeze())
    }

    /// Waits until `rest` contains at least one byte. Returns false if the body has ended.
    async fn fill(&mut self) -> Result<bool> {
        while self.rest.is_empty() {
            let Some(frame) = self.body.frame().await else { return Ok(false) };
            if let Ok(data) = frame.map_err(from_status)?.into_data() {
                self.rest = data;
            }
        }
        Ok(true)
    }
}
