//! Checks authentication: keys that fit their algorithms, and endpoints that are not exposed by mistake.
//!
//! In: issuers and addresses, each valid by itself. Out: errors. Refuses insecure settings: `none`, short secrets, keys over
//! plain HTTP, plain text beyond loopback, and the public development secret beyond loopback.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use url::Url;

use super::error::ConfigErrors;
use super::loopback::{has_credentials, is_https_or_loopback};
use super::{AuthConfig, Config, IssuerConfig};
use crate::error::did_you_mean;

/// The secret of the reference configuration. It is public, so it is refused for endpoints beyond loopback.
pub(super) const DEVELOPMENT_SECRET: &str = "glasshouse-development-secret-do-not-use-elsewhere";

/// Algorithms and the minimum length of their shared secret in bytes (RFC 7518, section 3.2); 0 for key pairs.
const ALGORITHMS: [(&str, usize); 12] = [
    ("HS256", 32),
    ("HS384", 48),
    ("HS512", 64),
    ("RS256", 0),
    ("RS384", 0),
    ("RS512", 0),
    ("PS256", 0),
    ("PS384", 0),
    ("PS512", 0),
    ("ES256", 0),
    ("ES384", 0),
    ("EdDSA", 0),
];

/// The minimum length of the secret that signs handles, in bytes: that of its SHA-256.
const HANDLE_SECRET_BYTES_MIN: usize = 32;

/// Checks issuers, their keys and algorithms.
pub(super) fn auth(auth: &AuthConfig, faults: &mut ConfigErrors) {
    if auth.issuers.is_empty() {
        faults
            .add("auth.issuers", "no issuer is configured, so every request would be refused: add [auth.issuers.NAME]");
    }
    let handle_secret = &auth.handle_secret;
    if !handle_secret.is_empty() && handle_secret.expose().len() < HANDLE_SECRET_BYTES_MIN {
        faults.add("auth.handle_secret", format!("must have at least {HANDLE_SECRET_BYTES_MIN} bytes"));
    }
    let mut seen = BTreeSet::new();
    for (name, trusted) in &auth.issuers {
        let key = format!("auth.issuers.{name}");
        if !trusted.issuer.is_empty() && !seen.insert(&trusted.issuer) {
            faults
                .add(&format!("{key}.issuer"), format!("`{}` is configured more than once: keep one", trusted.issuer));
        }
        issuer(&key, trusted, faults);
    }
}

fn issuer(key: &str, issuer: &IssuerConfig, faults: &mut ConfigErrors) {
    let sources =
        [issuer.secret.is_some(), issuer.pem_file.is_some(), issuer.jwks_file.is_some(), issuer.jwks_url.is_some()];
    if sources.into_iter().filter(|set| *set).count() != 1 {
        faults.add(key, "set exactly one of `secret`, `pem_file`, `jwks_file`, `jwks_url`");
    }
    for (index, algorithm) in issuer.algorithms.iter().enumerate() {
        let key = format!("{key}.algorithms[{index}]");
        algorithm_fits(&key, algorithm, issuer, faults);
    }
    if let Some(secret) = &issuer.secret {
        let known = ALGORITHMS.iter().filter(|(name, _)| issuer.algorithms.iter().any(|given| given == name));
        if let Some((name, least)) = known.max_by_key(|(_, least)| *least)
            && secret.expose().len() < *least
        {
            faults.add(&format!("{key}.secret"), format!("must have at least {least} bytes for {name}"));
        }
    }
    if issuer.ca_file.is_some() && issuer.jwks_url.is_none() {
        faults.add(&format!("{key}.ca_file"), "is for `jwks_url` only");
    }
    if let Some(url) = &issuer.jwks_url {
        jwks_url(&format!("{key}.jwks_url"), url, faults);
    }
}

fn algorithm_fits(key: &str, algorithm: &str, issuer: &IssuerConfig, faults: &mut ConfigErrors) {
    if algorithm.eq_ignore_ascii_case("none") {
        return faults.add(key, "`none` would accept unsigned tokens; it is never accepted");
    }
    let Some((_, secret_bytes)) = ALGORITHMS.iter().find(|(name, _)| *name == algorithm) else {
        let names = ALGORITHMS.map(|(name, _)| name);
        let guess = did_you_mean(algorithm, names);
        return faults
            .add(key, format!("unknown algorithm `{algorithm}`{guess}; known algorithms are {}", names.join(", ")));
    };
    match (*secret_bytes > 0, issuer.secret.is_some()) {
        (true, false) => {
            faults.add(key, format!("{algorithm} needs a `secret`; with a public key anybody could sign tokens"))
        }
        (false, true) => faults.add(key, format!("{algorithm} needs a public key, not a `secret`")),
        _ => {}
    }
}

fn jwks_url(key: &str, url: &str, faults: &mut ConfigErrors) {
    let url = match Url::parse(url) {
        Ok(url) => url,
        Err(error) => return faults.add(key, format!("is not a valid URL: {error}")),
    };
    if !is_https_or_loopback(&url) {
        faults.add(key, "must be https, because an attacker who replaces the keys in transit can sign any token");
    }
    if has_credentials(&url) {
        faults.add(key, "must not contain credentials: it is shown by `config show`");
    }
}

/// Checks that plain text stays on this machine, unless `plaintext_allowed` confirms a TLS proxy.
pub(super) fn endpoints(config: &Config, faults: &mut ConfigErrors) {
    let (flight, http) = (&config.flight, &config.http);
    if flight.tls_cert.is_some() != flight.tls_key.is_some() {
        faults.add("flight.tls_cert", "`tls_cert` and `tls_key` must be set together");
    }
    if flight.tls_client_ca.is_some() && flight.tls_cert.is_none() {
        faults.add("flight.tls_client_ca", "needs `tls_cert` and `tls_key`");
    }
    if flight.listen == http.listen && flight.listen.port() != 0 {
        faults.add("http.listen", format!("{} is also the address of flight.listen", http.listen));
    }
    let advice = "would accept tokens in plain text from the network";
    if open(flight.listen) && flight.tls_cert.is_none() && !flight.plaintext_allowed {
        let way = "set flight.tls_cert and flight.tls_key, or flight.plaintext_allowed behind a TLS proxy";
        faults.add("flight.listen", format!("{} {advice}: {way}", flight.listen));
    }
    if open(http.listen) && !http.plaintext_allowed {
        faults.add("http.listen", format!("{} {advice}: set http.plaintext_allowed behind a TLS proxy", http.listen));
    }
    let development = |issuer: &IssuerConfig| issuer.secret.as_ref().is_some_and(|s| s.expose() == DEVELOPMENT_SECRET);
    for (name, _) in config.auth.issuers.iter().filter(|(_, issuer)| development(issuer)) {
        if open(flight.listen) || open(http.listen) {
            let key = format!("auth.issuers.{name}.secret");
            faults.add(
                &key,
                "is the public development secret, with which anybody can sign tokens: use it on loopback only",
            );
        }
    }
}

/// Whether other machines can reach the address.
fn open(listen: SocketAddr) -> bool {
    !listen.ip().is_loopback()
}
