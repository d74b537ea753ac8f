//! Signature algorithms and keys. No other file uses the crate `jsonwebtoken`.
//!
//! Verifies the signatures of tokens, and signs development tokens.
//!
//! **Invariant:** a key is used only with algorithms of its own type: an RSA key is never used as a shared secret, and
//! a P-256 key never verifies ES384.
//!
//! The module `verify` checks the claims. The validation in `jsonwebtoken` is not used, because it reads the system
//! clock, does not check `nbf` by default, and accepts duplicate keys.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, Jwk};
use jsonwebtoken::{Algorithm as Jwa, DecodingKey, EncodingKey, crypto};

pub(super) use crate::config::SigningAlgorithm as Algorithm;
use crate::config::{KeyKind, Secret};
use crate::error::{Error, Result};

/// The allowed sizes of an RSA modulus, in bits.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// Converts an algorithm to the corresponding type in `jsonwebtoken`.
fn jwa(algorithm: Algorithm) -> Jwa {
    match algorithm {
        Algorithm::HS256 => Jwa::HS256,
        Algorithm::HS384 => Jwa::HS384,
        Algorithm::HS512 => Jwa::HS512,
        Algorithm::RS256 => Jwa::RS256,
        Algorithm::RS384 => Jwa::RS384,
        Algorithm::RS512 => Jwa::RS512,
        Algorithm::PS256 => Jwa::PS256,
        Algorithm::PS384 => Jwa::PS384,
        Algorithm::PS512 => Jwa::PS512,
        Algorithm::ES256 => Jwa::ES256,
        Algorithm::ES384 => Jwa::ES384,
        Algorithm::EdDSA => Jwa::EdDSA,
    }
}

/// A key for verifying signatures. The `Debug` output of a key shows its type, never its bytes.
#[derive(Clone)]
pub(super) struct VerificationKey {
    kind: KeyKind,
    inner: DecodingKey,
    /// The size of a shared secret in bytes, or 0 for a public key.
    secret_bytes: usize,
}

impl VerificationKey {
    /// Creates a key from a shared secret.
    pub(super) fn secret(secret: &Secret) -> Self {
        let bytes = secret.expose().as_bytes();
        Self { kind: KeyKind::Secret, inner: DecodingKey::from_secret(bytes), secret_bytes: bytes.len() }
    }

    /// Reads a public key in PEM: RSA, P-256, P-384 or Ed25519. Refuses private keys and certificates.
    pub(super) fn pem(pem: &[u8]) -> Result<Self> {
        let text = std::str::from_utf8(pem).unwrap_or_default();
        if text.contains("PRIVATE KEY") {
            return Err(Error::invalid("is a private key: use the public key (`openssl pkey -pubout`)"));
        }
        if !text.contains("PUBLIC KEY") {
            return Err(Error::invalid(
                "is not a PEM public key: extract it from a certificate with `openssl x509 -pubkey -noout`",
            ));
        }
        let inner = DecodingKey::from_rsa_pem(pem)
            .or_else(|_| DecodingKey::from_ec_pem(pem))
            .or_else(|_| DecodingKey::from_ed_pem(pem))
            .map_err(|error| unusable("is not an RSA, P-256, P-384 or Ed25519 key").with_source(error))?;
        Self::checked(inner)
    }

    /// Creates an RSA key from a JWK's modulus and exponent, both in base64url.
    pub(super) fn rsa(n: &str, e: &str) -> Result<Self> {
        Self::checked(
            DecodingKey::from_rsa_components(n, e)
                .map_err(|error| unusable("the RSA key is invalid").with_source(error))?,
        )
    }

    /// Creates an elliptic curve key from a JWK's curve name and the coordinates of its point, both in base64url.
    pub(super) fn ec(curve: &str, x: &str, y: &str) -> Result<Self> {
        let inner = DecodingKey::from_ec_components(x, y);
        let key = Self::checked(inner.map_err(|error| unusable("the EC key is invalid").with_source(error))?)?;
        match (curve, key.kind) {
            ("P-256", KeyKind::P256) | ("P-384", KeyKind::P384) => Ok(key),
            _ => Err(unusable("the EC key does not match its curve")),
        }
    }

    /// Creates an Ed25519 key from a JWK's curve name and public key in base64url.
    pub(super) fn ed(curve: &str, x: &str) -> Result<Self> {
        if curve != "Ed25519" {
            return Err(unusable("the OKP key has a curve other than Ed25519"));
        }
        Self::checked(
            DecodingKey::from_ed_components(x)
                .map_err(|error| unusable("the OKP key is invalid").with_source(error))?,
        )
    }

    /// Determines the type of a public key, and refuses keys of a weak or unsupported size.
    fn checked(inner: DecodingKey) -> Result<Self> {
        let jwk =
            Jwk::from_decoding_key(&inner, None).map_err(|error| unusable("the key is invalid").with_source(error))?;
        let kind = match &jwk.algorithm {
            AlgorithmParameters::RSA(rsa) if RSA_BITS.contains(&bits(&rsa.n)) => KeyKind::Rsa,
            AlgorithmParameters::RSA(_) => return Err(unusable("the RSA key does not have 2048 to 8192 bits")),
            AlgorithmParameters::EllipticCurve(ec) => match ec.curve {
                jsonwebtoken::jwk::EllipticCurve::P256 => KeyKind::P256,
                jsonwebtoken::jwk::EllipticCurve::P384 => KeyKind::P384,
                _ => return Err(unusable("the EC key has a curve other than P-256 and P-384")),
            },
            AlgorithmParameters::OctetKeyPair(_) => KeyKind::Ed25519,
            _ => return Err(unusable("is not a public key")),
        };
        Ok(Self { kind, inner, secret_bytes: 0 })
    }

    /// Returns true if the key has the type that `algorithm` requires and is strong enough for it.
    pub(super) fn matches_algorithm(&self, algorithm: Algorithm) -> bool {
        self.kind == algorithm.key_kind() && self.secret_bytes >= algorithm.secret_bytes_min()
    }

    /// Returns true if `signature` (base64url) is a valid signature of `message`.
    pub(super) fn verify(&self, algorithm: Algorithm, message: &str, signature: &str) -> bool {
        self.matches_algorithm(algorithm)
            && crypto::verify(signature, message.as_bytes(), &self.inner, jwa(algorithm)).unwrap_or(false)
    }
}

impl fmt::Debug for VerificationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({:?})", self.kind)
    }
}

/// Signs a header and claims with a shared secret, and returns a compact JWT.
pub(super) fn sign(algorithm: Algorithm, secret: &Secret, header: &str, claims: &str) -> Result<String> {
    compact(algorithm, &EncodingKey::from_secret(secret.expose().as_bytes()), header, claims)
}

fn compact(algorithm: Algorithm, key: &EncodingKey, header: &str, claims: &str) -> Result<String> {
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = crypto::sign(message.as_bytes(), key, jwa(algorithm))
        .map_err(|error| Error::internal("cannot sign a token").with_source(error))?;
    Ok(format!("{message}.{signature}"))
}

/// Returns the number of significant bits in a base64url integer, or 0 if it is not valid base64url.
fn bits(number: &str) -> usize {
    let bytes = URL_SAFE_NO_PAD.decode(number).unwrap_or_default();
    let significant = bytes.iter().skip_while(|byte| **byte == 0);
    let first = significant.clone().next().map_or(0, |byte| byte.leading_zeros() as usize);
    significant.count() * 8 - first
}

fn unusable(why: &'static str) -> Error {
    Error::invalid(why)
}

/// Signs tokens with private keys. For tests only.
#[cfg(test)]
pub(super) mod signing {
    use super::*;

    /// Signs any `header` and `claims` with a private key in PEM (PKCS #8).
    pub(crate) fn sign_pem(algorithm: &str, pem: &str, header: &str, claims: &str) -> String {
        let algorithm = Algorithm::parse(algorithm).unwrap();
        compact(algorithm, &private(algorithm, pem), header, claims).unwrap()
    }

    /// Returns the public JWK of a private key in PEM (PKCS #8).
    pub(crate) fn jwk(algorithm: &str, pem: &str) -> serde_json::Value {
        let algorithm = Algorithm::parse(algorithm).unwrap();
        serde_json::to_value(Jwk::from_encoding_key(&private(algorithm, pem), jwa(algorithm)).unwrap()).unwrap()
    }

    fn private(algorithm: Algorithm, pem: &str) -> EncodingKey {
        match algorithm.key_kind() {
            KeyKind::Rsa => EncodingKey::from_rsa_pem(pem.as_bytes()).unwrap(),
            KeyKind::P256 | KeyKind::P384 => EncodingKey::from_ec_pem(pem.as_bytes()).unwrap(),
            KeyKind::Ed25519 => EncodingKey::from_ed_pem(pem.as_bytes()).unwrap(),
            KeyKind::Secret => EncodingKey::from_secret(pem.as_bytes()),
        }
    }
}
