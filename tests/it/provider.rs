//! An identity provider for the tests: a token endpoint on loopback, and the key that verifies its tokens.
//!
//! In: POSTs of `client_credentials`. Out: by the path, a token, or what a provider may do instead.

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
/// The client that may have tokens.
pub(crate) const CLIENT: (&str, &str) = ("glasshouse", "client secret");

/// A running provider.
pub(crate) struct Provider {
    address: String,
    given: Arc<AtomicUsize>,
    _tasks: JoinSet<()>,
}

impl Provider {
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let given: Arc<AtomicUsize> = Arc::default();
        let mut tasks = JoinSet::new();
        let counter = given.clone();
        tasks.spawn(async move {
            loop {
                let (connection, _) = listener.accept().await.unwrap();
                answer(connection, &counter).await;
            }
        });
        Self { address, given, _tasks: tasks }
    }

    /// An endpoint: `token` gives good ones, `short` such that end soon, `expired` such that have ended, `foreign` such that
    /// are for others than the brokers.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    /// How many short tokens were given.
    pub(crate) fn short_given(&self) -> usize {
        self.given.load(Ordering::SeqCst)
    }

    /// The keys that verify its tokens, as JWKS.
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

/// A token for somebody, that ends so many seconds from now.
fn token(audience: &str, life: i64) -> String {
    let header = Header { kid: Some("one".to_owned()), ..Header::new(Algorithm::ES256) };
    let now = Clock::System.now_seconds();
    let claims = json!({
        "iss": "https://provider.test", "aud": audience, "sub": CLIENT.0, "iat": now - 600, "exp": now + life,
    });
    encode(&header, &claims, &key()).unwrap()
}

async fn answer(mut connection: TcpStream, short_given: &AtomicUsize) {
    let Some(request) = read(&mut connection).await else { return };
    let credentials = STANDARD.encode(format!("{}:{}", CLIENT.0, CLIENT.1.replace(' ', "+")));
    let is_known =
        request.to_ascii_lowercase().contains(&format!("authorization: basic {credentials}").to_ascii_lowercase());
    let is_grant = request.ends_with("grant_type=client_credentials&scope=read");
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let given = |audience: &str, life: i64, said: i64| {
        ("200 OK", json!({ "access_token": token(audience, life), "token_type": "Bearer", "expires_in": said }))
    };
    let (status, body) = match path.as_str() {
        _ if !is_known => ("401 Unauthorized", json!({ "error": "invalid_client", "error_description": "who is it?" })),
        _ if !is_grant => ("400 Bad Request", json!({ "error": "invalid_request" })),
        "/short" => {
            short_given.fetch_add(1, Ordering::SeqCst);
            given("brokers", 600, 10)
        }
        "/expired" => given("brokers", -300, 600),
        "/foreign" => given("others", 600, 600),
        _ => given("brokers", 600, 600),
    };
    let body = body.to_string();
    let head = format!("HTTP/1.1 {status}\r\nconnection: close\r\ncontent-type: application/json\r\n");
    let answer = format!("{head}content-length: {}\r\n\r\n{body}", body.len());
    // Whoever has gone does not hear it.
    drop(connection.write_all(answer.as_bytes()).await);
    drop(connection.shutdown().await);
}

/// A request with its body.
async fn read(connection: &mut TcpStream) -> Option<String> {
    let mut request = Vec::new();
    loop {
        let mut part = [0; 1024];
        let length = connection.read(&mut part).await.ok().filter(|length| *length > 0)?;
        request.extend_from_slice(&part[..length]);
        let text = String::from_utf8_lossy(&request).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length =
            head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        if body.len() >= length.unwrap_or(0) {
            return Some(text);
        }
    }
}
