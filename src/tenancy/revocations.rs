//! Revocations. The server refuses a revoked token even if its signature is valid and it has not expired.
//!
//! A revocation covers the token with an id (`jti`), the tokens of a subject, or all tokens of an issuer or a tenant
//! that were issued before a time. `revocation_file.rs` reads revocations from a file and replaces the active ones when
//! the file changes.
//!
//! ```text
//!   text ─► parse ─► Vec<Revocation> ─► Revocations (hash maps) ─► ActiveRevocations ─► verify, Access
//! ```
//!
//! **Invariant:** a token without `iat` counts as older than any time, so it cannot evade a revocation of older tokens.

use std::collections::HashMap;
use std::fmt;

use chrono::DateTime;
use serde::de::{Deserialize, Deserializer, Error as _};
use tokio::sync::watch;
use toml::Spanned;
use toml::value::Datetime;

use super::claims::TEXT_BYTES_MAX;
use crate::contract::TenantId;
use crate::error::{Error, Result, did_you_mean};

/// The maximum number of invalid revocations that one error describes.
const PROBLEMS_MAX: usize = 10;

/// A revocation of one or more tokens of an issuer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// The exact `iss` of the revoked tokens.
    pub issuer: String,
    /// The revoked tokens.
    pub tokens: RevokedTokens,
    /// The reason, which only operators see.
    pub reason: Option<String>,
}

/// The tokens that a revocation covers. Times are in seconds since 1970.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RevokedTokens {
    /// The token with this `jti`.
    TokenId(String),
    /// The tokens of a subject, including future ones unless `issued_before` is set.
    Subject {
        /// The `sub` of the tokens.
        subject: String,
        /// The time before which the tokens were issued.
        issued_before: Option<i64>,
    },
    /// The tokens of a tenant that were issued before a time.
    Tenant {
        /// The tenant of the tokens.
        tenant: String,
        /// The time before which the tokens were issued.
        issued_before: i64,
    },
    /// All tokens of the issuer that were issued before a time.
    Issuer {
        /// The time before which the tokens were issued.
        issued_before: i64,
    },
}

/// The claims that determine whether a token is revoked.
#[derive(Debug, Clone, Copy)]
pub(super) struct TokenIdentity<'a> {
    pub(super) issuer: &'a str,
    pub(super) subject: &'a str,
    /// The `jti`, or an empty string if the token has none.
    pub(super) token_id: &'a str,
    /// The tenant, or `None` for an operator.
    pub(super) tenant: Option<&'a str>,
    /// The `iat` in seconds since 1970.
    pub(super) issued: Option<i64>,
}

/// A set of revocations, indexed by issuer and by the claims that they match.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Revocations {
    issuers: HashMap<String, IssuerRevocations>,
    len: usize,
}

/// The revocations of one issuer. Each value is a time, and tokens that were issued before it are revoked. [`ALWAYS`]
/// revokes all tokens.
#[derive(Debug, Default, PartialEq, Eq)]
struct IssuerRevocations {
    token_ids: HashMap<String, i64>,
    subjects: HashMap<String, i64>,
    tenants: HashMap<String, i64>,
    all: Option<i64>,
}

/// A time later than the `iat` of any token.
const ALWAYS: i64 = i64::MAX;

/// The revocations that the server applies. The verifier and every `Access` share them.
pub(super) struct ActiveRevocations(watch::Sender<Revocations>);

impl ActiveRevocations {
    pub(super) fn new(revocations: Revocations) -> Self {
        Self(watch::Sender::new(revocations))
    }

    /// Replaces the active revocations.
    pub(super) fn replace(&self, revocations: Revocations) {
        self.0.send_replace(revocations);
    }

    /// Returns true if `revocations` contains every active revocation.
    pub(super) fn are_contained_in(&self, revocations: &Revocations) -> bool {
        revocations.contains(&self.0.borrow())
    }

    /// Returns true if the token is revoked.
    pub(super) fn covers(&self, token: TokenIdentity<'_>) -> bool {
        self.0.borrow().covers(token)
    }

    /// Waits until the token is revoked.
    pub(super) async fn revoked(&self, token: TokenIdentity<'_>) {
        let mut changes = self.0.subscribe();
        if changes.wait_for(|revocations| revocations.covers(token)).await.is_err() {
            // The sender has been dropped, so the revocations no longer change.
            std::future::pending::<()>().await;
        }
    }

    /// Returns the number of active revocations.
    pub(super) fn len(&self) -> usize {
        self.0.borrow().len
    }
}

impl fmt::Debug for ActiveRevocations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ActiveRevocations").field("len", &self.len()).finish()
    }
}

impl Revocations {
    pub(super) fn new(list: &[Revocation]) -> Self {
        let mut issuers: HashMap<String, IssuerRevocations> = HashMap::new();
        for revocation in list {
            let issuer = issuers.entry(revocation.issuer.clone()).or_default();
            let mut add = |map: fn(&mut IssuerRevocations) -> &mut HashMap<String, i64>, key: &str, before: i64| {
                let limit = map(issuer).entry(key.to_owned()).or_insert(before);
                *limit = before.max(*limit);
            };
            match &revocation.tokens {
                RevokedTokens::TokenId(id) => add(|issuer| &mut issuer.token_ids, id, ALWAYS),
                RevokedTokens::Subject { subject, issued_before } => {
                    add(|issuer| &mut issuer.subjects, subject, issued_before.unwrap_or(ALWAYS));
                }
                RevokedTokens::Tenant { tenant, issued_before } => {
                    add(|issuer| &mut issuer.tenants, tenant, *issued_before);
                }
                RevokedTokens::Issuer { issued_before } => issuer.all = issuer.all.max(Some(*issued_before)),
            }
        }
        Self { issuers, len: list.len() }
    }

    fn covers(&self, token: TokenIdentity<'_>) -> bool {
        let Some(issuer) = self.issuers.get(token.issuer) else { return false };
        let limits = [
            issuer.token_ids.get(token.token_id),
            issuer.subjects.get(token.subject),
            token.tenant.and_then(|tenant| issuer.tenants.get(tenant)),
            issuer.all.as_ref(),
        ];
        limits.into_iter().flatten().any(|limit| token.issued.is_none_or(|issued| issued < *limit))
    }

    /// Returns true if this set also revokes every token that `other` revokes.
    pub(super) fn contains(&self, other: &Self) -> bool {
        let none = IssuerRevocations::default();
        other.issuers.iter().all(|(name, other)| self.issuers.get(name).unwrap_or(&none).contains(other))
    }
}

impl IssuerRevocations {
    fn contains(&self, other: &Self) -> bool {
        let contains = |own: &HashMap<String, i64>, other: &HashMap<String, i64>| {
            other.iter().all(|(key, limit)| own.get(key).is_some_and(|own| own >= limit))
        };
        contains(&self.token_ids, &other.token_ids)
            && contains(&self.subjects, &other.subjects)
            && contains(&self.tenants, &other.tenants)
            && self.all >= other.all
    }
}

/// The TOML file with all revocations.
#[derive(Default, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    revocations: Vec<Spanned<Entry>>,
}

/// One `[[revocations]]` table before it is checked.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    issuer: String,
    token_id: Option<String>,
    subject: Option<String>,
    tenant: Option<String>,
    #[serde(default, deserialize_with = "time")]
    issued_before: Option<i64>,
    reason: Option<String>,
}

/// Parses a file with revocations. `issuers` are the trusted values of `iss`. An error names the line and the fix.
pub(super) fn parse(text: &str, issuers: &[String]) -> Result<Vec<Revocation>> {
    let line = |offset: usize| text[..offset.min(text.len())].matches('\n').count() + 1;
    let document: Document = toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(String::new(), |span| format!("line {}: ", line(span.start)));
        Error::invalid(format!("{at}{}", error.message()))
    })?;
    let (mut list, mut problems) = (Vec::with_capacity(document.revocations.len()), Vec::new());
    for entry in document.revocations {
        let at = entry.span().start;
        match entry.into_inner().check(issuers) {
            Ok(revocation) => list.push(revocation),
            Err(problem) => problems.push(format!("line {}: {problem}", line(at))),
        }
        if problems.len() == PROBLEMS_MAX {
            break;
        }
    }
    if problems.is_empty() { Ok(list) } else { Err(Error::invalid(problems.join("\n"))) }
}

impl Entry {
    fn check(self, issuers: &[String]) -> Result<Revocation, String> {
        if !issuers.contains(&self.issuer) {
            let guess = did_you_mean(&self.issuer, issuers.iter().map(String::as_str));
            let known = issuers.join("`, `");
            return Err(format!("unknown issuer `{}`{guess}; the trusted issuers are `{known}`", self.issuer));
        }
        let tokens = RevokedTokens::new(self.token_id, self.subject, self.tenant, self.issued_before)?;
        Ok(Revocation { issuer: self.issuer, tokens, reason: self.reason })
    }
}

impl RevokedTokens {
    /// Combines the keys of a revocation. Fails if the combination of keys is not allowed, or if no token can have one
    /// of the values.
    pub fn new(
        token_id: Option<String>,
        subject: Option<String>,
        tenant: Option<String>,
        issued_before: Option<i64>,
    ) -> Result<Self, String> {
        for (key, text) in [("token_id", &token_id), ("subject", &subject)] {
            let Some(text) = text else { continue };
            if text.is_empty() || text.len() > TEXT_BYTES_MAX || text.contains(char::is_control) {
                return Err(format!(
                    "`{key}` must have 1 to {TEXT_BYTES_MAX} bytes and no control characters, as in tokens"
                ));
            }
        }
        if let Some(tenant) = &tenant
            && TenantId::parse(tenant).is_err()
        {
            return Err(format!("`{tenant}` is not a valid tenant id"));
        }
        match (token_id, subject, tenant, issued_before) {
            (Some(id), None, None, None) => Ok(Self::TokenId(id)),
            (None, Some(subject), None, issued_before) => Ok(Self::Subject { subject, issued_before }),
            (None, None, Some(tenant), Some(issued_before)) => Ok(Self::Tenant { tenant, issued_before }),
            (None, None, None, Some(issued_before)) => Ok(Self::Issuer { issued_before }),
            (None, None, Some(_), None) => Err("`tenant` needs `issued_before`: add the time of the revocation".into()),
            (None, None, None, None) => Err("nothing is revoked: add `token_id`, `subject` or `issued_before`".into()),
            _ => Err(
                "`token_id` cannot be combined with another key, and `tenant` only with `issued_before`: use several \
                      revocations"
                    .into(),
            ),
        }
    }
}

impl Revocation {
    /// Returns the revocation as a `[[revocations]]` table.
    pub(super) fn to_toml(&self) -> String {
        let quoted = |text: &str| toml::Value::String(text.to_owned()).to_string();
        let mut text = format!("[[revocations]]\nissuer = {}\n", quoted(&self.issuer));
        let mut add = |key: &str, value: String| text.push_str(&format!("{key} = {value}\n"));
        let before = match &self.tokens {
            RevokedTokens::TokenId(id) => {
                add("token_id", quoted(id));
                None
            }
            RevokedTokens::Subject { subject, issued_before } => {
                add("subject", quoted(subject));
                *issued_before
            }
            RevokedTokens::Tenant { tenant, issued_before } => {
                add("tenant", quoted(tenant));
                Some(*issued_before)
            }
            RevokedTokens::Issuer { issued_before } => Some(*issued_before),
        };
        before.into_iter().for_each(|before| add("issued_before", rfc3339(before)));
        self.reason.iter().for_each(|reason| add("reason", quoted(reason)));
        text
    }
}

/// Describes the revoked tokens and their issuer, for operators.
impl fmt::Display for Revocation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let before = |time: &i64| format!(" issued before {}", rfc3339(*time));
        match &self.tokens {
            RevokedTokens::TokenId(id) => write!(f, "the token with the id `{id}`")?,
            RevokedTokens::Subject { subject, issued_before } => {
                let before = issued_before.as_ref().map(before).unwrap_or_default();
                write!(f, "all tokens of the subject `{subject}`{before}")?;
            }
            RevokedTokens::Tenant { tenant, issued_before } => {
                write!(f, "all tokens of the tenant `{tenant}`{}", before(issued_before))?;
            }
            RevokedTokens::Issuer { issued_before } => write!(f, "all tokens{}", before(issued_before))?,
        }
        write!(f, " from `{}`", self.issuer)?;
        self.reason.iter().try_for_each(|reason| write!(f, " ({reason})"))
    }
}

/// Parses an RFC 3339 time. Rounds up to whole seconds, because `iat` claims are rounded down.
pub fn parse_issued_before(text: &str) -> Result<i64, String> {
    let time = DateTime::parse_from_rfc3339(text);
    let time = time.map_err(|_| format!("`{text}` is not a time such as 2026-01-31T12:00:00Z"))?;
    Ok(time.timestamp() + i64::from(time.timestamp_subsec_nanos() > 0))
}

fn rfc3339(seconds: i64) -> String {
    DateTime::from_timestamp(seconds, 0)
        .map_or_else(|| seconds.to_string(), |time| time.to_rfc3339_opts(chrono::SecondsFormat::Secs, true))
}

/// Deserializes a time that is a TOML datetime or a string.
fn time<'de, D: Deserializer<'de>>(deserializer: D) -> std::result::Result<Option<i64>, D::Error> {
    let text = match toml::Value::deserialize(deserializer)? {
        toml::Value::Datetime(time) => Datetime::to_string(&time),
        toml::Value::String(text) => text,
        other => other.to_string(),
    };
    parse_issued_before(&text).map(Some).map_err(D::Error::custom)
}
