//! Tests of sources with a real Kafka broker. The tests kill servers and the broker with `kill -9`, and fill the disk.
//! Every message must be stored exactly once, either in the table or in the quarantine.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::broker::Broker;
use crate::cli::{client, outcome};
use crate::client_suite::run_python;
use crate::disk::Disk;
use crate::requirements::needs;
use crate::server::{Server, Setup, until, until_async};

const TOPIC: &str = "events";
const PARTITIONS: i32 = 4;
const TENANTS: [&str; 3] = ["acme", "globex", "initech"];
/// The number of events for each tenant.
const EVENTS: usize = 14_000;
/// The number of events that one round sends for each tenant.
const ROUND: usize = 500;
/// The number of times that a test kills a server.
const CRASHES: usize = 10;
/// The indexes of the crashes in which the test kills the broker before the server.
const BROKER_CRASHES: [usize; 2] = [3, 7];

const CHECKS: &[&str] = &[
    "each_tenant_sees_its_messages_once",
    "sources_have_no_lag",
    "the_lake_holds_each_message_once",
    "the_quarantine_holds_each_bad_message_once",
];

/// A topic, and the lake that stores its messages.
struct Feed {
    broker: Broker,
    lake: PathBuf,
    sent: usize,
    bad: Vec<String>,
    _folder: TempDir,
}

impl Feed {
    async fn start() -> Self {
        let broker = Broker::start();
        broker.create_topic(TOPIC, PARTITIONS).await;
        let folder = tempfile::tempdir().unwrap();
        Self { broker, lake: folder.path().to_owned(), sent: 0, bad: Vec::new(), _folder: folder }
    }

    /// Returns the settings of a server that reads the topic. The batches are small, so some of them are in progress
    /// when the server is killed.
    fn setup(&self) -> Setup {
        let settings = [
            ("SOURCES__EVENTS__KIND", "kafka"),
            ("SOURCES__EVENTS__BROKERS", self.broker.address.as_str()),
            ("SOURCES__EVENTS__TOPICS", TOPIC),
            ("SOURCES__EVENTS__GROUP", "glasshouse"),
            ("SOURCES__EVENTS__TABLE", "samples"),
            ("SOURCES__EVENTS__OPTIONS__SESSION_TIMEOUT_MS", "1000"),
            ("SOURCES__EVENTS__OPTIONS__HEARTBEAT_INTERVAL_MS", "100"),
            ("INGEST__BATCH_ROWS_MAX", "400"),
        ];
        let settings = settings.map(|(key, value)| (key.to_owned(), value.to_owned()));
        Setup { lake: Some(self.lake.display().to_string()), settings: settings.into(), ..Setup::default() }
    }

    /// Sends the next events for each tenant. Some events are sent twice. The round also contains messages that cannot
    /// be stored.
    fn send_round(&mut self) {
        let mut messages = Vec::new();
        for index in self.sent..self.sent + ROUND {
            for tenant in TENANTS {
                let key = format!("{tenant}-{index}");
                let event = json!({
                    "tenant": tenant, "id": key, "small": index,
                    "at": 1_704_067_200_000_000_i64 + i64::try_from(index).unwrap() * 1_000_000,
                });
                messages.push((key.clone(), event.to_string()));
                // Send some events again, immediately or much later. A duplicate has the same key as the original, so
                // it goes to the same partition.
                if index % 10 == 3 {
                    messages.push((key.clone(), event.to_string()));
                }
                if let Some(old) = index.checked_sub(3 * ROUND).filter(|old| old % 7 == 2) {
                    let key = format!("{tenant}-{old}");
                    let mut event = event.clone();
                    event["id"] = json!(key);
                    messages.push((key, event.to_string()));
                }
                let bad = match index % 50 {
                    7 => format!("{{\"tenant\": \"{tenant}\", \"broken\": {index}"),
                    21 => json!({ "id": key, "at": 1, "nobodys": tenant }).to_string(),
                    _ => continue,
                };
                messages.push((key, bad.clone()));
                self.bad.push(bad);
            }
        }
        self.sent += ROUND;
        self.broker.send(TOPIC, &messages);
    }

    /// Waits until all messages that have been sent are stored.
    fn wait_for_all(&self) {
        let ends = self.broker.ends(TOPIC, PARTITIONS);
        until("everything that was sent is stored", || offsets(&self.lake) == ends);
    }

    /// Sends two rounds of messages, and waits for `count` commits. Most of the messages are not committed yet when the
    /// function returns.
    fn send_and_wait_for_commits(&mut self, count: usize) {
        let before = entries(&self.lake).len();
        self.send_round();
        self.send_round();
        until("the expected number of commits", || entries(&self.lake).len() >= before + count);
    }

    fn check(&self, servers: &[&Server], lake: &Path) {
        let mut facts: Value = servers[0].facts();
        facts["lake"] = json!(lake);
        facts["flights"] = servers.iter().map(|server| json!(server.flight)).collect();
        facts["tenants"] = json!(TENANTS);
        facts["events"] = json!(self.sent);
        facts["bad"] = json!(self.bad);
        run_python("kafka_suite.py", &servers[0].write_facts(&facts), CHECKS);
    }
}

/// Returns the entries of the table's Delta log, in order.
fn entries(lake: &Path) -> Vec<String> {
    let Ok(log) = fs::read_dir(lake.join("samples/_delta_log")) else { return Vec::new() };
    let mut paths: Vec<_> = log.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|kind| kind == "json"));
    paths.sort();
    paths.iter().filter_map(|path| fs::read_to_string(path).ok()).collect()
}

/// Returns the next offset of each partition, as stored in the table.
fn offsets(lake: &Path) -> BTreeMap<i32, i64> {
    offsets_of(lake, "events", TOPIC)
}

/// Returns the next offset of each partition of a source, as stored in the source's table.
pub(crate) fn offsets_of(lake: &Path, source: &str, topic: &str) -> BTreeMap<i32, i64> {
    let prefix = format!("kafka:{source}:{topic}:");
    let mut offsets = BTreeMap::new();
    for entry in entries(lake) {
        for line in entry.lines() {
            let line: Value = serde_json::from_str(line).unwrap();
            let app = line["txn"]["appId"].as_str().and_then(|app| app.strip_prefix(&prefix));
            if let Some(partition) = app {
                offsets.insert(partition.parse().unwrap(), line["txn"]["version"].as_i64().unwrap());
            }
        }
    }
    offsets
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_are_stored_once_although_servers_are_killed() {
    needs!(Python, Kafka);
    let mut feed = Feed::start().await;
    feed.send_round();
    let setup = feed.setup();
    let mut server = Server::start(&setup);
    for crash in 0..CRASHES {
        // In each round, kill the server at a different point.
        feed.send_and_wait_for_commits(1 + crash % 3);
        if BROKER_CRASHES.contains(&crash) {
            feed.broker.crash();
            // The server is still running, so it must read the messages that are sent now.
            feed.send_and_wait_for_commits(1);
        }
        server.kill();
        server = Server::start(&setup);
    }
    while feed.sent < EVENTS {
        feed.send_round();
    }
    feed.wait_for_all();
    feed.check(&[&server], &feed.lake);
    assert!(server.stop(), "the server did not stop cleanly on SIGTERM");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_share_a_topic() {
    needs!(Python, Kafka);
    let mut feed = Feed::start().await;
    let setup = feed.setup();
    // The first server creates the tables, and the second server opens them.
    let mut servers = vec![Server::start(&setup), Server::start(&setup)];
    for _ in 0..CRASHES {
        feed.send_and_wait_for_commits(2);
        // Kill the older server. The newer server takes over its partitions, and another server joins.
        servers.remove(0).kill();
        servers.push(Server::start(&setup));
    }
    while feed.sent < EVENTS {
        feed.send_round();
    }
    feed.wait_for_all();
    feed.check(&[&servers[0], &servers[1]], &feed.lake);
    for server in servers {
        assert!(server.stop(), "the server did not stop cleanly on SIGTERM");
    }
}

/// The size of the disk in bytes. The messages of the test need far less, so only the filler can fill the disk.
const DISK_BYTES: usize = 128 << 20;
/// The test waits for this many failed commit attempts, to be sure that the source has retried.
const FAILURES: f64 = 6.0;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_resumes_when_a_full_disk_has_space_again() {
    needs!(Mount, Python, Kafka);
    let disk = Disk::mount(DISK_BYTES);
    let mut feed = Feed { lake: disk.folder("lake"), ..Feed::start().await };
    let mut setup = feed.setup();
    setup.settings.push(("INGEST__COMMIT_ATTEMPTS_MAX".to_owned(), "2".to_owned()));
    let server = Server::start(&setup);
    feed.send_and_wait_for_commits(2);
    disk.fill();
    feed.send_round();
    until_async("commits fail and messages are waiting", async || {
        disk.fill();
        let failures = server.metric("glasshouse_commit_failures_total{table=\"samples").await;
        failures >= FAILURES && waiting(&server).await > Some(0)
    })
    .await;
    server.ask("acme", "SELECT count(*) FROM samples").expect("queries work while the disk is full");
    let failing = state(&server);
    let error = &failing["last_error"];
    assert_eq!(
        [&failing["state"], &error["kind"], &error["resolved"]],
        [&json!("failing"), &json!("store"), &json!(false)]
    );
    disk.free();
    feed.send_round();
    feed.wait_for_all();
    feed.check(&[&server], disk.copy("lake").path());
    let running = state(&server);
    assert_eq!([&running["state"], &running["last_error"]["resolved"]], [&json!("running"), &json!(true)]);
    assert!(server.stop(), "the server did not stop cleanly on SIGTERM");
}

/// Returns the number of messages that the table's source has not committed yet, or `None` if the number is unknown.
pub(crate) async fn waiting(server: &Server) -> Option<u64> {
    let (_, fresh) = server.get("admin", "/v1/tables/samples/freshness").await;
    serde_json::from_str::<Value>(&fresh).unwrap()["source_lag_messages"].as_u64()
}

/// Returns the state of the server's only source, as `glasshouse sources list` reports it.
pub(crate) fn state(server: &Server) -> Value {
    let (succeeded, text) = outcome(&client(server, "admin", &["sources", "list", "--json"]));
    assert!(succeeded, "{text}");
    serde_json::from_str::<Value>(&text).unwrap()["sources"][0].take()
}

/// Returns the lag of each partition that the given servers read.
pub(crate) fn lags(servers: &[&Server]) -> BTreeMap<i32, i64> {
    let mut lags = BTreeMap::new();
    for server in servers {
        for partition in state(server)["partitions"].as_array().unwrap() {
            if let Some(lag) = partition["lag"].as_i64() {
                lags.insert(i32::try_from(partition["partition"].as_i64().unwrap()).unwrap(), lag);
            }
        }
    }
    lags
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_pause_stops_all_servers_and_survives_restarts() {
    needs!(Python, Kafka);
    let mut feed = Feed::start().await;
    let setup = feed.setup();
    let mut servers = vec![Server::start(&setup), Server::start(&setup)];
    feed.send_round();
    feed.wait_for_all();
    // Pause the source while the servers are reading.
    feed.send_and_wait_for_commits(1);
    let (succeeded, text) = outcome(&client(&servers[0], "admin", &["sources", "pause", "events"]));
    assert!(succeeded && text.contains("paused"), "{text}");
    let paused_offsets = offsets(&feed.lake);
    feed.send_round();
    let ends = feed.broker.ends(TOPIC, PARTITIONS);
    let expected_lag: BTreeMap<i32, i64> =
        ends.iter().map(|(partition, end)| (*partition, end - paused_offsets[partition])).collect();
    // Both servers must report the lag of the paused source.
    until("both servers report the lag", || lags(&servers.iter().collect::<Vec<_>>()) == expected_lag);
    assert_eq!(offsets(&feed.lake), paused_offsets, "something was stored while the source was paused");

    servers.remove(0).kill();
    servers.push(Server::start(&setup));
    until("the lag of the killed server's partitions is reported again", || {
        lags(&servers.iter().collect::<Vec<_>>()) == expected_lag
    });
    for server in &servers {
        assert_eq!(state(server)["state"], "paused");
    }
    assert_eq!(offsets(&feed.lake), paused_offsets, "a restart ended the pause");

    let (succeeded, text) = outcome(&client(&servers[1], "admin", &["sources", "resume", "events"]));
    assert!(succeeded && text.contains("running"), "{text}");
    feed.wait_for_all();
    feed.check(&[&servers[0], &servers[1]], &feed.lake);
    for server in servers {
        assert!(server.stop(), "the server did not stop cleanly on SIGTERM");
    }
}
