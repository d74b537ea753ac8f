//! Routes that show the state of the server: the list of tables, the metrics, liveness and readiness.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, StatusCode};
use axum::response::IntoResponse;
use serde_json::{Value, json};

use super::HttpHandler;
use super::caller::{caller, operator};
use super::error::ErrorBody;
use crate::contract::{Column, ColumnKind, Contract, Owner};
use crate::error::Error;
use crate::query::VisibleTable;
use crate::telemetry::Metrics;
use crate::tenancy::Access;

/// The maximum time that a readiness probe waits for the token verification keys to be loaded.
const READY_TIME_MAX: Duration = Duration::from_secs(2);

/// Handles `GET /v1/tables`, which lists the tables and columns to which the caller has access, followed by the lookup
/// tables. For an operator, these are all tables that accept events, and no lookup tables.
pub(super) async fn tables(
    State(handler): State<Arc<HttpHandler>>,
    headers: HeaderMap,
) -> Result<Json<Value>, ErrorBody> {
    let access = caller(&handler, &headers).await?;
    let tables = handler.services.writer.tables().values();
    let shown = tables.flat_map(|table| describe(table.contract(), &access));
    let lookups = handler.services.engine.visible_lookups(&access);
    let shown: Vec<Value> = shown.chain(lookups.iter().map(describe_lookup)).collect();
    Ok(Json(json!({ "tables": shown })))
}

/// Handles `GET /metrics`. Only operators may see the metrics, because the labels of the metrics contain the names of
/// tenants.
pub(super) async fn metrics(
    State(handler): State<Arc<HttpHandler>>,
    headers: HeaderMap,
) -> Result<impl IntoResponse + use<>, ErrorBody> {
    operator(&handler, &headers).await?;
    handler.services.metrics.queue_bytes(handler.services.writer.queued_bytes());
    Ok(([(CONTENT_TYPE, Metrics::CONTENT_TYPE)], handler.services.metrics.render()))
}

/// Handles `GET /healthz`. Any response means that the process is alive.
pub(super) async fn healthz() -> Json<Value> {
    Json(json!({ "status": "ok" }))
}

/// Handles `GET /readyz`. The status is 200 if the server can accept requests. If it cannot, the status is 503 and the
/// body contains the reasons.
pub(super) async fn readyz(State(handler): State<Arc<HttpHandler>>) -> (StatusCode, Json<Value>) {
    let keys = tokio::time::timeout(READY_TIME_MAX, handler.services.verifier.ready()).await;
    let keys = keys.unwrap_or_else(|_| Err(Error::unavailable("the token keys are not loaded yet")));
    let stopping = if handler.stop.is_cancelled() { Err(Error::unavailable("the server is stopping")) } else { Ok(()) };
    let reasons: Vec<String> = [stopping, handler.services.writer.ready(), keys]
        .into_iter()
        .filter_map(|check| check.err())
        .map(|error| error.message().to_owned())
        .chain(handler.services.supervisor.down_tasks())
        .collect();
    let status = if reasons.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({ "ready": reasons.is_empty(), "reasons": reasons })))
}

/// Describes a table and the columns that the caller may read. The result is empty if the caller has no access to the
/// table. If a table shows only the latest version of each key, a tenant gets two entries, because tenants can query
/// such a table under two names. An operator gets one entry, because operators send events, and the second name does
/// not accept events.
fn describe(contract: &Contract, access: &Access) -> Vec<Value> {
    let readable = match (access.owner(), access.rules(&contract.name)) {
        (Owner::PerEvent, _) => None,
        (Owner::Tenant(_), Some(rules)) => rules.columns.as_ref(),
        (Owner::Tenant(_), None) => return Vec::new(),
    };
    let is_visible =
        |column: &&Column| contract.is_shown(&column.name) && readable.is_none_or(|names| names.contains(&column.name));
    let columns: Vec<Value> = contract
        .columns
        .iter()
        .filter(is_visible)
        .map(|column| {
            json!({
                "name": column.name, "type": column.kind.to_string(), "unit": column.unit, "description": column.description,
            })
        })
        .collect();
    let mut table = json!({ "name": contract.name, "description": contract.description, "columns": columns });
    let (Some(latest), Some(changes)) = (&contract.latest, contract.changes_name()) else { return vec![table] };
    let name = |index: usize| Some(&contract.columns[index]).filter(is_visible).map(|column| &column.name);
    let key: Vec<_> = latest.key.iter().filter_map(|index| name(*index)).collect();
    table["latest"] = json!({
        "key": key, "by": name(latest.by), "deleted": latest.deleted.and_then(name), "changes": changes,
    });
    if access.owner() == Owner::PerEvent {
        return vec![table];
    }
    let changes = json!({ "name": changes, "description": contract.changes_description(), "columns": columns });
    vec![table, changes]
}

/// Describes a lookup table, which accepts no events. The type of a column is the name of the kind with the same Arrow
/// type or, if there is no such kind, the Arrow type.
fn describe_lookup(lookup: &VisibleTable) -> Value {
    let columns = lookup.schema.fields().iter().map(|field| {
        let kind = ColumnKind::of_data_type(field.data_type());
        let kind = kind.map_or_else(|| field.data_type().to_string(), |kind| kind.to_string());
        let declared = |key: &str| field.metadata().get(key).cloned().unwrap_or_default();
        json!({ "name": field.name(), "type": kind, "unit": declared("unit"), "description": declared("comment") })
    });
    let columns: Vec<_> = columns.collect();
    json!({ "name": lookup.name, "description": lookup.description, "columns": columns, "lookup": true })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::path::Path;

    use super::*;
    use crate::config::{ColumnConfig, LatestConfig, PolicyConfig, TableConfig};
    use crate::tenancy::Scope;
    use crate::tenancy::testing::access_under;

    fn orders() -> Contract {
        let column = |(name, kind): (&str, &str)| ColumnConfig {
            name: name.to_owned(),
            kind: kind.to_owned(),
            ..ColumnConfig::default()
        };
        let columns = [("who", "text"), ("at", "timestamp"), ("id", "text"), ("order", "text"), ("gone", "bool")];
        let latest =
            LatestConfig { key: vec!["order".to_owned()], by: "at".to_owned(), deleted: Some("gone".to_owned()) };
        let config = TableConfig {
            description: "Orders".to_owned(),
            columns: columns.map(column).to_vec(),
            tenant: "who".to_owned(),
            time: "at".to_owned(),
            id: "id".to_owned(),
            latest: Some(latest),
            ..TableConfig::default()
        };
        Contract::new("orders", &config, Path::new(".")).unwrap()
    }

    #[tokio::test]
    async fn latest_tables_are_listed_with_their_tables_of_all_versions() {
        let latest = |key: &[&str], by: Value, deleted: Value| json!({ "key": key, "by": by, "deleted": deleted, "changes": "orders_changes" });
        let whole = latest(&["order"], json!("at"), json!("gone"));
        for (tenant, columns, names, shown) in [
            (Some("acme"), vec![], vec!["orders", "orders_changes"], whole.clone()),
            (Some("acme"), vec!["at", "id"], vec!["orders", "orders_changes"], latest(&[], json!("at"), json!(null))),
            (None, vec![], vec!["orders"], whole),
        ] {
            let columns = columns.into_iter().map(str::to_owned).collect();
            let policy = BTreeMap::from([("orders".to_owned(), PolicyConfig { columns, ..PolicyConfig::default() })]);
            let access = access_under(tenant, &[Scope::Ingest], &policy, json!({})).await;
            let tables = describe(&orders(), &access);
            let listed: Vec<&str> = tables.iter().map(|table| table["name"].as_str().unwrap()).collect();
            assert_eq!(listed, names);
            assert_eq!(tables[0]["latest"], shown);
            for changes in &tables[1..] {
                assert_eq!((&changes["columns"], changes.get("latest")), (&tables[0]["columns"], None));
                assert_eq!(changes["description"], "All versions of the rows of `orders`: Orders");
            }
        }
        let hidden = access_under(Some("acme"), &[Scope::Ingest], &BTreeMap::new(), json!({})).await;
        assert_eq!(describe(&orders(), &hidden), Vec::<Value>::new());
    }
}
