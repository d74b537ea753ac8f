//! The verification keys of an issuer, and the selection of a token's key.
//!
//! In: one source per issuer (a secret, a PEM file, a JWKS file, a JWKS URL), and the `kid` and algorithm of each
//! token. Out: the key that may verify the token, or an error. Files are read once at startup; `jwks` fetches URLs.
//!
//! **Invariant:** a key set has only public signature keys. Shared secrets, encryption keys, and weak or invalid keys
//! are skipped. A token cannot supply its own key: `jwk`, `jku`, `x5u` and `x5c` are never read.
//! **Invariant:** a key is used only if it is the only one that matches.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::claims;
use super::jwks::Fetched;
use super::token::{Algorithm, VerificationKey};
use crate::clock::Clock;
use crate::config::{AuthConfig, IssuerConfig};
use crate::error::{Error, Result};

/// The maximum size of a PEM file, in bytes. An RSA key of 8192 bits takes 1.5 KiB.
const PEM_BYTES_MAX: usize = 64 * 1024;

/// The keys of an issuer.
#[derive(Debug)]
pub(super) enum Keys {
    /// One secret or public key. The token's `kid` is ignored.
    One(Arc<VerificationKey>),
    /// A key set from a file.
    Set(KeySet),
    /// A key set from a URL, which may change.
    Fetched(Fetched),
}

impl Keys {
    /// Opens the key source of `issuer`, and checks that every algorithm matches its keys, as far as they are known.
    pub(super) fn open(
        issuer: &IssuerConfig,
        algorithms: &[Algorithm],
        auth: &AuthConfig,
        clock: &Clock,
    ) -> Result<Self> {
        let secret = issuer.secret.as_ref().filter(|secret| !secret.is_empty());
        let keys = match (secret, &issuer.pem_file, &issuer.jwks_file, &issuer.jwks_url) {
            (Some(secret), None, None, None) => Self::One(Arc::new(VerificationKey::secret(secret))),
            (None, Some(path), None, None) => Self::One(Arc::new(read_pem(path)?)),
            (None, None, Some(path), None) => Self::Set(read_set(path, auth)?),
            (None, None, None, Some(url)) => {
                Self::Fetched(Fetched::new(url, issuer.ca_file.as_deref(), auth, clock.clone())?)
            }
            _ => return Err(Error::invalid("set exactly one of `secret`, `pem_file`, `jwks_file` and `jwks_url`")),
        };
        match algorithms.iter().find(|algorithm| !keys.can_match(**algorithm)) {
            Some(algorithm) => Err(Error::invalid(format!(
                "algorithm {} does not match the key: HS256, HS384 and HS512 require a `secret` of at least 32, 48 and 64 \
                 bytes, all others a public key of their type",
                algorithm.name()
            ))),
            None => Ok(keys),
        }
    }

    /// The key for a token with this `kid` and algorithm. `Unauthenticated` if there is none, `Unavailable` if the key
    /// set cannot be fetched.
    pub(super) async fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<Arc<VerificationKey>> {
        match self {
            Self::One(key) if key.matches_algorithm(algorithm) => Ok(Arc::clone(key)),
            Self::One(_) => Err(unknown_key()),
            Self::Set(set) => set.find(kid, algorithm).ok_or_else(unknown_key),
            Self::Fetched(fetched) => fetched.lookup(|set| set.find(kid, algorithm)).await,
        }
    }

    /// Checks that keys are available; fetches them if needed.
    pub(super) async fn ready(&self) -> Result<()> {
        match self {
            Self::One(_) | Self::Set(_) => Ok(()),
            Self::Fetched(fetched) => fetched.lookup(|set| (!set.is_empty()).then_some(())).await,
        }
    }

    /// Whether a key of this source can match the algorithm.
    fn can_match(&self, algorithm: Algorithm) -> bool {
        match self {
            Self::One(key) => key.matches_algorithm(algorithm),
            Self::Set(set) => set.keys.iter().any(|named| named.key.matches_algorithm(algorithm)),
            Self::Fetched(_) => !algorithm.is_shared(),
        }
    }
}

/// The error for a token without a matching key. It does not reveal which keys exist.
pub(super) fn unknown_key() -> Error {
    Error::unauthenticated("token is refused: no key of its issuer matches its `kid` and `alg`")
}

/// A JWKS (RFC 7517): the public signature keys of an issuer.
#[derive(Debug)]
pub(super) struct KeySet {
    keys: Vec<NamedKey>,
}

#[derive(Debug)]
struct NamedKey {
    kid: Option<String>,
    /// The only algorithm that the key may be used with, if specified.
    algorithm: Option<String>,
    key: Arc<VerificationKey>,
}

impl KeySet {
    /// Parses a key set. Keys that cannot verify signatures are skipped. An empty set is allowed, because an issuer can
    /// revoke all its keys that way.
    pub(super) fn parse(text: &[u8], keys_max: usize) -> Result<Self> {
        let set = claims::object(text).map_err(|error| Error::invalid("is not a JSON key set").with_source(error))?;
        let Some(Value::Array(keys)) = set.get("keys") else {
            return Err(Error::invalid("is not a key set: it has no list `keys`"));
        };
        if keys.len() > keys_max {
            return Err(Error::invalid(format!(
                "has {} keys, more than the limit auth.jwks_keys_max of {keys_max}",
                keys.len()
            )));
        }
        Ok(Self { keys: keys.iter().filter_map(Value::as_object).filter_map(NamedKey::parse).collect() })
    }

    /// Whether no key is usable.
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The key with this `kid`, or without a `kid` any key, that matches `algorithm`. `None` unless exactly one matches.
    pub(super) fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Option<Arc<VerificationKey>> {
        let mut matching = self.keys.iter().filter(|named| {
            named.key.matches_algorithm(algorithm)
                && named.algorithm.as_deref().is_none_or(|only| only == algorithm.name())
                && (kid.is_none() || named.kid.as_deref() == kid)
        });
        let first = matching.next()?;
        matching.next().is_none().then(|| Arc::clone(&first.key))
    }
}

impl NamedKey {
    fn parse(jwk: &Map<String, Value>) -> Option<Self> {
        let text = |name: &str| jwk.get(name).and_then(Value::as_str);
        let verifies = |operations: &Value| {
            operations.as_array().is_some_and(|all| all.iter().any(|one| one.as_str() == Some("verify")))
        };
        if jwk.get("use").is_some_and(|purpose| purpose.as_str() != Some("sig"))
            || !jwk.get("key_ops").is_none_or(verifies)
            || ["kid", "alg"].iter().any(|name| jwk.get(*name).is_some_and(|value| !value.is_string()))
        {
            return None;
        }
        let key = match text("kty")? {
            "RSA" => VerificationKey::rsa(text("n")?, text("e")?),
            "EC" => VerificationKey::ec(text("crv")?, text("x")?, text("y")?),
            "OKP" => VerificationKey::ed(text("crv")?, text("x")?),
            _ => return None,
        };
        Some(Self {
            kid: text("kid").map(str::to_owned),
            algorithm: text("alg").map(str::to_owned),
            key: Arc::new(key.ok()?),
        })
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tenancy::token::signing;

    const P256: &str = include_str!("../../tests/keys/p256.pem");

    fn named(changes: Value) -> Value {
        let mut jwk = signing::jwk("ES256", P256);
        jwk["kid"] = json!("a");
        jwk.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        jwk
    }

    #[test]
    fn a_key_set_has_only_signature_keys() {
        let point = "A".repeat(43);
        let skipped = [
            named(json!({"use": "enc"})),
            named(json!({"use": 1})),
            named(json!({"key_ops": ["encrypt"]})),
            named(json!({"key_ops": "verify"})),
            named(json!({"kid": 7})),
            named(json!({"alg": 7})),
            named(json!({"crv": "P-384"})),
            named(json!({"crv": "secp256k1"})),
            named(json!({"x": "!"})),
            named(json!({"x": null})),
            named(json!({"kty": "AKP"})),
            json!({"kty": "oct", "k": "c2VjcmV0", "kid": "a"}),
            json!({"kty": "OKP", "crv": "X25519", "x": point, "kid": "a"}),
            json!({"kty": "RSA", "n": URL_1024, "e": "AQAB", "kid": "a"}),
            json!("a"),
        ];
        let set = KeySet::parse(json!({"keys": skipped}).to_string().as_bytes(), 100).unwrap();
        assert!(set.is_empty(), "{set:?}");
        let kept = [named(json!({"use": "sig"})), named(json!({"kid": "b", "key_ops": ["verify"]}))];
        let set = KeySet::parse(json!({"keys": kept}).to_string().as_bytes(), 2).unwrap();
        let es256 = Algorithm::parse("ES256").unwrap();
        assert!(set.find(Some("a"), es256).is_some() && set.find(Some("b"), es256).is_some());
        assert!(set.find(None, es256).is_none(), "two keys match");
    }

    /// A modulus of 1024 bits.
    const URL_1024: &str = "__________________________________________________________________________________________________________________________________________________________________________8";

    #[test]
    fn an_invalid_key_set_is_refused() {
        let twice = [named(json!({})), named(json!({}))];
        let cases = [
            ("[]".to_owned(), "not a JSON key set"),
            (r#"{"keys":{}}"#.to_owned(), "no list `keys`"),
            (r#"{"keys":[],"keys":[]}"#.to_owned(), "not a JSON key set"),
            (json!({"keys": [1, 2, 3]}).to_string(), "auth.jwks_keys_max of 2"),
        ];
        for (text, reason) in cases {
            let error = KeySet::parse(text.as_bytes(), 2).unwrap_err();
            assert!(error.message().contains(reason), "{error:?}");
        }
        let set = KeySet::parse(json!({"keys": twice}).to_string().as_bytes(), 2).unwrap();
        assert!(
            set.find(Some("a"), Algorithm::parse("ES256").unwrap()).is_none(),
            "two keys with the same kid: neither is used"
        );
    }
}
