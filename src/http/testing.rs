//! Test support for the HTTP endpoint: a server with an in-memory lake, a client, and checks that apply to every
//! response.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use reqwest::header::{AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Client, Method, Response};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use super::{Home, HttpServices, serve};
use crate::clock::Clock;
use crate::config::{
    HttpConfig, IngestConfig, LakeConfig, LookupConfig, MaintenanceConfig, PolicyConfig, QueryConfig, SourceConfig,
};
use crate::error::Result;
use crate::ingest::testing::{TABLE, limits, memory, open};
use crate::ingest::{Ingest, Source};
use crate::lake::Store;
use crate::maintenance::Maintenance;
use crate::query::Engine;
use crate::supervise::Supervisor;
use crate::tenancy::testing::auth;
use crate::tenancy::{DevelopmentToken, Scope, Verifier};
use crate::transform::Lookups;

pub(super) const JSON: &str = "application/json";
pub(super) const NDJSON: &str = "application/x-ndjson";
/// The name of the server's lookup table, which all tenants share.
pub(super) const LOOKUP: &str = "places";

/// An HTTP endpoint on a free port, with an in-memory lake.
pub(super) struct HttpTestServer {
    pub(super) store: Store,
    pub(super) ingest: Arc<Ingest>,
    pub(super) engine: Arc<Engine>,
    client: Client,
    pub(super) address: String,
    pub(super) stop: CancellationToken,
    handler: JoinSet<Result<()>>,
}

/// Loads the lookup table [`LOOKUP`] from a file.
fn lookups() -> Arc<Lookups> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("places.csv");
    std::fs::write(&file, "city,size\nRome,3\n").unwrap();
    let description = "Cities".to_owned();
    let config = LookupConfig { description, file: Some(file), shared: true, ..LookupConfig::default() };
    let lookups = Lookups::new(&BTreeMap::from([(LOOKUP.to_owned(), config)]), &limits(), Arc::default());
    assert!(lookups.load_files().is_empty());
    lookups
}

impl HttpTestServer {
    pub(super) async fn open() -> Self {
        Self::with(limits(), HttpConfig::default()).await
    }

    pub(super) async fn with(limits: IngestConfig, config: HttpConfig) -> Self {
        let store = memory();
        let tables = open(&store).await;
        let ingest =
            Ingest::start(tables, vec![source()], limits.clone(), Clock::System, Arc::default()).await.unwrap();
        let calls = PolicyConfig { columns: vec!["event_time".into(), "event_id".into()], ..PolicyConfig::default() };
        let policy = BTreeMap::from([(TABLE.to_owned(), calls), (LOOKUP.to_owned(), PolicyConfig::default())]);
        let query = QueryConfig { threads: 2, ..QueryConfig::default() };
        let tables = ingest.writer.tables().clone();
        let engine = Engine::with_lookups(tables, lookups(), query, Clock::System, Arc::default()).unwrap();
        let supervisor = Supervisor::new(Arc::default());
        let merges = MaintenanceConfig::default();
        let maintenance =
            Maintenance::start(ingest.writer.tables(), &merges, &LakeConfig::default(), &Arc::default(), &supervisor)
                .unwrap();
        let services = HttpServices {
            engine: engine.clone(),
            verifier: Arc::new(Verifier::new(&auth(), &policy, Clock::System).unwrap()),
            writer: ingest.writer.clone(),
            sources: ingest.sources.clone(),
            quarantine: ingest.quarantine.clone(),
            maintenance: Arc::new(maintenance),
            metrics: Arc::default(),
            clock: Clock::System,
            limits,
            home: Home {
                flight: ([127, 0, 0, 1], 8815).into(),
                flight_tls: false,
                tables: config.home_tables.then(|| vec![(TABLE.to_owned(), "Calls <of> a tenant".to_owned())]),
            },
            supervisor,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let stop = CancellationToken::new();
        let mut handler = JoinSet::new();
        handler.spawn(serve(listener, services, config, stop.clone().into()));
        let client = Client::builder().no_proxy().build().unwrap();
        Self { store, ingest, engine, client, address, stop, handler }
    }

    pub(super) async fn request(
        &self,
        method: Method,
        path: &str,
        headers: HeaderMap,
        body: impl Into<reqwest::Body>,
    ) -> Response {
        let url = format!("http://{}{path}", self.address);
        self.client.request(method, url).headers(headers).body(body).send().await.unwrap()
    }

    pub(super) async fn get(&self, path: &str, token: &str) -> Response {
        self.request(Method::GET, path, bearer(token), "").await
    }

    /// Posts events with a token for the tenant `acme`.
    pub(super) async fn post(
        &self,
        kind: &str,
        encoding: Option<&'static str>,
        body: impl Into<reqwest::Body>,
    ) -> Response {
        let mut headers = bearer(&acme());
        headers.insert(CONTENT_TYPE, HeaderValue::from_str(kind).unwrap());
        if let Some(encoding) = encoding {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
        }
        self.request(Method::POST, "/v1/tables/calls/events", headers, body).await
    }

    pub(super) async fn close(self) {
        self.stop.cancel();
        self.handler.join_all().await.into_iter().collect::<Result<()>>().unwrap();
        self.ingest.stop().await;
    }
}

/// Creates a source without a running consumer.
fn source() -> Source {
    let config = SourceConfig { table: TABLE.to_owned(), ..SourceConfig::default() };
    Source::new("voice", &config, None, None, Clock::System, Arc::default()).unwrap()
}

/// Creates a token for a tenant, or for an operator if `tenant` is `None`.
pub(super) fn token(tenant: Option<&str>, scopes: &[Scope]) -> String {
    token_of(tenant, if tenant.is_some() { "user" } else { "ops" }, scopes)
}

pub(super) fn token_of(tenant: Option<&str>, subject: &str, scopes: &[Scope]) -> String {
    let mint = DevelopmentToken {
        issuer: String::new(),
        tenant: tenant.map(str::to_owned),
        subject: subject.to_owned(),
        scopes: scopes.to_vec(),
        age: Duration::from_secs(60),
        claims: serde_json::Map::new(),
    };
    mint.sign(&auth(), &Clock::System).unwrap()
}

pub(super) fn acme() -> String {
    token(Some("acme"), &[Scope::Ingest])
}

pub(super) fn bearer(token: &str) -> HeaderMap {
    HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {token}")).unwrap())])
}

/// Returns the status and the JSON body of a response. Checks that the body is JSON and that the response has the
/// header `x-request-id`.
pub(super) async fn json_response(response: Response) -> (u16, Value) {
    assert!(response.headers().contains_key("x-request-id"), "{response:?}");
    assert_eq!(response.headers()[CONTENT_TYPE], JSON, "{response:?}");
    (response.status().as_u16(), response.json().await.unwrap())
}

/// Returns the kind of an error. Also checks the JSON format of the error.
pub(super) fn kind(problem: &Value) -> &str {
    let error = &problem["error"];
    assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{problem}");
    error["kind"].as_str().unwrap()
}

pub(super) fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

pub(super) fn zstd(plain: &[u8]) -> Vec<u8> {
    zstd::encode_all(plain, 3).unwrap()
}
