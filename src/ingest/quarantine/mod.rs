//! The quarantine of each table: lists, replays and drops its entries. An entry is a rejected event.
//!
//! ```text
//!   quarantine ─► session (authorization) ─► reader (finds open entries) ┬─► list
//!       ▲                                                                ├─► replay: decode again ─► store in the table ─┐
//!       │                                                                └─► drop ───────────────────────────────────────┤
//!       └───────────── a row that closes the entry ◄─────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! [`Quarantine`] takes an [`EntryFilter`]. An operator can select all entries. A tenant can select only its own
//! entries. [`Quarantine`] returns counts and entries, and the results of replays and drops.
//!
//! **Invariant:** a quarantine is append-only. An entry is closed by adding a second row. A replay adds the closing row
//! after the event is stored.
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
