//! Tests that a paused source stores nothing, and that it stores every message exactly once after it resumes.

use std::sync::Arc;

use super::tests::{Kafka, SourceServer, TOPIC, event, ids, offsets, reaches, sorted_ids};
use crate::clock::Clock;
use crate::config::{SourceConfig, StartAt};
use crate::ingest::testing::{TABLE, limits, memory, open};
use crate::ingest::{Ingest, Source, SourceHealth, SourceState, Sources};
use crate::lake::Store;

/// Starts another server with the same source and its own table handles. Returns the server's sources.
async fn other_server(store: &Store, config: &SourceConfig) -> Arc<Sources> {
    let source = Source::new("voice", config, None, None, Clock::System, Arc::default()).unwrap();
    let started = Ingest::start(open(store).await, vec![source], limits(), Clock::System, Arc::default()).await;
    started.unwrap().sources.clone()
}

/// Returns the reported state of each partition: its number, offset and lag, and whether this server reads it.
fn partitions(state: &SourceState) -> Vec<(i32, Option<i64>, Option<i64>, bool)> {
    let partitions = state.partitions.iter();
    partitions.map(|partition| (partition.partition, partition.offset, partition.lag, partition.is_here)).collect()
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
    assert_eq!((listed.paused_since, listed.health), (paused.paused_since, SourceHealth::Running));
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
    assert_eq!(ids(&store, "acme").await, sorted_ids(0..30));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_has_not_seen_a_pause_stores_nothing_after_it() {
    let (kafka, store) = (Kafka::start(), memory());
    kafka.send(0, (0..10).map(event));
    let server = SourceServer::start(&store, &kafka.source()).await;
    reaches(&store, [Some(10), None]).await;
    // The test server does not watch the table for new versions, so it learns of the pause only when its next batch is
    // refused.
    let other = other_server(&store, &kafka.source()).await;
    other.set_paused("voice", true).await.unwrap();
    kafka.send(0, (10..20).map(event));
    server.reports("glasshouse_source_paused{source=\"voice\"} 1").await;
    server.reports(&metric("lag_messages", 10)).await;
    assert_eq!(offsets(&store, TABLE).await, [Some(10), None]);

    other.set_paused("voice", false).await.unwrap();
    server.ingest.writer.tables()[TABLE].refresh().await.unwrap();
    reaches(&store, [Some(20), None]).await;
    // Pause and resume the source before the server checks the pause state again. The table then refuses the next
    // batch, and the server reads the messages of this batch again.
    for is_paused in [true, false] {
        other.set_paused("voice", is_paused).await.unwrap();
    }
    kafka.send(0, (20..30).map(event));
    reaches(&store, [Some(30), None]).await;
    server.stop().await;
    assert_eq!(ids(&store, "acme").await, sorted_ids(0..30));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_source_can_be_paused_before_it_has_ever_read() {
    let (kafka, store) = (Kafka::start(), memory());
    let latest = SourceConfig { start: StartAt::Latest, ..kafka.source() };
    other_server(&store, &latest).await.set_paused("voice", true).await.unwrap();
    kafka.send(0, (0..5).map(event));
    let server = SourceServer::start(&store, &latest).await;
    // A lag of 0 shows that the source has its partitions and will start after the existing messages. It reads no
    // messages yet.
    server.reports(&metric("lag_messages", 0)).await;
    kafka.send(0, (5..9).map(event));
    server.reports(&metric("lag_messages", 4)).await;
    assert_eq!(offsets(&store, TABLE).await, [None, None]);
    server.ingest.sources.set_paused("voice", false).await.unwrap();
    reaches(&store, [Some(9), Some(0)]).await;
    server.stop().await;
    assert_eq!(ids(&store, "acme").await, sorted_ids(5..9), "messages that arrive during the pause are not skipped");
}

#[tokio::test]
async fn concurrent_pause_requests_agree() {
    let store = memory();
    let config = SourceConfig { table: TABLE.to_owned(), ..SourceConfig::default() };
    let (one, two) = (other_server(&store, &config).await, other_server(&store, &config).await);
    for is_paused in [true, false, true] {
        let (one, two) = tokio::join!(one.set_paused("voice", is_paused), two.set_paused("voice", is_paused));
        let (one, two) = (one.unwrap().paused_since, two.unwrap().paused_since);
        assert_eq!((one, one.is_some()), (two, is_paused));
    }
    let unknown = one.set_paused("voices", true).await.unwrap_err();
    assert!(unknown.message().contains("did you mean `voice`?"), "{unknown}");
}
