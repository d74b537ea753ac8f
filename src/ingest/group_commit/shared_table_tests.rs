//! Tests of servers that share a table. They cover events that several servers receive, events older than the dedupe
//! window, sources that move to another server, and lost responses to commits.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use bytes::Bytes;
use tokio::sync::Notify;

use super::batch::Stored;
use super::queue::WriteRequest;
use super::reservation::MemoryBudget;
use super::table_writer::TableWriter;
use crate::config::IngestConfig;
use crate::contract::{DecodeOptions, Format, Owner, TenantId};
use crate::error::{Kind, Result};
use crate::ingest::Body;
use crate::ingest::dedupe::EventKeyHasher;
use crate::ingest::prepare::Preparer;
use crate::ingest::testing::{Faults, QUARANTINE, TABLE, faulty, limits, lines, memory, open, stored};
use crate::lake::{Progress, Store, Table, Tables};

/// A server with a table writer that the test calls directly.
struct CommitterServer {
    tables: Arc<Tables>,
    table_writer: TableWriter,
    preparer: Preparer,
    memory_budget: MemoryBudget,
}

impl CommitterServer {
    async fn start(store: &Store) -> Self {
        Self::with_window(store, limits().dedupe_ids_max).await
    }

    async fn with_window(store: &Store, dedupe_ids_max: usize) -> Self {
        let limits = IngestConfig { dedupe_ids_max, ..limits() };
        let tables = open(store).await;
        let (key_hasher, metrics) = (EventKeyHasher::random(), Arc::default());
        let table: Arc<Table> = tables[TABLE].clone();
        let preparer = Preparer {
            contract: table.contract().clone(),
            quarantine: tables[QUARANTINE].contract().clone(),
            key_hasher,
            notes_max: 1,
        };
        let memory_budget = MemoryBudget::new(1 << 20, std::time::Duration::ZERO, Arc::clone(&metrics));
        let table_writer =
            TableWriter::open(table, false, key_hasher, &limits, metrics, Arc::new(Notify::new())).await.unwrap();
        Self { tables, table_writer, preparer, memory_budget }
    }

    /// Stores several requests in one batch. Each request contains the events for a range of ids, and the progress of a
    /// source.
    async fn store(&mut self, requests: &[(std::ops::Range<u32>, Vec<Progress>)]) -> Vec<Result<Stored>> {
        let (mut pending, mut answers) = (Vec::new(), Vec::new());
        for (ids, progress) in requests {
            let body = Body::Encoded(Format::Json, Bytes::from(lines(ids.clone())));
            let prepared = Arc::new(self.preparer.prepare(body, &acme(), "test").unwrap().good);
            let request = WriteRequest::new(prepared, self.memory_budget.empty());
            let (write, answer) = WriteRequest { progress: progress.clone(), ..request }.pending();
            pending.push(write);
            answers.push(answer);
        }
        self.table_writer.store(pending).await;
        let mut stored = Vec::new();
        for answer in answers {
            stored.push(answer.stored().await);
        }
        stored
    }

    /// Stores one event for each pair of an id and a day in March 2026. Returns the number of new events.
    async fn store_days(&mut self, events: &[(u32, u32)]) -> u64 {
        let line = |(id, day): &(u32, u32)| {
            format!("{{\"event_id\":\"{id}\",\"event_time\":\"2026-03-{day:02}T12:00:{:02}Z\"}}\n", id % 60)
        };
        let body = Body::Encoded(Format::Json, Bytes::from(events.iter().map(line).collect::<String>()));
        let prepared = Arc::new(self.preparer.prepare(body, &acme(), "test").unwrap().good);
        let (pending, answer) = WriteRequest::new(prepared, self.memory_budget.empty()).pending();
        self.table_writer.store(vec![pending]).await;
        answer.stored().await.unwrap().accepted
    }

    /// Returns the source's offset in the table.
    async fn stored_offset(&self) -> Option<i64> {
        self.tables[TABLE].refresh().await.unwrap().txns.get("kafka:calls:t:0").copied()
    }
}

fn acme() -> DecodeOptions {
    let owner = Owner::Tenant(TenantId::parse("acme").unwrap());
    DecodeOptions { received: 0, owner, time_max: i64::MAX, event_bytes_max: 1_000, dimensions_max: 0 }
}

fn source(after: Option<i64>, next: i64) -> Vec<Progress> {
    vec![Progress { app: "kafka:calls:t:0".to_owned(), after, next }]
}

fn kinds(answers: &[Result<Stored>]) -> Vec<std::result::Result<(u64, u64), Kind>> {
    let kind = |answer: &Result<Stored>| match answer {
        Ok(stored) => Ok((stored.accepted, stored.duplicate)),
        Err(error) => Err(error.kind()),
    };
    answers.iter().map(kind).collect()
}

/// Returns all ids in the table in numerical order.
async fn ids(store: &Store) -> Vec<u32> {
    let mut ids: Vec<u32> = stored(store, TABLE).await.iter().map(|(_, id)| id.parse().unwrap()).collect();
    ids.sort_unstable();
    ids
}

#[tokio::test]
async fn only_the_source_that_another_server_took_over_is_refused() {
    let store = memory();
    let (mut first, mut second) = (CommitterServer::start(&store).await, CommitterServer::start(&store).await);
    assert_eq!(kinds(&first.store(&[(0..3, source(None, 3))]).await), [Ok((3, 0))]);
    // `second` learns of the takeover only when it commits. It then stores the other requests of the batch.
    let answers = second.store(&[(3..6, vec![]), (0..4, source(None, 4)), (6..7, vec![])]).await;
    assert_eq!(kinds(&answers), [Ok((3, 0)), Err(Kind::Conflict), Ok((1, 0))]);
    // `second` now refuses the source before it writes anything.
    let answers = second.store(&[(7..8, vec![]), (0..4, source(Some(2), 4))]).await;
    assert_eq!(kinds(&answers), [Ok((1, 0)), Err(Kind::Conflict)]);
    assert_eq!(
        kinds(&second.store(&[(0..9, source(Some(2), 9))]).await),
        [Err(Kind::Conflict)],
        "the source is also refused if it sends the only request"
    );
    assert_eq!((second.stored_offset().await, ids(&store).await), (Some(3), (0..8).collect()));
}

#[tokio::test]
async fn progress_is_stored_when_no_row_is_new() {
    let store = memory();
    let mut server = CommitterServer::start(&store).await;
    assert_eq!(kinds(&server.store(&[(0..3, source(None, 3))]).await), [Ok((3, 0))]);
    assert_eq!(kinds(&server.store(&[(0..3, source(Some(3), 6))]).await), [Ok((0, 3))]);
    assert_eq!(kinds(&server.store(&[(0..0, source(Some(6), 9))]).await), [Ok((0, 0))], "a request without rows");
    assert_eq!((server.stored_offset().await, ids(&store).await), (Some(9), (0..3).collect()));
    let version = server.tables[TABLE].snapshot().version;
    assert_eq!(kinds(&server.store(&[(0..2, source(Some(9), 9))]).await), [Ok((0, 2))]);
    assert_eq!(server.tables[TABLE].snapshot().version, version, "nothing is committed without new rows or progress");
}

#[tokio::test]
async fn a_source_that_moves_between_servers_stores_no_duplicates() {
    let store = memory();
    let (mut first, mut second) = (CommitterServer::start(&store).await, CommitterServer::start(&store).await);
    assert_eq!(kinds(&first.store(&[(0..5, source(None, 5))]).await), [Ok((5, 0))]);
    assert_eq!(kinds(&first.store(&[(5..9, source(Some(5), 9))]).await), [Ok((4, 0))]);
    assert_eq!(second.stored_offset().await, Some(9));
    assert_eq!(
        kinds(&second.store(&[(20..22, vec![])]).await),
        [Ok((2, 0))],
        "the second server commits other events first"
    );
    assert_eq!(kinds(&second.store(&[(7..11, source(Some(9), 13))]).await), [Ok((2, 2))]);
    // The source moves back to the first server.
    assert_eq!(first.stored_offset().await, Some(13));
    assert_eq!(kinds(&first.store(&[(4..12, source(Some(13), 21))]).await), [Ok((1, 7))]);
    assert_eq!(ids(&store).await, (0..12).chain(20..22).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_event_that_several_servers_receive_is_stored_once() {
    let store = memory();
    let mut servers = [
        CommitterServer::start(&store).await,
        CommitterServer::start(&store).await,
        CommitterServer::with_window(&store, 0).await,
    ];
    // No server refreshes the table, so a server learns of other servers' commits only when it commits.
    let mut stored = 0;
    for round in 0..30 {
        let ids = round * 3..round * 3 + 10;
        for server in &mut servers {
            stored += kinds(&server.store(&[(ids.clone(), vec![])]).await)[0].unwrap().0;
        }
    }
    assert_eq!((stored, ids(&store).await), (97, (0..97).collect()));
}

#[tokio::test]
async fn an_event_older_than_the_window_is_looked_up_in_the_files_of_its_day() {
    for window in [0, 1, 5, 1_000] {
        let store = memory();
        let mut server = CommitterServer::with_window(&store, window).await;
        let events: Vec<_> = (0..40).map(|id| (id, 1 + id % 4)).collect();
        for chunk in events.chunks(7) {
            assert_eq!(server.store_days(chunk).await, chunk.len() as u64, "window {window}");
        }
        assert_eq!(server.store_days(&events).await, 0, "sent again, window {window}");
        assert_eq!(server.store_days(&[(40, 1), (3, 4), (41, 5), (40, 1)]).await, 2, "window {window}");
        let mut restarted = CommitterServer::with_window(&store, window).await;
        let again: Vec<_> = events.iter().rev().copied().chain([(41, 5), (42, 5)]).collect();
        assert_eq!(restarted.store_days(&again).await, 1, "after a restart, window {window}");
        assert_eq!(server.store_days(&[(42, 5), (7, 4)]).await, 0, "on the first server, window {window}");
        assert_eq!(ids(&store).await, (0..43).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn lost_commit_answers_neither_lose_nor_duplicate_events() {
    for refused in 0..5 {
        for answer_lost in 0..5 {
            let (faults, case) =
                (Arc::new(Faults::default()), format!("{refused} puts refused, {answer_lost} answers lost"));
            let store = faulty(&faults);
            let mut server = CommitterServer::start(&store).await;
            server.store(&[(0..3, source(None, 3))]).await;
            faults.refused.store(refused, Ordering::SeqCst);
            faults.answer_lost.store(answer_lost, Ordering::SeqCst);
            // After an error, continue from the offset in the table, as a source does.
            for _ in 0..20 {
                let at = server.stored_offset().await.unwrap();
                if at == 9 {
                    break;
                }
                let ids = u32::try_from(at).unwrap()..9;
                server.store(&[(ids, source(Some(at), 9)), (100..101, vec![])]).await;
            }
            server.store(&[(100..101, vec![])]).await;
            let expected: Vec<u32> = (0..9).chain(100..101).collect();
            assert_eq!((server.stored_offset().await, ids(&store).await), (Some(9), expected), "{case}");
        }
    }
}
