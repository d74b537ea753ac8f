//! What operators, probes and senders ask: the tables, the metrics, and whether the server lives and works.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use serde_json::{Value, json};

use super::Door;
use super::caller::{caller, operator};
use super::error::Problem;
use crate::contract::{Contract, Owner};
use crate::error::Error;
use crate::telemetry::Metrics;
use crate::tenancy::Access;

/// How long a readiness probe waits for the token keys.
const READY_TIME_MAX: Duration = Duration::from_secs(2);

/// `GET /v1/tables`: the tables and columns that the caller sees; for an operator the tables that take events.
pub(super) async fn tables(State(door): State<Arc<Door>>, headers: HeaderMap) -> Result<Json<Value>, Problem> {
    let access = caller(&door, &headers).await?;
    let tables = door.doors.ingest.tables().values();
    let shown: Vec<Value> = tables.filter_map(|table| describe(table.contract(), &access)).collect();
    Ok(Json(json!({ "tables": shown })))
}

/// `GET /metrics`: for operators, since labels name tenants.
pub(super) async fn metrics(
    State(door): State<Arc<Door>>,
    headers: HeaderMap,
) -> Result<impl IntoResponse + use<>, Problem> {
    operator(&door, &headers).await?;
    door.doors.metrics.queue_bytes(door.doors.ingest.queued_bytes());
    Ok(([(CONTENT_TYPE, Metrics::CONTENT_TYPE)], door.doors.metrics.render()))
}

/// `GET /healthz`: the process answers.
pub(super) async fn healthz() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// `GET /readyz`: 200 when requests can be served, or 503 with the reasons why not.
pub(super) async fn readyz(State(door): State<Arc<Door>>) -> (StatusCode, Json<Value>) {
    let keys = tokio::time::timeout(READY_TIME_MAX, door.doors.verifier.ready()).await;
    let keys = keys.unwrap_or_else(|_| Err(Error::unavailable("the token keys are not here yet")));
    let stopping = if door.stop.is_cancelled() { Err(Error::unavailable("the server is stopping")) } else { Ok(()) };
    let reasons: Vec<String> = [stopping, door.doors.ingest.ready(), keys]
        .into_iter()
        .filter_map(|check| check.err())
        .map(|error| error.message().to_owned())
        .collect();
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ready": reasons.is_empty(), "reasons": reasons })))
}

/// A table as the caller sees it, if it sees it.
fn describe(contract: &Contract, access: &Access) -> Option<Value> {
    let readable = match (access.owner(), access.rules(&contract.name)) {
        (Owner::PerEvent, _) => None,
        (Owner::Tenant(_), Some(rules)) => rules.columns.as_ref(),
        (Owner::Tenant(_), None) => return None,
    };
    let columns = contract.columns.iter().filter(|column| contract.is_shown(&column.name));
    let columns = columns.filter(|column| readable.is_none_or(|names| names.contains(&column.name)));
    let columns: Vec<Value> = columns
        .map(|column| {
            json!({
                "name": column.name, "type": column.kind.as_str(), "unit": column.unit, "description": column.description,
            })
        })
        .collect();
    Some(json!({ "name": contract.name, "description": contract.description, "columns": columns }))
}
