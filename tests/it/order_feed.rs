//! A topic with orders, and the lake into which a source writes them. The tests of offsets and of source states share it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde_json::json;
use tempfile::TempDir;

use crate::broker::Broker;
use crate::cli::{client, outcome};
use crate::kafka::{lags, waiting};
use crate::server::{Server, Setup, until, until_async};

pub(crate) const TOPIC: &str = "orders";
pub(crate) const SOURCE: &str = "orders";
pub(crate) const GROUP: &str = "glasshouse";

/// A broker with a topic, and the lake that stores the topic's messages.
pub(crate) struct OrderFeed {
    pub(crate) broker: Broker,
    pub(crate) lake: PathBuf,
    partitions: i32,
    _folder: TempDir,
}

impl OrderFeed {
    /// Starts a broker and creates the topic with these settings.
    pub(crate) async fn start(partitions: i32, settings: &[(&str, &str)]) -> Self {
        let broker = Broker::start();
        broker.create_topic_with(TOPIC, partitions, settings).await;
        let folder = tempfile::tempdir().unwrap();
        Self { broker, lake: folder.path().to_owned(), partitions, _folder: folder }
    }

    /// Returns the settings of a server that reads the topic, with additional settings.
    pub(crate) fn setup(&self, more: &[(&str, &str)]) -> Setup {
        let settings = [
            ("SOURCES__ORDERS__KIND", "kafka"),
            ("SOURCES__ORDERS__BROKERS", self.broker.address.as_str()),
            ("SOURCES__ORDERS__TOPICS", TOPIC),
            ("SOURCES__ORDERS__GROUP", GROUP),
            ("SOURCES__ORDERS__TABLE", "samples"),
            ("SOURCES__ORDERS__OPTIONS__SESSION_TIMEOUT_MS", "1000"),
            ("SOURCES__ORDERS__OPTIONS__HEARTBEAT_INTERVAL_MS", "100"),
        ];
        let settings = settings.iter().chain(more).map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        Setup { lake: Some(self.lake.display().to_string()), settings: settings.collect(), ..Setup::default() }
    }

    /// Returns the end of each partition.
    pub(crate) fn ends(&self) -> BTreeMap<i32, i64> {
        self.broker.ends(TOPIC, self.partitions)
    }

    /// Waits until the source has read all partitions to the end and reports a lag of 0. Then checks that exactly the
    /// events with the given ids are stored, each of them once, and that no gap was reported.
    pub(crate) async fn expect_read<Id: AsRef<str>>(&self, server: &Server, ids: &[Id]) {
        let ends = self.ends();
        // The source commits a position to Kafka when every message before that position is stored.
        until("all positions are at the ends", || self.broker.committed(GROUP, TOPIC, self.partitions) == ends);
        let none: BTreeMap<i32, i64> = (0..self.partitions).map(|partition| (partition, 0)).collect();
        until_async("the lag of the source is 0", async || {
            let metric = server.metric("glasshouse_source_lag_messages{").await;
            (lags(&[server]), metric, waiting(server).await) == (none.clone(), 0.0, Some(0))
        })
        .await;
        let stored = server.ask("acme", "SELECT id FROM samples ORDER BY id").unwrap();
        let mut ids: Vec<&str> = ids.iter().map(AsRef::as_ref).collect();
        ids.sort_unstable();
        assert_eq!(stored.lines().skip(1).collect::<Vec<_>>(), ids);
        assert_eq!(server.metric("glasshouse_source_stopped{").await, 0.0, "the source reported a gap");
        assert_eq!(server.metric("glasshouse_source_skipped_messages_total{").await, 0.0, "the source skipped a gap");
    }

    /// Pauses or resumes the source.
    pub(crate) fn set_paused(&self, server: &Server, is_paused: bool) {
        let action = if is_paused { "pause" } else { "resume" };
        let (succeeded, text) = outcome(&client(server, "admin", &["sources", action, SOURCE]));
        assert!(succeeded, "{text}");
    }
}

pub(crate) fn event(id: &str) -> String {
    json!({ "tenant": "acme", "id": id, "at": 1_704_067_200_000_000_i64 }).to_string()
}
