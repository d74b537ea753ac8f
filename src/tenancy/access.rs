//! The rights of a verified caller: tenant, scopes and row rules.
//!
//! In: a [`Grant`], which only `verify` creates. Out: an [`Access`], which endpoints, ingest and query check before
//! they act.
//!
//! **Invariant:** an operator (a caller without a tenant) can send events and operate the server, but never query.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::clock::Micros;
use crate::contract::{Owner, TenantId};
use crate::error::{Error, Result};

/// A permission in a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Run queries.
    Read,
    /// Send events.
    Ingest,
    /// Operate the server.
    Admin,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 3] = [Self::Read, Self::Ingest, Self::Admin];

    /// The name in tokens and on the command line.
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

/// A verified caller. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Access(Arc<Grant>);

/// The content of a token with a valid signature, as found by `verify`.
#[derive(Debug)]
pub(super) struct Grant {
    /// `None` for an operator.
    pub(super) tenant: Option<TenantId>,
    pub(super) issuer: String,
    pub(super) subject: String,
    /// `jti`, or empty.
    pub(super) token_id: String,
    pub(super) scopes: Vec<Scope>,
    pub(super) expires: Micros,
    pub(super) tables: BTreeMap<String, TableRules>,
    pub(super) policy_version: u64,
}

/// An additional row rule with values from the token: the column must equal one of the values.
#[derive(Debug, Clone, PartialEq)]
pub struct RowRule {
    /// A column of the table.
    pub column: String,
    /// The allowed values as text, to be parsed as the column's type. If empty, no rows are visible.
    pub values: Vec<String>,
}

/// The part of one table that a caller may see.
#[derive(Debug, Clone, PartialEq)]
pub struct TableRules {
    /// The readable columns; `None` for all. Tenant, time and id columns must be listed like any other.
    pub columns: Option<Vec<String>>,
    /// Row rules in addition to the tenant's. All of them must hold.
    pub rows: Vec<RowRule>,
}

impl Access {
    /// Only `verify` calls this.
    pub(super) fn new(grant: Grant) -> Self {
        Self(Arc::new(grant))
    }

    /// The tenant. `Forbidden` for an operator, which has none and cannot query.
    pub fn tenant(&self) -> Result<&TenantId> {
        self.0.tenant.as_ref().ok_or_else(|| {
            Error::forbidden(
                "the token has no tenant: an operator can send events and operate the server, but not query",
            )
        })
    }

    /// The owner of events that this caller sends.
    pub fn owner(&self) -> Owner {
        self.0.tenant.clone().map_or(Owner::PerEvent, Owner::Tenant)
    }

    /// Checks that the caller has `scope`. `Forbidden` if not.
    pub fn require(&self, scope: Scope) -> Result<()> {
        if self.0.scopes.contains(&scope) {
            return Ok(());
        }
        Err(Error::forbidden(format!(
            "the token lacks the scope `{scope}`: get a token with this scope from its issuer"
        )))
    }

    /// Checks that the token has not expired since it was verified. `Unauthenticated` if it has.
    pub fn check_expiry(&self, now: Micros) -> Result<()> {
        if now < self.0.expires {
            return Ok(());
        }
        Err(Error::unauthenticated("the token has expired: get a new one"))
    }

    /// The time from which the token is refused: `exp` plus the leeway, or the maximum age if that is earlier.
    pub fn expires(&self) -> Micros {
        self.0.expires
    }

    /// `iss`, `sub`, `jti` (or empty).
    pub fn identity(&self) -> (&str, &str, &str) {
        (&self.0.issuer, &self.0.subject, &self.0.token_id)
    }

    /// The rules for `table`; `None` if the caller may not see it.
    pub fn rules(&self, table: &str) -> Option<&TableRules> {
        self.0.tables.get(table)
    }

    /// A digest of everything that determines which rows and columns the caller sees, for binding tickets and cache
    /// entries. Callers of one tenant with the same rules share it.
    pub fn fingerprint(&self) -> [u8; 16] {
        let mut digest = Sha256::new();
        // Every text and list is preceded by its length, so that different rules never hash the same bytes.
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
