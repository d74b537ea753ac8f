//! Whose it is: token verification and keys, claims to [`Access`], policy by row and column, limits per tenant.
//!
//! ```text
//!   Bearer token ─► token (jsonwebtoken, strict) ◄─ keys (secret, PEM, JWKS file or URL)
//!                     │ claims
//!                     ▼
//!                  policy ─► Access ─► (ingest, query, flight, http)
//! ```
//!
//! **Invariant:** an [`Access`] comes only from a verified token: its fields are private and nothing else makes one.
//! **Invariant:** a claim's value becomes a typed literal; it is never part of SQL text.
//! **Invariant:** no claim, no rows: missing, null, empty or wrongly typed claims are refused.

mod access;
mod keys;
mod limits;
mod policy;
mod token;

pub use access::{Access, RowRule, Scope, TableRules};
pub use limits::{Slot, Slots};
pub use token::{Mint, Verifier};
