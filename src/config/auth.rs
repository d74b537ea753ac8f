//! The sections `[auth]` and `[auth.issuers.NAME]`: trusted token issuers and their keys.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::section_macro::{bytes, count, none, plain, required, section, time};
use super::server_sections::{DAY, HOUR, MINUTE, SECOND};

section! {
    /// The trusted token issuers and the limits of tokens and keys.
    AuthConfig {
        /// Trusted issuers by name. The names are used only in the configuration.
        issuers: BTreeMap<String, IssuerConfig> = none(),
            "You can trust several issuers, for example one for people and one for machines";
        /// The maximum size of a token.
        token_bytes_max: usize = bytes(8 << 10, 256..=64 << 10),
            "A token is verified before its sender is known, so the cost of the verification must be limited";
        /// The tolerated difference between the clocks of the server and the issuer.
        leeway: Duration = time(30 * SECOND, Duration::ZERO..=5 * MINUTE),
            "Synchronized clocks differ by less than the default";
        /// The maximum age of a token that has an `iat` claim.
        token_age_max: Duration = time(30 * DAY, MINUTE..=3_650 * DAY),
            "BI tools store tokens as passwords. A leaked token must expire, even if its `exp` is far in the future";
        /// How long a fetched key set is used before it is fetched again.
        jwks_fresh: Duration = time(5 * MINUTE, SECOND..=DAY),
            "A withdrawn key stops working within this time";
        /// How long an outdated key set may be used if fetching a new one fails.
        jwks_stale_max: Duration = time(DAY, Duration::ZERO..=30 * DAY),
            "An outage of the identity provider must not stop the server, and old keys must not be trusted forever";
        /// The minimum time between two fetches of a key set that are caused by an unknown key id.
        jwks_cooldown: Duration = time(30 * SECOND, SECOND..=HOUR),
            "A sender of tokens with made-up key ids must not be able to flood the identity provider with requests";
        /// The maximum size of a fetched key set.
        jwks_bytes_max: usize = bytes(256 << 10, 1 << 10..=16 << 20),
            "The default is large enough for a hundred keys with certificates";
        /// The maximum number of keys in a key set.
        jwks_keys_max: usize = count("keys", 64, 1..=10_000),
            "Providers publish two to ten keys";
        /// The secret that signs tickets and prepared-statement handles. If the secret is empty, the server generates
        /// a new secret at each start.
        handle_secret: Secret = none(),
            "Servers behind the same address need the same secret. The secret must be at least 32 bytes long";
        /// A TOML file with the revoked tokens. `glasshouse revoke` adds to it, and the server reads it again when it
        /// changes. The file must exist when the server starts. It may be empty.
        revocations_file: Option<PathBuf> = none(),
            "Without it, a leaked token is accepted until it expires";
    }
}

section! {
    /// One trusted issuer. Exactly one of `secret`, `secret_file`, `pem_file`, `jwks_file` and `jwks_url`
    /// provides the issuer's keys.
    IssuerConfig {
        /// The exact value of the `iss` claim.
        issuer: String = required(""),
            "A token names its issuer, and only this issuer's keys are tried";
        /// A value that the `aud` claim must contain.
        audience: String = required(""),
            "A token that the issuer created for another service must not be accepted";
        /// The accepted signing algorithms (`HS256`, `RS256`, `PS256`, `ES256`, `EdDSA` …). Each algorithm must match
        /// the type of the issuer's key.
        algorithms: Vec<String> = required(Vec::new()),
            "A token must not choose the algorithm with which it is verified";
        /// A shared secret, for HS algorithms only.
        secret: Option<Secret> = none(),
            "Set it in the environment: `GLASSHOUSE__AUTH__ISSUERS__NAME__SECRET`";
        /// A file with a shared secret, for HS algorithms only. A line break at its end is ignored. If the file does
        /// not exist and all endpoints listen on loopback addresses, `serve`, `demo` and `token` create it with a
        /// random secret.
        secret_file: Option<PathBuf> = none(),
            "Docker, Kubernetes and systemd provide secrets as files";
        /// A file with a public key (PEM).
        pem_file: Option<PathBuf> = none(),
            "Use it for a key that the issuer does not rotate";
        /// A file with a key set (JWKS).
        jwks_file: Option<PathBuf> = none(),
            "Use it for several keys that the server should not fetch over the network";
        /// The URL of a key set (JWKS). It must be an `https://` URL. An `http://` URL is accepted only for a loopback
        /// address.
        jwks_url: Option<String> = none(),
            "Use it for keys that the provider rotates";
        /// CA certificates (PEM) to trust for `jwks_url`, in addition to the system's.
        ca_file: Option<PathBuf> = none(),
            "A private provider often has a private CA";
        /// The claim that names the tenant. It may be a dotted path. A name in double quotes may contain dots:
        /// `'"https://app.example.com/claims".tenant_id'`.
        tenant_claim: String = plain("tenant"),
            "Providers use different claims, such as `app_metadata.tenant_id`";
        /// The claim that contains the scopes, as a list or as a space-separated string.
        scope_claim: String = plain("scope"),
            "The default is the name that OAuth uses";
        /// The subjects that may ingest for every tenant. These subjects need no tenant claim and cannot run queries.
        operators: Vec<String> = none(),
            "Use it for your own pipelines, which send events for all tenants";
    }
}

/// A string that must not be shown. The `Debug` output redacts it.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps a string.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the secret itself. Only code that signs, verifies or authenticates may call this.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Returns true if the secret is the empty string, which means that it is not set.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() { "(none)" } else { "(redacted)" })
    }
}
