//! Tests of the schema registry client against a small registry on loopback: requests, caching, and error handling.
//!
//! The responses, including error codes, follow Confluent's documentation of the Schema Registry API.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use futures::FutureExt as _;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::registry::{KnownSchemas, Registry};
use crate::config::{RegistryConfig, Secret};
use crate::error::{Kind, Result};
use crate::outbound::testing::{AUTHORITY, OTHER_AUTHORITY, Server};
use crate::telemetry::Metrics;

/// A registry that returns its content, or errors.
pub(super) struct FakeRegistry {
    address: SocketAddr,
    held: Arc<Mutex<RegistryContent>>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct RegistryContent {
    /// Status and body by path.
    answers: BTreeMap<String, (u16, String)>,
    /// The response to every request while the registry fails.
    fault: Option<(u16, String)>,
    /// The request lines and credentials of all requests.
    asked: Vec<String>,
}

impl FakeRegistry {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut double = Self { address: listener.local_addr().unwrap(), held: Arc::default(), _tasks: JoinSet::new() };
        let held = double.held.clone();
        double._tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (connection, _) = listener.accept().await.unwrap();
                connections.spawn(answer(connection, held.clone()));
            }
        });
        double
    }

    pub(super) fn config(&self) -> RegistryConfig {
        let request_time_max = Duration::from_secs(10);
        RegistryConfig { urls: vec![self.url()], request_time_max, ..RegistryConfig::default() }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub(super) fn says(&self, path: &str, status: u16, body: impl Into<String>) {
        self.held.lock().unwrap().answers.insert(path.to_owned(), (status, body.into()));
    }

    /// Adds a schema, of type `AVRO` unless `more` names another.
    pub(super) fn holds(&self, id: u32, schema: &str, more: Value) {
        let mut told = json!({ "schema": schema });
        told.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.says(&format!("/schemas/ids/{id}"), 200, told.to_string());
    }

    /// From now on every response is `with`; `None` restores normal responses.
    pub(super) fn fails(&self, with: Option<(u16, &str)>) {
        self.held.lock().unwrap().fault = with.map(|(status, body)| (status, body.to_owned()));
    }

    fn asked(&self) -> Vec<String> {
        let mut asked = std::mem::take(&mut self.held.lock().unwrap().asked);
        asked.sort();
        asked
    }
}

async fn answer(mut connection: TcpStream, held: Arc<Mutex<RegistryContent>>) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if connection.read(&mut byte).await.unwrap_or(0) == 0 {
            return;
        }
        request.push(byte[0]);
    }
    let request = String::from_utf8(request).unwrap();
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let credentials = request.lines().find_map(|line| line.strip_prefix("authorization: ")).unwrap_or_default();
    let (status, body) = {
        let mut held = held.lock().unwrap();
        held.asked.push(format!("{path} {credentials}").trim_end().to_owned());
        let unknown = || (404, json!({ "error_code": 40403, "message": "Schema not found" }).to_string());
        held.fault.clone().or_else(|| held.answers.get(&path).cloned()).unwrap_or_else(unknown)
    };
    let length = body.len();
    let place = if status == 302 { "location: /elsewhere\r\n" } else { "" };
    let text = format!("HTTP/1.1 {status} Said\r\nconnection: close\r\n{place}content-length: {length}\r\n\r\n{body}");
    // Some tests stop reading on purpose, because the response is too large.
    drop(connection.write_all(text.as_bytes()).await);
    drop(connection.shutdown().await);
}

fn registry(config: &RegistryConfig) -> Registry {
    Registry::new("voice", config, Arc::new(Metrics::default())).unwrap()
}

async fn learn(registry: &Registry, ids: &[u32]) -> Result<Vec<String>> {
    let known = registry.learn(ids.iter().copied().collect::<BTreeSet<u32>>()).await?;
    let word = |known: KnownSchemas| match known {
        KnownSchemas::Avro(_) => "avro".to_owned(),
        KnownSchemas::Protobuf(_) => "protobuf".to_owned(),
        KnownSchemas::Other(kind) => format!("other {kind}"),
        KnownSchemas::Unusable(why) => format!("unusable {why}"),
        KnownSchemas::Unknown => "unknown".to_owned(),
    };
    Ok(known.into_values().map(word).collect())
}

#[tokio::test]
async fn a_schema_and_its_references_are_requested_once() {
    let double = FakeRegistry::start().await;
    let refers = |name: &str, subject: &str| json!([{ "name": name, "subject": subject, "version": 3 }]);
    double.holds(1, "\"string\"", json!({}));
    double.holds(2, "{\"type\":\"array\",\"items\":\"a.B\"}", json!({ "references": refers("a.B", "a/b value") }));
    double.says(
        "/subjects/a%2Fb%20value/versions/3?deleted=true",
        200,
        json!({ "subject": "a/b value", "id": 9, "version": 3,
                "schema": "{\"type\":\"fixed\",\"name\":\"B\",\"namespace\":\"a\",\"size\":2}" })
        .to_string(),
    );
    let uses = "syntax = \"proto3\"; import \"b.proto\"; message A { B b = 1; }";
    double.holds(3, uses, json!({ "schemaType": "PROTOBUF", "references": refers("b.proto", "b") }));
    let used = json!({ "schema": "syntax = \"proto3\"; message B { int32 c = 1; }", "references": [] });
    double.says("/subjects/b/versions/3?deleted=true", 200, used.to_string());
    double.holds(4, "{}", json!({ "schemaType": "JSON" }));

    let config = RegistryConfig { user: Some("key".into()), password: Some(Secret::new("hunter2")), ..double.config() };
    let registry = registry(&config);
    let expected = ["avro", "avro", "protobuf", "other JSON"];
    assert_eq!(learn(&registry, &[1, 2, 3, 4]).await.unwrap(), expected);
    let asked: Vec<String> = [
        "/schemas/ids/1",
        "/schemas/ids/2",
        "/schemas/ids/3",
        "/schemas/ids/4",
        "/subjects/a%2Fb%20value/versions/3?deleted=true",
        "/subjects/b/versions/3?deleted=true",
    ]
    .map(|path| format!("{path} Basic a2V5Omh1bnRlcjI="))
    .to_vec();
    assert_eq!(double.asked(), asked);
    double.fails(Some((500, "")));
    assert_eq!(learn(&registry, &[4, 3, 2, 1]).await.unwrap(), expected, "known schemas need no registry");
    assert_eq!(double.asked(), Vec::<String>::new());
    assert!(!format!("{registry:?}{config:?}").contains("hunter2"));
}

#[tokio::test]
async fn an_invalid_response_is_not_cached() {
    let double = FakeRegistry::start().await;
    let config = RegistryConfig { token: Some(Secret::new("hunter2")), ..double.config() };
    let registry = registry(&config);
    for (status, body, expected) in [
        (500, "{\"error_code\":50001}", "answers 500"),
        (503, "", "answers 503"),
        (429, "", "answers 429"),
        (401, "{\"error_code\":40101}", "registry.user and password, or token"),
        (403, "", "registry.user and password, or token"),
        (404, "<html>no such page</html>", "is its URL right?"),
        (404, "{\"error_code\":404,\"message\":\"HTTP 404 Not Found\"}", "is its URL right?"),
        (302, "", "answers 302"),
        (200, "<html>Log in</html>", "a body that is not JSON"),
        (200, "{\"id\":1}", "not in its protocol"),
    ] {
        double.fails(Some((status, body)));
        let fault = learn(&registry, &[7]).await.unwrap_err();
        assert!(fault.kind() == Kind::Unavailable && fault.message().contains(expected), "{status} {body}: {fault:?}");
        assert!(fault.message().starts_with("schema 7: ") && !format!("{fault:?}").contains("hunter2"), "{fault:?}");
        assert!(double.asked().iter().all(|asked| asked == "/schemas/ids/7 Bearer hunter2"));
    }
    double.fails(None);
    double.holds(7, "\"int\"", json!({}));
    assert_eq!(learn(&registry, &[7]).await.unwrap(), ["avro"], "it is requested again");

    let alone = FakeRegistry::start().await;
    let gone = { TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap() };
    alone.holds(7, "\"int\"", json!({}));
    let urls = vec![format!("http://{gone}/"), format!("{}/", alone.url())];
    let both = self::registry(&RegistryConfig { urls, ..alone.config() });
    assert_eq!(learn(&both, &[7]).await.unwrap(), ["avro"], "the second URL is used when the first is unreachable");
    let none = self::registry(&RegistryConfig { urls: vec![format!("http://{gone}")], ..alone.config() });
    let fault = learn(&none, &[7]).await.unwrap_err();
    assert!(fault.kind() == Kind::Unavailable && fault.message().contains("cannot be reached"), "{fault}");
}

#[tokio::test]
async fn an_unusable_schema_has_a_reason() {
    let double = FakeRegistry::start().await;
    let refers = json!({ "references": [{ "name": "x", "subject": "gone", "version": 1 }] });
    double.holds(1, "{\"type\":\"recrod\"}", json!({}));
    double.holds(2, "message {", json!({ "schemaType": "PROTOBUF" }));
    double.holds(3, "\"x\"", refers);
    double.holds(4, &"x".repeat(2_000), json!({}));
    let registry = registry(&RegistryConfig { schema_bytes_max: 1_024, ..double.config() });
    let given = learn(&registry, &[1, 2, 3, 4, 5]).await.unwrap();
    let expected = ["unusable the Avro schema is invalid", "unusable the protobuf schema does not compile"];
    for (given, expected) in given.iter().zip(expected.into_iter().chain([
        "unusable it refers to `gone`, version 1",
        "unusable the schema has more than 1024 bytes (sources.voice.registry.schema_bytes_max)",
        "unknown",
    ])) {
        assert!(given.starts_with(expected), "{given}, not {expected}");
    }
    let asked = double.asked();
    assert_eq!(asked.iter().filter(|path| *path == "/schemas/ids/5").count(), 2, "an unknown id is requested twice");
    assert_eq!(learn(&registry, &[5]).await.unwrap(), ["unknown"]);
    assert_eq!(double.asked(), Vec::<String>::new(), "an unknown id is cached for a while");
}

#[tokio::test]
async fn made_up_ids_are_limited() {
    let double = FakeRegistry::start().await;
    let registry = registry(&RegistryConfig { schemas_max: 2, ..double.config() });
    let fault = learn(&registry, &(0..65).collect::<Vec<_>>()).await.unwrap_err();
    assert!(fault.kind() == Kind::Limited && fault.wait().is_none(), "{fault:?}");
    assert_eq!(double.asked(), Vec::<String>::new());
    for id in 1..4 {
        double.holds(id, "\"int\"", json!({}));
        assert_eq!(learn(&registry, &[id]).await.unwrap(), ["avro"]);
    }
    double.asked();
    learn(&registry, &[2, 3]).await.unwrap();
    assert_eq!(double.asked(), Vec::<String>::new());
    learn(&registry, &[1]).await.unwrap();
    assert_eq!(double.asked(), ["/schemas/ids/1"], "the oldest is evicted first");
}

#[tokio::test]
async fn a_ca_file_holds_the_authority_of_the_registry() {
    let server = Server::tls(|_, _| {
        let schema = json!({ "schema": "\"int\"" }).to_string();
        futures::future::ready(Response::new(Body::from(schema))).boxed()
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    let request_time_max = Duration::from_secs(10);
    let unknown = RegistryConfig { urls: vec![server.url("")], request_time_max, ..RegistryConfig::default() };
    let known = RegistryConfig { ca_file: Some(file.clone()), ..unknown.clone() };

    std::fs::write(&file, AUTHORITY).unwrap();
    assert_eq!(learn(&registry(&known), &[1]).await.unwrap(), ["avro"]);
    std::fs::write(&file, OTHER_AUTHORITY).unwrap();
    for config in [&known, &unknown] {
        let fault = learn(&registry(config), &[1]).await.unwrap_err();
        assert!(fault.kind() == Kind::Unavailable && fault.message().contains("UnknownIssuer"), "{fault}");
    }
    std::fs::write(&file, "no certificate").unwrap();
    let fault = Registry::new("voice", &known, Arc::new(Metrics::default())).unwrap_err();
    assert!(fault.kind() == Kind::Invalid && fault.message().contains("holds no certificate"), "{fault}");
}
