//! The quarantine of each table: lists, replays and drops its entries. Each entry is a rejected event.
//!
//! ```text
//!   quarantine ─► session (authorization) ─► reader (finds open entries) ┬─► list
//!       ▲                                                                ├─► replay: decode again ─► store in the table ─┐
//!       │                                                                └─► drop ───────────────────────────────────────┤
//!       └───────────── a row that closes the entry ◄─────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! [`Quarantine`] takes a filter ([`EntryFilter`]) from an operator, or from a tenant for its own entries. It returns
//! counts and entries, and the results of replays and drops.
//!
//! **Invariant:** a quarantine is append-only. An entry is closed by a second row, which a replay writes after the
//! event is stored.
//! **Invariant:** a tenant sees and changes only its own entries.

mod reader;

mod quarantine_access;

mod replay;

mod decode_payloads;

#[cfg(test)]
mod replay_tests;

pub use quarantine_access::EntryPage;
pub use reader::{EntryCount, EntryCursor, EntryFilter, QuarantineEntry};
pub use replay::{DropResult, Quarantine, QuarantineListing, ReplayNote, ReplayResult};
