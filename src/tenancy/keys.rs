//! Keys of an issuer: where they come from, and which one a token was signed with.
//!
//! In: one source per issuer (a secret, a PEM file, a JWKS file, a JWKS URL), and for each token its `kid` and algorithm.
//! Out: the one key that may verify it, or a refusal. Files are read once, at start; URLs are read by `fetch`.
//!
//! **Invariant:** a key set holds public signature keys only: shared secrets in it, keys for encryption, weak or broken
//! keys are skipped, and no token can bring a key of its own (`jwk`, `jku`, `x5u`, `x5c` are never read).
//! **Invariant:** exactly one key fits, or none is used.

use std::path::Path;
use std::sync::Arc;

use serde_json::{Map, Value};

use super::claims;
use super::jwks::Fetched;
use super::token::{Algorithm, VerificationKey};
use crate::clock::Clock;
use crate::config::{AuthConfig, IssuerConfig};
use crate::error::{Error, Result};

/// The size of a PEM file, in bytes: an RSA key of 8192 bits in PEM takes 1.5 KiB.
const PEM_BYTES_MAX: usize = 64 * 1024;

/// Where an issuer's keys come from.
#[derive(Debug)]
pub(super) enum Keys {
    /// One secret or public key; a token's `kid` does not matter.
    One(Arc<VerificationKey>),
    /// A key set from a file.
    Set(KeySet),
    /// A key set from a URL, which changes.
    Fetched(Fetched),
}

impl Keys {
    /// Opens the one source that `issuer` names, and checks that every algorithm fits what is known of its keys.
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
            _ => return Err(Error::invalid("give exactly one of `secret`, `pem_file`, `jwks_file` and `jwks_url`")),
        };
        match algorithms.iter().find(|algorithm| !keys.can_fit(**algorithm)) {
            Some(algorithm) => Err(Error::invalid(format!(
                "algorithm {} does not fit the key: HS256, HS384 and HS512 need a `secret` of at least 32, 48 and 64 \
                 bytes, all others a public key of their kind",
                algorithm.name()
            ))),
            None => Ok(keys),
        }
    }

    /// The key for a token of this `kid` and algorithm. `Unauthenticated` when there is none, `Unavailable` when the key
    /// set cannot be fetched.
    pub(super) async fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Result<Arc<VerificationKey>> {
        match self {
            Self::One(key) if key.fits(algorithm) => Ok(Arc::clone(key)),
            Self::One(_) => Err(unknown_key()),
            Self::Set(set) => set.find(kid, algorithm).ok_or_else(unknown_key),
            Self::Fetched(fetched) => fetched.look(|set| set.find(kid, algorithm)).await,
        }
    }

    /// Whether there are keys now; fetches them when that is due.
    pub(super) async fn ready(&self) -> Result<()> {
        match self {
            Self::One(_) | Self::Set(_) => Ok(()),
            Self::Fetched(fetched) => fetched.look(|set| (!set.is_empty()).then_some(())).await,
        }
    }

    /// Whether a key of this source could ever fit.
    fn can_fit(&self, algorithm: Algorithm) -> bool {
        match self {
            Self::One(key) => key.fits(algorithm),
            Self::Set(set) => set.keys.iter().any(|named| named.key.fits(algorithm)),
            Self::Fetched(_) => !algorithm.is_shared(),
        }
    }
}

/// What a token hears whose key is not there. Which keys there are is nobody's business.
pub(super) fn unknown_key() -> Error {
    Error::unauthenticated("token is refused: no key of its issuer fits its `kid` and `alg`")
}

/// A JWKS (RFC 7517): the public signature keys of an issuer.
#[derive(Debug)]
pub(super) struct KeySet {
    keys: Vec<NamedKey>,
}

#[derive(Debug)]
struct NamedKey {
    kid: Option<String>,
    /// The only algorithm that it may be used with, when it says so.
    algorithm: Option<String>,
    key: Arc<VerificationKey>,
}

impl KeySet {
    /// Parses a key set. Keys that cannot verify signatures are skipped; a set of no keys at all is allowed, since that
    /// is how an issuer takes them all back.
    pub(super) fn parse(text: &[u8], keys_max: usize) -> Result<Self> {
        let set = claims::object(text).map_err(|error| Error::invalid("is no JSON key set").with_source(error))?;
        let Some(Value::Array(keys)) = set.get("keys") else {
            return Err(Error::invalid("is no key set: it has no list `keys`"));
        };
        if keys.len() > keys_max {
            return Err(Error::invalid(format!("has {} keys (limit auth.jwks_keys_max: {keys_max})", keys.len())));
        }
        Ok(Self { keys: keys.iter().filter_map(Value::as_object).filter_map(NamedKey::parse).collect() })
    }

    /// Whether no key is usable.
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The one key of this `kid` that fits `algorithm`; without a `kid`, the only one that fits. None when two do.
    pub(super) fn find(&self, kid: Option<&str>, algorithm: Algorithm) -> Option<Arc<VerificationKey>> {
        let mut fitting = self.keys.iter().filter(|named| {
            named.key.fits(algorithm)
                && named.algorithm.as_deref().is_none_or(|only| only == algorithm.name())
                && (kid.is_none() || named.kid.as_deref() == kid)
        });
        let first = fitting.next()?;
        fitting.next().is_none().then(|| Arc::clone(&first.key))
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
        return Err(Error::invalid("has no usable signature key").at(path.display()));
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
    fn a_set_holds_signature_keys_only() {
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
        assert!(set.find(None, es256).is_none(), "two fit");
    }

    /// A modulus of 1024 bits.
    const URL_1024: &str = "__________________________________________________________________________________________________________________________________________________________________________8";

    #[test]
    fn a_set_is_refused_whole() {
        let twice = [named(json!({})), named(json!({}))];
        let cases = [
            ("[]".to_owned(), "no JSON key set"),
            (r#"{"keys":{}}"#.to_owned(), "no list `keys`"),
            (r#"{"keys":[],"keys":[]}"#.to_owned(), "no JSON key set"),
            (json!({"keys": [1, 2, 3]}).to_string(), "auth.jwks_keys_max: 2"),
        ];
        for (text, reason) in cases {
            let error = KeySet::parse(text.as_bytes(), 2).unwrap_err();
            assert!(error.message().contains(reason), "{error:?}");
        }
        let set = KeySet::parse(json!({"keys": twice}).to_string().as_bytes(), 2).unwrap();
        assert!(
            set.find(Some("a"), Algorithm::parse("ES256").unwrap()).is_none(),
            "one kid, two keys: neither is used"
        );
    }
}
