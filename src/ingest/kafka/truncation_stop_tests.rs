//! Tests that a source stops at the truncation of a database table, and that it stores all messages before it.

use super::tests::{Kafka, SourceServer, change, ids, reaches, sorted_ids};
use crate::config::{Envelope, OnTruncate, SourceConfig, TenantFrom};
use crate::ingest::PartitionProgress;
use crate::ingest::testing::{QUARANTINE, memory, stored};

#[tokio::test(flavor = "multi_thread")]
async fn a_truncation_needs_no_tenant() {
    let (kafka, store) = (Kafka::start(), memory());
    let sql = "SELECT changed_time AS event_time, change_id AS event_id FROM messages";
    let config = SourceConfig { transform: Some(sql.into()), envelope: Envelope::Debezium, ..kafka.source() };
    let config = SourceConfig { tenant: TenantFrom::Key, ..config };
    kafka.send(0, ["{\"op\":\"m\"}".to_owned(), change("c", 1, 1, "1"), "{\"op\":\"t\"}".to_owned()]);
    let server = SourceServer::start(&store, &config).await;
    server.reports("glasshouse_source_stopped{source=\"voice\",topic=\"calls\",partition=\"0\"} 1").await;
    reaches(&store, [Some(2), None]).await;
    server.stop().await;
    assert_eq!(stored(&store, QUARANTINE).await.len(), 1, "only the change must name a tenant");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_partition_stops_at_a_truncation_unless_it_is_ignored() {
    let (kafka, store) = (Kafka::start(), memory());
    let sql = "SELECT 'acme' AS tenant_id, changed_time AS event_time, op || (row->>'id') AS event_id FROM messages";
    let config = SourceConfig { transform: Some(sql.into()), envelope: Envelope::Debezium, ..kafka.source() };
    let truncation = || "{\"op\":\"t\",\"source\":{\"lsn\":7}}".to_owned();
    kafka.send(0, [change("c", 1, 1, "1"), change("c", 2, 1, "1"), truncation(), change("c", 3, 1, "1"), truncation()]);
    kafka.send(1, [change("c", 4, 1, "1")]);

    let server = SourceServer::start(&store, &config).await;
    reaches(&store, [Some(2), Some(1)]).await;
    server.reports("glasshouse_source_stopped{source=\"voice\",topic=\"calls\",partition=\"0\"} 1").await;
    kafka.send(1, [change("c", 5, 1, "1")]);
    reaches(&store, [Some(2), Some(2)]).await;
    let [state] = &server.ingest.sources.list().unwrap()[..] else { panic!("there is one source") };
    let stopped = |partition: &&PartitionProgress| partition.is_stopped;
    assert_eq!(state.partitions.iter().filter(stopped).map(|partition| partition.partition).collect::<Vec<_>>(), [0]);
    let error = &state.error.as_ref().unwrap().message;
    let expected = ["topic calls, partition 0, offset 2", "sources.voice.on_truncate = \"ignore\""];
    assert!(expected.iter().all(|text| error.contains(text)), "{error}");
    server.stop().await;
    assert_eq!(ids(&store, "acme").await, sorted_ids(["c1", "c2", "c4", "c5"]));

    let server = SourceServer::start(&store, &config).await;
    server.reports("glasshouse_source_stopped{source=\"voice\",topic=\"calls\",partition=\"0\"} 1").await;
    server.stop().await;

    let server = SourceServer::start(&store, &SourceConfig { on_truncate: OnTruncate::Ignore, ..config }).await;
    reaches(&store, [Some(5), Some(2)]).await;
    server.stop().await;
    assert_eq!(ids(&store, "acme").await, sorted_ids(["c1", "c2", "c3", "c4", "c5"]));
    assert_eq!(stored(&store, QUARANTINE).await, [], "a truncation is not an invalid event");
}
