//! Tests the maintenance service: it merges the files of all tables in the background, beside other servers, and leaves
//! alone what it cannot merge.

use std::sync::Arc;
use std::time::Duration;

use object_store::{ObjectStoreExt as _, PutPayload};
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::service::{Maintenance, levels};
use super::testing::{COLUMNS, contract, lake, lines, random_rows, read};
use crate::clock::{Clock, SECOND};
use crate::config::MaintenanceConfig;
use crate::lake::{Store, Table, Tables};
use crate::supervise::Supervisor;
use crate::telemetry::Metrics;

const TICK: Duration = Duration::from_millis(2);
/// A timeout that is reached only if the service hangs.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Commits `commits` files and returns the sorted rows.
async fn fill(table: &Table, commits: usize, seed: u64) -> Vec<String> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut rows = Vec::new();
    for _ in 0..commits {
        let batch = random_rows(table.contract(), 20, 9, &mut rng);
        rows.extend(sorted_rows(table, &[batch.to_plain().unwrap()]));
        let files = table.write(batch).await.unwrap();
        table.commit(files, Vec::new()).await.unwrap();
    }
    rows.sort_unstable();
    rows
}

fn sorted_rows(table: &Table, batches: &[arrow::array::RecordBatch]) -> Vec<String> {
    let schema = table.stored_schema().unwrap();
    let names: Vec<String> = schema.fields().iter().map(|field| field.name().clone()).collect();
    let mut rows = lines(batches, &names);
    rows.sort_unstable();
    rows
}

async fn stored_rows(table: &Table) -> Vec<String> {
    let mut rows = Vec::new();
    for file in table.snapshot().files() {
        rows.extend(sorted_rows(table, &read(table, file).await.1));
    }
    rows.sort_unstable();
    rows
}

/// Opens the same table as another server does.
async fn open(store: &Store) -> Arc<Table> {
    Table::open(store, contract(COLUMNS), &lake(100_000)).await.unwrap()
}

fn start(table: &Arc<Table>) -> Maintenance {
    let tables: Tables = [("events".to_owned(), Arc::clone(table))].into();
    let metrics: Arc<Metrics> = Arc::default();
    let config = MaintenanceConfig { cpu_percent_max: 100_000, ..MaintenanceConfig::default() };
    let supervisor = Supervisor::new(metrics.clone());
    Maintenance::start_with(&tables, &config, &lake(100_000), &metrics, &supervisor, TICK).unwrap()
}

/// Waits until the table has at most `files` files.
async fn wait_for(table: &Table, files: usize) {
    let mut turns = tokio::time::interval(TICK);
    let reached = async {
        while table.refresh().await.unwrap().len() > files {
            turns.tick().await;
        }
    };
    tokio::time::timeout(TIMEOUT, reached).await.expect("the table has been merged");
}

#[tokio::test]
async fn two_servers_merge_a_table_in_the_background() {
    let clock = Clock::fixed(super::testing::MIDNIGHT + 7_200 * SECOND);
    let store = Store::open(&lake(100_000)).unwrap().with_clock(clock.clone());
    let (one, two) = (open(&store).await, open(&store).await);
    let expected = fill(&one, 50, 1).await;
    clock.set(clock.now() + 60 * SECOND);
    let (first, second) = (start(&one), start(&two));
    wait_for(&one, 3).await;
    assert_eq!(levels(one.snapshot().files())[1].files, 1, "48 files have become one");
    // A closed day becomes one file of level 3.
    clock.set(clock.now() + 30 * 3_600 * SECOND);
    wait_for(&two, 1).await;
    first.stop().await;
    second.stop().await;
    let snapshot = one.refresh().await.unwrap();
    assert_eq!(levels(snapshot.files()).map(|level| level.files), [0, 0, 0, 1]);
    assert_eq!(stored_rows(&one).await, expected);
    let health = second.health().remove(0);
    assert_eq!((health.rows, health.merges.units_due), (1_000, 0));
}

#[tokio::test]
async fn a_corrupt_file_is_left_alone_and_the_others_are_merged() {
    let clock = Clock::fixed(super::testing::MIDNIGHT + 7_200 * SECOND);
    let store = Store::open(&lake(100_000)).unwrap().with_clock(clock.clone());
    let table = open(&store).await;
    fill(&table, 100, 2).await;
    let broken = Arc::clone(table.snapshot().files().nth(31).unwrap());
    table.location().0.objects.put(&table.file_path(&broken), PutPayload::from("not Parquet")).await.unwrap();
    clock.set(clock.now() + 60 * SECOND);
    let maintenance = start(&table);
    wait_for(&table, 100 - 2 * 47).await;
    maintenance.stop().await;
    let health = maintenance.health().remove(0);
    assert_eq!(health.merges.left_alone, std::slice::from_ref(&broken.path));
    assert_eq!(health.rows, 2_000);
    assert!(table.snapshot().contains(&broken));
}

#[tokio::test]
async fn paused_maintenance_merges_nothing() {
    let clock = Clock::fixed(super::testing::MIDNIGHT + 7_200 * SECOND);
    let store = Store::open(&lake(100_000)).unwrap().with_clock(clock.clone());
    let table = open(&store).await;
    fill(&table, 50, 3).await;
    clock.set(clock.now() + 60 * SECOND);
    let maintenance = start(&table);
    wait_for(&table, 3).await;
    maintenance.set_paused(true).unwrap();
    assert!(maintenance.is_paused());
    fill(&table, 50, 4).await;
    clock.set(clock.now() + 60 * SECOND);
    // Another server merges them. This one has had time to do so as well.
    let other = open(&store).await;
    let others = start(&other);
    wait_for(&table, 6).await;
    others.stop().await;
    maintenance.set_paused(false).unwrap();
    fill(&table, 50, 5).await;
    clock.set(clock.now() + 60 * SECOND);
    wait_for(&table, 9).await;
    maintenance.stop().await;
}
