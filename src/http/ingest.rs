//! `POST /v1/tables/{table}/events`: accepts events and returns a receipt.
//!
//! Status 200 means that the server has read the body, and that each event is now stored, was already stored, or is in
//! the quarantine. The receipt contains the number of events for each of these outcomes. The status is 200 even if all
//! events are in the quarantine. Status 400 means that the server could not split the body into events. With
//! `?ack=received`, the server responds before the commit. This response has status 202. Its body is not a receipt: it
//! says how many events the server has received and will store.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, State};
use axum::http::header::CONTENT_LENGTH;
use axum::http::{HeaderMap, StatusCode, Uri};
use axum::response::{IntoResponse as _, Response};
use axum::{Json, extract::Request};
use serde::Serialize;

use super::body::{self, BodyLimits};
use super::caller::caller;
use super::error::ErrorBody;
use super::request_log::RequestId;
use super::{HttpHandler, content_type};
use crate::error::{Error, Kind};
use crate::ingest::{self, Promise, Receipt, RejectNote};

/// A receipt in JSON.
#[derive(Debug, Serialize)]
pub(super) struct ReceiptBody {
    accepted: u64,
    duplicate: u64,
    conflict: u64,
    rejected: u64,
    rejects: Vec<RejectBody>,
    version: u64,
}

#[derive(Debug, Serialize)]
struct RejectBody {
    index: u64,
    reason: &'static str,
    detail: String,
}

/// The JSON body of a response that is sent before the commit.
#[derive(Debug, Serialize)]
struct PromiseBody {
    ack: &'static str,
    received: u64,
    rejected: u64,
    rejects: Vec<RejectBody>,
}

/// Determines when the response is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ack {
    /// The response is sent after the commit.
    Committed,
    /// The response is sent as soon as the events are in the queue.
    Received,
}

impl Ack {
    /// Parses the query string. Unknown parameters are ignored.
    fn parse(uri: &Uri) -> Result<Self, Error> {
        let query = uri.query().unwrap_or_default().split('&');
        let mut values = query.filter_map(|part| part.strip_prefix("ack="));
        match (values.next(), values.next()) {
            (None | Some("committed"), None) => Ok(Self::Committed),
            (Some("received"), None) => Ok(Self::Received),
            _ => Err(Error::invalid("`ack` must be `committed` or `received`, and must appear only once")),
        }
    }
}

impl From<Promise> for PromiseBody {
    fn from(promise: Promise) -> Self {
        let rejects = promise.rejects.into_iter().map(RejectBody::from).collect();
        Self { ack: "received", received: promise.received, rejected: promise.rejected, rejects }
    }
}

impl From<RejectNote> for RejectBody {
    fn from(reject: RejectNote) -> Self {
        Self { index: reject.index, reason: reject.reason.as_str(), detail: reject.detail }
    }
}

impl From<Receipt> for ReceiptBody {
    fn from(receipt: Receipt) -> Self {
        let rejects = receipt.rejects.into_iter().map(RejectBody::from);
        Self {
            accepted: receipt.accepted,
            duplicate: receipt.duplicate,
            conflict: receipt.conflict,
            rejected: receipt.rejected,
            rejects: rejects.collect(),
            version: receipt.version,
        }
    }
}

/// Handles `POST /v1/tables/{table}/events`.
pub(super) async fn events(
    State(handler): State<Arc<HttpHandler>>,
    table: Result<Path<String>, PathRejection>,
    Extension(RequestId(id)): Extension<RequestId>,
    request: Request,
) -> Result<Response, ErrorBody> {
    let (head, mut body) = request.into_parts();
    let response = match table {
        Ok(Path(table)) => {
            let endpoint = format!("http {id}");
            ingest_body(&handler, &table, (&head.uri, &head.headers), &mut body, &endpoint).await
        }
        Err(_) => Err(Error::invalid("the table name in the path is not valid UTF-8").into()),
    };
    if response.is_err() {
        body::discard(&mut body).await;
    }
    response
}

/// Checks the headers, reads the body, and submits its events.
async fn ingest_body(
    handler: &HttpHandler,
    table: &str,
    (uri, headers): (&Uri, &HeaderMap),
    body: &mut Body,
    endpoint: &str,
) -> Result<Response, ErrorBody> {
    let services = &handler.services;
    let access = caller(handler, headers).await?;
    let target = services.writer.authorize(&access, table).map_err(|error| match error.kind() {
        Kind::NotFound => services.engine.lookup_accepts_no_events(&access, table).unwrap_or(error),
        _ => error,
    })?;
    let ack = Ack::parse(uri)?;
    let (format, encoding) = (content_type::format(headers)?, content_type::encoding(headers)?);
    let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|bytes| bytes > services.limits.body_bytes_max) {
        services.metrics.limited("ingest.body_bytes_max");
        let bytes_max = services.limits.body_bytes_max;
        return Err(ErrorBody::too_large(format!("the body is larger than {bytes_max} bytes: send it in parts")));
    }
    let mut reservation = services.writer.reservation();
    let limits = BodyLimits::from(&services.limits);
    let reading = body::read(body, encoding, limits, &mut reservation, &services.metrics);
    let plain = access.unless_revoked(reading).await?;
    let events = ingest::Body::Encoded(format, plain);
    match ack {
        Ack::Committed => {
            let receipt = services.writer.submit(reservation, &target, events, endpoint).await?;
            Ok(Json(ReceiptBody::from(receipt)).into_response())
        }
        Ack::Received => {
            let promise = services.writer.submit_received(reservation, target, events, endpoint).await?;
            Ok((StatusCode::ACCEPTED, Json(PromiseBody::from(promise))).into_response())
        }
    }
}
