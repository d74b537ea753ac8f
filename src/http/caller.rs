//! Authenticates requests: verifies the bearer token of a request and returns the rights of the caller as an
//! [`Access`].
//!
//! The token is read only from the `Authorization` header, which may appear only once. The token is never read from the
//! URL, because proxies log URLs.

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;

use super::HttpHandler;
use crate::contract::Owner;
use crate::error::{Error, Result};
use crate::tenancy::{Access, Scope};

/// Verifies the token of a request and returns the rights of its caller.
pub(super) async fn caller(handler: &HttpHandler, headers: &HeaderMap) -> Result<Access> {
    let verified = match bearer(headers) {
        Ok(token) => handler.services.verifier.verify(token).await,
        Err(error) => Err(error),
    };
    verified.inspect_err(|error| handler.services.metrics.auth_refused(error))
}

/// Returns the rights of the caller. Fails with `Forbidden` unless the caller is an operator with the admin scope. Such
/// an operator may see the data of all tenants.
pub(super) async fn operator(handler: &HttpHandler, headers: &HeaderMap) -> Result<Access> {
    let access = caller(handler, headers).await?;
    access.require(Scope::Admin)?;
    match access.owner() {
        Owner::PerEvent => Ok(access),
        Owner::Tenant(_) => Err(Error::forbidden("only operators may use this route: send a token without a tenant")),
    }
}

/// Returns the bearer token of a request. The request must have exactly one `Authorization` header.
fn bearer(headers: &HeaderMap) -> Result<&str> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let (first, second) = (values.next(), values.next());
    let value =
        first.ok_or_else(|| Error::unauthenticated("no token: send the header `Authorization: Bearer <token>`"))?;
    if second.is_some() {
        return Err(Error::unauthenticated("more than one `Authorization` header: send one"));
    }
    let (scheme, token) = value.to_str().ok().and_then(|value| value.split_once(' ')).unwrap_or_default();
    let token = token.trim();
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
        return Err(Error::unauthenticated("not a bearer token: send the header `Authorization: Bearer <token>`"));
    }
    Ok(token)
}
