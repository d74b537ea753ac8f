//! Tenancy: token verification and keys, the [`Access`] of a caller, row and column policies, and query slots per
//! tenant.
//!
//! ```text
//!   token ─► verify ─ shape, issuer, algorithm ─► issuer_keys (secret, secret file, PEM, JWKS file; JWKS URL: fetched_key_set)
//!              │                                     │
//!              │                                     ▼
//!              │◄───────────────────────────────── signature: is it valid?
//!              │ verified claims
//!              ▼
//!            policy ─► Access ─► (ingest, query, flight, http)          query_slots: Slots per tenant
//!   revocation_file ─► revocations ─► verify, Access: is the token revoked?
//! ```
//!
//! **Invariant:** an [`Access`] comes only from a verified token: its fields are private, and only `verify` creates it.
//! **Invariant:** a claim's value becomes a typed literal, and is never inserted into SQL text.
//! **Invariant:** a claim that is null, empty or of the wrong type never grants access to rows. If a required claim is
//! missing, no rows are visible.
//! **Invariant:** before the signature is verified, only the token's `iss` and header are read.

mod access;
mod development_token;
mod query_slots;
mod verify;

mod claims;
mod policy;

mod fetched_key_set;
mod issuer_keys;
mod key_set;
mod refusal_log;
mod revocation_file;
mod revocations;
mod secret_file;
mod signature;

#[cfg(test)]
mod fetched_key_set_tests;
#[cfg(test)]
mod revocation_tests;
#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;

pub use access::{Access, RowRule, Scope, TableRules};
pub use development_token::DevelopmentToken;
pub use query_slots::{Slot, Slots};
pub use revocation_file::{Appended, RELOAD_INTERVAL, append_revocation, revocations};
pub use revocations::{Revocation, RevokedTokens, parse_issued_before};
pub use secret_file::{assume_missing_secrets, create_missing_secrets};
pub use verify::{Verifier, revocation_of};
