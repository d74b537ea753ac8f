//! Verifies tokens. A valid token results in an [`Access`]. Any other token results in an error that states why the
//! token is refused, without internal details.
//!
//! First, the size, shape, header, issuer, algorithm, key and signature of the token are checked, in this order. Then
//! the signed claims are checked: audience, times, subject, tenant, scopes, policy and revocations. The checks follow
//! RFC 8725. No check is optional.
//!
//! **Invariant:** an error states which rule was violated, but does not reveal which keys, issuers or subjects exist.
//! **Invariant:** a token with `crit` or `b64` in its header is refused.
//! **Invariant:** a key inside a token is never used.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use tokio_util::sync::CancellationToken;

use super::access::{Access, Grant, Scope, revoked};
use super::claims::{ClaimPath, Claims};
use super::issuer_keys::IssuerKeys;
use super::policy::Policy;
use super::refusal_log::RefusalLog;
use super::revocation_file::{self, Reload, RevocationFile};
use super::revocations::{ActiveRevocations, Revocation, RevokedTokens};
use super::signature::{Algorithm, VerificationKey};
use crate::clock::{Clock, Micros, SECOND};
use crate::config::{AuthConfig, IssuerConfig, PolicyConfig};
use crate::contract::TenantId;
use crate::error::{Error, Result};
use crate::telemetry::Metrics;

/// Verifies tokens. All endpoints share one verifier.
#[derive(Debug)]
pub struct Verifier {
    /// The trusted issuers, keyed by their exact `iss`.
    issuers: BTreeMap<String, Issuer>,
    policy: Policy,
    clock: Clock,
    token_bytes_max: usize,
    leeway: i64,
    token_age_max: i64,
    refusals: RefusalLog,
    revocations: Arc<ActiveRevocations>,
    /// The file with the revocations, or `None` if none is configured.
    revocation_file: Option<Arc<RevocationFile>>,
}

/// A trusted issuer.
#[derive(Debug)]
struct Issuer {
    audience: String,
    algorithms: Vec<Algorithm>,
    keys: IssuerKeys,
    tenant_claim: ClaimPath,
    scope_claim: ClaimPath,
    operators: Vec<String>,
}

impl Verifier {
    /// Checks the policy and the issuers' keys and algorithms, and creates a verifier. Key files are read here, and
    /// URLs are fetched on first use. If several checks fail, the error lists all problems, one per line.
    ///
    /// A quarantine `<table>_quarantine` has the same tenant rule as its table. The quarantine is visible if the table
    /// has no row rules and no column list, or if the quarantine has its own policy.
    pub fn new(auth: &AuthConfig, policy: &BTreeMap<String, PolicyConfig>, clock: Clock) -> Result<Self> {
        let mut problems = Vec::new();
        let mut issuers = BTreeMap::new();
        for (name, config) in &auth.issuers {
            let key = format!("auth.issuers.{name}");
            let issuer = Issuer::new(config, auth, &clock);
            match issuer.map(|issuer| issuers.insert(config.issuer.clone(), issuer)) {
                Ok(None) => {}
                Ok(Some(_)) => problems.push(format!("{key}: another issuer has the same `issuer`: use a unique one")),
                Err(error) => problems.push(error.at(key).to_string()),
            }
        }
        let policy = Policy::new(policy, &mut problems);
        let file = auth.revocations_file.as_ref().map(|path| RevocationFile::open(path, auth)).transpose();
        let (file, revocations) = file.map(Option::unzip).unwrap_or_else(|error| {
            problems.push(error.at("auth.revocations_file").to_string());
            (None, None)
        });
        if !problems.is_empty() {
            return Err(Error::invalid(problems.join("\n")));
        }
        let seconds = |duration: Duration| i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
        Ok(Self {
            issuers,
            policy,
            clock,
            token_bytes_max: auth.token_bytes_max,
            leeway: seconds(auth.leeway),
            token_age_max: seconds(auth.token_age_max),
            refusals: RefusalLog::default(),
            revocations: Arc::new(ActiveRevocations::new(revocations.unwrap_or_default())),
            revocation_file: file.map(Arc::new),
        })
    }

    /// Verifies a compact JWT. Returns `Unauthenticated` with a reason if the token is refused, `Forbidden` if it has
    /// no valid tenant claim, or `Unavailable` if the issuer's keys cannot be fetched.
    /// Logs why a token is refused.
    pub async fn verify(&self, token: &str) -> Result<Access> {
        let outcome = match Unverified::parse(token, self.token_bytes_max) {
            Ok(unverified) => {
                let outcome = self.verify_parsed(&unverified).await;
                outcome.map_err(|error| (unverified.claims.text("iss").ok().flatten().map(str::to_owned), error))
            }
            Err(error) => Err((None, error)),
        };
        outcome.map_err(|(issuer, error)| {
            let trusted = self.issuers.keys().map(String::as_str).collect::<Vec<_>>().join(", ");
            self.refusals.add(issuer.as_deref(), &trusted, &error);
            error
        })
    }

    /// Returns a description of each issuer: the claims with the tenant and the scopes.
    pub fn describe_issuers(&self) -> Vec<String> {
        let describe = |(name, issuer): (&String, &Issuer)| {
            let (tenant, scope) = (issuer.tenant_claim.describe(), issuer.scope_claim.describe());
            format!("tokens of `{name}`: the tenant is in the claim {tenant}, and the scopes are in the claim {scope}")
        };
        self.issuers.iter().map(describe).collect()
    }

    async fn verify_parsed(&self, unverified: &Unverified<'_>) -> Result<Access> {
        let issuer = unverified.claims.text("iss")?.and_then(|iss| self.issuers.get(iss));
        let issuer = issuer.ok_or_else(|| refuse("its `iss` is missing or not trusted"))?;
        let algorithm = issuer.algorithm(&unverified.header)?;
        let key = issuer.keys.find(unverified.header.text("kid")?, algorithm).await?;
        unverified.check_signature(&key, algorithm)?;
        self.grant(issuer, &unverified.claims)
    }

    /// Fails if no issuer is configured or if the keys of an issuer cannot be fetched. `/readyz` reports the result.
    pub async fn ready(&self) -> Result<()> {
        if self.issuers.is_empty() {
            return Err(Error::unavailable(
                "no issuer is configured, so every token is refused: declare one under auth.issuers",
            ));
        }
        for issuer in self.issuers.values() {
            issuer.keys.ready().await?;
        }
        Ok(())
    }

    /// Returns the number of active revocations, or `None` if no file with revocations is configured.
    pub fn revocation_count(&self) -> Option<usize> {
        self.revocation_file.as_ref().map(|_| self.revocations.len())
    }

    /// Reads the file with the revocations once per `interval` until `stop` is cancelled. Calls `changed` each time the
    /// revocations have changed.
    pub async fn follow_revocations(
        &self,
        interval: Duration,
        metrics: &Metrics,
        stop: &CancellationToken,
        changed: impl Fn(),
    ) {
        let Some(file) = &self.revocation_file else { return };
        metrics.revocations(self.revocations.len(), true);
        while stop.run_until_cancelled(tokio::time::sleep(interval)).await.is_some() {
            let reload = revocation_file::reload(file, &self.revocations).await;
            let reload = reload.unwrap_or_else(|error| {
                tracing::error!(?error, "cannot load the revocations; the previous ones stay active");
                Reload::Failed
            });
            metrics.revocations(self.revocations.len(), reload != Reload::Failed);
            if reload == Reload::Replaced {
                changed();
            }
        }
    }

    /// Checks the claims of a token with a valid signature, and returns the access that they grant.
    fn grant(&self, issuer: &Issuer, claims: &Claims) -> Result<Access> {
        issuer.check_audience(claims)?;
        let expires = self.check_times(claims)?;
        let subject = claims.text("sub")?.ok_or_else(|| refuse("`sub` is missing"))?;
        let mut scopes = issuer.scopes(claims)?;
        let tenant = issuer.tenant(claims, subject, &scopes)?;
        if tenant.is_none() {
            scopes.retain(|scope| *scope != Scope::Read); // an operator can never query
        }
        let access = Access::new(Grant {
            tenant,
            issuer: claims.text("iss")?.unwrap_or_default().to_owned(),
            subject: subject.to_owned(),
            token_id: claims.text("jti")?.unwrap_or_default().to_owned(),
            scopes,
            issued: claims.seconds("iat")?,
            expires,
            tables: self.policy.rules(claims),
            policy_version: self.policy.version(),
            revocations: Arc::clone(&self.revocations),
        });
        if access.is_revoked() { Err(revoked()) } else { Ok(access) }
    }

    /// Checks `exp`, `nbf` and `iat`, and returns the time from which the token is refused as expired.
    fn check_times(&self, claims: &Claims) -> Result<Micros> {
        let now = self.clock.now_seconds();
        let expires = claims.seconds("exp")?.ok_or_else(|| refuse("`exp` is missing"))?;
        let mut end = expires.saturating_add(self.leeway);
        if let Some(start) = claims.seconds("nbf")?
            && now < start.saturating_sub(self.leeway)
        {
            return Err(refuse("it is not valid yet (`nbf`)"));
        }
        if let Some(issued) = claims.seconds("iat")? {
            if now < issued.saturating_sub(self.leeway) {
                return Err(refuse("it was issued in the future (`iat`)"));
            }
            let too_old = issued.saturating_add(self.token_age_max).saturating_add(self.leeway);
            if now >= too_old {
                return Err(refuse("it is too old (`iat`, limit auth.token_age_max): get a new one"));
            }
            end = end.min(too_old);
        }
        if now >= end {
            return Err(refuse("it has expired (`exp`): get a new one"));
        }
        Ok(end.saturating_mul(SECOND))
    }
}

/// Returns a revocation for a single token. The token does not have to be valid. Fails if its issuer is not trusted, or
/// if it has no id.
pub fn revocation_of(token: &str, auth: &AuthConfig) -> Result<Revocation> {
    let invalid = |error: Error| Error::invalid(error.message().to_owned());
    let Unverified { claims, .. } = Unverified::parse(token, auth.token_bytes_max).map_err(invalid)?;
    let issuer = claims.text("iss").map_err(invalid)?.unwrap_or_default();
    if !auth.issuers.values().any(|known| known.issuer == issuer) {
        return Err(Error::invalid(format!(
            "the token's issuer `{issuer}` is not trusted, so the token is refused anyway"
        )));
    }
    let Some(id) = claims.text("jti").map_err(invalid)? else {
        return Err(Error::invalid(
            "the token has no id (`jti`), so it cannot be revoked by itself: revoke the older tokens of its subject with \
             --subject and --issued-before",
        ));
    };
    Ok(Revocation { issuer: issuer.to_owned(), tokens: RevokedTokens::TokenId(id.to_owned()), reason: None })
}

impl Issuer {
    fn new(config: &IssuerConfig, auth: &AuthConfig, clock: &Clock) -> Result<Self> {
        if config.issuer.is_empty() || config.audience.is_empty() {
            return Err(Error::invalid("`issuer` and `audience` must not be empty"));
        }
        if config.algorithms.is_empty() {
            return Err(Error::invalid("`algorithms` is empty: list the algorithms that the issuer signs with"));
        }
        let known = |name: &String| {
            Algorithm::parse(name).ok_or_else(|| {
                let names = Algorithm::names().collect::<Vec<_>>().join(", ");
                Error::invalid(format!("unknown algorithm `{name}`: use one of {names}"))
            })
        };
        let algorithms = config.algorithms.iter().map(known).collect::<Result<Vec<_>>>()?;
        Ok(Self {
            audience: config.audience.clone(),
            keys: IssuerKeys::open(config, &algorithms, auth, clock)?,
            algorithms,
            tenant_claim: ClaimPath::parse(&config.tenant_claim).map_err(|error| error.at("tenant_claim"))?,
            scope_claim: ClaimPath::parse(&config.scope_claim).map_err(|error| error.at("scope_claim"))?,
            operators: config.operators.clone(),
        })
    }

    /// Returns the algorithm in the header if the issuer's list contains it.
    fn algorithm(&self, header: &Claims) -> Result<Algorithm> {
        let name = header.text("alg")?.unwrap_or_default();
        let listed = self.algorithms.iter().find(|listed| listed.name() == name);
        listed.copied().ok_or_else(|| refuse("its `alg` is missing or not allowed for its issuer"))
    }

    /// Checks that `aud` is this server's audience, or a list of strings that contains it.
    fn check_audience(&self, claims: &Claims) -> Result<()> {
        let ours = |value: &Value| value.as_str() == Some(self.audience.as_str());
        let is_ours = match claims.get("aud") {
            Some(Value::Array(list)) => list.iter().all(Value::is_string) && list.iter().any(ours),
            Some(single) => ours(single),
            None => false,
        };
        if is_ours { Ok(()) } else { Err(refuse("its `aud` is missing or does not name this server")) }
    }

    /// Returns the known scopes in the scope claim, which is a list of strings or a space-separated string. Unknown
    /// scopes are ignored.
    fn scopes(&self, claims: &Claims) -> Result<Vec<Scope>> {
        let wrong_type = || refuse("its scope claim is neither a string nor a list of strings");
        let words: Vec<&str> = match claims.at(&self.scope_claim) {
            None => Vec::new(),
            Some(Value::String(words)) => words.split(' ').collect(),
            Some(Value::Array(list)) => {
                list.iter().map(|word| word.as_str().ok_or_else(wrong_type)).collect::<Result<_>>()?
            }
            Some(_) => return Err(wrong_type()),
        };
        Ok(Scope::ALL.into_iter().filter(|scope| words.contains(&scope.as_str())).collect())
    }

    /// Returns the tenant, or `None` for an operator. An operator must have the scope `ingest` or `admin`, and its
    /// token must not contain the tenant claim.
    fn tenant(&self, claims: &Claims, subject: &str, scopes: &[Scope]) -> Result<Option<TenantId>> {
        match claims.at(&self.tenant_claim) {
            Some(Value::String(tenant)) => TenantId::parse(tenant).map(Some).map_err(|error| {
                Error::forbidden("the token's tenant claim is not a valid tenant id").with_source(error)
            }),
            Some(_) => Err(Error::forbidden("the token's tenant claim is not a string")),
            None => {
                let is_operator = self.operators.iter().any(|operator| operator == subject)
                    && (scopes.contains(&Scope::Ingest) || scopes.contains(&Scope::Admin));
                if is_operator { Ok(None) } else { Err(Error::forbidden("the token has no tenant claim")) }
            }
        }
    }
}

/// A token that is well-formed but not verified yet.
struct Unverified<'a> {
    /// The signed bytes of the token, which are its header and claims as received.
    message: &'a str,
    signature: &'a str,
    header: Claims,
    claims: Claims,
}

impl<'a> Unverified<'a> {
    fn parse(token: &'a str, bytes_max: usize) -> Result<Self> {
        if token.len() > bytes_max {
            return Err(refuse(format!("it is larger than {bytes_max} bytes (limit auth.token_bytes_max)")));
        }
        let parts: Vec<&str> = token.split('.').collect();
        let [header, claims, signature] = parts[..] else {
            return Err(match parts.len() {
                5 => refuse("it is encrypted (JWE): use a signed token (JWS)"),
                _ => refuse("it is not a compact JWT of three parts"),
            });
        };
        let is_base64url = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        if parts.iter().any(|part| part.is_empty() || !part.bytes().all(is_base64url)) {
            return Err(refuse("it has an empty part, whitespace, or other invalid characters"));
        }
        let message = &token[..header.len() + 1 + claims.len()];
        let header = Claims::parse(header)?;
        check_header(&header)?;
        Ok(Self { message, signature, header, claims: Claims::parse(claims)? })
    }

    /// Fails if the signature is not valid.
    fn check_signature(&self, key: &VerificationKey, algorithm: Algorithm) -> Result<()> {
        if key.verify(algorithm, self.message, self.signature) {
            return Ok(());
        }
        Err(refuse("its signature is invalid"))
    }
}

/// Refuses header extensions that are not implemented, and tokens of other types.
fn check_header(header: &Claims) -> Result<()> {
    if header.get("crit").is_some() || header.get("b64").is_some() {
        return Err(refuse("its header requires extensions (`crit`, `b64`), which are not supported"));
    }
    let kind = header.text("typ")?.unwrap_or("JWT").to_ascii_lowercase();
    match kind.strip_prefix("application/").unwrap_or(&kind) {
        "jwt" | "at+jwt" => {}
        _ => return Err(refuse("its `typ` is neither JWT nor at+jwt")),
    }
    header.text("kid").map(drop)
}

fn refuse(why: impl std::fmt::Display) -> Error {
    Error::unauthenticated(format!("the token is refused: {why}"))
}
