//! Tests of sources with a schema registry and a real Kafka broker. Confluent's serializers write the messages, and the
//! table must contain the written values.
//!
//! The schema registry is `tests/clients/registry_server.py`, which is compatible with Confluent's client.

use std::process::{Child, Stdio};

use serde_json::Value;
use tempfile::TempDir;

use crate::broker::Broker;
use crate::client_suite::{python, run_python, script};
use crate::requirements::needs;
use crate::server::{Server, Setup, wait_for};

const CHECKS: &[&str] = &[
    "avro_of_two_versions_is_stored",
    "each_value_equals_what_was_sent",
    "logical_types_are_stored_in_columns_of_their_types",
    "protobuf_reaches_its_transform_as_json",
    "an_unreachable_registry_loses_nothing",
    "unreadable_messages_are_quarantined_unchanged",
];

/// The SQL transform of the source `orders`.
const TRANSFORM: &str = "SELECT 'acme' AS tenant, time AS at, value->>'order_id' AS id, json_int(value, 'total') AS big, \
                         json_text(value, 'guest', 'name') AS label FROM messages";

/// A table with a column for each logical type. The other fields are stored in the map.
const TYPED: [(&str, &str); 12] = [
    ("TENANT", "tenant"),
    ("TIME", "at"),
    ("ID", "id"),
    ("COLUMNS__TENANT", "text"),
    ("COLUMNS__AT", "timestamp"),
    ("COLUMNS__ID", "text"),
    ("COLUMNS__PRICE", "decimal(29, 3)"),
    ("COLUMNS__KEY", "uuid"),
    ("COLUMNS__TOOK", "time"),
    ("COLUMNS__TAGS", "list<text>"),
    ("COLUMNS__RATES", "json"),
    ("COLUMNS__PLACE", "json"),
];

/// A running schema registry, which stops when this value is dropped.
struct Registry {
    child: Child,
    facts: Value,
    _folder: TempDir,
}

impl Registry {
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let ready = folder.path().join("ready.json");
        let mut command = python();
        command.arg(script("registry_server.py")).arg(&ready);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let facts = wait_for(&ready, &mut child, || "see the messages of registry_server.py above".to_owned());
        Self { child, facts, _folder: folder }
    }

    /// Returns the settings of a source that uses this registry.
    fn source(&self, name: &str, format: &str, broker: &Broker) -> Vec<(String, String)> {
        let text = |key: &str| self.facts[key].as_str().unwrap().to_owned();
        let settings = [
            ("KIND", "kafka".to_owned()),
            ("BROKERS", broker.address.clone()),
            ("TOPICS", name.to_owned()),
            ("GROUP", "glasshouse".to_owned()),
            ("TABLE", "samples".to_owned()),
            ("FORMAT", format.to_owned()),
            ("REGISTRY__URLS", text("url")),
            ("REGISTRY__USER", text("user")),
            ("REGISTRY__PASSWORD", text("password")),
        ];
        let key = |key: &str| format!("SOURCES__{}__{key}", name.to_uppercase());
        settings.into_iter().map(|(name, value)| (key(name), value)).collect()
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        // Closing the standard input of the registry process stops it.
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn messages_of_confluents_serializers_are_stored() {
    needs!(Python, Kafka);
    let (broker, registry) = (Broker::start(), Registry::start());
    for topic in ["avro", "typed", "orders"] {
        broker.create_topic(topic, 1).await;
    }
    let mut settings = registry.source("avro", "avro", &broker);
    settings.extend(registry.source("typed", "avro", &broker));
    settings.extend(registry.source("orders", "protobuf", &broker));
    settings.push(("SOURCES__TYPED__TABLE".to_owned(), "typed".to_owned()));
    settings.extend(TYPED.into_iter().map(|(key, value)| (format!("TABLES__TYPED__{key}"), value.to_owned())));
    settings.push(("SOURCES__ORDERS__TRANSFORM".to_owned(), TRANSFORM.to_owned()));
    let server = Server::start(&Setup { settings, ..Setup::default() });
    let mut facts = server.facts();
    facts["kafka"] = broker.address.clone().into();
    facts["registry"] = registry.facts.clone();
    run_python("registry_suite.py", &server.write_facts(&facts), CHECKS);
    assert!(server.stop(), "the server did not stop cleanly on SIGTERM");
}
