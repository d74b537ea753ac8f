//! Checks that authentication is secure: each key matches its algorithms, and no endpoint is exposed by mistake.
//!
//! Refuses the algorithm `none`, short or weak secrets, and JSON Web Key Sets (JWKS) over plain HTTP. If other hosts can
//! reach an endpoint, also refuses connections without TLS.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use url::Url;

use super::error::ConfigErrors;
use super::loopback::{has_credentials, is_https_or_loopback};
use super::signing_algorithm::SigningAlgorithm;
use super::{AuthConfig, Config, IssuerConfig, Secret, secret_strength};
use crate::error::did_you_mean;

/// The minimum length of the secret that signs handles, in bytes. The secret is an HMAC-SHA-256 key, which should be at
/// least as long as the hash.
const HANDLE_SECRET_BYTES_MIN: usize = 32;

/// Checks the issuers, their keys and their algorithms.
pub(super) fn auth(auth: &AuthConfig, errors: &mut ConfigErrors) {
    if auth.issuers.is_empty() {
        errors
            .add("auth.issuers", "no issuer is configured, so every request would be refused: add [auth.issuers.NAME]");
    }
    let handle_secret = &auth.handle_secret;
    if !handle_secret.is_empty() && handle_secret.expose().len() < HANDLE_SECRET_BYTES_MIN {
        errors.add("auth.handle_secret", format!("must have at least {HANDLE_SECRET_BYTES_MIN} bytes"));
    } else if let Some(problem) = Some(handle_secret).filter(|secret| !secret.is_empty()).and_then(weakness) {
        errors.add("auth.handle_secret", problem);
    }
    let mut seen = BTreeSet::new();
    for (name, trusted) in &auth.issuers {
        let key = format!("auth.issuers.{name}");
        if !trusted.issuer.is_empty() && !seen.insert(&trusted.issuer) {
            errors.add(
                &format!("{key}.issuer"),
                format!("`{}` is configured more than once: remove all but one", trusted.issuer),
            );
        }
        issuer(&key, trusted, errors);
    }
}

fn issuer(key: &str, issuer: &IssuerConfig, errors: &mut ConfigErrors) {
    let sources = [
        issuer.secret.is_some(),
        issuer.secret_file.is_some(),
        issuer.pem_file.is_some(),
        issuer.jwks_file.is_some(),
        issuer.jwks_url.is_some(),
    ];
    if sources.into_iter().filter(|set| *set).count() != 1 {
        errors.add(key, "set exactly one of `secret`, `secret_file`, `pem_file`, `jwks_file`, `jwks_url`");
    }
    for (index, algorithm) in issuer.algorithms.iter().enumerate() {
        let key = format!("{key}.algorithms[{index}]");
        algorithm_fits(&key, algorithm, issuer, errors);
    }
    if let Some(secret) = &issuer.secret
        && let Some(problem) = shared_secret_problem(secret, &issuer.algorithms)
    {
        errors.add(&format!("{key}.secret"), problem);
    }
    if issuer.ca_file.is_some() && issuer.jwks_url.is_none() {
        errors.add(&format!("{key}.ca_file"), "can only be used with `jwks_url`");
    }
    if let Some(url) = &issuer.jwks_url {
        jwks_url(&format!("{key}.jwks_url"), url, errors);
    }
}

/// Returns the problem with a secret that signs tokens with these algorithms, or `None` if the secret is suitable.
pub(crate) fn shared_secret_problem(secret: &Secret, algorithms: &[String]) -> Option<String> {
    if let Some(problem) = secret_strength::placeholder(secret.expose()) {
        return Some(problem.to_owned());
    }
    let known = algorithms.iter().filter_map(|name| SigningAlgorithm::parse(name));
    match known.max_by_key(|algorithm| algorithm.secret_bytes_min()) {
        Some(strictest) if secret.expose().len() < strictest.secret_bytes_min() => {
            let (bytes_min, name) = (strictest.secret_bytes_min(), strictest.name());
            Some(format!("must have at least {bytes_min} bytes for {name}"))
        }
        _ => weakness(secret),
    }
}

fn weakness(secret: &Secret) -> Option<String> {
    secret_strength::weakness(secret.expose())
}

fn algorithm_fits(key: &str, algorithm: &str, issuer: &IssuerConfig, errors: &mut ConfigErrors) {
    if algorithm.eq_ignore_ascii_case("none") {
        return errors.add(key, "`none` is never accepted, because it would allow unsigned tokens");
    }
    let Some(known) = SigningAlgorithm::parse(algorithm) else {
        let names: Vec<_> = SigningAlgorithm::names().collect();
        let guess = did_you_mean(algorithm, names.iter().copied());
        let message = format!("unknown algorithm `{algorithm}`{guess}; known algorithms are {}", names.join(", "));
        return errors.add(key, message);
    };
    match (known.is_shared(), issuer.secret.is_some() || issuer.secret_file.is_some()) {
        (true, false) => errors.add(
            key,
            format!("{algorithm} needs a `secret` or `secret_file`; with a public key, anyone could sign tokens"),
        ),
        (false, true) => errors.add(key, format!("{algorithm} needs a public key, not a `secret`")),
        _ => {}
    }
}

fn jwks_url(key: &str, url: &str, errors: &mut ConfigErrors) {
    let url = match Url::parse(url) {
        Ok(url) => url,
        Err(error) => return errors.add(key, format!("is not a valid URL: {error}")),
    };
    if !is_https_or_loopback(&url) {
        errors.add(key, "must be https, because an attacker who replaces the keys in transit can sign any token");
    }
    if has_credentials(&url) {
        errors.add(key, "must not contain credentials, because `config show` shows the URL");
    }
}

/// Checks that connections without TLS are possible only from this host, unless `plaintext_allowed` confirms that there
/// is a TLS proxy.
pub(super) fn endpoints(config: &Config, errors: &mut ConfigErrors) {
    let (flight, http) = (&config.flight, &config.http);
    if flight.tls_cert.is_some() != flight.tls_key.is_some() {
        errors.add("flight.tls_cert", "`tls_cert` and `tls_key` must be set together");
    }
    if flight.tls_client_ca.is_some() && flight.tls_cert.is_none() {
        errors.add("flight.tls_client_ca", "needs `tls_cert` and `tls_key`");
    }
    if flight.listen == http.listen && flight.listen.port() != 0 {
        errors.add("http.listen", format!("{} is also the address of flight.listen: change one of them", http.listen));
    }
    let problem = "would accept tokens in plain text from the network";
    if is_exposed(flight.listen) && flight.tls_cert.is_none() && !flight.plaintext_allowed {
        let fix = "set flight.tls_cert and flight.tls_key, or flight.plaintext_allowed behind a TLS proxy";
        errors.add("flight.listen", format!("{} {problem}: {fix}", flight.listen));
    }
    if is_exposed(http.listen) && !http.plaintext_allowed {
        errors.add("http.listen", format!("{} {problem}: set http.plaintext_allowed behind a TLS proxy", http.listen));
    }
}

/// Removes `secret` or `secret_file` if the environment sets only the other one. The environment overrides the file.
pub(super) fn override_secrets(auth: &mut AuthConfig, errors: &ConfigErrors) {
    for (name, issuer) in &mut auth.issuers {
        let is_variable = |field| errors.is_variable(&format!("auth.issuers.{name}.{field}"));
        match (is_variable("secret"), is_variable("secret_file")) {
            (true, false) => issuer.secret_file = None,
            (false, true) => issuer.secret = None,
            _ => {}
        }
    }
}

impl Config {
    /// Returns true if other hosts can reach an endpoint.
    pub fn is_exposed(&self) -> bool {
        is_exposed(self.flight.listen) || is_exposed(self.http.listen)
    }
}

/// Returns true if other hosts can reach the address.
fn is_exposed(listen: SocketAddr) -> bool {
    !listen.ip().is_loopback()
}
