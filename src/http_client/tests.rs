//! Tests of the client with a real server on a loopback address. They cover size and time limits, redirects,
//! certificate authorities, retries, and redaction in errors.

use std::fs;
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::Response;
use bytes::Bytes;
use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _, stream};
use tokio::net::TcpListener;
use url::Url;

use super::testing::{AUTHORITY, OTHER_AUTHORITY, Server};
use super::url_rule::target;
use super::{Client, Plaintext, Request, Retry, Roots, Settings, StatusCode, parse_url, redacted};
use crate::error::{Error, Kind, Result};

/// The maximum size of a response body in these tests, in bytes.
const BODY_BYTES_MAX: usize = 1_000;

/// A retry policy with pauses so short that they do not slow down the tests.
const QUICK: Retry = Retry {
    attempts_max: 3,
    pause_min: Duration::from_millis(1),
    pause_max: Duration::from_millis(1),
    retry_after_max: Duration::from_secs(1),
    if_unanswered: true,
};

fn settings() -> Settings {
    Settings {
        peer: "the peer",
        time_max: Duration::from_secs(60),
        body_bytes_max: BODY_BYTES_MAX,
        body_bytes_key: Some("some.key"),
        ca_key: Some("ca_file"),
        redirects_max: 2,
        plaintext: Plaintext::Loopback,
        retry: Retry::NONE,
    }
}

fn client(settings: Settings) -> Client {
    Client::new(settings, &roots(&[AUTHORITY])).unwrap()
}

fn roots(authorities: &[&str]) -> Roots {
    authorities.iter().fold(Roots::default(), |roots, pem| roots.and_pem(pem.as_bytes(), "a test").unwrap())
}

fn url(text: &str) -> Url {
    Url::parse(text).unwrap()
}

/// Sends the request, and returns the response's status and the length of its body.
async fn send(client: &Client, request: &Request) -> Result<(u16, usize)> {
    let response = client.send(request).await?;
    Ok((response.status.as_u16(), response.body.len()))
}

async fn send_error(client: &Client, request: &Request) -> Error {
    match client.send(request).await {
        Ok(response) => panic!("expected an error, got a response with status {}", response.status),
        Err(error) => error,
    }
}

/// Returns the response that the path selects: `/length/N`, `/chunks/N`, `/endless/STATUS`, `/silent`, `/stalls`,
/// `/redirect?URL`, `/loop`, `/status/STATUS`, `/later/SECONDS` or `/cut`. For the paths `/first/STATUS`,
/// `/first-later/SECONDS` and `/first-cut`, only the first request to the server fails.
fn answer(before: usize, request: axum::extract::Request) -> BoxFuture<'static, Response<Body>> {
    let path = request.uri().path().to_owned();
    let (word, number) = path[1..].split_once('/').unwrap_or((&path[1..], "200"));
    let number: u16 = number.parse().unwrap();
    let first = |number| if before == 0 { number } else { 200 };
    let body = |status: u16, body: Body| Response::builder().status(status).body(body).unwrap();
    let chunks = |count: usize| stream::iter((0..count).map(|_| Ok::<_, std::io::Error>(Bytes::from_static(b"x"))));
    let later = |status: u16, seconds: u16| {
        Response::builder().status(status).header("retry-after", seconds).body(Body::empty()).unwrap()
    };
    let answer = match word {
        "length" => body(200, Body::from("x".repeat(number.into()))),
        "chunks" => body(200, Body::from_stream(chunks(number.into()))),
        "endless" => body(number, Body::from_stream(chunks(usize::MAX))),
        "silent" => return futures::future::pending().boxed(),
        "stalls" => body(200, Body::from_stream(chunks(1).chain(stream::pending()))),
        "redirect" => {
            let location = request.uri().query().unwrap();
            Response::builder().status(302).header("location", location).body(Body::empty()).unwrap()
        }
        "loop" => Response::builder().status(307).header("location", "/loop").body(Body::empty()).unwrap(),
        "status" => body(number, Body::empty()),
        "later" => later(503, number),
        "first" => body(first(number), Body::empty()),
        "first-later" => later(first(503), number),
        "cut" | "first-cut" if word == "cut" || before == 0 => {
            let cut = chunks(1).chain(stream::iter([Err(std::io::Error::other("cut"))]));
            body(200, Body::from_stream(cut))
        }
        _ => body(200, Body::empty()),
    };
    futures::future::ready(answer).boxed()
}

#[tokio::test]
async fn a_response_is_read_up_to_its_limit() {
    let server = Server::plain(answer).await;
    let client = client(settings());
    let cases = [
        ("/length/1000", Some((200, 1_000))),
        ("/chunks/1000", Some((200, 1_000))),
        ("/length/1001", None),
        ("/chunks/1001", None),
        ("/endless/200", None),
        // The body of an error response is truncated at the limit.
        ("/endless/500", Some((500, 1_000))),
    ];
    for (path, expected) in cases {
        let outcome = send(&client, &Request::get(url(&server.url(path)))).await;
        match expected {
            Some(expected) => assert_eq!(outcome.unwrap(), expected, "{path}"),
            None => {
                let error = outcome.unwrap_err();
                assert_eq!(error.kind(), Kind::Limited, "{path}: {error}");
                assert!(error.message().contains("more than 1000 bytes (limit some.key)"), "{path}: {error}");
            }
        }
    }
}

#[tokio::test]
async fn an_attempt_ends_at_its_time_limit() {
    let server = Server::plain(answer).await;
    let client = client(Settings { time_max: Duration::from_millis(100), retry: QUICK, ..settings() });
    for path in ["/silent", "/stalls"] {
        let started = Instant::now();
        let error = send_error(&client, &Request::get(url(&server.url(path)))).await;
        assert!(started.elapsed() < Duration::from_secs(30), "{path}");
        assert_eq!(error.kind(), Kind::Unavailable, "{path}: {error}");
        assert!(error.message().contains("did not respond within 100ms"), "{path}: {error}");
        // The client does not retry. The server may receive no request at all, because the time limit can expire while
        // the client is connecting.
        assert!(server.seen().len() <= 1, "{path}");
    }
}

#[test]
fn a_redirect_never_leads_to_a_less_safe_url() {
    use Plaintext::{Anywhere, Loopback};
    let cases = [
        (Loopback, "https://a.test/x/y", "z?q", Ok("https://a.test/x/z?q")),
        (Loopback, "https://a.test/x", "https://b.test/", Ok("https://b.test/")),
        (Loopback, "https://a.test/x", "//b.test:8443/", Ok("https://b.test:8443/")),
        (Loopback, "https://a.test/x", "http://a.test/x", Err("not https")),
        (Anywhere, "https://a.test/x", "http://a.test/x", Err("not https")),
        (Anywhere, "https://a.test/x", "http://b.test/", Err("not https")),
        (Anywhere, "http://a.test/x", "http://b.test/", Ok("http://b.test/")),
        (Anywhere, "http://a.test/x", "https://a.test/x", Ok("https://a.test/x")),
        (Loopback, "http://localhost/x", "http://b.test/", Err("not https")),
        (Loopback, "https://localhost/x", "http://localhost/", Ok("http://localhost/")),
        (Loopback, "https://127.0.0.1/x", "http://localhost:1/", Ok("http://localhost:1/")),
        (Anywhere, "https://127.0.0.1/x", "http://b.test/", Err("not https")),
        // A redirect from another host must not lead to a loopback address, because that host could then reach services
        // that listen only on loopback.
        (Anywhere, "http://a.test/x", "http://localhost/", Err("this machine")),
        (Loopback, "https://a.test/x", "http://127.0.0.1/", Err("this machine")),
        (Loopback, "https://a.test/x", "https://[::1]/", Err("this machine")),
        (Loopback, "https://a.test/x", "ftp://a.test/", Err("not https")),
        (Loopback, "https://a.test/x", "file:///etc/passwd", Err("not https")),
        (Loopback, "https://a.test/x", "https://me:hunter2@b.test/", Err("contains credentials")),
        (Loopback, "https://a.test/x", "https://[", Err("not valid")),
    ];
    for (plaintext, from, location, expected) in cases {
        match (target(&url(from), location, plaintext), expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found.as_str(), expected, "{from} to {location}"),
            (Err(why), Err(expected)) => {
                assert!(why.contains(expected) && !why.contains("hunter2"), "{from} to {location}: {why}");
            }
            (found, _) => panic!("{from} to {location} gives {found:?}, not {expected:?}"),
        }
    }
}

#[tokio::test]
async fn redirects_to_another_origin_carry_no_credentials() {
    let (plain, other, tls) = (Server::plain(answer).await, Server::plain(answer).await, Server::tls(answer).await);
    let client = client(settings());
    let to = |server: &Server, target: &str| server.url(&format!("/redirect?{target}"));
    let back = to(&other, &plain.url("/status/200"));
    // The first URL, the expected status or error, and whether each of the received requests contains the token.
    let cases: [(String, Result<u16, &str>, &[bool]); 9] = [
        (to(&plain, "/status/204"), Ok(204), &[true, true]),
        (to(&plain, &plain.url("/status/404")), Ok(404), &[true, true]),
        (to(&plain, &plain.url_by_name("/status/200")), Ok(200), &[true, false]),
        (to(&plain, &other.url("/status/200")), Ok(200), &[true, false]),
        (to(&plain, &back), Ok(200), &[true, false, false]),
        (to(&tls, &plain.url("/status/200")), Ok(200), &[true, false]),
        (to(&tls, "http://elsewhere.test/"), Err("redirects to http://elsewhere.test/, which is not https"), &[true]),
        (to(&plain, "ftp://localhost/"), Err("not https"), &[true]),
        (plain.url("/loop"), Err("redirects more than 2 times"), &[true, true, true]),
    ];
    for (first, expected, tokens) in cases {
        match (send(&client, &Request::get(url(&first)).bearer("hunter2")).await, expected) {
            (Ok((status, _)), Ok(expected)) => assert_eq!(status, expected, "{first}"),
            (Err(error), Err(expected)) => {
                assert!(error.kind() == Kind::Unavailable && error.message().contains(expected), "{first}: {error}");
            }
            (outcome, _) => panic!("{first} gives {outcome:?}, not {expected:?}"),
        }
        // Each server records only its own requests, so the order of requests to different servers is unknown. Sorting
        // restores this order, because the client sends all requests with the token before those without it.
        let (plain, other, tls) = (plain.seen(), other.seen(), tls.seen());
        let mut found: Vec<bool> =
            plain.iter().chain(&other).chain(&tls).map(|seen| seen.contains_key("authorization")).collect();
        found.sort_by_key(|has_token| !has_token);
        assert_eq!(found, tokens, "{first}");
    }
    let post = Request::post(url(&to(&plain, "/status/200")), "text/plain", "x");
    assert_eq!(send(&client, &post).await.unwrap().0, 302, "a request with a body does not follow redirects");
    let strict = self::client(Settings { redirects_max: 0, ..settings() });
    assert_eq!(send(&strict, &Request::get(url(&plain.url("/loop")))).await.unwrap().0, 307);
}

#[tokio::test]
async fn authorities_are_added_to_those_of_the_system() {
    let (one, other) = (Server::tls(answer).await, Server::other_tls(answer).await);
    let cases: [(&[&str], [bool; 2]); 4] = [
        (&[], [false, false]),
        (&[AUTHORITY], [true, false]),
        (&[OTHER_AUTHORITY], [false, true]),
        (&[AUTHORITY, OTHER_AUTHORITY], [true, true]),
    ];
    for (authorities, expected) in cases {
        let client = Client::new(settings(), &roots(authorities)).unwrap();
        for (server, is_trusted) in [&one, &other].into_iter().zip(expected) {
            for url in [server.url("/"), server.url_by_name("/")] {
                match send(&client, &Request::get(self::url(&url))).await {
                    Ok(_) => assert!(is_trusted, "{url} must not be trusted"),
                    Err(error) => {
                        assert!(!is_trusted && error.kind() == Kind::Unavailable, "{url}: {error}");
                        assert!(error.message().contains("UnknownIssuer") && error.message().contains("`ca_file`"));
                    }
                }
            }
        }
    }

    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    let system = Roots::system().pem();
    assert_eq!(Roots::load(None).unwrap().pem(), system);
    fs::write(&file, format!("# ours\n{AUTHORITY}\n{OTHER_AUTHORITY}")).unwrap();
    assert_eq!(Roots::load(Some(&file)).unwrap().pem(), format!("{system}{AUTHORITY}{OTHER_AUTHORITY}"));
}

#[test]
fn a_file_without_authorities_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    let wrong = || Roots::load(Some(&file)).unwrap_err();
    assert!(wrong().message().starts_with("cannot read `"), "{}", wrong());
    let of = |text: &str| format!("-----BEGIN CERTIFICATE-----\n{text}\n-----END CERTIFICATE-----\n");
    let cases = [
        (String::new(), "contains no certificate (PEM)"),
        ("no certificate".to_owned(), "contains no certificate (PEM)"),
        (include_str!("../../tests/keys/p256.pub.pem").to_owned(), "contains no certificate (PEM)"),
        (of("!!!"), "contains a certificate that is not valid"),
        (of("AAAA"), "contains a certificate that is not valid"),
        (format!("{AUTHORITY}{}", of("AAAA")), "contains a certificate that is not valid"),
    ];
    for (text, expected) in cases {
        fs::write(&file, &text).unwrap();
        let error = wrong();
        assert!(error.kind() == Kind::Invalid && error.message().contains(expected), "{text}: {error}");
        assert!(error.message().contains(&file.display().to_string()), "{error}");
    }
}

#[tokio::test]
async fn only_idempotent_requests_are_retried() {
    let get = |path: &str, server: &Server| Request::get(url(&server.url(path)));
    let post = |path: &str, server: &Server| Request::post(url(&server.url(path)), "text/plain", "x");
    let safe = |path: &str, server: &Server| Request::post(url(&server.url(path)), "text/plain", "x").idempotent();
    let only_refused = Retry { if_unanswered: false, ..QUICK };
    let cases: [(&dyn Fn(&str, &Server) -> Request, &str, Retry, Option<u16>, usize); 17] = [
        (&get, "/first/429", QUICK, Some(200), 2),
        (&get, "/first/502", QUICK, Some(200), 2),
        (&get, "/first/503", QUICK, Some(200), 2),
        (&get, "/first/504", QUICK, Some(200), 2),
        (&get, "/first/500", QUICK, Some(500), 1),
        (&get, "/first/404", QUICK, Some(404), 1),
        (&get, "/first/408", QUICK, Some(408), 1),
        (&get, "/status/503", QUICK, Some(503), 3),
        (&get, "/first/503", Retry::NONE, Some(503), 1),
        (&get, "/first-later/0", QUICK, Some(200), 2),
        (&get, "/later/3600", QUICK, Some(503), 1),
        (&get, "/first-cut", QUICK, Some(200), 2),
        (&get, "/first-cut", only_refused, None, 1),
        (&post, "/first/503", QUICK, Some(503), 1),
        (&post, "/first-cut", QUICK, None, 1),
        (&safe, "/first/503", QUICK, Some(200), 2),
        (&safe, "/first-cut", QUICK, Some(200), 2),
    ];
    for (request, path, retry, expected, count) in cases {
        let server = Server::plain(answer).await;
        let client = client(Settings { retry, ..settings() });
        let status = send(&client, &request(path, &server)).await.ok().map(|(status, _)| status);
        assert_eq!((status, server.seen().len()), (expected, count), "{path} {retry:?}");
    }
}

#[tokio::test]
async fn errors_contain_no_secret() {
    let server = Server::plain(answer).await;
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let client = client(settings());
    let hasty = self::client(Settings { time_max: Duration::from_millis(50), ..settings() });
    let here = |path: &str| server.url(path).replacen("http://", "http://us:hunter2@", 1);
    let cases = [
        (&client, format!("http://us:hunter2@{gone}/a?key=hunter2#hunter2"), Kind::Unavailable),
        (&client, here("/endless/200?hunter2"), Kind::Limited),
        (&hasty, here("/silent?hunter2"), Kind::Unavailable),
        (&client, here("/redirect?http://us:hunter2@elsewhere.test/?hunter2"), Kind::Unavailable),
        (&client, here("/redirect?https://us:hunter2@elsewhere.test/?hunter2"), Kind::Unavailable),
        (&client, here("/cut?hunter2"), Kind::Unavailable),
        (&client, "http://us:hunter2@elsewhere.test/?hunter2".to_owned(), Kind::Invalid),
    ];
    for (index, (client, given, kind)) in cases.into_iter().enumerate() {
        let error = send_error(client, &Request::get(url(&given))).await;
        assert_eq!(error.kind(), kind, "case {index}: {error:?}");
        let text = format!("{error:?}");
        assert!(!text.contains("hunter2") && text.contains("the peer"), "case {index}: {text}");
    }
    for (token, password) in [(Some("hunter2\n"), None), (None, Some("hunter2"))] {
        let request = Request::get(url(&format!("http://{gone}/")));
        let request = match (token, password) {
            (Some(token), _) => request.bearer(token),
            (_, password) => request.basic("us", password.unwrap_or_default()),
        };
        let error = send_error(&client, &request).await;
        assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
    }
    for text in ["http://us:hunter2@elsewhere.test/", "https://us:hunter2@[", "ftp://us:hunter2@localhost/"] {
        let error = parse_url(text, Plaintext::Loopback).unwrap_err();
        assert!(error.kind() == Kind::Invalid && !error.message().contains("hunter2"), "{error}");
    }
    let cases = [
        ("https://us:pass@a.test:8443/b/c?d=e#f", "https://a.test:8443/b/c?(redacted)"),
        ("https://us@a.test/", "https://a.test/"),
        ("http://a.test/b", "http://a.test/b"),
    ];
    for (given, expected) in cases {
        assert_eq!(redacted(&url(given)), expected);
    }
    // If the URL of a request contains credentials, the client sends them.
    server.seen();
    assert_eq!(client.send(&Request::get(url(&here("/length/1")))).await.unwrap().status, StatusCode::OK);
    assert_eq!(server.seen()[0]["authorization"], "Basic dXM6aHVudGVyMg==");
    assert_eq!(server.seen().len(), 0);
}
