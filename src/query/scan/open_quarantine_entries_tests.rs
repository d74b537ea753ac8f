//! Tests of quarantines in SQL. A quarantine contains only the tenant's open entries, and no closing rows.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use arrow::array::{ArrayRef, RecordBatch, StringArray, TimestampMicrosecondArray, new_null_array};
use arrow::datatypes::DataType;

use crate::clock::{Clock, SECOND};
use crate::config::{ColumnConfig, LakeConfig, TableConfig};
use crate::contract::{Contract, EventBatch, RECEIVED_TIME, RESOLVES};
use crate::lake::{Store, Table};
use crate::query::Engine;
use crate::query::testing::{NEW_YEAR, ask, config};
use crate::tenancy::Scope;
use crate::tenancy::testing::access;

/// The columns of a quarantine row: tenant, time in seconds, id, and the id of the entry that the row closes.
type Row = (&'static str, i64, &'static str, Option<&'static str>);

fn contract() -> Contract {
    let column = |(name, kind): (&str, &str)| ColumnConfig {
        name: name.to_owned(),
        kind: kind.to_owned(),
        ..ColumnConfig::default()
    };
    let table = TableConfig {
        columns: [("tenant", "text"), ("at", "timestamp"), ("id", "text")].map(column).to_vec(),
        tenant: "tenant".to_owned(),
        time: "at".to_owned(),
        id: "id".to_owned(),
        ..TableConfig::default()
    };
    Contract::quarantine_of(&Contract::new("calls", &table, Path::new(".")).unwrap())
}

fn batch(contract: &Contract, rows: &[Row]) -> EventBatch {
    let columns = contract.columns.iter().map(|column| -> ArrayRef {
        let kind = column.kind.data_type();
        match (column.name.as_str(), &kind) {
            ("tenant", _) => Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.0))),
            ("quarantine_id", _) => Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.2))),
            (RESOLVES, _) => Arc::new(rows.iter().map(|row| row.3).collect::<StringArray>()),
            ("reason", _) => Arc::new(StringArray::from_iter_values(rows.iter().map(|row| row.2))),
            (name, DataType::Timestamp(..)) => {
                // A closing row is received an hour after the entry that it closes.
                let delay = |row: &Row| if name == RECEIVED_TIME && row.3.is_some() { 3600 } else { 0 };
                let times = rows.iter().map(|row| NEW_YEAR + (row.1 + delay(row)) * SECOND);
                Arc::new(TimestampMicrosecondArray::from_iter_values(times).with_timezone("UTC"))
            }
            _ => new_null_array(&kind, rows.len()),
        }
    });
    EventBatch::new(contract, RecordBatch::try_new(contract.schema().clone(), columns.collect()).unwrap()).unwrap()
}

#[tokio::test]
async fn quarantine_shows_only_open_entries() {
    let (contract, lake) = (Arc::new(contract()), LakeConfig { url: "memory:///".to_owned(), ..LakeConfig::default() });
    let table = Table::open(&Store::open(&lake).unwrap(), contract.clone(), &lake).await.unwrap();
    let files: [&[Row]; 3] = [
        &[("acme", 0, "a", None), ("acme", 1, "b", None), ("acme", 90_000, "a", None), ("globex", 0, "a", None)],
        &[("acme", 2, "c", None), ("acme", 0, "a/0", Some("a")), ("globex", 1, "b/1", Some("b"))],
        &[("acme", 2, "c/2", Some("c")), ("globex", 2, "c", None)],
    ];
    for rows in files {
        let files = table.write(batch(&contract, rows)).await.unwrap();
        table.commit(files, Vec::new()).await.unwrap();
    }
    let name = contract.name.clone();
    let tables = Arc::new(BTreeMap::from([(name.clone(), table)]));
    let engine = Engine::new(tables, config(), Clock::System, Arc::default()).unwrap();
    let cases: [(&str, &str, &[&str]); 13] = [
        // A closing row does not close an entry that belongs to another tenant or has a different time.
        (
            "acme",
            "SELECT quarantine_id || extract(day FROM event_time) FROM calls_quarantine ORDER BY 1",
            &["a2", "b1"],
        ),
        ("globex", "SELECT quarantine_id FROM calls_quarantine ORDER BY 1", &["a", "c"]),
        ("initech", "SELECT quarantine_id FROM calls_quarantine", &[]),
        ("acme", "SELECT count(*) FROM calls_quarantine", &["2"]),
        ("acme", "SELECT count(*) FROM calls_quarantine WHERE event_time < '2026-01-02T00:00:00Z'", &["1"]),
        ("acme", "SELECT count(*) FROM calls_quarantine WHERE event_date > '2026-01-01'", &["1"]),
        ("acme", "SELECT reason FROM calls_quarantine WHERE reason = 'c'", &[]),
        // The closing row for `c` is in another file, and was received after the time in the filter.
        ("acme", "SELECT quarantine_id FROM calls_quarantine WHERE received_time < '2026-01-01T00:30:00Z'", &["b"]),
        (
            "acme",
            "SELECT quarantine_id FROM calls_quarantine WHERE received_time <= event_time AND received_time < '2026-01-01T00:30:00Z'",
            &["b"],
        ),
        ("acme", "SELECT count(*) FROM calls_quarantine WHERE received_time > '2026-01-01T12:00:00Z'", &["1"]),
        (
            "acme",
            "SELECT quarantine_id FROM calls_quarantine WHERE received_time BETWEEN '2025-12-31T00:00:00Z' AND \
             '2026-01-01T00:00:02Z' AND event_time < '2026-01-01T00:00:03Z'",
            &["b"],
        ),
        ("acme", "SELECT count(*) FROM (SELECT 1 FROM calls_quarantine LIMIT 1)", &["1"]),
        ("acme", "SELECT count(*) FROM calls_quarantine a JOIN calls_quarantine b USING (quarantine_id)", &["2"]),
    ];
    for (tenant, sql, expected) in cases {
        let access = access(Some(tenant), &[Scope::Read], &[&name]).await;
        let rows = ask(&engine, &access, sql).await.unwrap().concat();
        assert_eq!(rows, expected, "{tenant}: {sql}");
    }
    let acme = access(Some("acme"), &[Scope::Read], &[&name]).await;
    for hidden in [RESOLVES, "resolution", "resolved_by"] {
        assert!(ask(&engine, &acme, &format!("SELECT {hidden} FROM calls_quarantine")).await.is_err(), "{hidden}");
    }
    let plan =
        ask(&engine, &acme, "EXPLAIN SELECT quarantine_id FROM calls_quarantine").await.unwrap().concat().concat();
    assert!(plan.contains("TenantScan") && !plan.contains("Join") && !plan.contains(RESOLVES), "{plan}");
}
