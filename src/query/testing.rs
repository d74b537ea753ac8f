//! Test support for queries: an in-memory lake in which three tenants share every file.
//!
//! No test may see the rows of the third tenant, `bzzz`. If an expression is evaluated on one of these rows, it can
//! fail or reveal data. For example, `y` is 20, so `1 / (y - 20)` fails. `secret` is not a number, so a cast to a
//! number fails with an error that contains the secret. The row count, names and greatest values of `bzzz` do not occur
//! in the rows of any other tenant.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    ArrayRef, Float64Array, Int64Array, MapBuilder, RecordBatch, StringArray, StringBuilder, TimestampMicrosecondArray,
};
use arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::TryStreamExt as _;
use serde_json::json;
use tokio::sync::OnceCell;

use crate::clock::{Clock, DAY, Micros, SECOND};
use crate::config::{ColumnConfig, LakeConfig, PolicyConfig, QueryConfig, RowRuleConfig, TableConfig};
use crate::contract::{Contract, EventBatch};
use crate::error::Result;
use crate::lake::{Store, Table, Tables};
use crate::query::{Engine, Session};
use crate::telemetry::Metrics;
use crate::tenancy::{Access, Scope};
use crate::transform::Lookups;

/// The time of the first row: 2026-01-01T00:00:00Z.
pub(super) const NEW_YEAR: Micros = 20_454 * DAY;
/// The row count of the tenant whose rows must stay hidden. No query result contains this number.
pub(super) const FOREIGN_ROWS: i64 = 2_718;

/// A row of the test table `calls`.
#[derive(Debug, Clone)]
pub(super) struct Row {
    pub(super) tenant: &'static str,
    pub(super) time: Micros,
    pub(super) id: String,
    pub(super) region: Option<&'static str>,
    pub(super) account: &'static str,
    pub(super) duration: f64,
    pub(super) y: i64,
    pub(super) secret: String,
}

/// Returns all rows of the lake, in the order in which they were written.
pub(super) fn rows() -> Vec<Row> {
    let regions = [Some("eu"), Some("us"), None, Some("ap")];
    let own = |tenant: &'static str, count: i64| {
        (0..count).map(move |i| Row {
            tenant,
            time: NEW_YEAR + i * 5 * 3_600 * SECOND,
            id: format!("{tenant}-{i:04}"),
            region: regions[usize::try_from(i % 4).unwrap()],
            account: if i % 3 == 0 { "north" } else { "south" },
            duration: i as f64 / 2.0,
            y: i % 7,
            secret: (i * 10).to_string(),
        })
    };
    let foreign = (0..FOREIGN_ROWS).map(|i| Row {
        tenant: "bzzz",
        time: NEW_YEAR + i * 80 * SECOND,
        id: format!("bzzz-{i:04}"),
        region: Some("mars"),
        account: "xenon",
        duration: 1e9,
        y: 20,
        secret: "zebra".to_owned(),
    });
    own("acme", 40).chain(own("coda", 61)).chain(foreign).collect()
}

/// Row counts that must not appear in another tenant's results or plans: that of `bzzz`, and that of the whole table.
pub(super) const COUNTS: [i64; 2] = [FOREIGN_ROWS, FOREIGN_ROWS + 40 + 61];

/// Strings that would reveal a row or file of another tenant.
pub(super) const TELLTALES: [&str; 11] = [
    "bzzz",
    "mars",
    "xenon",
    "zebra",
    "1000000000",
    "parquet",
    "file_groups",
    "event_date=",
    "bytes_scanned",
    "pruned",
    "memory:",
];

fn calls() -> TableConfig {
    let column = |name: &str, kind: &str| ColumnConfig {
        name: name.to_owned(),
        kind: kind.to_owned(),
        description: format!("the {name}"),
        ..ColumnConfig::default()
    };
    TableConfig {
        description: "calls".to_owned(),
        columns: vec![
            column("tenant", "text"),
            column("event_time", "timestamp"),
            column("event_id", "text"),
            column("region", "text"),
            column("account", "text"),
            column("duration", "float64"),
            column("y", "int64"),
            column("secret", "text"),
            column("tags", "map"),
        ],
        tenant: "tenant".to_owned(),
        time: "event_time".to_owned(),
        id: "event_id".to_owned(),
        dimensions_map: "tags".to_owned(),
        ..TableConfig::default()
    }
}

fn batch(contract: &Contract, rows: &[Row]) -> EventBatch {
    let text = |of: &dyn Fn(&Row) -> Option<String>| Arc::new(rows.iter().map(of).collect::<StringArray>()) as ArrayRef;
    let mut tags = MapBuilder::new(Some(map_names()), StringBuilder::new(), StringBuilder::new());
    for row in rows {
        tags.keys().append_value("account");
        tags.values().append_value(row.account);
        tags.append(true).unwrap();
    }
    let tags: ArrayRef = Arc::new(tags.finish());
    let time = |of: &dyn Fn(&Row) -> Micros| {
        Arc::new(TimestampMicrosecondArray::from_iter_values(rows.iter().map(of)).with_timezone("UTC")) as ArrayRef
    };
    let columns = contract.schema().fields().iter().map(|field| match field.name().as_str() {
        "tenant" => text(&|row| Some(row.tenant.to_owned())),
        "event_time" => time(&|row| row.time),
        "received_time" => time(&|row| row.time + SECOND),
        "event_id" => text(&|row| Some(row.id.clone())),
        "region" => text(&|row| row.region.map(str::to_owned)),
        "account" => text(&|row| Some(row.account.to_owned())),
        "secret" => text(&|row| Some(row.secret.clone())),
        "duration" => Arc::new(rows.iter().map(|row| row.duration).collect::<Float64Array>()),
        "y" => Arc::new(rows.iter().map(|row| row.y).collect::<Int64Array>()),
        "tags" => arrow::compute::cast(&tags, field.data_type()).unwrap(),
        other => panic!("no values for {other}"),
    });
    EventBatch::new(contract, RecordBatch::try_new(Arc::clone(contract.schema()), columns.collect()).unwrap()).unwrap()
}

fn map_names() -> arrow::array::MapFieldNames {
    arrow::array::MapFieldNames { entry: "key_value".to_owned(), key: "key".to_owned(), value: "value".to_owned() }
}

/// Returns limits that are high enough for most tests.
pub(super) fn config() -> QueryConfig {
    QueryConfig {
        // This is long enough even on a busy host. Only the tests of the time limit use a shorter one.
        time_max: Duration::from_secs(1_000),
        memory_bytes_max: 64 << 20,
        rows_max: 100_000,
        sql_bytes_max: 64 << 10,
        tenant_queries_max: 4,
        tenant_queue_max: 4,
        tenant_queue_wait_max: Duration::from_secs(10),
        threads: 2,
        partitions: 3,
        batch_rows: 64,
        metadata_cache_bytes_max: 8 << 20,
    }
}

/// Creates an engine for the tables `calls` and `hidden`, both of which contain [`rows`]. All engines that tests create
/// in this way share these tables.
pub(super) async fn engine() -> Arc<Engine> {
    engine_with(config()).await
}

/// Creates an engine for the shared tables, with the given limits.
pub(super) async fn engine_with(config: QueryConfig) -> Arc<Engine> {
    Engine::new(shared_tables().await, config, Clock::System, Arc::new(Metrics::default())).unwrap()
}

/// Creates an engine for the shared tables and for `lookups`.
pub(super) async fn engine_with_lookups(lookups: &Arc<Lookups>) -> Arc<Engine> {
    let (tables, lookups) = (shared_tables().await, Arc::clone(lookups));
    Engine::with_lookups(tables, lookups, config(), Clock::System, Arc::new(Metrics::default())).unwrap()
}

async fn shared_tables() -> Arc<Tables> {
    static TABLES: OnceCell<Arc<Tables>> = OnceCell::const_new();
    Arc::clone(TABLES.get_or_init(async || tables(&calls()).await).await)
}

/// Creates an engine with tables of its own, so that the test can add rows to them with [`add`].
pub(super) async fn engine_with_own_tables() -> (Arc<Engine>, Arc<Tables>) {
    let tables = tables(&calls()).await;
    (Engine::new(Arc::clone(&tables), config(), Clock::System, Arc::new(Metrics::default())).unwrap(), tables)
}

/// Creates an engine with tables of its own, which keep events for `days`, and those of some tenants for fewer days.
pub(super) async fn engine_with_retention(days: u32, tenants: &[(&str, u32)], clock: Clock) -> Arc<Engine> {
    let retention_tenants = tenants.iter().map(|(tenant, days)| ((*tenant).to_owned(), *days)).collect();
    let tables = tables(&TableConfig { retention_days: days, retention_tenants, ..calls() }).await;
    Engine::new(tables, config(), clock, Arc::new(Metrics::default())).unwrap()
}

/// Commits rows to `calls`.
pub(super) async fn add(tables: &Tables, rows: &[Row]) {
    let table = &tables["calls"];
    let files = table.write(batch(table.contract(), rows)).await.unwrap();
    table.commit(files, Vec::new()).await.unwrap();
}

async fn tables(declared: &TableConfig) -> Arc<Tables> {
    let lake = LakeConfig { url: "memory:///".to_owned(), row_group_rows_max: 50, ..LakeConfig::default() };
    let store = Store::open(&lake).unwrap();
    let mut tables = BTreeMap::new();
    for name in ["calls", "hidden"] {
        let contract = Arc::new(Contract::new(name, declared, Path::new(".")).unwrap());
        let table = Table::open(&store, Arc::clone(&contract), &lake).await.unwrap();
        let rows = rows();
        // The tenants' rows are interleaved, so every file contains rows of all tenants.
        for part in 0..3 {
            let part: Vec<Row> = rows.iter().skip(part).step_by(3).cloned().collect();
            let files = table.write(batch(&contract, &part)).await.unwrap();
            table.commit(files, Vec::new()).await.unwrap();
        }
        tables.insert(name.to_owned(), table);
    }
    Arc::new(tables)
}

/// Creates the [`Access`] of a reader in `tenant`, who may see all columns of `calls`.
pub(super) async fn reader(tenant: &str) -> Access {
    crate::tenancy::testing::access(Some(tenant), &[Scope::Read], &["calls"]).await
}

/// Creates the [`Access`] of a reader in `tenant`. The reader's token has the given claims, and `policy` applies to the
/// reader.
pub(super) async fn reader_under(tenant: &str, policy: PolicyConfig, claims: serde_json::Value) -> Access {
    let policy = BTreeMap::from([("calls".to_owned(), policy)]);
    crate::tenancy::testing::access_under(Some(tenant), &[Scope::Read], &policy, claims).await
}

/// Creates a policy with the given visible columns. If `columns` is empty, all columns are visible. `rule` is an
/// optional row rule, given as a column and a claim.
pub(super) fn policy(rule: Option<(&str, &str)>, columns: &[&str]) -> PolicyConfig {
    let rule = rule.map(|(column, claim)| RowRuleConfig {
        column: column.to_owned(),
        claim: claim.to_owned(),
        required: true,
    });
    PolicyConfig {
        columns: columns.iter().map(|column| (*column).to_owned()).collect(),
        rows: rule.into_iter().collect(),
    }
}

/// Returns the claims of a token that is restricted to one account of a tenant.
pub(super) fn account(account: &str) -> serde_json::Value {
    json!({ "account": account })
}

/// Runs one statement in a new session and returns its rows as strings.
pub(super) async fn ask(engine: &Arc<Engine>, access: &Access, sql: &str) -> Result<Vec<Vec<String>>> {
    run(&engine.session(access)?, sql).await
}

/// Runs one statement in `session` and returns its rows as strings. Checks that every batch has the declared schema.
pub(super) async fn run(session: &Session, sql: &str) -> Result<Vec<Vec<String>>> {
    let planned = session.plan(sql).await?;
    let batches: Vec<RecordBatch> = session.run(&planned, None).await?.batches.try_collect().await?;
    assert!(
        batches.iter().all(|batch| batch.schema() == planned.schema),
        "{sql}: a batch does not have the declared schema"
    );
    Ok(text(&batches))
}

/// Waits until no query is running. A dropped query counts as running until it next yields.
pub(super) async fn idle(engine: &Engine) {
    while engine.running() > 0 {
        tokio::task::yield_now().await;
    }
}

/// Formats rows as strings, with `NULL` for a null.
pub(super) fn text(batches: &[RecordBatch]) -> Vec<Vec<String>> {
    let options = FormatOptions::new().with_null("NULL");
    let rows = |batch: &RecordBatch| {
        let columns: Vec<_> =
            batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
        (0..batch.num_rows())
            .map(|row| columns.iter().map(|column| column.value(row).to_string()).collect())
            .collect::<Vec<Vec<String>>>()
    };
    batches.iter().flat_map(rows).collect()
}
