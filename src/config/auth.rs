//! Whose tokens are trusted, and with which keys.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::key::{bytes, count, none, plain, required, section, time};
use super::server_sections::{DAY, HOUR, MINUTE, SECOND};

section! {
    /// Whose tokens we trust.
    AuthConfig {
        /// Trusted issuers by a name of ours.
        issuers: BTreeMap<String, IssuerConfig> = none(),
            "several may be trusted at once: people through one, machines through another";
        /// The size of a token.
        token_bytes_max: usize = bytes(8 << 10, 256..=64 << 10),
            "tokens are checked before anybody is known, so that their cost is bounded first";
        /// How far clocks may differ.
        leeway: Duration = time(30 * SECOND, Duration::ZERO..=5 * MINUTE),
            "machines that keep time differ by less";
        /// The age of a token with an `iat`.
        token_age_max: Duration = time(30 * DAY, MINUTE..=3_650 * DAY),
            "BI tools keep a token as a password; a leaked one must end some day whatever its `exp` says";
        /// How long a fetched key set is fresh.
        jwks_fresh: Duration = time(5 * MINUTE, SECOND..=DAY),
            "a key that is withdrawn stops working within this time";
        /// How long a key set serves when it cannot be fetched again.
        jwks_stale_max: Duration = time(DAY, Duration::ZERO..=30 * DAY),
            "an identity provider's bad night must not be yours, and a cut wire must not trust old keys for ever";
        /// The least time between two fetches for an unknown key.
        jwks_cooldown: Duration = time(30 * SECOND, SECOND..=HOUR),
            "tokens with invented key ids must not turn into requests to the identity provider";
        /// The size of a fetched key set.
        jwks_bytes_max: usize = bytes(256 << 10, 1 << 10..=16 << 20),
            "a hundred keys with certificates";
        /// Keys in one key set.
        jwks_keys_max: usize = count("keys", 64, 1..=10_000),
            "providers publish two to ten";
        /// Signs tickets and prepared handles; empty: made anew at each start.
        handle_secret: Secret = none(),
            "servers behind one address need the same; at least 32 bytes";
    }
}

section! {
    /// One trusted issuer. Exactly one of `secret`, `pem_file`, `jwks_file`, `jwks_url` says its keys.
    IssuerConfig {
        /// The exact `iss`.
        issuer: String = required(""),
            "a token says who signed it, and only that one's keys are tried";
        /// The `aud` that must be in the token.
        audience: String = required(""),
            "a token for another service of the same issuer must not open this one";
        /// Accepted algorithms (`HS256`, `RS256`, `PS256`, `ES256`, `EdDSA` …), each fitting the key.
        algorithms: Vec<String> = required(Vec::new()),
            "a token must not choose how it is verified";
        /// A shared secret (HS* only).
        secret: Option<Secret> = none(),
            "best from the environment: `GLASSHOUSE__AUTH__ISSUERS__NAME__SECRET`";
        /// A PEM public key file.
        pem_file: Option<PathBuf> = none(),
            "a key that changes with the configuration only";
        /// A JWKS file.
        jwks_file: Option<PathBuf> = none(),
            "several keys, without a network";
        /// A JWKS URL; `https` unless it is loopback.
        jwks_url: Option<String> = none(),
            "keys that the provider turns over by itself";
        /// Certificates of authorities (PEM) that may sign the certificate of `jwks_url`, in addition to the system's.
        ca_file: Option<PathBuf> = none(),
            "a private provider often has a private authority";
        /// The claim that is the tenant; a dotted path.
        tenant_claim: String = plain("tenant"),
            "providers put it where they like: `app_metadata.tenant_id`";
        /// The claim that lists scopes: a list, or a string of words.
        scope_claim: String = plain("scope"),
            "the name that OAuth gives it";
        /// Subjects that may ingest for every tenant and need no tenant claim. They can never query.
        operators: Vec<String> = none(),
            "your own pipelines carry everybody's events";
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
