//! Tests that fetch key sets over HTTP from a test issuer on loopback. The issuer counts the requests.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::response::Response;
use futures::future::join_all;
use futures::{FutureExt as _, poll};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::signature::signing;
use super::testing::auth;
use super::{Access, Verifier};
use crate::clock::{Clock, Micros, SECOND};
use crate::config::AuthConfig;
use crate::error::{Kind, Result};
use crate::http_client::testing::{AUTHORITY, OTHER_AUTHORITY, Server};

const P256: &str = include_str!("../../tests/keys/p256.pem");
const ED25519: &str = include_str!("../../tests/keys/ed25519.pem");
/// `FRESH`, `STALE` and `COOLDOWN` have the same values as in `testing::auth`.
const FRESH: Micros = 600 * SECOND;
const STALE: Micros = 3_600 * SECOND;
const COOLDOWN: Micros = 30 * SECOND;
const START: Micros = 1_800_000_000 * SECOND;

/// An issuer that sends `response` on every connection. Each response waits for a permit from `gate`.
struct TestIssuer {
    address: SocketAddr,
    requests: Arc<AtomicUsize>,
    response: Arc<Mutex<String>>,
    gate: Arc<Semaphore>,
    _tasks: JoinSet<()>,
}

impl TestIssuer {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut issuer = Self {
            address: listener.local_addr().unwrap(),
            requests: Arc::default(),
            response: Arc::default(),
            gate: Arc::new(Semaphore::new(1_000_000)),
            _tasks: JoinSet::new(),
        };
        let (requests, response, gate) = (issuer.requests.clone(), issuer.response.clone(), issuer.gate.clone());
        issuer._tasks.spawn(async move {
            loop {
                let (connection, _) = listener.accept().await.unwrap();
                requests.fetch_add(1, Ordering::SeqCst);
                gate.acquire().await.unwrap().forget();
                let response = response.lock().unwrap().clone();
                reply(connection, &response).await;
            }
        });
        issuer
    }

    fn respond(&self, status: &str, headers: &str, body: &str) {
        let length = body.len();
        *self.response.lock().unwrap() =
            format!("HTTP/1.1 {status}\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n{body}");
    }

    fn serve(&self, keys: &[Value]) {
        self.respond("200 OK", "", &json!({"keys": keys}).to_string());
    }

    fn requests(&self) -> usize {
        self.requests.load(Ordering::SeqCst)
    }

    fn verifier(&self, clock: &Clock) -> Verifier {
        Verifier::new(&self.auth(), &BTreeMap::new(), clock.clone()).unwrap()
    }

    fn auth(&self) -> AuthConfig {
        let mut auth = auth();
        let issuer = auth.issuers.get_mut("dev").unwrap();
        issuer.secret = None;
        issuer.algorithms = vec!["ES256".to_owned(), "EdDSA".to_owned()];
        issuer.jwks_url = Some(format!("http://{}/keys", self.address));
        auth
    }
}

async fn reply(mut connection: TcpStream, response: &str) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if connection.read(&mut byte).await.unwrap_or(0) == 0 {
            return;
        }
        request.push(byte[0]);
    }
    // Write errors are ignored, because the client stops reading before the end of a redirect or of a body that is too
    // large.
    drop(connection.write_all(response.as_bytes()).await);
    drop(connection.shutdown().await);
}

fn ec(kid: &str) -> Value {
    named("ES256", P256, kid)
}

fn ed(kid: &str) -> Value {
    named("EdDSA", ED25519, kid)
}

fn named(algorithm: &str, key: &str, kid: &str) -> Value {
    let mut jwk = signing::jwk(algorithm, key);
    jwk["kid"] = json!(kid);
    jwk
}

/// Returns a valid token that is signed with the key that [`ec`] returns.
fn token(kid: &str) -> String {
    signed("ES256", P256, kid)
}

fn signed(algorithm: &str, key: &str, kid: &str) -> String {
    let claims = json!({
        "iss": "https://issuer.test", "aud": "glasshouse", "sub": "ann", "tenant": "acme",
        "exp": START / SECOND + 100_000,
    });
    signing::sign_pem(algorithm, key, &json!({"alg": algorithm, "kid": kid}).to_string(), &claims.to_string())
}

#[track_caller]
fn assert_kind(outcome: Result<Access>, kind: Kind) {
    let error = outcome.expect_err("must be refused");
    assert_eq!(error.kind(), kind, "{error:?}");
}

#[tokio::test]
async fn keys_are_rotated() {
    let (issuer, clock) = (TestIssuer::start().await, Clock::fixed(START));
    let verifier = issuer.verifier(&clock);
    issuer.serve(&[ec("old")]);
    verifier.ready().await.unwrap();
    verifier.verify(&token("old")).await.unwrap();
    assert_eq!(issuer.requests(), 1, "one fetch serves both calls");

    issuer.serve(&[ec("old"), ed("new")]);
    let new = signed("EdDSA", ED25519, "new");
    clock.set(START + COOLDOWN - 1);
    assert_kind(verifier.verify(&new).await, Kind::Unauthenticated);
    assert_eq!(issuer.requests(), 1, "no fetch starts within the cooldown");
    clock.set(START + COOLDOWN);
    verifier.verify(&new).await.unwrap();
    verifier.verify(&token("old")).await.unwrap();
    assert_eq!(issuer.requests(), 2);

    issuer.serve(&[ed("new")]);
    let removed = START + COOLDOWN + FRESH;
    clock.set(removed);
    assert_kind(verifier.verify(&token("old")).await, Kind::Unauthenticated);
    verifier.verify(&new).await.unwrap();
    assert_eq!(issuer.requests(), 3, "a removed key is refused as soon as the set is no longer fresh");

    issuer.serve(&[ec("new")]);
    clock.set(removed + FRESH);
    assert_kind(verifier.verify(&new).await, Kind::Unauthenticated);
    verifier.verify(&token("new")).await.expect("the same kid with a new key");
}

#[tokio::test]
async fn a_flood_of_unknown_keys_costs_one_fetch() {
    let (issuer, clock) = (TestIssuer::start().await, Clock::fixed(START));
    let verifier = issuer.verifier(&clock);
    issuer.serve(&[ec("a")]);
    let good = token("a");
    let first = join_all((0..100).map(|_| verifier.verify(&good))).await;
    assert!(first.iter().all(Result::is_ok));
    assert_eq!(issuer.requests(), 1, "a hundred concurrent callers share one fetch");

    clock.set(START + COOLDOWN);
    let forged: Vec<String> = (0..1_000).map(|n| token(&format!("made-up-{n}"))).collect();
    let mut waiting: Vec<_> = forged.iter().map(|token| Box::pin(verifier.verify(token))).collect();
    for caller in &mut waiting {
        assert!(poll!(caller).is_pending(), "an unknown key waits for the fetch");
    }
    let mut known = Box::pin(verifier.verify(&good));
    assert!(poll!(&mut known).is_ready(), "a known key does not wait");
    for refused in join_all(waiting).await {
        assert_kind(refused, Kind::Unauthenticated);
    }
    for refused in join_all(forged.iter().map(|token| verifier.verify(token))).await {
        assert_kind(refused, Kind::Unauthenticated);
    }
    assert_eq!(issuer.requests(), 2);
}

#[tokio::test]
async fn stale_keys_are_used_while_the_issuer_is_unavailable() {
    let (issuer, clock) = (TestIssuer::start().await, Clock::fixed(START));
    let verifier = issuer.verifier(&clock);
    issuer.serve(&[ec("a")]);
    verifier.verify(&token("a")).await.unwrap();

    issuer.respond("503 Service Unavailable", "", "");
    clock.set(START + FRESH);
    verifier.verify(&token("a")).await.expect("stale keys are used while the issuer is unavailable");
    verifier.verify(&token("a")).await.unwrap();
    assert_kind(verifier.verify(&token("b")).await, Kind::Unauthenticated);
    assert_eq!(issuer.requests(), 2, "the cooldown limits requests");
    verifier.ready().await.unwrap();

    clock.set(START + FRESH + STALE);
    assert_kind(verifier.verify(&token("a")).await, Kind::Unavailable);
    assert_eq!(verifier.ready().await.unwrap_err().kind(), Kind::Unavailable);
    issuer.serve(&[ec("a")]);
    clock.set(START + FRESH + STALE + COOLDOWN);
    verifier.verify(&token("a")).await.expect("the issuer is available again");
}

#[tokio::test]
async fn without_keys_every_token_is_refused() {
    let huge = json!({"keys": [], "x": "x".repeat(64 * 1024)}).to_string();
    let many = json!({"keys": vec![ec("a"); 17]}).to_string();
    let good = json!({"keys": [ec("a")]}).to_string();
    let cases = [
        ("404 Not Found", "", good.as_str()),
        ("302 Found", "location: /again\r\n", &good),
        ("200 OK", "", ""),
        ("200 OK", "", "<html>"),
        ("200 OK", "", r#"{"keys":[],"keys":[]}"#),
        ("200 OK", "", &huge),
        ("200 OK", "", &many),
    ];
    let (issuer, clock) = (TestIssuer::start().await, Clock::fixed(START));
    let verifier = issuer.verifier(&clock);
    for (index, (status, headers, body)) in cases.into_iter().enumerate() {
        issuer.respond(status, headers, body);
        assert_kind(verifier.verify(&token("a")).await, Kind::Unavailable);
        assert_kind(verifier.verify(&token("a")).await, Kind::Unavailable);
        assert_eq!(verifier.ready().await.unwrap_err().kind(), Kind::Unavailable);
        assert_eq!(issuer.requests(), index + 1, "{status} {headers}");
        clock.set(clock.now() + COOLDOWN);
    }
    issuer.serve(&[]);
    assert_kind(verifier.verify(&token("a")).await, Kind::Unauthenticated);
    assert!(verifier.ready().await.is_err(), "a set without keys verifies nothing");
}

#[tokio::test]
async fn a_cancelled_caller_does_not_stop_the_fetch() {
    let (mut issuer, clock) = (TestIssuer::start().await, Clock::fixed(START));
    issuer.gate.forget_permits(1_000_000);
    let verifier = issuer.verifier(&clock);
    issuer.serve(&[ec("a")]);
    let good = token("a");
    let mut cancelled = Box::pin(verifier.verify(&good));
    assert!(poll!(&mut cancelled).is_pending());
    drop(cancelled);
    let mut waiting = Box::pin(verifier.verify(&good));
    assert!(poll!(&mut waiting).is_pending());
    issuer.gate.add_permits(1);
    waiting.await.unwrap();
    assert_eq!(issuer.requests(), 1);
    assert!(issuer._tasks.try_join_next().is_none(), "the test issuer is running");
}

#[tokio::test]
async fn ageing_keys_are_refreshed_in_the_background() {
    let (issuer, clock) = (TestIssuer::start().await, Clock::fixed(START));
    let verifier = issuer.verifier(&clock);
    issuer.serve(&[ec("a")]);
    let good = token("a");
    verifier.verify(&good).await.unwrap();

    clock.set(START + FRESH / 4 * 3);
    assert!(poll!(Box::pin(verifier.verify(&good))).is_ready(), "no caller waits for a background fetch");
    let unknown = token("b");
    assert_kind(verifier.verify(&unknown).await, Kind::Unauthenticated);
    assert_eq!(issuer.requests(), 2, "the unknown key waited for the background fetch");

    clock.set(START + FRESH);
    assert!(poll!(Box::pin(verifier.verify(&good))).is_ready(), "fresh again since the background fetch");
    assert_eq!(issuer.requests(), 2);
}

#[tokio::test]
async fn an_expired_set_is_fetched_despite_the_cooldown() {
    let (issuer, clock) = (TestIssuer::start().await, Clock::fixed(START));
    let mut auth = issuer.auth();
    auth.jwks_cooldown = auth.jwks_fresh * 2;
    let verifier = Verifier::new(&auth, &BTreeMap::new(), clock.clone()).unwrap();
    issuer.serve(&[ec("a")]);
    verifier.verify(&token("a")).await.unwrap();
    issuer.serve(&[]);
    clock.set(START + FRESH);
    assert_kind(verifier.verify(&token("a")).await, Kind::Unauthenticated);
    assert_eq!(issuer.requests(), 2);
}

#[tokio::test]
async fn the_ca_file_of_an_issuer_is_trusted() {
    let server = Server::tls(|_, _| {
        let keys = json!({ "keys": [ec("a")] }).to_string();
        futures::future::ready(Response::new(Body::from(keys))).boxed()
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("ca.pem");
    let mut auth = TestIssuer::start().await.auth();
    let issuer = auth.issuers.get_mut("dev").unwrap();
    (issuer.jwks_url, issuer.ca_file) = (Some(server.url("/keys")), Some(file.clone()));
    let verifier = || Verifier::new(&auth, &BTreeMap::new(), Clock::fixed(START));
    std::fs::write(&file, AUTHORITY).unwrap();
    verifier().unwrap().verify(&token("a")).await.unwrap();
    std::fs::write(&file, OTHER_AUTHORITY).unwrap();
    assert_kind(verifier().unwrap().verify(&token("a")).await, Kind::Unavailable);
    std::fs::write(&file, "no certificate").unwrap();
    assert!(verifier().unwrap_err().message().contains("contains no certificate"));
}
