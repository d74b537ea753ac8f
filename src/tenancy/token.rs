//! Signatures: the only file that knows `jsonwebtoken`.
//!
//! In: a token's signed text, its signature, an algorithm and a key. Out: whether they belong together.
//!
//! **Invariant:** a key serves only the algorithms of its own type: an RSA key is never taken for a shared secret, and a
//! P-256 key never verifies ES384.
//! What a token *says* is judged in `verify`, by our own rules and our own clock: the library's validation reads the
//! machine's clock, leaves `nbf` unchecked unless told, and takes the last of two equal keys.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk};
use jsonwebtoken::{Algorithm as Jwa, DecodingKey, EncodingKey, crypto};

use crate::config::Secret;
use crate::error::{Error, Result};

/// The least and the greatest size of an RSA modulus, in bits.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// What kind of key an algorithm needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum KeyKind {
    Secret,
    Rsa,
    P256,
    P384,
    Ed25519,
}

/// A signature algorithm that we know.
#[derive(Clone, Copy)]
pub(super) struct Algorithm {
    name: &'static str,
    jwa: Jwa,
    kind: KeyKind,
    /// The least size of a shared secret, in bytes: that of the hash (RFC 7518, section 3.2).
    secret_bytes_min: usize,
}

const fn algorithm(name: &'static str, jwa: Jwa, kind: KeyKind, secret_bytes_min: usize) -> Algorithm {
    Algorithm { name, jwa, kind, secret_bytes_min }
}

/// Every algorithm that can be listed for an issuer. `none` is not among them.
const ALGORITHMS: [Algorithm; 12] = [
    algorithm("HS256", Jwa::HS256, KeyKind::Secret, 32),
    algorithm("HS384", Jwa::HS384, KeyKind::Secret, 48),
    algorithm("HS512", Jwa::HS512, KeyKind::Secret, 64),
    algorithm("RS256", Jwa::RS256, KeyKind::Rsa, 0),
    algorithm("RS384", Jwa::RS384, KeyKind::Rsa, 0),
    algorithm("RS512", Jwa::RS512, KeyKind::Rsa, 0),
    algorithm("PS256", Jwa::PS256, KeyKind::Rsa, 0),
    algorithm("PS384", Jwa::PS384, KeyKind::Rsa, 0),
    algorithm("PS512", Jwa::PS512, KeyKind::Rsa, 0),
    algorithm("ES256", Jwa::ES256, KeyKind::P256, 0),
    algorithm("ES384", Jwa::ES384, KeyKind::P384, 0),
    algorithm("EdDSA", Jwa::EdDSA, KeyKind::Ed25519, 0),
];

impl Algorithm {
    /// The algorithm of exactly this name (RFC 7518 names are case-sensitive).
    pub(super) fn parse(name: &str) -> Option<Self> {
        ALGORITHMS.into_iter().find(|known| known.name == name)
    }

    /// All names, for messages.
    pub(super) fn names() -> impl Iterator<Item = &'static str> {
        ALGORITHMS.into_iter().map(|known| known.name)
    }

    /// Its name.
    pub(super) fn name(self) -> &'static str {
        self.name
    }

    /// Whether it needs a shared secret, not a public key.
    pub(super) fn is_shared(self) -> bool {
        self.kind == KeyKind::Secret
    }
}

impl fmt::Debug for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

/// A key that verifies. Its `Debug` shows its kind, never its bytes.
#[derive(Clone)]
pub(super) struct VerificationKey {
    kind: KeyKind,
    inner: DecodingKey,
    /// Bytes of a shared secret, to be compared with what an algorithm needs.
    secret_bytes: usize,
}

impl VerificationKey {
    /// A shared secret.
    pub(super) fn secret(secret: &Secret) -> Self {
        let bytes = secret.expose().as_bytes();
        Self { kind: KeyKind::Secret, inner: DecodingKey::from_secret(bytes), secret_bytes: bytes.len() }
    }

    /// A public key in PEM: RSA, P-256, P-384 or Ed25519. Private keys and certificates are refused.
    pub(super) fn pem(pem: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(pem).unwrap_or_default();
        if text.contains("PRIVATE KEY") {
            return Err(Error::invalid("is a private key: give the public one (`openssl pkey -pubout`)"));
        }
        if !text.contains("PUBLIC KEY") {
            return Err(Error::invalid("is no PEM public key (of a certificate: `openssl x509 -pubkey -noout`)"));
        }
        let inner = DecodingKey::from_rsa_pem(pem)
            .or_else(|_| DecodingKey::from_ec_pem(pem))
            .or_else(|_| DecodingKey::from_ed_pem(pem))
            .map_err(|error| unusable("is no RSA, P-256, P-384 or Ed25519 key").with_source(error))?;
        Self::checked(inner)
    }

    /// An RSA key of a JWK: modulus and exponent in base64url.
    pub(super) fn rsa(n: &str, e: &str) -> Result<Self> {
        Self::checked(
            DecodingKey::from_rsa_components(n, e).map_err(|error| unusable("broken RSA key").with_source(error))?,
        )
    }

    /// An elliptic curve key of a JWK: its curve, and its point in base64url.
    pub(super) fn ec(curve: &str, x: &str, y: &str) -> Result<Self> {
        let inner = DecodingKey::from_ec_components(x, y);
        let key = Self::checked(inner.map_err(|error| unusable("broken EC key").with_source(error))?)?;
        match (curve, key.kind) {
            ("P-256", KeyKind::P256) | ("P-384", KeyKind::P384) => Ok(key),
            _ => Err(unusable("EC key of another curve than it says")),
        }
    }

    /// An Ed25519 key of a JWK: its public part in base64url.
    pub(super) fn ed(curve: &str, x: &str) -> Result<Self> {
        if curve != "Ed25519" {
            return Err(unusable("OKP key of another curve than Ed25519"));
        }
        Self::checked(
            DecodingKey::from_ed_components(x).map_err(|error| unusable("broken OKP key").with_source(error))?,
        )
    }

    /// Finds the kind of a public key, and refuses sizes that are weak or that no algorithm of ours has.
    fn checked(inner: DecodingKey) -> Result<Self> {
        let jwk = Jwk::from_decoding_key(&inner, None).map_err(|error| unusable("broken key").with_source(error))?;
        let kind = match &jwk.algorithm {
            AlgorithmParameters::RSA(rsa) if RSA_BITS.contains(&bits(&rsa.n)) => KeyKind::Rsa,
            AlgorithmParameters::RSA(_) => return Err(unusable("RSA key that is not of 2048 to 8192 bits")),
            AlgorithmParameters::EllipticCurve(ec) => match ec.curve {
                jsonwebtoken::jwk::EllipticCurve::P256 => KeyKind::P256,
                jsonwebtoken::jwk::EllipticCurve::P384 => KeyKind::P384,
                _ => return Err(unusable("EC key of another curve than P-256 and P-384")),
            },
            AlgorithmParameters::OctetKeyPair(_) => KeyKind::Ed25519,
            _ => return Err(unusable("is no public key")),
        };
        Ok(Self { kind, inner, secret_bytes: 0 })
    }

    /// Whether this key is of the kind that `algorithm` needs, and strong enough for it.
    pub(super) fn fits(&self, algorithm: Algorithm) -> bool {
        self.kind == algorithm.kind && self.secret_bytes >= algorithm.secret_bytes_min
    }

    /// Whether `signature` (base64url) is `algorithm`'s over `message` with this key.
    pub(super) fn verify(&self, algorithm: Algorithm, message: &str, signature: &str) -> bool {
        self.fits(algorithm)
            && crypto::verify(signature, message.as_bytes(), &self.inner, algorithm.jwa).unwrap_or(false)
    }
}

impl fmt::Debug for VerificationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:?})", self.kind)
    }
}

/// Signs a header and claims with a shared secret: a compact JWT.
pub(super) fn sign(algorithm: Algorithm, secret: &Secret, header: &str, claims: &str) -> Result<String> {
    compact(algorithm, &EncodingKey::from_secret(secret.expose().as_bytes()), header, claims)
}

fn compact(algorithm: Algorithm, key: &EncodingKey, header: &str, claims: &str) -> Result<String> {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = crypto::sign(message.as_bytes(), key, algorithm.jwa)
        .map_err(|error| Error::internal("cannot sign a token").with_source(error))?;
    Ok(format!("{message}.{signature}"))
}

/// The size of a number in base64url, in bits; 0 when it is none.
fn bits(number: &str) -> usize {
    let bytes = URL_SAFE_NO_PAD.decode(number).unwrap_or_default();
    let significant = bytes.iter().skip_while(|byte| **byte == 0);
    let first = significant.clone().next().map_or(0, |byte| byte.leading_zeros() as usize);
    significant.count() * 8 - first
}

fn unusable(why: &'static str) -> Error {
    Error::invalid(why)
}

/// Signing with private keys, which the server itself never does.
#[cfg(test)]
pub(super) mod signing {
    use super::*;

    /// Signs with a private key in PEM (PKCS#8), whatever `header` and `claims` say.
    pub(crate) fn sign_pem(algorithm: &str, pem: &str, header: &str, claims: &str) -> String {
        let algorithm = Algorithm::parse(algorithm).unwrap();
        compact(algorithm, &private(algorithm, pem), header, claims).unwrap()
    }

    /// The public JWK of a private key in PEM (PKCS#8).
    pub(crate) fn jwk(algorithm: &str, pem: &str) -> serde_json::Value {
        let algorithm = Algorithm::parse(algorithm).unwrap();
        serde_json::to_value(Jwk::from_encoding_key(&private(algorithm, pem), algorithm.jwa).unwrap()).unwrap()
    }

    fn private(algorithm: Algorithm, pem: &str) -> EncodingKey {
        match algorithm.kind {
            KeyKind::Rsa => EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap(),
            KeyKind::P256 | KeyKind::P384 => EncodingKey::from_ec_pem(pem.as_bytes()).unwrap(),
            KeyKind::Ed25519 => EncodingKey::from_ed_pem(pem.as_bytes()).unwrap(),
            KeyKind::Secret => EncodingKey::from_secret(pem.as_bytes()),
        }
    }
}
