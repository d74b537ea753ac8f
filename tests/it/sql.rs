//! Runs the sqllogictest files `tests/sql/*.slt` in a session of one tenant. The tables contain the events from
//! `tests/sql/*.ndjson`, and the lookup tables contain the rows from `tests/sql/*.csv`. Some of the events and rows
//! belong to another tenant. The session's clock is fixed.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use arrow::array::RecordBatch;
use arrow::datatypes::DataType;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::TryStreamExt as _;
use glasshouse::clock::{Clock, Micros, SECOND};
use glasshouse::config::Config;
use glasshouse::contract::{self, Contract, DecodeOptions, Format, Owner};
use glasshouse::error::Error;
use glasshouse::lake::{Store, Table};
use glasshouse::query::{Engine, Session};
use glasshouse::telemetry::Metrics;
use glasshouse::tenancy::{DevelopmentToken, Scope, Verifier};
use glasshouse::transform::Lookups;
use sqllogictest::{AsyncDB, DBOutput, DefaultColumnType, Runner, parse_file, strict_column_validator};

/// The fixed time of the session's clock: 2026-03-30T09:00:00Z.
const NOW: Micros = 1_774_861_200 * SECOND;

/// The tables of `tests/sql`, in a lake in memory.
const CONFIG: &str = concat!(
    include_str!("../sql/tables.toml"),
    r#"
[lake]
url = "memory:///"

[auth.issuers.dev]
issuer = "https://issuer.test"
audience = "glasshouse"
algorithms = ["HS256"]
secret = "a secret of at least thirty-two bytes"
"#
);

/// Implements the database interface of the sqllogictest runner for a session of one tenant.
struct TenantDb(Session);

#[async_trait::async_trait]
impl AsyncDB for TenantDb {
    type Error = Error;
    type ColumnType = DefaultColumnType;

    async fn run(&mut self, sql: &str) -> Result<DBOutput<DefaultColumnType>, Error> {
        let planned = self.0.plan(sql).await?;
        let batches: Vec<RecordBatch> = self.0.run(&planned, None).await?.batches.try_collect().await?;
        assert!(
            batches.iter().all(|batch| batch.schema() == planned.schema),
            "{sql}: a batch does not have the planned schema"
        );
        let types = planned.schema.fields().iter().map(|field| kind(field.data_type())).collect();
        Ok(DBOutput::Rows { types, rows: batches.iter().flat_map(rows).collect() })
    }

    async fn shutdown(&mut self) {}
}

fn kind(of: &DataType) -> DefaultColumnType {
    match of {
        kind if kind.is_integer() => DefaultColumnType::Integer,
        kind if kind.is_floating() => DefaultColumnType::FloatingPoint,
        _ => DefaultColumnType::Text,
    }
}

/// Returns the values of a batch as text, row by row.
pub(crate) fn rows(batch: &RecordBatch) -> Vec<Vec<String>> {
    let options = FormatOptions::new().with_null("NULL");
    let columns: Vec<_> =
        batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap()).collect();
    (0..batch.num_rows()).map(|row| columns.iter().map(|column| column.value(row).to_string()).collect()).collect()
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sql")
}

/// Creates a table, and commits the events from its file.
async fn table(name: &str, store: &Store, config: &Config) -> Arc<Table> {
    let contract = Arc::new(Contract::new(name, &config.tables[name], &folder()).unwrap());
    let table = Table::open(store, Arc::clone(&contract), &config.lake).await.unwrap();
    let options = DecodeOptions {
        received: NOW,
        owner: Owner::PerEvent,
        time_max: NOW,
        event_bytes_max: 1 << 20,
        dimensions_max: 10,
    };
    let body = std::fs::read(folder().join(format!("{name}.ndjson"))).unwrap().into();
    let decoded = contract::decode(&contract, Format::Json, &body, &options).unwrap();
    assert!(decoded.rejects.is_empty(), "{:?}", decoded.rejects);
    let files = table.write(decoded.batch).await.unwrap();
    table.commit(files, Vec::new()).await.unwrap();
    table
}

/// Creates the tables and commits their events, and returns a session of the tenant `acme` that can query them. No
/// endpoint is started. Plans have `partitions` partitions, or one per core if `partitions` is 0.
pub(crate) async fn session(partitions: usize) -> Session {
    let mut config = Config::parse(CONFIG, "sql.rs", &folder(), std::iter::empty()).unwrap();
    let store = Store::open(&config.lake).unwrap();
    let mut tables = BTreeMap::new();
    for name in ["calls", "invoices", "leases", "orders"] {
        tables.insert(name.to_owned(), table(name, &store, &config).await);
    }

    let clock = Clock::fixed(NOW);
    let verifier = Verifier::new(&config.auth, &config.policy, clock.clone()).unwrap();
    let mint = DevelopmentToken {
        issuer: "dev".to_owned(),
        tenant: Some("acme".to_owned()),
        subject: "analyst".to_owned(),
        scopes: vec![Scope::Read],
        age: Duration::from_secs(60),
        claims: serde_json::Map::new(),
    };
    let access = verifier.verify(&mint.sign(&config.auth, &clock).unwrap()).await.unwrap();
    config.query.partitions = partitions;
    let lookups = Lookups::new(&config.lookups, &config.ingest, Arc::new(Metrics::default()));
    let errors = lookups.load_files();
    assert!(errors.is_empty(), "{errors:?}");
    let metrics = Arc::new(Metrics::default());
    let engine = Engine::with_lookups(Arc::new(tables), lookups, config.query, clock, metrics).unwrap();
    engine.session(&access).unwrap()
}

#[tokio::test]
async fn every_query_returns_the_expected_rows() {
    let mut files: Vec<_> = std::fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|path| path.extension().is_some_and(|kind| kind == "slt"));
    files.sort();
    assert!(!files.is_empty());
    let mut failures = Vec::new();
    for file in files {
        for partitions in [0, 1] {
            let mut runner = Runner::new(|| async { Ok(TenantDb(session(partitions).await)) });
            runner.with_column_validator(strict_column_validator);
            for record in parse_file::<DefaultColumnType>(&file).unwrap() {
                if let Err(error) = runner.run_async(record).await {
                    failures.push(format!("with {partitions} partitions: {}", error.display(false)));
                }
            }
        }
    }
    assert!(failures.is_empty(), "{} records failed\n{}", failures.len(), failures.join("\n"));
}
