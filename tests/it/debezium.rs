//! An end-to-end test of database changes. Real PostgreSQL and MariaDB servers change, and the changes reach a tenant
//! through Debezium and Kafka.

use std::path::PathBuf;
use std::process::{Child, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::client_suite::{python, run_python, script};
use crate::requirements::needs;
use crate::server::{Server, Setup, wait_for};

const CHECKS: &[&str] = &[
    "rows_of_the_initial_snapshot_are_shown",
    "changes_are_shown_in_their_order",
    "changes_around_a_crash_of_debezium_are_stored_once",
    "transactions_that_are_open_during_an_incremental_snapshot_are_newer",
    "unavailable_values_are_null",
    "a_truncation_stops_the_source",
    "nothing_is_stored_twice_or_refused",
];

/// The names of the sources in `tests/clients/debezium.toml`.
const SOURCES: [&str; 3] = ["POSTGRES", "MARIADB", "NOTES"];

/// The process that runs PostgreSQL, MariaDB, Kafka, and Kafka Connect with Debezium. Dropping a [`Services`] value
/// stops all of them.
struct Services {
    child: Child,
    facts: Value,
    ready: PathBuf,
    _folder: TempDir,
}

impl Services {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ready = folder.path().join("ready.json");
        let mut command = python();
        command.arg(script("debezium_services.py")).arg(&ready);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let facts = wait_for(&ready, &mut child, || "see the messages of debezium_services.py above".to_owned());
        Self { child, facts, ready, _folder: folder }
    }

    /// Returns the settings of a server that reads all topics.
    fn setup(&self) -> Setup {
        let brokers = |source| (format!("SOURCES__{source}__BROKERS"), format!("127.0.0.1:{}", self.facts["kafka"]));
        let settings = [
            ("AUTH__ISSUERS__TESTS__OPERATORS", "loader"),
            ("AUTH__ISSUERS__DEV__SECRET", "a secret that signs no token of this test"),
        ];
        let settings = settings.map(|(key, value)| (key.to_owned(), value.to_owned()));
        Setup {
            config: Some(script("debezium.toml")),
            settings: SOURCES.map(brokers).into_iter().chain(settings).collect(),
            ..Setup::default()
        }
    }
}

impl Drop for Services {
    fn drop(&mut self) {
        // The script stops all services when its standard input is closed.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

#[test]
fn a_tenant_sees_the_rows_of_its_databases() {
    needs!(Python, Kafka, Postgres, MariaDb);
    let services = Services::start();
    let server = Server::start(&services.setup());
    let mut facts = server.facts();
    facts["postgres"] = services.facts["postgres"].clone();
    facts["mariadb"] = services.facts["mariadb"].clone();
    facts["services"] = json!(services.ready);
    run_python("debezium_suite.py", &server.write_facts(&facts), CHECKS);
    assert!(server.stop(), "the server did not stop cleanly on SIGTERM");
}
