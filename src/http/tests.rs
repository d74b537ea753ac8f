//! The web door as clients meet it: real requests over a real listener, and what the lake holds after them.

use bytes::Bytes;
use reqwest::header::ALLOW;
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use super::house::{House, JSON, NDJSON, acme, answer, gzip, kind, token, zstd};
use crate::config::HttpConfig;
use crate::ingest::testing::{QUARANTINE, TABLE, limits, lines, stored};
use crate::tenancy::Scope;

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
    body.extend_from_slice(
        b"{\"event_id\":\"b\",\"event_time\":1,\"mos\":\"\xff\"}\n{\"event_id\":\"\",\"event_time\":1}\n",
    );
    let (status, receipt) = answer(house.post(NDJSON, None, body).await).await;
    assert_eq!(status, 200, "{receipt}");
    let counts = ["accepted", "duplicate", "rejected"].map(|count| receipt[count].as_u64().unwrap());
    assert_eq!(counts, [1, 1, 2], "{receipt}");
    let rejects = receipt["rejects"].as_array().unwrap();
    let told: Vec<_> =
        rejects.iter().map(|one| (one["index"].as_u64().unwrap(), one["reason"].as_str().unwrap())).collect();
    assert_eq!(told, [(2, "invalid_utf8"), (3, "missing_id")], "{receipt}");
    assert_eq!(stored(&house.store, QUARANTINE).await.len(), 2);

    let (status, receipt) = answer(house.post(NDJSON, None, "{\"event_id\":\"c\"}\n").await).await;
    assert_eq!((status, &receipt["rejected"], &receipt["version"]), (200, &json!(1), &json!(0)), "{receipt}");
    house.close().await;
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
    let columns: Vec<&str> =
        calls["columns"].as_array().unwrap().iter().map(|column| column["name"].as_str().unwrap()).collect();
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
async fn heads_are_bounded_and_connections_kept_alive() {
    let house = House::open().await;
    let mut wire = TcpStream::connect(&house.address).await.unwrap();
    for _ in 0..3 {
        wire.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        assert!(head(&mut wire).await.starts_with("HTTP/1.1 200"), "one connection answers many requests");
    }
    let long =
        format!("GET /healthz HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(super::connection::HEAD_BYTES_MAX));
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
