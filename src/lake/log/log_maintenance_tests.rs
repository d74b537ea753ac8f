//! Tests of checkpoints that are compared, withdrawn and thinned out.

use std::collections::BTreeMap;
use std::sync::Arc;

use chrono::DateTime;
use object_store::ObjectMeta;

use crate::clock::{Clock, SECOND};
use crate::error::Kind;
use crate::lake::log::log_maintenance::{LogCleaned, thin};
use crate::lake::tests::{append, open, progress, stores};
use crate::lake::{Snapshot, Table};

/// Makes ten commits, and writes a checkpoint of the last one.
async fn checkpoint(table: &Table) -> u64 {
    for _ in 0..9 {
        let first = usize::try_from(table.snapshot().version).unwrap() * 10;
        append(table, first..first + 10).await;
        assert_eq!(table.checkpoint_if_due().await.unwrap(), None);
    }
    let version = i64::try_from(table.snapshot().version).unwrap();
    table.commit(Vec::new(), progress(&format!("source {version}"), None, 1)).await.unwrap();
    table.checkpoint_if_due().await.unwrap().unwrap()
}

#[tokio::test]
async fn a_checkpoint_that_differs_is_withdrawn() {
    let (store, _folder) = stores().remove(0);
    let table = open(&store).await;
    let before = table.snapshot();
    assert_eq!(checkpoint(&table).await, 10);
    let snapshot = table.snapshot();
    assert_eq!(table.compare_checkpoint(&snapshot).await.unwrap(), 0);
    let with_txn = |app: &str| Snapshot {
        txns: Arc::new(
            snapshot.txns.iter().map(|(app, version)| (app.clone(), *version)).chain([(app.to_owned(), 7)]).collect(),
        ),
        ..Snapshot::clone(&snapshot)
    };
    let without_files = Snapshot { live: before.live.clone(), ..Snapshot::clone(&snapshot) };
    for other in [with_txn("another"), with_txn("source 9"), without_files] {
        let error = table.compare_checkpoint(&other).await.unwrap_err();
        assert_eq!(error.kind(), Kind::Internal, "{error}");
    }
    table.withdraw_checkpoint(10).await.unwrap();
    assert_eq!(table.log.hint().await.unwrap(), None);
    assert!(table.log.list(0).await.unwrap().checkpoints.is_empty());
    assert_eq!(open(&store).await.snapshot(), snapshot, "the entries are still there");
}

#[tokio::test]
async fn old_checkpoints_are_thinned_out_and_entries_stay() {
    let (store, _folder) = stores().remove(0);
    let clock = Clock::fixed(Clock::System.now());
    let table = open(&store.with_clock(clock.clone())).await;
    for version in [10, 20, 30] {
        assert_eq!(checkpoint(&table).await, version);
    }
    assert_eq!(table.clean_log().await.unwrap(), LogCleaned::default(), "all checkpoints are young");
    clock.set(clock.now() + 7_200 * SECOND);
    let cleaned = table.clean_log().await.unwrap();
    let listing = table.log.list(0).await.unwrap();
    assert_eq!(cleaned.entries, 0, "entries before the only checkpoint stay");
    assert_eq!((listing.entries.len(), listing.checkpoints.contains_key(&30)), (31, true));
    // The test may run at the end of an hour.
    assert_eq!(cleaned.checkpoints + listing.checkpoints.len() as u64, 3);
    assert!((1..=2).contains(&cleaned.checkpoints));
}

#[test]
fn the_newest_checkpoint_of_each_hour_stays() {
    let minute = |minute: i64| ObjectMeta {
        location: minute.to_string().into(),
        last_modified: DateTime::from_timestamp(minute * 60, 0).unwrap(),
        size: 1,
        e_tag: None,
        version: None,
    };
    // The time is 04:10, and the numbers are the minutes at which checkpoints were written.
    for (minutes, kept) in [
        (&[1_i64, 2, 59, 60, 61][..], &[59, 61][..]),
        (&[130, 175, 185, 188, 189], &[175, 189]),
        (&[185, 191, 192], &[191, 192]),
        (&[185, 245, 246], &[185, 245, 246]),
        (&[], &[]),
    ] {
        let mut checkpoints: BTreeMap<u64, Vec<ObjectMeta>> =
            minutes.iter().map(|at| (at.unsigned_abs(), vec![minute(*at)])).collect();
        let removed = thin(&mut checkpoints, 250 * 60_000);
        assert_eq!(removed.len() + kept.len(), minutes.len());
        assert_eq!(checkpoints.keys().map(|at| at.cast_signed()).collect::<Vec<_>>(), kept);
    }
}
