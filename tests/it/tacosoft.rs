//! An end-to-end test of the TacoSoft demo with its own configuration. Orders change in a real PostgreSQL database, and
//! the changes reach two restaurants through Debezium and Kafka. During the changes, the test kills the server and
//! Debezium.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client_suite::{python, run_python, script};
use crate::requirements::needs;
use crate::server::{Server, Setup, until, wait_for};

/// Two restaurants of the demo, including the largest one.
const TENANTS: [&str; 2] = ["fuego", "verde"];
/// The number of order changes in one round.
const ROUND: usize = 500;

const CHECKS: &[&str] = &[
    "orders_by_state_match_the_database",
    "each_order_is_flattened_and_enriched",
    "the_history_has_each_change_once",
    "deleted_orders_are_in_the_history_only",
    "a_restaurant_sees_its_own_orders_only",
    "nothing_is_stored_twice_or_refused",
];

/// The process that runs PostgreSQL, Kafka, and Kafka Connect with Debezium. Dropping a [`Services`] value stops all of
/// them.
struct Services {
    child: Child,
    facts: Value,
    _folder: TempDir,
}

impl Services {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ready = folder.path().join("ready.json");
        let mut command = python();
        command.arg(demo("services.py")).arg(&ready);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let facts = wait_for(&ready, &mut child, || "see the messages of services.py above".to_owned());
        Self { child, facts, _folder: folder }
    }

    fn port(&self, service: &str) -> u64 {
        self.facts[service].as_u64().unwrap()
    }

    /// Returns the settings of a server that reads the orders, with the demo's own tables, source, transform and lookup
    /// table. The batches are small, so some of them are in progress when the server is killed.
    fn setup(&self, lake: &Path) -> Setup {
        let settings = [
            ("SOURCES__ORDERS__BROKERS", format!("127.0.0.1:{}", self.port("kafka"))),
            ("SOURCES__ORDERS__OPTIONS__SESSION_TIMEOUT_MS", "1000".into()),
            ("SOURCES__ORDERS__OPTIONS__HEARTBEAT_INTERVAL_MS", "100".into()),
            ("LOOKUPS__RESTAURANTS__FILE", self.facts["restaurants"].as_str().unwrap().into()),
            ("INGEST__BATCH_ROWS_MAX", "50".into()),
            ("AUTH__ISSUERS__DEV__SECRET", "a secret that signs no token of this test".into()),
        ];
        Setup {
            config: Some(demo("glasshouse.toml")),
            lake: Some(lake.display().to_string()),
            settings: settings.map(|(key, value)| (key.to_owned(), value)).into(),
            ..Setup::default()
        }
    }

    /// Makes [`ROUND`] changes to orders in PostgreSQL. `seed` determines the changes.
    fn make_changes(&self, seed: usize) {
        let words = [self.port("postgres").to_string(), ROUND.to_string(), seed.to_string()];
        let made = python().arg(script("tacosoft_orders.py")).args(words).status().unwrap();
        assert!(made.success(), "tacosoft_orders.py failed");
    }

    /// Kills Debezium and restarts it. Debezium then sends all changes after its last stored position again.
    fn crash_debezium(&mut self) {
        let input = self.child.stdin.as_mut().unwrap();
        input.write_all(b"crash\n").unwrap();
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        // The script stops all three services when its standard input is closed.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// Returns the path of a file in the demo's folder.
fn demo(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("demo/tacosoft").join(name)
}

/// Returns the number of commits to the `orders` table.
fn commits(lake: &Path) -> usize {
    let Ok(log) = fs::read_dir(lake.join("orders/_delta_log")) else { return 0 };
    log.filter(|entry| entry.as_ref().unwrap().path().extension().is_some_and(|kind| kind == "json")).count()
}

#[test]
fn restaurants_see_the_rows_of_their_database() {
    needs!(Python, Kafka, Postgres);
    let mut services = Services::start();
    let lake = tempfile::tempdir().unwrap();
    let setup = services.setup(lake.path());
    let mut server = Server::start(&setup);
    for seed in 0..2 {
        let before = commits(lake.path());
        services.make_changes(seed);
        until("two more commits", || commits(lake.path()) >= before + 2);
        server.kill();
        server = Server::start(&setup);
        if seed == 0 {
            services.crash_debezium();
        }
    }
    let mut facts = server.facts();
    facts["tenants"] = json!(TENANTS);
    facts["postgres"] = json!(services.port("postgres"));
    run_python("tacosoft_suite.py", &server.write_facts(&facts), CHECKS);
    assert!(server.stop(), "the server did not stop cleanly on SIGTERM");
}
