//! `GET /v1/tables/{table}/freshness`: up to when a table is complete, and the newest of the caller's own rows.
//!
//! **Invariant:** what a tenant is told of rows comes from a session of its own, as any answer does: by its policy, and
//! without anything of another tenant. Versions and commits of the table, which all tenants share, are for operators.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use serde_json::{Value, json};

use super::Door;
use super::caller::caller;
use super::error::Problem;
use super::quarantine::{path, told_time};
use crate::query::Newest;

/// How fresh a table is.
pub(super) async fn freshness(
    State(door): State<Arc<Door>>,
    table: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Json<Value>, Problem> {
    let access = caller(&door, &headers).await?;
    let table = path(table)?;
    let told = door.doors.ingest.freshness(&access, &table)?;
    let mut body =
        json!({ "table": table, "complete_until": told_time(told.complete_until), "now": told_time(told.now) });
    match told.table {
        Some(all) => {
            body["version"] = all.version.into();
            body["newest_received_time"] = all.newest_received.map(told_time).into();
            body["newest_file_time"] = all.written.map(told_time).into();
        }
        None => {
            let Newest { event, received } = door.doors.engine.session(&access)?.newest(&table).await?;
            body["newest_event_time"] = event.map(told_time).into();
            body["newest_received_time"] = received.map(told_time).into();
        }
    }
    Ok(Json(body))
}
