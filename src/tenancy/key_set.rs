//! JSON Web Key Sets (JWKS, RFC 7517): parses the public keys of an issuer, and selects the key for a token.
//!
//! **Invariant:** a key set contains only public signature keys. Shared secrets, encryption keys, and weak or invalid
//! keys are skipped.
//! **Invariant:** a key verifies a token only if no other key of the set matches the token.

use std::sync::Arc;

use serde_json::{Map, Value};

use super::claims;
use super::signature::{Algorithm, VerificationKey};
use crate::error::{Error, Result};

/// The public signature keys of an issuer.
#[derive(Debug)]
pub(super) struct KeySet {
    keys: Vec<NamedKey>,
}

#[derive(Debug)]
struct NamedKey {
    kid: Option<String>,
    /// The only algorithm for which the key may be used, or `None` if the key set does not restrict the algorithm.
    algorithm: Option<String>,
    key: Arc<VerificationKey>,
}

impl KeySet {
    /// Parses a key set. Skips keys that cannot verify signatures. An empty set is valid, because an issuer may revoke
    /// all of its keys.
    pub(super) fn parse(text: &[u8], keys_max: usize) -> Result<Self> {
        let set = claims::object(text)
            .map_err(|error| Error::invalid("is not a JSON Web Key Set (JWKS)").with_source(error))?;
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

    /// Returns true if the set has no usable key.
    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// Returns true if a key of the set has the type that `algorithm` requires.
    pub(super) fn can_match(&self, algorithm: Algorithm) -> bool {
        self.keys.iter().any(|named| named.key.matches_algorithm(algorithm))
    }

    /// Returns the key that matches `algorithm` and has this `kid`. Without a `kid`, any key that matches `algorithm`
    /// is considered. Returns `None` unless exactly one key matches.
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

/// Returns the error for a token without a matching key. The error does not reveal which keys exist.
pub(super) fn unknown_key() -> Error {
    Error::unauthenticated("the token is refused: no key of its issuer matches its `kid` and `alg`")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::tenancy::signature::signing;

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

    /// An RSA modulus of 1024 bits, in base64url.
    const URL_1024: &str = "__________________________________________________________________________________________________________________________________________________________________________8";

    #[test]
    fn an_invalid_key_set_is_refused() {
        let twice = [named(json!({})), named(json!({}))];
        let cases = [
            ("[]".to_owned(), "not a JSON Web Key Set"),
            (r#"{"keys":{}}"#.to_owned(), "no list `keys`"),
            (r#"{"keys":[],"keys":[]}"#.to_owned(), "not a JSON Web Key Set"),
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
