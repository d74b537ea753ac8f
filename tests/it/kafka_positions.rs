//! Tests of records that a consumer does not return: control records of transactions, and messages from aborted
//! transactions. These records must not count as lag, either before or after a restart. If the broker deletes these
//! records, the source must not report missing messages.

use std::collections::BTreeMap;
use std::time::Duration;

use rdkafka::producer::{BaseProducer, BaseRecord, Producer as _};

use crate::kafka::{lags, offsets_of, state};
use crate::order_feed::{OrderFeed, SOURCE, TOPIC, event};
use crate::requirements::needs;
use crate::server::{Server, until};

const PARTITIONS: i32 = 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ends_of_transactions_are_not_lag() {
    needs!(Kafka);
    let feed = OrderFeed::start(PARTITIONS, &[]).await;
    let mut server = Server::start(&feed.setup(&[]));
    feed.expect_read::<&str>(&server, &[]).await;

    let open = feed.broker.transaction(TOPIC, &[(0, event("a")), (1, event("b"))]);
    feed.expect_read::<&str>(&server, &[]).await;
    open.commit();
    feed.expect_read(&server, &["a", "b"]).await;
    // All records after the last message are records that a consumer does not return.
    for id in ["x", "y", "z"] {
        feed.broker.transaction(TOPIC, &[(1, event(id))]).abort();
    }
    feed.expect_read(&server, &["a", "b"]).await;

    server.kill();
    server = Server::start(&feed.setup(&[]));
    feed.expect_read(&server, &["a", "b"]).await;

    // A paused source must measure its lag from its committed position.
    feed.set_paused(&server, true);
    until("the source is paused", || state(&server)["state"] == "paused");
    feed.broker.transaction(TOPIC, &[(0, event("c"))]).commit();
    until("the lag is one message and the end of its transaction", || {
        lags(&[&server]) == BTreeMap::from([(0, 2), (1, 0)])
    });
    feed.set_paused(&server, false);
    feed.expect_read(&server, &["a", "b", "c"]).await;
    assert!(server.stop(), "the server did not stop cleanly on SIGTERM");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_ends_of_transactions_are_not_a_gap() {
    needs!(Kafka);
    let feed = OrderFeed::start(PARTITIONS, &[]).await;
    let mut server = Server::start(&feed.setup(&[]));
    feed.broker.transaction(TOPIC, &[(0, event("a")), (1, event("b"))]).commit();
    feed.broker.transaction(TOPIC, &[(1, event("x"))]).abort();
    feed.expect_read(&server, &["a", "b"]).await;
    // The next batch has no message from partition 1, but its commit must also contain the position of partition 1.
    feed.broker.transaction(TOPIC, &[(0, event("c"))]).commit();
    feed.expect_read(&server, &["a", "b", "c"]).await;
    feed.broker.send_to(TOPIC, 0, &event("d"));
    feed.expect_read(&server, &["a", "b", "c", "d"]).await;
    assert_eq!(offsets_of(&feed.lake, SOURCE, TOPIC), feed.ends(), "the positions in the table");

    server.kill();
    feed.broker.delete_all(TOPIC, PARTITIONS).await;
    server = Server::start(&feed.setup(&[]));
    feed.expect_read(&server, &["a", "b", "c", "d"]).await;
    feed.broker.transaction(TOPIC, &[(0, event("e")), (1, event("f"))]).commit();
    feed.expect_read(&server, &["a", "b", "c", "d", "e", "f"]).await;
    assert!(server.stop(), "the server did not stop cleanly on SIGTERM");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopped_server_has_stored_the_ends_of_transactions() {
    needs!(Kafka);
    let feed = OrderFeed::start(PARTITIONS, &[]).await;
    let server = Server::start(&feed.setup(&[]));
    feed.broker.transaction(TOPIC, &[(0, event("a")), (1, event("b"))]).commit();
    feed.expect_read(&server, &["a", "b"]).await;
    feed.broker.transaction(TOPIC, &[(1, event("x"))]).abort();
    feed.expect_read(&server, &["a", "b"]).await;
    // No message follows, so only the stop can store these positions within a minute.
    assert!(server.stop(), "the server did not stop cleanly on SIGTERM");
    assert_eq!(offsets_of(&feed.lake, SOURCE, TOPIC), feed.ends(), "the positions in the table");
    feed.broker.delete_all(TOPIC, PARTITIONS).await;
    feed.broker.send_to(TOPIC, 0, &event("c"));
    let server = Server::start(&feed.setup(&[]));
    feed.expect_read(&server, &["a", "b", "c"]).await;
    assert!(server.stop(), "the server did not stop cleanly on SIGTERM");
}

/// The number of transactions, of which every third is aborted.
const TRANSACTIONS: usize = 360;
/// The number of partitions of the topic with many transactions.
const MANY_PARTITIONS: i32 = 4;
/// The numbers of the transactions during which a server is killed.
const KILLS: [usize; 3] = [61, 145, 290];
/// The time limit for one request of the producer.
const REQUEST_TIME_MAX: Duration = Duration::from_secs(120);
/// The number of the transaction during which a server is stopped.
const STOP: usize = 220;

/// Sends a transaction. The number determines its messages, and whether it is committed or aborted. Calls `midway` while
/// the transaction is open. Returns the ids of the committed events.
fn send_transaction(producer: &BaseProducer, number: usize, midway: impl FnOnce()) -> Vec<String> {
    producer.begin_transaction().unwrap();
    let mut ids = Vec::new();
    for partition in 0..MANY_PARTITIONS {
        for copy in 0..(number + usize::try_from(partition).unwrap()) % 3 {
            let id = format!("{number}-{partition}-{copy}");
            let payload = event(&id);
            let record = BaseRecord::<(), _>::to(TOPIC).partition(partition).payload(&payload);
            producer.send(record).map_err(|(error, _)| error).unwrap();
            ids.push(id);
        }
    }
    // The messages of an aborted transaction must be in the log, too.
    producer.flush(REQUEST_TIME_MAX).unwrap();
    midway();
    if number % 3 == 2 {
        producer.abort_transaction(REQUEST_TIME_MAX).unwrap();
        return Vec::new();
    }
    producer.commit_transaction(REQUEST_TIME_MAX).unwrap();
    ids
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn committed_messages_are_stored_once_although_servers_are_killed_within_transactions() {
    needs!(Kafka);
    let feed = OrderFeed::start(MANY_PARTITIONS, &[]).await;
    // The batches are small, so most of them start and end within a transaction.
    let setup = feed.setup(&[("INGEST__BATCH_ROWS_MAX", "20"), ("INGEST__BATCH_AGE_MAX", "100ms")]);
    let producer = feed.broker.transactional_producer();
    let (mut server, mut committed) = (Some(Server::start(&setup)), Vec::new());
    let stored = || offsets_of(&feed.lake, SOURCE, TOPIC).values().sum::<i64>();
    let mut before = 0;
    for number in 0..TRANSACTIONS {
        let ids = send_transaction(&producer, number, || {
            if KILLS.contains(&number) || number == STOP {
                until("this server has stored messages", || stored() > before);
                let old = server.take().expect("the previous transaction has left a server");
                if number == STOP {
                    assert!(old.stop(), "the server did not stop cleanly on SIGTERM");
                } else {
                    old.kill();
                }
                before = stored();
                server = Some(Server::start(&setup));
            }
        });
        committed.extend(ids);
    }
    let server = server.expect("the last transaction has left a server");
    assert!(committed.len() > TRANSACTIONS, "{} messages were committed", committed.len());
    feed.expect_read(&server, &committed).await;
    server.kill();
    let server = Server::start(&setup);
    feed.expect_read(&server, &committed).await;
    assert!(server.stop(), "the server did not stop cleanly on SIGTERM");
}
