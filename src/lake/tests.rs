//! Tests of tables on real stores. They cover concurrent handles, in-doubt commits, schema evolution, checkpoints, and
//! other Delta readers.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use arrow::array::{
    ArrayRef, AsArray, Float64Array, Int32Array, MapBuilder, MapFieldNames, RecordBatch, StringArray, StringBuilder,
    TimestampMicrosecondArray,
};
use arrow::datatypes::DataType;

use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use tokio::task::JoinSet;

use crate::clock::{Clock, DAY, Micros, SECOND};
use crate::config::{ColumnConfig, LakeConfig, TableConfig};
use crate::contract::{Contract, EventBatch};
use crate::error::Kind;
use crate::lake::log::delta_log::Log;
use crate::lake::read::object_reader::read_columns;
use crate::lake::store::faulty_store::{FaultyStore, StoreFault};
use crate::lake::{Committed, Draft, Progress, Store, Table};

/// The test time 2026-03-01T12:00:00Z.
pub(super) const NOON: Micros = 20_513 * DAY + DAY / 2;

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
        removed_retention: Duration::from_secs(3_600),
        orphan_age_min: Duration::from_secs(86_400),
        refresh_interval: Duration::from_secs(1),
        request_time_max: Duration::from_secs(10),
        request_retries_max: 2,
    }
}

/// Returns an in-memory store, and a store in a temporary folder. Dropping the `TempDir` deletes the folder.
pub(super) fn stores() -> Vec<(Store, Option<tempfile::TempDir>)> {
    let folder = tempfile::Builder::new().prefix("a lake ").tempdir().unwrap();
    let url = url::Url::from_directory_path(folder.path()).unwrap().join("new/").unwrap();
    let memory = Store::open(&config("memory:///some/lake")).unwrap();
    vec![(memory, None), (Store::open(&config(url.as_str())).unwrap(), Some(folder))]
}

pub(super) async fn open(store: &Store) -> Arc<Table> {
    Table::open(store, contract(), &config("memory:///")).await.unwrap()
}

/// The tenant, time and id of an event.
pub(super) type Event<'a> = (&'a str, Micros, String);

/// Returns events one second apart, newest first. They belong to two tenants.
pub(super) fn events(range: std::ops::Range<usize>) -> Vec<Event<'static>> {
    let tenant = |number| if number % 3 == 0 { "acme" } else { "zeta" };
    range.rev().map(|number| (tenant(number), NOON + number as Micros * SECOND, format!("e{number:06}"))).collect()
}

/// Converts events to rows with the columns of `contract`. In columns other than tenant, time and id, each value
/// depends only on the column's type.
pub(super) fn batch(contract: &Contract, events: &[Event<'_>]) -> EventBatch {
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
        other => panic!("no test rows of type {other}"),
    });
    EventBatch::new(contract, RecordBatch::try_new(Arc::clone(contract.schema()), columns.collect()).unwrap()).unwrap()
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

pub(super) async fn append(table: &Table, range: std::ops::Range<usize>) -> u64 {
    let files = table.write(batch(table.contract(), &events(range))).await.unwrap();
    table.commit(files, Vec::new()).await.unwrap()
}

/// Writes events to files, and returns a draft of their commit.
pub(super) async fn draft(table: &Table, range: std::ops::Range<usize>, progress: Vec<Progress>) -> Draft {
    let files = table.write(batch(table.contract(), &events(range))).await.unwrap();
    table.draft(files, progress).unwrap()
}

/// Reads the ids of all events in the table's newest snapshot, and sorts them.
pub(super) async fn ids(table: &Table) -> Vec<String> {
    let mut ids: Vec<String> = Vec::new();
    for file in table.snapshot().files() {
        let objects = &table.location().0.objects;
        let batches = read_columns(objects, table.file_path(file), file.size, &["event_id"]).await.unwrap();
        for batch in batches {
            ids.extend(batch.column(0).as_string::<i32>().iter().flatten().map(str::to_owned));
        }
    }
    ids.sort_unstable();
    ids
}

pub(super) fn expected(range: std::ops::Range<usize>) -> Vec<String> {
    range.map(|number| format!("e{number:06}")).collect()
}

/// Returns the version and row count that `deltalake` reads from the log.
pub(super) async fn delta_version_and_rows(table: &Table) -> (u64, u64) {
    let (store, folder) = table.location();
    let mut delta = deltalake_core::DeltaTable::new(super::log::checkpoint::log_store(store, folder).unwrap());
    delta.load().await.unwrap();
    let snapshot = delta.snapshot().unwrap();
    (snapshot.version(), snapshot.log_data().iter().map(|file| file.num_records().unwrap() as u64).sum())
}

#[tokio::test]
async fn a_second_handle_sees_commits_of_the_first() {
    for (store, _folder) in stores() {
        let first = open(&store).await;
        let second = open(&store).await;
        assert_eq!(first.snapshot().version, 0);
        assert_eq!(append(&first, 0..100).await, 1);
        assert_eq!(first.snapshot().rows(), 100, "a commit's rows are visible when it returns");
        assert_eq!(second.snapshot().rows(), 0);
        assert_eq!(second.refresh().await.unwrap().rows(), 100);
        assert_eq!(append(&second, 100..150).await, 2);
        assert_eq!(append(&first, 150..160).await, 3, "a commit on an old snapshot is retried on the newest");
        assert_eq!(first.snapshot().rows(), 160);
        assert_eq!(second.refresh().await.unwrap(), first.snapshot());
        assert_eq!(open(&store).await.snapshot(), first.snapshot(), "loading and following give the same snapshot");
        assert_eq!(ids(&first).await, expected(0..160));
        assert_eq!(delta_version_and_rows(&first).await, (3, 160));
    }
}

#[tokio::test]
async fn writing_no_rows_creates_no_files() {
    for (store, _folder) in stores() {
        let table = open(&store).await;
        assert!(table.write(EventBatch::empty(table.contract())).await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_failed_write_leaves_no_files() {
    let (store, folder) = stores().pop().unwrap();
    let (table, temporary) = (open(&store).await, folder.unwrap());
    let folder = temporary.path().join("new/calls");
    // The rows belong to two days. The folder of the second day cannot be created, because there is already a file with
    // its name.
    let days = ["event_date=2026-03-01", "event_date=2026-03-02"].map(|day| folder.join(day));
    std::fs::write(&days[1], "in the way").unwrap();
    let rows = batch(table.contract(), &events(0..90_000));
    let error = table.write(rows.clone()).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unavailable, "{error:?}");
    assert_eq!(std::fs::read_dir(&days[0]).unwrap().count(), 0, "the first day's file is deleted");
    std::fs::remove_file(&days[1]).unwrap();
    assert_eq!(table.write(rows).await.unwrap().len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn concurrent_writers_lose_no_rows_and_share_no_version() {
    const TASKS: usize = 8;
    const COMMITS: usize = 20;
    for (store, _folder) in stores() {
        let handles = [open(&store).await, open(&store).await];
        let mut tasks = JoinSet::new();
        for task in 0..TASKS {
            let table = Arc::clone(&handles[task % 2]);
            tasks.spawn(async move {
                let mut versions = Vec::new();
                for commit in 0..COMMITS {
                    let first = (task * COMMITS + commit) * 10;
                    versions.push(append(&table, first..first + 10).await);
                }
                versions
            });
        }
        let versions: Vec<u64> = tasks.join_all().await.into_iter().flatten().collect();
        let unique: BTreeSet<u64> = versions.iter().copied().collect();
        assert_eq!(unique, (1..=(TASKS * COMMITS) as u64).collect(), "each commit has its own version");
        for table in &handles {
            table.refresh().await.unwrap();
            assert_eq!(ids(table).await, expected(0..TASKS * COMMITS * 10));
        }
        assert_eq!(handles[0].snapshot(), handles[1].snapshot());
        assert_eq!(open(&store).await.snapshot(), handles[0].snapshot());
        assert_eq!(delta_version_and_rows(&handles[0]).await, (160, 1_600));
    }
}

/// Returns a change of the progress of the source `app` from `after` to `next`.
pub(super) fn progress(app: &str, after: Option<i64>, next: i64) -> Vec<Progress> {
    vec![Progress { app: app.to_owned(), after, next }]
}

#[tokio::test]
async fn source_progress_is_compared_and_set() {
    let (store, _) = stores().remove(0);
    let (first, second) = (open(&store).await, open(&store).await);
    let source = |after, next| progress("kafka:calls:0", after, next);
    let write = async |table: &Table, range| table.write(batch(table.contract(), &events(range))).await.unwrap();

    assert_eq!(first.commit(write(&first, 0..10).await, source(None, 5)).await.unwrap(), 1);
    for (after, next) in [(None, 5), (None, 9), (Some(4), 9), (Some(6), 9), (Some(4), 5)] {
        let error = first.commit(write(&first, 0..10).await, source(after, next)).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Conflict, "{after:?} to {next}: {error}");
    }
    let error = second.commit(write(&second, 0..10).await, source(None, 9)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict, "this handle does not know of the first handle's commit: {error}");
    assert!(error.message().contains("kafka:calls:0"), "{error}");
    assert_eq!(second.snapshot().txns["kafka:calls:0"], 5, "the snapshot has the progress after the refusal");

    assert_eq!(second.commit(write(&second, 10..20).await, source(Some(5), 6)).await.unwrap(), 2);
    // After the refresh, `first` knows that the progress is 6, but the commit expects 5.
    first.refresh().await.unwrap();
    let error = first.commit(write(&first, 0..10).await, source(Some(5), 9)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Conflict, "{error}");

    let mut draft = second.draft(Vec::new(), source(Some(6), 7)).unwrap();
    for _ in ["progress without rows", "the same commit again, as after an in-doubt result"] {
        assert_eq!(second.commit_after(0, &mut draft).await.unwrap(), Committed::At(3));
    }
    assert_eq!(second.commit(Vec::new(), progress("other", None, 1)).await.unwrap(), 4);
    let check_only = [source(Some(7), 7), progress("other", Some(1), 0)].concat();
    assert_eq!(second.commit(Vec::new(), check_only).await.unwrap(), 5, "a recreated topic starts again");
    let snapshot = open(&store).await.snapshot();
    assert_eq!((snapshot.rows(), snapshot.txns["kafka:calls:0"], snapshot.txns["other"]), (20, 7, 0));
}

#[tokio::test]
async fn an_in_doubt_put_is_resolved() {
    use StoreFault::{Late, Lost, ResponseLost, Retried};
    let cases: &[&[StoreFault]] = &[
        &[ResponseLost],
        &[Lost],
        &[Retried],
        &[Late],
        &[Lost, Lost],
        &[Lost, ResponseLost],
        &[Lost, Late],
        &[Late, Late],
    ];
    for faults in cases {
        let faulty = FaultyStore::new(Arc::new(InMemory::new()));
        let store = Store::wrap(Arc::clone(&faulty) as _, "memory:///".parse().unwrap(), "lake".into());
        let (table, other) = (open(&store).await, open(&store).await);
        append(&other, 0..10).await;

        faulty.plan(faults);
        assert_eq!(append(&table, 10..20).await, 2, "{faults:?}: after the other handle's commit");
        assert_eq!(table.snapshot().rows(), 20, "{faults:?}");
        assert_eq!(append(&table, 20..30).await, 3, "{faults:?}: the next commit succeeds");
        other.refresh().await.unwrap();
        assert_eq!(ids(&other).await, expected(0..30), "{faults:?}");
        assert_eq!(delta_version_and_rows(&table).await, (3, 30), "{faults:?}");
    }
}

#[tokio::test]
async fn a_repeated_in_doubt_commit_is_stored_once() {
    use StoreFault::{Late, Lost, ResponseLost};
    for faults in [&[Lost, Lost, Lost][..], &[Lost, Lost, Late], &[Late, Lost, Lost], &[ResponseLost]] {
        let faulty = FaultyStore::new(Arc::new(InMemory::new()));
        let store = Store::wrap(Arc::clone(&faulty) as _, "memory:///".parse().unwrap(), "lake".into());
        let table = open(&store).await;
        let mut draft = draft(&table, 0..10, progress("source", None, 1)).await;

        faulty.plan(faults);
        let first = table.commit_after(0, &mut draft).await;
        if let Err(error) = &first {
            assert_eq!(error.kind(), Kind::Unavailable, "{faults:?}: {error}");
        }
        assert_eq!(table.commit_after(0, &mut draft).await.unwrap(), Committed::At(1), "{faults:?} after {first:?}");
        table.discard(draft).await;
        assert_eq!(ids(&table).await, expected(0..10), "{faults:?}: the files of a committed draft are kept");
        assert_eq!(open(&store).await.snapshot(), table.snapshot());
        assert_eq!(delta_version_and_rows(&table).await, (1, 10), "{faults:?}");
    }
}

#[tokio::test]
async fn only_nullable_columns_are_added() {
    let cases = [
        ("a new column", ("jitter", "float64"), None),
        ("another type", ("mos", "float32"), Some("mos")),
        ("another case", ("Region", "text"), Some("Region")),
    ];
    for (case, added, refused) in cases {
        for (store, _folder) in stores() {
            let old = open(&store).await;
            append(&old, 0..10).await;
            let mut columns: Vec<_> = COLUMNS.to_vec();
            columns.retain(|(name, _)| !added.0.eq_ignore_ascii_case(name));
            columns.push(added);
            let opened = Table::open(&store, contract_of(&columns), &config("memory:///")).await;
            let Some(column) = refused else {
                let new = opened.unwrap();
                assert_eq!(new.snapshot().version, 2, "{case}");
                append(&new, 10..20).await;
                assert_eq!(append(&old, 20..30).await, 4, "{case}: a process with the old contract continues");
                assert_eq!(open(&store).await.snapshot().rows(), 30, "{case}: undeclared columns stay");
                assert_eq!(delta_version_and_rows(&old).await, (4, 30), "{case}");
                continue;
            };
            let error = opened.unwrap_err();
            assert_eq!(error.kind(), Kind::Conflict, "{case}: {error}");
            assert!(error.message().contains(&format!("`{column}`")), "{case}: {error}");
        }
    }
}

#[tokio::test]
async fn unsupported_features_of_other_engines_are_refused() {
    let lines = [
        (r#"{"protocol":{"minReaderVersion":3,"minWriterVersion":7,"readerFeatures":["deletionVectors"]}}"#, "feature"),
        (
            r#"{"add":{"path":"event_date=2026-03-01/x.parquet","partitionValues":{"event_date":"2026-03-01"},"size":1,"modificationTime":1,"dataChange":true}}"#,
            "row count",
        ),
        (
            r#"{"add":{"path":"s3://elsewhere/x.parquet","partitionValues":{"event_date":"2026-03-01"},"size":1,"modificationTime":1,"dataChange":true,"stats":"{\"numRecords\":1}"}}"#,
            "outside",
        ),
        (
            r#"{"add":{"path":"x.parquet","partitionValues":{"event_date":null},"size":1,"modificationTime":1,"dataChange":true,"stats":"{\"numRecords\":1}"}}"#,
            "event_date",
        ),
    ];
    for (line, word) in lines {
        let (store, _) = stores().remove(0);
        let table = open(&store).await;
        let path = "some/lake/calls/_delta_log/00000000000000000001.json".into();
        store.objects.put(&path, line.into()).await.unwrap();
        for error in [
            table.refresh().await.map(drop).unwrap_err(),
            Table::open(&store, contract(), &config("memory:///")).await.map(drop).unwrap_err(),
        ] {
            assert_eq!(error.kind(), Kind::Unsupported, "{error}");
            assert!(error.message().contains(word), "{error}");
        }
    }
}

#[tokio::test]
async fn checkpoints_are_written_when_due_and_load_the_same_snapshot() {
    for (store, _folder) in stores() {
        let table = open(&store).await;
        let hint = async || Log::of(&store, table.location().1).hint().await.unwrap();
        for number in 0..9 {
            append(&table, number * 10..number * 10 + 10).await;
            table.maintain().await.unwrap();
        }
        assert_eq!(hint().await, None, "not due before the interval");
        table.commit(Vec::new(), progress("source", None, 42)).await.unwrap();
        table.maintain().await.unwrap();
        assert_eq!(hint().await, Some(10));
        assert_eq!(open(&store).await.snapshot(), table.snapshot(), "from the checkpoint alone");
        append(&table, 90..100).await;
        let moves = [progress("source", Some(42), 43), progress("new", None, 1)].concat();
        table.commit(Vec::new(), moves).await.unwrap();
        let loaded = open(&store).await;
        assert_eq!(loaded.snapshot(), table.snapshot(), "from the checkpoint and the entries after it");
        assert_eq!(*loaded.snapshot().txns, [("new".to_owned(), 1), ("source".to_owned(), 43)].into());
        assert_eq!(ids(&loaded).await, expected(0..100));
        assert_eq!(delta_version_and_rows(&table).await, (12, 100));
    }
}

/// Makes 24 commits of ten events each, and writes two checkpoints.
async fn fill(table: &Table) {
    for number in 0..24 {
        append(table, number * 10..number * 10 + 10).await;
        if number % 12 == 11 {
            table.maintain().await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_handle_reloads_a_log_that_was_cleaned_up() {
    let (store, _) = stores().remove(0);
    let clock = Clock::fixed(Clock::System.now() + 2 * DAY);
    let store = store.with_clock(clock.clone());
    let (writer, stalled) = (open(&store).await, open(&store).await);
    // All log entries are older than the retention period for log entries. Writing the second checkpoint removes the
    // log entries before the first checkpoint.
    fill(&writer).await;
    let listing = Log::of(&store, writer.location().1).list(0).await.unwrap();
    assert_eq!(listing.checkpoints.keys().collect::<Vec<_>>(), [&12, &24]);
    assert_eq!(listing.entries.first(), Some(&12));
    append(&writer, 240..250).await;

    assert_eq!(stalled.refresh().await.unwrap().version, 0, "entry 1 is gone, and the hint is not checked yet");
    clock.set(clock.now() + 60 * SECOND);
    assert_eq!(stalled.refresh().await.unwrap(), writer.snapshot());
    assert_eq!(open(&store).await.snapshot(), writer.snapshot());
    assert_eq!(delta_version_and_rows(&writer).await, (25, 250));
}

#[tokio::test]
async fn a_stalled_writer_does_not_commit_at_a_cleaned_up_version() {
    let (store, _) = stores().remove(0);
    let clock = Clock::fixed(Clock::System.now() + 2 * DAY);
    let store = store.with_clock(clock.clone());
    let (writer, stalled) = (open(&store).await, open(&store).await);
    fill(&writer).await;
    clock.set(clock.now() + 60 * SECOND);
    assert_eq!(append(&stalled, 240..250).await, 25, "version 1 has no entry, but is before the checkpoint");
    assert_eq!(ids(&stalled).await, expected(0..250));
    assert_eq!(delta_version_and_rows(&stalled).await, (25, 250));
}
