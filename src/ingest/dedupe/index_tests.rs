//! Tests of the dedupe index beside other servers that append and rewrite files.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::array::AsArray as _;
use object_store::ObjectStoreExt as _;
use rand::rngs::StdRng;
use rand::{RngExt as _, SeedableRng as _};

use super::{DedupeIndex, DedupedBatch, EventKeyHasher};
use crate::contract::{DecodeOptions, Format, Owner, TenantId};
use crate::error::Kind;
use crate::ingest::Body;
use crate::ingest::prepare::Preparer;
use crate::ingest::testing::{QUARANTINE, TABLE, memory, open, rewrite};
use crate::lake::{Committed, DataFile, Table};

/// A server: its handle of the table, and its dedupe index.
struct IndexedServer {
    table: Arc<Table>,
    index: DedupeIndex,
    preparer: Preparer,
}

impl IndexedServer {
    /// Compares one event for each id with the table.
    async fn compare(&mut self, ids: impl Iterator<Item = u32>) -> DedupedBatch {
        let line = |id: u32| {
            format!("{{\"event_id\":\"{id}\",\"event_time\":\"2026-03-0{}T12:00:{:02}Z\"}}\n", 1 + id % 2, id % 60)
        };
        let body = Body::Encoded(Format::Json, ids.map(line).collect::<String>().into());
        let owner = Owner::Tenant(TenantId::parse("acme").unwrap());
        let options =
            DecodeOptions { received: 0, owner, time_max: i64::MAX, event_bytes_max: 1_000, dimensions_max: 0 };
        let rows = Arc::new(self.preparer.prepare(body, &options, "test").unwrap().good);
        self.index.compare(vec![rows]).await.unwrap()
    }

    /// Stores the events that are not stored yet. Returns their ids.
    async fn store(&mut self, ids: std::ops::Range<u32>) -> BTreeSet<u32> {
        loop {
            let DedupedBatch { rows, keys, compared_version, .. } = self.compare(ids.clone()).await;
            let new = new_ids(&rows.to_batch());
            if new.is_empty() {
                return new;
            }
            let files = self.table.write(rows).await.unwrap();
            let mut draft = self.table.draft(files, Vec::new()).unwrap();
            if let Committed::At(_) = self.table.commit_after(compared_version, &mut draft).await.unwrap() {
                self.index.add_committed(keys, draft.files().to_vec()).await;
                return new;
            }
        }
    }
}

fn new_ids(rows: &arrow::array::RecordBatch) -> BTreeSet<u32> {
    let ids = rows.column_by_name("event_id").unwrap().as_string::<i32>();
    ids.iter().map(|id| id.unwrap().parse().unwrap()).collect()
}

/// Rewrites one to three random live files of one day.
async fn rewrite_some(table: &Table, random: &mut StdRng) {
    let mut live: Vec<_> = table.snapshot().files().cloned().collect();
    if live.is_empty() {
        return;
    }
    let day = live[random.random_range(0..live.len())].day;
    live.retain(|file| file.day == day);
    while live.len() > random.random_range(1..=3) {
        live.remove(random.random_range(0..live.len()));
    }
    // The snapshot may be so old that the store no longer has the files.
    let rewritten = rewrite(table, &live, random.random_range(1..=2)).await;
    assert!(rewritten.is_ok() || rewritten.is_err_and(|error| error.kind() == Kind::Unavailable));
}

/// Deletes the files that are not live from the store, as a vacuum does.
async fn delete_removed(table: &Table, ever: &mut Vec<Arc<DataFile>>) {
    let live = table.refresh().await.unwrap();
    for file in ever.extract_if(.., |file| !live.contains(file)) {
        // Deleting fails if the file was deleted before.
        let _gone = table.location().0.objects.delete(&table.file_path(&file)).await;
    }
}

#[tokio::test]
async fn the_index_knows_exactly_the_stored_events() {
    for seed in 0..60 {
        let (mut random, store) = (StdRng::seed_from_u64(seed), memory());
        let mut servers = Vec::new();
        for _ in 0..2 {
            let tables = open(&store).await;
            let (table, key_hasher) = (tables[TABLE].clone(), EventKeyHasher::random());
            let ids_max = [0, 3, 12, 1_000][random.random_range(0..4)];
            let index = DedupeIndex::open(table.clone(), key_hasher, ids_max).await.unwrap();
            let preparer = Preparer {
                contract: table.contract().clone(),
                quarantine: tables[QUARANTINE].contract().clone(),
                key_hasher,
                notes_max: 1,
            };
            servers.push(IndexedServer { table, index, preparer });
        }
        let (mut stored, mut next, mut ever) = (BTreeSet::new(), 0, Vec::new());
        for step in 0..40 {
            let server = &mut servers[random.random_range(0..2)];
            match random.random_range(0..8) {
                0..=2 => {
                    // Some of the events are stored already.
                    let first = u32::saturating_sub(next, random.random_range(0..4));
                    next += random.random_range(1..5);
                    stored.extend(server.store(first..next).await);
                }
                3..=4 => rewrite_some(&server.table, &mut random).await,
                5 => drop(server.table.refresh().await.unwrap()),
                6 if seed % 2 == 0 => delete_removed(&server.table, &mut ever).await,
                _ => {
                    server.table.refresh().await.unwrap();
                    let new = new_ids(&server.compare(0..next + 3).await.rows.to_batch());
                    let expected: BTreeSet<u32> = (0..next + 3).filter(|id| !stored.contains(id)).collect();
                    assert_eq!(new, expected, "seed {seed}, step {step}");
                }
            }
            ever.extend(servers.iter().flat_map(|server| server.table.snapshot().files().cloned().collect::<Vec<_>>()));
        }
        assert_eq!(stored, (0..next).collect(), "seed {seed}: every event was new once");
    }
}

#[tokio::test]
async fn an_index_that_is_too_far_behind_is_rebuilt() {
    let store = memory();
    let tables = open(&store).await;
    let (table, key_hasher) = (tables[TABLE].clone(), EventKeyHasher::random());
    let index = DedupeIndex::open(table.clone(), key_hasher, 5).await.unwrap();
    let (contract, quarantine) = (table.contract().clone(), tables[QUARANTINE].contract().clone());
    let preparer = Preparer { contract, quarantine, key_hasher, notes_max: 1 };
    let mut server = IndexedServer { table, index, preparer };
    server.store(0..10).await;
    // Each rewrite adds a change to the history, which keeps about a thousand of them.
    for _ in 0..1_030 {
        let live: Vec<_> = server.table.snapshot().files().cloned().collect();
        rewrite(&server.table, &live[..1], 1).await.unwrap();
    }
    assert_eq!(new_ids(&server.compare(0..12).await.rows.to_batch()), BTreeSet::from([10, 11]));
}
