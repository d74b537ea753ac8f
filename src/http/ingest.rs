//! `POST /v1/tables/{table}/events`: events in, a receipt out.
//!
//! 200 means that the body was read: each event is stored, was stored before, or is in quarantine, and the receipt says
//! how many of each, even if all of them are in quarantine. 400 means that nothing in the body could be told apart.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Extension, Path, State};
use axum::http::HeaderMap;
use axum::http::header::CONTENT_LENGTH;
use axum::{Json, extract::Request};
use serde::Serialize;

use super::body::{self, Bounds};
use super::caller::caller;
use super::error::Problem;
use super::observe::RequestId;
use super::{Door, media};
use crate::error::Error;
use crate::ingest::{Payload, Receipt};

/// A receipt in the web's words.
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

impl From<Receipt> for ReceiptBody {
    fn from(receipt: Receipt) -> Self {
        let rejects = receipt.rejects.into_iter();
        let rejects = rejects.map(|reject| RejectBody {
            index: reject.index,
            reason: reject.reason.as_str(),
            detail: reject.detail,
        });
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

/// Takes events.
pub(super) async fn events(
    State(door): State<Arc<Door>>,
    table: Result<Path<String>, PathRejection>,
    Extension(RequestId(id)): Extension<RequestId>,
    request: Request,
) -> Result<Json<ReceiptBody>, Problem> {
    let (head, mut body) = request.into_parts();
    let taken = match table {
        Ok(Path(table)) => take(&door, &table, &head.headers, &mut body, &format!("http {id}")).await,
        Err(_) => Err(Error::invalid("the table's name in the path is not UTF-8").into()),
    };
    if taken.is_err() {
        body::discard(&mut body).await;
    }
    taken.map(|receipt| Json(receipt.into()))
}

/// Refuses what can be refused before the body is read, then reads and submits it.
async fn take(door: &Door, table: &str, headers: &HeaderMap, body: &mut Body, way: &str) -> Result<Receipt, Problem> {
    let doors = &door.doors;
    let access = caller(door, headers).await?;
    doors.ingest.check(&access, table)?;
    let (format, encoding) = (media::format(headers)?, media::encoding(headers)?);
    let announced = headers.get(CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<usize>().ok());
    if announced.is_some_and(|bytes| bytes > doors.limits.body_bytes_max) {
        doors.metrics.limited("ingest.body_bytes_max");
        let bytes_max = doors.limits.body_bytes_max;
        return Err(Problem::too_large(format!("the body is larger than {bytes_max} bytes: send it in parts")));
    }
    let mut room = doors.ingest.room();
    let plain = body::read(body, encoding, Bounds::from(&doors.limits), &mut room, &doors.metrics).await?;
    Ok(doors.ingest.submit_in(room, &access, table, Payload::Encoded(format, plain), way).await?)
}
