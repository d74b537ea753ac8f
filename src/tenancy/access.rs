//! What a verified caller may do: its tenant, scopes and row rules.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::clock::Micros;
use crate::contract::{Owner, TenantId};
use crate::error::Result;

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

/// A verified caller. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Access(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    tenant: Option<TenantId>, // None: an operator
    issuer: String,
    subject: String,
    token_id: String,
    scopes: Vec<Scope>,
    expires: Micros,
    tables: BTreeMap<String, TableRules>,
    policy_version: u64,
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
    /// The tenant; an operator has none, and so can ask nothing.
    pub fn tenant(&self) -> Result<&TenantId> {
        todo!()
    }

    /// Who owns the events that this caller sends.
    pub fn owner(&self) -> Owner {
        todo!()
    }

    /// Refuses (`Forbidden`) a caller without `scope`.
    pub fn require(&self, scope: Scope) -> Result<()> {
        let _ = scope;
        todo!()
    }

    /// Refuses (`Unauthenticated`) when the token has expired meanwhile.
    pub fn check_expiry(&self, now: Micros) -> Result<()> {
        let _ = now;
        todo!()
    }

    /// When the token expires.
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
    pub fn fingerprint(&self) -> [u8; 16] {
        todo!()
    }
}
