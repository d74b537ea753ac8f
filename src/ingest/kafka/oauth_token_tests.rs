//! Tests that fetch tokens from a loopback endpoint, which returns valid tokens, invalid tokens, or errors.

use axum::body::Body;
use axum::response::Response;
use futures::FutureExt as _;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpListener;

use super::oauth_token::{OauthToken, OauthTokens};
use crate::clock::{Clock, SECOND};
use crate::config::{OauthConfig, Secret};
use crate::error::{Kind, Result};
use crate::http_client::testing::{AUTHORITY, OTHER_AUTHORITY, Server};

const NOW: i64 = 1_800_000_000;

/// Fetches a token from an endpoint that returns this response. Returns the outcome of the fetch and the request that
/// the endpoint received.
async fn fetch(status: &str, body: &str) -> (Result<OauthToken>, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let config = OauthConfig {
        token_url: format!("http://{}/token", listener.local_addr().unwrap()),
        client_id: "us:er".to_owned(),
        client_secret: Secret::new("hunter 2"),
        scope: Some("read & more".to_owned()),
        ..OauthConfig::default()
    };
    let tokens = OauthTokens::new("voice", &config, Clock::fixed(NOW * SECOND)).unwrap();
    assert!(!format!("{tokens:?}").contains("hunter"));
    let head = "location: /elsewhere\r\nconnection: close";
    let response = format!("HTTP/1.1 {status}\r\n{head}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let responding = async {
        let (mut connection, _) = listener.accept().await.unwrap();
        let mut request = vec![0; 8_192];
        let mut length = 0;
        while !request[..length].ends_with(b"read+%26+more") {
            length += connection.read(&mut request[length..]).await.unwrap();
        }
        drop(connection.write_all(response.as_bytes()).await);
        drop(connection.shutdown().await);
        String::from_utf8_lossy(&request[..length]).into_owned()
    };
    tokio::join!(tokens.fetch(), responding)
}

#[tokio::test]
async fn a_token_is_requested_and_parsed_as_rfc_6749_specifies() {
    // A response, and the expected lifetime of its token in seconds.
    let cases = [
        (r#"{"access_token":"a.b-c","token_type":"bearer","expires_in":600}"#, 600),
        (r#"{"access_token":"a.b-c","expires_in":"3599","ext_expires_in":1}"#, 3_599),
        (r#"{"access_token":"a.b-c","token_type":"Bearer","scope":"read"}"#, 300),
        (r#"{"access_token":"a.b-c","expires_in":9000000000}"#, 7 * 24 * 3_600),
    ];
    for (body, lifetime) in cases {
        let (token, request) = fetch("200 OK", body).await;
        let OauthToken { text, principal, expires } = token.unwrap();
        assert_eq!(
            (text.as_str(), principal.as_str(), expires),
            ("a.b-c", "us:er", (NOW + lifetime) * 1_000),
            "{body}"
        );
        let (head, form) = request.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("POST /token HTTP/1.1"), "{head}");
        // The credentials are `us%3Aer:hunter+2`, because the id and the secret are form-encoded.
        assert!(head.contains("Basic dXMlM0FlcjpodW50ZXIrMg=="), "{head}");
        assert_eq!(form, "grant_type=client_credentials&scope=read+%26+more");
    }
}

#[tokio::test]
async fn a_response_without_a_token_is_an_error() {
    let (long, refusal) = ("x".repeat(300_000), r#"{"error":"invalid_client","error_description":"no\u0000 such"}"#);
    let cases = [
        ("401 Unauthorized", refusal, Kind::Forbidden, "returned 401 Unauthorized (invalid_client, no such)"),
        ("400 Bad Request", "<html>", Kind::Forbidden, "returned 400 Bad Request"),
        ("302 Found", "", Kind::Unavailable, "returned 302 Found"),
        ("503 Service Unavailable", "{}", Kind::Unavailable, "returned 503"),
        ("200 OK", "<html>", Kind::Unavailable, "not a JSON object with an `access_token`"),
        ("200 OK", r#"{"access_token":""}"#, Kind::Unavailable, "invalid `access_token`"),
        ("200 OK", r#"{"access_token":"a\u0001host=b"}"#, Kind::Unavailable, "invalid `access_token`"),
        ("200 OK", r#"{"access_token":"a","token_type":"mac"}"#, Kind::Unavailable, "a `token_type` other than"),
        ("200 OK", r#"{"access_token":"a","expires_in":"soon"}"#, Kind::Unavailable, "not a number of seconds"),
        ("200 OK", r#"{"access_token":"a","expires_in":5}"#, Kind::Unavailable, "expires in 5 s"),
        ("200 OK", r#"{"access_token":"a","expires_in":-1}"#, Kind::Unavailable, "expires in -1 s"),
        ("200 OK", &long, Kind::Limited, "more than 262144 bytes"),
    ];
    for (status, body, kind, expected) in cases {
        let Err(error) = fetch(status, body).await.0 else { panic!("{status} returned a token") };
        assert_eq!(error.kind(), kind, "{error}");
        assert!(error.message().contains(expected) && error.message().contains("/token"), "{error}");
        assert!(!format!("{error:?}").contains("hunter"), "{error:?}");
    }
}

#[tokio::test]
async fn an_unreachable_token_endpoint_is_an_error() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/token", listener.local_addr().unwrap());
    drop(listener);
    let config = OauthConfig { token_url: url.clone(), ..OauthConfig::default() };
    let tokens = OauthTokens::new("voice", &config, Clock::System).unwrap();
    let Err(error) = tokens.fetch().await else { panic!("no server listens on this port") };
    assert_eq!(error.kind(), Kind::Unavailable);
    assert!(error.message().contains(&format!("the token endpoint {url} cannot be reached")), "{error}");
}

#[test]
fn a_ca_file_without_certificates_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    let error_message = || {
        let token_url = "https://a.example/token".to_owned();
        let config = OauthConfig { token_url, ca_file: Some(file.clone()), ..OauthConfig::default() };
        OauthTokens::new("voice", &config, Clock::System).unwrap_err().message().to_owned()
    };
    assert!(error_message().starts_with("sources.voice.oauth.ca_file: "), "{}", error_message());
    std::fs::write(&file, "no certificate").unwrap();
    assert!(error_message().contains("contains no certificate"), "{}", error_message());
}

#[tokio::test]
async fn the_endpoints_certificate_is_verified_with_the_ca_file() {
    const TOKEN: &str = r#"{"access_token":"a"}"#;
    let server = Server::tls(|_, _| futures::future::ready(Response::new(Body::from(TOKEN))).boxed()).await;
    let token_url = server.url("/token");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    for (authority, is_trusted) in [(AUTHORITY, true), (OTHER_AUTHORITY, false)] {
        std::fs::write(&file, authority).unwrap();
        let (token_url, ca_file) = (token_url.clone(), Some(file.clone()));
        let config = OauthConfig { token_url, ca_file, ..OauthConfig::default() };
        match OauthTokens::new("voice", &config, Clock::System).unwrap().fetch().await {
            Ok(token) => assert!(is_trusted && token.text == "a"),
            Err(error) => assert!(!is_trusted && error.message().contains("UnknownIssuer"), "{error}"),
        }
    }
}
