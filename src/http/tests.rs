//! The HTTP endpoint as clients see it: real requests over a real listener, and the resulting content of the lake.

use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::testing::{HttpTestServer, JSON, NDJSON, acme, answer, bearer, gzip, kind, token, zstd};
use crate::config::HttpConfig;
use crate::ingest::testing::{QUARANTINE, TABLE, limits, lines, stored};
use crate::tenancy::Scope;

/// A handler that panics; it exists only in tests.
pub(super) async fn panics() -> &'static str {
    panic!("a handler has a bug")
}

const ARROW: &str = "application/vnd.apache.arrow.stream";

#[tokio::test]
async fn a_panic_ends_its_request_and_not_its_connection() {
    let server = HttpTestServer::open().await;
    let mut connection = TcpStream::connect(&server.address).await.unwrap();
    let mut ask = async |path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n");
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        // All bodies here are one JSON object, which ends the response.
        while !answer.ends_with(b"}") {
            assert!(connection.read_buf(&mut answer).await.unwrap() > 0, "the connection closed early");
        }
        String::from_utf8(answer).unwrap()
    };
    for _ in 0..2 {
        let answer = ask("/panics").await;
        assert!(answer.starts_with("HTTP/1.1 500 ") && answer.contains("x-request-id: "), "{answer}");
        let body: serde_json::Value = serde_json::from_str(answer.split("\r\n\r\n").nth(1).unwrap()).unwrap();
        assert_eq!(kind(&body), "internal");
        assert!(body["error"]["id"].is_string() && !answer.contains("bug"), "{answer}");
    }
    assert!(ask("/healthz").await.starts_with("HTTP/1.1 200 "));
    server.close().await;
}

#[tokio::test]
async fn damaged_arrow_bodies_return_a_regular_status() {
    let server = HttpTestServer::open().await;
    let whole = crate::ingest::testing::arrow_stream(["a", "b", "c"]);
    for (seed, damaged) in crate::ingest::testing::mutations(&whole, 400) {
        let (status, told) = answer(server.post(ARROW, None, damaged).await).await;
        assert!(matches!(status, 200 | 400 | 413 | 429), "seed {seed}: {status} {told}");
    }
    let (status, receipt) = answer(server.post(ARROW, None, whole).await).await;
    assert_eq!(status, 200, "{receipt}");
    assert_eq!(receipt["accepted"].as_u64().unwrap() + receipt["duplicate"].as_u64().unwrap(), 3, "{receipt}");
    server.close().await;
}

#[tokio::test]
async fn events_are_accepted_in_every_encoding() {
    let server = HttpTestServer::open().await;
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
        let (status, receipt) = answer(server.post(kind, encoding, body).await).await;
        assert_eq!(status, 200, "{kind} {encoding:?}: {receipt}");
        assert_eq!((&receipt["accepted"], &receipt["rejected"]), (&json!(1), &json!(0)), "{kind} {encoding:?}");
        assert!(receipt["version"].as_u64().unwrap() > 0);
    }
    let ids: Vec<String> = stored(&server.store, TABLE).await.into_iter().map(|(_, id)| id).collect();
    assert_eq!(ids, ["a", "b", "c", "d", "e", "f"]);
    server.close().await;
}

#[tokio::test]
async fn a_receipt_names_the_bad_events_and_takes_the_good_ones() {
    let server = HttpTestServer::open().await;
    let mut body = lines(["a", "a"]).into_bytes();
    body.extend_from_slice(
        b"{\"event_id\":\"b\",\"event_time\":1,\"mos\":\"\xff\"}\n{\"event_id\":\"\",\"event_time\":1}\n",
    );
    let (status, receipt) = answer(server.post(NDJSON, None, body).await).await;
    assert_eq!(status, 200, "{receipt}");
    let counts = ["accepted", "duplicate", "rejected"].map(|count| receipt[count].as_u64().unwrap());
    assert_eq!(counts, [1, 1, 2], "{receipt}");
    let rejects = receipt["rejects"].as_array().unwrap();
    let told: Vec<_> =
        rejects.iter().map(|one| (one["index"].as_u64().unwrap(), one["reason"].as_str().unwrap())).collect();
    assert_eq!(told, [(2, "invalid_utf8"), (3, "missing_id")], "{receipt}");
    assert_eq!(stored(&server.store, QUARANTINE).await.len(), 2);

    let (status, receipt) = answer(server.post(NDJSON, None, "{\"event_id\":\"c\"}\n").await).await;
    assert_eq!((status, &receipt["rejected"], &receipt["version"]), (200, &json!(1), &json!(0)), "{receipt}");
    server.close().await;
}

#[tokio::test]
async fn operators_see_pause_and_resume_sources() {
    let server = HttpTestServer::open().await;
    let admin = token(None, &[Scope::Admin]);
    let post =
        async |path: &str, token: &str| answer(server.request(Method::POST, path, bearer(token), "").await).await;
    let (status, listed) = answer(server.get("/v1/sources", &admin).await).await;
    let running = json!({
        "name": "voice", "table": TABLE, "state": "running", "paused_since": null, "last_error": null, "partitions": [],
    });
    assert_eq!((status, listed), (200, json!({ "sources": [running] })));

    let (status, paused) = post("/v1/sources/voice/pause", &admin).await;
    assert_eq!((status, &paused["state"]), (200, &json!("paused")), "{paused}");
    assert!(paused["paused_since"].is_string(), "{paused}");
    assert_eq!(post("/v1/sources/voice/pause", &admin).await, (200, paused.clone()), "pausing again changes nothing");
    let (_, listed) = answer(server.get("/v1/sources", &admin).await).await;
    assert_eq!(listed["sources"][0], paused);
    assert_eq!(post("/v1/sources/voice/resume", &admin).await, (200, running.clone()));
    assert_eq!(post("/v1/sources/voice/resume", &admin).await, (200, running));

    let ingest = token(None, &[Scope::Ingest]);
    let tenant = token(Some("acme"), &[Scope::Admin]);
    let cases = [
        ("/v1/sources/voice/pause", "", 401, "unauthenticated"),
        ("/v1/sources/voice/pause", ingest.as_str(), 403, "forbidden"),
        ("/v1/sources/voice/resume", &tenant, 403, "forbidden"),
        ("/v1/sources/voices/pause", &admin, 404, "not_found"),
        ("/v1/sources/%ff/pause", &admin, 400, "invalid"),
    ];
    for (path, token, expected, expected_kind) in cases {
        let (status, problem) = post(path, token).await;
        assert_eq!((status, kind(&problem)), (expected, expected_kind), "{path}: {problem}");
    }
    for token in [&ingest, &tenant] {
        let (status, problem) = answer(server.get("/v1/sources", token).await).await;
        assert_eq!((status, kind(&problem)), (403, "forbidden"), "{problem}");
    }
    server.close().await;
}

#[tokio::test]
async fn unknown_paths_methods_and_health() {
    let server = HttpTestServer::open().await;
    let (status, problem) = answer(server.get("/v2/anything", "").await).await;
    assert_eq!((status, kind(&problem)), (404, "not_found"));
    let wrong = server.get("/v1/tables/calls/events", &acme()).await;
    assert_eq!(wrong.headers()[ALLOW], "POST");
    assert_eq!(answer(wrong).await.0, 405);

    assert_eq!(answer(server.get("/healthz", "").await).await, (200, json!({ "status": "ok" })));
    assert_eq!(answer(server.get("/readyz", "").await).await, (200, json!({ "ready": true, "reasons": [] })));
    server.ingest.stop().await;
    let (status, body) = answer(server.get("/readyz", "").await).await;
    assert_eq!((status, &body["ready"]), (503, &json!(false)));
    assert!(body["reasons"][0].as_str().unwrap().contains("stopping"), "{body}");
    let (status, problem) = answer(server.post(NDJSON, None, lines(["a"])).await).await;
    assert_eq!((status, kind(&problem)), (503, "unavailable"));
    server.close().await;
}

#[tokio::test]
async fn tables_are_shown_by_what_the_caller_sees() {
    let server = HttpTestServer::open().await;
    let (status, body) = answer(server.get("/v1/tables", &acme()).await).await;
    assert_eq!(status, 200);
    let calls = body["tables"].as_array().unwrap().iter().find(|table| table["name"] == TABLE).unwrap();
    let columns: Vec<&str> =
        calls["columns"].as_array().unwrap().iter().map(|column| column["name"].as_str().unwrap()).collect();
    assert_eq!(columns, ["event_time", "event_id"]);
    assert_eq!(calls["columns"][0]["type"], "timestamp");
    assert_eq!(answer(server.get("/v1/tables", "").await).await.0, 401);
    // The home page needs no token and is the same for all callers: it names no tenant and no table.
    let (status, home) = answer(server.get("/", "").await).await;
    let known = answer(server.get("/", &acme()).await).await;
    assert_eq!((status, &home), (200, &known.1));
    assert!(!home.to_string().contains(TABLE) && !home.to_string().contains("acme"), "{home}");
    server.close().await;
}

#[tokio::test]
async fn freshness_covers_the_callers_own_rows() {
    let server = HttpTestServer::open().await;
    answer(server.post(NDJSON, None, lines(["a"])).await).await;
    let ask = |tenant: Option<&str>| {
        let scope = if tenant.is_some() { Scope::Read } else { Scope::Admin };
        token(tenant, &[scope])
    };
    let path = "/v1/tables/calls/freshness";
    let (status, told) = answer(server.get(path, &ask(Some("acme"))).await).await;
    assert_eq!((status, &told["newest_event_time"]), (200, &json!("2026-03-01T12:00:00.000000Z")), "{told}");
    assert!(told["complete_until"] == told["now"] && told.get("version").is_none(), "{told}");
    assert!(told["newest_received_time"].is_null(), "the policy hides the column: {told}");
    assert!(told["source_lag_seconds"].is_null() && told.get("source_lag_messages").is_none(), "{told}");
    let (_, told) = answer(server.get(path, &ask(Some("globex"))).await).await;
    assert!(told["newest_event_time"].is_null() && told["newest_received_time"].is_null(), "{told}");
    let (_, told) = answer(server.get(path, &ask(None)).await).await;
    assert!(told["version"].as_u64() > Some(0) && told["newest_received_time"].is_string(), "{told}");
    assert!(told["source_lag_messages"].is_null(), "no source fills it: {told}");
    assert!(told.get("newest_event_time").is_none(), "{told}");
    for (token, path, expected) in [
        (acme(), path, 403),
        (ask(Some("acme")), "/v1/tables/calls_quarantine/freshness", 404),
        (ask(None), "/v1/tables/other/freshness", 404),
        (String::new(), path, 401),
    ] {
        assert_eq!(answer(server.get(path, &token).await).await.0, expected, "{path}");
    }
    server.close().await;
}

#[tokio::test]
async fn quarantines_are_shown_replayed_and_dropped() {
    let server = HttpTestServer::open().await;
    answer(server.post(NDJSON, None, "{\"event_time\":1,\"mos\":1}\n{\"event_id\":\"b\",\"mos\":\"\u{e9}\"}\n").await)
        .await;
    let operator = token(None, &[Scope::Admin]);
    let post = |path: String, body: &'static str| {
        let mut headers = bearer(&operator);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
        let server = &server;
        async move { answer(server.request(Method::POST, &path, headers, body).await).await }
    };
    let (status, listed) = answer(server.get("/v1/tables/calls/quarantine?limit=5", &operator).await).await;
    assert_eq!((status, listed["entries"].as_array().unwrap().len()), (200, 2), "{listed}");
    let (_, counted) = answer(server.get("/v1/quarantine?tenant=acme", &operator).await).await;
    assert_eq!(counted["counts"].as_array().unwrap().len(), 2, "{counted}");
    let missing = listed["entries"].as_array().unwrap().iter().find(|entry| entry["reason"] == "missing_id").unwrap();
    let entry = format!("/v1/tables/calls/quarantine/{}", missing["id"].as_str().unwrap());
    let (_, shown) = answer(server.get(&entry, &operator).await).await;
    assert_eq!(shown["entries"][0]["payload"], "{\"event_time\":1,\"mos\":1}", "{shown}");

    let quarantine = |verb: &str| format!("/v1/tables/calls/quarantine/{verb}");
    let (status, told) = post(quarantine("replay"), "").await;
    assert_eq!((status, &told["rejected"], &told["next"]), (200, &json!(2), &json!(null)), "{told}");
    let fixed = "{\"event_id\":\"a\",\"event_time\":1}";
    let (status, told) = post(format!("{entry}/replay"), fixed).await;
    assert_eq!((status, &told["accepted"]), (200, &json!(1)), "{told}");
    assert_eq!(post(format!("{entry}/replay"), fixed).await.0, 404);
    for (body, expected) in [("", 400), ("{\"reasons\":[]}", 400), ("{\"since\":\"yesterday\"}", 400), ("[", 400)] {
        let (status, told) = post(quarantine("drop"), body).await;
        assert_eq!((status, kind(&told)), (expected, "invalid"), "{body}");
    }
    let (status, told) = post(quarantine("drop"), "{\"all\":true}").await;
    assert_eq!((status, told), (200, json!({ "dropped": 1, "more": false })));
    for (path, expected) in [("?limit=x", 400), ("?who=x", 400), ("/none", 404), ("?limit=0", 200)] {
        let path = format!("/v1/tables/calls/quarantine{path}");
        assert_eq!(answer(server.get(&path, &operator).await).await.0, expected, "{path}");
    }
    // The policy of acme hides columns, and therefore the whole quarantine.
    let reader = token(Some("acme"), &[Scope::Read]);
    assert_eq!(answer(server.get("/v1/tables/calls/quarantine", &reader).await).await.0, 404);
    assert_eq!(answer(server.get("/v1/quarantine", &reader).await).await, (200, json!({ "counts": [] })));
    server.close().await;
}

#[tokio::test]
async fn ack_received_responds_before_the_commit() {
    let server = HttpTestServer::open().await;
    let post = |query: &str, ids: &'static str| {
        let path = format!("/v1/tables/calls/events{query}");
        let mut headers = bearer(&acme());
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(NDJSON));
        let server = &server;
        async move { answer(server.request(Method::POST, &path, headers, lines([ids]) + "{}\n").await).await }
    };
    let (status, promise) = post("?ack=received", "a").await;
    assert_eq!((status, &promise["ack"], &promise["received"]), (202, &json!("received"), &json!(1)), "{promise}");
    assert_eq!((&promise["rejected"], &promise["rejects"][0]["index"]), (&json!(1), &json!(1)), "{promise}");
    for (query, expected) in [("?ack=committed", 200), ("?other=1", 200), ("?ack=never", 400), ("?ack=", 400)] {
        assert_eq!(post(query, "b").await.0, expected, "{query}");
    }
    let (store, ingest) = (server.store.clone(), server.ingest.clone());
    server.close().await;
    assert_eq!(ingest.writer.queued_bytes(), 0);
    let ids: Vec<String> = stored(&store, TABLE).await.into_iter().map(|(_, id)| id).collect();
    assert_eq!(ids, ["a", "b"]);
}

#[tokio::test]
async fn metrics_are_for_operators() {
    let server = HttpTestServer::open().await;
    answer(server.post(NDJSON, None, lines(["a"])).await).await;
    for refused in [acme(), token(Some("acme"), &[Scope::Admin]), token(None, &[Scope::Ingest])] {
        assert_eq!(answer(server.get("/metrics", &refused).await).await.0, 403);
    }
    assert_eq!(answer(server.get("/metrics", "").await).await.0, 401);
    let page = server.get("/metrics", &token(None, &[Scope::Admin])).await;
    assert_eq!(page.status(), 200);
    let page = page.text().await.unwrap();
    let posts = "glasshouse_http_requests_total{route=\"/v1/tables/{table}/events\",status=\"200\"} 1";
    assert!(page.contains(posts) && page.contains("glasshouse_ingest_queue_bytes 0"), "{page}");
    server.close().await;
}

#[tokio::test]
async fn heads_are_bounded_and_connections_kept_alive() {
    let server = HttpTestServer::open().await;
    let mut wire = TcpStream::connect(&server.address).await.unwrap();
    for _ in 0..3 {
        wire.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        assert!(head(&mut wire).await.starts_with("HTTP/1.1 200"), "one connection answers many requests");
    }
    let config = HttpConfig::default();
    let long = |bytes: usize| format!("GET /healthz HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(bytes));
    wire.write_all(long(config.header_bytes_max).as_bytes()).await.unwrap();
    let refused = head(&mut wire).await;
    assert!(refused.starts_with("HTTP/1.1 431") && refused.contains("http.header_bytes_max"), "{refused}");
    let many = format!("GET /healthz HTTP/1.1\r\nhost: x\r\n{}\r\n", "x: y\r\n".repeat(64));
    wire.write_all(many.as_bytes()).await.unwrap();
    let refused = head(&mut wire).await;
    assert!(refused.starts_with("HTTP/1.1 431") && refused.contains("65 headers"), "{refused}");
    // The server may respond, and close, before all of it is written.
    let _cut = wire.write_all(long(config.header_read_bytes_max()).as_bytes()).await;
    let refused = head(&mut wire).await;
    assert!(refused.starts_with("HTTP/1.1 431") && refused.contains("content-length: 0"), "{refused}");
    server.close().await;
}

/// The head of a response; its body has a known end in the same read, or is not needed.
async fn head(wire: &mut TcpStream) -> String {
    let mut read = vec![0; 4096];
    let bytes = wire.read(&mut read).await.unwrap();
    String::from_utf8_lossy(&read[..bytes]).into_owned()
}

#[tokio::test]
async fn connections_are_bounded() {
    let one = HttpConfig { connections_max: 1, ..HttpConfig::default() };
    let server = HttpTestServer::with(limits(), one).await;
    let mut first = TcpStream::connect(&server.address).await.unwrap();
    first.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert!(head(&mut first).await.starts_with("HTTP/1.1 200"));
    let refused = reqwest::get(format!("http://{}/healthz", server.address)).await.unwrap();
    assert_eq!((refused.status().as_u16(), &refused.headers()[RETRY_AFTER]), (429, &HeaderValue::from_static("1")));
    let problem: serde_json::Value = refused.json().await.unwrap();
    assert_eq!(kind(&problem), "limited");
    assert!(problem["error"]["message"].as_str().unwrap().contains("http.connections_max"), "{problem}");
    first.shutdown().await.unwrap();
    assert_eq!(first.read(&mut [0; 1]).await.unwrap(), 0, "the server has closed the first");
    // The connection slot becomes free shortly after its socket is closed.
    while reqwest::get(format!("http://{}/healthz", server.address)).await.unwrap().status() != 200 {
        tokio::task::yield_now().await;
    }
    server.close().await;
}

#[tokio::test]
async fn a_stop_lets_the_running_request_end() {
    let server = HttpTestServer::open().await;
    let (sender, receiver) = tokio::sync::mpsc::channel::<std::io::Result<Bytes>>(1);
    let body = reqwest::Body::wrap_stream(tokio_stream::wrappers::ReceiverStream::new(receiver));
    let posting = server.post(NDJSON, None, body);
    let stopping = async {
        let text = Bytes::from(lines(["a"]));
        sender.send(Ok(text)).await.unwrap();
        // The first bytes have a memory reservation in the queue: the request is running.
        while server.ingest.writer.queued_bytes() == 0 {
            tokio::task::yield_now().await;
        }
        server.stop.cancel();
        drop(sender);
    };
    let (response, ()) = tokio::join!(posting, stopping);
    let (status, receipt) = answer(response).await;
    assert_eq!((status, &receipt["accepted"]), (200, &json!(1)));
    let address = server.address.clone();
    server.close().await;
    assert!(TcpStream::connect(&address).await.is_err(), "the listener is closed");
}

#[tokio::test]
async fn busy_queries_do_not_delay_other_requests() {
    // All of this runs on one thread: it would block if a query ran on the same thread.
    let server = HttpTestServer::open().await;
    let reader = crate::tenancy::testing::access(Some("acme"), &[Scope::Read], &["calls"]).await;
    let session = server.engine.session(&reader).unwrap();
    // One call compares thirty million pairs of characters without yielding; there are ten thousand such calls.
    let sql = "SELECT max(levenshtein(repeat('a', 60), repeat('b', 60 + value % 2))) FROM range(0, 81920000)";
    let planned = session.plan(sql).await.unwrap();
    let mut answers = Vec::new();
    for _ in 0..4 {
        answers.push(session.run(&planned, None).await.unwrap());
    }
    let others = async {
        for number in 0..10 {
            let (status, receipt) = answer(server.post(NDJSON, None, lines([format!("e{number}")])).await).await;
            assert_eq!((status, &receipt["accepted"]), (200, &json!(1)), "{receipt}");
            let operator = token(None, &[Scope::Admin]);
            for (path, token) in [("/healthz", ""), ("/readyz", ""), ("/metrics", &operator)] {
                assert_eq!(server.get(path, token).await.status(), 200, "{path}");
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), others).await.expect("ingest and endpoints are not delayed");
    assert_eq!(server.engine.running(), 4, "all of them still run, twice as many as the threads");
    drop(answers);
    server.engine.stop();
    server.close().await;
}
