//! Audits the contents of a lake after a schedule, and reports the first violation.
//!
//! The audit does not use the readers under test. It parses the files of the log itself, and uses only the `parquet`
//! crate to read Parquet files. The audit checks the following:
//!
//! - The log has no gap, and its checkpoints match its entries.
//! - No file is missing or added twice, so every version can be read. The size of each file and its number of rows
//!   match the log.
//! - Only rewrites and the retention remove files. The files that a rewrite removes are live, and those that it adds
//!   contain the same rows. The retention removes only files of an expired day.
//! - The table contains every valid event once, and no other event. The quarantine contains every invalid event once.
//!   Only expired events may be missing, and only they may be in the quarantine as well.
//! - The offset of each partition is equal to the number of its messages, and has never moved backward.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{Array as _, AsArray as _, RecordBatch};
use arrow::datatypes::Int64Type;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::{FutureExt as _, StreamExt as _};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore as _, ObjectStoreExt as _};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use serde_json::Value;

use super::workload::Expected;
use crate::ingest::testing::{QUARANTINE, TABLE};

/// The contents of a table, as its log describes them.
#[derive(Debug, Default)]
struct ReplayedLog {
    /// The number of rows in each file.
    files: BTreeMap<String, u64>,
    /// Maps the `appId` of each application transaction to its version.
    txns: BTreeMap<String, i64>,
}

/// Checks the contents of a lake after a schedule. Fails with the first violation.
/// `has_expired` says whether the events of the first day have expired.
pub(super) fn audit(objects: &InMemory, expected: &Expected, has_expired: bool) -> Result<(), String> {
    let table = replay(objects, TABLE, has_expired)?;
    let events: Vec<(String, String)> = rows(objects, TABLE, &table, ["tenant_id", "event_id"])?;
    let (old, kept): (Vec<_>, Vec<_>) =
        events.into_iter().partition(|event| has_expired && expected.old.contains(event));
    same(
        "events",
        kept,
        expected.events.iter().filter(|event| !has_expired || !expected.old.contains(event)).cloned(),
    )?;
    let old_once: BTreeSet<_> = old.iter().cloned().collect();
    same("expired events", old, old_once.into_iter())?;
    let ends = expected.ends.iter().enumerate();
    let ends: BTreeMap<String, i64> = ends.map(|(number, end)| (format!("kafka:voice:calls:{number}"), *end)).collect();
    if table.txns != ends {
        return Err(format!("the offsets are {:?}, but the messages end at {ends:?}", table.txns));
    }
    let quarantine = replay(objects, QUARANTINE, false)?;
    let bad = rows(objects, QUARANTINE, &quarantine, ["payload", "reason"])?;
    let (too_old, bad): (Vec<_>, Vec<_>) = bad.into_iter().partition(|(_, reason)| reason == "too_old");
    let is_old = |payload: &str| expected.old.iter().any(|(_, id)| payload.contains(&format!("\"{id}\"")));
    if let Some((payload, _)) = too_old.iter().find(|(payload, _)| !has_expired || !is_old(payload)) {
        return Err(format!("{payload} was rejected, but it has not expired"));
    }
    let name = |(payload, _): (String, String)| payload.split('"').nth(3).unwrap_or_default().to_owned();
    same("bad events", bad.into_iter().map(name).collect(), expected.bad.iter().cloned())
}

/// Checks that `found` contains each expected item once, and no other items.
fn same<T: Ord + std::fmt::Debug>(what: &str, found: Vec<T>, expected: impl Iterator<Item = T>) -> Result<(), String> {
    let expected: BTreeSet<T> = expected.collect();
    let (mut once, mut twice) = (BTreeSet::new(), Vec::new());
    for one in found {
        if let Some(again) = once.replace(one) {
            twice.push(again);
        }
    }
    let (missing, more): (Vec<_>, Vec<_>) =
        (expected.difference(&once).collect(), once.difference(&expected).collect());
    match twice.is_empty() && missing.is_empty() && more.is_empty() {
        true => Ok(()),
        false => Err(format!("{what}: stored twice {twice:?}, missing {missing:?}, never sent {more:?}")),
    }
}

/// Replays the log from its first entry to its last, and compares each checkpoint with the entries up to its version.
/// `has_expired` says whether files of the first day may be removed.
fn replay(objects: &InMemory, table: &str, has_expired: bool) -> Result<ReplayedLog, String> {
    let names = names(objects, &format!("{table}/_delta_log"));
    let mut replayed = ReplayedLog::default();
    let mut added = BTreeSet::new();
    let entries: Vec<&String> = names.iter().filter(|name| name.ends_with(".json")).collect();
    for (version, name) in entries.iter().enumerate() {
        if **name != format!("{table}/_delta_log/{version:020}.json") {
            return Err(format!("expected entry {version}, found `{name}`"));
        }
        let text = read(objects, name);
        let actions: Vec<Value> = std::str::from_utf8(&text)
            .unwrap()
            .lines()
            .map(serde_json::from_str)
            .collect::<Result<_, _>>()
            .map_err(|error| format!("{name}: {error}"))?;
        apply(objects, table, &actions, &mut replayed, &mut added, has_expired)
            .map_err(|error| format!("{name}: {error}"))?;
        let checkpoint = format!("{table}/_delta_log/{version:020}.checkpoint.parquet");
        if names.contains(&checkpoint) {
            compare(objects, &checkpoint, &replayed)?;
        }
    }
    Ok(replayed)
}

/// Applies the actions of one log entry.
fn apply(
    objects: &InMemory,
    table: &str,
    actions: &[Value],
    replayed: &mut ReplayedLog,
    added: &mut BTreeSet<String>,
    has_expired: bool,
) -> Result<(), String> {
    let is_deletion = actions.iter().any(|action| action["commitInfo"]["operation"] == "DELETE");
    let removes: Vec<&Value> = actions.iter().filter_map(|action| action.get("remove")).collect();
    for remove in &removes {
        let path = remove["path"].as_str().unwrap_or_default();
        if replayed.files.remove(path).is_none() {
            return Err(format!("{path} is removed, but it is not live"));
        }
        let is_complete = remove["dataChange"] == is_deletion
            && remove["deletionTimestamp"].as_i64().is_some_and(|time| time > 0)
            && remove["size"].as_u64() == Some(read(objects, &format!("{table}/{path}")).len() as u64)
            && path.starts_with(&format!("event_date={}/", remove["partitionValues"]["event_date"].as_str().unwrap()));
        if !is_complete {
            return Err(format!("the remove action is not complete: {remove}"));
        }
        if is_deletion && !(has_expired && path.starts_with("event_date=2026-03-01/")) {
            return Err(format!("{path} has not expired"));
        }
    }
    let adds: Vec<&Value> = actions.iter().filter_map(|action| action.get("add")).collect();
    for add in &adds {
        let path = add["path"].as_str().unwrap_or_default().to_owned();
        if !added.insert(path.clone()) {
            return Err(format!("{path} is added a second time"));
        }
        let size = names(objects, &format!("{table}/{path}")).len();
        let bytes = if size == 1 { read(objects, &format!("{table}/{path}")).len() } else { 0 };
        if add["size"].as_u64() != Some(bytes as u64) {
            return Err(format!("{path} has {bytes} bytes, not {}", add["size"]));
        }
        let stats: Value = serde_json::from_str(add["stats"].as_str().unwrap_or_default()).unwrap_or_default();
        replayed.files.insert(path, stats["numRecords"].as_u64().ok_or("a file without a row count")?);
    }
    for txn in actions.iter().filter_map(|action| action.get("txn")) {
        let (app, to) = (txn["appId"].as_str().unwrap_or_default(), txn["version"].as_i64().unwrap_or(-1));
        match replayed.txns.insert(app.to_owned(), to) {
            Some(from) if to <= from => return Err(format!("the offset of {app} moves backward from {from} to {to}")),
            _ => {}
        }
    }
    if removes.is_empty() {
        return Ok(());
    }
    let has_other =
        actions.iter().any(|action| ["txn", "metaData", "protocol"].iter().any(|key| action.get(key).is_some()));
    if is_deletion {
        return match has_other || !adds.is_empty() {
            true => Err("the deletion changes more than files".to_owned()),
            false => Ok(()),
        };
    }
    if has_other || adds.iter().any(|add| add["dataChange"] != false) {
        return Err("the rewrite changes more than files".to_owned());
    }
    let rows = |files: Vec<&Value>| -> Vec<String> {
        let paths = files.into_iter().map(|file| format!("{table}/{}", file["path"].as_str().unwrap()));
        let mut rows: Vec<String> = paths.flat_map(|path| whole_rows(read(objects, &path))).collect();
        rows.sort_unstable();
        rows
    };
    let (before, after) = (rows(removes), rows(adds));
    match before == after {
        true => Ok(()),
        false => Err(format!("the rewrite changes rows from {before:?} to {after:?}")),
    }
}

/// Returns all values of each row of a file, as text.
fn whole_rows(file: bytes::Bytes) -> Vec<String> {
    let options = FormatOptions::default().with_null("NULL");
    let mut rows = Vec::new();
    for batch in parquet(file) {
        let columns = batch.columns().iter().map(|column| ArrayFormatter::try_new(column, &options).unwrap());
        let columns: Vec<_> = columns.collect();
        let text = |row| columns.iter().map(|column| column.value(row).to_string()).collect::<Vec<_>>().join("|");
        rows.extend((0..batch.num_rows()).map(text));
    }
    rows
}

/// Checks that a checkpoint matches the log entries up to its version.
fn compare(objects: &InMemory, checkpoint: &str, replayed: &ReplayedLog) -> Result<(), String> {
    let mut found = ReplayedLog::default();
    for batch in parquet(read(objects, checkpoint)) {
        let group = |name: &str| batch.column_by_name(name).and_then(|column| column.as_struct_opt()).cloned();
        if let Some(adds) = group("add") {
            let paths = adds.column_by_name("path").unwrap().as_string::<i32>();
            let live = (0..adds.len()).filter(|row| adds.is_valid(*row) && paths.is_valid(*row));
            found
                .files
                .extend(live.map(|row| (paths.value(row).to_owned(), replayed_rows(replayed, paths.value(row)))));
        }
        if let Some(txns) = group("txn") {
            let apps = txns.column_by_name("appId").unwrap().as_string::<i32>();
            let versions = txns.column_by_name("version").unwrap().as_primitive::<Int64Type>();
            let there = (0..txns.len()).filter(|row| txns.is_valid(*row) && apps.is_valid(*row));
            found.txns.extend(there.map(|row| (apps.value(row).to_owned(), versions.value(row))));
        }
    }
    match found.files == replayed.files && found.txns == replayed.txns {
        true => Ok(()),
        false => Err(format!("{checkpoint} contains {found:?}, but the log entries contain {replayed:?}")),
    }
}

fn replayed_rows(replayed: &ReplayedLog, path: &str) -> u64 {
    replayed.files.get(path).copied().unwrap_or(u64::MAX)
}

/// Returns two columns of all rows in all live files, as text.
fn rows(
    objects: &InMemory,
    table: &str,
    replayed: &ReplayedLog,
    columns: [&str; 2],
) -> Result<Vec<(String, String)>, String> {
    let mut rows = Vec::new();
    for (path, count) in &replayed.files {
        let before = rows.len();
        for batch in parquet(read(objects, &format!("{table}/{path}"))) {
            let [first, second] = columns.map(|name| texts(&batch, name));
            rows.extend(first.into_iter().zip(second));
        }
        if (rows.len() - before) as u64 != *count {
            return Err(format!("{path} has {} rows, not {count}", rows.len() - before));
        }
    }
    Ok(rows)
}

fn texts(batch: &RecordBatch, name: &str) -> Vec<String> {
    let column = batch.column_by_name(name).unwrap();
    match column.as_binary_opt::<i32>() {
        Some(bytes) => bytes.iter().map(|bytes| String::from_utf8_lossy(bytes.unwrap()).into_owned()).collect(),
        None => column.as_string::<i32>().iter().map(|text| text.unwrap().to_owned()).collect(),
    }
}

fn parquet(bytes: bytes::Bytes) -> Vec<RecordBatch> {
    let reader = ParquetRecordBatchReaderBuilder::try_new(bytes).unwrap().build().unwrap();
    reader.map(Result::unwrap).collect()
}

/// Returns the names of all objects under a prefix, which may also be the full name of an object.
pub(super) fn names(objects: &InMemory, prefix: &str) -> BTreeSet<String> {
    let path = Path::from(prefix);
    let itself = objects.head(&path).now_or_never().unwrap().map(|object| object.location.to_string());
    let under = objects.list(Some(&path)).map(|object| object.unwrap().location.to_string()).collect::<Vec<_>>();
    under.now_or_never().unwrap().into_iter().chain(itself).collect()
}

/// Returns the content of an object.
pub(super) fn read(objects: &InMemory, path: &str) -> bytes::Bytes {
    let found = objects.get(&Path::from(path)).now_or_never().unwrap().unwrap();
    found.bytes().now_or_never().unwrap().unwrap()
}
