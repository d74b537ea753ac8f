//! Test support for tables that contain the latest version of each key. It provides changes to orders, including
//! changes with the same keys in several tenants, and a simple implementation that computes the expected results.
//!
//! Superseded versions are chosen so that a test notices if a query evaluates an expression on one of them. Their
//! amount is 20, so `1 / (amount - 20)` fails. Their note is not a number, so a cast of the note fails with an error
//! that contains the note. Their `state` does not occur in any latest version.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::clock::{Clock, DAY, Micros, SECOND};
use crate::config::{ColumnConfig, LakeConfig, LatestConfig, PolicyConfig, QueryConfig, RowRuleConfig, TableConfig};
use crate::contract::{self, Contract, DecodeOptions, EventBatch, Format, Owner};
use crate::lake::{Store, Table, Tables};
use crate::query::Engine;
use crate::query::testing::{NEW_YEAR, config};
use crate::telemetry::Metrics;
use crate::tenancy::{Access, Scope};

/// A version of a row in the table `orders`.
#[derive(Debug, Clone, PartialEq)]
pub(in crate::query) struct Change {
    pub(in crate::query) tenant: &'static str,
    pub(in crate::query) order: Option<&'static str>,
    pub(in crate::query) line: i64,
    pub(in crate::query) position: Option<i64>,
    pub(in crate::query) received: i64,
    pub(in crate::query) id: String,
    /// The number of days from January 1 to the change. The day determines which file contains the version.
    pub(in crate::query) day: i64,
    pub(in crate::query) account: &'static str,
    pub(in crate::query) state: &'static str,
    pub(in crate::query) amount: i64,
    pub(in crate::query) note: &'static str,
    pub(in crate::query) deleted: Option<bool>,
}

/// Creates a version of an order. A query shows this version if it is the latest version of the order.
pub(in crate::query) fn change(order: &'static str, position: i64, state: &'static str) -> Change {
    Change {
        tenant: "acme",
        order: Some(order),
        line: 1,
        position: Some(position),
        received: position,
        id: format!("{order}-{position}-{state}"),
        day: position,
        account: "north",
        state,
        amount: 7,
        note: "12",
        deleted: None,
    }
}

/// Creates a superseded version, which must not occur in a result.
pub(in crate::query) fn old(order: &'static str, position: i64) -> Change {
    Change { amount: 20, note: "zebra", ..change(order, position, "overtaken") }
}

/// Returns the `latest` setting that most tests use.
pub(in crate::query) fn by_order() -> LatestConfig {
    latest(&["order_id"], "position")
}

pub(in crate::query) fn latest(key: &[&str], by: &str) -> LatestConfig {
    let key = key.iter().map(|name| (*name).to_owned()).collect();
    LatestConfig { key, by: by.to_owned(), deleted: Some("deleted".to_owned()) }
}

/// Computes the latest version of each key, except for deleted keys. Tests compare query results with these versions.
pub(in crate::query) fn latest_of(
    changes: &[Change],
    key: impl Fn(&Change) -> String,
    by_position: bool,
) -> Vec<Change> {
    let mut latest: BTreeMap<(&str, String), &Change> = BTreeMap::new();
    for change in changes {
        let rank = |change: &Change| {
            let by = if by_position { change.position } else { Some(change.received) };
            (by, change.received, change.id.clone())
        };
        let known = latest.entry((change.tenant, key(change))).or_insert(change);
        if rank(change) > rank(known) {
            *known = change;
        }
    }
    latest.into_values().filter(|change| change.deleted != Some(true)).cloned().collect()
}

fn orders(latest: LatestConfig) -> TableConfig {
    let column = |(name, kind): (&str, &str)| ColumnConfig {
        name: name.to_owned(),
        kind: kind.to_owned(),
        ..ColumnConfig::default()
    };
    let columns = [
        ("tenant", "text"),
        ("changed", "timestamp"),
        ("event_id", "text"),
        ("order_id", "text"),
        ("line", "int32"),
        ("due", "date"),
        ("code", "bytes"),
        ("position", "int64"),
        ("version", "int32"),
        ("version_time", "timestamp"),
        ("version_date", "date"),
        ("version_text", "text"),
        ("account", "text"),
        ("state", "text"),
        ("amount", "int64"),
        ("note", "text"),
        ("deleted", "bool"),
        ("tags", "map"),
    ];
    TableConfig {
        description: "Orders".to_owned(),
        columns: columns.map(column).to_vec(),
        tenant: "tenant".to_owned(),
        time: "changed".to_owned(),
        id: "event_id".to_owned(),
        dimensions_map: "tags".to_owned(),
        latest: Some(latest),
        ..TableConfig::default()
    }
}

/// Creates the event for a change. The table has additional key columns, whose values are derived from `line`, and
/// additional columns that order versions, whose values are derived from `position`. These columns cover other types.
fn event(change: &Change) -> Value {
    let day = |days: i64| chrono::DateTime::from_timestamp_micros(NEW_YEAR + days * DAY).unwrap().date_naive();
    json!({
        "tenant": change.tenant, "changed": NEW_YEAR + change.day * DAY + change.received * SECOND,
        "event_id": change.id, "order_id": change.order, "line": change.line, "due": day(change.line).to_string(),
        "code": if change.line % 2 == 0 { "AAEC" } else { "AAED" }, "position": change.position,
        "version": change.position, "version_time": change.position.map(|position| NEW_YEAR + position * SECOND),
        "version_date": change.position.map(|position| day(position).to_string()),
        "version_text": change.position.map(|position| format!("{:04}", position + 5_000)), "account": change.account,
        "state": change.state, "amount": change.amount, "note": change.note, "deleted": change.deleted,
        "tags": { "state": change.state },
    })
}

/// Creates an in-memory lake with the table `orders`, and writes all `commits`.
pub(in crate::query) async fn lake(latest: LatestConfig, commits: &[&[Change]]) -> Arc<Tables> {
    let lake = LakeConfig { url: "memory:///".to_owned(), row_group_rows_max: 128, ..LakeConfig::default() };
    let store = Store::open(&lake).unwrap();
    let contract = Arc::new(Contract::new("orders", &orders(latest), Path::new(".")).unwrap());
    let table = Table::open(&store, contract, &lake).await.unwrap();
    let tables = Arc::new(BTreeMap::from([("orders".to_owned(), table)]));
    for changes in commits {
        commit(&tables, changes).await;
    }
    tables
}

/// Writes `changes` in the given order, in one commit.
pub(in crate::query) async fn commit(tables: &Tables, changes: &[Change]) {
    let table = &tables["orders"];
    let received = |change: &Change| -> Micros { NEW_YEAR + change.received * SECOND };
    let batches = changes.iter().map(|change| {
        let stamp = DecodeOptions {
            received: received(change),
            owner: Owner::PerEvent,
            time_max: Micros::MAX,
            event_bytes_max: 1 << 16,
            dimensions_max: 8,
        };
        let body = event(change).to_string().into();
        let decoded = contract::decode(table.contract(), Format::Json, &body, &stamp).unwrap();
        assert!(decoded.rejects.is_empty(), "{:?}", decoded.rejects);
        decoded.batch
    });
    let batches: Vec<_> = batches.collect();
    let files = table.write(EventBatch::concat(&batches.iter().collect::<Vec<_>>()).unwrap()).await.unwrap();
    table.commit(files, Vec::new()).await.unwrap();
}

/// Creates an engine for `tables` with the limits that most tests use.
pub(in crate::query) fn engine(tables: &Arc<Tables>) -> Arc<Engine> {
    engine_with(tables, config())
}

/// Creates an engine for `tables` with the given limits.
pub(in crate::query) fn engine_with(tables: &Arc<Tables>, config: QueryConfig) -> Arc<Engine> {
    Engine::new(Arc::clone(tables), config, Clock::System, Arc::new(Metrics::default())).unwrap()
}

/// Creates the `Access` of a reader in `tenant`, who may see all columns of `orders`.
pub(in crate::query) async fn reader(tenant: &str) -> Access {
    reader_under(tenant, PolicyConfig::default(), "").await
}

/// Creates the `Access` of a reader in `tenant`. The reader's token has the claim `account`, and `policy` applies to
/// the reader.
pub(in crate::query) async fn reader_under(tenant: &str, policy: PolicyConfig, account: &str) -> Access {
    let policy = BTreeMap::from([("orders".to_owned(), policy)]);
    let claims = json!({ "account": account });
    crate::tenancy::testing::access_under(Some(tenant), &[Scope::Read], &policy, claims).await
}

/// Creates a policy that shows only the rows in which `column` equals the claim `account`. `columns` lists the visible
/// columns. If `columns` is empty, all columns are visible.
pub(in crate::query) fn sub_account_policy(column: &str, columns: &[&str]) -> PolicyConfig {
    let rule = RowRuleConfig { column: column.to_owned(), claim: "account".to_owned(), required: true };
    PolicyConfig { columns: columns.iter().map(|column| (*column).to_owned()).collect(), rows: vec![rule] }
}
