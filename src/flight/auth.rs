//! Authenticates calls. Verifies the token in the `authorization` header of a call, and returns the caller's rights as
//! an [`Access`].
//!
//! No other header, session option or URL parameter affects which tenants' data is visible.
//!
//! Calls carry `Bearer <token>`. `Handshake` also accepts `Basic`, because some tools can only send a user name and a
//! password. Such a tool sends the token as the password, with any user name. The response to `Handshake` contains the
//! header `authorization: Bearer <token>`, which clients then send with every call. No other response has this header,
//! because ADBC would treat it as a new token.

use base64::Engine;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use tonic::metadata::{MetadataMap, MetadataValue};

use crate::error::{Error, Result};
use crate::tenancy::{Access, Verifier};

const AUTHORIZATION: &str = "authorization";

/// A decoder for base64 with and without padding. It is needed because Go clients send Basic credentials without
/// padding, whereas all other clients send them with padding.
const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Verifies the bearer token of a call.
pub(super) async fn access(verifier: &Verifier, headers: &MetadataMap) -> Result<Access> {
    verifier.verify(bearer(headers)?).await
}

/// Verifies the credentials of a Handshake. Returns the metadata of the response, which contains the token.
pub(super) async fn handshake(verifier: &Verifier, headers: &MetadataMap) -> Result<MetadataMap> {
    let token = credentials(headers)?;
    verifier.verify(&token).await?;
    let value = MetadataValue::try_from(format!("Bearer {token}"))
        .map_err(|_| Error::unauthenticated("the token contains characters that are not allowed in a header"))?;
    let mut response = MetadataMap::new();
    response.insert(AUTHORIZATION, value);
    Ok(response)
}

/// Returns the token of a call.
fn bearer(headers: &MetadataMap) -> Result<&str> {
    match authorization(headers)? {
        ("bearer", token) => Ok(token),
        ("basic", _) => Err(Error::unauthenticated(
            "only Handshake accepts Basic credentials: call it first, or send `authorization: Bearer <token>`",
        )),
        _ => Err(unknown_scheme()),
    }
}

/// Returns the token of a Handshake call. It is a bearer token, or the password of Basic credentials.
fn credentials(headers: &MetadataMap) -> Result<String> {
    match authorization(headers)? {
        ("bearer", token) => Ok(token.to_owned()),
        ("basic", encoded) => password(encoded),
        _ => Err(unknown_scheme()),
    }
}

fn password(encoded: &str) -> Result<String> {
    let malformed = || Error::unauthenticated("malformed Basic credentials: expected base64 of `user:token`");
    let text = String::from_utf8(BASE64.decode(encoded).map_err(|_| malformed())?).map_err(|_| malformed())?;
    let (_user, password) = text.split_once(':').ok_or_else(malformed)?;
    if password.is_empty() {
        return Err(Error::unauthenticated("the password is empty: send the token as the password"));
    }
    Ok(password.to_owned())
}

/// Returns the scheme and the credentials in the `authorization` header. A call must have exactly one such header. The
/// scheme is in lower case.
fn authorization(headers: &MetadataMap) -> Result<(&'static str, &str)> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values
        .next()
        .ok_or_else(|| Error::unauthenticated("no `authorization` header: send `authorization: Bearer <token>`"))?;
    if values.next().is_some() {
        return Err(Error::unauthenticated("more than one `authorization` header: send one"));
    }
    let text = value.to_str().map_err(|_| Error::unauthenticated("the `authorization` header is not ASCII text"))?;
    let (scheme, rest) = text.trim().split_once(' ').ok_or_else(unknown_scheme)?;
    let scheme =
        ["bearer", "basic"].into_iter().find(|known| known.eq_ignore_ascii_case(scheme)).ok_or_else(unknown_scheme)?;
    Ok((scheme, rest.trim()))
}

fn unknown_scheme() -> Error {
    Error::unauthenticated("malformed `authorization` header: send `Bearer <token>`")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Kind;

    fn headers(values: &[&str]) -> MetadataMap {
        let mut map = MetadataMap::new();
        for value in values {
            map.append(AUTHORIZATION, value.parse().unwrap());
        }
        map
    }

    #[test]
    fn bearer_scheme_is_case_insensitive() {
        for value in ["Bearer a.b.c", "bearer a.b.c", "BEARER   a.b.c "] {
            assert_eq!(bearer(&headers(&[value])).unwrap(), "a.b.c", "{value}");
            assert_eq!(credentials(&headers(&[value])).unwrap(), "a.b.c", "{value}");
        }
    }

    #[test]
    fn invalid_authorization_headers_are_unauthenticated() {
        let cases: &[&[&str]] =
            &[&[], &["a.b.c"], &["Bearer"], &["Digest x"], &["Basic dTpw"], &["Bearer a", "Bearer a"]];
        for case in cases {
            assert_eq!(bearer(&headers(case)).unwrap_err().kind(), Kind::Unauthenticated, "{case:?}");
        }
    }

    #[test]
    fn basic_password_is_the_token_with_and_without_padding() {
        // In base64, `any:t.o.k` (nine bytes) has no padding, and `u:t.t` (five bytes) has padding.
        for (encoded, token) in
            [("YW55OnQuby5r", "t.o.k"), ("dTp0LnQ=", "t.t"), ("dTp0LnQ", "t.t"), ("OmE6Yg==", "a:b")]
        {
            assert_eq!(credentials(&headers(&[&format!("Basic {encoded}")])).unwrap(), token, "{encoded}");
        }
        for broken in ["Basic !!!", "Basic dXNlcg==", "Basic dXNlcjo=", "Basic //8="] {
            assert_eq!(credentials(&headers(&[broken])).unwrap_err().kind(), Kind::Unauthenticated, "{broken}");
        }
    }
}
