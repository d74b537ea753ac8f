//! An identity provider for the tests: an OAuth token endpoint on loopback, and the key that verifies its tokens.
//!
//! The endpoint accepts POST requests with the `client_credentials` grant. The path of the request determines whether
//! the endpoint returns a valid, short-lived, expired or foreign token. An unknown client gets an error.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use glasshouse::clock::Clock;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

const KEY: &str = include_str!("../keys/p256.pem");
/// The id and secret of the client that may request tokens.
pub(crate) const CLIENT: (&str, &str) = ("glasshouse", "client secret");

/// A running identity provider.
pub(crate) struct Provider {
    address: String,
    issued: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Provider {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let issued: Arc<AtomicUsize> = Arc::default();
        let mut tasks = JoinSet::new();
        let counter = issued.clone();
        tasks.spawn(async move {
            loop {
                let (connection, _) = listener.accept().await.unwrap();
                answer(connection, &counter).await;
            }
        });
        Self { address, issued, _tasks: tasks }
    }

    /// Returns the URL of an endpoint. `token` returns valid tokens, `short` returns tokens that expire soon, `expired`
    /// returns tokens that have expired, and `foreign` returns tokens for an audience other than the brokers.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    /// Returns the number of short-lived tokens issued so far.
    pub(crate) fn short_issued(&self) -> usize {
        self.issued.load(Ordering::SeqCst)
    }

    /// Returns the keys that verify the provider's tokens, as a JSON Web Key Set (JWKS).
    pub(crate) fn keys() -> String {
        let jwk = Jwk::from_encoding_key(&key(), Algorithm::ES256).unwrap();
        let mut jwk = serde_json::to_value(jwk).unwrap();
        jwk["kid"] = json!("one");
        json!({ "keys": [jwk] }).to_string()
    }
}

fn key() -> EncodingKey {
    EncodingKey::from_ec_pem(KEY.as_bytes()).unwrap()
}

/// Returns a signed token for an audience. It expires `life` seconds from now.
fn token(audience: &str, life: i64) -> String {
    let header = Header { kid: Some("one".to_owned()), ..Header::new(Algorithm::ES256) };
    let now = Clock::System.now_seconds();
    let claims = json!({
        "iss": "https://provider.test", "aud": audience, "sub": CLIENT.0, "iat": now - 600, "exp": now + life,
    });
    encode(&header, &claims, &key()).unwrap()
}

async fn answer(mut connection: TcpStream, short_issued: &AtomicUsize) {
    let Some(request) = read(&mut connection).await else { return };
    let credentials = STANDARD.encode(format!("{}:{}", CLIENT.0, CLIENT.1.replace(' ', "+")));
    let is_known =
        request.to_ascii_lowercase().contains(&format!("authorization: basic {credentials}").to_ascii_lowercase());
    let is_grant = request.ends_with("grant_type=client_credentials&scope=read");
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let issue = |audience: &str, life: i64, expires_in: i64| {
        ("200 OK", json!({ "access_token": token(audience, life), "token_type": "Bearer", "expires_in": expires_in }))
    };
    let (status, body) = match path.as_str() {
        _ if !is_known => {
            ("401 Unauthorized", json!({ "error": "invalid_client", "error_description": "unknown client" }))
        }
        _ if !is_grant => ("400 Bad Request", json!({ "error": "invalid_request" })),
        "/short" => {
            short_issued.fetch_add(1, Ordering::SeqCst);
            issue("brokers", 600, 10)
        }
        "/expired" => issue("brokers", -300, 600),
        "/foreign" => issue("others", 600, 600),
        _ => issue("brokers", 600, 600),
    };
    let body = body.to_string();
    let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-type: application/json\r\n");
    let answer = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
    // Ignore errors, because the client may have disconnected.
    drop(connection.write_all(answer.as_bytes()).await);
    drop(connection.shutdown().await);
}

/// Reads a request with its body. Returns `None` if the connection is closed before the end of the request.
async fn read(connection: &mut TcpStream) -> Option<String> {
    let mut request = Vec::new();
    loop {
        let mut chunk = [0; 1024];
        let length = connection.read(&mut chunk).await.ok().filter(|length| *length > 0)?;
        request.extend_from_slice(&chunk[..length]);
        let text = String::from_utf8_lossy(&request).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length =
            head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        if body.len() >= length.unwrap_or(0) {
            return Some(text);
        }
    }
}
