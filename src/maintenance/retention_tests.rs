//! Tests of the removal of expired files.

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use object_store::ObjectStoreExt as _;
use serde_json::{Value, json};

use super::retention::{Expired, remove_expired};
use super::testing::{DAY_NUMBER, MIDNIGHT, lake, read};
use crate::clock::{DAY, Micros, SECOND};
use crate::config::{ColumnConfig, TableConfig};
use crate::contract::{Contract, DecodeOptions, Format, Owner, decode};
use crate::lake::{Committed, Store, Table};

/// Returns the contract of a table that keeps events for ten days, and those of `acme` for three.
fn contract() -> Arc<Contract> {
    let column =
        |(name, kind): (&str, &str)| ColumnConfig { name: name.into(), kind: kind.into(), ..ColumnConfig::default() };
    let config = TableConfig {
        columns: [("tenant", "text"), ("at", "timestamp"), ("id", "text")].map(column).to_vec(),
        tenant: "tenant".into(),
        time: "at".into(),
        id: "id".into(),
        retention_days: 10,
        retention_tenants: [("acme".to_owned(), 3)].into(),
        ..TableConfig::default()
    };
    Arc::new(Contract::new("events", &config, Path::new(".")).unwrap())
}

/// Opens two handles of one table.
async fn tables() -> [Arc<Table>; 2] {
    let config = lake(1_000);
    let store = Store::open(&config).unwrap();
    let one = Table::open(&store, contract(), &config).await.unwrap();
    [one, Table::open(&store, contract(), &config).await.unwrap()]
}

/// Decodes one event for each tenant. The event time is an hour before the end of a day, which is given as the number of
/// days since [`DAY_NUMBER`]. The id consists of the tenant and the day.
fn rows(day: i64, tenants: &[&str]) -> crate::contract::EventBatch {
    let at = (MIDNIGHT + (day + 1) * DAY) / 1_000_000 - 3_600;
    let line =
        |tenant: &&str| json!({ "tenant": tenant, "at": at * 1_000, "id": format!("{tenant} {day}") }).to_string();
    let lines: Vec<String> = tenants.iter().map(line).collect();
    let options = DecodeOptions {
        received: MIDNIGHT,
        owner: Owner::PerEvent,
        time_max: MIDNIGHT + 100 * DAY,
        event_bytes_max: 1 << 20,
        dimensions_max: 8,
    };
    let decoded = decode(&contract(), Format::Json, &Bytes::from(lines.join("\n")), &options).unwrap();
    assert!(decoded.rejects.is_empty(), "{:?}", decoded.rejects);
    decoded.batch
}

async fn append(table: &Table, day: i64, tenants: &[&str]) {
    table.commit(table.write(rows(day, tenants)).await.unwrap(), Vec::new()).await.unwrap();
}

async fn ids(table: &Table) -> Vec<String> {
    let mut ids = Vec::new();
    for file in &*table.refresh().await.unwrap().files {
        for batch in read(table, file).await.1 {
            let column = arrow::array::AsArray::as_string::<i32>(batch.column_by_name("id").unwrap()).clone();
            ids.extend(column.iter().map(|id| id.unwrap().to_owned()));
        }
    }
    ids.sort_unstable();
    ids
}

/// Returns the actions of a log entry.
async fn entry(table: &Table, version: u64) -> Vec<Value> {
    let (store, folder) = table.location();
    let path = format!("{folder}/_delta_log/{version:020}.json").into();
    let bytes = store.objects.get(&path).await.unwrap().bytes().await.unwrap();
    serde_json::Deserializer::from_slice(&bytes).into_iter().collect::<Result<_, _>>().unwrap()
}

/// Returns a time on a day, which is given as the number of days since [`DAY_NUMBER`].
fn on(day: i64, minutes: i64) -> Micros {
    MIDNIGHT + day * DAY + minutes * 60 * SECOND
}

#[tokio::test]
async fn whole_files_are_removed_an_hour_after_they_have_expired() {
    let [table, other] = tables().await;
    append(&table, 0, &["acme"]).await;
    append(&table, 0, &["acme", "zeta"]).await;
    append(&table, 0, &["zeta"]).await;
    append(&table, 1, &["zeta"]).await;
    let before = table.snapshot().files.to_vec();
    for (now, files, left) in [
        (on(3, 1_439), 0, vec!["acme 0", "acme 0", "zeta 0", "zeta 0", "zeta 1"]),
        (on(4, 59), 0, vec!["acme 0", "acme 0", "zeta 0", "zeta 0", "zeta 1"]),
        (on(4, 60), 1, vec!["acme 0", "zeta 0", "zeta 0", "zeta 1"]),
        (on(11, 59), 0, vec!["acme 0", "zeta 0", "zeta 0", "zeta 1"]),
        (on(11, 60), 2, vec!["zeta 1"]),
        (on(12, 60), 1, vec![]),
        (on(99, 0), 0, vec![]),
    ] {
        let removed = remove_expired(&table, now).await.unwrap();
        assert_eq!(
            (removed.files, ids(&table).await),
            (files, left.iter().map(|id| (*id).to_owned()).collect()),
            "{now}"
        );
        assert_eq!(ids(&other).await, left, "another server follows");
    }
    for file in before {
        read(&table, &file).await;
    }
    let actions = entry(&table, 6).await;
    let info = &actions[0]["commitInfo"];
    assert_eq!((&info["operation"], &info["isBlindAppend"]), (&json!("DELETE"), &json!(false)));
    let predicate = r#"["(\"at\" < TIMESTAMP '2026-03-02 00:00:00Z')"]"#;
    assert_eq!(info["operationParameters"]["predicate"], predicate);
    assert_eq!(actions.len(), 3);
    assert!(actions[1..].iter().all(|action| action["remove"]["dataChange"] == true));
    let own = &entry(&table, 5).await[0]["commitInfo"]["operationParameters"]["predicate"];
    assert_eq!(own, r#"["(\"tenant\" = 'acme' AND \"at\" < TIMESTAMP '2026-03-02 00:00:00Z')"]"#);
}

#[tokio::test]
async fn removals_and_other_writers_do_not_disturb_each_other() {
    let [table, other] = tables().await;
    for _ in 0..3 {
        append(&table, 0, &["zeta"]).await;
    }
    // An append that was compared with the rows of version 3 is committed after the removal.
    other.refresh().await.unwrap();
    let mut draft = other.draft(other.write(rows(0, &["late"])).await.unwrap(), Vec::new()).unwrap();
    // The other server has rewritten two files meanwhile, which this server does not know yet.
    let from = other.snapshot().files[..2].to_vec();
    let merged = other.write(rows(0, &["zeta", "zeta"])).await.unwrap();
    other.replace(&from, merged).await.unwrap();
    let removed = remove_expired(&table, on(20, 0)).await.unwrap();
    assert_eq!((removed.files, removed.rows), (2, 3));
    assert_eq!(other.commit_after(3, &mut draft).await.unwrap(), Committed::At(6), "no rows were added");
    assert_eq!(ids(&table).await, ["late 0"]);
    assert_eq!(remove_expired(&table, on(20, 0)).await.unwrap().files, 1, "the day is removed again");
    assert_eq!(remove_expired(&other, on(20, 0)).await.unwrap(), Expired::default());
    assert_eq!(ids(&other).await, Vec::<String>::new());
    assert_eq!(i64::from(DAY_NUMBER) * DAY, MIDNIGHT);
}
