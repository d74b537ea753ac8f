//! What a verified caller may do: its tenant, scopes and row rules.
//!
//! In: a [`Grant`], made by `verify` alone. Out: an [`Access`], which doors, ingest and query ask before they act.
//!
//! **Invariant:** an operator (no tenant) can send events and operate the server, and can never query.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::clock::Micros;
use crate::contract::{Owner, TenantId};
use crate::error::{Error, Result};

/// What a token allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Scope {
    /// Query.
    Read,
    /// Send events.
    Ingest,
    /// Operate the server.
    Admin,
}

impl Scope {
    /// Every scope.
    pub const ALL: [Self; 3] = [Self::Read, Self::Ingest, Self::Admin];

    /// The word for it in tokens and on the command line.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Ingest => "ingest",
            Self::Admin => "admin",
        }
    }

    /// The scope of exactly this word.
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

/// What `verify` found in a token whose signature holds.
#[derive(Debug)]
pub(super) struct Grant {
    /// None: an operator.
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

/// One extra row rule, resolved against the token: the column must equal one of the values.
#[derive(Debug, Clone, PartialEq)]
pub struct RowRule {
    /// A column of the table.
    pub column: String,
    /// Allowed values as text, to be parsed as the column's type; empty: no row at all.
    pub values: Vec<String>,
}

/// What this caller may see of one table.
#[derive(Debug, Clone, PartialEq)]
pub struct TableRules {
    /// Readable columns; `None` for all. Tenant, time and id columns count like any other.
    pub columns: Option<Vec<String>>,
    /// Extra row rules beside the tenant's, all of which must hold.
    pub rows: Vec<RowRule>,
}

impl Access {
    /// Only `verify` makes one.
    pub(super) fn new(grant: Grant) -> Self {
        Self(Arc::new(grant))
    }

    /// The tenant; an operator has none, and so can ask nothing (`Forbidden`).
    pub fn tenant(&self) -> Result<&TenantId> {
        self.0.tenant.as_ref().ok_or_else(|| {
            Error::forbidden(
                "the token has no tenant: an operator sends events and operates the server, but asks nothing",
            )
        })
    }

    /// Who owns the events that this caller sends.
    pub fn owner(&self) -> Owner {
        self.0.tenant.clone().map_or(Owner::PerEvent, Owner::Tenant)
    }

    /// Refuses (`Forbidden`) a caller without `scope`.
    pub fn require(&self, scope: Scope) -> Result<()> {
        if self.0.scopes.contains(&scope) {
            return Ok(());
        }
        Err(Error::forbidden(format!("the token lacks the scope `{scope}`: ask its issuer for it")))
    }

    /// Refuses (`Unauthenticated`) when the token has expired meanwhile.
    pub fn check_expiry(&self, now: Micros) -> Result<()> {
        if now < self.0.expires {
            return Ok(());
        }
        Err(Error::unauthenticated("the token has expired: get a new one"))
    }

    /// From when on the token is refused: its `exp` and the leeway, or the age at which a token is too old.
    pub fn expires(&self) -> Micros {
        self.0.expires
    }

    /// `iss`, `sub`, `jti` (or empty).
    pub fn identity(&self) -> (&str, &str, &str) {
        (&self.0.issuer, &self.0.subject, &self.0.token_id)
    }

    /// What it may see of `table`; `None` when the table is invisible to it.
    pub fn rules(&self, table: &str) -> Option<&TableRules> {
        self.0.tables.get(table)
    }

    /// Changes whenever anything changes that decides which rows or columns this caller sees: binds tickets and caches.
    /// Two callers of one tenant with the same rules share it.
    pub fn fingerprint(&self) -> [u8; 16] {
        let mut digest = Sha256::new();
        // Every text is led by its length and every list by its own, so that no two different callers hash alike.
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
