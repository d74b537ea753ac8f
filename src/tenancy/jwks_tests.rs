//! Key sets over a real HTTP connection: a tiny issuer on loopback counts what it is asked.

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

use super::testing::auth;
use super::token::signing;
use super::{Access, Verifier};
use crate::clock::{Clock, Micros, SECOND};
use crate::config::AuthConfig;
use crate::error::{Kind, Result};
use crate::outbound::testing::{AUTHORITY, OTHER_AUTHORITY, Server};

const P256: &str = include_str!("../../tests/keys/p256.pem");
const ED25519: &str = include_str!("../../tests/keys/ed25519.pem");
/// The times of `testing::auth`.
const FRESH: Micros = 600 * SECOND;
const STALE: Micros = 3_600 * SECOND;
const COOLDOWN: Micros = 30 * SECOND;
const START: Micros = 1_800_000_000 * SECOND;

/// An issuer that answers every connection with its present answer, once `gate` lets it.
struct TestIssuer {
    address: SocketAddr,
    hits: Arc<AtomicUsize>,
    answer: Arc<Mutex<String>>,
    gate: Arc<Semaphore>,
    _tasks: JoinSet<()>,
}

impl TestIssuer {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut issuer = Self {
            address: listener.local_addr().unwrap(),
            hits: Arc::default(),
            answer: Arc::default(),
            gate: Arc::new(Semaphore::new(1_000_000)),
            _tasks: JoinSet::new(),
        };
        let (hits, answer, gate) = (issuer.hits.clone(), issuer.answer.clone(), issuer.gate.clone());
        issuer._tasks.spawn(async move {
            loop {
                let (connection, _) = listener.accept().await.unwrap();
                hits.fetch_add(1, Ordering::SeqCst);
                gate.acquire().await.unwrap().forget();
                let answer = answer.lock().unwrap().clone();
                reply(connection, &answer).await;
            }
        });
        issuer
    }

    fn says(&self, status: &str, headers: &str, body: &str) {
        let length = body.len();
        *self.answer.lock().unwrap() =
            format!("HTTP/1.1 {status}\r\nconnection: close\r\n{headers}content-length: {length}\r\n\r\n{body}");
    }

    fn has(&self, keys: &[Value]) {
        self.says("200 OK", "", &json!({"keys": keys}).to_string());
    }

    fn hits(&self) -> usize {
        self.hits.load(Ordering::SeqCst)
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

async fn reply(mut connection: TcpStream, answer: &str) {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        let mut byte = [0];
        if connection.read(&mut byte).await.unwrap_or(0) == 0 {
            return;
        }
        request.push(byte[0]);
    }
    // A client that reads no further (redirects, bodies that are too large) is what some tests are about.
    drop(connection.write_all(answer.as_bytes()).await);
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

/// A good token, signed with the key of [`ec`].
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
async fn keys_turn_over() {
    let (issuer, clock) = (TestIssuer::start().await, Clock::fixed(START));
    let verifier = issuer.verifier(&clock);
    issuer.has(&[ec("old")]);
    verifier.ready().await.unwrap();
    verifier.verify(&token("old")).await.unwrap();
    assert_eq!(issuer.hits(), 1, "one fetch serves all");

    issuer.has(&[ec("old"), ed("new")]);
    let new = signed("EdDSA", ED25519, "new");
    clock.set(START + COOLDOWN - 1);
    assert_kind(verifier.verify(&new).await, Kind::Unauthenticated);
    assert_eq!(issuer.hits(), 1, "within the cooldown nothing is fetched");
    clock.set(START + COOLDOWN);
    verifier.verify(&new).await.unwrap();
    verifier.verify(&token("old")).await.unwrap();
    assert_eq!(issuer.hits(), 2);

    issuer.has(&[ed("new")]);
    let removed = START + COOLDOWN + FRESH;
    clock.set(removed);
    assert_kind(verifier.verify(&token("old")).await, Kind::Unauthenticated);
    verifier.verify(&new).await.unwrap();
    assert_eq!(issuer.hits(), 3, "a removed key is refused as soon as the set is no longer fresh");

    issuer.has(&[ec("new")]);
    clock.set(removed + FRESH);
    assert_kind(verifier.verify(&new).await, Kind::Unauthenticated);
    verifier.verify(&token("new")).await.expect("the same kid with a new key");
}

#[tokio::test]
async fn a_storm_of_unknown_keys_costs_one_fetch() {
    let (issuer, clock) = (TestIssuer::start().await, Clock::fixed(START));
    let verifier = issuer.verifier(&clock);
    issuer.has(&[ec("a")]);
    let good = token("a");
    let first = join_all((0..100).map(|_| verifier.verify(&good))).await;
    assert!(first.iter().all(Result::is_ok));
    assert_eq!(issuer.hits(), 1, "a hundred first callers share one fetch");

    clock.set(START + COOLDOWN);
    let forged: Vec<String> = (0..1_000).map(|n| token(&format!("made-up-{n}"))).collect();
    let mut waiting: Vec<_> = forged.iter().map(|token| Box::pin(verifier.verify(token))).collect();
    for storm in &mut waiting {
        assert!(poll!(storm).is_pending(), "an unknown key waits for the fetch");
    }
    let mut known = Box::pin(verifier.verify(&good));
    assert!(poll!(&mut known).is_ready(), "a known key waits for nobody");
    for refused in join_all(waiting).await {
        assert_kind(refused, Kind::Unauthenticated);
    }
    for refused in join_all(forged.iter().map(|token| verifier.verify(token))).await {
        assert_kind(refused, Kind::Unauthenticated);
    }
    assert_eq!(issuer.hits(), 2);
}

#[tokio::test]
async fn an_issuer_that_is_away_is_forgiven_for_a_while() {
    let (issuer, clock) = (TestIssuer::start().await, Clock::fixed(START));
    let verifier = issuer.verifier(&clock);
    issuer.has(&[ec("a")]);
    verifier.verify(&token("a")).await.unwrap();

    issuer.says("503 Service Unavailable", "", "");
    clock.set(START + FRESH);
    verifier.verify(&token("a")).await.expect("stale, while the issuer is away");
    verifier.verify(&token("a")).await.unwrap();
    assert_kind(verifier.verify(&token("b")).await, Kind::Unauthenticated);
    assert_eq!(issuer.hits(), 2, "the issuer is not pressed");
    verifier.ready().await.unwrap();

    clock.set(START + FRESH + STALE);
    assert_kind(verifier.verify(&token("a")).await, Kind::Unavailable);
    assert_eq!(verifier.ready().await.unwrap_err().kind(), Kind::Unavailable);
    issuer.has(&[ec("a")]);
    clock.set(START + FRESH + STALE + COOLDOWN);
    verifier.verify(&token("a")).await.expect("it is back");
}

#[tokio::test]
async fn without_keys_nothing_opens() {
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
    for (turn, (status, headers, body)) in cases.into_iter().enumerate() {
        issuer.says(status, headers, body);
        assert_kind(verifier.verify(&token("a")).await, Kind::Unavailable);
        assert_kind(verifier.verify(&token("a")).await, Kind::Unavailable);
        assert_eq!(verifier.ready().await.unwrap_err().kind(), Kind::Unavailable);
        assert_eq!(issuer.hits(), turn + 1, "{status} {headers}");
        clock.set(clock.now() + COOLDOWN);
    }
    issuer.has(&[]);
    assert_kind(verifier.verify(&token("a")).await, Kind::Unauthenticated);
    assert!(verifier.ready().await.is_err(), "a set without keys verifies nothing");
}

#[tokio::test]
async fn a_caller_that_goes_away_stops_no_fetch() {
    let (mut issuer, clock) = (TestIssuer::start().await, Clock::fixed(START));
    issuer.gate.forget_permits(1_000_000);
    let verifier = issuer.verifier(&clock);
    issuer.has(&[ec("a")]);
    let good = token("a");
    let mut gone = Box::pin(verifier.verify(&good));
    assert!(poll!(&mut gone).is_pending());
    drop(gone);
    let mut patient = Box::pin(verifier.verify(&good));
    assert!(poll!(&mut patient).is_pending());
    issuer.gate.add_permits(1);
    patient.await.unwrap();
    assert_eq!(issuer.hits(), 1);
    assert!(issuer._tasks.try_join_next().is_none(), "the test's issuer is alive");
}

#[tokio::test]
async fn a_busy_server_fetches_ahead_and_waits_for_nothing() {
    let (issuer, clock) = (TestIssuer::start().await, Clock::fixed(START));
    let verifier = issuer.verifier(&clock);
    issuer.has(&[ec("a")]);
    let good = token("a");
    verifier.verify(&good).await.unwrap();

    clock.set(START + FRESH / 4 * 3);
    assert!(poll!(Box::pin(verifier.verify(&good))).is_ready(), "nobody waits for a fetch ahead");
    let unknown = token("b");
    assert_kind(verifier.verify(&unknown).await, Kind::Unauthenticated);
    assert_eq!(issuer.hits(), 2, "one fetch ahead, which the unknown key has waited for");

    clock.set(START + FRESH);
    assert!(poll!(Box::pin(verifier.verify(&good))).is_ready(), "fresh again since the fetch ahead");
    assert_eq!(issuer.hits(), 2);
}

#[tokio::test]
async fn a_set_that_has_aged_is_asked_for_whatever_the_cooldown() {
    let (issuer, clock) = (TestIssuer::start().await, Clock::fixed(START));
    let mut auth = issuer.auth();
    auth.jwks_cooldown = auth.jwks_fresh * 2;
    let verifier = Verifier::new(&auth, &BTreeMap::new(), clock.clone()).unwrap();
    issuer.has(&[ec("a")]);
    verifier.verify(&token("a")).await.unwrap();
    issuer.has(&[]);
    clock.set(START + FRESH);
    assert_kind(verifier.verify(&token("a")).await, Kind::Unauthenticated);
    assert_eq!(issuer.hits(), 2);
}

#[tokio::test]
async fn an_issuers_authority_is_read_from_a_file() {
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
    assert!(verifier().unwrap_err().message().contains("holds no certificate"));
}
