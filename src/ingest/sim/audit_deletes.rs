//! Audits the deletes of a schedule, and what is left in the bucket after the last vacuum:
//!
//! - No file that is live in the newest version is missing.
//! - A file that was live once was deleted only after an entry had removed it, at least the retention after the time of
//!   the removal, and at least the commit deadline after this entry was stored. Every version could therefore be read
//!   until the retention had passed.
//! - No other data file is left.

use std::collections::{BTreeMap, BTreeSet};

use object_store::memory::InMemory;
use object_store::path::Path;
use serde_json::Value;

use super::audit::{names, read};
use super::store_scheduler::StoreScheduler;
use super::vacuum_actor::VACUUM;
use crate::clock::Micros;
use crate::ingest::testing::{QUARANTINE, TABLE};
use crate::lake::COMMIT_DEADLINE;

/// A file that an entry has added.
#[derive(Debug, Default)]
struct NamedFile {
    /// The time of the removal according to the entry, and the time at which the entry was stored.
    removed: Option<(Micros, Micros)>,
}

/// Checks the deletes of a schedule. Fails with the first violation.
pub(super) fn audit_deletes(bucket: &StoreScheduler) -> Result<(), String> {
    let (archive, deleted) = (bucket.archive(), bucket.deleted());
    for table in [TABLE, QUARANTINE] {
        let files = named_files(bucket, &archive, table);
        let left: BTreeSet<String> =
            names(&bucket.objects, table).into_iter().filter(|name| name.contains("/event_date=")).collect();
        for (path, file) in &files {
            match (&file.removed, deleted.get(path)) {
                (None, Some(_)) => return Err(format!("{path} is live, but was deleted")),
                (None, None) if !left.contains(path) => return Err(format!("{path} is live, but missing")),
                (Some((removed, stored)), Some(object)) => {
                    let retention = i64::try_from(VACUUM.removed_retention.as_micros()).unwrap();
                    if object.deleted < removed + retention || object.deleted < stored + COMMIT_DEADLINE {
                        return Err(format!("{path} was deleted too early: {removed}, {stored}, {}", object.deleted));
                    }
                }
                _ => {}
            }
        }
        let is_live = |path: &&String| files.get(*path).is_some_and(|file| file.removed.is_none());
        if let Some(path) = left.iter().find(|path| !is_live(path)) {
            return Err(format!("{path} is left, but is not live: {:?}", files.get(path)));
        }
    }
    Ok(())
}

/// Returns all files that log entries have added, by path in the store.
fn named_files(bucket: &StoreScheduler, archive: &InMemory, table: &str) -> BTreeMap<String, NamedFile> {
    let mut files: BTreeMap<String, NamedFile> = BTreeMap::new();
    let deleted = bucket.deleted();
    for name in names(archive, &format!("{table}/_delta_log")).iter().filter(|name| name.ends_with(".json")) {
        let stored = match deleted.get(name) {
            Some(object) => object.modified,
            None => bucket.modified(&Path::from(name.as_str())).unwrap(),
        };
        for line in std::str::from_utf8(&read(archive, name)).unwrap().lines() {
            let action: Value = serde_json::from_str(line).unwrap();
            if let Some(path) = action["add"]["path"].as_str() {
                files.entry(format!("{table}/{path}")).or_default();
            }
            if let Some(path) = action["remove"]["path"].as_str() {
                let time = action["remove"]["deletionTimestamp"].as_i64().unwrap() * 1_000;
                files.entry(format!("{table}/{path}")).or_default().removed = Some((time, stored));
            }
        }
    }
    files
}
