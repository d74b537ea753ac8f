//! Tests of single messages: the position in the error of a rejected message, and messages that begin with a byte order
//! mark.

use super::tests::{Kafka, SourceServer, columns, event, ids, reaches, sorted_ids};
use crate::config::{SourceConfig, SourceFormat, TenantFrom};
use crate::ingest::testing::{QUARANTINE, memory};

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_message_names_the_position_in_the_message() {
    let (kafka, store) = (Kafka::start(), memory());
    // All messages are in one batch.
    let bad = ["{\"event_id\": ?}", "{\"event_id\":\"x\",\"mos\":}"].map(str::to_owned);
    let [first, second] = bad.clone();
    kafka.send(0, [event("a"), first, format!("\u{feff}{}", event("b")), second, event("c")]);
    let server = SourceServer::start(&store, &kafka.source()).await;
    reaches(&store, [Some(5), None]).await;
    server.stop().await;
    assert_eq!(ids(&store, "acme").await, sorted_ids(["a", "b", "c"]));
    let rejected = columns(&store, QUARANTINE, &["payload", "reason", "detail"]).await;
    let detail = |position: usize| format!("expected a value at byte {position} of the message");
    let expected = |index: usize, position| [bad[index].clone(), "malformed".to_owned(), detail(position)];
    assert_eq!(rejected, [expected(0, 13), expected(1, 22)]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_with_a_byte_order_mark_is_not_a_tenant() {
    let (kafka, store) = (Kafka::start(), memory());
    for (key, id) in [("\u{feff}acme", "a"), ("acme", "b")] {
        kafka.send_bytes(key, event(id).as_bytes());
    }
    let config = SourceConfig { tenant: TenantFrom::Key, format: SourceFormat::Json, ..kafka.source() };
    let server = SourceServer::start(&store, &config).await;
    reaches(&store, [Some(2), None]).await;
    server.stop().await;
    assert_eq!(ids(&store, "acme").await, ["b"]);
    let rejected = columns(&store, QUARANTINE, &["tenant_id", "reason", "detail"]).await;
    let detail = "the message's key: a tenant id must not contain a byte order mark (U+FEFF): remove it";
    assert_eq!(rejected, [["", "missing_tenant", detail]]);
}
