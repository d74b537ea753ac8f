//! `/v1/maintenance…`: shows the files of each table and the state of merges, and pauses and resumes the merges of this
//! server. Only operators may use these routes.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use serde_json::{Value, json};

use super::HttpHandler;
use super::caller::operator;
use super::error::ErrorBody;
use crate::maintenance::{Maintenance, TableHealth};

/// Handles `GET /v1/maintenance`.
pub(super) async fn state(
    State(handler): State<Arc<HttpHandler>>,
    headers: HeaderMap,
) -> Result<Json<Value>, ErrorBody> {
    operator(&handler, &headers).await?;
    Ok(Json(shown(&handler.services.maintenance)))
}

/// Handles `POST /v1/maintenance/pause`.
pub(super) async fn pause(
    State(handler): State<Arc<HttpHandler>>,
    headers: HeaderMap,
) -> Result<Json<Value>, ErrorBody> {
    set(&handler, &headers, true).await
}

/// Handles `POST /v1/maintenance/resume`.
pub(super) async fn resume(
    State(handler): State<Arc<HttpHandler>>,
    headers: HeaderMap,
) -> Result<Json<Value>, ErrorBody> {
    set(&handler, &headers, false).await
}

async fn set(handler: &HttpHandler, headers: &HeaderMap, is_paused: bool) -> Result<Json<Value>, ErrorBody> {
    let access = operator(handler, headers).await?;
    handler.services.maintenance.set_paused(is_paused)?;
    let action = if is_paused { "paused" } else { "resumed" };
    let (_, subject, _) = access.identity();
    tracing::info!(subject, "an operator {action} the merges of this server");
    Ok(Json(shown(&handler.services.maintenance)))
}

fn shown(maintenance: &Maintenance) -> Value {
    let state = match (maintenance.is_enabled(), maintenance.is_paused()) {
        (false, _) => "disabled",
        (true, true) => "paused",
        (true, false) => "running",
    };
    json!({ "state": state, "tables": maintenance.health().iter().map(table).collect::<Vec<_>>() })
}

fn table(health: &TableHealth) -> Value {
    let levels = health.levels.iter().enumerate();
    let levels = levels.map(|(level, size)| json!({ "level": level, "files": size.files, "bytes": size.bytes }));
    json!({
        "table": health.table,
        "version": health.version,
        "rows": health.rows,
        "levels": levels.collect::<Vec<_>>(),
        "unmerged_files_of_day_max": health.level_zero_of_day_max,
        "merges_due": health.merges.units_due,
        "files_left_alone": health.merges.left_alone.iter().map(|path| &**path).collect::<Vec<_>>(),
        "suspended": health.merges.suspended,
    })
}
