//! Tests of the HTTP endpoint that send real requests to a listener and check which events are stored in the lake.

use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{ALLOW, CONTENT_TYPE, HeaderValue, RETRY_AFTER};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::testing::{HttpTestServer, JSON, LOOKUP, NDJSON, acme, bearer, gzip, json_response, kind, token, zstd};
use crate::config::HttpConfig;
use crate::ingest::testing::{QUARANTINE, TABLE, limits, lines, stored};
use crate::tenancy::Scope;

/// A handler that panics. The route to this handler exists only in tests.
pub(super) async fn panics() -> &'static str {
    panic!("a handler has a bug")
}

const ARROW: &str = "application/vnd.apache.arrow.stream";

#[tokio::test]
async fn a_panic_fails_its_request_but_keeps_the_connection() {
    let server = HttpTestServer::open().await;
    let mut connection = TcpStream::connect(&server.address).await.unwrap();
    let mut ask = async |path: &str| {
        let request = format!("GET {path} HTTP/1.1\r\nhost: test\r\n\r\n");
        connection.write_all(request.as_bytes()).await.unwrap();
        let mut response = Vec::new();
        // Every response in this test has a JSON object as its body, so the final `}` marks the end of the response.
        while !response.ends_with(b"}") {
            assert!(connection.read_buf(&mut response).await.unwrap() > 0, "the connection closed early");
        }
        String::from_utf8(response).unwrap()
    };
    for _ in 0..2 {
        let response = ask("/panics").await;
        assert!(response.starts_with("HTTP/1.1 500 ") && response.contains("x-request-id: "), "{response}");
        let body: serde_json::Value = serde_json::from_str(response.split("\r\n\r\n").nth(1).unwrap()).unwrap();
        assert_eq!(kind(&body), "internal");
        assert!(body["error"]["id"].is_string() && !response.contains("bug"), "{response}");
    }
    assert!(ask("/healthz").await.starts_with("HTTP/1.1 200 "));
    server.close().await;
}

#[tokio::test]
async fn damaged_arrow_bodies_return_a_regular_status() {
    let server = HttpTestServer::open().await;
    let whole = crate::ingest::testing::arrow_stream(["a", "b", "c"]);
    for (seed, damaged) in crate::ingest::testing::mutations(&whole, 400) {
        let (status, body) = json_response(server.post(ARROW, None, damaged).await).await;
        assert!(matches!(status, 200 | 400 | 413 | 429), "seed {seed}: {status} {body}");
    }
    let (status, receipt) = json_response(server.post(ARROW, None, whole).await).await;
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
        let (status, receipt) = json_response(server.post(kind, encoding, body).await).await;
        assert_eq!(status, 200, "{kind} {encoding:?}: {receipt}");
        assert_eq!((&receipt["accepted"], &receipt["rejected"]), (&json!(1), &json!(0)), "{kind} {encoding:?}");
        assert!(receipt["version"].as_u64().unwrap() > 0);
    }
    let ids: Vec<String> = stored(&server.store, TABLE).await.into_iter().map(|(_, id)| id).collect();
    assert_eq!(ids, ["a", "b", "c", "d", "e", "f"]);
    server.close().await;
}

#[tokio::test]
async fn receipts_list_rejected_events_and_count_accepted_ones() {
    let server = HttpTestServer::open().await;
    let mut body = lines(["a", "a"]).into_bytes();
    body.extend_from_slice(
        b"{\"event_id\":\"b\",\"event_time\":1000000000,\"mos\":\"\xff\"}\n{\"event_id\":\"\",\"event_time\":1000000000}\n",
    );
    let (status, receipt) = json_response(server.post(NDJSON, None, body).await).await;
    assert_eq!(status, 200, "{receipt}");
    let counts = ["accepted", "duplicate", "rejected"].map(|count| receipt[count].as_u64().unwrap());
    assert_eq!(counts, [1, 1, 2], "{receipt}");
    let rejects = receipt["rejects"].as_array().unwrap();
    let reasons: Vec<_> =
        rejects.iter().map(|one| (one["index"].as_u64().unwrap(), one["reason"].as_str().unwrap())).collect();
    assert_eq!(reasons, [(2, "invalid_utf8"), (3, "missing_id")], "{receipt}");
    assert_eq!(stored(&server.store, QUARANTINE).await.len(), 2);

    let (status, receipt) = json_response(server.post(NDJSON, None, "{\"event_id\":\"c\"}\n").await).await;
    assert_eq!((status, &receipt["rejected"], &receipt["version"]), (200, &json!(1), &json!(0)), "{receipt}");
    server.close().await;
}

#[tokio::test]
async fn operators_list_pause_and_resume_sources() {
    let server = HttpTestServer::open().await;
    let admin = token(None, &[Scope::Admin]);
    let post = async |path: &str, token: &str| {
        json_response(server.request(Method::POST, path, bearer(token), "").await).await
    };
    let (status, listed) = json_response(server.get("/v1/sources", &admin).await).await;
    let running = json!({
        "name": "voice", "table": TABLE, "state": "running", "paused_since": null, "last_error": null, "partitions": [],
    });
    assert_eq!((status, listed), (200, json!({ "sources": [running] })));

    let (status, paused) = post("/v1/sources/voice/pause", &admin).await;
    assert_eq!((status, &paused["state"]), (200, &json!("paused")), "{paused}");
    assert!(paused["paused_since"].is_string(), "{paused}");
    assert_eq!(
        post("/v1/sources/voice/pause", &admin).await,
        (200, paused.clone()),
        "pausing a second time changes nothing"
    );
    let (_, listed) = json_response(server.get("/v1/sources", &admin).await).await;
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
        let (status, problem) = json_response(server.get("/v1/sources", token).await).await;
        assert_eq!((status, kind(&problem)), (403, "forbidden"), "{problem}");
    }
    server.close().await;
}

#[tokio::test]
async fn unknown_paths_wrong_methods_and_probes_get_json() {
    let server = HttpTestServer::open().await;
    let (status, problem) = json_response(server.get("/v2/anything", "").await).await;
    assert_eq!((status, kind(&problem)), (404, "not_found"));
    let wrong = server.get("/v1/tables/calls/events", &acme()).await;
    assert_eq!(wrong.headers()[ALLOW], "POST");
    assert_eq!(json_response(wrong).await.0, 405);

    assert_eq!(json_response(server.get("/healthz", "").await).await, (200, json!({ "status": "ok" })));
    assert_eq!(json_response(server.get("/readyz", "").await).await, (200, json!({ "ready": true, "reasons": [] })));
    server.ingest.stop().await;
    let (status, body) = json_response(server.get("/readyz", "").await).await;
    assert_eq!((status, &body["ready"]), (503, &json!(false)));
    assert!(body["reasons"][0].as_str().unwrap().contains("stopping"), "{body}");
    let (status, problem) = json_response(server.post(NDJSON, None, lines(["a"])).await).await;
    assert_eq!((status, kind(&problem)), (503, "unavailable"));
    server.close().await;
}

#[tokio::test]
async fn table_list_has_only_what_the_caller_may_see() {
    let server = HttpTestServer::open().await;
    let (status, body) = json_response(server.get("/v1/tables", &acme()).await).await;
    assert_eq!(status, 200);
    let calls = body["tables"].as_array().unwrap().iter().find(|table| table["name"] == TABLE).unwrap();
    let columns: Vec<&str> =
        calls["columns"].as_array().unwrap().iter().map(|column| column["name"].as_str().unwrap()).collect();
    assert_eq!(columns, ["event_time", "event_id"]);
    assert_eq!(calls["columns"][0]["type"], "timestamp");
    let column = |name, kind| json!({ "name": name, "type": kind, "unit": "", "description": "" });
    let columns = [column("city", "text"), column("size", "int64")];
    let lookup = json!({ "name": LOOKUP, "description": "Cities", "columns": columns, "lookup": true });
    assert_eq!(body["tables"].as_array().unwrap().iter().find(|table| table["name"] == LOOKUP), Some(&lookup));
    let (_, operator) = json_response(server.get("/v1/tables", &token(None, &[Scope::Admin])).await).await;
    assert!(!operator.to_string().contains(LOOKUP), "an operator cannot query: {operator}");
    assert_eq!(json_response(server.get("/v1/tables", "").await).await.0, 401);
    // The home page needs no token, is the same for all callers, and contains no names of tenants or tables.
    let (status, home) = json_response(server.get("/", "").await).await;
    let known = json_response(server.get("/", &acme()).await).await;
    assert_eq!((status, &home), (200, &known.1));
    assert!(!home.to_string().contains(TABLE) && !home.to_string().contains("acme"), "{home}");
    server.close().await;
}

#[tokio::test]
async fn lookup_table_accepts_no_events() {
    let server = HttpTestServer::open().await;
    let path = format!("/v1/tables/{LOOKUP}/events");
    for caller in [token(Some("acme"), &[Scope::Ingest]), token(None, &[Scope::Admin, Scope::Ingest])] {
        let mut headers = bearer(&caller);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(NDJSON));
        let (status, body) = json_response(server.request(Method::POST, &path, headers, "{}").await).await;
        assert_eq!(status, 403, "{body}");
        assert!(body.to_string().contains("is a lookup table, which accepts no events"), "{body}");
    }
    server.close().await;
}

#[tokio::test]
async fn freshness_covers_only_rows_that_the_caller_can_see() {
    let server = HttpTestServer::open().await;
    json_response(server.post(NDJSON, None, lines(["a"])).await).await;
    let ask = |tenant: Option<&str>| {
        let scope = if tenant.is_some() { Scope::Read } else { Scope::Admin };
        token(tenant, &[scope])
    };
    let path = "/v1/tables/calls/freshness";
    let (status, body) = json_response(server.get(path, &ask(Some("acme"))).await).await;
    assert_eq!((status, &body["newest_event_time"]), (200, &json!("2026-03-01T12:00:00.000000Z")), "{body}");
    assert!(body["complete_until"] == body["now"] && body.get("version").is_none(), "{body}");
    assert!(body["newest_received_time"].is_null(), "the policy hides the column: {body}");
    assert!(body["source_lag_seconds"].is_null() && body.get("source_lag_messages").is_none(), "{body}");
    let (_, body) = json_response(server.get(path, &ask(Some("globex"))).await).await;
    assert!(body["newest_event_time"].is_null() && body["newest_received_time"].is_null(), "{body}");
    let (_, body) = json_response(server.get(path, &ask(None)).await).await;
    assert!(body["version"].as_u64() > Some(0) && body["newest_received_time"].is_string(), "{body}");
    assert!(body["source_lag_messages"].is_null(), "no source writes to the table: {body}");
    assert!(body.get("newest_event_time").is_none(), "{body}");
    for (token, path, expected) in [
        (acme(), path, 403),
        (ask(Some("acme")), "/v1/tables/calls_quarantine/freshness", 404),
        (ask(None), "/v1/tables/other/freshness", 404),
        (ask(Some("acme")), "/v1/tables/places/freshness", 400),
        (ask(None), "/v1/tables/places/freshness", 404),
        (String::new(), path, 401),
    ] {
        assert_eq!(json_response(server.get(path, &token).await).await.0, expected, "{path}");
    }
    server.close().await;
}

#[tokio::test]
async fn quarantines_are_shown_replayed_and_dropped() {
    let server = HttpTestServer::open().await;
    json_response(
        server
            .post(NDJSON, None, "{\"event_time\":1000000000,\"mos\":1}\n{\"event_id\":\"b\",\"mos\":\"\u{e9}\"}\n")
            .await,
    )
    .await;
    let operator = token(None, &[Scope::Admin]);
    let post = |path: String, body: &'static str| {
        let mut headers = bearer(&operator);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
        let server = &server;
        async move { json_response(server.request(Method::POST, &path, headers, body).await).await }
    };
    let (status, listed) = json_response(server.get("/v1/tables/calls/quarantine?limit=5", &operator).await).await;
    assert_eq!((status, listed["entries"].as_array().unwrap().len()), (200, 2), "{listed}");
    let (_, counted) = json_response(server.get("/v1/quarantine?tenant=acme", &operator).await).await;
    assert_eq!(counted["counts"].as_array().unwrap().len(), 2, "{counted}");
    let missing = listed["entries"].as_array().unwrap().iter().find(|entry| entry["reason"] == "missing_id").unwrap();
    let entry = format!("/v1/tables/calls/quarantine/{}", missing["id"].as_str().unwrap());
    let (_, shown) = json_response(server.get(&entry, &operator).await).await;
    assert_eq!(shown["entries"][0]["payload"], "{\"event_time\":1000000000,\"mos\":1}", "{shown}");

    let quarantine = |verb: &str| format!("/v1/tables/calls/quarantine/{verb}");
    let (status, body) = post(quarantine("replay"), "").await;
    assert_eq!((status, &body["rejected"], &body["next"]), (200, &json!(2), &json!(null)), "{body}");
    let fixed = "{\"event_id\":\"a\",\"event_time\":1000000000}";
    let (status, body) = post(format!("{entry}/replay"), fixed).await;
    assert_eq!((status, &body["accepted"]), (200, &json!(1)), "{body}");
    assert_eq!(post(format!("{entry}/replay"), fixed).await.0, 404);
    for (body, expected) in [("", 400), ("{\"reasons\":[]}", 400), ("{\"since\":\"yesterday\"}", 400), ("[", 400)] {
        let (status, body) = post(quarantine("drop"), body).await;
        assert_eq!((status, kind(&body)), (expected, "invalid"), "{body}");
    }
    let (status, body) = post(quarantine("drop"), "{\"all\":true}").await;
    assert_eq!((status, body), (200, json!({ "dropped": 1, "more": false })));
    for (path, expected) in [("?limit=x", 400), ("?who=x", 400), ("/none", 404), ("?limit=0", 200)] {
        let path = format!("/v1/tables/calls/quarantine{path}");
        assert_eq!(json_response(server.get(&path, &operator).await).await.0, expected, "{path}");
    }
    // The policy hides some columns from the tenant `acme`. The quarantine is therefore hidden too, because the
    // payloads of its entries contain the values of all columns.
    let reader = token(Some("acme"), &[Scope::Read]);
    assert_eq!(json_response(server.get("/v1/tables/calls/quarantine", &reader).await).await.0, 404);
    assert_eq!(json_response(server.get("/v1/quarantine", &reader).await).await, (200, json!({ "counts": [] })));
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
        async move { json_response(server.request(Method::POST, &path, headers, lines([ids]) + "{}\n").await).await }
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
    json_response(server.post(NDJSON, None, lines(["a"])).await).await;
    for refused in [acme(), token(Some("acme"), &[Scope::Admin]), token(None, &[Scope::Ingest])] {
        assert_eq!(json_response(server.get("/metrics", &refused).await).await.0, 403);
    }
    assert_eq!(json_response(server.get("/metrics", "").await).await.0, 401);
    let page = server.get("/metrics", &token(None, &[Scope::Admin])).await;
    assert_eq!(page.status(), 200);
    let page = page.text().await.unwrap();
    let posts = "glasshouse_http_requests_total{route=\"/v1/tables/{table}/events\",status=\"200\"} 1";
    assert!(page.contains(posts) && page.contains("glasshouse_ingest_queue_bytes 0"), "{page}");
    server.close().await;
}

#[tokio::test]
async fn request_heads_are_limited_and_connections_are_kept_alive() {
    let server = HttpTestServer::open().await;
    let mut wire = TcpStream::connect(&server.address).await.unwrap();
    for _ in 0..3 {
        wire.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        assert!(head(&mut wire).await.starts_with("HTTP/1.1 200"), "the connection was not kept alive");
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
    // The server may respond and close the connection before the client has written the whole head.
    let _cut = wire.write_all(long(config.header_read_bytes_max()).as_bytes()).await;
    let refused = head(&mut wire).await;
    assert!(refused.starts_with("HTTP/1.1 431") && refused.contains("content-length: 0"), "{refused}");
    server.close().await;
}

/// Reads the head of a response, and any part of its body that arrives together with the head.
async fn head(wire: &mut TcpStream) -> String {
    let mut read = vec![0; 4096];
    let bytes = wire.read(&mut read).await.unwrap();
    String::from_utf8_lossy(&read[..bytes]).into_owned()
}

#[tokio::test]
async fn connections_beyond_the_limit_are_refused() {
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
    assert_eq!(first.read(&mut [0; 1]).await.unwrap(), 0, "the server has not closed the first connection");
    // The server frees a connection slot shortly after it closes the socket.
    while reqwest::get(format!("http://{}/healthz", server.address)).await.unwrap().status() != 200 {
        tokio::task::yield_now().await;
    }
    server.close().await;
}

#[tokio::test]
async fn a_running_request_finishes_after_a_stop_is_requested() {
    let server = HttpTestServer::open().await;
    let (sender, receiver) = tokio::sync::mpsc::channel::<std::io::Result<Bytes>>(1);
    let body = reqwest::Body::wrap_stream(tokio_stream::wrappers::ReceiverStream::new(receiver));
    let posting = server.post(NDJSON, None, body);
    let stopping = async {
        let text = Bytes::from(lines(["a"]));
        sender.send(Ok(text)).await.unwrap();
        // Wait until the request is running. The server reserves memory as soon as it reads the first bytes.
        while server.ingest.writer.queued_bytes() == 0 {
            tokio::task::yield_now().await;
        }
        server.stop.cancel();
        drop(sender);
    };
    let (response, ()) = tokio::join!(posting, stopping);
    let (status, receipt) = json_response(response).await;
    assert_eq!((status, &receipt["accepted"]), (200, &json!(1)));
    let address = server.address.clone();
    server.close().await;
    assert!(TcpStream::connect(&address).await.is_err(), "the listener is still open");
}

#[tokio::test]
async fn busy_queries_do_not_delay_other_requests() {
    // The test and the server share one thread, so a query that ran on this thread would block the server.
    let server = HttpTestServer::open().await;
    let reader = crate::tenancy::testing::access(Some("acme"), &[Scope::Read], &["calls"]).await;
    let session = server.engine.session(&reader).unwrap();
    // The query processes ten thousand batches. For each batch, it compares thirty million pairs of characters without
    // yielding.
    let sql = "SELECT max(levenshtein(repeat('a', 60), repeat('b', 60 + value % 2))) FROM range(0, 81920000)";
    let planned = session.plan(sql).await.unwrap();
    let mut results = Vec::new();
    for _ in 0..4 {
        results.push(session.run(&planned, None).await.unwrap());
    }
    let others = async {
        for number in 0..10 {
            let (status, receipt) = json_response(server.post(NDJSON, None, lines([format!("e{number}")])).await).await;
            assert_eq!((status, &receipt["accepted"]), (200, &json!(1)), "{receipt}");
            let operator = token(None, &[Scope::Admin]);
            for (path, token) in [("/healthz", ""), ("/readyz", ""), ("/metrics", &operator)] {
                assert_eq!(server.get(path, token).await.status(), 200, "{path}");
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), others).await.expect("a running query delays other requests");
    assert_eq!(server.engine.running(), 4, "all queries are still running; there are twice as many queries as threads");
    drop(results);
    server.engine.stop();
    server.close().await;
}
