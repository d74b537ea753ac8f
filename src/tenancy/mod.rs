//! Whose it is: token verification and keys, claims to [`Access`], policy by row and column, limits per tenant.
//!
//! ```text
//!   token ─► verify ─ shape, issuer, algorithm ─► keys (secret, PEM, JWKS file; JWKS URL by fetch)
//!              │                                     │
//!              │                                     ▼
//!              │◄──────────────────────────────── token: does the signature fit?
//!              │ claims, now believed
//!              ▼
//!            policy ─► Access ─► (ingest, query, flight, http)          limits: Slots per tenant
//! ```
//!
//! **Invariant:** an [`Access`] comes only from a verified token: its fields are private and nothing else makes one.
//! **Invariant:** a claim's value becomes a typed literal; it is never part of SQL text.
//! **Invariant:** no claim, no rows: missing, null, empty or wrongly typed claims are refused.
//! **Invariant:** nothing of a token but its `iss` and its header is looked at before its signature holds.

mod access;
mod mint;
mod query_slots;
mod verify;

mod claims;
mod policy;

mod jwks;
mod keys;
mod token;

#[cfg(test)]
mod jwks_tests;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use access::{Access, RowRule, Scope, TableRules};
pub use mint::Mint;
pub use query_slots::{Slot, Slots};
pub use verify::Verifier;
