//! Tests of the removal of expired files.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use object_store::ObjectStoreExt as _;
use serde_json::{Value, json};

use super::expired_rows::tenant_rows;
use super::file_cuts::FileCuts;
use super::merge::{MergeOptions, merge};
use super::policy::{Excluded, Unit};
use super::retention::{Expired, commit, may_be_partly_expired, plan, remove_expired};
use super::testing::{DAY_NUMBER, MIDNIGHT, lake, options, read};
use crate::clock::{DAY, Micros, SECOND};
use crate::config::{ColumnConfig, TableConfig};
use crate::contract::{Contract, DecodeOptions, Format, Owner, decode};
use crate::lake::{Committed, DataFile, Replaced, Store, Table};

/// Returns the contract of a table that keeps events for eleven days, and those of `acme` for three.
fn contract() -> Arc<Contract> {
    let column =
        |(name, kind): (&str, &str)| ColumnConfig { name: name.into(), kind: kind.into(), ..ColumnConfig::default() };
    let config = TableConfig {
        columns: [("tenant", "text"), ("at", "timestamp"), ("id", "text")].map(column).to_vec(),
        tenant: "tenant".into(),
        time: "at".into(),
        id: "id".into(),
        retention_days: 11,
        retention_tenants: [("acme".to_owned(), 3)].into(),
        ..TableConfig::default()
    };
    Arc::new(Contract::new("events", &config, Path::new(".")).unwrap())
}

fn files_of(table: &Table) -> Vec<Arc<DataFile>> {
    table.snapshot().files().cloned().collect()
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
    for file in table.refresh().await.unwrap().files() {
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
    let before = files_of(&table);
    for (now, files, left) in [
        (on(3, 1_439), 0, vec!["acme 0", "acme 0", "zeta 0", "zeta 0", "zeta 1"]),
        (on(4, 59), 0, vec!["acme 0", "acme 0", "zeta 0", "zeta 0", "zeta 1"]),
        (on(4, 60), 1, vec!["acme 0", "zeta 0", "zeta 0", "zeta 1"]),
        (on(12, 59), 0, vec!["acme 0", "zeta 0", "zeta 0", "zeta 1"]),
        (on(12, 60), 2, vec!["zeta 1"]),
        (on(13, 60), 1, vec![]),
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
    let from = files_of(&other)[..2].to_vec();
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

/// Returns the live files, each with the number of rows of `acme`, if they may have expired rows at the time `now`.
async fn counted(table: &Arc<Table>, now: Micros) -> Vec<(Arc<DataFile>, BTreeMap<String, u64>)> {
    let expiry = table.contract().retention.bounds(now);
    let mut counted = Vec::new();
    for file in table.refresh().await.unwrap().files() {
        if may_be_partly_expired(file, &expiry) {
            counted.push((Arc::clone(file), tenant_rows(table, file, &expiry).await.unwrap()));
        }
    }
    counted
}

#[tokio::test]
async fn files_are_rewritten_without_the_expired_rows_of_tenants() {
    let [table, other] = tables().await;
    let many: Vec<String> = (0..38).map(|number| format!("zeta{number}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    append(&table, 0, &[&["acme", "acme", "acme", "a"], &many[..]].concat()).await;
    append(&table, 0, &[&["acme", "a"], &many[..]].concat()).await;
    append(&table, 0, &[&["a"], &many[..]].concat()).await;
    append(&table, 0, &["acme"]).await;
    append(&table, 0, &many).await;
    append(&table, 1, &[&["acme", "a"], &many[..]].concat()).await;
    let none = Excluded::default();
    // The time, the number of files that may have expired rows, and the numbers of rows of the files to rewrite.
    for (now, candidates, rewritten) in [
        (on(3, 1_439), 0, vec![]),
        (on(4, 0), 3, vec![42]),
        (on(5, 0), 4, vec![42]),
        (on(10, 1_439), 4, vec![42]),
        (on(11, 0), 4, vec![40, 42]),
        (on(12, 0), 1, vec![40]),
    ] {
        let files = counted(&table, now).await;
        let mut units: Vec<u64> = plan(&files, &table.contract().retention.bounds(now), &none)
            .iter()
            .map(|unit| unit.inputs[0].rows)
            .collect();
        units.sort_unstable();
        assert_eq!((files.len(), units), (candidates, rewritten), "{now}");
    }
    assert_eq!(ids(&other).await.len(), 42 + 40 + 39 + 1 + 38 + 40);
}

#[tokio::test]
async fn a_merge_drops_expired_rows_and_proves_the_others() {
    for whole_rows in [false, true] {
        let [table, other] = tables().await;
        append(&table, 0, &["a", "acme", "zeta"]).await;
        append(&table, 0, &["acme", "acme", "beta"]).await;
        append(&table, 0, &["beta"]).await;
        other.refresh().await.unwrap();
        let mut draft = other.draft(other.write(rows(0, &["acme"])).await.unwrap(), Vec::new()).unwrap();
        let inputs = files_of(&table);
        let unit = Unit { day: DAY_NUMBER, level: 1, inputs, cuts: FileCuts::by_size(u64::MAX) };
        for (now, dropped, left) in [
            (on(3, 1_439), 0, &["a 0", "acme 0", "acme 0", "acme 0", "beta 0", "beta 0", "zeta 0"][..]),
            (on(4, 0), 3, &["a 0", "beta 0", "beta 0", "zeta 0"]),
        ] {
            let expiry = table.contract().retention.bounds(now);
            let options = MergeOptions { expiry: expiry.clone(), whole_rows, ..options() };
            let merged = merge(&table, &unit, &options).await.unwrap();
            assert_eq!(
                (merged.dropped, merged.files.iter().map(|file| file.rows).sum::<u64>()),
                (dropped, 7 - dropped)
            );
            if dropped > 0 {
                assert_eq!(commit(&table, merged, &expiry).await.unwrap(), Replaced::At(4));
                assert_eq!(ids(&table).await, left);
                let info = &entry(&table, 4).await[0]["commitInfo"];
                let predicate = r#"["(\"tenant\" = 'acme' AND \"at\" < TIMESTAMP '2026-03-02 00:00:00Z')"]"#;
                assert_eq!(info["operationParameters"]["predicate"], predicate);
            }
        }
        // An append in flight is not delayed, and a file with only expired rows is removed without a new file.
        assert_eq!(other.commit_after(3, &mut draft).await.unwrap(), Committed::At(5));
        let inputs = other.snapshot().files().filter(|file| file.rows == 1).cloned().collect();
        let unit = Unit { day: DAY_NUMBER, level: 1, inputs, cuts: FileCuts::by_size(u64::MAX) };
        let expiry = table.contract().retention.bounds(on(4, 0));
        let merged = merge(&other, &unit, &MergeOptions { expiry: expiry.clone(), ..options() }).await.unwrap();
        assert_eq!((merged.files.len(), merged.dropped), (0, 1));
        commit(&other, merged, &expiry).await.unwrap();
        assert_eq!(ids(&table).await, ["a 0", "beta 0", "beta 0", "zeta 0"]);
    }
}
