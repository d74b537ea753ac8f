//! Tenancy: token verification and keys, the [`Access`] of a caller, row and column policies, and limits per tenant.
//!
//! ```text
//!   token ─► verify ─ shape, issuer, algorithm ─► keys (secret, PEM, JWKS file; JWKS URL by `jwks`)
//!              │                                     │
//!              │                                     ▼
//!              │◄───────────────────────────────── token: is the signature valid?
//!              │ verified claims
//!              ▼
//!            policy ─► Access ─► (ingest, query, flight, http)          query_slots: Slots per tenant
//! ```
//!
//! **Invariant:** an [`Access`] comes only from a verified token: its fields are private, and only `verify` creates it.
//! **Invariant:** the value of a claim becomes a typed literal, never a part of SQL text.
//! **Invariant:** without a claim there are no rows: missing, null, empty or wrongly typed claims are refused.
//! **Invariant:** before the signature is verified, only the token's `iss` and header are read.

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
