//! Reads the messages of an upload one at a time, and reserves memory for a message before reading it.
//!
//! In: the body of a DoPut call. Out: its [`FlightData`] messages, each in memory of its own. gRPC announces the length
//! of a message in a prefix of five bytes, so the memory is reserved when the prefix has arrived: an upload that is
//! idle between two messages reserves nothing, and a message reserves its actual size, not the maximum.
//!
//! This replaces tonic's own reader, which allocates a message when its prefix arrives and keeps that memory until the
//! next message or the end of the call.
//!
//! **Invariant:** while it waits for memory it does not read, so the flow-control window stops the client.

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

/// Length of a message prefix: the compression flag, and the message length.
const PREFIX_BYTES: usize = 5;

/// The body of a DoPut call, on its way from the HTTP request to the handler. The handler takes it once.
#[derive(Clone)]
struct UploadBody(Arc<Mutex<Option<Body>>>);

/// Moves the body of `request` to where [`MessageReader::new`] finds it; tonic sees an empty body.
pub(super) fn detach(request: http::Request<Body>) -> http::Request<Body> {
    let (mut head, body) = request.into_parts();
    head.extensions.insert(UploadBody(Arc::new(Mutex::new(Some(body)))));
    http::Request::from_parts(head, Body::empty())
}

/// Reads messages.
pub(super) struct MessageReader {
    body: Body,
    /// Received bytes of the next message: at most one frame.
    rest: Bytes,
    /// The time limit of one message, from its first byte to its last.
    message_time_max: Duration,
}

/// The maximum message size, and the name of that limit.
#[derive(Debug, Clone, Copy)]
pub(super) struct SizeLimit {
    pub(super) bytes_max: usize,
    pub(super) name: &'static str,
}

/// The limit of messages that reserve no memory: they count as the call's request.
pub(super) const REQUEST: SizeLimit = SizeLimit {
    bytes_max: FlightConfig::REQUEST_BYTES_MAX,
    name: "the limit of an upload's first message, and of bound parameters",
};

impl MessageReader {
    /// Takes the body that was detached from this request.
    pub(super) fn new<T>(request: &tonic::Request<T>, message_time_max: Duration) -> Result<Self> {
        let body = request.extensions().get::<UploadBody>();
        let body = body.and_then(|body| body.0.lock().unwrap_or_else(PoisonError::into_inner).take());
        let body = body.ok_or_else(|| Error::internal("an upload has no body"))?;
        Ok(Self { body, rest: Bytes::new(), message_time_max })
    }

    /// The next message, and the value that `reserve` returned for its length; `None` at the end of the upload.
    pub(super) async fn next<R>(
        &mut self,
        limit: SizeLimit,
        reserve: impl AsyncFnOnce(usize) -> Result<R>,
    ) -> Result<Option<(FlightData, R)>> {
        let Some(bytes) = self.prefix(limit).await? else { return Ok(None) };
        let reserved = reserve(bytes).await?;
        let message = FlightData::decode(self.in_time(bytes).await?)
            .map_err(|error| Error::invalid("a message of the upload is not a FlightData").with_source(error))?;
        Ok(Some((message, reserved)))
    }

    /// The length of the next message. Waits for its first byte as long as the client is idle.
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
                "a message of the upload takes {bytes} bytes, at most {bytes_max} are allowed ({name}): send smaller batches"
            )));
        }
        Ok(Some(bytes))
    }

    /// The next `bytes` bytes, within the time limit.
    async fn in_time(&mut self, bytes: usize) -> Result<Bytes> {
        let time_max = self.message_time_max;
        tokio::time::timeout(time_max, self.take(bytes)).await.unwrap_or_else(|_| {
            Err(Error::limited(format!(
                "a message of the upload took longer than {} s to arrive (limit flight.message_in_time_max): send smaller \
                 batches",
                time_max.as_secs_f64()
            )))
        })
    }

    /// The next `bytes` bytes, in an allocation of that size.
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

    /// Waits until data has arrived. False at the end of the body.
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
