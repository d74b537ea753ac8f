//! Tests token verification. Each case has a token and the expected reason for refusing it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use super::signature::{Algorithm, sign, signing};
use super::testing::{auth, issuer};
use super::{Access, Scope, Verifier};
use crate::clock::{Clock, SECOND};
use crate::config::{AuthConfig, IssuerConfig, Secret};
use crate::contract::Owner;
use crate::error::{Kind, Result};

const NOW: i64 = 1_800_000_000;
const RSA: &str = include_str!("../../tests/keys/rsa.pem");
const RSA_OTHER: &str = include_str!("../../tests/keys/rsa_other.pem");
const P256: &str = include_str!("../../tests/keys/p256.pem");
const P384: &str = include_str!("../../tests/keys/p384.pem");
const ED25519: &str = include_str!("../../tests/keys/ed25519.pem");

fn public(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(format!("tests/keys/{name}.pub.pem"))
}

fn good() -> Value {
    json!({
        "iss": "https://issuer.test", "aud": "glasshouse", "sub": "ann", "exp": NOW + 60,
        "tenant": "acme", "scope": "read ingest",
    })
}

/// Applies `changes` to a set of valid claims, and returns the result. A `null` removes a claim.
fn with(changes: Value) -> String {
    let mut claims = good();
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    claims.to_string()
}

/// Returns a token with this header and these claims, signed with the test issuer's secret.
fn signed(header: &str, claims: &str) -> String {
    let secret = issuer().secret.unwrap();
    sign(Algorithm::parse("HS256").unwrap(), &secret, header, claims).unwrap()
}

const HEADER: &str = r#"{"alg":"HS256","typ":"JWT"}"#;

async fn verify(auth: &AuthConfig, token: &str) -> Result<Access> {
    Verifier::new(auth, &BTreeMap::new(), Clock::fixed(NOW * SECOND)).unwrap().verify(token).await
}

/// Verifies each token. The error message must contain the expected reason. An empty reason means that the token must
/// be accepted.
async fn check(auth: &AuthConfig, cases: &[(&str, String, Kind, &str)]) {
    for (name, token, kind, reason) in cases {
        let outcome = verify(auth, token).await;
        match outcome {
            Ok(_) => assert!(reason.is_empty(), "{name}: accepted, expected `{reason}`"),
            Err(error) => {
                assert!(!reason.is_empty(), "{name}: refused: {error:?}");
                assert!(error.message().contains(reason), "{name}: {error:?}, expected `{reason}`");
                assert_eq!(error.kind(), *kind, "{name}: {error:?}");
            }
        }
    }
}

fn with_keys(algorithms: &[&str], change: impl FnOnce(&mut IssuerConfig)) -> AuthConfig {
    let mut auth = auth();
    let issuer = auth.issuers.get_mut("dev").unwrap();
    issuer.secret = None;
    issuer.algorithms = algorithms.iter().map(|name| (*name).to_owned()).collect();
    change(issuer);
    auth
}

#[tokio::test]
async fn each_claim_is_checked() {
    use Kind::Unauthenticated as U;
    let raw = |text: &str| with(json!({})).replacen('{', &format!("{{{text},"), 1);
    let cases = [
        ("good", with(json!({})), U, ""),
        ("iss missing", with(json!({"iss": null})), U, "`iss`"),
        ("iss not trusted", with(json!({"iss": "https://evil.test"})), U, "`iss`"),
        ("iss with an extra slash", with(json!({"iss": "https://issuer.test/"})), U, "`iss`"),
        ("iss as a list", with(json!({"iss": ["https://issuer.test"]})), U, "`iss` is not a string"),
        ("aud missing", with(json!({"aud": null})), U, "`aud`"),
        ("aud of another server", with(json!({"aud": "billing"})), U, "`aud`"),
        ("aud in a list", with(json!({"aud": ["billing", "glasshouse"]})), U, ""),
        ("aud not in a list", with(json!({"aud": ["billing"]})), U, "`aud`"),
        ("aud in an empty list", with(json!({"aud": []})), U, "`aud`"),
        ("aud in a mixed list", with(json!({"aud": ["glasshouse", 7]})), U, "`aud`"),
        ("aud as an object", with(json!({"aud": {"glasshouse": 1}})), U, "`aud`"),
        ("exp missing", with(json!({"exp": null})), U, "`exp` is missing"),
        ("exp past", with(json!({"exp": NOW - 31})), U, "expired"),
        ("exp past, within the leeway", with(json!({"exp": NOW - 29})), U, ""),
        ("exp as text", with(json!({"exp": "9999999999"})), U, "`exp` is not a number"),
        ("exp negative", with(json!({"exp": -1})), U, "`exp` is not a time"),
        ("exp beyond the year 9999", with(json!({"exp": 999_999_999_999_i64})), U, "`exp` is not a time"),
        ("exp beyond i64", raw(r#""x":1"#).replace("1800000060", "18446744073709551615"), U, "`exp` is not a time"),
        ("exp as a large float", raw(r#""x":1"#).replace("1800000060", "1e300"), U, "`exp` is not a time"),
        ("exp beyond floats", raw(r#""x":1"#).replace("1800000060", "1e400"), U, "token is malformed"),
        ("exp with a fraction", raw(r#""x":1"#).replace("1800000060", "1800000060.5"), U, ""),
        ("exp true", with(json!({"exp": true})), U, "`exp` is not a number"),
        ("exp in a list", with(json!({"exp": [NOW + 60]})), U, "`exp` is not a number"),
        ("exp null", raw(r#""x":1"#).replace("1800000060", "null"), U, "`exp` is not a number"),
        ("nbf past", with(json!({"nbf": NOW - 1})), U, ""),
        ("nbf in the future", with(json!({"nbf": NOW + 31})), U, "`nbf`"),
        ("nbf in the leeway", with(json!({"nbf": NOW + 29})), U, ""),
        ("nbf as text", with(json!({"nbf": "0"})), U, "`nbf` is not a number"),
        ("nbf null", raw(r#""nbf":null"#), U, "`nbf` is not a number"),
        ("iat past", with(json!({"iat": NOW - 1})), U, ""),
        ("iat in the future", with(json!({"iat": NOW + 31})), U, "`iat`"),
        ("iat too old", with(json!({"iat": NOW - 86_431})), U, "too old"),
        ("iat as text", with(json!({"iat": "0"})), U, "`iat` is not a number"),
        ("sub missing", with(json!({"sub": null})), U, "`sub` is missing"),
        ("sub empty", with(json!({"sub": ""})), U, "`sub` is empty"),
        ("sub as a number", with(json!({"sub": 7})), U, "`sub` is not a string"),
        ("sub too long", with(json!({"sub": "x".repeat(257)})), U, "`sub` is too long"),
        ("sub with a newline", with(json!({"sub": "ann\nops"})), U, "`sub` has control"),
        ("jti", with(json!({"jti": "1"})), U, ""),
        ("jti as a number", with(json!({"jti": 1})), U, "`jti` is not a string"),
        ("a duplicate key", raw(r#""sub":"bob""#), U, "distinct keys"),
        ("a duplicate key with an escape", raw(r#""\u0073ub":"bob""#), U, "distinct keys"),
        ("a nested duplicate key", raw(r#""a":[{"b":1,"b":2}]"#), U, "distinct keys"),
        ("deep nesting", raw(&format!(r#""a":{}1{}"#, "[".repeat(200), "]".repeat(200))), U, "token is malformed"),
        ("a list of claims", format!("[{}]", with(json!({}))), U, "not a JSON object"),
        ("two objects", format!("{0}{0}", with(json!({}))), U, "token is malformed"),
        ("not JSON", "hello".to_owned(), U, "token is malformed"),
    ];
    let tokens = cases.map(|(name, claims, kind, reason)| (name, signed(HEADER, &claims), kind, reason));
    check(&auth(), &tokens).await;
}

#[tokio::test]
async fn tenants_and_scopes_fail_closed() {
    use Kind::{Forbidden as F, Unauthenticated as U};
    let raw = |tenant: &str| with(json!({})).replace(r#""acme""#, tenant);
    let operator = |changes: Value| {
        let mut claims = json!({"sub": "ops", "tenant": null, "scope": "ingest read"});
        claims.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        with(claims)
    };
    let cases = [
        ("tenant missing", with(json!({"tenant": null})), F, "no tenant claim"),
        ("tenant null", raw("null"), F, "not a string"),
        ("tenant empty", raw(r#""""#), F, "not a valid tenant id"),
        ("tenant as a list", raw(r#"["acme"]"#), F, "not a string"),
        ("tenant as an object", raw(r#"{"acme":1}"#), F, "not a string"),
        ("tenant as a number", raw("7"), F, "not a string"),
        ("tenant true", raw("true"), F, "not a string"),
        ("tenant too long", raw(&format!(r#""{}""#, "x".repeat(257))), F, "not a valid tenant id"),
        ("tenant with a NUL", raw(r#""ac\u0000me""#), F, "not a valid tenant id"),
        ("tenant that looks like SQL", raw(r#""a' OR '1'='1""#), F, ""),
        ("scope missing", with(json!({"scope": null})), U, ""),
        ("scope as a number", with(json!({"scope": 1})), U, "scope claim"),
        ("scope null", with(json!({})).replace(r#""read ingest""#, "null"), U, "scope claim"),
        ("scope as a mixed list", with(json!({"scope": ["read", 1]})), U, "scope claim"),
        ("unknown scopes", with(json!({"scope": "openid email"})), U, ""),
        ("operator", operator(json!({})), U, ""),
        ("operator without the ingest scope", operator(json!({"scope": "read"})), F, "no tenant claim"),
        (
            "operator with a null tenant",
            operator(json!({"tenant": 0})).replace(r#""tenant":0"#, r#""tenant":null"#),
            F,
            "not a string",
        ),
        ("not an operator", operator(json!({"sub": "opsy"})), F, "no tenant claim"),
    ];
    let tokens = cases.map(|(name, claims, kind, reason)| (name, signed(HEADER, &claims), kind, reason));
    check(&auth(), &tokens).await;
}

#[tokio::test]
async fn headers_are_checked() {
    use Kind::Unauthenticated as U;
    let long = format!(r#"{{"alg":"HS256","kid":"{}"}}"#, "k".repeat(257));
    let cases = [
        ("no typ", r#"{"alg":"HS256"}"#, ""),
        ("typ of an access token", r#"{"alg":"HS256","typ":"at+JWT"}"#, ""),
        ("typ as a media type", r#"{"alg":"HS256","typ":"application/at+jwt"}"#, ""),
        ("typ of a logout token", r#"{"alg":"HS256","typ":"logout+jwt"}"#, "`typ`"),
        ("typ as a number", r#"{"alg":"HS256","typ":1}"#, "`typ` is not a string"),
        ("alg missing", r#"{"typ":"JWT"}"#, "`alg`"),
        ("alg none", r#"{"alg":"none"}"#, "`alg`"),
        ("alg None", r#"{"alg":"None"}"#, "`alg`"),
        ("alg in lower case", r#"{"alg":"hs256"}"#, "`alg`"),
        ("alg not listed", r#"{"alg":"HS512"}"#, "`alg`"),
        ("alg as a list", r#"{"alg":["HS256"]}"#, "`alg` is not a string"),
        ("alg twice", r#"{"alg":"HS256","alg":"none"}"#, "distinct keys"),
        ("crit", r#"{"alg":"HS256","crit":["exp"]}"#, "`crit`"),
        ("crit empty", r#"{"alg":"HS256","crit":[]}"#, "`crit`"),
        ("b64", r#"{"alg":"HS256","b64":false}"#, "`b64`"),
        ("kid", r#"{"alg":"HS256","kid":"any"}"#, ""),
        ("kid as a number", r#"{"alg":"HS256","kid":1}"#, "`kid` is not a string"),
        ("kid null", r#"{"alg":"HS256","kid":null}"#, "`kid` is not a string"),
        ("kid empty", r#"{"alg":"HS256","kid":""}"#, "`kid` is empty"),
        ("kid with a newline", "{\"alg\":\"HS256\",\"kid\":\"a\\n\"}", "`kid` has control"),
        ("kid too long", &long, "`kid` is too long"),
        ("kid as a path", r#"{"alg":"HS256","kid":"../../dev/null"}"#, ""),
        ("jku is ignored", r#"{"alg":"HS256","jku":"https://evil.test/keys"}"#, ""),
        ("not an object", r#"["HS256"]"#, "not a JSON object"),
    ];
    let tokens = cases.map(|(name, header, reason)| (name, signed(header, &with(json!({}))), U, reason));
    check(&auth(), &tokens).await;
}

#[tokio::test]
async fn malformed_tokens_are_refused() {
    use Kind::Unauthenticated as U;
    let token = signed(HEADER, &with(json!({})));
    let (message, signature) = token.rsplit_once('.').unwrap();
    let (header, claims) = message.split_once('.').unwrap();
    let other = signed(HEADER, &with(json!({"tenant": "rival"})));
    let other_claims = other.split('.').nth(1).unwrap();
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let cases = [
        ("empty", String::new(), "three parts"),
        ("a password", "hunter2".to_owned(), "three parts"),
        ("two parts", message.to_owned(), "three parts"),
        ("four parts", format!("{token}.{signature}"), "three parts"),
        ("encrypted", format!("{token}.{header}.{claims}"), "JWE"),
        ("unsigned", format!("{message}."), "empty part"),
        ("no claims", format!("{header}..{signature}"), "empty part"),
        ("leading whitespace", format!(" {token}"), "whitespace"),
        ("a trailing newline", format!("{token}\n"), "whitespace"),
        ("padding", format!("{token}="), "whitespace"),
        ("plus and slash", format!("{message}.+/"), "other invalid characters"),
        ("not ASCII", format!("{message}.é"), "other invalid characters"),
        ("truncated", token[..token.len() - 4].to_owned(), "signature"),
        ("claims of another token", format!("{header}.{other_claims}.{signature}"), "signature"),
        ("signature of another token", format!("{message}.{}", other.rsplit('.').next().unwrap()), "signature"),
        ("a zero signature", format!("{message}.{}", encode(&[0; 32])), "signature"),
        ("invalid UTF-8", format!("{header}.{}.{signature}", encode(b"{\"iss\":\"\xff\"}")), "malformed"),
        ("invalid base64url", format!("{header}.{}.{signature}", "eyJ9"), "malformed"),
        ("oversized", signed(HEADER, &with(json!({"x": "x".repeat(64 * 1024)}))), "auth.token_bytes_max"),
        ("large", signed(HEADER, &with(json!({"x": "x".repeat(20 * 1024)}))), ""),
        (
            "another secret",
            {
                let secret = Secret::new("another secret of thirty-two bytes at least");
                sign(Algorithm::parse("HS256").unwrap(), &secret, HEADER, &with(json!({}))).unwrap()
            },
            "signature",
        ),
    ];
    let tokens = cases.map(|(name, token, reason)| (name, token, U, reason));
    check(&auth(), &tokens).await;
}

#[tokio::test]
async fn every_algorithm_verifies() {
    let cases = [
        ("RS256", RSA, "rsa"),
        ("RS384", RSA, "rsa"),
        ("RS512", RSA, "rsa"),
        ("PS256", RSA, "rsa"),
        ("PS384", RSA, "rsa"),
        ("PS512", RSA, "rsa"),
        ("ES256", P256, "p256"),
        ("ES384", P384, "p384"),
        ("EdDSA", ED25519, "ed25519"),
    ];
    let folder = tempfile::tempdir().unwrap();
    for (algorithm, key, name) in cases {
        let header = json!({"alg": algorithm, "kid": "a"}).to_string();
        let token = signing::sign_pem(algorithm, key, &header, &with(json!({})));
        let by_pem = with_keys(&[algorithm], |issuer| issuer.pem_file = Some(public(name)));
        let mut jwk = signing::jwk(algorithm, key);
        jwk["kid"] = json!("a");
        let path = folder.path().join("keys.json");
        std::fs::write(&path, json!({"keys": [jwk]}).to_string()).unwrap();
        let by_set = with_keys(&[algorithm], |issuer| issuer.jwks_file = Some(path.clone()));
        for auth in [&by_pem, &by_set] {
            let access = verify(auth, &token).await.unwrap();
            assert_eq!(access.tenant().unwrap().as_str(), "acme", "{algorithm}");
            let (message, signature) = token.rsplit_once('.').unwrap();
            let zeros = URL_SAFE_NO_PAD.encode(vec![0; signature.len() * 3 / 4]);
            let refused = verify(auth, &format!("{message}.{zeros}")).await.unwrap_err();
            assert!(refused.message().contains("signature"), "{algorithm}: {refused:?}");
        }
    }
}

#[tokio::test]
async fn a_key_is_used_only_with_its_own_algorithms() {
    use Kind::Unauthenticated as U;
    let claims = with(json!({}));
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("keys.json");
    let named = |algorithm: &str, key: &str, kid: &str| {
        let mut jwk = signing::jwk(algorithm, key);
        jwk["kid"] = json!(kid);
        jwk
    };
    let mut bare = named("RS256", RSA, "bare");
    bare.as_object_mut().unwrap().remove("alg");
    let keys = json!({"keys": [named("RS256", RSA, "rsa"), named("ES256", P256, "ec"), bare]});
    std::fs::write(&path, keys.to_string()).unwrap();
    let auth = with_keys(&["RS256", "PS256", "ES256"], |issuer| issuer.jwks_file = Some(path));
    let rsa = |algorithm: &str, header: Value| signing::sign_pem(algorithm, RSA, &header.to_string(), &claims);
    let pem = std::fs::read_to_string(public("rsa")).unwrap();
    let shared = |header: &str| sign(Algorithm::parse("HS256").unwrap(), &Secret::new(&pem), header, &claims).unwrap();
    let other = signing::jwk("RS256", RSA_OTHER);
    let cases = [
        ("the key's kid", rsa("RS256", json!({"alg": "RS256", "kid": "rsa"})), ""),
        ("no kid, two matching keys", rsa("RS256", json!({"alg": "RS256"})), "no key"),
        ("no kid, one matching key", rsa("PS256", json!({"alg": "PS256"})), ""),
        ("the key's other algorithm", rsa("PS256", json!({"alg": "PS256", "kid": "rsa"})), "no key"),
        ("a key without an algorithm", rsa("PS256", json!({"alg": "PS256", "kid": "bare"})), ""),
        ("an unknown kid", rsa("RS256", json!({"alg": "RS256", "kid": "rsa2"})), "no key"),
        ("the kid of another key type", rsa("RS256", json!({"alg": "RS256", "kid": "ec"})), "no key"),
        ("declared as RS256, signed with PS256", rsa("PS256", json!({"alg": "RS256", "kid": "rsa"})), "signature"),
        ("the public key as a secret", shared(r#"{"alg":"HS256","kid":"rsa"}"#), "`alg`"),
        ("the public key as a secret, declared as RS256", shared(r#"{"alg":"RS256","kid":"rsa"}"#), "signature"),
        (
            "a key in the token's header",
            signing::sign_pem(
                "RS256",
                RSA_OTHER,
                &json!({"alg": "RS256", "kid": "rsa", "jwk": other}).to_string(),
                &claims,
            ),
            "signature",
        ),
    ];
    let tokens = cases.map(|(name, token, reason)| (name, token, U, reason));
    check(&auth, &tokens).await;
}

#[test]
fn all_configuration_errors_are_reported_together() {
    let cases: [(&str, AuthConfig); 14] = [
        ("exactly one of", with_keys(&["RS256"], |_| {})),
        (
            "exactly one of",
            with_keys(&["RS256"], |issuer| {
                issuer.pem_file = Some(public("rsa"));
                issuer.jwks_url = Some("https://issuer.test/keys".to_owned());
            }),
        ),
        ("unknown algorithm `none`", with_keys(&["none"], |issuer| issuer.pem_file = Some(public("rsa")))),
        ("`algorithms` is empty", with_keys(&[], |issuer| issuer.pem_file = Some(public("rsa")))),
        ("HS256 does not match", with_keys(&["RS256", "HS256"], |issuer| issuer.pem_file = Some(public("rsa")))),
        ("ES384 does not match", with_keys(&["ES384"], |issuer| issuer.pem_file = Some(public("p256")))),
        ("RS256 does not match", with_keys(&["RS256"], |issuer| issuer.secret = Some(Secret::new("x".repeat(32))))),
        ("HS256 does not match", with_keys(&["HS256"], |issuer| issuer.secret = Some(Secret::new("x".repeat(31))))),
        (
            "HS256 does not match",
            with_keys(&["HS256"], |issuer| issuer.jwks_url = Some("https://issuer.test".to_owned())),
        ),
        ("2048 to 8192 bits", with_keys(&["RS256"], |issuer| issuer.pem_file = Some(public("rsa_weak")))),
        ("rsa_weak.pub.pem", with_keys(&["RS256"], |issuer| issuer.pem_file = Some(public("rsa_weak")))),
        ("key is invalid", with_keys(&["ES384"], |issuer| issuer.pem_file = Some(public("p521")))),
        ("must be https", with_keys(&["RS256"], |issuer| issuer.jwks_url = Some("http://issuer.test".to_owned()))),
        ("cannot be read", with_keys(&["RS256"], |issuer| issuer.pem_file = Some("/nowhere".into()))),
    ];
    let policy = BTreeMap::new();
    for (reason, auth) in &cases {
        let error = Verifier::new(auth, &policy, Clock::System).unwrap_err();
        assert!(error.message().starts_with("auth.issuers.dev: "), "{error:?}");
        assert!(error.message().contains(reason), "{error:?}, expected `{reason}`");
    }
    let mut all = cases[0].1.clone();
    all.issuers.insert("other".to_owned(), cases[2].1.issuers["dev"].clone());
    let error = Verifier::new(&all, &policy, Clock::System).unwrap_err();
    assert_eq!(error.message().lines().count(), 2, "{error:?}");

    let mut twins = auth();
    twins.issuers.insert("twin".to_owned(), issuer());
    let error = Verifier::new(&twins, &policy, Clock::System).unwrap_err();
    assert!(error.message().contains("another issuer has the same `issuer`"), "{error:?}");
    assert!(!format!("{twins:?} {error:?}").contains("secret of at least"), "secrets are not shown");
}

#[tokio::test]
async fn an_access_has_the_rights_in_the_token() {
    let access = verify(&auth(), &signed(HEADER, &with(json!({"jti": "t1", "iat": NOW - 10})))).await.unwrap();
    assert_eq!(access.identity(), ("https://issuer.test", "ann", "t1"));
    assert!(matches!(access.owner(), Owner::Tenant(tenant) if tenant.as_str() == "acme"));
    assert!(access.require(Scope::Read).is_ok() && access.require(Scope::Ingest).is_ok());
    assert_eq!(access.require(Scope::Admin).unwrap_err().kind(), Kind::Forbidden);
    assert_eq!(access.expires(), (NOW + 60 + 30) * SECOND);
    assert!(access.check_valid(access.expires() - 1).is_ok());
    assert_eq!(access.check_valid(access.expires()).unwrap_err().kind(), Kind::Unauthenticated);

    let old = json!({"iat": NOW - 86_400, "exp": NOW + 1_000_000});
    let old = verify(&auth(), &signed(HEADER, &with(old))).await.unwrap();
    assert_eq!(old.expires(), (NOW + 30) * SECOND, "the maximum age is before `exp`");

    let operator = json!({"sub": "ops", "tenant": null, "scope": ["ingest", "read", "email"]});
    let operator = verify(&auth(), &signed(HEADER, &with(operator))).await.unwrap();
    assert_eq!(operator.tenant().unwrap_err().kind(), Kind::Forbidden);
    assert_eq!(operator.owner(), Owner::PerEvent);
    assert!(operator.require(Scope::Ingest).is_ok());
    assert!(operator.require(Scope::Read).is_err(), "an operator can never query");
    assert_ne!(operator.fingerprint(), access.fingerprint());
}

#[tokio::test]
async fn claim_names_may_be_paths_or_urls() {
    let mut auth = auth();
    let issuer = auth.issuers.get_mut("dev").unwrap();
    issuer.tenant_claim = "https://glasshouse.test/tenant".to_owned();
    issuer.scope_claim = "app.scopes".to_owned();
    let claims =
        with(json!({"https://glasshouse.test/tenant": "acme", "tenant": "rival", "app": {"scopes": ["read"]}}));
    let access = verify(&auth, &signed(HEADER, &claims)).await.unwrap();
    assert_eq!(access.tenant().unwrap().as_str(), "acme");
    assert!(access.require(Scope::Read).is_ok());
    let flat = with(json!({"app.scopes": ["read"], "https://glasshouse.test/tenant": "acme"}));
    let access = verify(&auth, &signed(HEADER, &flat)).await.unwrap();
    assert!(access.require(Scope::Read).is_err(), "a dotted name without quotes is always a path");
}

#[tokio::test]
async fn claim_names_in_quotes_may_contain_dots() {
    let claims = with(json!({
        "https://app.test/claims": {"tenant_id": "acme", "org.id": "coda", "a-b": {"c": "bell"}},
        "org.id": "zeta",
        "tenant": "rival",
    }));
    for (path, tenant) in [
        (r#""https://app.test/claims".tenant_id"#, "acme"),
        (r#""https://app.test/claims"."org.id""#, "coda"),
        (r#""https://app.test/claims"."a-b".c"#, "bell"),
        (r#""org.id""#, "zeta"),
        (r#""tenant""#, "rival"),
    ] {
        let mut auth = auth();
        auth.issuers.get_mut("dev").unwrap().tenant_claim = path.to_owned();
        let access = verify(&auth, &signed(HEADER, &claims)).await.unwrap_or_else(|error| panic!("{path}: {error:?}"));
        assert_eq!(access.tenant().unwrap().as_str(), tenant, "{path}");
    }
    for path in [r#""org.id"#, r#"org"id"#, r#""org"id"#, r#""""#, "a..b", r#""a"."#, ""] {
        let mut auth = auth();
        auth.issuers.get_mut("dev").unwrap().tenant_claim = path.to_owned();
        let error = Verifier::new(&auth, &BTreeMap::new(), Clock::System).unwrap_err();
        assert!(error.message().contains("is not a claim name"), "{path}: {error:?}");
    }
}
