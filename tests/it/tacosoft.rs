//! TacoSoft from end to end, on its own configuration: orders change in a real PostgreSQL, and come through Debezium and Kafka
//! to two restaurants. On the way the server and Debezium are killed.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::needs::needs;
use crate::server::{Server, Setup, until, wait_for};
use crate::suite::{python, run_python, script};

/// Two of the restaurants: the largest, and another.
const TENANTS: [&str; 2] = ["fuego", "verde"];
/// Changes of orders that are made at once.
const ROUND: usize = 500;

const CHECKS: &[&str] = &[
    "orders_by_state_are_the_databases",
    "each_order_is_flattened_and_enriched",
    "the_history_has_each_change_once",
    "deleted_orders_are_in_the_history_only",
    "a_restaurant_sees_its_own_orders_only",
    "nothing_is_stored_twice_or_refused",
];

/// PostgreSQL, Kafka and Kafka Connect with Debezium. They end with their value.
struct Parts {
    child: Child,
    facts: Value,
    _folder: TempDir,
}

impl Parts {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ready = folder.path().join("ready.json");
        let mut command = python();
        command.arg(demo("parts.py")).arg(&ready);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let facts = wait_for(&ready, &mut child, || "see the messages of parts.py above".to_owned());
        Self { child, facts, _folder: folder }
    }

    fn port(&self, part: &str) -> u64 {
        self.facts[part].as_u64().unwrap()
    }

    /// A server that reads the orders, with the demo's own tables, source, transform and lookup. Small batches: a crash
    /// then finds some of them under way.
    fn setup(&self, lake: &Path) -> Setup {
        let settings = [
            ("SOURCES__ORDERS__BROKERS", format!("127.0.0.1:{}", self.port("kafka"))),
            ("SOURCES__ORDERS__OPTIONS__SESSION_TIMEOUT_MS", "1000".into()),
            ("SOURCES__ORDERS__OPTIONS__HEARTBEAT_INTERVAL_MS", "100".into()),
            ("LOOKUPS__RESTAURANTS__FILE", self.facts["restaurants"].as_str().unwrap().into()),
            ("INGEST__BATCH_ROWS_MAX", "50".into()),
        ];
        Setup {
            config: Some(demo("glasshouse.toml")),
            lake: Some(lake.display().to_string()),
            settings: settings.map(|(key, value)| (key.to_owned(), value)).into(),
            ..Setup::default()
        }
    }

    /// Guests order, kitchens cook.
    fn make_changes(&self, seed: usize) {
        let words = [self.port("postgres").to_string(), ROUND.to_string(), seed.to_string()];
        let made = python().arg(script("tacosoft_orders.py")).args(words).status().unwrap();
        assert!(made.success(), "the guests left");
    }

    /// Debezium dies, and goes on from the position that it has written last: what it sent since then it sends again.
    fn crash_debezium(&mut self) {
        let input = self.child.stdin.as_mut().unwrap();
        input.write_all(b"crash\n").unwrap();
    }
}

impl Drop for Parts {
    fn drop(&mut self) {
        // The end of its input asks it to stop all three, which it waits for.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// A file of the demo.
fn demo(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/tacosoft").join(name)
}

/// How many commits of orders there are.
fn commits(lake: &Path) -> usize {
    let Ok(log) = fs::read_dir(lake.join("orders/_delta_log")) else { return 0 };
    log.filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|kind| kind == "json")).count()
}

#[test]
fn restaurants_see_what_their_database_says() {
    needs!(Python, Kafka, Postgres);
    let mut parts = Parts::start();
    let lake = tempfile::tempdir().unwrap();
    let setup = parts.setup(lake.path());
    let mut server = Server::start(&setup);
    for seed in 0..2 {
        let before = commits(lake.path());
        parts.make_changes(seed);
        until("the table goes on", || commits(lake.path()) >= before + 2);
        server.kill();
        server = Server::start(&setup);
        if seed == 0 {
            parts.crash_debezium();
        }
    }
    let mut facts = server.facts();
    facts["tenants"] = json!(TENANTS);
    facts["postgres"] = json!(parts.port("postgres"));
    run_python("tacosoft_suite.py", &server.write_facts(&facts), CHECKS);
    assert!(server.stop(), "the server should stop by itself when asked");
}
