//! Tests of requests that the HTTP endpoint refuses: invalid bodies, callers without rights, and exceeded limits.

use std::time::Duration;

use bytes::Bytes;
use reqwest::Method;
use reqwest::header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use serde_json::json;

use super::testing::{HttpTestServer, JSON, NDJSON, acme, bearer, gzip, json_response, kind, token, token_of, zstd};
use crate::config::{HttpConfig, IngestConfig};
use crate::ingest::testing::{TABLE, limits, lines, stored};
use crate::tenancy::Scope;

/// The name of a test case, the content type, content encoding and body of its request, and the expected status and
/// error kind.
type Refused = (&'static str, &'static str, Option<&'static str>, Vec<u8>, u16, &'static str);

#[tokio::test]
async fn invalid_bodies_are_refused() {
    let small = IngestConfig { body_bytes_max: 100_000, body_expansion_max: 20, ..limits() };
    let server = HttpTestServer::with(small, HttpConfig::default()).await;
    let whole = gzip(lines(0..50).as_bytes());
    let mut damaged = whole.clone();
    let middle = damaged.len() / 2;
    damaged[middle] ^= 0x55;
    let spaces = vec![b' '; 1 << 20];
    // A zstd frame header that requires a window of 2^31 bytes.
    let greedy_window = [0x28, 0xb5, 0x2f, 0xfd, 0x00, 0xa8, 0x01, 0x00, 0x00];
    let cases: [Refused; 14] = [
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
        let (status, problem) = json_response(server.post(media, encoding, body).await).await;
        assert_eq!((status, kind(&problem)), (expected, expected_kind), "{case}: {problem}");
    }

    // The request sends the body in chunks, so the server does not know its length in advance.
    let chunks = futures::stream::iter((0..200).map(|_| Ok::<_, std::io::Error>(Bytes::from_static(&[b' '; 1_000]))));
    let (status, problem) = json_response(server.post(NDJSON, None, reqwest::Body::wrap_stream(chunks)).await).await;
    assert_eq!((status, kind(&problem)), (413, "limited"), "{problem}");

    let exact = [lines(["fits"]).into_bytes(), vec![b' '; 100_000]].concat()[..100_000].to_vec();
    let (status, receipt) = json_response(server.post(NDJSON, None, exact).await).await;
    assert_eq!((status, &receipt["accepted"]), (200, &json!(1)), "{receipt}");
    assert_eq!(server.ingest.writer.queued_bytes(), 0, "refused bodies release their memory reservation");
    server.close().await;
}

#[tokio::test]
async fn callers_without_rights_are_refused() {
    let server = HttpTestServer::open().await;
    let events = "/v1/tables/calls/events";
    let operator = token(None, &[Scope::Ingest]);
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
        ("no tenant", bearer(&token_of(None, "user", &[Scope::Ingest])), events, 403, "forbidden"),
        ("an operator into a quarantine", bearer(&operator), "/v1/tables/calls_quarantine/events", 403, "forbidden"),
        ("a table not shown", bearer(&acme()), "/v1/tables/calls_quarantine/events", 404, "not_found"),
        ("an unknown table", bearer(&acme()), "/v1/tables/cals/events", 404, "not_found"),
        ("not a name", bearer(&acme()), "/v1/tables/%ff/events", 400, "invalid"),
    ];
    for (case, mut headers, path, expected, expected_kind) in cases {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(NDJSON));
        let response = server.request(Method::POST, path, headers, lines(["a"])).await;
        assert_eq!(response.headers().contains_key(WWW_AUTHENTICATE), expected == 401, "{case}");
        let (status, problem) = json_response(response).await;
        assert_eq!((status, kind(&problem)), (expected, expected_kind), "{case}: {problem}");
    }
    assert!(stored(&server.store, TABLE).await.is_empty());
    server.close().await;
}

#[tokio::test]
async fn quarantine_requests_are_authorized_before_their_body_is_read() {
    let small = IngestConfig { body_bytes_max: 100_000, ..limits() };
    let server = HttpTestServer::with(small, HttpConfig::default()).await;
    // This body exceeds every size limit of the server in this test.
    let oversized = vec![b' '; 300_000];
    let cases = [
        ("no token", HeaderMap::new(), 401, "unauthenticated"),
        ("a tenant without the scope ingest", bearer(&token(Some("acme"), &[Scope::Read])), 403, "forbidden"),
        ("an operator without the scope admin", bearer(&token(None, &[Scope::Ingest])), 403, "forbidden"),
        ("a tenant that may not see all columns", bearer(&acme()), 404, "not_found"),
        ("an authorized caller", bearer(&token(None, &[Scope::Admin])), 413, "limited"),
    ];
    for (case, mut headers, expected, expected_kind) in cases {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(JSON));
        for action in ["replay", "drop", "an-entry/replay"] {
            let path = format!("/v1/tables/calls/quarantine/{action}");
            let response = server.request(Method::POST, &path, headers.clone(), oversized.clone()).await;
            let (status, problem) = json_response(response).await;
            assert_eq!((status, kind(&problem)), (expected, expected_kind), "{case}, {action}: {problem}");
        }
    }
    server.close().await;
}

#[tokio::test]
async fn limits_return_retry_after() {
    let bounds = IngestConfig { queue_bytes_max: 64 << 10, queue_wait_max: Duration::ZERO, ..limits() };
    let server = HttpTestServer::with(bounds, HttpConfig::default()).await;
    let mut all = server.ingest.writer.reservation();
    all.resize(64 << 10).await.unwrap();
    let full = server.post(NDJSON, None, lines(["a"])).await;
    assert_eq!(full.headers()[RETRY_AFTER], "1");
    let (status, problem) = json_response(full).await;
    assert_eq!((status, kind(&problem)), (429, "limited"));
    server.close().await;

    // The body of this request never ends, so the request exceeds the time limit.
    let hasty = HttpConfig { request_time_max: Duration::from_millis(50), ..HttpConfig::default() };
    let server = HttpTestServer::with(limits(), hasty).await;
    let endless = futures::stream::pending::<std::io::Result<Bytes>>();
    let slow = server.post(NDJSON, None, reqwest::Body::wrap_stream(endless)).await;
    assert_eq!(slow.headers()[RETRY_AFTER], "1");
    let (status, problem) = json_response(slow).await;
    assert_eq!((status, kind(&problem)), (503, "unavailable"));
    server.close().await;
}
