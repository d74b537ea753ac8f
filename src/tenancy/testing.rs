//! Test support for all modules: creates an [`Access`] by signing and verifying a token.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Access, DevelopmentToken, Scope, Verifier};
use crate::clock::Clock;
use crate::config::{AuthConfig, IssuerConfig, PolicyConfig, Secret};

/// How long an access is valid. Schedules simulate many days.
const ACCESS_TIME: Duration = Duration::from_secs(366 * 86_400);

/// Returns a configuration with one issuer, `dev`, which has a shared secret and the operator `ops`.
pub(crate) fn auth() -> AuthConfig {
    AuthConfig {
        issuers: BTreeMap::from([("dev".to_owned(), issuer())]),
        token_bytes_max: 64 * 1024,
        leeway: Duration::from_secs(30),
        token_age_max: Duration::from_secs(86_400),
        jwks_fresh: Duration::from_secs(600),
        jwks_stale_max: Duration::from_secs(3_600),
        jwks_cooldown: Duration::from_secs(30),
        jwks_bytes_max: 64 * 1024,
        jwks_keys_max: 16,
        handle_secret: Secret::default(),
        revocations_file: None,
    }
}

/// Returns the issuer of [`auth`].
pub(crate) fn issuer() -> IssuerConfig {
    IssuerConfig {
        issuer: "https://issuer.test".to_owned(),
        audience: "glasshouse".to_owned(),
        algorithms: vec!["HS256".to_owned()],
        secret: Some(Secret::new("a secret of at least thirty-two bytes")),
        secret_file: None,
        pem_file: None,
        jwks_file: None,
        jwks_url: None,
        ca_file: None,
        tenant_claim: "tenant".to_owned(),
        scope_claim: "scope".to_owned(),
        operators: vec!["ops".to_owned()],
    }
}

/// Returns an [`Access`] with the given scopes and full access to the columns of `tables`. For the operator, `tenant`
/// is `None`.
pub(crate) async fn access(tenant: Option<&str>, scopes: &[Scope], tables: &[&str]) -> Access {
    let policy = tables.iter().map(|table| ((*table).to_owned(), PolicyConfig::default())).collect();
    access_under(tenant, scopes, &policy, serde_json::json!({})).await
}

/// Like [`access`], but applies `policy`, and adds the claims in the JSON object `claims` to the token.
pub(crate) async fn access_under(
    tenant: Option<&str>,
    scopes: &[Scope],
    policy: &BTreeMap<String, PolicyConfig>,
    claims: serde_json::Value,
) -> Access {
    let token = DevelopmentToken {
        issuer: String::new(),
        tenant: tenant.map(str::to_owned),
        subject: if tenant.is_some() { "user" } else { "ops" }.to_owned(),
        scopes: scopes.to_vec(),
        age: ACCESS_TIME,
        claims: claims.as_object().cloned().unwrap_or_default(),
    };
    let auth = AuthConfig { token_age_max: ACCESS_TIME, ..auth() };
    let token = token.sign(&auth, &Clock::System).unwrap();
    Verifier::new(&auth, policy, Clock::System).unwrap().verify(&token).await.unwrap()
}
