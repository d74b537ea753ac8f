//! Tests of records that a consumer does not return: control records of transactions, and messages from aborted
//! transactions. These records must not count as lag, either before or after a restart. If the broker deletes these
//! records, the source must not report missing messages.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::json;
use tempfile::TempDir;

use crate::broker::Broker;
use crate::cli::{client, outcome};
use crate::kafka::{lags, offsets_of, state, waiting};
use crate::server::{Server, Setup, until, until_async};

const TOPIC: &str = "orders";
const SOURCE: &str = "orders";
const GROUP: &str = "glasshouse";
const PARTITIONS: i32 = 2;

/// A topic with messages that are sent in transactions, and the lake that stores the messages.
struct Feed {
    broker: Broker,
    lake: PathBuf,
    _folder: TempDir,
}

impl Feed {
    async fn start() -> Self {
        let broker = Broker::start();
        broker.create_topic(TOPIC, PARTITIONS).await;
        let folder = tempfile::tempdir().unwrap();
        Self { broker, lake: folder.path().to_owned(), _folder: folder }
    }

    fn setup(&self) -> Setup {
        let settings = [
            ("SOURCES__ORDERS__KIND", "kafka"),
            ("SOURCES__ORDERS__BROKERS", self.broker.address.as_str()),
            ("SOURCES__ORDERS__TOPICS", TOPIC),
            ("SOURCES__ORDERS__GROUP", GROUP),
            ("SOURCES__ORDERS__TABLE", "samples"),
            ("SOURCES__ORDERS__OPTIONS__SESSION_TIMEOUT_MS", "1000"),
            ("SOURCES__ORDERS__OPTIONS__HEARTBEAT_INTERVAL_MS", "100"),
        ];
        let settings = settings.map(|(key, value)| (key.to_owned(), value.to_owned()));
        Setup { lake: Some(self.lake.display().to_string()), settings: settings.into(), ..Setup::default() }
    }

    /// Waits until the source has read all partitions to the end and reports a lag of 0. Then checks that exactly the
    /// events with the given ids are stored.
    async fn expect_read(&self, server: &Server, ids: &[&str]) {
        let ends = self.broker.ends(TOPIC, PARTITIONS);
        // The source commits a position to Kafka when every message before that position is stored.
        until("all positions are at the ends", || self.broker.committed(GROUP, TOPIC, PARTITIONS) == ends);
        let none: BTreeMap<i32, i64> = (0..PARTITIONS).map(|partition| (partition, 0)).collect();
        until_async("the lag of the source is 0", async || {
            let metric = server.metric("glasshouse_source_lag_messages{").await;
            (lags(&[server]), metric, waiting(server).await) == (none.clone(), 0.0, Some(0))
        })
        .await;
        let stored = server.ask("acme", "SELECT id FROM samples ORDER BY id").unwrap();
        assert_eq!(stored.lines().skip(1).collect::<Vec<_>>(), ids);
    }
}

fn event(id: &str) -> String {
    json!({ "tenant": "acme", "id": id, "at": 1_704_067_200_000_000_i64 }).to_string()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ends_of_transactions_are_not_lag() {
    let feed = Feed::start().await;
    let mut server = Server::start(&feed.setup());
    feed.expect_read(&server, &[]).await;

    let open = feed.broker.transaction(TOPIC, &[(0, event("a")), (1, event("b"))]);
    feed.expect_read(&server, &[]).await;
    open.commit();
    feed.expect_read(&server, &["a", "b"]).await;
    // All records after the last message are records that a consumer does not return.
    for id in ["x", "y", "z"] {
        feed.broker.transaction(TOPIC, &[(1, event(id))]).abort();
    }
    feed.expect_read(&server, &["a", "b"]).await;

    server.kill();
    server = Server::start(&feed.setup());
    feed.expect_read(&server, &["a", "b"]).await;

    // A paused source must measure its lag from its committed position.
    let (succeeded, text) = outcome(&client(&server, "admin", &["sources", "pause", SOURCE]));
    assert!(succeeded, "{text}");
    until("the source is paused", || state(&server)["state"] == "paused");
    feed.broker.transaction(TOPIC, &[(0, event("c"))]).commit();
    until("the lag is one message and the end of its transaction", || {
        lags(&[&server]) == BTreeMap::from([(0, 2), (1, 0)])
    });
    let (succeeded, text) = outcome(&client(&server, "admin", &["sources", "resume", SOURCE]));
    assert!(succeeded, "{text}");
    feed.expect_read(&server, &["a", "b", "c"]).await;
    assert!(server.stop(), "the server did not stop cleanly on SIGTERM");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deleted_ends_of_transactions_are_not_a_gap() {
    let feed = Feed::start().await;
    let mut server = Server::start(&feed.setup());
    feed.broker.transaction(TOPIC, &[(0, event("a")), (1, event("b"))]).commit();
    feed.broker.transaction(TOPIC, &[(1, event("x"))]).abort();
    feed.expect_read(&server, &["a", "b"]).await;
    // The next batch has no message from partition 1, but its commit must also contain the position of partition 1.
    feed.broker.transaction(TOPIC, &[(0, event("c"))]).commit();
    feed.expect_read(&server, &["a", "b", "c"]).await;
    feed.broker.send_to(TOPIC, 0, &event("d"));
    feed.expect_read(&server, &["a", "b", "c", "d"]).await;
    let ends = feed.broker.ends(TOPIC, PARTITIONS);
    assert_eq!(offsets_of(&feed.lake, SOURCE, TOPIC), ends, "the positions in the table");

    server.kill();
    feed.broker.delete_all(TOPIC, PARTITIONS).await;
    server = Server::start(&feed.setup());
    feed.expect_read(&server, &["a", "b", "c", "d"]).await;
    feed.broker.transaction(TOPIC, &[(0, event("e")), (1, event("f"))]).commit();
    feed.expect_read(&server, &["a", "b", "c", "d", "e", "f"]).await;
    assert_eq!(server.metric("glasshouse_source_stopped{").await, 0.0, "the source reported a gap");
    assert!(server.stop(), "the server did not stop cleanly on SIGTERM");
}
