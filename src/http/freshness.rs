//! `GET /v1/tables/{table}/freshness`: shows the time up to which a table is complete, and the times of the newest rows
//! that the caller can see.
//!
//! **Invariant:** the times of a tenant's newest rows come from a query in the tenant's own session. The tenant's
//! policy therefore applies, and the query reads no other tenant's data. The version and the commit times of a table
//! depend on the data of all tenants, so only operators see them. The number of unread messages in a topic is also
//! shown only to operators. In a shared topic, this number would reveal to each tenant how much data the other tenants
//! send.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use serde_json::{Value, json};

use super::HttpHandler;
use super::caller::caller;
use super::error::ErrorBody;
use super::quarantine::{path, told_time};
use crate::lake::Watermark;
use crate::query::{NewestTimes, lookup_has_no_freshness};

/// Returns the freshness of a table.
pub(super) async fn freshness(
    State(handler): State<Arc<HttpHandler>>,
    table: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
) -> Result<Json<Value>, ErrorBody> {
    let access = caller(&handler, &headers).await?;
    let table = path(table)?;
    if handler.services.engine.visible_lookups(&access).iter().any(|lookup| lookup.name == table) {
        return Err(lookup_has_no_freshness(&table).into());
    }
    let freshness = handler.services.writer.freshness(&access, &table)?;
    let Watermark { now, complete_until, source_lag } = freshness.watermark;
    let mut body = json!({ "table": table, "complete_until": told_time(complete_until), "now": told_time(now) });
    body["source_lag_seconds"] = source_lag.map(|lag| lag.seconds).into();
    match freshness.table {
        Some(all) => {
            body["version"] = all.version.into();
            body["newest_received_time"] = all.newest_received.map(told_time).into();
            body["newest_file_time"] = all.written.map(told_time).into();
            body["source_lag_messages"] = source_lag.map(|lag| lag.messages).into();
        }
        None => {
            let NewestTimes { event, received } =
                handler.services.engine.session(&access)?.newest_times(&table).await?;
            body["newest_event_time"] = event.map(told_time).into();
            body["newest_received_time"] = received.map(told_time).into();
        }
    }
    Ok(Json(body))
}
