//! The rights of a verified caller: tenant, scopes and row rules.
//!
//! Only `verify` creates an [`Access`], from the [`Grant`] that it finds in a token. Endpoints, ingest and query check
//! the [`Access`] before they execute a request.
//!
//! **Invariant:** an operator (a caller without a tenant) can send events and operate the server, but never query.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::revocations::{ActiveRevocations, TokenIdentity};
use crate::clock::Micros;
use crate::contract::{Owner, TenantId};
use crate::error::{Error, Result};

/// A permission in a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Permits running queries.
    Read,
    /// Permits sending events.
    Ingest,
    /// Permits operating the server.
    Admin,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 3] = [Self::Read, Self::Ingest, Self::Admin];

    /// Returns the name that tokens and the command line use.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Ingest => "ingest",
            Self::Admin => "admin",
        }
    }

    /// Parses a scope name.
    pub fn parse(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == word)
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The rights of a verified caller. Cloning it is cheap.
#[derive(Debug, Clone)]
pub struct Access(Arc<Grant>);

/// The rights that `verify` found in a token with a valid signature.
#[derive(Debug)]
pub(super) struct Grant {
    /// The tenant, or `None` for an operator.
    pub(super) tenant: Option<TenantId>,
    pub(super) issuer: String,
    pub(super) subject: String,
    /// The token's `jti`, or an empty string if the token has none.
    pub(super) token_id: String,
    pub(super) scopes: Vec<Scope>,
    /// The token's `iat` in seconds since 1970.
    pub(super) issued: Option<i64>,
    /// The time at which the server begins to refuse the token.
    pub(super) expires: Micros,
    /// The rules for each visible table, by table name.
    pub(super) tables: BTreeMap<String, TableRules>,
    pub(super) policy_version: u64,
    /// The active revocations, which may change while the caller's request runs.
    pub(super) revocations: Arc<ActiveRevocations>,
}

/// A row rule, which applies in addition to the tenant rule. The column must equal one of the values from the token.
#[derive(Debug, Clone, PartialEq)]
pub struct RowRule {
    /// The name of the column.
    pub column: String,
    /// The allowed values. Each string is parsed as a value of the column's type. If the list is empty, no rows are
    /// visible.
    pub values: Vec<String>,
}

/// The columns and rows of one table that a caller may see.
#[derive(Debug, Clone, PartialEq)]
pub struct TableRules {
    /// The readable columns, or `None` if all columns are readable. The tenant, time and id columns are readable only
    /// if they are listed.
    pub columns: Option<Vec<String>>,
    /// The row rules that apply in addition to the tenant rule. A row must satisfy all of them.
    pub rows: Vec<RowRule>,
}

impl Access {
    /// Creates an access from a grant. Only `verify` calls this function.
    pub(super) fn new(grant: Grant) -> Self {
        Self(Arc::new(grant))
    }

    /// Returns the tenant, or `Forbidden` for an operator, who has no tenant and cannot query.
    pub fn tenant(&self) -> Result<&TenantId> {
        self.0.tenant.as_ref().ok_or_else(|| {
            Error::forbidden(
                "the token has no tenant: an operator can send events and operate the server, but not query",
            )
        })
    }

    /// Returns who owns the events that this caller sends: the caller's tenant or, for an operator, the tenant named in
    /// each event.
    pub fn owner(&self) -> Owner {
        self.0.tenant.clone().map_or(Owner::PerEvent, Owner::Tenant)
    }

    /// Returns `Forbidden` if the caller does not have `scope`.
    pub fn require(&self, scope: Scope) -> Result<()> {
        if self.0.scopes.contains(&scope) {
            return Ok(());
        }
        Err(Error::forbidden(format!(
            "the token lacks the scope `{scope}`: get a token with this scope from its issuer"
        )))
    }

    /// Returns `Unauthenticated` if the token has expired or has been revoked since it was verified.
    pub fn check_valid(&self, now: Micros) -> Result<()> {
        if now >= self.0.expires {
            return Err(Error::unauthenticated("the token has expired: get a new one"));
        }
        if self.is_revoked() { Err(revoked()) } else { Ok(()) }
    }

    /// Returns true if the token has been revoked.
    pub fn is_revoked(&self) -> bool {
        self.0.revocations.covers(self.0.identity())
    }

    /// Waits until the token is revoked.
    pub async fn revoked(&self) {
        self.0.revocations.revoked(self.0.identity()).await;
    }

    /// Waits for the result of `work`. Drops `work` and fails with `Unauthenticated` if the token is revoked first.
    pub async fn unless_revoked<T, E: From<Error>>(&self, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
        tokio::select! {
            biased;
            () = self.revoked() => Err(revoked().into()),
            outcome = work => outcome,
        }
    }

    /// Returns the time at which the server begins to refuse the token. This is the earlier of `exp` plus the leeway,
    /// and the time at which the token reaches its maximum age.
    pub fn expires(&self) -> Micros {
        self.0.expires
    }

    /// Returns `iss`, `sub` and `jti`. The `jti` is empty if the token has none.
    pub fn identity(&self) -> (&str, &str, &str) {
        (&self.0.issuer, &self.0.subject, &self.0.token_id)
    }

    /// Returns the rules for `table`, or `None` if the caller may not see it.
    pub fn rules(&self, table: &str) -> Option<&TableRules> {
        self.0.tables.get(table)
    }

    /// Returns a digest of everything that determines which rows and columns the caller sees. Tickets and cache entries
    /// contain the digest. Callers of the same tenant with the same rules get the same digest.
    pub fn fingerprint(&self) -> [u8; 16] {
        let mut digest = Sha256::new();
        // The length of each string or list is hashed before its contents, so different rules never produce the same
        // hash input.
        let mut text = |text: &str| {
            digest.update((text.len() as u64).to_le_bytes());
            digest.update(text);
        };
        text(if self.0.tenant.is_some() { "tenant" } else { "operator" });
        text(self.0.tenant.as_ref().map_or("", TenantId::as_str));
        text(&self.0.policy_version.to_string());
        for (table, rules) in &self.0.tables {
            text(table);
            text(&rules.columns.as_ref().map_or("all".to_owned(), |columns| columns.len().to_string()));
            rules.columns.iter().flatten().for_each(|column| text(column));
            text(&rules.rows.len().to_string());
            for row in &rules.rows {
                text(&row.column);
                text(&row.values.len().to_string());
                row.values.iter().for_each(|value| text(value));
            }
        }
        let mut fingerprint = [0; 16];
        fingerprint.copy_from_slice(&digest.finalize()[..16]);
        fingerprint
    }
}

#[cfg(test)]
impl Access {
    /// Revokes the token.
    pub(crate) fn revoke(&self) {
        use super::revocations::{Revocation, Revocations, RevokedTokens};
        let tokens = RevokedTokens::TokenId(self.0.token_id.clone());
        let revocation = Revocation { issuer: self.0.issuer.clone(), tokens, reason: None };
        self.0.revocations.replace(Revocations::new(&[revocation]));
    }
}

impl Grant {
    fn identity(&self) -> TokenIdentity<'_> {
        TokenIdentity {
            issuer: &self.issuer,
            subject: &self.subject,
            token_id: &self.token_id,
            tenant: self.tenant.as_ref().map(TenantId::as_str),
            issued: self.issued,
        }
    }
}

/// Returns the error for a revoked token. The error does not reveal which tokens the revocation covers.
pub(super) fn revoked() -> Error {
    Error::unauthenticated("the token has been revoked: get a new one")
}
