//! The web door as clients meet it: a real listener, real requests, bad ones above all.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use reqwest::header::{
    ALLOW, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use reqwest::{Client, Method, Response};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::{Doors, serve};
use crate::clock::Clock;
use crate::config::{HttpConfig, IngestConfig, PolicyConfig};
use crate::error::Result;
use crate::ingest::testing::{QUARANTINE, TABLE, limits, lines, memory, start, stored};
use crate::ingest::Ingest;
use crate::lake::Store;
use crate::tenancy::testing::auth;
use crate::tenancy::{Mint, Scope, Verifier};

const JSON: &str = "application/json";
const NDJSON: &str = "application/x-ndjson";

/// A door on a free port, over a lake in memory.
struct House {
    store: Store,
    ingest: Arc<Ingest>,
    client: Client,
    address: String,
    stop: CancellationToken,
    door: JoinHandle<Result<()>>,
}

impl House {
    async fn open() -> Self {
        Self::with(limits(), HttpConfig::default()).await
    }

    #[expect(clippy::disallowed_methods, reason = "the test owns the door's task and awaits it in `close`")]
    async fn with(limits: IngestConfig, config: HttpConfig) -> Self {
        let store = memory();
        let ingest = start(&store, limits.clone()).await;
        let policy = BTreeMap::from([(
            TABLE.to_owned(),
            PolicyConfig { columns: vec!["event_time".into(), "event_id".into()], ..PolicyConfig::default() },
        )]);
        let doors = Doors {
            verifier: Arc::new(Verifier::new(&auth(), &policy, Clock::System).unwrap()),
            ingest: ingest.clone(),
            metrics: Arc::default(),
            clock: Clock::System,
            limits,
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let stop = CancellationToken::new();
        let door = tokio::spawn(serve(listener, doors, config, stop.clone()));
        let client = Client::builder().no_proxy().build().unwrap();
        Self { store, ingest, client, address, stop, door }
    }

    async fn request(&self, method: Method, path: &str, headers: HeaderMap, body: impl Into<reqwest::Body>) -> Response {
        let url = format!("http://{}{path}", self.address);
        self.client.request(method, url).headers(headers).body(body).send().await.unwrap()
    }

    async fn get(&self, path: &str, token: &str) -> Response {
        self.request(Method::GET, path, bearer(token), "").await
    }

    /// Posts events as acme.
    async fn post(&self, kind: &str, encoding: Option<&'static str>, body: impl Into<reqwest::Body>) -> Response {
        let mut headers = bearer(&acme());
        headers.insert(CONTENT_TYPE, HeaderValue::from_str(kind).unwrap());
        if let Some(encoding) = encoding {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding));
        }
        self.request(Method::POST, "/v1/tables/calls/events", headers, body).await
    }

    async fn close(self) {
        self.stop.cancel();
        self.door.await.unwrap().unwrap();
        self.ingest.stop().await;
    }
}

fn token(tenant: Option<&str>, scopes: &[Scope]) -> String {
    let mint = Mint {
        issuer: String::new(),
        tenant: tenant.map(str::to_owned),
        subject: if tenant.is_some() { "user" } else { "ops" }.to_owned(),
        scopes: scopes.to_vec(),
        age: Duration::from_secs(60),
        claims: serde_json::Map::new(),
    };
    mint.sign(&auth(), &Clock::System).unwrap()
}

fn acme() -> String {
    token(Some("acme"), &[Scope::Ingest])
}

fn bearer(token: &str) -> HeaderMap {
    HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_str(&format!("Bearer {token}")).unwrap())])
}

/// Status and body, which is JSON whatever happened, and `x-request-id`.
async fn answer(response: Response) -> (u16, Value) {
    assert!(response.headers().contains_key("x-request-id"), "{response:?}");
    assert_eq!(response.headers()[CONTENT_TYPE], JSON, "{response:?}");
    (response.status().as_u16(), response.json().await.unwrap())
}

/// The kind of a problem, after a look at its shape.
fn kind(problem: &Value) -> &str {
    let error = &problem["error"];
    assert!(error["message"].as_str().is_some_and(|message| !message.is_empty()), "{problem}");
    error["kind"].as_str().unwrap()
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn zstd(plain: &[u8]) -> Vec<u8> {
    zstd::encode_all(plain, 3).unwrap()
}

#[tokio::test]
async fn events_come_in_by_every_encoding() {
    let house = House::open().await;
    let array = json!([{ "event_id": "e", "event_time": 1_772_366_400 }]).to_string();
    let cases: [(&str, Option<&'static str>, Vec<u8>); 6] = [
        (NDJSON, None, lines(["a"]).into()),
        (NDJSON, Some("identity"), lines(["b"]).into()),
        (NDJSON, Some("gzip"), gzip(lines(["c"]).as_bytes())),
        ("application/x-ndjson; charset=utf-8", Some("gzip"), [gzip(b""), gzip(lines(["d"]).as_bytes())].concat()),
        (JSON, Some("zstd"), zstd(array.as_bytes())),
        (NDJSON, Some("zstd"), [zstd(lines(["f"]).as_bytes()), zstd(b"\n")].concat()),
    ];
    for (kind, encoding, body) in cases {
        let (status, receipt) = answer(house.post(kind, encoding, body).await).await;
        assert_eq!(status, 200, "{kind} {encoding:?}: {receipt}");
        assert_eq!((&receipt["accepted"], &receipt["rejected"]), (&json!(1), &json!(0)), "{kind} {encoding:?}");
        assert!(receipt["version"].as_u64().unwrap() > 0);
    }
    let ids: Vec<String> = stored(&house.store, TABLE).await.into_iter().map(|(_, id)| id).collect();
    assert_eq!(ids, ["a", "b", "c", "d", "e", "f"]);
    house.close().await;
}

#[tokio::test]
async fn a_receipt_names_the_bad_events_and_takes_the_good_ones() {
    let house = House::open().await;
    let mut body = lines(["a", "a"]).into_bytes();
    body.extend_from_slice(b"{\"event_id\":\"b\",\"event_time\":1,\"mos\":\"\xff\"}\n{\"event_id\":\"\",\"event_time\":1}\n");
    let (status, receipt) = answer(house.post(NDJSON, None, body).await).await;
    assert_eq!(status, 200, "{receipt}");
    let counts = ["accepted", "duplicate", "rejected"].map(|count| receipt[count].as_u64().unwrap());
    assert_eq!(counts, [1, 1, 2], "{receipt}");
    let rejects = receipt["rejects"].as_array().unwrap();
    let told: Vec<_> = rejects.iter().map(|one| (one["index"].as_u64().unwrap(), one["reason"].as_str().unwrap())).collect();
    assert_eq!(told, [(2, "invalid_utf8"), (3, "missing_id")], "{receipt}");
    assert_eq!(stored(&house.store, QUARANTINE).await.len(), 2);

    let (status, receipt) = answer(house.post(NDJSON, None, "{\"event_id\":\"c\"}\n").await).await;
    assert_eq!((status, &receipt["rejected"], &receipt["version"]), (200, &json!(1), &json!(0)), "{receipt}");
    house.close().await;
}

#[tokio::test]
async fn bodies_that_cannot_be_taken() {
    let small = IngestConfig { body_bytes_max: 100_000, body_expansion_max: 20, ..limits() };
    let house = House::with(small, HttpConfig::default()).await;
    let whole = gzip(lines(0..50).as_bytes());
    let mut damaged = whole.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0x55;
    let spaces = vec![b' '; 1 << 20];
    // A frame that asks for a window of 2^31 bytes before it holds any.
    let greedy_window = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0x01, 0x00, 0x00];
    let cases: [(&str, &str, Option<&'static str>, Vec<u8>, u16, &str); 14] = [
        ("no such type", "text/csv", None, b"x".to_vec(), 415, "unsupported"),
        ("another charset", "application/json; charset=utf-16", None, b"[]".to_vec(), 415, "unsupported"),
        ("no such encoding", JSON, Some("br"), b"[]".to_vec(), 415, "unsupported"),
        ("two encodings", JSON, Some("gzip, gzip"), b"[]".to_vec(), 415, "unsupported"),
        ("truncated gzip", NDJSON, Some("gzip"), whole[..whole.len() - 9].to_vec(), 400, "invalid"),
        ("damaged gzip", NDJSON, Some("gzip"), damaged, 400, "invalid"),
        ("not gzip at all", NDJSON, Some("gzip"), lines(0..3).into(), 400, "invalid"),
        ("rubbish after gzip", NDJSON, Some("gzip"), [whole.clone(), b"rubbish!".to_vec()].concat(), 400, "invalid"),
        ("truncated zstd", NDJSON, Some("zstd"), zstd(lines(0..50).as_bytes())[..40].to_vec(), 400, "invalid"),
        ("greedy zstd", NDJSON, Some("zstd"), greedy_window.to_vec(), 400, "invalid"),
        ("gzip bomb", NDJSON, Some("gzip"), gzip(&spaces), 413, "limited"),
        ("zstd bomb", NDJSON, Some("zstd"), zstd(&spaces), 413, "limited"),
        ("large", NDJSON, None, vec![b' '; 100_001], 413, "limited"),
        ("unreadable", "application/vnd.apache.arrow.stream", None, b"not a stream".to_vec(), 400, "invalid"),
    ];
    for (case, media, encoding, body, expected, expected_kind) in cases {
        let (status, problem) = answer(house.post(media, encoding, body).await).await;
        assert_eq!((status, kind(&problem)), (expected, expected_kind), "{case}: {problem}");
    }

    // Chunked, so that no length is announced.
    let chunks = futures::stream::iter((0..200).map(|_| Ok::<_, std::io::Error>(Bytes::from_static(&[b' '; 1_000]))));
    let (status, problem) = answer(house.post(NDJSON, None, reqwest::Body::wrap_stream(chunks)).await).await;
    assert_eq!((status, kind(&problem)), (413, "limited"), "{problem}");

    let exact = [lines(["fits"]).into_bytes(), vec![b' '; 100_000]].concat()[..100_000].to_vec();
    let (status, receipt) = answer(house.post(NDJSON, None, exact).await).await;
    assert_eq!((status, &receipt["accepted"]), (200, &json!(1)), "{receipt}");
    assert_eq!(house.ingest.queued_bytes(), 0, "refused bodies give their room back");
    house.close().await;
}

#[tokio::test]
async fn callers_who_may_not() {
    let house = House::open().await;
    let events = "/v1/tables/calls/events";
    let mut twice = bearer(&acme());
    twice.append(AUTHORIZATION, twice[AUTHORIZATION].clone());
    let basic = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static("Basic YTpi"))]);
    let empty = HeaderMap::from_iter([(AUTHORIZATION, HeaderValue::from_static("Bearer "))]);
    let cases = [
        ("no token", HeaderMap::new(), events, 401, "unauthenticated"),
        ("two tokens", twice, events, 401, "unauthenticated"),
        ("another scheme", basic, events, 401, "unauthenticated"),
        ("an empty token", empty, events, 401, "unauthenticated"),
        ("not a token", bearer("a.b.c"), events, 401, "unauthenticated"),
        ("a long token", bearer(&"x".repeat(60_000)), events, 401, "unauthenticated"),
        ("another scope", bearer(&token(Some("acme"), &[Scope::Read])), events, 403, "forbidden"),
        ("no tenant", bearer(&token_without_tenant()), events, 403, "forbidden"),
        ("a quarantine", bearer(&acme()), "/v1/tables/calls_quarantine/events", 403, "forbidden"),
        ("an unknown table", bearer(&acme()), "/v1/tables/cals/events", 404, "not_found"),
        ("not a name", bearer(&acme()), "/v1/tables/%ff/events", 400, "invalid"),
    ];
    for (case, mut headers, path, expected, expected_kind) in cases {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(NDJSON));
        let response = house.request(Method::POST, path, headers, lines(["a"])).await;
        assert_eq!(response.headers().contains_key(WWW_AUTHENTICATE), expected == 401, "{case}");
        let (status, problem) = answer(response).await;
        assert_eq!((status, kind(&problem)), (expected, expected_kind), "{case}: {problem}");
    }
    assert!(stored(&house.store, TABLE).await.is_empty());
    house.close().await;
}

/// Signed and valid, but of a subject that is no operator and names no tenant.
fn token_without_tenant() -> String {
    let mint = Mint {
        issuer: String::new(),
        tenant: None,
        subject: "user".to_owned(),
        scopes: vec![Scope::Ingest],
        age: Duration::from_secs(60),
        claims: serde_json::Map::new(),
    };
    mint.sign(&auth(), &Clock::System).unwrap()
}

#[tokio::test]
async fn paths_methods_and_health() {
    let house = House::open().await;
    let (status, problem) = answer(house.get("/v2/anything", "").await).await;
    assert_eq!((status, kind(&problem)), (404, "not_found"));
    let wrong = house.get("/v1/tables/calls/events", &acme()).await;
    assert_eq!(wrong.headers()[ALLOW], "POST");
    assert_eq!(answer(wrong).await.0, 405);

    assert_eq!(answer(house.get("/healthz", "").await).await, (200, json!({ "status": "ok" })));
    assert_eq!(answer(house.get("/readyz", "").await).await, (200, json!({ "ready": true, "reasons": [] })));
    house.ingest.stop().await;
    let (status, body) = answer(house.get("/readyz", "").await).await;
    assert_eq!((status, &body["ready"]), (503, &json!(false)));
    assert!(body["reasons"][0].as_str().unwrap().contains("stopping"), "{body}");
    let (status, problem) = answer(house.post(NDJSON, None, lines(["a"])).await).await;
    assert_eq!((status, kind(&problem)), (503, "unavailable"));
    house.close().await;
}

#[tokio::test]
async fn tables_are_shown_by_what_the_caller_sees() {
    let house = House::open().await;
    let (status, body) = answer(house.get("/v1/tables", &acme()).await).await;
    assert_eq!(status, 200);
    let calls = body["tables"].as_array().unwrap().iter().find(|table| table["name"] == TABLE).unwrap();
    let columns: Vec<&str> = calls["columns"].as_array().unwrap().iter().map(|column| column["name"].as_str().unwrap()).collect();
    assert_eq!(columns, ["event_time", "event_id"]);
    assert_eq!(calls["columns"][0]["type"], "timestamp");
    assert_eq!(answer(house.get("/v1/tables", "").await).await.0, 401);
    house.close().await;
}

#[tokio::test]
async fn metrics_are_for_operators() {
    let house = House::open().await;
    answer(house.post(NDJSON, None, lines(["a"])).await).await;
    for refused in [acme(), token(Some("acme"), &[Scope::Admin]), token(None, &[Scope::Ingest])] {
        assert_eq!(answer(house.get("/metrics", &refused).await).await.0, 403);
    }
    assert_eq!(answer(house.get("/metrics", "").await).await.0, 401);
    let page = house.get("/metrics", &token(None, &[Scope::Admin])).await;
    assert_eq!(page.status(), 200);
    let page = page.text().await.unwrap();
    let posts = "glasshouse_http_requests_total{route=\"/v1/tables/{table}/events\",status=\"200\"} 1";
    assert!(page.contains(posts) && page.contains("glasshouse_ingest_queue_bytes 0"), "{page}");
    house.close().await;
}

#[tokio::test]
async fn limits_answer_with_a_time_to_come_back() {
    let bounds = IngestConfig { queue_bytes_max: 64 << 10, queue_wait_max: Duration::ZERO, ..limits() };
    let house = House::with(bounds, HttpConfig::default()).await;
    let mut all = house.ingest.room();
    all.resize(64 << 10).await.unwrap();
    let full = house.post(NDJSON, None, lines(["a"])).await;
    assert_eq!(full.headers()[RETRY_AFTER], "1");
    let (status, problem) = answer(full).await;
    assert_eq!((status, kind(&problem)), (429, "limited"));
    house.close().await;

    // A body that never ends is cut off by the time of a request.
    let hasty = HttpConfig { request_time_max: Duration::from_millis(50), ..HttpConfig::default() };
    let house = House::with(limits(), hasty).await;
    let endless = futures::stream::pending::<std::io::Result<Bytes>>();
    let slow = house.post(NDJSON, None, reqwest::Body::wrap_stream(endless)).await;
    assert_eq!(slow.headers()[RETRY_AFTER], "1");
    let (status, problem) = answer(slow).await;
    assert_eq!((status, kind(&problem)), (503, "unavailable"));
    house.close().await;
}

#[tokio::test]
async fn heads_are_bounded_and_connections_kept_alive() {
    let house = House::open().await;
    let mut wire = TcpStream::connect(&house.address).await.unwrap();
    for _ in 0..3 {
        wire.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        assert!(head(&mut wire).await.starts_with("HTTP/1.1 200"), "one connection answers many requests");
    }
    let long = format!("GET /healthz HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(super::connection::HEAD_BYTES_MAX));
    // The door may answer, and close, before all of it is written.
    let _cut = wire.write_all(long.as_bytes()).await;
    assert!(head(&mut wire).await.starts_with("HTTP/1.1 431"));
    house.close().await;
}

/// The head of an answer; its body has a known end in the same read, or does not matter.
async fn head(wire: &mut TcpStream) -> String {
    let mut read = vec![0; 4096];
    let bytes = wire.read(&mut read).await.unwrap();
    String::from_utf8_lossy(&read[..bytes]).into_owned()
}

#[tokio::test]
async fn connections_are_bounded() {
    let one = HttpConfig { connections_max: 1, ..HttpConfig::default() };
    let house = House::with(limits(), one).await;
    let mut first = TcpStream::connect(&house.address).await.unwrap();
    first.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert!(head(&mut first).await.starts_with("HTTP/1.1 200"));
    let mut second = TcpStream::connect(&house.address).await.unwrap();
    second.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    drop(first);
    assert!(head(&mut second).await.starts_with("HTTP/1.1 200"), "the second waits for the first's slot");
    drop(second);
    house.close().await;
}

#[tokio::test]
async fn a_stop_lets_the_running_request_end() {
    let house = House::open().await;
    let (sender, receiver) = tokio::sync::mpsc::channel::<std::io::Result<Bytes>>(1);
    let body = reqwest::Body::wrap_stream(tokio_stream::wrappers::ReceiverStream::new(receiver));
    let posting = house.post(NDJSON, None, body);
    let stopping = async {
        let text = Bytes::from(lines(["a"]));
        sender.send(Ok(text)).await.unwrap();
        // The first bytes have room in the queue: the request is under way.
        while house.ingest.queued_bytes() == 0 {
            tokio::task::yield_now().await;
        }
        house.stop.cancel();
        drop(sender);
    };
    let (response, ()) = tokio::join!(posting, stopping);
    let (status, receipt) = answer(response).await;
    assert_eq!((status, &receipt["accepted"]), (200, &json!(1)));
    let address = house.address.clone();
    house.close().await;
    assert!(TcpStream::connect(&address).await.is_err(), "the door is closed");
}
