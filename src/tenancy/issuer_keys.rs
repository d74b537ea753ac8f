//! The keys with which an issuer's tokens are verified.
//!
//! An issuer has exactly one key source: a secret, a secret file, a PEM file, a JWKS file, or a JWKS URL.
//! [`IssuerKeys`] returns the verification key for a token's `kid` and algorithm. Files are read once, at startup. The
//! module `fetched_key_set` fetches key sets from URLs.
//!
//! **Invariant:** a token cannot supply its own key: the header fields `jwk`, `jku`, `x5u` and `x5c` are never read.

use std::path::Path;
use std::sync::Arc;

use super::fetched_key_set::FetchedKeySet;
use super::key_set::{KeySet, unknown_key};
use super::secret_file::shared_secret;
use super::signature::{Algorithm, VerificationKey};
use crate::clock::Clock;
use crate::config::{AuthConfig, IssuerConfig};
use crate::error::{Error, Result};

/// The maximum size of a PEM file, in bytes. The PEM file of an 8192-bit RSA public key is about 1.5 KiB in size.
const PEM_BYTES_MAX: usize = 64 * 1024;

/// The keys of an issuer.
#[derive(Debug)]
pub(super) enum IssuerKeys {
    /// A single secret or public key, which is used regardless of the token's `kid`.
    One(Arc<VerificationKey>),
    /// A key set from a file.
    Set(KeySet),
    /// A key set from a URL, which is fetched again from time to time.
    Fetched(FetchedKeySet),
}

impl IssuerKeys {
    /// Opens the key source of `issuer`. Every one of the configured `algorithms` must be usable with at least one key
    /// of this source.
    pub(super) fn open(
        issuer: &IssuerConfig,
        algorithms: &[Algorithm],
        auth: &AuthConfig,
        clock: &Clock,
    ) -> Result<Self> {
        let secret = shared_secret(issuer).map_err(|error| error.at("secret_file"))?;
        let keys = match (&secret, &issuer.pem_file, &issuer.jwks_file, &issuer.jwks_url) {
            (Some(secret), None, None, None) => Self::One(Arc::new(VerificationKey::secret(secret))),
            (None, Some(path), None, None) => Self::One(Arc::new(read_pem(path)?)),
            (None, None, Some(path), None) => Self::Set(read_set(path, auth)?),
            (None, None, None, Some(url)) => {
                Self::Fetched(FetchedKeySet::new(url, issuer.ca_file.as_deref(), auth, clock.clone())?)
            }
            _ => {
                return Err(Error::invalid(
                    "set exactly one of `secret`, `secret_file`, `pem_file`, `jwks_file` and `jwks_url`",
                ));
            }
        };
        match algorithms.iter().find(|algorithm| !keys.can_match(**algorithm)) {
            Some(algorithm) => Err(Error::invalid(format!(
                "algorithm {} does not match the key: HS256, HS384 and HS512 require a `secret` of at least 32, 48 and 64 \
                 bytes, respectively; every other algorithm requires a public key of the matching type",
                algorithm.name()
            ))),
            None => Ok(keys),
        }
    }

    /// Returns the key for a token with this `kid` and algorithm. Returns `Unauthenticated` if no key matches, or
    /// `Unavailable` if the key set cannot be fetched.
    pub(super) async fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<Arc<VerificationKey>> {
        match self {
            Self::One(key) if key.matches_algorithm(algorithm) => Ok(Arc::clone(key)),
            Self::One(_) => Err(unknown_key()),
            Self::Set(set) => set.find(kid, algorithm).ok_or_else(unknown_key),
            Self::Fetched(fetched) => fetched.lookup(|set| set.find(kid, algorithm)).await,
        }
    }

    /// Fetches the keys if needed. Fails if they cannot be fetched or if none of them is usable.
    pub(super) async fn ready(&self) -> Result<()> {
        match self {
            Self::One(_) | Self::Set(_) => Ok(()),
            Self::Fetched(fetched) => fetched.lookup(|set| (!set.is_empty()).then_some(())).await,
        }
    }

    /// Returns true if a key of this source can be used with the algorithm. The keys at a URL are not known yet, so the
    /// result is true for all public-key algorithms.
    fn can_match(&self, algorithm: Algorithm) -> bool {
        match self {
            Self::One(key) => key.matches_algorithm(algorithm),
            Self::Set(set) => set.can_match(algorithm),
            Self::Fetched(_) => !algorithm.is_shared(),
        }
    }
}

fn read_pem(path: &Path) -> Result<VerificationKey> {
    VerificationKey::pem(&read(path, PEM_BYTES_MAX)?).map_err(|error| error.at(path.display()))
}

fn read_set(path: &Path, auth: &AuthConfig) -> Result<KeySet> {
    let set = KeySet::parse(&read(path, auth.jwks_bytes_max)?, auth.jwks_keys_max);
    let set = set.map_err(|error| error.at(path.display()))?;
    if set.is_empty() {
        return Err(
            Error::invalid("has no usable signature key: add a public key with `use` \"sig\"").at(path.display())
        );
    }
    Ok(set)
}

fn read(path: &Path, bytes_max: usize) -> Result<Vec<u8>> {
    let text = std::fs::read(path).map_err(|error| {
        Error::invalid(format!("cannot be read: {}", error.kind())).with_source(error).at(path.display())
    })?;
    if text.len() > bytes_max {
        return Err(Error::invalid(format!("is larger than {bytes_max} bytes")).at(path.display()));
    }
    Ok(text)
}
