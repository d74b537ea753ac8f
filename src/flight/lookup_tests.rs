//! Tests of lookup tables over Flight SQL: metadata commands, prepared statements, and lookup tables that are not loaded.

use std::collections::BTreeMap;
use std::fs;
use std::sync::Arc;

use arrow::array::{ArrayRef, AsArray as _, BinaryArray, RecordBatch, StringArray};
use arrow::datatypes::{Int64Type, Schema};
use arrow::ipc::convert::try_schema_from_ipc_buffer;
use arrow_flight::sql::{CommandGetPrimaryKeys, CommandGetTables};
use tempfile::TempDir;
use tonic::Code;

use super::testing::*;
use super::*;
use crate::config::{ColumnConfig, IngestConfig, LookupConfig, PolicyConfig, QueryConfig};
use crate::ingest::testing as lake;
use crate::transform::Lookups;

/// A server with the table `calls`, and the lookup tables `accounts` (loaded), `later` (not loaded) and `hidden`
/// (without a policy).
struct Fixture {
    folder: TempDir,
    lookups: Arc<Lookups>,
    server: FlightTestServer,
}

impl Fixture {
    async fn new() -> Self {
        let folder = TempDir::new().unwrap();
        let column = |name: &str, description: &str| ColumnConfig {
            name: name.to_owned(),
            kind: "text".to_owned(),
            description: description.to_owned(),
            ..ColumnConfig::default()
        };
        let accounts = LookupConfig {
            description: "Accounts and plans".to_owned(),
            file: Some(folder.path().join("accounts.csv")),
            columns: vec![column("owner", ""), column("plan", "the plan of the account")],
            tenant: Some("owner".to_owned()),
            ..LookupConfig::default()
        };
        let shared =
            |name: &str| LookupConfig { file: Some(folder.path().join(name)), shared: true, ..LookupConfig::default() };
        fs::write(folder.path().join("accounts.csv"), "owner,plan\nacme,gold\nbzzz,zebra\nacme,basic\n").unwrap();
        let configs = BTreeMap::from([
            ("accounts".to_owned(), accounts),
            ("later".to_owned(), shared("later.csv")),
            ("hidden".to_owned(), shared("accounts.csv")),
        ]);
        let lookups = Lookups::new(&configs, &IngestConfig::default(), Arc::default());
        assert_eq!(lookups.load_files().len(), 1);
        let tables = (lake::open(&lake::memory()).await, Arc::clone(&lookups));
        let policy = [lake::TABLE, "accounts", "later"].map(|name| (name.to_owned(), PolicyConfig::default()));
        let (config, query, limits) = (FlightConfig::default(), QueryConfig::default(), IngestConfig::default());
        let server = FlightTestServer::with_lookups(config, query, limits, tables, &policy.into()).await;
        Self { folder, lookups, server }
    }
}

/// Returns the values of a text column.
fn texts(rows: &[RecordBatch], column: &str) -> Vec<String> {
    let columns = rows.iter().map(|batch| batch.column_by_name(column).unwrap().as_string::<i32>());
    columns.flatten().flatten().map(str::to_owned).collect()
}

#[tokio::test]
async fn metadata_lists_lookup_tables_as_tables_without_keys() {
    let fixture = Fixture::new().await;
    let mut call = fixture.server.caller("acme").await;
    let tables = CommandGetTables { include_schema: true, table_types: vec!["TABLE".to_owned()], ..Default::default() };
    let (_, _, rows) = call.fetch(&tables).await.unwrap();
    let names = texts(&rows, "table_name");
    assert_eq!(names, ["accounts", lake::TABLE, &format!("{}_quarantine", lake::TABLE)]);
    let schemas: &BinaryArray = rows[0].column_by_name("table_schema").unwrap().as_binary();
    let schema: Schema = try_schema_from_ipc_buffer(schemas.value(0)).unwrap();
    assert_eq!(schema.metadata()["comment"], "Accounts and plans");
    let remarks = &schema.field_with_name("plan").unwrap().metadata()["ARROW:FLIGHT:SQL:REMARKS"];
    assert_eq!(remarks, "the plan of the account");
    let keys = CommandGetPrimaryKeys { table: "accounts".to_owned(), ..Default::default() };
    let (_, _, rows) = call.fetch(&keys).await.unwrap();
    assert_eq!(rows.iter().map(RecordBatch::num_rows).sum::<usize>(), 0);
    fixture.server.close().await.unwrap();
}

#[tokio::test]
async fn freshness_of_a_statement_is_that_of_its_tables() {
    let fixture = Fixture::new().await;
    let mut call = fixture.server.caller("acme").await;
    for (sql, is_known) in [
        ("SELECT count(*) FROM calls, accounts", true),
        ("SELECT count(*) FROM calls WHERE EXISTS (SELECT 1 FROM accounts)", true),
        ("SELECT count(*) FROM accounts", false),
        ("SELECT count(*) FROM calls_quarantine, accounts", false),
    ] {
        let info = call.info(&statement(sql)).await.unwrap();
        let metadata = String::from_utf8(info.app_metadata.to_vec()).unwrap();
        assert_eq!(metadata.contains("complete_until"), is_known, "{sql}: {metadata}");
    }
    fixture.server.close().await.unwrap();
}

#[tokio::test]
async fn prepared_statements_read_the_rows_of_the_caller_and_the_current_version() {
    let fixture = Fixture::new().await;
    let sql = "SELECT count(*) FROM accounts WHERE plan <> ?";
    for (tenant, before, after) in [("acme", 1, 2), ("bzzz", 1, 0), ("other", 0, 0)] {
        let accounts = fixture.folder.path().join("accounts.csv");
        fs::write(&accounts, "owner,plan\nacme,gold\nbzzz,zebra\nacme,basic\n").unwrap();
        fixture.lookups.load_one("accounts", None).await.unwrap();
        let mut call = fixture.server.caller(tenant).await;
        let handle = call.prepare(sql).await.unwrap().prepared_statement_handle;
        let plan: ArrayRef = Arc::new(StringArray::from(vec!["gold"]));
        let bound = call.bind(&handle, vec![row(vec![plan])]).await.unwrap();
        let count = call.value(&prepared(&bound)).await.unwrap();
        assert_eq!(count.as_primitive::<Int64Type>().value(0), before, "{tenant}");
        fs::write(&accounts, "owner,plan\nacme,a\nacme,b\nbzzz,gold\n").unwrap();
        fixture.lookups.load_one("accounts", None).await.unwrap();
        let count = call.value(&prepared(&bound)).await.unwrap();
        assert_eq!(count.as_primitive::<Int64Type>().value(0), after, "{tenant}: after the refresh");
    }
    fixture.server.close().await.unwrap();
}

#[tokio::test]
async fn lookup_table_that_is_not_loaded_is_unavailable_and_a_hidden_one_is_unknown() {
    let fixture = Fixture::new().await;
    let mut call = fixture.server.caller("acme").await;
    let error = call.fetch(&statement("SELECT * FROM later")).await.unwrap_err();
    assert_eq!(error.code(), Code::Unavailable, "{error:?}");
    assert!(error.message().contains("lookup table `later` is not loaded yet"), "{error:?}");
    let hidden = call.fetch(&statement("SELECT * FROM hidden")).await.unwrap_err();
    let missing = call.fetch(&statement("SELECT * FROM absent")).await.unwrap_err();
    assert_eq!(
        (hidden.code(), hidden.message().replace("hidden", "absent")),
        (missing.code(), missing.message().to_owned())
    );
    fs::write(fixture.folder.path().join("later.csv"), "id\n7\n").unwrap();
    fixture.lookups.load_one("later", None).await.unwrap();
    let id = call.value(&statement("SELECT id FROM later")).await.unwrap();
    assert_eq!(id.as_primitive::<Int64Type>().value(0), 7);
    fixture.server.close().await.unwrap();
}
