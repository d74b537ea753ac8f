//! Tests for the schema registry client with a fake registry on the loopback interface. The tests cover requests,
//! caching and error handling.
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

use super::client::{RegistryClient, ResolvedSchema};
use crate::config::{RegistryConfig, Secret};
use crate::error::{Kind, Result};
use crate::http_client::testing::{AUTHORITY, OTHER_AUTHORITY, Server};
use crate::telemetry::Metrics;

/// A fake registry on the loopback interface. It returns the schemas that a test has added. If the test has set an
/// error, it returns only this error.
pub(super) struct FakeRegistry {
    address: SocketAddr,
    content: Arc<Mutex<RegistryContent>>,
    _tasks: JoinSet<()>,
}

#[derive(Default)]
struct RegistryContent {
    /// The status and body of the response, by request path.
    responses: BTreeMap<String, (u16, String)>,
    /// The error response to every request. `None` if requests are answered normally.
    failure: Option<(u16, String)>,
    /// The path and credentials of each request.
    requests: Vec<String>,
}

impl FakeRegistry {
    pub(super) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut fake =
            Self { address: listener.local_addr().unwrap(), content: Arc::default(), _tasks: JoinSet::new() };
        let content = fake.content.clone();
        fake._tasks.spawn(async move {
            let mut connections = JoinSet::new();
            loop {
                let (connection, _) = listener.accept().await.unwrap();
                connections.spawn(answer(connection, content.clone()));
            }
        });
        fake
    }

    pub(super) fn config(&self) -> RegistryConfig {
        let request_time_max = Duration::from_secs(10);
        RegistryConfig { urls: vec![self.url()], request_time_max, ..RegistryConfig::default() }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Sets the response to requests for a path.
    pub(super) fn responds(&self, path: &str, status: u16, body: impl Into<String>) {
        self.content.lock().unwrap().responses.insert(path.to_owned(), (status, body.into()));
    }

    /// Adds a schema. `more` contains additional fields for the response, such as `schemaType`. Without `schemaType`,
    /// the schema is an Avro schema.
    pub(super) fn add_schema(&self, id: u32, schema: &str, more: Value) {
        let mut response = json!({ "schema": schema });
        response.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        self.responds(&format!("/schemas/ids/{id}"), 200, response.to_string());
    }

    /// Makes every request fail with this status and body. `None` restores normal responses.
    pub(super) fn set_failure(&self, with: Option<(u16, &str)>) {
        self.content.lock().unwrap().failure = with.map(|(status, body)| (status, body.to_owned()));
    }

    /// Returns the path and credentials of each request since the last call, as sorted strings.
    fn take_requests(&self) -> Vec<String> {
        let mut requests = std::mem::take(&mut self.content.lock().unwrap().requests);
        requests.sort();
        requests
    }
}

/// Reads one request from a connection and sends the response.
async fn answer(mut connection: TcpStream, content: Arc<Mutex<RegistryContent>>) {
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
        let mut content = content.lock().unwrap();
        content.requests.push(format!("{path} {credentials}").trim_end().to_owned());
        let unknown = || (404, json!({ "error_code": 40403, "message": "Schema not found" }).to_string());
        content.failure.clone().or_else(|| content.responses.get(&path).cloned()).unwrap_or_else(unknown)
    };
    let length = body.len();
    let location = if status == 302 { "location: /elsewhere\r\n" } else { "" };
    let text =
        format!("HTTP/1.1 {status} Status\r\nconnection: close\r\n{location}content-length: {length}\r\n\r\n{body}");
    // Writing can fail, because the client stops reading when a response is too large.
    drop(connection.write_all(text.as_bytes()).await);
    drop(connection.shutdown().await);
}

fn registry(config: &RegistryConfig) -> RegistryClient {
    RegistryClient::new("voice", config, false, Arc::new(Metrics::default())).unwrap()
}

/// Resolves ids. Formats each result as the name of its variant, followed by the string in the variant, if there is
/// one.
async fn resolve(registry: &RegistryClient, ids: &[u32]) -> Result<Vec<String>> {
    let schemas = registry.resolve(ids.iter().copied().collect::<BTreeSet<u32>>()).await?;
    let name = |schema: ResolvedSchema| match schema {
        ResolvedSchema::Avro(_) => "avro".to_owned(),
        ResolvedSchema::Protobuf(_) => "protobuf".to_owned(),
        ResolvedSchema::Other(kind) => format!("other {kind}"),
        ResolvedSchema::Unusable(why) => format!("unusable {why}"),
        ResolvedSchema::Unknown => "unknown".to_owned(),
    };
    Ok(schemas.into_values().map(name).collect())
}

#[tokio::test]
async fn a_schema_and_its_references_are_requested_once() {
    let fake = FakeRegistry::start().await;
    let references = |name: &str, subject: &str| json!([{ "name": name, "subject": subject, "version": 3 }]);
    fake.add_schema(1, "\"string\"", json!({}));
    fake.add_schema(
        2,
        "{\"type\":\"array\",\"items\":\"a.B\"}",
        json!({ "references": references("a.B", "a/b value") }),
    );
    fake.responds(
        "/subjects/a%2Fb%20value/versions/3?deleted=true",
        200,
        json!({ "subject": "a/b value", "id": 9, "version": 3,
                "schema": "{\"type\":\"fixed\",\"name\":\"B\",\"namespace\":\"a\",\"size\":2}" })
        .to_string(),
    );
    let uses = "syntax = \"proto3\"; import \"b.proto\"; message A { B b = 1; }";
    fake.add_schema(3, uses, json!({ "schemaType": "PROTOBUF", "references": references("b.proto", "b") }));
    let used = json!({ "schema": "syntax = \"proto3\"; message B { int32 c = 1; }", "references": [] });
    fake.responds("/subjects/b/versions/3?deleted=true", 200, used.to_string());
    fake.add_schema(4, "{}", json!({ "schemaType": "JSON" }));

    let config = RegistryConfig { user: Some("key".into()), password: Some(Secret::new("hunter2")), ..fake.config() };
    let registry = registry(&config);
    let expected = ["avro", "avro", "protobuf", "other JSON"];
    assert_eq!(resolve(&registry, &[1, 2, 3, 4]).await.unwrap(), expected);
    let requests: Vec<String> = [
        "/schemas/ids/1",
        "/schemas/ids/2",
        "/schemas/ids/3",
        "/schemas/ids/4",
        "/subjects/a%2Fb%20value/versions/3?deleted=true",
        "/subjects/b/versions/3?deleted=true",
    ]
    .map(|path| format!("{path} Basic a2V5Omh1bnRlcjI="))
    .to_vec();
    assert_eq!(fake.take_requests(), requests);
    fake.set_failure(Some((500, "")));
    assert_eq!(resolve(&registry, &[4, 3, 2, 1]).await.unwrap(), expected, "cached schemas are not requested again");
    assert_eq!(fake.take_requests(), Vec::<String>::new());
    assert!(!format!("{registry:?}{config:?}").contains("hunter2"));
}

#[tokio::test]
async fn an_invalid_response_is_not_cached() {
    let fake = FakeRegistry::start().await;
    let config = RegistryConfig { token: Some(Secret::new("hunter2")), ..fake.config() };
    let registry = registry(&config);
    for (status, body, expected) in [
        (500, "{\"error_code\":50001}", "returned 500"),
        (503, "", "returned 503"),
        (429, "", "returned 429"),
        (401, "{\"error_code\":40101}", "registry.user and password, or token"),
        (403, "", "registry.user and password, or token"),
        (404, "<html>no such page</html>", "check the registry's URL"),
        (404, "{\"error_code\":404,\"message\":\"HTTP 404 Not Found\"}", "check the registry's URL"),
        (302, "", "returned 302"),
        (200, "<html>Log in</html>", "a body that is not JSON"),
        (200, "{\"id\":1}", "does not follow its protocol"),
    ] {
        fake.set_failure(Some((status, body)));
        let error = resolve(&registry, &[7]).await.unwrap_err();
        assert!(error.kind() == Kind::Unavailable && error.message().contains(expected), "{status} {body}: {error:?}");
        assert!(error.message().starts_with("schema 7: ") && !format!("{error:?}").contains("hunter2"), "{error:?}");
        assert!(fake.take_requests().iter().all(|request| request == "/schemas/ids/7 Bearer hunter2"));
    }
    fake.set_failure(None);
    fake.add_schema(7, "\"int\"", json!({}));
    assert_eq!(resolve(&registry, &[7]).await.unwrap(), ["avro"], "the schema is requested again after an error");

    let second = FakeRegistry::start().await;
    let unreachable = { TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap() };
    second.add_schema(7, "\"int\"", json!({}));
    let urls = vec![format!("http://{unreachable}/"), format!("{}/", second.url())];
    let both = self::registry(&RegistryConfig { urls, ..second.config() });
    assert_eq!(resolve(&both, &[7]).await.unwrap(), ["avro"], "the second URL is used when the first is unreachable");
    let only_unreachable =
        self::registry(&RegistryConfig { urls: vec![format!("http://{unreachable}")], ..second.config() });
    let error = resolve(&only_unreachable, &[7]).await.unwrap_err();
    assert!(error.kind() == Kind::Unavailable && error.message().contains("cannot be reached"), "{error}");
}

#[tokio::test]
async fn an_unusable_schema_has_a_reason() {
    let fake = FakeRegistry::start().await;
    let references = json!({ "references": [{ "name": "x", "subject": "gone", "version": 1 }] });
    fake.add_schema(1, "{\"type\":\"recrod\"}", json!({}));
    fake.add_schema(2, "message {", json!({ "schemaType": "PROTOBUF" }));
    fake.add_schema(3, "\"x\"", references);
    fake.add_schema(4, &"x".repeat(2_000), json!({}));
    let registry = registry(&RegistryConfig { schema_bytes_max: 1_024, ..fake.config() });
    let resolved = resolve(&registry, &[1, 2, 3, 4, 5]).await.unwrap();
    let expected = ["unusable the Avro schema is invalid", "unusable the protobuf schema does not compile"];
    for (resolved, expected) in resolved.iter().zip(expected.into_iter().chain([
        "unusable it refers to version 1 of `gone`",
        "unusable the schema has more than 1024 bytes (sources.voice.registry.schema_bytes_max)",
        "unknown",
    ])) {
        assert!(resolved.starts_with(expected), "got {resolved}, expected {expected}");
    }
    let requests = fake.take_requests();
    assert_eq!(requests.iter().filter(|path| *path == "/schemas/ids/5").count(), 2, "an unknown id is requested twice");
    assert_eq!(resolve(&registry, &[5]).await.unwrap(), ["unknown"]);
    assert_eq!(fake.take_requests(), Vec::<String>::new(), "an unknown id is cached for a while");
}

#[tokio::test]
async fn the_number_of_new_ids_and_of_cached_schemas_is_limited() {
    let fake = FakeRegistry::start().await;
    let registry = registry(&RegistryConfig { schemas_max: 2, ..fake.config() });
    let error = resolve(&registry, &(0..65).collect::<Vec<_>>()).await.unwrap_err();
    assert!(error.kind() == Kind::Limited && error.wait().is_none(), "{error:?}");
    assert_eq!(fake.take_requests(), Vec::<String>::new());
    for id in 1..4 {
        fake.add_schema(id, "\"int\"", json!({}));
        assert_eq!(resolve(&registry, &[id]).await.unwrap(), ["avro"]);
    }
    fake.take_requests();
    resolve(&registry, &[2, 3]).await.unwrap();
    assert_eq!(fake.take_requests(), Vec::<String>::new());
    resolve(&registry, &[1]).await.unwrap();
    assert_eq!(fake.take_requests(), ["/schemas/ids/1"], "the oldest schema is evicted first");
}

#[tokio::test]
async fn only_a_registry_with_a_certificate_from_the_ca_file_is_trusted() {
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
    assert_eq!(resolve(&registry(&known), &[1]).await.unwrap(), ["avro"]);
    std::fs::write(&file, OTHER_AUTHORITY).unwrap();
    for config in [&known, &unknown] {
        let error = resolve(&registry(config), &[1]).await.unwrap_err();
        assert!(error.kind() == Kind::Unavailable && error.message().contains("UnknownIssuer"), "{error}");
    }
    std::fs::write(&file, "no certificate").unwrap();
    let error = RegistryClient::new("voice", &known, false, Arc::new(Metrics::default())).unwrap_err();
    assert!(error.kind() == Kind::Invalid && error.message().contains("contains no certificate"), "{error}");
}
