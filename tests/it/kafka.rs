//! A real Kafka, real servers, and `kill -9`: every message is stored once, or is in quarantine once. Also when the disk was
//! full.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::broker::Broker;
use crate::command::{client, told};
use crate::disk::Disk;
use crate::needs::needs;
use crate::server::{Server, Setup, until, until_it};
use crate::suite::run_python;

const TOPIC: &str = "events";
const PARTITIONS: i32 = 4;
const TENANTS: [&str; 3] = ["acme", "globex", "initech"];
/// Events of each tenant.
const EVENTS: usize = 14_000;
/// Events that are sent at once.
const ROUND: usize = 500;
/// How often a server is killed.
const CRASHES: usize = 10;
/// The crashes with which the broker dies as well.
const BROKER_CRASHES: [usize; 2] = [3, 7];

const CHECKS: &[&str] = &[
    "each_tenant_sees_its_messages_once",
    "sources_are_not_behind",
    "the_lake_holds_each_message_once",
    "the_quarantine_holds_each_bad_message_once",
];

/// A topic that is being filled, and the lake that it should end up in.
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

    /// A server that reads the topic. Small batches: a crash then finds some of them under way.
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

    /// Sends the next events of each tenant: some twice, and some that cannot be stored between them.
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
                // A producer that sends again, now and much later: the same key goes to the same partition.
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

    /// Waits until the table has read all that was sent.
    fn wait_for_all(&self) {
        let ends = self.broker.ends(TOPIC, PARTITIONS);
        until("all that was sent is read", || offsets(&self.lake) == ends);
    }

    /// Sends two rounds, of which some commits are then there, and most are not.
    fn send_and_wait_for_commits(&mut self, count: usize) {
        let before = entries(&self.lake).len();
        self.send_round();
        self.send_round();
        until("the table goes on", || entries(&self.lake).len() >= before + count);
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

/// The entries of the table's log, in order.
fn entries(lake: &Path) -> Vec<String> {
    let Ok(log) = fs::read_dir(lake.join("samples/_delta_log")) else { return Vec::new() };
    let mut paths: Vec<_> = log.map(|entry| entry.unwrap().path()).collect();
    paths.retain(|path| path.extension().is_some_and(|kind| kind == "json"));
    paths.sort();
    paths.iter().filter_map(|path| fs::read_to_string(path).ok()).collect()
}

/// The next offset of each partition, as the table holds it.
fn offsets(lake: &Path) -> BTreeMap<i32, i64> {
    offsets_of(lake, "events", TOPIC)
}

/// The same of any source that reads into this table.
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
async fn killed_while_it_reads() {
    needs!(Python, Kafka);
    let mut feed = Feed::start().await;
    feed.send_round();
    let setup = feed.setup();
    let mut server = Server::start(&setup);
    for crash in 0..CRASHES {
        // Each time at another point.
        feed.send_and_wait_for_commits(1 + crash % 3);
        if BROKER_CRASHES.contains(&crash) {
            feed.broker.crash();
            // The server has lived on: what is sent now arrives.
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
    assert!(server.stop(), "the server should stop by itself when asked");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_share_a_topic() {
    needs!(Python, Kafka);
    let mut feed = Feed::start().await;
    let setup = feed.setup();
    // One after the other: the first makes the tables, the second finds them.
    let mut servers = vec![Server::start(&setup), Server::start(&setup)];
    for _ in 0..CRASHES {
        feed.send_and_wait_for_commits(2);
        // The older one dies, the other takes its partitions over, and a new one joins.
        servers.remove(0).kill();
        servers.push(Server::start(&setup));
    }
    while feed.sent < EVENTS {
        feed.send_round();
    }
    feed.wait_for_all();
    feed.check(&[&servers[0], &servers[1]], &feed.lake);
    for server in servers {
        assert!(server.stop(), "the server should stop by itself when asked");
    }
}

/// Room of the disk, far more than the test needs.
const DISK_BYTES: usize = 128 << 20;
/// Failed attempts to store that show that the source tries on.
const FAILURES: f64 = 6.0;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_source_goes_on_when_a_full_disk_has_room_again() {
    needs!(Mount, Python, Kafka);
    let disk = Disk::mount(DISK_BYTES);
    let mut feed = Feed { lake: disk.folder("lake"), ..Feed::start().await };
    let mut setup = feed.setup();
    setup.settings.push(("INGEST__COMMIT_ATTEMPTS_MAX".to_owned(), "2".to_owned()));
    let server = Server::start(&setup);
    feed.send_and_wait_for_commits(2);
    disk.fill();
    feed.send_round();
    until_it("nothing can be stored", async || {
        disk.fill();
        let failures = server.metric("glasshouse_commit_failures_total{table=\"samples").await;
        failures >= FAILURES && waiting(&server).await > Some(0)
    })
    .await;
    server.ask("acme", "SELECT count(*) FROM samples").expect("queries go on");
    disk.free();
    feed.send_round();
    feed.wait_for_all();
    feed.check(&[&server], disk.copy("lake").path());

    assert!(server.stop(), "the server should stop by itself when asked");
}

/// Messages that the table's sources have not committed yet, if that is known.
pub(crate) async fn waiting(server: &Server) -> Option<u64> {
    let (_, fresh) = server.get("admin", "/v1/tables/samples/freshness").await;
    serde_json::from_str::<Value>(&fresh).unwrap()["source_lag_messages"].as_u64()
}

/// What a server says of its one source.
pub(crate) fn state(server: &Server) -> Value {
    let (well, text) = told(&client(server, "admin", &["sources", "list", "--json"]));
    assert!(well, "{text}");
    serde_json::from_str::<Value>(&text).unwrap()["sources"][0].take()
}

/// How far the partitions are behind that these servers read.
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
async fn a_pause_holds_all_servers_and_lasts_through_restarts() {
    needs!(Python, Kafka);
    let mut feed = Feed::start().await;
    let setup = feed.setup();
    let mut servers = vec![Server::start(&setup), Server::start(&setup)];
    feed.send_round();
    feed.wait_for_all();
    // While they work.
    feed.send_and_wait_for_commits(1);
    let (well, text) = told(&client(&servers[0], "admin", &["sources", "pause", "events"]));
    assert!(well && text.contains("paused"), "{text}");
    let held = offsets(&feed.lake);
    feed.send_round();
    let ends = feed.broker.ends(TOPIC, PARTITIONS);
    let behind: BTreeMap<i32, i64> = ends.iter().map(|(partition, end)| (*partition, end - held[partition])).collect();
    // Both tell how much there is: they know of it, and do not take it.
    until("the lag is told", || lags(&servers.iter().collect::<Vec<_>>()) == behind);
    assert_eq!(offsets(&feed.lake), held, "behind the pause nothing is stored");

    servers.remove(0).kill();
    servers.push(Server::start(&setup));
    until("the partitions of the killed one are watched again", || lags(&servers.iter().collect::<Vec<_>>()) == behind);
    for server in &servers {
        assert_eq!(state(server)["state"], "paused");
    }
    assert_eq!(offsets(&feed.lake), held, "a restart does not end the pause");

    let (well, text) = told(&client(&servers[1], "admin", &["sources", "resume", "events"]));
    assert!(well && text.contains("running"), "{text}");
    feed.wait_for_all();
    feed.check(&[&servers[0], &servers[1]], &feed.lake);
    for server in servers {
        assert!(server.stop(), "the server should stop by itself when asked");
    }
}
