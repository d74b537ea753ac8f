//! `/v1/sources…`: lists, pauses and resumes sources. Only operators may use these routes.
//!
//! The responses contain the state of each source, including its last error and its offsets. Times are in UTC, in the
//! format of RFC 3339.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use serde_json::{Value, json};

use super::HttpHandler;
use super::caller::operator;
use super::error::ErrorBody;
use super::quarantine::{path, told_time};
use crate::ingest::{PartitionProgress, SourceHealth, SourceState};

/// Handles `GET /v1/sources`, which lists all declared sources.
pub(super) async fn list(
    State(handler): State<Arc<HttpHandler>>,
    headers: HeaderMap,
) -> Result<Json<Value>, ErrorBody> {
    operator(&handler, &headers).await?;
    let sources = handler.services.sources.list()?;
    Ok(Json(json!({ "sources": sources.iter().map(shown).collect::<Vec<_>>() })))
}

/// Handles `POST /v1/sources/{name}/pause`.
pub(super) async fn pause(
    State(handler): State<Arc<HttpHandler>>,
    name: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Json<Value>, ErrorBody> {
    set(&handler, name, &headers, true).await
}

/// Handles `POST /v1/sources/{name}/resume`.
pub(super) async fn resume(
    State(handler): State<Arc<HttpHandler>>,
    name: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Json<Value>, ErrorBody> {
    set(&handler, name, &headers, false).await
}

async fn set(
    handler: &HttpHandler,
    name: Result<Path<String>, PathRejection>,
    headers: &HeaderMap,
    is_paused: bool,
) -> Result<Json<Value>, ErrorBody> {
    let access = operator(handler, headers).await?;
    let name = path(name)?;
    let state = handler.services.sources.set_paused(&name, is_paused).await?;
    let action = if is_paused { "paused" } else { "resumed" };
    let (_, subject, _) = access.identity();
    tracing::info!(source = %name, subject, "an operator {action} a source");
    Ok(Json(shown(&state)))
}

fn shown(source: &SourceState) -> Value {
    let state = match (source.paused_since, source.health) {
        (Some(_), _) => "paused",
        (None, SourceHealth::Failing) => "failing",
        (None, SourceHealth::Stopped) => "stopped",
        (None, SourceHealth::Degraded) => "degraded",
        (None, SourceHealth::Running) => "running",
    };
    let error = source.error.as_ref().map(|error| {
        json!({
            "time": told_time(error.time), "kind": error.trouble.as_str(), "message": error.message,
            "resolved": source.health == SourceHealth::Running,
        })
    });
    json!({
        "name": source.name, "table": source.table, "state": state,
        "paused_since": source.paused_since.map(told_time), "last_error": error,
        "partitions": source.partitions.iter().map(partition).collect::<Vec<_>>(),
    })
}

fn partition(partition: &PartitionProgress) -> Value {
    json!({
        "topic": *partition.topic, "partition": partition.partition, "offset": partition.offset, "lag": partition.lag,
        "here": partition.is_here, "stopped": partition.is_stopped,
    })
}
