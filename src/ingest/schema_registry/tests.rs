//! Tests for sources whose messages need a schema. The tests cover Avro and protobuf messages, schemas from a registry
//! and from a file, and transforms.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use serde_json::json;

use super::client_tests::FakeRegistry;
use crate::config::{Envelope, SourceConfig, SourceFormat, TableConfig, TenantFrom};
use crate::contract::{Contract, PayloadFormat};
use crate::ingest::kafka::tests::{Kafka, SourceServer, offsets, reaches};
use crate::ingest::testing::{QUARANTINE, TABLE, memory, stored};
use crate::ingest::{EntryFilter, EntryPage, QuarantineEntry};
use crate::tenancy::testing::access;
use crate::tenancy::{Access, Scope};

/// The first version of an Avro schema.
const FIRST: &str = r#"{"type":"record","name":"Call","fields":[{"name":"event_id","type":"string"},
    {"name":"event_time","type":{"type":"long","logicalType":"timestamp-millis"}}]}"#;
/// The second version of the schema, which has one more field.
const SECOND: &str = r#"{"type":"record","name":"Call","fields":[{"name":"event_id","type":"string"},
    {"name":"event_time","type":{"type":"long","logicalType":"timestamp-millis"}},{"name":"mos","type":["null","double"]}]}"#;
/// The time 2026-03-01T12:00:00Z in milliseconds, encoded as an Avro long.
const TIME: [u8; 6] = [0x80, 0xa8, 0xa8, 0x94, 0x95, 0x67];
/// The Avro schema of a Debezium change event.
const CHANGE: &str = r#"{"type":"record","name":"Envelope","namespace":"shop","fields":[
    {"name":"before","type":["null",{"type":"record","name":"Value","fields":[{"name":"id","type":"int"}]}]},
    {"name":"after","type":["null","Value"]},
    {"name":"source","type":{"type":"record","name":"Source","fields":[
        {"name":"lsn","type":["null","long"]},{"name":"ts_us","type":"long"}]}},
    {"name":"op","type":"string"}]}"#;
/// A protobuf file with several message types. The table uses `voice.Outer.Call`.
const CALLS: &str = r#"
    syntax = "proto3";
    package voice;
    import "google/protobuf/timestamp.proto";
    message Other { string name = 1; message Call { string tenant_id = 1; } }
    message Outer {
      message Call {
        string tenant_id = 1;
        google.protobuf.Timestamp event_time = 2;
        string event_id = 3;
        optional double mos = 4;
        repeated string tags = 9;
      }
    }"#;

/// Returns a message that begins with a schema registry's header.
fn with_header(id: u32, rest: &[&[u8]]) -> Vec<u8> {
    [&[0], &id.to_be_bytes()[..], &rest.concat()].concat()
}

/// Returns an event that is encoded with the first schema.
fn first(id: u32, event: &str) -> Vec<u8> {
    with_header(id, &[&[event.len() as u8 * 2], event.as_bytes(), &TIME])
}

/// Returns an event that is encoded with the second schema.
fn second(id: u32, event: &str, mos: f64) -> Vec<u8> {
    [first(id, event), vec![2], mos.to_le_bytes().to_vec()].concat()
}

/// Returns a protobuf event with a schema registry's header. `path` is the part of the header that identifies the
/// message type.
fn call(id: u32, path: &[u8], event: &str) -> Vec<u8> {
    let time = [0x08, 0xc0, 0xd4, 0x90, 0xcd, 0x06];
    let text = |number: u8, text: &[u8]| [&[number << 3 | 2, text.len() as u8], text].concat();
    with_header(id, &[path, &text(1, b"acme"), &text(2, &time), &text(3, event.as_bytes()), &text(9, b"x")])
}

async fn operator() -> Access {
    access(None, &[Scope::Admin, Scope::Ingest], &[]).await
}

/// Returns the open quarantine entries, including their payloads, sorted by their `place`.
async fn entries(server: &SourceServer) -> Vec<QuarantineEntry> {
    let operator = operator().await;
    let listed = server.ingest.quarantine.list(&operator, TABLE, &EntryFilter::default(), 100).await.unwrap();
    let mut entries = Vec::new();
    for entry in listed.entries {
        let (shown, _reservation) = server.ingest.quarantine.show(&operator, TABLE, &entry.id, None).await.unwrap();
        entries.extend(shown);
    }
    entries.sort_by(|one, other| one.place.cmp(&other.place));
    entries
}

fn names(found: &[(String, String)]) -> Vec<&str> {
    found.iter().map(|(_, id)| id.as_str()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn avro_is_decoded_with_the_schemas_of_a_registry() {
    let (kafka, store, registry) = (Kafka::start(), memory(), FakeRegistry::start().await);
    registry.add_schema(7, FIRST, json!({}));
    registry.add_schema(9, SECOND, json!({}));
    registry.add_schema(11, "syntax = \"proto3\"; message A {}", json!({ "schemaType": "PROTOBUF" }));
    let config = SourceConfig {
        format: SourceFormat::Avro,
        registry: Some(registry.config()),
        tenant: TenantFrom::Key,
        ..kafka.source()
    };
    let (unknown, cut) = (first(8, "later"), first(7, "cut")[..8].to_vec());
    let bad = [unknown.clone(), cut, b"{}".to_vec(), call(11, &[0], "x")];
    kafka.send_bytes("acme", &first(7, "a"));
    bad.iter().for_each(|bytes| kafka.send_bytes("acme", bytes));
    kafka.send_bytes("globex", &second(9, "b", 4.5));

    // While the registry fails, nothing is stored and nothing is rejected.
    registry.set_failure(Some((503, "")));
    let server = SourceServer::start(&store, &config).await;
    server.reports("glasshouse_source_schemas_total{source=\"voice\",outcome=\"failed\"}").await;
    assert_eq!((offsets(&store, TABLE).await, entries(&server).await), ([None, None], vec![]));
    registry.set_failure(None);
    reaches(&store, [Some(6), None]).await;
    let pairs = [("acme", "a"), ("globex", "b")].map(|(tenant, id)| (tenant.to_owned(), id.to_owned()));
    assert_eq!(stored(&store, TABLE).await, pairs);

    let found = entries(&server).await;
    let kept: Vec<_> = found.iter().map(|entry| entry.payload.clone().unwrap()).collect();
    assert_eq!(kept, bad.map(Bytes::from), "the quarantine keeps the received bytes");
    assert!(found.iter().all(|entry| entry.tenant == "acme" && entry.format == PayloadFormat::Avro), "{found:?}");
    assert!(found.iter().all(|entry| entry.reason == "malformed"), "{found:?}");
    let details = ["has no schema 8", "the message is truncated", "does not begin with", "is PROTOBUF"];
    for (entry, detail) in found.iter().zip(details) {
        assert!(entry.detail.contains(detail), "{entry:?}, not {detail}");
    }
    let page = || EntryPage { after: None, limit: 100 };
    let again =
        server.ingest.quarantine.replay(&operator().await, TABLE, &EntryFilter::default(), page()).await.unwrap();
    assert_eq!((again.accepted, again.rejected), (0, 4));
    server.stop().await;

    // The missing schema is registered, so a replay can decode the entry that refers to it.
    registry.add_schema(8, FIRST, json!({}));
    let server = SourceServer::start(&store, &config).await;
    kafka.send_bytes("acme", &first(7, "c"));
    reaches(&store, [Some(7), None]).await;
    let again =
        server.ingest.quarantine.replay(&operator().await, TABLE, &EntryFilter::default(), page()).await.unwrap();
    assert_eq!((again.accepted, again.rejected), (1, 3));
    assert_eq!(entries(&server).await.len(), 3);
    server.stop().await;
    assert_eq!(names(&stored(&store, TABLE).await), ["a", "c", "later", "b"]);
}

/// Creates the contract of a table whose columns are defined by a protobuf message type.
fn contract_of_message(folder: &std::path::Path) -> Arc<Contract> {
    let file = folder.join("calls.proto");
    std::fs::write(file, CALLS).unwrap();
    let config = TableConfig {
        proto: Some(PathBuf::from("calls.proto")),
        message: Some("voice.Outer.Call".to_owned()),
        ignore: vec!["tags".to_owned()],
        tenant: "tenant_id".to_owned(),
        time: "event_time".to_owned(),
        id: "event_id".to_owned(),
        ..TableConfig::default()
    };
    Arc::new(Contract::new(TABLE, &config, folder).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn protobuf_with_a_registry_must_have_the_message_type_of_the_table() {
    let (kafka, store, registry) = (Kafka::start(), memory(), FakeRegistry::start().await);
    let folder = tempfile::tempdir().unwrap();
    let contract = contract_of_message(folder.path());
    registry.add_schema(1, CALLS, json!({ "schemaType": "PROTOBUF" }));
    let only = "syntax = \"proto3\"; message Call { string tenant_id = 1; string event_id = 3; double size = 4; }";
    registry.add_schema(2, only, json!({ "schemaType": "PROTOBUF" }));
    registry.add_schema(3, FIRST, json!({}));
    let config = SourceConfig { format: SourceFormat::Protobuf, registry: Some(registry.config()), ..kafka.source() };
    let bad = [
        call(1, &[0], "other"),
        call(2, &[0], "wrong"),
        call(1, &[2, 8], "none"),
        call(1, &[0x04, 0x02], "cut"),
        call(3, &[0], "avro"),
        with_header(1, &[&[4, 2, 0], b"\x0a\x04acme\x1a\x01x"]),
    ];
    kafka.send_bytes("", &call(1, &[4, 2, 0], "a"));
    bad.iter().for_each(|bytes| kafka.send_bytes("", bytes));
    kafka.send_bytes("", &call(1, &[4, 2, 0], "b"));
    let server = SourceServer::start_as(&store, &config, &BTreeMap::new(), &contract).await;
    reaches(&store, [Some(8), None]).await;
    assert_eq!(names(&stored(&store, TABLE).await), ["a", "b"]);
    let found = entries(&server).await;
    let kept: Vec<_> = found.iter().map(|entry| entry.payload.clone().unwrap()).collect();
    assert_eq!(kept, bad.map(Bytes::from), "the quarantine keeps the received bytes, including the header");
    let details = [
        ("wrong_type", "message type `voice.Other` is incompatible"),
        ("wrong_type", "field 4 is `size`, not `mos`"),
        ("malformed", "no message at [4]"),
        ("malformed", "no message at [1, 5]"),
        ("malformed", "is AVRO, but the source reads PROTOBUF"),
        ("missing_time", ""),
    ];
    for (entry, (reason, detail)) in found.iter().zip(details) {
        assert!(entry.reason == reason && entry.detail.contains(detail), "{entry:?}, not {reason}: {detail}");
        assert_eq!(entry.format, PayloadFormat::SourceProtobuf);
    }
    let page = EntryPage { after: None, limit: 100 };
    let again = server.ingest.quarantine.replay(&operator().await, TABLE, &EntryFilter::default(), page).await.unwrap();
    assert_eq!((again.accepted, again.rejected), (0, 6), "a replay rejects messages of another type again");
    server.stop().await;
}

/// Returns the configuration of a source with a transform that appends the value of an SQL expression to the id of each
/// event.
fn with_transform(format: SourceFormat, expression: &str) -> SourceConfig {
    let id = format!("(value->>'event_id') || {expression}");
    let sql = format!("SELECT {id} AS event_id, 'acme' AS tenant_id, time AS event_time FROM messages");
    SourceConfig { format, transform: Some(sql), ..SourceConfig::default() }
}

/// Checks that a source with a transform converts `message` to one event, whose id is `expected`. Also checks that the
/// source rejects a truncated `message`.
async fn check_transform(case: &str, config: SourceConfig, message: &[u8], contract: &Arc<Contract>, expected: &str) {
    let (kafka, store) = (Kafka::start(), memory());
    let config = with_brokers_of(config, &kafka);
    let bad = &message[..message.len() - 1];
    kafka.send_bytes("", message);
    kafka.send_bytes("", bad);
    let server = SourceServer::start_as(&store, &config, &BTreeMap::new(), contract).await;
    reaches(&store, [Some(2), None]).await;
    assert_eq!(names(&stored(&store, TABLE).await), [expected], "{case}");
    let found = entries(&server).await;
    let kept = if config.format == SourceFormat::Avro { PayloadFormat::Avro } else { PayloadFormat::SourceProtobuf };
    assert_eq!(found.len(), 1, "{case}: {found:?}");
    assert_eq!((found[0].payload.as_deref(), found[0].format), (Some(bad), kept), "{case}");
    let page = EntryPage { after: None, limit: 100 };
    let again = server.ingest.quarantine.replay(&operator().await, TABLE, &EntryFilter::default(), page).await.unwrap();
    assert!(again.rejects[0].detail.contains("with a file"), "{case}: {again:?}");
    server.stop().await;
    assert_eq!(stored(&store, QUARANTINE).await.len(), 1, "{case}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transform_sees_avro_as_json() {
    let registry = FakeRegistry::start().await;
    registry.add_schema(9, SECOND, json!({}));
    registry.add_schema(5, CHANGE, json!({}));
    let contract = Arc::new(crate::ingest::testing::contract());
    let expression = "(value->>'mos') || (value->>'event_time')";
    let config = SourceConfig { registry: Some(registry.config()), ..with_transform(SourceFormat::Avro, expression) };
    let expected = "a4.52026-03-01T12:00:00.000Z";
    check_transform("Avro", config.clone(), &second(9, "a", 4.5), &contract, expected).await;

    let sql = "SELECT op || (row->>'id') AS event_id, 'acme' AS tenant_id, changed_time AS event_time FROM messages";
    let config = SourceConfig { transform: Some(sql.to_owned()), envelope: Envelope::Debezium, ..config };
    let change = with_header(5, &[b"\0\x02\x0a\x02\x0e\x80\xe4\x97\xd0\x12\x02c"]);
    check_transform("a Debezium change event", config, &change, &contract, "c5").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_transform_sees_protobuf_as_json() {
    let registry = FakeRegistry::start().await;
    registry.add_schema(1, CALLS, json!({ "schemaType": "PROTOBUF" }));
    let folder = tempfile::tempdir().unwrap();
    let (own, file) = (contract_of_message(folder.path()), folder.path().join("calls.proto"));
    let plain = Arc::new(crate::ingest::testing::contract());
    let protobuf = || with_transform(SourceFormat::Protobuf, "json_text(value, 'tags', 0)");
    let (with_header, without_header) = (call(1, &[4, 2, 0], "p"), call(0, &[], "p")[5..].to_vec());
    let config = SourceConfig { registry: Some(registry.config()), ..protobuf() };
    check_transform("with a registry", config, &with_header, &plain, "px").await;
    let message = Some("voice.Outer.Call".to_owned());
    let config = SourceConfig { schema_file: Some(file), message, ..protobuf() };
    check_transform("with a schema file", config, &without_header, &plain, "px").await;
    let config = SourceConfig { confluent: true, ..protobuf() };
    let unknown_schema = call(77, &[0], "p");
    check_transform("with the table's message type, after a header", config, &unknown_schema, &own, "px").await;
}

/// Returns the configuration, changed so that the source reads from the cluster `kafka`.
fn with_brokers_of(config: SourceConfig, kafka: &Kafka) -> SourceConfig {
    let SourceConfig { brokers, topics, group, table, options, .. } = kafka.source();
    SourceConfig { brokers, topics, group, table, options, ..config }
}

#[tokio::test(flavor = "multi_thread")]
async fn avro_with_a_schema_file_needs_no_registry() {
    let (kafka, store, folder) = (Kafka::start(), memory(), tempfile::tempdir().unwrap());
    let file = folder.path().join("call.avsc");
    std::fs::write(&file, SECOND).unwrap();
    let config = SourceConfig {
        format: SourceFormat::Avro,
        schema_file: Some(file),
        tenant: TenantFrom::Value("acme".into()),
        ..kafka.source()
    };
    kafka.send_bytes("", &second(0, "a", 1.0)[5..]);
    let server = SourceServer::start(&store, &config).await;
    reaches(&store, [Some(1), None]).await;
    server.stop().await;
    assert_eq!(names(&stored(&store, TABLE).await), ["a"]);

    let (kafka, store) = (Kafka::start(), memory());
    let config = with_brokers_of(SourceConfig { confluent: true, ..config }, &kafka);
    kafka.send_bytes("", &second(77, "b", 1.0));
    let server = SourceServer::start(&store, &config).await;
    reaches(&store, [Some(1), None]).await;
    server.stop().await;
    assert_eq!(names(&stored(&store, TABLE).await), ["b"]);
}
