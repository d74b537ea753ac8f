//! Tests of vacuum on one table. The simulator in `ingest::sim` tests it next to writers that crash.
//!
//! The store's clock is the system clock, and the clock of the process starts two days earlier. Files that are removed
//! at the beginning are therefore two days old by the store's clock.

use std::sync::Arc;
use std::time::Duration;

use object_store::ObjectStoreExt as _;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::file_cuts::FileCuts;
use super::merge::merge;
use super::testing::{COLUMNS, contract, lake, options, random_rows, stored, unit};
use super::vacuum::{Vacuum, VacuumConfig, VacuumReport};
use crate::clock::{Clock, DAY, SECOND};
use crate::config::LakeConfig;
use crate::lake::{COMMIT_DEADLINE, DataFile, Pin, Replaced, Store, Table};

const ONE_DAY: Duration = Duration::from_secs(86_400);

async fn open() -> (Arc<Table>, Clock) {
    // Checkpoints list files that were removed within the table's own retention.
    let config = LakeConfig { checkpoint_interval: 1, removed_retention: 10 * ONE_DAY, ..lake(1_000) };
    let clock = Clock::fixed(Clock::System.now() - 2 * DAY);
    let store = Store::open(&config).unwrap().with_clock(clock.clone());
    (Table::open(&store, contract(&COLUMNS[..3]), &config).await.unwrap(), clock)
}

fn vacuum(table: &Arc<Table>, orphan_age_min: Duration) -> Vacuum {
    Vacuum::new(Arc::clone(table), VacuumConfig { removed_retention: ONE_DAY, orphan_age_min })
}

async fn write(table: &Table) -> Vec<DataFile> {
    table.write(random_rows(table.contract(), 10, 3, &mut StdRng::seed_from_u64(1))).await.unwrap()
}

async fn add(table: &Table) -> Arc<DataFile> {
    let files = write(table).await;
    let file = Arc::new(files[0].clone());
    table.commit(files, Vec::new()).await.unwrap();
    file
}

/// Adds two files and replaces them by one. Returns the paths of the removed files in the store. The replacement is
/// version 3 of an empty table.
async fn add_and_rewrite(table: &Arc<Table>) -> Vec<String> {
    let files = vec![add(table).await, add(table).await];
    let merged = merge(table, &unit(files.clone(), FileCuts::by_size(u64::MAX)), &options()).await.unwrap();
    assert!(matches!(table.replace(&files, merged.files).await.unwrap(), Replaced::At(_)));
    files.iter().map(|file| table.file_path(file).to_string()).collect()
}

fn counts(report: &VacuumReport) -> [u64; 3] {
    [report.deleted_files, report.deleted_orphans, report.kept_files]
}

#[tokio::test]
async fn removed_files_are_deleted_once_they_are_old_and_known() {
    for has_checkpoint in [false, true] {
        let (table, clock) = open().await;
        let removed = add_and_rewrite(&table).await;
        if has_checkpoint {
            assert_eq!(table.checkpoint_if_due().await.unwrap(), Some(3));
        }
        add(&table).await;
        let objects = &table.location().0.objects;
        for name in ["notes.txt", "event_date=2026-03-01/export.csv", "_delta_log/part-1.parquet"] {
            let path = format!("{}/{name}", table.location().1).into();
            objects.put(&path, "foreign".into()).await.unwrap();
        }
        let before = stored(&table).await;
        let config = VacuumConfig { removed_retention: Duration::ZERO, orphan_age_min: ONE_DAY };
        let report = Vacuum::new(Arc::clone(&table), config).dry_run().await.unwrap();
        assert_eq!((report.deleted_files, report.foreign_files), (2, Some(2)), "a dry run does not wait");
        assert_eq!(stored(&table).await, before, "a dry run changes nothing");
        let mut vacuum = vacuum(&table, ONE_DAY);
        let report = vacuum.run().await.unwrap();
        assert_eq!((counts(&report), report.foreign_files), ([0, 0, 2], Some(2)));
        clock.set(clock.now() + COMMIT_DEADLINE - SECOND);
        assert_eq!(counts(&vacuum.run().await.unwrap()), [0, 0, 2]);
        clock.set(clock.now() + SECOND);
        let report = vacuum.run().await.unwrap();
        assert_eq!(counts(&report), [2, 0, 0]);
        assert!(report.deleted_bytes > 0);
        let after = stored(&table).await;
        assert!(removed.iter().all(|name| !after.contains(name)));
        let is_kept = |name: &&String| !removed.contains(name);
        assert!(before.iter().filter(is_kept).all(|name| after.contains(name)), "all other objects are kept");
        assert_eq!(counts(&vacuum.run().await.unwrap()), [0, 0, 0], "files are deleted once");

        // By the store's clock, these files are removed now.
        clock.set(Clock::System.now());
        add_and_rewrite(&table).await;
        vacuum.run().await.unwrap();
        clock.set(clock.now() + COMMIT_DEADLINE);
        assert_eq!(counts(&vacuum.run().await.unwrap()), [0, 0, 2]);
        // Another tool removes a file without stating the time.
        let snapshot = table.refresh().await.unwrap();
        let remove =
            format!("{{\"remove\":{{\"path\":\"{}\",\"dataChange\":true}}}}", snapshot.files().next().unwrap().path);
        let path = format!("{}/_delta_log/{:020}.json", table.location().1, snapshot.version + 1).into();
        objects.put(&path, remove.into()).await.unwrap();
        vacuum.run().await.unwrap();
        clock.set(clock.now() + COMMIT_DEADLINE);
        assert_eq!(counts(&vacuum.run().await.unwrap()), [0, 0, 3]);
    }
}

#[tokio::test]
async fn orphans_are_deleted_once_two_listings_have_seen_them() {
    for (age_min, deleted) in [(Duration::ZERO, 1), (ONE_DAY, 0)] {
        let (table, clock) = open().await;
        add(&table).await;
        let orphan = table.file_path(&write(&table).await[0]);
        let mut vacuum = vacuum(&table, age_min);
        assert_eq!(counts(&vacuum.run().await.unwrap()), [0, 0, 1]);
        clock.set(clock.now() + 2 * COMMIT_DEADLINE - SECOND);
        assert_eq!(counts(&vacuum.run().await.unwrap()), [0, 0, 1]);
        clock.set(clock.now() + SECOND);
        assert_eq!(counts(&vacuum.run().await.unwrap()), [deleted, deleted, 1 - deleted]);
        let exists = table.location().0.objects.head(&orphan).await.is_ok();
        assert_eq!(exists, deleted == 0);
    }
}

#[tokio::test]
async fn pins_cover_files() {
    let future = Clock::System.now() / 1_000 + 1_000_000;
    let pin = |version, until| serde_json::to_string(&Pin { version, until }).unwrap();
    for (case, content, deleted) in [
        ("no pin", None, 3),
        ("the removed files are live in the pinned version", Some(pin(2, future)), 0),
        ("the files were removed before", Some(pin(3, future)), 2),
        ("the pin has ended", Some(pin(2, 1)), 3),
        ("the pin is damaged", Some("{\"version\":9".to_owned()), 0),
    ] {
        let (table, clock) = open().await;
        add_and_rewrite(&table).await;
        write(&table).await;
        let mut vacuum = vacuum(&table, Duration::ZERO);
        vacuum.run().await.unwrap();
        clock.set(clock.now() + 2 * COMMIT_DEADLINE);
        if let Some(content) = &content {
            table.put_pin("backup-1", Pin { version: 0, until: 0 }).await.unwrap();
            let path = "_maintenance/pins/events/backup-1.json".into();
            table.location().0.objects.put(&path, content.clone().into()).await.unwrap();
        }
        let report = vacuum.run().await.unwrap();
        assert_eq!((report.deleted_files, report.pinned_files), (deleted, 3 - deleted), "{case}");
        assert_eq!(table.pins().await.unwrap().len(), usize::from(content.is_some()));
        table.remove_pin("backup-1").await.unwrap();
        assert_eq!(vacuum.run().await.unwrap().deleted_files, 3 - deleted, "{case}");
    }
    let (table, _) = open().await;
    for name in ["", "a/b", "..", "ü"] {
        assert!(table.put_pin(name, Pin { version: 0, until: 0 }).await.is_err(), "{name}");
    }
}
