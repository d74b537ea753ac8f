//! Tables on real stores: two handles on one lake, races, unclear answers, reloads, and what other Delta readers see.

use std::collections::BTreeMap;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    ArrayRef, AsArray, Float64Array, Int32Array, MapBuilder, MapFieldNames, RecordBatch, StringArray, StringBuilder,
    TimestampMicrosecondArray,
};
use arrow::datatypes::DataType;

use crate::clock::{DAY, Micros, SECOND};
use crate::config::{ColumnConfig, LakeConfig, TableConfig};
use crate::contract::Contract;
use crate::lake::reader::read_columns;
use crate::lake::{Store, Table};

/// 2026-03-01T12:00:00Z.
const NOON: Micros = 20_513 * DAY + DAY / 2;

const COLUMNS: &[(&str, &str)] = &[
    ("tenant_id", "text"),
    ("event_time", "timestamp"),
    ("event_id", "text"),
    ("region", "text"),
    ("mos", "float64"),
    ("hops", "int32"),
    ("labels", "map"),
];

pub(super) fn contract_of(columns: &[(&str, &str)]) -> Arc<Contract> {
    let column = |(name, kind): &(&str, &str)| ColumnConfig {
        name: (*name).into(),
        kind: (*kind).into(),
        description: format!("The {name}."),
        ..ColumnConfig::default()
    };
    let config = TableConfig {
        description: "Calls.".into(),
        columns: columns.iter().map(column).collect(),
        tenant: "tenant_id".into(),
        time: "event_time".into(),
        id: "event_id".into(),
        dimensions_map: if columns.iter().any(|(name, _)| *name == "labels") { "labels".into() } else { String::new() },
        ..TableConfig::default()
    };
    Arc::new(Contract::new("calls", &config, FilePath::new(".")).unwrap())
}

pub(super) fn contract() -> Arc<Contract> {
    contract_of(COLUMNS)
}

pub(super) fn config(url: &str) -> LakeConfig {
    LakeConfig {
        url: url.into(),
        options: BTreeMap::new(),
        compression_level: 1,
        row_group_rows_max: 1_000_000,
        checkpoint_interval: 10,
        log_retention: Duration::from_secs(3_600),
        refresh_interval: Duration::from_secs(1),
        request_time_max: Duration::from_secs(10),
        request_retries_max: 2,
    }
}

/// A store in memory, or in a folder that lives as long as the second value.
fn stores() -> Vec<(Store, Option<tempfile::TempDir>)> {
    let folder = tempfile::Builder::new().prefix("a lake ").tempdir().unwrap();
    let url = url::Url::from_directory_path(folder.path()).unwrap().join("new/").unwrap();
    let memory = Store::open(&config("memory:///some/lake")).unwrap();
    vec![(memory, None), (Store::open(&config(url.as_str())).unwrap(), Some(folder))]
}

async fn open(store: &Store) -> Arc<Table> {
    Table::open(store, contract(), &config("memory:///")).await.unwrap()
}

/// One event: tenant, time, id.
type Event<'a> = (&'a str, Micros, String);

/// Events `range` of two tenants, a second apart, latest first.
fn events(range: std::ops::Range<usize>) -> Vec<Event<'static>> {
    let tenant = |number| if number % 3 == 0 { "acme" } else { "zeta" };
    range.rev().map(|number| (tenant(number), NOON + number as Micros * SECOND, format!("e{number:06}"))).collect()
}

/// Events as rows of any contract; other columns are filled by type.
fn batch(contract: &Contract, events: &[Event<'_>]) -> RecordBatch {
    let times = |time: fn(&Event<'_>) -> Micros| {
        Arc::new(TimestampMicrosecondArray::from_iter_values(events.iter().map(time)).with_timezone("UTC")) as ArrayRef
    };
    let columns = contract.schema().fields().iter().enumerate().map(|(column, field)| match field.data_type() {
        _ if column == contract.tenant => Arc::new(StringArray::from_iter_values(events.iter().map(|event| event.0))),
        _ if column == contract.id => Arc::new(StringArray::from_iter_values(events.iter().map(|event| &event.2))),
        _ if column == contract.time => times(|event| event.1),
        DataType::Timestamp(..) => times(|event| event.1 + 1_500),
        DataType::Utf8 => Arc::new(StringArray::from_iter(events.iter().map(|_| Some("eu")))) as ArrayRef,
        DataType::Float64 => Arc::new(Float64Array::from_iter(events.iter().map(|_| Some(4.25)))),
        DataType::Int32 => Arc::new(Int32Array::from_iter(events.iter().map(|_| None))),
        DataType::Map(..) => labels(events.len()),
        other => panic!("no rows of {other}"),
    });
    RecordBatch::try_new(Arc::clone(contract.schema()), columns.collect()).unwrap()
}

fn labels(rows: usize) -> ArrayRef {
    let names = MapFieldNames { entry: "key_value".into(), key: "key".into(), value: "value".into() };
    let mut labels = MapBuilder::new(Some(names), StringBuilder::new(), StringBuilder::new());
    for row in 0..rows {
        labels.keys().append_value("codec");
        labels.values().append_value(if row % 2 == 0 { "opus" } else { "g711" });
        labels.append(true).unwrap();
    }
    Arc::new(labels.finish())
}

async fn append(table: &Table, range: std::ops::Range<usize>) -> u64 {
    let files = table.write(batch(table.contract(), &events(range))).await.unwrap();
    table.commit(files, Vec::new()).await.unwrap()
}

/// All ids of the table's newest snapshot, by reading its files.
async fn ids(table: &Table) -> Vec<String> {
    let mut ids: Vec<String> = Vec::new();
    for file in table.snapshot().files.iter() {
        let objects = &table.location().0.objects;
        let batches = read_columns(objects, table.file_path(file), file.size, &["event_id"]).await.unwrap();
        for batch in batches {
            ids.extend(batch.column(0).as_string::<i32>().iter().flatten().map(str::to_owned));
        }
    }
    ids.sort_unstable();
    ids
}

fn expected(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| format!("e{number:06}")).collect()
}

/// Rows and version by `deltalake`, from the log alone.
async fn delta_says(table: &Table) -> (u64, u64) {
    let (store, folder) = table.location();
    let mut delta = deltalake_core::DeltaTable::new(super::checkpoint::log_store(store, folder).unwrap());
    delta.load().await.unwrap();
    let snapshot = delta.snapshot().unwrap();
    (snapshot.version(), snapshot.log_data().iter().map(|file| file.num_records().unwrap() as u64).sum())
}

#[tokio::test]
async fn a_second_handle_sees_what_the_first_one_commits() {
    for (store, _folder) in stores() {
        let first = open(&store).await;
        let second = open(&store).await;
        assert_eq!(first.snapshot().version, 0);
        assert_eq!(append(&first, 0..100).await, 1);
        assert_eq!(first.snapshot().rows(), 100, "a commit's rows are there when it returns");
        assert_eq!(second.snapshot().rows(), 0);
        assert_eq!(second.refresh().await.unwrap().rows(), 100);
        assert_eq!(append(&second, 100..150).await, 2);
        assert_eq!(append(&first, 150..160).await, 3, "a commit on an old snapshot is tried again on the newest");
        assert_eq!(first.snapshot().rows(), 160);
        assert_eq!(second.refresh().await.unwrap(), first.snapshot());
        assert_eq!(open(&store).await.snapshot(), first.snapshot(), "loaded is as followed");
        assert_eq!(ids(&first).await, expected(0..160));
        assert_eq!(delta_says(&first).await, (3, 160));
    }
}

#[tokio::test]
async fn nothing_is_committed_for_no_rows() {
    for (store, _folder) in stores() {
        let table = open(&store).await;
        assert!(table.write(RecordBatch::new_empty(Arc::clone(table.contract().schema()))).await.unwrap().is_empty());
    }
}
