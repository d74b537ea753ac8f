//! Tests of rewrites, and of appends beside rewrites: drafts in doubt whose files were rewritten meanwhile, and entries
//! of other writers that only claim to be rewrites.

use std::sync::Arc;

use object_store::ObjectStoreExt as _;
use object_store::memory::InMemory;
use serde_json::{Value, json};

use crate::clock::{Clock, DAY, SECOND};
use crate::error::Kind;
use crate::lake::store::faulty_store::{FaultyStore, StoreFault};
use crate::lake::tests::{append, batch, delta_version_and_rows, draft, events, expected, ids, open, progress, stores};
use crate::lake::{Committed, DataFile, Draft, Replaced, Store, Table};

/// Creates an in-memory store whose puts of log entries can be made to fail.
fn faulty_store() -> (Arc<FaultyStore>, Store) {
    let faulty = FaultyStore::new(Arc::new(InMemory::new()));
    let store = Store::wrap(Arc::clone(&faulty) as _, "memory:///".parse().unwrap(), "lake".into());
    (faulty, store)
}

/// Writes the events `range` to a new file.
async fn write(table: &Table, range: std::ops::Range<usize>) -> Vec<DataFile> {
    table.write(batch(table.contract(), &events(range))).await.unwrap()
}

fn live(table: &Table) -> Vec<Arc<DataFile>> {
    table.snapshot().files().cloned().collect()
}

/// Replaces all live files, which contain the events `range`, by one file.
async fn rewrite(table: &Table, range: std::ops::Range<usize>) -> Replaced {
    table.refresh().await.unwrap();
    table.replace(&live(table), write(table, range).await).await.unwrap()
}

/// Writes the events `range`, and returns a draft of their commit.
async fn draft_of(table: &Table, range: std::ops::Range<usize>) -> Draft {
    draft(table, range, Vec::new()).await
}

async fn exists(table: &Table, file: &DataFile) -> bool {
    table.location().0.objects.head(&table.file_path(file)).await.is_ok()
}

/// Returns the actions of a log entry.
async fn entry(table: &Table, version: u64) -> Vec<Value> {
    let (store, folder) = table.location();
    let path = format!("{folder}/_delta_log/{version:020}.json").into();
    let bytes = store.objects.get(&path).await.unwrap().bytes().await.unwrap();
    serde_json::Deserializer::from_slice(&bytes).into_iter().collect::<Result<_, _>>().unwrap()
}

#[tokio::test]
async fn a_rewrite_keeps_the_rows_and_is_complete_in_the_log() {
    for (store, _folder) in stores() {
        let (table, other) = (open(&store).await, open(&store).await);
        append(&table, 0..10).await;
        table.commit(write(&table, 10..15).await, progress("source", None, 7)).await.unwrap();
        let from = live(&table);
        assert_eq!(rewrite(&table, 0..15).await, Replaced::At(3));
        let snapshot = table.snapshot();
        assert_eq!((snapshot.len(), snapshot.rows(), snapshot.txns["source"]), (1, 15, 7));
        assert_eq!(live(&table)[0].modified, from.iter().map(|file| file.modified).max().unwrap());
        assert_eq!(other.refresh().await.unwrap(), snapshot, "following and committing give the same snapshot");
        assert_eq!(open(&store).await.snapshot(), snapshot);
        assert_eq!(ids(&table).await, expected(0..15));
        assert_eq!(delta_version_and_rows(&table).await, (3, 15));
        assert!(exists(&table, &from[0]).await, "running queries still read the removed files");

        let actions = entry(&table, 3).await;
        let info = &actions[0]["commitInfo"];
        assert_eq!((&info["operation"], &info["isBlindAppend"]), (&json!("OPTIMIZE"), &json!(false)));
        let removes: Vec<&Value> = actions.iter().filter_map(|action| action.get("remove")).collect();
        assert_eq!(removes.len(), 2);
        for (remove, file) in removes.into_iter().zip(&from) {
            let expected = json!({
                "path": *file.path, "deletionTimestamp": remove["deletionTimestamp"], "dataChange": false,
                "extendedFileMetadata": true, "partitionValues": { "event_date": "2026-03-01" }, "size": file.size,
            });
            assert_eq!(remove, &expected);
            assert!(remove["deletionTimestamp"].as_i64().unwrap() >= file.modified);
        }
        let adds: Vec<&Value> = actions.iter().filter_map(|action| action.get("add")).collect();
        assert_eq!((adds.len(), &adds[0]["dataChange"]), (1, &json!(false)));
        assert!(actions.iter().all(|action| action.get("txn").is_none()));
        assert_eq!(entry(&table, 2).await[0]["commitInfo"]["isBlindAppend"], true);

        // Loading from a checkpoint gives the same snapshot.
        for number in 15..25 {
            append(&table, number..number + 1).await;
        }
        assert!(table.maintain().await.unwrap().is_some());
        assert_eq!(open(&store).await.snapshot(), table.snapshot());
    }
}

#[tokio::test]
async fn of_two_rewrites_of_a_file_one_is_void() {
    let (store, _) = stores().remove(0);
    let (one, other) = (open(&store).await, open(&store).await);
    for first in [0, 10, 20] {
        append(&one, first..first + 10).await;
    }
    let files = live(&one);
    other.refresh().await.unwrap();
    let (first, second) = (write(&one, 0..20).await, write(&other, 10..30).await);
    assert_eq!(one.replace(&files[..2], first).await.unwrap(), Replaced::At(4));
    assert_eq!(other.replace(&files[1..], second.clone()).await.unwrap(), Replaced::Void);
    assert!(!exists(&other, &second[0]).await, "the new file is deleted");
    assert_eq!(ids(&other).await, expected(0..30));
    // A rewrite of other files is only delayed.
    append(&one, 30..40).await;
    let third = write(&other, 20..30).await;
    assert_eq!(other.replace(&files[2..], third).await.unwrap(), Replaced::At(6));
    one.refresh().await.unwrap();
    assert_eq!(ids(&one).await, expected(0..40));

    let fewer = write(&one, 20..29).await;
    assert_eq!(one.replace(&live(&one)[..1], fewer).await.unwrap_err().kind(), Kind::Internal);
    let twice = [0, 0].map(|file| Arc::clone(&live(&one)[file]));
    let rows = write(&one, 0..20).await;
    assert_eq!(one.replace(&twice, [rows.clone(), rows].concat()).await.unwrap_err().kind(), Kind::Internal);
    assert_eq!(one.replace(&[], Vec::new()).await.unwrap_err().kind(), Kind::Internal);
    let named = Arc::new(DataFile { path: "event_date=2026-03-01/a b.parquet".into(), ..DataFile::clone(&files[0]) });
    let error = one.replace(&[named], write(&one, 0..10).await).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Unsupported, "{error}");
    assert_eq!(ids(&one).await, expected(0..40));
}

#[tokio::test]
async fn an_in_doubt_rewrite_is_decided_by_the_log() {
    use StoreFault::{Late, Lost, ResponseLost, Retried};
    let cases: &[&[StoreFault]] =
        &[&[ResponseLost], &[Retried], &[Late], &[Lost, Lost], &[Lost, Late], &[Lost, Lost, Lost], &[Lost, Lost, Late]];
    for faults in cases {
        let (faulty, store) = faulty_store();
        let (table, other) = (open(&store).await, open(&store).await);
        append(&table, 0..10).await;
        append(&table, 10..20).await;
        let (from, to) = (live(&table), write(&table, 0..20).await);
        faulty.plan(faults);
        let outcome = table.replace(&from, to.clone()).await;
        match &outcome {
            Ok(outcome) => assert_eq!(*outcome, Replaced::At(3), "{faults:?}"),
            Err(error) => assert_eq!(error.kind(), Kind::Unavailable, "{faults:?}: {error}"),
        }
        assert_eq!(outcome.is_err(), faults.len() == 3, "{faults:?}");
        assert!(exists(&table, &to[0]).await, "{faults:?}: the new file may be live");
        // A late put arrives with this append, which then follows the rewrite.
        append(&other, 20..30).await;
        table.refresh().await.unwrap();
        for table in [&table, &other, &open(&store).await] {
            assert_eq!(ids(table).await, expected(0..30), "{faults:?}");
        }
    }
}

#[tokio::test]
async fn only_rows_that_are_added_make_an_append_fall_behind() {
    /// The add or remove action of a file, as another writer may write it.
    fn action(kind: &str, file: &DataFile, data_change: bool) -> Value {
        let stats = json!({ "numRecords": file.rows }).to_string();
        let mut action = json!({
            "path": *file.path, "partitionValues": { "event_date": "2026-03-01" }, "size": file.size,
            "modificationTime": file.modified, "dataChange": data_change,
        });
        if kind == "add" {
            action["stats"] = stats.into();
        }
        json!({ kind: action })
    }
    // The number of removed files (each with ten rows), the rows that are added, and what the actions and the entry claim.
    let cases = [
        ("a rewrite", 2, 20, false, Committed::At(5)),
        ("an update", 2, 20, true, Committed::Behind),
        ("a removal", 1, 0, true, Committed::At(5)),
        ("DELETE", 2, 0, true, Committed::At(5)),
        ("DELETE", 2, 19, true, Committed::At(5)),
        ("DELETE", 2, 20, true, Committed::Behind),
        ("DELETE", 0, 10, true, Committed::Behind),
        ("DELETE", 3, 5, true, Committed::Behind),
        ("MERGE", 2, 19, true, Committed::Behind),
        ("fewer rows", 2, 19, false, Committed::Behind),
        ("more rows", 1, 11, false, Committed::Behind),
        ("new rows", 0, 10, false, Committed::Behind),
        ("a file that is not live", 3, 30, false, Committed::Behind),
    ];
    for (case, removed, rows, data_change, outcome) in cases {
        for is_one_at_a_time in [false, true] {
            let (store, _) = stores().remove(0);
            let (table, writer) = (open(&store).await, open(&store).await);
            for first in [0, 10] {
                append(&table, first..first + 10).await;
            }
            let mut files = live(&table);
            files.push(Arc::new(DataFile { path: "event_date=2026-03-01/gone.parquet".into(), ..(*files[0]).clone() }));
            let mut lines: Vec<Value> =
                files[..removed].iter().map(|file| action("remove", file, data_change)).collect();
            if rows > 0 {
                let added = write(&writer, 100..100 + rows).await.remove(0);
                lines.push(action("add", &added, data_change));
            }
            lines.push(json!({ "commitInfo": { "operation": case } }));
            let text: Vec<String> = lines.iter().map(Value::to_string).collect();
            let path = format!("{}/_delta_log/{:020}.json", table.location().1, 3).into();
            store.objects.put(&path, text.join("\n").into()).await.unwrap();
            if is_one_at_a_time {
                table.refresh().await.unwrap();
            }
            let empty = format!("{}/_delta_log/{:020}.json", table.location().1, 4).into();
            store.objects.put(&empty, "{\"commitInfo\":{}}".into()).await.unwrap();
            let mut draft = draft_of(&table, 20..30).await;
            assert_eq!(table.commit_after(2, &mut draft).await.unwrap(), outcome, "{case}");
            let loaded = open(&store).await;
            let outcome = loaded.commit_after(2, &mut draft_of(&loaded, 30..40).await).await.unwrap();
            assert_eq!(outcome, Committed::Behind, "{case}: rows were added, by the entry or by the append");
        }
    }
}

#[tokio::test]
async fn a_deletion_removes_the_stated_number_of_rows() {
    for (store, _folder) in stores() {
        let (table, other) = (open(&store).await, open(&store).await);
        for first in [0, 10, 20] {
            append(&table, first..first + 10).await;
        }
        other.refresh().await.unwrap();
        let mut draft = draft_of(&other, 30..40).await;
        let from = live(&table);
        // Ten rows of two files stay.
        let rest = write(&table, 5..15).await;
        assert_eq!(table.delete_rows(&from[..2], rest, 10, "x < 5 OR x >= 15").await.unwrap(), Replaced::At(4));
        assert_eq!(table.delete_rows(&from[2..], Vec::new(), 10, "x >= 20").await.unwrap(), Replaced::At(5));
        assert_eq!(ids(&table).await, expected(5..15));
        assert_eq!(other.commit_after(3, &mut draft).await.unwrap(), Committed::At(6), "no rows were added");
        let snapshot = table.refresh().await.unwrap();
        assert_eq!(other.snapshot(), snapshot, "following and committing give the same snapshot");
        assert_eq!(open(&store).await.snapshot(), snapshot);
        assert_eq!(delta_version_and_rows(&table).await, (6, 20));
        let (_, changes) = table.changes_since(3);
        let kinds = |change: &Arc<crate::lake::FileChange>| (change.is_deletion, change.adds_rows());
        assert_eq!(
            changes.unwrap().iter().map(kinds).collect::<Vec<_>>(),
            [(true, false), (true, false), (false, true)]
        );
        let actions = entry(&table, 4).await;
        let info = &actions[0]["commitInfo"];
        assert_eq!((&info["operation"], &info["isBlindAppend"]), (&json!("DELETE"), &json!(false)));
        assert_eq!(info["operationParameters"]["predicate"], r#"["x < 5 OR x >= 15"]"#);
        assert!(actions[1..].iter().all(|action| {
            let file = action.get("add").or_else(|| action.get("remove")).unwrap();
            file["dataChange"] == true
        }));
        // The files are gone, and the numbers of rows must agree.
        assert_eq!(other.delete_rows(&from[..1], Vec::new(), 10, "x").await.unwrap(), Replaced::Void);
        let live = live(&table);
        for count in [0, 9, u64::MAX] {
            let error = table.delete_rows(&live[..1], Vec::new(), count, "x").await.unwrap_err();
            assert_eq!(error.kind(), Kind::Internal);
        }
        assert_eq!(ids(&table).await, [expected(5..15), expected(30..40)].concat());
    }
}

#[tokio::test]
async fn an_in_doubt_deletion_is_decided_by_the_log() {
    use StoreFault::{Late, Lost, ResponseLost};
    let cases: &[&[StoreFault]] = &[&[ResponseLost], &[Late], &[Lost, Lost], &[Lost, Lost, Lost], &[Lost, Lost, Late]];
    for faults in cases {
        let (faulty, store) = faulty_store();
        let (table, other) = (open(&store).await, open(&store).await);
        append(&table, 0..10).await;
        append(&table, 10..20).await;
        let from = live(&table)[..1].to_vec();
        let kept = live(&table)[1].rows;
        faulty.plan(faults);
        let outcome = table.delete_rows(&from, Vec::new(), from[0].rows, "x").await;
        match &outcome {
            Ok(outcome) => assert_eq!(*outcome, Replaced::At(3), "{faults:?}"),
            Err(error) => assert_eq!(error.kind(), Kind::Unavailable, "{faults:?}: {error}"),
        }
        append(&other, 20..30).await;
        let is_deleted = !table.refresh().await.unwrap().contains(&from[0]);
        assert_eq!(is_deleted, **faults != [Lost, Lost, Lost], "{faults:?}");
        let rows = kept + 10 + if is_deleted { 0 } else { 10 };
        for table in [&table, &other, &open(&store).await] {
            assert_eq!(table.refresh().await.unwrap().rows(), rows, "{faults:?}");
        }
    }
}

#[tokio::test]
async fn a_commit_in_doubt_is_decided_by_the_log_even_if_its_files_were_rewritten() {
    use StoreFault::{Late, Lost};
    for is_known in [false, true] {
        let (faulty, store) = faulty_store();
        let (table, other) = (open(&store).await, open(&store).await);
        append(&table, 0..10).await;
        other.refresh().await.unwrap();
        let mut draft = draft(&table, 10..20, progress("source", None, 9)).await;
        faulty.plan(&[Lost, Lost, Late]);
        assert_eq!(table.commit_after(1, &mut draft).await.unwrap_err().kind(), Kind::Unavailable);
        assert!(draft.may_be_committed());
        // The late put arrives before this append, so the draft is version 2. Its file is then rewritten.
        append(&other, 20..30).await;
        assert_eq!(rewrite(&other, 0..30).await, Replaced::At(4));
        if is_known {
            table.refresh().await.unwrap();
        }
        assert_eq!(table.commit_after(1, &mut draft).await.unwrap(), Committed::At(2));
        table.discard(draft).await;
        table.refresh().await.unwrap();
        assert_eq!(ids(&table).await, expected(0..30));
        assert_eq!(table.snapshot().txns["source"], 9);
    }
    // The version is taken by another writer, so the draft can no longer be committed there.
    let (faulty, store) = faulty_store();
    let (table, other) = (open(&store).await, open(&store).await);
    let mut draft = draft_of(&table, 0..10).await;
    faulty.plan(&[Lost, Lost, Lost]);
    assert_eq!(table.commit_after(0, &mut draft).await.unwrap_err().kind(), Kind::Unavailable);
    append(&other, 20..30).await;
    table.refresh().await.unwrap();
    assert_eq!(table.commit_after(0, &mut draft).await.unwrap(), Committed::Behind);
    let file = Arc::clone(&draft.files()[0]);
    table.discard(draft).await;
    assert!(!exists(&table, &file).await);
}

#[tokio::test]
async fn a_commit_whose_entry_was_cleaned_up_is_unknown_and_keeps_its_files() {
    use StoreFault::{Late, Lost};
    for (is_rewritten, outcome) in [(true, Committed::Unknown), (false, Committed::At(25))] {
        let (faulty, store) = faulty_store();
        let clock = Clock::fixed(Clock::System.now() + 2 * DAY);
        let store = store.with_clock(clock.clone());
        let (writer, stalled) = (open(&store).await, open(&store).await);
        let mut draft = draft_of(&stalled, 0..10).await;
        faulty.plan(&[Lost, Lost, Late]);
        assert_eq!(stalled.commit_after(0, &mut draft).await.unwrap_err().kind(), Kind::Unavailable);
        append(&writer, 10..20).await;
        let mut next = 20;
        if is_rewritten {
            assert_eq!(rewrite(&writer, 0..20).await, Replaced::At(3));
        } else {
            append(&writer, 20..30).await;
            next = 30;
        }
        while writer.snapshot().version < 25 {
            append(&writer, next..next + 10).await;
            next += 10;
            if writer.snapshot().version % 12 == 0 {
                writer.maintain().await.unwrap();
            }
        }
        let listing = super::delta_log::Log::of(&store, writer.location().1).list(0).await.unwrap();
        assert_eq!(listing.entries.first(), Some(&12), "the first entries were removed");
        clock.set(clock.now() + 60 * SECOND);
        assert_eq!(stalled.commit_after(0, &mut draft).await.unwrap(), outcome);
        let file = Arc::clone(&draft.files()[0]);
        stalled.discard(draft).await;
        assert!(exists(&stalled, &file).await, "the file may be needed");
        assert_eq!(ids(&stalled).await, expected(0..next));
    }
}
