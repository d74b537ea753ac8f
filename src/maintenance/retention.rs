//! Removes expired rows from a table. `contract/schema/retention.rs` defines which rows are expired.
//!
//! ```text
//!   Snapshot, time ─┬─► files with only expired rows ─► log entries that remove them (lake)
//!                   └─► files that also have other rows ─► count ─► plan ─► Unit ─► merge without them ─► commit
//! ```
//!
//! Files with other rows exist only if a tenant has a retention of its own. Each merge of such a file drops the expired
//! rows. A file that is not merged is rewritten once the expired rows are 5 % of its rows, or after seven days.
//!
//! Queries hide expired rows as soon as they expire. This module removes them from the lake later, so it may run at any
//! time and on any number of servers. The removed files stay in the store, where running queries still read them.
//!
//! **Invariant:** a file is removed only if its day and its bounds show that all its rows are expired.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use chrono::DateTime;

use crate::clock::{DAY, Micros, SECOND};
use crate::contract::{Contract, ExpiryBounds};
use crate::error::Result;
use crate::lake::{DataFile, Replaced, Table};
use crate::maintenance::file_cuts::{FileCuts, GROUP_ROWS_MAX, LEVEL_3_GROUP_ROWS_MAX};
use crate::maintenance::file_name::{LEVEL_MAX, level};
use crate::maintenance::merge::Merged;
use crate::maintenance::policy::{Excluded, Unit};

/// The time after midnight at which expired files are removed. Batches that were decoded before midnight are committed
/// by then, so that an expired day rarely gets new files.
const REMOVAL_DELAY: Micros = 3_600 * SECOND;
/// The maximum number of files that one log entry removes.
const ENTRY_FILES_MAX: usize = 4_096;
/// The maximum number of times that the files are chosen anew, because another writer has removed one of them.
const ATTEMPTS_MAX: usize = 8;

/// The maximum length of a bound that no program truncates. Common limits are 32 characters and more.
const EXACT_BOUND_BYTES_MAX: usize = 31;

/// A file is rewritten if at least this share of its rows is expired, in percent.
const REWRITE_PERCENT: u64 = 5;
/// A file is rewritten if it has rows that expired this long ago, however few they are.
const REWRITE_AGE: Micros = 7 * DAY;

/// What [`remove_expired`] has removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Expired {
    /// The number of files.
    pub files: usize,
    /// The number of rows in these files.
    pub rows: u64,
    /// The size of these files in bytes.
    pub bytes: u64,
}

/// Removes the files of `table` in which all rows expired more than an hour before `now`. One log entry removes up to
/// 4,096 files. First reads the commits of other writers.
///
/// If other writers keep removing the same files, the rest is left to the next call. After an error, some files may have
/// been removed.
pub async fn remove_expired(table: &Table, now: Micros) -> Result<Expired> {
    let contract = table.contract();
    let expiry = contract.retention.bounds(now.saturating_sub(REMOVAL_DELAY));
    let mut removed = Expired::default();
    for _ in 0..ATTEMPTS_MAX {
        let snapshot = table.refresh().await?;
        let files = expired_files(snapshot.files(), &expiry);
        if files.is_empty() {
            break;
        }
        for files in files.chunks(ENTRY_FILES_MAX) {
            let rows: u64 = files.iter().map(|file| file.rows).sum();
            if let Replaced::At(version) =
                table.delete_rows(files, Vec::new(), rows, &predicate(contract, files, &expiry)).await?
            {
                let bytes: u64 = files.iter().map(|file| file.size).sum();
                tracing::info!(
                    table = contract.name,
                    version,
                    files = files.len(),
                    rows,
                    bytes,
                    "removed expired files"
                );
                removed.files += files.len();
                removed.rows += rows;
                removed.bytes += bytes;
            }
        }
    }
    Ok(removed)
}

/// Returns true if, according to its bounds, a file may have expired rows of a tenant with a retention of its own, beside
/// rows that are kept. [`tenant_rows`](super::expired_rows::tenant_rows) counts them.
pub fn may_be_partly_expired(file: &DataFile, expiry: &ExpiryBounds) -> bool {
    let includes = |tenant: &str| {
        let range = file.tenants.as_ref();
        range.is_none_or(|(least, greatest)| **least <= *tenant && *tenant <= **greatest)
    };
    let mut expired = expiry.tenants.iter().filter(|(_, before)| end_of(file.day) <= **before);
    let has_others = !expiry.includes_day(file.day) && only_tenant(file).is_none();
    has_others && file.has_plain_name() && expired.any(|(tenant, _)| includes(tenant))
}

/// Chooses the files to rewrite without their expired rows. Each unit has one file. `files` are live files, each with the
/// number of rows of each tenant that has a retention of its own.
pub fn plan(files: &[(Arc<DataFile>, BTreeMap<String, u64>)], expiry: &ExpiryBounds, excluded: &Excluded) -> Vec<Unit> {
    let is_due = |file: &DataFile, tenants: &BTreeMap<String, u64>| {
        let expired = tenants.iter().filter_map(|(tenant, rows)| {
            let age = expiry.tenants.get(tenant)? - end_of(file.day);
            (age >= 0 && *rows > 0).then_some((age, *rows))
        });
        let (oldest, rows) = expired.fold((0, 0), |(oldest, total), (age, rows)| (age.max(oldest), total + rows));
        rows * 100 >= file.rows.saturating_mul(REWRITE_PERCENT).max(1) || (rows > 0 && oldest >= REWRITE_AGE)
    };
    let is_free = |path: &Arc<str>| !excluded.busy.contains(path) && !excluded.left_alone.contains(path);
    let due = files
        .iter()
        .filter(|(file, tenants)| may_be_partly_expired(file, expiry) && is_free(&file.path) && is_due(file, tenants));
    let units = due.map(|(file, _)| {
        let level = level(&file.path);
        let rows_max = if level == LEVEL_MAX { LEVEL_3_GROUP_ROWS_MAX } else { GROUP_ROWS_MAX };
        let cuts = FileCuts { tenant_group_rows_max: rows_max, ..FileCuts::by_size(u64::MAX) };
        Unit { day: file.day, level, inputs: vec![Arc::clone(file)], cuts }
    });
    units.collect()
}

/// Commits a merge with the option `expiry`. The entry is a rewrite if the merge has dropped no rows, and a deletion
/// otherwise. Returns the same errors as [`Table::replace`].
pub async fn commit(table: &Table, merged: Merged, expiry: &ExpiryBounds) -> Result<Replaced> {
    let Merged { inputs, files, dropped, .. } = merged;
    if dropped == 0 {
        return table.replace(&inputs, files).await;
    }
    let includes = |tenant: &str| {
        let mut ranges = inputs.iter().map(|file| file.tenants.as_ref());
        ranges.any(|range| range.is_none_or(|(least, greatest)| **least <= *tenant && *tenant <= **greatest))
    };
    let tenants = expiry.tenants.iter().filter(|(tenant, _)| includes(tenant));
    let conditions = tenants.map(|(tenant, before)| expired_rows(table.contract(), Some(tenant), Some(*before)));
    let predicate = conditions.collect::<Vec<_>>().join(" OR ");
    table.delete_rows(&inputs, files, dropped, &predicate).await
}

/// Returns the end of a UTC day.
fn end_of(day: i32) -> Micros {
    (i64::from(day) + 1) * DAY
}

/// Returns the files in which all rows are expired. Omits files whose names cannot be written to the log safely.
fn expired_files<'a>(files: impl Iterator<Item = &'a Arc<DataFile>>, expiry: &ExpiryBounds) -> Vec<Arc<DataFile>> {
    let is_expired = |file: &&Arc<DataFile>| {
        let ends_before = |time: Micros| {
            let latest = file.times.map_or(i64::MIN, |(_, latest)| latest);
            end_of(file.day) <= time && latest < time
        };
        expiry.all.is_some_and(ends_before)
            || only_tenant(file).and_then(|tenant| expiry.of_tenant(tenant)).is_some_and(ends_before)
    };
    files.filter(is_expired).filter(|file| file.has_plain_name()).cloned().collect()
}

/// Returns the tenant of all rows of a file, if the bounds show that there is only one. Ignores long bounds: other
/// programs may have truncated both of them.
fn only_tenant(file: &DataFile) -> Option<&str> {
    let (least, greatest) = file.tenants.as_ref()?;
    (least == greatest && least.len() <= EXACT_BOUND_BYTES_MAX).then_some(&**least)
}

/// Returns an SQL condition that describes the rows of expired files.
fn predicate(contract: &Contract, files: &[Arc<DataFile>], expiry: &ExpiryBounds) -> String {
    let conditions: BTreeSet<String> = files
        .iter()
        .map(|file| match only_tenant(file).filter(|_| !expiry.includes_day(file.day)) {
            None => expired_rows(contract, None, expiry.all),
            Some(tenant) => expired_rows(contract, Some(tenant), expiry.of_tenant(tenant)),
        })
        .collect();
    Vec::from_iter(conditions).join(" OR ")
}

/// Returns an SQL condition for the rows of a tenant, or of all tenants, before a time.
fn expired_rows(contract: &Contract, tenant: Option<&str>, before: Option<Micros>) -> String {
    let name = |column: usize| format!("\"{}\"", contract.columns[column].name);
    let before = before.and_then(DateTime::from_timestamp_micros).unwrap_or_default();
    let is_old = format!("{} < TIMESTAMP '{}'", name(contract.time), before.format("%Y-%m-%d %H:%M:%SZ"));
    match tenant {
        Some(tenant) => format!("({} = '{}' AND {is_old})", name(contract.tenant), tenant.replace('\'', "''")),
        None => format!("({is_old})"),
    }
}
