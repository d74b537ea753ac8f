//! Tests of pausing a source: it stores nothing while paused, and stores every message exactly once after it resumes.

use std::sync::Arc;

use super::tests::{Kafka, SourceServer, TOPIC, event, ids, offsets, reaches, texts};
use crate::clock::Clock;
use crate::config::{SourceConfig, StartAt};
use crate::ingest::testing::{TABLE, limits, memory, open};
use crate::ingest::{Ingest, Source, SourceState, Sources};
use crate::lake::Store;

/// The same source on another server, with its own table handles.
async fn elsewhere(store: &Store, config: &SourceConfig) -> Arc<Sources> {
    let source = Source::new("voice", config, None, None, Clock::System, Arc::default()).unwrap();
    let started = Ingest::start(open(store).await, vec![source], limits(), Clock::System, Arc::default()).await;
    started.unwrap().sources.clone()
}

/// The reported state of each partition: its number, offset and lag, and whether this server reads it.
fn partitions(state: &SourceState) -> Vec<(i32, Option<i64>, Option<i64>, bool)> {
    let told = state.partitions.iter();
    told.map(|one| (one.partition, one.offset, one.lag, one.is_here)).collect()
}

fn metric(name: &str, value: i64) -> String {
    format!("glasshouse_source_{name}{{source=\"voice\",topic=\"{TOPIC}\",partition=\"0\"}} {value}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pause_lasts_through_a_restart_and_loses_nothing() {
    let (kafka, store) = (Kafka::start(), memory());
    kafka.send(0, (0..10).map(event));
    let server = SourceServer::start(&store, &kafka.source()).await;
    reaches(&store, [Some(10), None]).await;
    let paused = server.ingest.sources.set_paused("voice", true).await.unwrap();
    assert!(paused.paused_since.is_some());
    kafka.send(0, (10..25).map(event));
    server.reports("glasshouse_source_paused{source=\"voice\"} 1").await;
    server.reports(&metric("lag_messages", 15)).await;
    let [listed] = &server.ingest.sources.list().unwrap()[..] else { panic!("there is one source") };
    assert_eq!(partitions(listed)[0], (0, Some(10), Some(15), true));
    assert_eq!((listed.paused_since, listed.is_failing), (paused.paused_since, false));
    server.stop().await;

    let server = SourceServer::start(&store, &kafka.source()).await;
    server.reports("glasshouse_source_paused{source=\"voice\"} 1").await;
    server.reports(&metric("lag_messages", 15)).await;
    assert_eq!(offsets(&store, TABLE).await, [Some(10), None], "a paused source stores nothing");
    let running = server.ingest.sources.set_paused("voice", false).await.unwrap();
    assert_eq!(running.paused_since, None);
    reaches(&store, [Some(25), None]).await;
    server.reports("glasshouse_source_paused{source=\"voice\"} 0").await;
    kafka.send(0, (25..30).map(event));
    reaches(&store, [Some(30), None]).await;
    server.stop().await;
    assert_eq!(ids(&store, "acme").await, texts(0..30));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_has_not_seen_a_pause_stores_nothing_after_it() {
    let (kafka, store) = (Kafka::start(), memory());
    kafka.send(0, (0..10).map(event));
    let server = SourceServer::start(&store, &kafka.source()).await;
    reaches(&store, [Some(10), None]).await;
    // This server does not follow the log, so it learns of the pause when its next batch is rejected.
    let other = elsewhere(&store, &kafka.source()).await;
    other.set_paused("voice", true).await.unwrap();
    kafka.send(0, (10..20).map(event));
    server.reports("glasshouse_source_paused{source=\"voice\"} 1").await;
    server.reports(&metric("lag_messages", 10)).await;
    assert_eq!(offsets(&store, TABLE).await, [Some(10), None]);

    other.set_paused("voice", false).await.unwrap();
    server.ingest.writer.tables()[TABLE].refresh().await.unwrap();
    reaches(&store, [Some(20), None]).await;
    // Paused and resumed before the server checks: its batch is rejected and read again.
    for is_paused in [true, false] {
        other.set_paused("voice", is_paused).await.unwrap();
    }
    kafka.send(0, (20..30).map(event));
    reaches(&store, [Some(30), None]).await;
    server.stop().await;
    assert_eq!(ids(&store, "acme").await, texts(0..30));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_may_be_paused_before_it_has_ever_read() {
    let (kafka, store) = (Kafka::start(), memory());
    let latest = SourceConfig { start: StartAt::Latest, ..kafka.source() };
    elsewhere(&store, &latest).await.set_paused("voice", true).await.unwrap();
    kafka.send(0, (0..5).map(event));
    let server = SourceServer::start(&store, &latest).await;
    // It has its partitions, starts after the existing messages, and reads nothing.
    server.reports(&metric("lag_messages", 0)).await;
    kafka.send(0, (5..9).map(event));
    server.reports(&metric("lag_messages", 4)).await;
    assert_eq!(offsets(&store, TABLE).await, [None, None]);
    server.ingest.sources.set_paused("voice", false).await.unwrap();
    reaches(&store, [Some(9), Some(0)]).await;
    server.stop().await;
    assert_eq!(ids(&store, "acme").await, texts(5..9), "what came during the pause is not passed over");
}

#[tokio::test]
async fn concurrent_pauses_agree() {
    let store = memory();
    let config = SourceConfig { table: TABLE.to_owned(), ..SourceConfig::default() };
    let (one, two) = (elsewhere(&store, &config).await, elsewhere(&store, &config).await);
    for is_paused in [true, false, true] {
        let (one, two) = tokio::join!(one.set_paused("voice", is_paused), two.set_paused("voice", is_paused));
        let (one, two) = (one.unwrap().paused_since, two.unwrap().paused_since);
        assert_eq!((one, one.is_some()), (two, is_paused));
    }
    let unknown = one.set_paused("voices", true).await.unwrap_err();
    assert!(unknown.message().contains("did you mean `voice`?"), "{unknown}");
}
