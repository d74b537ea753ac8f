//! Trusted token issuers and their keys.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::key::{bytes, count, none, plain, required, section, time};
use super::server_sections::{DAY, HOUR, MINUTE, SECOND};

section! {
    /// Authentication: trusted token issuers.
    AuthConfig {
        /// Trusted issuers; the names are local to this file.
        issuers: BTreeMap<String, IssuerConfig> = none(),
            "several may be trusted at once: one for people, another one for machines";
        /// The size of a token.
        token_bytes_max: usize = bytes(8 << 10, 256..=64 << 10),
            "tokens are verified before the caller is known, so the cost must be limited";
        /// The tolerated clock difference.
        leeway: Duration = time(30 * SECOND, Duration::ZERO..=5 * MINUTE),
            "synchronized machines differ by less";
        /// The maximum age of a token with an `iat`.
        token_age_max: Duration = time(30 * DAY, MINUTE..=3_650 * DAY),
            "BI tools store a token as a password; a leaked token must expire, regardless of its `exp`";
        /// How long a fetched key set is fresh.
        jwks_fresh: Duration = time(5 * MINUTE, SECOND..=DAY),
            "a withdrawn key stops working within this time";
        /// How long a key set may be used if it cannot be fetched again.
        jwks_stale_max: Duration = time(DAY, Duration::ZERO..=30 * DAY),
            "an outage of the identity provider must not stop the server, and old keys must not be trusted forever";
        /// The minimum time between two fetches for an unknown key.
        jwks_cooldown: Duration = time(30 * SECOND, SECOND..=HOUR),
            "tokens with invented key ids must not cause requests to the identity provider";
        /// The size of a fetched key set.
        jwks_bytes_max: usize = bytes(256 << 10, 1 << 10..=16 << 20),
            "fits a hundred keys with certificates";
        /// The number of keys in one key set.
        jwks_keys_max: usize = count("keys", 64, 1..=10_000),
            "providers publish two to ten";
        /// The secret that signs tickets and prepared handles; if empty, generated at each start.
        handle_secret: Secret = none(),
            "servers behind one address need the same secret; at least 32 bytes";
    }
}

section! {
    /// One trusted issuer. Exactly one of `secret`, `pem_file`, `jwks_file`, `jwks_url` sets its keys.
    IssuerConfig {
        /// The exact `iss`.
        issuer: String = required(""),
            "a token names its issuer, and only the keys of this issuer are tried";
        /// The `aud` that the token must contain.
        audience: String = required(""),
            "a token for another service of the same issuer must not be accepted";
        /// Accepted algorithms (`HS256`, `RS256`, `PS256`, `ES256`, `EdDSA` …), each fitting the key.
        algorithms: Vec<String> = required(Vec::new()),
            "a token must not choose its own verification";
        /// A shared secret (HS* only).
        secret: Option<Secret> = none(),
            "best from the environment: `GLASSHOUSE__AUTH__ISSUERS__NAME__SECRET`";
        /// A PEM public key file.
        pem_file: Option<PathBuf> = none(),
            "for a key that changes only with the configuration";
        /// A JWKS file.
        jwks_file: Option<PathBuf> = none(),
            "for several keys, without network access";
        /// A JWKS URL; `https` unless it is loopback.
        jwks_url: Option<String> = none(),
            "for keys that the provider rotates";
        /// CA certificates (PEM) to trust for `jwks_url`, in addition to the system's.
        ca_file: Option<PathBuf> = none(),
            "a private provider often has a private CA";
        /// The claim that names the tenant; a dotted path.
        tenant_claim: String = plain("tenant"),
            "providers use different claims, such as `app_metadata.tenant_id`";
        /// The claim that lists scopes: a list, or a string of words.
        scope_claim: String = plain("scope"),
            "the name used by OAuth";
        /// Subjects that may ingest for every tenant and need no tenant claim. They cannot query.
        operators: Vec<String> = none(),
            "your own pipelines send events of all tenants";
    }
}

/// Text that must not be shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself: only for the code that signs or verifies.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "(none)" } else { "(redacted)" })
    }
}
